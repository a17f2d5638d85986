//! The builders that `docker buildx` leaves behind: containers by its own names, each with a volume for its state.

use std::collections::HashMap;
use std::time::Duration;

use bollard::Docker;
use bollard::models::{ContainerSummary, ContainerSummaryStateEnum};
use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListVolumesOptionsBuilder, RemoveContainerOptionsBuilder,
    RemoveVolumeOptions, TopOptions,
};
use jiff::Timestamp;
use tracing::debug;

use crate::backend::Error;
use crate::backend::docker::failure::call;
use crate::time::Plus;

/// How buildx names a builder's container, and the state of `NAME` its volume `NAME_state`.
const PREFIX: &str = "buildx_buildkit_";
const STATE: &str = "_state";
/// Labels of containers that some Paddock made begin so.
const OURS: &str = "paddock.dev/";
/// For a call about a builder. Removing a large state takes its time.
const CALL: Duration = Duration::from_secs(60);
const REMOVE: Duration = Duration::from_secs(300);

/// A builder, or what is left of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Builder {
    name: String,
    created_at: Timestamp,
    activity: Activity,
}

/// What a builder does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Activity {
    /// Nothing any more: it ran once.
    Stopped,
    /// Nothing, and it ran never: it may just be being made.
    Made,
    /// It runs, and nobody uses it.
    Idle,
    /// It builds, or what it does is not known.
    Busy,
    /// Its container is gone, its state is there.
    StateAlone,
}

/// Returns the builders to remove, oldest first: those that do nothing and are older than `max_age`; where space is needed at
/// once also those that have stopped, whatever their age. `now` is the engine's own time.
pub(super) fn to_remove(
    builders: Vec<Builder>,
    max_age: Duration,
    under_pressure: bool,
    now: Timestamp,
) -> Vec<Builder> {
    let goes = |builder: &Builder| {
        let is_old = builder.created_at.plus(max_age) <= now;
        match builder.activity {
            Activity::Busy => false,
            Activity::Stopped => is_old || under_pressure,
            Activity::Made | Activity::Idle | Activity::StateAlone => is_old,
        }
    };
    let mut gone: Vec<Builder> = builders.into_iter().filter(goes).collect();
    gone.sort_by_key(|builder| builder.created_at);
    gone
}

/// Whether nobody uses a builder, by the command lines of all processes in its container. Beside the daemon and what started it, a
/// step of a build is a process; and a client, whatever it waits for, is one of `buildctl dial-stdio`, by which buildx reaches it.
fn is_idle<'a>(mut commands: impl Iterator<Item = &'a str>) -> bool {
    let is_daemon = |word: &str| word.rsplit('/').next() == Some("buildkitd");
    commands.all(|command| command.split_whitespace().any(is_daemon))
}

/// Looks for builders on an engine.
pub(super) async fn list(docker: &Docker) -> Result<Vec<Builder>, Error> {
    let filters = HashMap::from([("name", vec![PREFIX])]);
    let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    let found = call("a listing", CALL, docker.list_containers(Some(options))).await?;
    let mut builders = Vec::new();
    for container in found {
        if let Some(mut builder) = read(&container) {
            if builder.activity == Activity::Idle && !is_unused(docker, &builder.name).await {
                builder.activity = Activity::Busy;
            }
            builders.push(builder);
        }
    }
    let states = states(docker).await?;
    let without = |state: &Builder| !builders.iter().any(|builder| builder.name == state.name);
    let alone: Vec<Builder> = states.into_iter().filter(without).collect();
    Ok(builders.into_iter().chain(alone).collect())
}

/// A builder out of a listing; one that runs is idle until its processes say otherwise.
fn read(container: &ContainerSummary) -> Option<Builder> {
    use ContainerSummaryStateEnum::{CREATED, DEAD, EXITED, RUNNING};
    let mut names = container.names.iter().flatten().map(|name| name.trim_start_matches('/'));
    let name = names.find(|name| name.starts_with(PREFIX))?;
    if container.labels.iter().flatten().any(|(key, _)| key.starts_with(OURS)) {
        return None;
    }
    let activity = match container.state {
        Some(RUNNING) => Activity::Idle,
        Some(EXITED | DEAD) => Activity::Stopped,
        Some(CREATED) => Activity::Made,
        _ => Activity::Busy,
    };
    let created_at = Timestamp::from_second(container.created?).ok()?;
    Some(Builder { name: name.to_owned(), created_at, activity })
}

/// States that no container has. A volume and its container are made one after the other, so a young one may be of a builder
/// to come.
async fn states(docker: &Docker) -> Result<Vec<Builder>, Error> {
    let filters = HashMap::from([("name", vec![PREFIX]), ("dangling", vec!["true"])]);
    let options = ListVolumesOptionsBuilder::new().filters(&filters).build();
    let found = call("a listing of volumes", CALL, docker.list_volumes(Some(options))).await?;
    let state = |volume: bollard::models::Volume| {
        let name = volume.name.strip_suffix(STATE).filter(|name| name.starts_with(PREFIX))?;
        let created_at = volume.created_at?.to_string().parse().ok()?;
        Some(Builder { name: name.to_owned(), created_at, activity: Activity::StateAlone })
    };
    Ok(found.volumes.into_iter().flatten().filter_map(state).collect())
}

