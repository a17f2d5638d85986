//! A Docker engine that a test may kill and freeze: on its own, with its own data, in a network of its own.

use std::fs::{self, OpenOptions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command as Blocking, Stdio};
use std::time::Duration;

use bollard::Docker;
use serde_json::json;
use tokio::process::{Child, Command};

use super::door::{self, Door};
use super::{Authority, BUSYBOX, IMAGE, PATIENCE, eventually, found_blocking, signal};

/// How long an engine may take to end when it is asked to.
const STOP: Duration = Duration::from_secs(5);

/// A Docker engine. It ends with this, with all that it ran.
pub struct Engine {
    folder: PathBuf,
    endpoint: String,
    /// Keeps the network, in which GitHub is to be found at the address that it has outside.
    network: Child,
    process: Child,
    /// What more it listens on.
    tls: Vec<String>,
    door: Door,
    /// A client that connects anew for each request.
    pub docker: Docker,
}

impl Engine {
    /// Starts one that has the runners' image, and whose containers reach `github`.
    pub async fn start(name: &str, github: SocketAddr) -> Engine {
        // The paths of an engine's sockets are long, and may not be too long.
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).unwrap();
        let endpoint = format!("unix://{}", folder.join("d.sock").display());
        configure(&folder);
        let network = network(github).await;
        let door = Door::open().await;
        door.lead_to(network.id().unwrap());
        let process = dockerd(&folder, &endpoint, &network, &[]);
        let docker = answers(&endpoint).await;
        let engine = Engine { folder, endpoint, network, process, tls: Vec::new(), door, docker };
        engine.load(IMAGE).await;
        engine
    }

    /// Gives it an image of the machine's own engine.
    pub async fn load(&self, image: &str) {
        let copy = format!("docker save {image} | docker --host {} load", self.endpoint);
        let done = Command::new("sh").args(["-c", &copy]).stdout(Stdio::null()).status().await;
        assert!(done.unwrap().success(), "{image}: run `make image`");
    }

    /// Starts it anew, listening with TLS as well for whomever an authority certified.
    pub async fn with_tls(mut self, authority: &Authority) -> Engine {
        self.kill().await;
        self.tls = door::arguments(&self.folder, authority);
        self.restart().await;
        self
    }

    /// Where it is reached.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Where it is reached with TLS.
    pub fn tls_endpoint(&self) -> String {
        self.door.endpoint()
    }

    /// Where its socket is.
    pub fn socket(&self) -> &Path {
        Path::new(self.endpoint.trim_start_matches("unix://"))
    }

    /// Kills it. Its containers run on.
    pub async fn kill(&mut self) {
        self.process.kill().await.unwrap();
    }

    /// Starts it again, with what it had. What still runs of its containers, it ends.
    pub async fn restart(&mut self) {
        self.process = dockerd(&self.folder, &self.endpoint, &self.network, &self.tls);
        answers(&self.endpoint).await;
    }

    /// Freezes it. Its containers run on.
    pub async fn freeze(&self) {
        signal(self.process.id().unwrap(), "STOP").await;
    }

    /// Ends its frost.
    pub async fn thaw(&self) {
        signal(self.process.id().unwrap(), "CONT").await;
    }
}

/// A client of the engine, once it answers.
async fn answers(endpoint: &str) -> Docker {
    eventually("the engine answers", PATIENCE, async || {
        let docker = Docker::connect_with_unix(endpoint, 60, bollard::API_DEFAULT_VERSION).ok()?;
        tokio::time::timeout(Duration::from_secs(1), docker.negotiate_version()).await.ok()?.ok()
    })
    .await
}

impl Drop for Engine {
    fn drop(&mut self) {
        let label = ["ps", "--all", "--quiet"];
        let docker =
            |args: &[&str]| Blocking::new("docker").arg("--host").arg(&self.endpoint).args(args).output();
        if let Some(pid) = self.process.id() {
            let _ = Blocking::new("kill").args(["-s", "CONT", &pid.to_string()]).status();
        }
        if let Ok(list) = docker(&label) {
            let list = String::from_utf8_lossy(&list.stdout).into_owned();
            let ids: Vec<&str> = list.split_whitespace().collect();
            if !ids.is_empty() {
                let _ = docker(&[&["rm", "--force"], ids.as_slice()].concat());
            }
        }
        if let Some(pid) = self.process.id() {
            let _ = Blocking::new("kill").arg(pid.to_string()).status();
            found_blocking(STOP, || (!matches!(self.process.try_wait(), Ok(None))).then_some(()));
        }
        unmount_below(&self.folder);
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Starts what an engine hands to runc without the one capability that a machine in a sandbox may lack: `--privileged` asks for
/// it too.
const WITHOUT_RESOURCE: &str = r#"#!/bin/sh
for word; do
  case $before in
    --bundle) sed -i 's/"CAP_SYS_RESOURCE",//g; s/,"CAP_SYS_RESOURCE"//g' "$word/config.json" ;;
    --process) sed -i 's/"CAP_SYS_RESOURCE",//g; s/,"CAP_SYS_RESOURCE"//g' "$word" ;;
  esac
  before=$word
