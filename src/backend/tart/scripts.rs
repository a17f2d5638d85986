//! What is run on a host: constant texts for any POSIX shell with nothing but what macOS has (no `setsid`, `timeout` or
//! `flock`). `$1` of each is `TART_HOME`, empty for Tart's own default; what follows is in the line above each.
//!
//! Beside its VMs a host keeps a folder of notes for each: `record` (see `record.rs`), `runner` (its name), `started`, `exit`
//! (the runner's exit code and when), `run` (what `tart run` printed), `ran` (its exit code and when), `log` (the end of what
//! the runner printed). What must outlive the connection ignores hang-ups (macOS's own `nohup` refuses without a console), in a process
//! group of its own where the shell can: sshd signals the group of a command that is ended.

/// A text with what all have in common before it: where Homebrew puts Tart, that Tart must not remove images by itself, and
/// the folder of notes.
macro_rules! script {
    ($text:literal) => {
        concat!(
            "PATH=$PATH:/opt/homebrew/bin:/usr/local/bin\n",
            "export PATH TART_NO_AUTO_PRUNE=1\n",
            "if [ -n \"$1\" ]; then export TART_HOME=\"$1\"; fi\n",
            "home=${TART_HOME:-$HOME/.tart}\n",
            "notes=$home/paddock\n",
            "shift\n",
            $text
        )
    };
}

/// There are no notes of that VM.
pub(super) const NO_SUCH_VM: u32 = 80;
/// The VM is not whose it is asked to be.
pub(super) const NOT_OWN: u32 = 81;
/// The guest agent does not answer yet.
pub(super) const NOT_YET: u32 = 82;
/// The VM runs no more.
pub(super) const RAN: u32 = 83;

/// All notes, then all VMs and images. The notes come first: a VM that is removed in between is shown as ended, never one that
/// is made in between.
pub(super) const LIST: &str = script!(
    r#"for dir in "$notes"/*/; do
  [ -f "$dir/record" ] || continue
  name=${dir%/}
  printf 'vm %s\n' "${name##*/}"
  for note in record runner started exit; do
    if [ -f "$dir/$note" ]; then
      line=
      IFS= read -r line <"$dir/$note"
      printf '%s %s\n' "$note" "$line"
    fi
  done
done
echo list
exec tart list --format json </dev/null
"#
);

/// Prints Tart's version, and then the disk that has the VMs as `df` tells of it, in KiB.
pub(super) const EXAMINE: &str = script!(
    r#"tart --version </dev/null || exit
[ -d "$home" ] || home=$HOME
exec df -Pk "$home"
"#
);

/// Prints a line whenever a VM or a runner has ended, and now and then another, which ends the script when nobody reads it.
pub(super) const WATCH: &str = script!(
    r#"last= beat=0
while [ $beat -lt 1200 ]; do
  set -- "$notes"/*/exit "$notes"/*/ran
  if [ "$*" != "$last" ]; then
    last=$*
    echo ended
  elif [ $((beat % 20)) -eq 0 ]; then
    echo
  fi
  beat=$((beat + 1))
  sleep 0.5
done
"#
);

/// name, record, image: makes a VM of a name that nobody has. `clone` replaces what has the name, and may fail with the VM there.
/// Whoever gives the VM up meanwhile takes the record away.
pub(super) const CLONE: &str = script!(
    r#"mkdir -p "$notes" && mkdir "$notes/$1" || exit
if [ -e "$home/vms/$1" ]; then echo "a VM of the name $1 is there already" >&2; exit 1; fi
printf '%s\n' "$2" >"$notes/$1/record.new" && mv "$notes/$1/record.new" "$notes/$1/record" || {
  rm -rf "$notes/$1"
  exit 1
}
tart clone "$3" "$1" </dev/null >/dev/null || exit
if [ ! -f "$notes/$1/record" ]; then tart delete "$1" </dev/null; exit 1; fi
"#
);

