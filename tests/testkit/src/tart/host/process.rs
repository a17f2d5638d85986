//! A Mac's first process, as seen from the test.

use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::process::Command;
use tokio::sync::mpsc;

use super::init::{Order, ROLE, Report};

/// How long one step of it may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Gives sshd the folder that it wants, where nobody else sees it, and starts the first process.
const SETUP: &str = r#"mount -t tmpfs run /run && mkdir -m 755 /run/sshd && exec "$0" "$1""#;

/// A Mac's first process. All of the Mac ends with it.
#[derive(Debug)]
pub(super) struct Process {
    /// Outside of the namespaces; it ends when they are empty.
    outer: Child,
    orders: Option<ChildStdin>,
    reports: mpsc::UnboundedReceiver<Report>,
    inner: Pid,
}

impl Process {
    pub async fn start(tart: &Path) -> io::Result<Self> {
        let mut command = std::process::Command::new("/usr/bin/unshare");
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args([
            "--pid",
            "--mount",
            "--mount-proc",
            "--fork",
            "--kill-child",
            "--propagation",
            "private",
        ]);
        command.args(["--", "/bin/sh", "-c", SETUP]).arg(tart).arg(ROLE);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let mut outer = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let orders = outer.stdin.take();
        let output = outer.stdout.take().ok_or_else(|| io::Error::other("no output"))?;
        let (sender, reports) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Ok(report) = serde_json::from_str(&line)
                    && sender.send(report).is_err()
                {
                    return;
                }
            }
        });
        let mut process = Self { outer, orders, reports, inner: Pid::INIT };
        process.wait_for(|report| *report == Report::Up).await?;
        process.inner = process.child()?;
        Ok(process)
    }

    /// The first process's id as it is seen out here.
    fn child(&self) -> io::Result<Pid> {
        let outer = self.outer.id();
        let children = std::fs::read_to_string(format!("/proc/{outer}/task/{outer}/children"))?;
        let child = children.split_whitespace().next().and_then(|pid| pid.parse().ok());
        child.and_then(Pid::from_raw).ok_or_else(|| io::Error::other("the Mac has no first process"))
    }

    /// Gives an order and waits for what shows that it was carried out.
    pub async fn order(&mut self, order: &Order, until: impl Fn(&Report) -> bool) -> io::Result<Report> {
        let mut text = serde_json::to_vec(order)?;
        text.push(b'\n');
        self.orders.as_ref().ok_or(io::ErrorKind::BrokenPipe)?.write_all(&text)?;
        self.wait_for(until).await
    }

    async fn wait_for(&mut self, is_it: impl Fn(&Report) -> bool) -> io::Result<Report> {
        let wait = async {
            while let Some(report) = self.reports.recv().await {
                if is_it(&report) {
                    return Ok(report);
                }
            }
            Err(io::Error::other("the Mac's first process ended"))
        };
        tokio::time::timeout(PATIENCE, wait).await.map_err(io::Error::other)?
    }

    /// The beginning of a command on the Mac; `env` and its arguments follow.
    pub fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.inner.as_raw_nonzero())).args(["--pid", "--mount"]);
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.args(["--", "/usr/bin/env"]);
        command
    }

    /// Ends it and all that runs on the Mac, and waits until nothing is left.
    pub fn end(mut self) {
        drop(self.orders.take());
        // It was started by us and nobody else waits for it.
        let _ = self.outer.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.orders.take());
        let _ = self.outer.wait();
    }
}

/// Waits until a process that was killed is gone.
pub(super) fn ended(pid: Pid) {
    let time = Timespec::try_from(PATIENCE).ok();
    if let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) {
        let _ = poll(&mut [PollFd::new(&process, PollFlags::IN)], time.as_ref());
    }
}