done
exec runc "$@"
"#;
/// The number of that capability.
const SYS_RESOURCE: u32 = 24;

/// Writes the configuration of an engine that has all that is its in a folder.
pub fn configure(folder: &Path) {
    // Engines of 20.10 read their identity from a place that they would share.
    let mut config = json!({"deprecated-key-path": folder.join("key.json")});
    if !has_capability(SYS_RESOURCE) {
        let runtime = folder.join("runc");
        fs::write(&runtime, WITHOUT_RESOURCE).unwrap();
        fs::set_permissions(&runtime, fs::Permissions::from_mode(0o755)).unwrap();
        config["runtimes"] = json!({"limited": {"path": runtime}});
        config["default-runtime"] = "limited".into();
    }
    fs::write(folder.join("daemon.json"), config.to_string()).unwrap();
}

/// Whether this machine lets a process have a capability.
fn has_capability(number: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bound = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let bound = bound.and_then(|bound| u64::from_str_radix(bound.trim(), 16).ok());
    bound.is_none_or(|bound| bound >> number & 1 == 1)
}

/// The arguments of `dockerd` for such an engine, without a bridge: it would take the machine's.
pub fn arguments(folder: &Path, endpoint: &str) -> Vec<String> {
    let file = |name: &str| folder.join(name).display().to_string();
    let own = [
        ("--host", endpoint.to_owned()),
        ("--config-file", file("daemon.json")),
        ("--data-root", file("data")),
        ("--exec-root", file("exec")),
        ("--pidfile", file("d.pid")),
    ];
    let shared = [
        "--bridge=none",
        "--iptables=false",
        "--ip6tables=false",
        "--ip-masq=false",
        "--storage-driver=overlay2",
    ];
    let own = own.into_iter().map(|(flag, value)| format!("{flag}={value}"));
    shared.into_iter().map(str::to_owned).chain(own).collect()
}

/// Starts `dockerd` in a network of its own, with a loopback device: an engine without a bridge deletes `docker0`, which is
/// the machine's.
pub fn in_own_network() -> Command {
    let mut command = Command::new("unshare");
    let script = format!("{BUSYBOX} ip link set lo up && exec dockerd \"$@\"");
    command.args(["--net", "sh", "-c", &script, "dockerd"]);
    command
}

/// Unmounts what an engine that was killed left mounted below its folder: it would keep that.
pub fn unmount_below(folder: &Path) {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let own = folder.display().to_string();
    for mount in mounts.lines().filter_map(|l| l.split(' ').nth(1)).filter(|path| path.starts_with(&own)) {
        let _ = Blocking::new("umount").args(["-l", mount]).status();
    }
}

/// A network without a way out, in which connections to an address of this machine come to it all the same: an engine
/// in the machine's own would take its bridge away.
async fn network(address: SocketAddr) -> Child {
    let (ip, port) = (address.ip(), address.port());
    let outside = format!("nsenter --net=/proc/{}/ns/net {BUSYBOX} nc {ip} {port}", std::process::id());
    let script = format!("{BUSYBOX} ip link set lo up && exec {BUSYBOX} nc -ll -p {port} -e {outside}");
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", &script]).stdin(Stdio::null()).kill_on_drop(true);
    let network = command.spawn().expect("a test needs to make a network, as root");
    let process = format!("/proc/{}", network.id().unwrap());
    eventually("the network is its own", PATIENCE, async || {
        let namespace = |process: &str| fs::read_link(format!("{process}/ns/net")).ok();
        let busy = fs::read_to_string(format!("{process}/comm")).ok()?.trim() == "busybox";
        (busy && namespace(&process)? != namespace("/proc/self")?).then_some(())
    })
    .await;
    network
}

fn dockerd(folder: &Path, endpoint: &str, network: &Child, more: &[String]) -> Child {
    let file = |name: &str| folder.join(name);
    let log = OpenOptions::new().create(true).append(true).open(file("engine-log")).unwrap();
    // The numbers of processes that were killed are taken for live ones, where others have them or nobody reaps.
    for stale in ["d.pid", "exec/containerd/containerd.pid"] {
        let _ = fs::remove_file(file(stale));
    }
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net=/proc/{}/ns/net", network.id().unwrap()))
        .arg("dockerd")
        .env("TMPDIR", folder)
        .args(arguments(folder, endpoint))
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true);
    command.spawn().expect("a test needs to start an engine, as root")
}
