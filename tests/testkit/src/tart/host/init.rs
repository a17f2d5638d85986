//! The first process on a Mac with sshd: it starts sshd when it is told to, signals it, and waits for whatever ends.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Command, ExitCode, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::super::reaper::Reaper;

/// The argument by which the stand-in knows that it is this process.
pub(in super::super) const ROLE: &str = "__host";

/// What it is told, a line of JSON each.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// Start sshd with these arguments, the path of the program first.
    Sshd(Vec<String>),
    /// End sshd and all of its connections, but nothing that was started through them.
    KillSshd,
    /// Let sshd and its connections answer no more.
    FreezeSshd,
    /// Let them answer again.
    ThawSshd,
}

/// What it says, a line of JSON each.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Report {
    /// It is there.
    Up,
    /// An order other than to start was carried out.
    Done,
    /// A line of sshd's log.
    Log(String),
}

/// Serves until its standard input ends.
pub(in super::super) fn serve() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let served = runtime.and_then(|runtime| {
        runtime.block_on(async {
            let reaper = Reaper::start()?;
            say(&Report::Up)?;
            tokio::task::spawn_blocking(move || obey(&reaper)).await.map_err(io::Error::other)?
        })
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("host: {error}");
            ExitCode::FAILURE
        }
    }
}

fn obey(reaper: &Reaper) -> io::Result<()> {
    for line in io::stdin().lines() {
        match serde_json::from_str(&line?)? {
            Order::Sshd(arguments) => sshd(reaper, &arguments)?,
            Order::KillSshd => signal_sshd(Signal::KILL)?,
            Order::FreezeSshd => signal_sshd(Signal::STOP)?,
            Order::ThawSshd => signal_sshd(Signal::CONT)?,
        }
    }
    // Not by returning: nothing here is worth waiting for, and the namespace ends with this process.
    std::process::exit(0)
}

fn sshd(reaper: &Reaper, arguments: &[String]) -> io::Result<()> {
    let [program, arguments @ ..] = arguments else { return Ok(()) };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let (mut child, _end) = reaper.spawn(&mut command)?;
    if let Some(log) = child.stderr.take() {
        std::thread::spawn(move || tell(log));
    }
    Ok(())
}

fn tell(log: impl Read) -> io::Result<()> {
    BufReader::new(log).lines().try_for_each(|line| say(&Report::Log(line?)))
}

fn signal_sshd(signal: Signal) -> io::Result<()> {
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let pid = entry.file_name().to_string_lossy().parse().ok().and_then(Pid::from_raw);
        let Some(pid) = pid else { continue };
        let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        // `sshd-session` and `sshd-auth` in later versions.
        if name.starts_with("sshd") {
            // It may be gone meanwhile.
            let _ = kill_process(pid, signal);
        }
    }
    say(&Report::Done)
}

fn say(report: &Report) -> io::Result<()> {
    let mut text = serde_json::to_vec(report)?;
    text.push(b'\n');
    io::stdout().lock().write_all(&text)
}
