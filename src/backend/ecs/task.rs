//! A task as ECS describes it, read for what a runner's instance is.

use aws_sdk_ecs::primitives::DateTime;
use aws_sdk_ecs::types::{Container, Task as Described};
use jiff::Timestamp;

use super::call::shortened;
use super::classify::{Meaning, Source, classify};
use crate::api::{Explanation, Reason};
use crate::runner::{Cause, Exit, Identity, InstanceState};
use crate::time::past;

/// The variable in a runner's environment that says its scale set's UID: StopTask deletes tags.
pub(super) const SCALE_SET_UID: &str = "PADDOCK_SCALE_SET_UID";
/// The variable that says the runner's name.
pub(super) const RUNNER: &str = "PADDOCK_RUNNER";

/// A runner's task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Task {
    /// The last part of its ARN.
    pub(super) id: String,
    /// The runner that it was made for.
    pub(super) runner: String,
    /// The scale set that it belongs to.
    pub(super) scale_set_uid: String,
    /// What its tags say; none once StopTask has deleted them.
    pub(super) tags: Option<Marks>,
    /// The revision of the task definition that it runs.
    pub(super) definition: String,
    /// The container that is the runner.
    pub(super) container: String,
    /// The capacity provider, where one was chosen.
    pub(super) provider: Option<String>,
    /// When it was made.
    pub(super) created_at: Timestamp,
    /// How far it is.
    pub(super) stage: Stage,
}

/// What a task's tags say beside what its environment does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Marks {
    /// `namespace/name` of the scale set.
    pub(super) scale_set: String,
    /// The backend's name in the scale set.
    pub(super) backend: String,
    /// Hash of the template.
    pub(super) template_hash: String,
}

/// How far a task is. It never goes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stage {
    /// PROVISIONING, PENDING or ACTIVATING, by its name.
    Launching(&'static str),
    /// The runner's container runs.
    Running,
    /// The runner's container is to stop, since then.
    Stopping(Timestamp),
    /// The runner's container has ended, or is certain to.
    Ended(Exit),
}

impl Stage {
    /// What an instance does at this stage.
    pub(super) fn state(&self) -> InstanceState {
        match self {
            Stage::Launching(step) => InstanceState::Launching(step),
            Stage::Running | Stage::Stopping(_) => InstanceState::Running,
            Stage::Ended(exit) => InstanceState::Exited(exit.clone()),
        }
    }

    /// Whether the runner's container has ended, or is certain to.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self, Stage::Ended(_))
    }

    /// Later stages have a higher rank.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Stage::Launching("PROVISIONING") => 0,
            Stage::Launching("PENDING") => 1,
            Stage::Launching(_) => 2,
            Stage::Running => 3,
            Stage::Stopping(_) => 4,
            Stage::Ended(_) => 5,
        }
    }
}

impl Task {
    /// Reads a description. None: it is no runner's of this cluster, whose tasks say that they were started by `started_by`.
    pub(super) fn read(task: &Described, started_by: &str) -> Option<Task> {
        if task.started_by() != Some(started_by) {
            return None;
        }
        let id = id_of(task.task_arn()?).to_owned();
        let (container, runner, scale_set_uid) = identity(task)?;
        let created_at = task.created_at().and_then(timestamp).map_or_else(Timestamp::now, past);
        Some(Task {
            id,
            runner,
            scale_set_uid,
            tags: marks(task),
            definition: task.task_definition_arn().unwrap_or_default().to_owned(),
            stage: stage(task, &container, created_at),
            container,
            provider: task.capacity_provider_name().map(str::to_owned),
            created_at,
        })
    }
}

/// The last part of a task's ARN.
pub(super) fn id_of(arn: &str) -> &str {
    arn.rsplit_once('/').map_or(arn, |(_, id)| id)
}

/// The step of the way up that a task is at; none for one that is further.
pub(super) fn launch_step(last_status: &str) -> Option<&'static str> {
    ["PROVISIONING", "PENDING", "ACTIVATING"].into_iter().find(|step| *step == last_status)
}

/// The runner's container, the runner's name and the scale set's UID, by the override's environment.
fn identity(task: &Described) -> Option<(String, String, String)> {
    task.overrides()?.container_overrides().iter().find_map(|container| {
        let value = |name: &str| {
            let pair = container.environment().iter().find(|pair| pair.name() == Some(name))?;
            pair.value().map(str::to_owned)
        };
        Some((container.name()?.to_owned(), value(RUNNER)?, value(SCALE_SET_UID)?))
    })
}

