//! What the account holds: clusters, task definitions, tasks; and the time.

mod capacity;
mod cluster;
mod definition;
mod lifecycle;
mod placement;
mod task;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

pub use cluster::{Cluster, ClusterSpec, Instance, InstanceSpec, Provider, ProviderKind, StrategyItem};
pub use definition::{Definition, DefinitionStatus, Definitions};
pub use task::{Container, Delays, Lag, LaunchType, Status, StopCode, Tag, Task, TaskId, Times};

pub(super) use placement::{Need, Placement};

use super::auth::Access;
use super::builder::Config;
use super::clock::Clock;
use super::fault::Fault;
use super::process::Orders;
use super::requests::RequestLog;
use super::throttle::Throttle;

/// The most entries of a page.
pub(super) const PAGE: usize = 100;
/// The variable that a runner takes its configuration from.
pub(super) const JIT_VARIABLE: &str = "ACTIONS_RUNNER_INPUT_JITCONFIG";

/// Why a control call came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// No task has this id or ARN.
    #[error("no task {0}")]
    NoSuchTask(String),
    /// No cluster has this name.
    #[error("no cluster {0}")]
    NoSuchCluster(String),
    /// No container instance has this ARN.
    #[error("no container instance {0}")]
    NoSuchInstance(String),
    /// The call does not suit the state.
    #[error("{0}")]
    WrongState(String),
}

/// What RunTask remembers of a client token.
#[derive(Debug)]
pub(super) struct PersistedRunner {
    pub request: Value,
    pub tasks: Vec<TaskId>,
    pub failures: Vec<Value>,
    pub at: Instant,
}

/// The whole state. Times in it are the simulation's.
pub struct State {
    pub(super) config: Config,
    pub(super) clock: Clock,
    pub(super) faults: Vec<Fault>,
    pub(super) requests: RequestLog,
    pub(super) throttle: Throttle,
    pub(super) access: Access,
    pub(super) clusters: BTreeMap<String, Cluster>,
    pub(super) definitions: Definitions,
    pub(super) tasks: BTreeMap<TaskId, Task>,
    pub(super) tokens: BTreeMap<(String, String), PersistedRunner>,
    pub(super) orders: Orders,
    pub(super) lag: Lag,
    held: BTreeSet<Status>,
    changed: watch::Sender<()>,
    alarm: Arc<Notify>,
}

impl State {
    pub(super) fn new(config: Config, orders: Orders, alarm: Arc<Notify>) -> Self {
        let mut state = Self {
            clock: Clock::new(),
            faults: Vec::new(),
            requests: RequestLog::default(),
            throttle: Throttle::new(config.throttling),
            access: Access::new(&config.account, &config.credentials, &config.roles),
            clusters: BTreeMap::new(),
            definitions: Definitions::default(),
            tasks: BTreeMap::new(),
            tokens: BTreeMap::new(),
            orders,
            lag: config.lag,
            held: BTreeSet::new(),
            changed: watch::Sender::new(()),
            alarm,
            config,
        };
        for spec in state.config.clusters.clone() {
            state.add_cluster(spec);
        }
        state
    }

    pub(super) fn add_cluster(&mut self, spec: ClusterSpec) {
        let cluster = Cluster::new(spec, &self.config.region, &self.config.account);
        self.clusters.insert(cluster.name.clone(), cluster);
    }

    /// Tells those who wait that something has changed.
    pub(super) fn touch(&self) {
        self.changed.send_replace(());
        self.alarm.notify_one();
    }

    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Every task that is not forgotten.
    pub fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.tasks.values()
    }

    /// The task of this id or ARN.
    pub fn task(&self, task: &str) -> Option<&Task> {
        self.tasks.get(task.rsplit('/').next().unwrap_or(task))
    }

    /// How many tasks are in a state.
    pub fn tasks_in(&self, status: Status) -> usize {
        self.tasks.values().filter(|task| task.status == status).count()
    }

    /// The cluster of this name.
    pub fn cluster(&self, name: &str) -> Option<&Cluster> {
        self.clusters.get(name)
    }

    /// The task definitions.
    pub fn definitions(&self) -> &Definitions {
        &self.definitions
    }

    /// The requests so far.
    pub fn requests(&self) -> &RequestLog {
        &self.requests
    }

    /// Removes the revisions of task definitions that wait for their last task to stop.
    pub(super) fn sweep_definitions(&mut self) {
        let tasks = &self.tasks;
        let used = |definition: &Definition| {
            tasks.values().any(|task| task.definition.arn == definition.arn && task.status != Status::Stopped)
        };
        self.definitions.sweep(used);
    }
}

/// Every task, one a line: for the message of a wait that came to nothing.
impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for task in self.tasks.values() {
            let history: Vec<String> = task.history.iter().map(|s| format!("{s:?}")).collect();
            let codes: Vec<Option<i64>> = task.containers.iter().map(|c| c.exit_code).collect();
            writeln!(
                f,
                "task {} in {}: {} {:?} {:?} exit codes {codes:?}",
                task.id,
                task.cluster,
                history.join(" "),
                task.stop_code,
                task.stopped_reason.as_deref().unwrap_or_default(),
            )?;
        }
        for request in self.requests.iter().rev().take(20) {
            writeln!(f, "request {} {:?} {:?}", request.operation, request.status, request.exception)?;
        }
        Ok(())
    }
}