/// Asks the engine for the processes of a builder. One that cannot be asked is in use.
async fn is_unused(docker: &Docker, name: &str) -> bool {
    let options = TopOptions { ps_args: "-eo pid,args".to_owned() };
    match call("a builder's processes", CALL, docker.top_processes(name, Some(options))).await {
        Ok(top) => {
            let processes = top.processes.unwrap_or_default();
            is_idle(processes.iter().filter_map(|row| row.last()).map(String::as_str))
        }
        Err(error) => {
            debug!(name, %error, "a builder cannot be asked what it does, and stays");
            false
        }
    }
}

impl Builder {
    /// Removes it with its state. Answers whether it is gone: one that is in use again stays.
    pub(super) async fn remove(&self, docker: &Docker) -> Result<bool, Error> {
        if self.activity != Activity::StateAlone {
            // It was seen some time ago.
            if self.activity == Activity::Idle && !is_unused(docker, &self.name).await {
                return Ok(false);
            }
            let force = self.activity == Activity::Idle;
            let options = RemoveContainerOptionsBuilder::new().force(force).v(true).build();
            match call("removing a builder", REMOVE, docker.remove_container(&self.name, Some(options))).await
            {
                Ok(()) | Err(Error::Gone) => {}
                // It runs again.
                Err(Error::NoCapacity(why)) => {
                    debug!(name = self.name, why = why.message, "a builder cannot be removed now");
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        let state = format!("{}{STATE}", self.name);
        let removal = docker.remove_volume(&state, None::<RemoveVolumeOptions>);
        match call("removing a builder's state", REMOVE, removal).await {
            // It had none, or another has it.
            Ok(()) | Err(Error::Gone | Error::Refused(_) | Error::NoCapacity(_)) => Ok(true),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn builder(name: &str, second: i64, activity: Activity) -> Builder {
        Builder { name: name.into(), created_at: Timestamp::from_second(second).unwrap(), activity }
    }

    #[test]
    fn what_builds_stays_however_old_it_is_and_the_oldest_goes_first() {
        use Activity::{Busy, Idle, Made, StateAlone, Stopped};
        let builders = [
            builder("young", 95, Idle),
            builder("building", 1, Busy),
            builder("stopped", 3, Stopped),
            builder("idle", 2, Idle),
            builder("never started", 5, Made),
            builder("state", 4, StateAlone),
            builder("young and stopped", 96, Stopped),
            builder("being made", 97, Made),
            builder("young state", 98, StateAlone),
        ];
        let removed = |under_pressure| -> Vec<String> {
            let now = Timestamp::from_second(100).unwrap();
            let removed = to_remove(builders.to_vec(), Duration::from_secs(10), under_pressure, now);
            removed.into_iter().map(|builder| builder.name).collect()
        };
        let old = ["idle", "stopped", "state", "never started"];
        assert_eq!(removed(false), old);
        assert_eq!(removed(true), [&old[..], &["young and stopped"]].concat());
    }

    #[test]
    fn a_client_or_a_step_of_a_build_is_a_process_more() {
        let daemon =
            ["/sbin/docker-init -- buildkitd --allow-insecure-entitlement=network.host", "buildkitd"];
        let rootless =
            ["rootlesskit buildkitd", "/proc/self/exe buildkitd", "/usr/bin/buildkitd --oci-worker"];
        assert!(is_idle(daemon.into_iter()) && is_idle(rootless.into_iter()));
        for more in ["buildctl dial-stdio", "buildkit-runc --log run abc", "/bin/sh -c make", "[sh]"] {
            assert!(!is_idle(daemon.into_iter().chain([more])), "{more}");
        }
    }

    #[test]
    fn a_builder_is_what_buildx_calls_so_and_no_paddock_made() {
        let container = |name: &str, label: &str| ContainerSummary {
            names: Some(vec![format!("/{name}")]),
            labels: Some(HashMap::from([(label.to_owned(), "x".to_owned())])),
            created: Some(1),
            state: Some(ContainerSummaryStateEnum::RUNNING),
            ..ContainerSummary::default()
        };
        let named = |name: &str, label: &str| read(&container(name, label)).map(|builder| builder.name);
        assert_eq!(named("buildx_buildkit_ci0", "a").as_deref(), Some("buildx_buildkit_ci0"));
        assert_eq!(named("my_buildx_buildkit_ci0", "a"), None);
        assert_eq!(named("buildx_buildkit_ci0", "paddock.dev/runner"), None);
    }
}