fn marks(task: &Described) -> Option<Marks> {
    let tag = |key: &str| {
        let tag = task.tags().iter().find(|tag| tag.key() == Some(key))?;
        tag.value().map(str::to_owned)
    };
    Some(Marks {
        scale_set: tag(Identity::SCALE_SET)?,
        backend: tag(Identity::BACKEND)?,
        template_hash: tag(Identity::TEMPLATE_HASH)?,
    })
}

fn stage(task: &Described, container: &str, created_at: Timestamp) -> Stage {
    let last = task.last_status().unwrap_or_default();
    let runner = task.containers().iter().find(|known| known.name() == Some(container));
    let over = matches!(last, "DEPROVISIONING" | "STOPPED");
    // A code is an end only of a container that has one.
    let has_ended = |container: &&Container| over || container.last_status() == Some("STOPPED");
    let exit_code = runner.filter(has_ended).and_then(Container::exit_code);
    let stops = task.desired_status() == Some("STOPPED");
    let cause = cause(task, exit_code.is_some());
    // What AWS takes away within two minutes serves nobody any more.
    let doomed = stops && cause.as_ref().is_some_and(|cause| cause.why.reason == Reason::SpotInterruption);
    if over || exit_code.is_some() || doomed {
        let at = [task.execution_stopped_at(), task.stopped_at(), task.stopping_at()];
        let at = at.into_iter().flatten().find_map(timestamp).map_or_else(Timestamp::now, past);
        let out_of_memory =
            runner.and_then(Container::reason).is_some_and(|why| why.starts_with("OutOfMemory"));
        return Stage::Ended(Exit {
            code: exit_code.map(i64::from),
            out_of_memory: out_of_memory && exit_code != Some(0),
            at: at.max(created_at),
            cause,
            leaves_nothing: true,
            log: None,
        });
    }
    match launch_step(last) {
        _ if stops => {
            Stage::Stopping(task.stopping_at().and_then(timestamp).map_or_else(Timestamp::now, past))
        }
        Some(step) => Stage::Launching(step),
        // DEACTIVATING and STOPPING have the desired status STOPPED; a word that is new is of something that runs.
        None => Stage::Running,
    }
}

/// What ended a task, or is about to. None for one that lives, and for one whose runner ended by itself.
fn cause(task: &Described, has_exit_code: bool) -> Option<Cause> {
    let code = task.stop_code().map_or("", |code| code.as_str());
    let said = task.stopped_reason().unwrap_or_default();
    if code.is_empty() && said.is_empty() {
        return None;
    }
    // What the containers say tells more than that one of them did not start.
    let detail = task.containers().iter().find_map(Container::reason).unwrap_or_default();
    let message = match detail {
        "" => shortened(said),
        _ if said.contains(detail) => shortened(said),
        detail => format!("{}: {}", shortened(said), shortened(detail)),
    };
    match classify(Source::StopCode, code, &message) {
        Meaning::Ended { reason, blameless } => {
            Some(Cause { why: Explanation { reason, message }, blameless, rerun: false })
        }
        Meaning::ByItself => None,
        // The exit code says more than a word that is not known.
        _ if has_exit_code => None,
        _ => {
            let message = format!("{code} {message}");
            Some(Cause {
                why: Explanation::new(Reason::Killed, message.trim()),
                blameless: true,
                rerun: false,
            })
        }
    }
}

fn timestamp(at: &DateTime) -> Option<Timestamp> {
    Timestamp::new(at.secs(), i32::try_from(at.subsec_nanos()).ok()?).ok()
}

#[cfg(test)]
pub(super) mod tests {
    use aws_sdk_ecs::types::{ContainerOverride, KeyValuePair, Tag, TaskOverride, TaskStopCode};

    use super::*;

    const STARTED_BY: &str = "paddock-cluster";

    fn described(last: &str, desired: &str) -> aws_sdk_ecs::types::builders::TaskBuilder {
        let pair = |name: &str, value: &str| KeyValuePair::builder().name(name).value(value).build();
        let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build();
        let environment = [pair(RUNNER, "linux-1"), pair(SCALE_SET_UID, "uid")].into();
        let runner = ContainerOverride::builder().name("runner").set_environment(Some(environment)).build();
        Described::builder()
            .task_arn("arn:aws:ecs:eu-west-1:123456789012:task/runners/0123abcd")
            .started_by(STARTED_BY)
            .last_status(last)
            .desired_status(desired)
            .overrides(TaskOverride::builder().container_overrides(runner).build())
            .tags(tag(Identity::SCALE_SET, "ci/linux"))
            .tags(tag(Identity::BACKEND, "aws"))
            .tags(tag(Identity::TEMPLATE_HASH, "hash"))
            .created_at(DateTime::from_secs(100))
    }

