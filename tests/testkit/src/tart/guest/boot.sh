# Makes the guest's file tree on a memory disk and becomes the guest agent. Runs as the first process of a PID namespace, in
# a mount namespace of its own: nothing of this is seen outside.
#   $1  the VM's .guest folder     $2  the stand-in     the rest: programs that a guest may have
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin
guest=$1 program=$2 root=/mnt
shift 2

mount -t tmpfs -o mode=755 guest "$root"
mkdir -p "$root/.linux/usr" "$root/usr/bin" "$root/usr/local/bin" "$root/.host" "$root/proc" "$root/dev" "$root/etc" \
  "$root/Users" "$root/private/tmp" "$root/private/var/tmp"
chmod 1777 "$root/private/tmp" "$root/private/var/tmp"
mount --bind /usr "$root/.linux/usr"
mount --rbind /dev "$root/dev"
mount --bind /etc "$root/etc"
mount -t proc proc "$root/proc"
mount --bind "$guest" "$root/.host"
mount --bind "$guest/disk/Users" "$root/Users"
touch "$root/.linux/tart"
mount --bind "$program" "$root/.linux/tart"
ln -s usr/bin "$root/bin"
ln -s usr/bin "$root/sbin"
ln -s private/tmp private/var "$root"
ln -s .linux/usr/lib "$root/lib"
[ ! -d /usr/lib64 ] || ln -s .linux/usr/lib64 "$root/lib64"
ln -s ../.linux/usr/lib ../.linux/usr/share "$root/usr"
for name; do
  [ ! -e "/usr/bin/$name" ] || set -- "$@" "/.linux/usr/bin/$name"
  shift
done
ln -s -t "$root/usr/bin" "$@"
ln -s bash "$root/usr/bin/zsh"
ln -s bin "$root/usr/sbin"

cat >"$root/usr/bin/sudo" <<'SUDO'
#!/bin/sh
while [ $# -gt 0 ]; do
  case $1 in -*) shift ;; *) break ;; esac
done
exec "$@"
SUDO
printf '#!/bin/sh\nkill -TERM 1\n' >"$root/usr/bin/shutdown"
cp "$root/usr/bin/shutdown" "$root/usr/bin/halt"
chmod 755 "$root/usr/bin/sudo" "$root/usr/bin/shutdown" "$root/usr/bin/halt"

exec env -i HOME=/Users/admin USER=admin LOGNAME=admin SHELL=/bin/zsh PATH=/usr/bin:/bin:/usr/sbin:/sbin TMPDIR=/private/tmp \
  /usr/sbin/chroot "$root" /.linux/tart __guest
