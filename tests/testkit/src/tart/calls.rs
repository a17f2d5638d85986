//! The log of every call of `tart` on a Mac: one line at the beginning of each and one at its end.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::scenario::Sim;

/// One call of `tart`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// When it began.
    pub at: Timestamp,
    /// Its process, in the host's own counting.
    pub pid: u32,
    /// Its arguments, the name of the program left out.
    pub args: Vec<String>,
    /// Whether `TART_NO_AUTO_PRUNE` was set.
    pub no_auto_prune: bool,
    /// Its end, if it had one: a call that was killed has none.
    pub end: Option<CallEnd>,
}

/// The end of a [`Call`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallEnd {
    /// The exit code.
    pub code: u8,
    /// How long the call took.
    pub took: Duration,
}

impl Call {
    /// The sub-command.
    pub fn command(&self) -> &str {
        self.args.first().map_or("", String::as_str)
    }
}

#[derive(Serialize, Deserialize)]
enum Line {
    Begin { id: String, at: Timestamp, pid: u32, args: Vec<String>, no_auto_prune: bool },
    End { id: String, at: Timestamp, code: u8 },
}

/// A call that is being logged.
pub(super) struct Logged {
    sim: Sim,
    id: String,
}

impl Logged {
    pub fn begin(sim: &Sim, args: &[String]) -> io::Result<Self> {
        let logged = Self { sim: sim.clone(), id: uuid::Uuid::new_v4().to_string() };
        logged.write(&Line::Begin {
            id: logged.id.clone(),
            at: Timestamp::now(),
            pid: std::process::id(),
            args: args.to_vec(),
            no_auto_prune: std::env::var_os("TART_NO_AUTO_PRUNE").is_some(),
        })?;
        Ok(logged)
    }

    pub fn end(&self, code: u8) -> io::Result<()> {
        self.write(&Line::End { id: self.id.clone(), at: Timestamp::now(), code })
    }

    /// Appends in one write, so that the lines of calls at the same time do not mix; then tells whoever waits for it.
    fn write(&self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        let mut file: File =
            OpenOptions::new().append(true).create(true).open(self.sim.path("calls.jsonl"))?;
        file.write_all(&text)?;
        tell(&self.sim);
        Ok(())
    }
}

/// Tells whoever waits for it that something on the Mac is other than before.
pub(super) fn tell(sim: &Sim) {
    // Nobody may be waiting, or have a full queue: that one will look anyway.
    if let Ok(socket) = UnixDatagram::unbound() {
        let _ = socket.set_nonblocking(true);
        let _ = socket.send_to(b".", sim.path("events.sock"));
    }
}

/// All calls so far, in the order in which they began.
pub(super) fn all(sim: &Sim) -> io::Result<Vec<Call>> {
    let text = match std::fs::read_to_string(sim.path("calls.jsonl")) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    let mut calls: Vec<(String, Call)> = Vec::new();
    for line in text.lines() {
        match serde_json::from_str(line)? {
            Line::Begin { id, at, pid, args, no_auto_prune } => {
                calls.push((id, Call { at, pid, args, no_auto_prune, end: None }));
            }
            Line::End { id, at, code } => {
                if let Some((_, call)) = calls.iter_mut().find(|(begun, _)| *begun == id) {
                    let took = at.duration_since(call.at).unsigned_abs();
                    call.end = Some(CallEnd { code, took });
                }
            }
        }
    }
    Ok(calls.into_iter().map(|(_, call)| call).collect())
}
