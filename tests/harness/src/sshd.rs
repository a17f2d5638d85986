//! A host with sshd on which an engine has its socket where engines have it: the machine's own is hidden from it.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command as Blocking, Stdio};

use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::{PATIENCE, eventually};

/// A user beside root, who may use no engine.
pub const NOBODY: &str = "ci";

/// Shows the folder `$1` as /run, with the engine's folder `$2` in it, and the file `$3` as the list of users.
const HOST: &str = "mount --bind \"$2\" \"$1/engine\" && mount --rbind \"$1\" /run && mount --bind \"$3\" /etc/passwd && \
                    exec /usr/sbin/sshd -D -e -f \"$4\"";

/// A host with sshd. It ends with this, with all connections to it.
pub struct Sshd {
    folder: PathBuf,
    engine: PathBuf,
    port: u16,
    process: Child,
}

impl Sshd {
    /// Starts one for the engine that has its socket there.
    pub async fn before(name: &str, socket: &Path) -> Sshd {
        let engine = socket.parent().unwrap();
        let folder = std::env::temp_dir().join(format!("{}-{name}", std::process::id()));
        let file = |name: &str| folder.join(name);
        for folder in ["run/sshd", "run/engine"] {
            fs::create_dir_all(file(folder)).unwrap();
        }
        let inside = Path::new("engine").join(socket.file_name().unwrap());
        std::os::unix::fs::symlink(inside, file("run/docker.sock")).unwrap();
        let users = fs::read_to_string("/etc/passwd").unwrap();
        fs::write(file("passwd"), format!("{users}{NOBODY}:x:54321:54321::/tmp:/bin/sh\n")).unwrap();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let place = folder.display();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {place}/host\nAuthorizedKeysFile {place}/user.pub\n\
             PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\n\
             PermitRootLogin prohibit-password\n"
        );
        fs::write(file("config"), config).unwrap();
        make_key(&folder, "host");
        make_key(&folder, "user");
        // sshd reads the key as the user who logs in.
        readable(&folder);
        let process = start(&folder, engine);
        let sshd = Sshd { folder, engine: engine.to_owned(), port, process };
        sshd.listens().await;
        sshd
    }

    /// As `hosts[].endpoint` has it.
    pub fn endpoint(&self, user: &str) -> String {
        format!("ssh://{user}@127.0.0.1:{}", self.port)
    }

    /// The private key that is accepted.
    pub fn private_key(&self) -> String {
        fs::read_to_string(self.folder.join("user")).unwrap()
    }

    /// The host's key as a line of `known_hosts`.
    pub fn known_hosts(&self) -> String {
        let key = fs::read_to_string(self.folder.join("host.pub")).unwrap();
        let words: Vec<&str> = key.split_whitespace().take(2).collect();
        format!("[127.0.0.1]:{} {}\n", self.port, words.join(" "))
    }

    /// Gives the key these options, as `authorized_keys` has them.
    pub fn restrict(&self, options: &str) {
        let key = fs::read_to_string(self.folder.join("user.pub")).unwrap();
        let key = &key[key.find("ssh-ed25519").unwrap()..];
        fs::write(self.folder.join("user.pub"), format!("{options} {key}")).unwrap();
    }

    /// Ends it and all connections.
    pub async fn kill(&mut self) {
        self.process.kill().await.unwrap();
    }

    /// Starts it again.
    pub async fn restart(&mut self) {
        self.process = start(&self.folder, &self.engine);
        self.listens().await;
    }

    async fn listens(&self) {
        eventually("sshd listens", PATIENCE, async || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await.ok()
        })
        .await;
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.process.start_kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn make_key(folder: &Path, name: &str) {
    let mut command = Blocking::new("ssh-keygen");
    command.args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"]).arg(folder.join(name));
    assert!(command.status().unwrap().success(), "no key can be made");
}

/// Lets everybody through to a folder.
fn readable(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
}

/// In a space of processes of its own, so that its connections end with it.
fn start(folder: &Path, engine: &Path) -> Child {
    let log = fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).unwrap();
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", HOST, "sh"])
        .args([folder.join("run"), engine.to_owned(), folder.join("passwd"), folder.join("config")])
        .stdin(Stdio::null())
        .stderr(log)
        .kill_on_drop(true);
    command.spawn().expect("a test needs to start sshd, as root")
}
