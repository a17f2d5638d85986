//! Tasks: what is kept of each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;

use super::definition::Definition;

/// A task's id: 32 hexadecimal digits, the last part of its ARN.
pub type TaskId = String;

/// A tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tag {
    /// The key.
    pub key: String,
    /// The value.
    #[serde(default)]
    pub value: String,
}

/// The states of a task, in the order in which it goes through them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)] // The names are those of the API.
pub enum Status {
    Provisioning,
    Pending,
    Activating,
    Running,
    Deactivating,
    Stopping,
    Deprovisioning,
    Stopped,
}

/// Why a task stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // The names are those of the API.
pub enum StopCode {
    TaskFailedToStart,
    EssentialContainerExited,
    UserInitiated,
    ServiceSchedulerInitiated,
    SpotInterruption,
    TerminationNotice,
    InfrastructureHealth,
}

/// The infrastructure that a task runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)] // The names are those of the API.
pub enum LaunchType {
    Ec2,
    Fargate,
    External,
}

impl LaunchType {
    /// The name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ec2 => "EC2",
            Self::Fargate => "FARGATE",
            Self::External => "EXTERNAL",
        }
    }
}

/// How long a task stays in each state before it goes on by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delays {
    /// PROVISIONING: the network interface is made, or an instance is waited for.
    pub provisioning: Duration,
    /// PENDING: the image is pulled.
    pub pending: Duration,
    /// ACTIVATING: the containers run already.
    pub activating: Duration,
    /// DEACTIVATING: the containers run still.
    pub deactivating: Duration,
    /// STOPPING, once the containers have ended.
    pub stopping: Duration,
    /// DEPROVISIONING: the network interface is taken away.
    pub deprovisioning: Duration,
}

impl Delays {
    /// What Fargate takes, roughly.
    pub fn fargate() -> Self {
        Self {
            provisioning: Duration::from_secs(10),
            pending: Duration::from_secs(15),
            activating: Duration::from_secs(1),
            deactivating: Duration::from_secs(1),
            stopping: Duration::from_secs(2),
            deprovisioning: Duration::from_secs(15),
        }
    }

    /// The same for each state.
    pub fn each(delay: Duration) -> Self {
        Self {
            provisioning: delay,
            pending: delay,
            activating: delay,
            deactivating: delay,
            stopping: delay,
            deprovisioning: delay,
        }
    }

    pub(super) fn of(&self, status: Status) -> Duration {
        match status {
            Status::Provisioning => self.provisioning,
            Status::Pending => self.pending,
            Status::Activating => self.activating,
            Status::Deactivating => self.deactivating,
            Status::Stopping => self.stopping,
            Status::Deprovisioning => self.deprovisioning,
            Status::Running | Status::Stopped => Duration::ZERO,
        }
    }
}

/// How late the service's readers are behind its writers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lag {
    /// ListTasks shows a new task, and forgets one that was stopped, so much later.
    pub list: Duration,
    /// DescribeTasks and StopTask know a new task so much later.
    pub describe: Duration,
}

impl Lag {
    /// The same lag for both.
    pub fn both(lag: Duration) -> Self {
        Self { list: lag, describe: lag }
    }
}

/// A container of a task.
#[derive(Debug, Clone)]
pub struct Container {
    /// The name in the task definition.
    pub name: String,
    /// The ARN.
    pub arn: String,
    /// The image in the task definition.
    pub image: String,
    /// Whether the task ends with the container.
    pub essential: bool,
    /// The environment: the definition's, then the override's.
    pub environment: BTreeMap<String, String>,
    /// Whether the container was started.
    pub started: bool,
    /// Whether the container has ended.
    pub ended: bool,
    /// The exit code, once the container has ended.
    pub exit_code: Option<i64>,
    /// Why the container did not start.
    pub reason: Option<String>,
    /// A process stands behind the container.
    pub(in crate::ecs) has_process: bool,
}

impl Container {
    /// Whether the container is up.
    pub fn is_up(&self) -> bool {
        self.started && !self.ended
    }
}

/// The moments of a task's life.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// RunTask accepted the task.
    pub accepted: Instant,
    /// The task entered PENDING.
    pub created: Option<Instant>,
    /// The images were there.
    pub pulled: Option<Instant>,
    /// The task entered RUNNING.
    pub started: Option<Instant>,
    /// The desired status became STOPPED.
    pub stopping: Option<Instant>,
    /// The containers had ended.
    pub execution_stopped: Option<Instant>,
    /// The task entered STOPPED.
    pub stopped: Option<Instant>,
}

impl Times {
    /// The moments of a task that RunTask has just accepted.
    pub(in crate::ecs) fn new(accepted: Instant) -> Self {
        Self {
            accepted,
            created: None,
            pulled: None,
            started: None,
            stopping: None,
            execution_stopped: None,
            stopped: None,
        }
    }
}

/// A task.
#[derive(Debug, Clone)]
pub struct Task {
    /// The last part of the ARN.
    pub id: TaskId,
    /// The ARN.
    pub arn: String,
    /// The cluster's short name.
    pub cluster: String,
    /// The task definition.
    pub definition: Arc<Definition>,
    /// The infrastructure.
    pub launch_type: LaunchType,
    /// The capacity provider, if a strategy chose one.
    pub provider: Option<String>,
    /// The ARN of the container instance, if the task runs on one.
    pub instance: Option<String>,
    /// `startedBy`.
    pub started_by: Option<String>,
    /// The task group.
    pub group: String,
    /// The overrides, as they came.
    pub overrides: Value,
    /// The tags. StopTask deletes them.
    pub tags: Vec<Tag>,
    /// CPU units and MiB.
    pub cpu: i64,
    /// MiB.
    pub memory: i64,
    /// The subnet of the network interface, for network mode awsvpc.
    pub subnet: Option<String>,
    /// The platform version, on Fargate.
    pub platform_version: Option<String>,
    /// `lastStatus`.
    pub status: Status,
    /// Whether the desired status is STOPPED; else it is RUNNING.
    pub stop_wanted: bool,
    /// Why the task stops.
    pub stop_code: Option<StopCode>,
    /// Why the task stops, in words.
    pub stopped_reason: Option<String>,
    /// Counts the changes.
    pub version: u64,
    /// The containers.
    pub containers: Vec<Container>,
    /// The moments.
    pub times: Times,
    /// Every state that the task was in.
    pub history: Vec<Status>,
    /// The task waits in PROVISIONING for an instance.
    pub(in crate::ecs) awaits_instance: bool,
    /// The task fails in PENDING, for this reason.
    pub(in crate::ecs) fails_to_start: Option<String>,
    /// When the task goes on.
    pub(in crate::ecs) due: Option<Instant>,
    /// When the containers are killed.
    pub(in crate::ecs) kill_due: Option<Instant>,
}

impl Task {
    /// Whether the task runs on Fargate Spot.
    pub fn is_spot(&self) -> bool {
        self.provider.as_deref() == Some("FARGATE_SPOT")
    }

    /// Whether every container that was started has ended.
    pub(super) fn all_ended(&self) -> bool {
        self.containers.iter().all(|container| !container.is_up())
    }

    /// Whether the task holds capacity.
    pub(super) fn holds_capacity(&self) -> bool {
        self.status != Status::Stopped && !self.awaits_instance
    }
}
