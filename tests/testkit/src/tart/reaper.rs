//! What the first process of a PID namespace owes: every process that ends there is waited for, its own children and those
//! that were left to it.

use std::collections::HashMap;
use std::io;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Pid, WaitOptions, WaitStatus, wait};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Waits for all processes, and tells the ends of those that it started.
#[derive(Clone, Default)]
pub(super) struct Reaper {
    waiting: Arc<Mutex<HashMap<Pid, oneshot::Sender<u8>>>>,
}

/// The end of a process: its exit code, or 255 if a signal killed it.
pub(super) type End = oneshot::Receiver<u8>;

impl Reaper {
    /// Begins to wait. In the runtime's own task, for as long as it runs.
    pub fn start() -> io::Result<Self> {
        let reaper = Self::default();
        let mut ended = signal(SignalKind::child())?;
        let of_task = reaper.clone();
        tokio::spawn(async move {
            while ended.recv().await.is_some() {
                of_task.reap();
            }
        });
        Ok(reaper)
    }

    /// Starts a process. Nobody else may wait for it.
    pub fn spawn(&self, command: &mut Command) -> io::Result<(Child, End)> {
        let (sender, receiver) = oneshot::channel();
        // Under the lock, so that an end is not seen before its receiver is known.
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let child = command.spawn()?;
        if let Some(pid) = Pid::from_raw(child.id().cast_signed()) {
            waiting.insert(pid, sender);
        }
        Ok((child, receiver))
    }

    fn reap(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if let Some(sender) = waiting.remove(&pid) {
                // Whoever started it may not care for its end.
                let _ = sender.send(code(status));
            }
        }
    }
}

fn code(status: WaitStatus) -> u8 {
    status.exit_status().and_then(|code| u8::try_from(code).ok()).unwrap_or(255)
}