/// name, CPUs, megabytes, MAC: sets what the VM is like, each unless empty. Tart has no command for a MAC that is given, and
/// finds a VM that runs by a lock on its configuration, which is therefore written in place.
pub(super) const CONFIGURE: &str = script!(
    r#"if [ -n "$2" ]; then tart set "$1" --cpu "$2" </dev/null || exit; fi
if [ -n "$3" ]; then tart set "$1" --memory "$3" </dev/null || exit; fi
config=$home/vms/$1/config.json
sed "s/\"macAddress\" *: *\"[^\"]*\"/\"macAddress\" : \"$4\"/" "$config" >"$notes/$1/config" || exit
cat "$notes/$1/config" >"$config" || exit
rm -f "$notes/$1/config"
grep -q "\"macAddress\" : \"$4\"" "$config" || { echo "the MAC address cannot be set in $config" >&2; exit 1; }
"#
);

/// name: runs the VM.
pub(super) const RUN: &str = script!(
    r#"[ -f "$notes/$1/record" ] || exit 80
set -m 2>/dev/null
/bin/sh -c '
  trap "" HUP
  tart run --no-graphics "$1" </dev/null >"$2/run" 2>&1
  echo "$? $(date +%s)" >"$2/ran.new" && mv "$2/ran.new" "$2/ran"
' paddock "$1" "$notes/$1" </dev/null >/dev/null 2>&1 &
"#
);

