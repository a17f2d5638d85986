//! Processes behind tasks: the runner stand-in, with the container's environment.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use super::Inner;
use super::state::TaskId;

/// The exit code of a container whose program could not be started.
const NOT_STARTED: i64 = 127;

/// What the state wants done to a process.
#[derive(Debug)]
pub(super) enum Order {
    Start { task: TaskId, container: String, environment: BTreeMap<String, String> },
    Signal { task: TaskId, kill: bool },
}

/// Where the state sends its orders.
#[derive(Debug, Clone)]
pub(super) struct Orders(mpsc::UnboundedSender<Order>);

impl Orders {
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Order>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    /// Sends an order; when the simulation has stopped, nobody is there to heed it.
    pub fn send(&self, order: Order) {
        let _ = self.0.send(order);
    }
}

/// Starts and signals processes until the simulation stops, which kills them.
pub(super) async fn supervise(inner: Arc<Inner>, mut orders: mpsc::UnboundedReceiver<Order>) {
    let mut running: HashMap<TaskId, mpsc::UnboundedSender<bool>> = HashMap::new();
    loop {
        let order = tokio::select! {
            order = orders.recv() => order,
            () = inner.stop.cancelled() => None,
        };
        match order {
            Some(Order::Start { task, container, environment }) => {
                let (signals, receiver) = mpsc::unbounded_channel();
                running.retain(|_, signals| !signals.is_closed());
                running.insert(task.clone(), signals);
                tokio::spawn(run(Arc::clone(&inner), task, container, environment, receiver));
            }
            Some(Order::Signal { task, kill }) => {
                if let Some(signals) = running.get(&task) {
                    let _ = signals.send(kill);
                }
            }
            None => return,
        }
    }
}

async fn run(
    inner: Arc<Inner>,
    task: TaskId,
    container: String,
    environment: BTreeMap<String, String>,
    mut signals: mpsc::UnboundedReceiver<bool>,
) {
    let spawned = inner.config.runner.as_deref().map(|program| spawn(program, &environment));
    let code = match spawned {
        Some(Ok(mut child)) => loop {
            tokio::select! {
                status = child.wait() => break status.map_or(NOT_STARTED, exit_code),
                Some(kill) = signals.recv() => signal(&mut child, kill).await,
                () = inner.stop.cancelled() => return,
            }
        },
        Some(Err(_)) | None => NOT_STARTED,
    };
    let mut state = inner.lock();
    let at = state.clock.now();
    state.container_ended(&task, &container, Some(code), at);
}

fn spawn(program: &Path, environment: &BTreeMap<String, String>) -> io::Result<Child> {
    let mut command = Command::new(program);
    command.env_clear().envs(environment).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.kill_on_drop(true).spawn()
}

/// Sends KILL, or TERM by the program `kill`: the child is not reaped yet, so its id is still its own.
async fn signal(child: &mut Child, kill: bool) {
    let sent = match child.id() {
        Some(_) if kill => child.start_kill(),
        Some(id) => Command::new("kill").args(["-TERM", &id.to_string()]).status().await.map(|_| ()),
        None => Ok(()),
    };
    if sent.is_err() {
        let _ = child.start_kill();
    }
}

fn exit_code(status: ExitStatus) -> i64 {
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    i64::from(code.unwrap_or(-1))
}
