//! The controller: the real program in a process of its own, with its log in a file.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use jiff::Timestamp;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::{Lab, PATIENCE, POLICY, eventually};

/// Who owns the message sessions.
pub const OWNER: &str = "paddock-e2e";

/// How much of a log is shown when a test fails.
const SHOWN_LINES: usize = 400;

/// A controller that runs; it is killed when this is dropped.
pub struct Controller {
    child: Child,
    log: PathBuf,
    /// Just before its process was started.
    pub started_at: Timestamp,
}

impl Lab {
    /// Starts the controller, its log at level `debug`.
    pub fn start(&self) -> Controller {
        self.start_at_level("debug")
    }

    /// Starts the controller.
    pub fn start_at_level(&self, level: &str) -> Controller {
        self.run(OWNER, "--leader-elect=false", level)
    }

    /// Starts the controller with these variables in its environment.
    pub fn start_with(&self, variables: &[(&str, &str)]) -> Controller {
        self.run_with(OWNER, "--leader-elect=false", "debug", variables)
    }

    /// Starts one of several controllers, of which the one leads that holds the Lease in this namespace.
    pub fn start_candidate(&self, owner: &str) -> Controller {
        self.run(owner, &format!("--lease-namespace={}", self.namespace), "debug")
    }

    /// The same, with the cluster's own identity in place of the lab's.
    pub fn start_candidate_of_the_cluster(&self, owner: &str) -> Controller {
        self.spawn(owner, self.command(owner, &format!("--lease-namespace={}", self.namespace), "debug"))
    }

    fn run(&self, owner: &str, leadership: &str, level: &str) -> Controller {
        self.run_with(owner, leadership, level, &[])
    }

    fn run_with(&self, owner: &str, leadership: &str, level: &str, variables: &[(&str, &str)]) -> Controller {
        let mut command = self.command(owner, leadership, level);
        command.arg(format!("--cluster-id={}", self.cluster)).envs(variables.iter().copied());
        self.spawn(owner, command)
    }

    fn command(&self, owner: &str, leadership: &str, level: &str) -> Command {
        let mut command = Command::new(program());
        command
            .args(["run", "--listen=127.0.0.1:0", leadership])
            .arg(format!("--kubeconfig={}", self.folder.join("kubeconfig").display()))
            .arg(format!("--policy={}", self.folder.join(POLICY).display()))
            .arg(format!("--watch-namespace={}", self.namespace))
            .arg(format!("--log-level={level}"))
            .env("HOSTNAME", owner)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true);
        command
    }

    fn spawn(&self, owner: &str, mut command: Command) -> Controller {
        let started_at = Timestamp::now();
        let log = self.folder.join(format!("controller-{}-{owner}.log", started_at.as_millisecond()));
        let child = command.stderr(File::create(&log).unwrap()).spawn().unwrap();
        Controller { child, log, started_at }
    }
}

impl Controller {
    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Ends it as a crash does.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Asks it to stop as Kubernetes does; how it ended, and after how long.
    pub async fn terminate(mut self) -> (ExitStatus, Duration) {
        let begun = std::time::Instant::now();
        signal(self.pid(), "TERM").await;
        (self.ended().await, begun.elapsed())
    }

    /// Waits until it ends by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        timeout(PATIENCE, self.child.wait()).await.expect("it stops").unwrap()
    }

    /// Asks its web server: the status and the body.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let address = self.address().await;
        let answer = reqwest::get(format!("http://{address}{path}")).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// What one of its metrics counts, by the whole name of the series; nothing yet: 0.
    pub async fn count(&self, series: &str) -> usize {
        let (_, metrics) = self.get("/metrics").await;
        let value = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }

    /// Where its web server is: the log says so.
    pub async fn address(&self) -> SocketAddr {
        eventually("the log names the address", PATIENCE, async || {
            let log = self.log();
            let (_, rest) = log.split_once("address=")?;
            rest.split_whitespace().next()?.parse().ok()
        })
        .await
    }
}

/// Returns the program, which Cargo builds with every test of its package and puts above the tests.
fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().and_then(Path::parent).unwrap().join("paddock")
}

/// Sends a signal to a process.
pub async fn signal(process: u32, name: &str) {
    let mut kill = Command::new("kill");
    assert!(kill.args(["-s", name, &process.to_string()]).status().await.unwrap().success());
}

/// Prints the ends of the controllers' logs, the oldest first.
pub(super) fn show_logs(folder: &Path) {
    let mut logs: Vec<PathBuf> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "log"))
        .collect();
    logs.sort();
    for path in logs {
        let log = fs::read_to_string(&path).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let from = lines.len().saturating_sub(SHOWN_LINES);
        eprintln!("── {}\n{}", path.display(), lines[from..].join("\n"));
    }
}