/// name, attempts that may wait at a time: asks whether the guest agent answers, anew every 0.15 s, twice as often as may wait.
/// An attempt that comes too early is not refused: Tart tries again by itself in steps that grow, for half a minute. Attempts and
/// the clock end by themselves where the connection breaks.
pub(super) const PROBE: &str = script!(
    r#"dir=$notes/$1
[ -f "$dir/record" ] || exit 80
name=$1 most=$2 asked=0
fifo=$(mktemp -d) && mkfifo "$fifo/up" && exec 3<>"$fifo/up" || exit
rm -r "$fifo"
(
  ticks=0
  while [ $ticks -le $((2 * most)) ]; do
    echo tick
    ticks=$((ticks + 1))
    sleep 0.15
  done
) </dev/null >&3 2>/dev/null &
clock=$!
set --
while read -r word <&3; do
  if [ "$word" = up ] || [ $asked -ge $((2 * most)) ] || [ -f "$dir/ran" ]; then break; fi
  asked=$((asked + 1))
  /bin/sh -c '
    tart exec "$1" true >/dev/null &
    attempt=$!
    trap "kill $attempt" TERM
    wait $attempt && echo up
  ' paddock "$name" </dev/null >&3 2>/dev/null &
  set -- "$@" $!
  if [ $# -gt "$most" ]; then
    kill "$1" 2>/dev/null
    shift
  fi
done
kill $clock "$@" 2>/dev/null
if [ "$word" = up ]; then exit 0; fi
if [ -f "$dir/ran" ]; then cat "$dir/run" >&2; exit 83; fi
exit 82
"#
);

/// name, runner, folder of the runner in the guest, two texts for the guest; on standard input the JIT configuration, which is
/// written on no disk of the host: starts a runner.
pub(super) const START: &str = script!(
    r#"dir=$notes/$1
[ -f "$dir/record" ] || exit 80
printf '%s\n' "$2" >"$dir/runner.new" && mv "$dir/runner.new" "$dir/runner" || exit
tart exec -i "$1" /bin/sh -c "$4" paddock "$3" || exit
set -m 2>/dev/null
/bin/sh -c '
  trap "" HUP
  tart exec "$1" /bin/sh -c "$4" paddock "$3" </dev/null >"$2/code" 2>"$2/log"
  code=
  read -r code <"$2/code"
  echo "$code $(date +%s)" >"$2/exit.new" && mv "$2/exit.new" "$2/exit"
' paddock "$1" "$dir" "$3" "$5" </dev/null >/dev/null 2>&1 &
date +%s >"$dir/started.new" && mv "$dir/started.new" "$dir/started"
"#
);

/// In a guest: the folder of the runner; on standard input the JIT configuration, for a file that its user alone can read.
pub(super) const GUEST_RECEIVES: &str = r#"umask 077
cd "$1" && rm -f .paddock-jit && cat >.paddock-jit && [ -s .paddock-jit ]
"#;

/// In a guest: the folder of the runner. Runs it to its end, prints the end of what it printed on standard error, and its exit
/// code on standard output. Whatever a job leaves running holds neither of the two.
pub(super) const GUEST_RUNS: &str = r#"cd "$1" || exit
ACTIONS_RUNNER_INPUT_JITCONFIG=$(cat .paddock-jit) || exit
rm -f .paddock-jit
export ACTIONS_RUNNER_INPUT_JITCONFIG ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE=1
./run.sh </dev/null >.paddock-log 2>&1
code=$?
tail -c 4096 .paddock-log >&2
echo $code
"#;

/// name, two marks that the record must have: stops the VM and removes it and its notes. Whatever noted its end at the same
/// moment would hinder the removal of a folder, but not its renaming.
pub(super) const REMOVE: &str = script!(
    r#"dir=$notes/$1
[ -f "$dir/record" ] || exit 80
grep -qF -- "$2" "$dir/record" && grep -qF -- "$3" "$dir/record" || exit 81
if [ -e "$home/vms/$1" ]; then
  tart stop --timeout 5 "$1" </dev/null >/dev/null 2>&1
  tart delete "$1" </dev/null >/dev/null || [ ! -e "$home/vms/$1" ] || exit 1
fi
mv "$dir" "$notes/.gone-$1" || exit
rm -rf "$notes"/.gone-* 2>/dev/null || { sleep 0.2; rm -rf "$notes"/.gone-* 2>/dev/null; }
exit 0
"#
);

/// name, two marks that the record must have, folder of the runner in the guest: prints the end of what the runner printed, or
/// of what `tart run` did.
pub(super) const LOG: &str = script!(
    r#"dir=$notes/$1
[ -f "$dir/record" ] || exit 80
grep -qF -- "$2" "$dir/record" && grep -qF -- "$3" "$dir/record" || exit 81
if [ -s "$dir/log" ]; then
  tail -c 2048 "$dir/log"
elif [ -f "$dir/started" ] && [ ! -f "$dir/ran" ]; then
  tart exec "$1" tail -c 2048 "$4/.paddock-log" </dev/null 2>/dev/null
elif [ -s "$dir/run" ]; then
  tail -c 2048 "$dir/run"
fi
exit 0
"#
);

/// image: pulls it, as far as it is not there, and prints its digest last.
pub(super) const PULL: &str = script!(
    r#"tart pull "$1" </dev/null || exit
name=$(tart fqn "$1" </dev/null 2>/dev/null) || exit 0
printf 'digest %s\n' "${name##*@}"
"#
);

/// days, gigabytes: removes pulled images that were not used for so long, and those that were used least recently until the
/// rest fits. No local VM is touched. Prints the cache's size before and after, in KiB.
pub(super) const PRUNE: &str = script!(
    r#"size() { du -sk "$home/cache" 2>/dev/null | cut -f 1; }
echo "before $(size)"
tart prune --entries caches --older-than "$1" --space-budget "$2" </dev/null || exit
echo "after $(size)"
"#
);

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const ALL: [&str; 12] =
        [LIST, WATCH, CLONE, CONFIGURE, RUN, PROBE, START, GUEST_RECEIVES, GUEST_RUNS, REMOVE, LOG, PULL];

    #[test]
    fn every_text_is_one_that_a_posix_shell_reads() {
        for text in ALL.into_iter().chain([PRUNE]) {
            let checked = Command::new("sh").args(["-n", "-c", text]).output().unwrap();
            assert!(checked.status.success(), "{}\n{text}", String::from_utf8_lossy(&checked.stderr));
        }
    }

    #[test]
    fn the_texts_exit_with_the_codes_that_are_read() {
        let codes =
            [(NO_SUCH_VM, REMOVE), (NOT_OWN, REMOVE), (NOT_YET, PROBE), (RAN, PROBE), (NO_SUCH_VM, RUN)];
        for (code, text) in codes {
            assert!(text.contains(&format!("exit {code}")));
        }
    }

    #[test]
    fn no_text_needs_what_a_mac_has_not() {
        for text in ALL {
            for word in ["setsid", "timeout ", "flock", "sed -i", "--color", "readlink -f"] {
                let flags = text.replace("--timeout 5", "");
                assert!(!flags.contains(word), "{word}");
            }
        }
    }
}