    fn runner(exit_code: Option<i32>, why: Option<&str>) -> Container {
        let status = exit_code.map(|_| "STOPPED".to_owned());
        let container = Container::builder().name("runner").set_exit_code(exit_code).set_last_status(status);
        container.set_reason(why.map(str::to_owned)).build()
    }

    fn stage(task: aws_sdk_ecs::types::builders::TaskBuilder) -> Stage {
        Task::read(&task.build(), STARTED_BY).unwrap().stage
    }

    fn exit(task: aws_sdk_ecs::types::builders::TaskBuilder) -> Exit {
        match stage(task) {
            Stage::Ended(exit) => exit,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_task_is_known_by_its_environment_whatever_became_of_its_tags() {
        let task = Task::read(&described("RUNNING", "RUNNING").build(), STARTED_BY).unwrap();
        assert_eq!(
            (task.id.as_str(), task.runner.as_str(), task.scale_set_uid.as_str()),
            ("0123abcd", "linux-1", "uid")
        );
        assert_eq!(task.tags.unwrap().backend, "aws");
        let untagged = described("RUNNING", "RUNNING").set_tags(None).build();
        let task = Task::read(&untagged, STARTED_BY).unwrap();
        assert_eq!((task.tags, task.runner.as_str()), (None, "linux-1"));
        assert!(Task::read(&untagged, "paddock-other").is_none(), "another cluster's");
        let foreign = described("RUNNING", "RUNNING").set_overrides(None).build();
        assert!(Task::read(&foreign, STARTED_BY).is_none());
    }

    #[test]
    fn the_states_in_their_order() {
        let seen: Vec<u8> = ["PROVISIONING", "PENDING", "ACTIVATING", "RUNNING"]
            .map(|last| stage(described(last, "RUNNING")).rank())
            .into();
        assert_eq!(seen, [0, 1, 2, 3]);
        for last in ["PENDING", "RUNNING", "DEACTIVATING", "STOPPING"] {
            assert_eq!(stage(described(last, "STOPPED")).rank(), 4, "{last}");
        }
        for last in ["DEPROVISIONING", "STOPPED"] {
            assert_eq!(stage(described(last, "STOPPED")).rank(), 5, "{last}");
        }
        assert_eq!(stage(described("NEW WORD", "RUNNING")), Stage::Running);
    }

    #[test]
    fn an_exit_code_is_an_end_though_the_task_goes_on() {
        let ended = exit(described("DEACTIVATING", "STOPPED").containers(runner(Some(7), None)));
        assert_eq!((ended.code, ended.cause, ended.out_of_memory), (Some(7), None, false));
        let why = "OutOfMemoryError: Container killed due to memory usage";
        let task = described("STOPPED", "STOPPED").stop_code(TaskStopCode::EssentialContainerExited);
        let ended = exit(
            task.stopped_reason("Essential container in task exited")
                .containers(runner(Some(137), Some(why))),
        );
        assert!(ended.out_of_memory && ended.cause.is_none());
    }

    #[test]
    fn a_code_of_a_container_that_runs_is_no_end() {
        let running = Container::builder().name("runner").exit_code(0).last_status("PENDING").build();
        assert_eq!(stage(described("RUNNING", "RUNNING").containers(running)), Stage::Running);
    }

    #[test]
    fn an_interruption_is_an_end_at_once() {
        let task = described("RUNNING", "STOPPED").stop_code(TaskStopCode::SpotInterruption);
        let ended = exit(task.stopped_reason("Your Spot Task was interrupted."));
        let cause = ended.cause.clone().unwrap();
        assert_eq!((cause.why.reason, cause.blameless, ended.code), (Reason::SpotInterruption, true, None));
        assert!(!ended.clean());
    }

    #[test]
    fn a_task_that_failed_to_start_says_why() {
        let task = described("STOPPED", "STOPPED").stop_code(TaskStopCode::TaskFailedToStart);
        let why = "CannotPullContainerError: image not found";
        let cause = exit(task.stopped_reason("Task failed to start").containers(runner(None, Some(why))))
            .cause
            .unwrap();
        assert_eq!(cause.why.reason, Reason::ImagePullFailed);
        assert_eq!(cause.why.message, format!("Task failed to start: {why}"));
        let lost = described("STOPPED", "STOPPED").stopped_reason("Host EC2 (instance i-0123) terminated.");
        assert_eq!(exit(lost).cause.unwrap().why.reason, Reason::HostLost);
    }

    #[test]
    fn a_time_of_the_future_is_now() {
        let task = described("RUNNING", "RUNNING").created_at(DateTime::from_secs(1 << 40)).build();
        assert!(Task::read(&task, STARTED_BY).unwrap().created_at <= Timestamp::now());
    }
}
