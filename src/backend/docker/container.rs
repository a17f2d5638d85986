//! What is done to a runner's container: made and started, removed, its last words read.

use std::collections::{BTreeSet, HashMap};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error as EngineError;
use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountType, RestartPolicy,
    RestartPolicyNameEnum,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, LogsOptionsBuilder,
    RemoveContainerOptionsBuilder, StartContainerOptions, WaitContainerOptionsBuilder,
};
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use tracing::{debug, warn};

use super::engine::Engine;
use super::failure::{call, meaning, within};
use super::index::Container;
use super::template::{DockerTemplate, JIT_CONFIGURATION, MOST_PIDS, RETURN_VERSION_DEPRECATED};
use super::view::Client;
use crate::api::DockerAccess;
use crate::api::Reason;
use crate::backend::Error;
use crate::runner::{Identity, Instance, InstanceState, JitConfiguration};

/// Deadlines of the calls that make the engine work. On a host that swaps, these take their time.
const CREATE: Duration = Duration::from_secs(60);
const START: Duration = Duration::from_secs(120);
const REMOVE: Duration = Duration::from_secs(60);
const ANSWER: Duration = Duration::from_secs(15);

/// How much of a runner's output its host keeps.
const LOG_SIZE: &str = "10m";
/// How much of it a report of a failure shows.
const TAIL_LINES: &str = "20";
const TAIL_BYTES: usize = 2048;

/// Where a runner looks for Docker.
const DOCKER_SOCKET: &str = "/var/run/docker.sock";

/// A runner about to be started.
pub(super) struct Launch {
    pub(super) runner: String,
    pub(super) jit: JitConfiguration,
    pub(super) template: Arc<DockerTemplate>,
    pub(super) labels: HashMap<String, String>,
    /// The volume that it shares with the runners of its scale set.
    pub(super) volume: Option<Mount>,
}

/// Makes and starts a container. After an error nothing is left of it, as far as the engine answers; what it makes
/// in spite of that carries its identity.
pub(super) async fn start(engine: &Engine, launch: &Launch) -> Result<Instance, Error> {
    // The semaphore is never closed.
    let _turn = engine.host.starts.acquire().await;
    let client = engine.client()?;
    let started = match create(engine, &client, launch).await {
        Ok(id) => started(&client.docker, &id).await.map(|()| id),
        Err(error) => Err(error),
    };
    match started {
        Ok(id) => {
            let described =
                Container::from_labels(&id, &launch.labels, Timestamp::now(), InstanceState::Starting);
            let described = described.ok_or(Error::Gone)?;
            let mut instance = described.instance.clone();
            engine.change(|view| {
                instance = view.index.started(described);
                BTreeSet::new()
            });
            Ok(instance)
        }
        Err(error) => {
            discard(engine, &client.docker, launch).await;
            Err(match error {
                Error::Gone => {
                    Error::no_capacity(Reason::EngineError, "its container vanished before it was started")
                }
                error => error,
            })
        }
    }
}

/// Makes the container, or takes the one that an earlier try made.
async fn create(engine: &Engine, client: &Client, launch: &Launch) -> Result<String, Error> {
    let template = &launch.template;
    let options = CreateContainerOptionsBuilder::new().name(&launch.runner);
    let options = template.platform.iter().fold(options, |options, platform| options.platform(platform));
    let body = body(engine, client, launch).await;
    let creation = client.docker.create_container(Some(options.build()), body);
    match within(CREATE, creation).await {
        Ok(created) => {
            created
                .warnings
                .iter()
                .for_each(|warning| warn!(runner = launch.runner, warning, "Docker warns"));
            Ok(created.id)
        }
        Err(error @ EngineError::DockerResponseServerError { status_code: 409, .. }) => {
            match own(&client.docker, launch).await? {
                Some((id, true)) => Ok(id),
                Some((_, false)) => {
                    Err(Error::no_capacity(Reason::EngineError, "its container has ended already"))
                }
                None => Err(meaning(&error)),
            }
        }
        Err(EngineError::RequestTimeoutError) => {
            Err(Error::Unreachable(format!("making a container took longer than {} s", CREATE.as_secs())))
        }
        Err(error) => Err(meaning(&error)),
    }
}

async fn started(docker: &Docker, id: &str) -> Result<(), Error> {
    call("starting a container", START, docker.start_container(id, None::<StartContainerOptions>)).await
}

/// The container of that name, if it is this very runner's, and whether it has yet to end.
async fn own(docker: &Docker, launch: &Launch) -> Result<Option<(String, bool)>, Error> {
    let inspection = docker.inspect_container(&launch.runner, None::<InspectContainerOptions>);
    let found = match call("an inspection", ANSWER, inspection).await {
        Err(Error::Gone) => return Ok(None),
        found => found?,
    };
    let labels = found.config.and_then(|config| config.labels).unwrap_or_default();
    let same = [Identity::CLUSTER, Identity::SCALE_SET_UID, Identity::RUNNER]
        .iter()
        .all(|key| labels.get(*key) == launch.labels.get(*key));
    use bollard::models::ContainerStateStatusEnum::{CREATED, PAUSED, RUNNING};
    let status = found.state.and_then(|state| state.status);
    let lives = matches!(status, Some(CREATED | RUNNING | PAUSED));
    Ok(found.id.filter(|_| same).map(|id| (id, lives)))
}

/// Removes what a start that failed may have left.
async fn discard(engine: &Engine, docker: &Docker, launch: &Launch) {
    let removed = async {
        match own(docker, launch).await? {
            Some((id, _)) => destroy(engine, docker, &id).await,
            None => Ok(()),
        }
    };
    if let Err(error) = removed.await {
        debug!(runner = launch.runner, %error, "what a failed start left cannot be removed now");
    }
}

async fn body(engine: &Engine, client: &Client, launch: &Launch) -> ContainerCreateBody {
    let template = &launch.template;
    let user_env = template.user_env().into_iter().map(|(name, value)| format!("{name}={value}"));
    let own_env =
        [format!("{JIT_CONFIGURATION}={}", launch.jit.expose()), format!("{RETURN_VERSION_DEPRECATED}=1")];
    ContainerCreateBody {
        image: Some(template.image.clone()),
        // One empty word takes the image's own entrypoint away.
        entrypoint: Some(vec![String::new()]),
        cmd: Some(template.command.clone()),
        user: template.user.clone(),
        env: Some(user_env.chain(own_env).collect()),
        labels: Some(launch.labels.clone()),
        host_config: Some(host_config(engine, client, launch).await),
        ..ContainerCreateBody::default()
    }
}

async fn host_config(engine: &Engine, client: &Client, launch: &Launch) -> HostConfig {
    let template = &launch.template;
    let bytes = template.memory_bytes.map(clamped);
    let log_options = [("max-size", LOG_SIZE), ("max-file", "1")];
    let (mounts, group_add) = match template.docker_access {
        // A sidecar is refused where the spec is read.
        DockerAccess::None | DockerAccess::Sidecar => (None, None),
        DockerAccess::HostSocket => socket_of(engine).await,
    };
    HostConfig {
        nano_cpus: template.cpu_millis.map(|millis| clamped(millis.saturating_mul(1_000_000))),
        memory: bytes,
        // Memory and swap together: none of the latter.
        memory_swap: bytes,
        pids_limit: Some(template.pids.unwrap_or(MOST_PIDS).into()),
        // With raw sockets a job could pass for its neighbours on the bridge. Engines let ping do without.
        cap_drop: Some(vec!["NET_RAW".to_owned()]),
        security_opt: template.no_new_privileges.then(|| vec!["no-new-privileges".to_owned()]),
        network_mode: template.network.clone(),
        init: client.init.then_some(true),
        // Its exit code is read before it is removed, and a runner never runs twice.
        auto_remove: Some(false),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(log_options.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
        }),
        mounts: Some(mounts.into_iter().flatten().chain(launch.volume.clone()).collect()),
        group_add,
        ..HostConfig::default()
    }
}

/// The engine's socket as a mount, and the group that may use it: its number on the host is not the image's.
async fn socket_of(engine: &Engine) -> (Option<Vec<Mount>>, Option<Vec<String>>) {
    let path = engine.endpoint.socket();
    let group = match engine.endpoint.is_local() {
        true => tokio::fs::metadata(path).await.ok().map(|metadata| vec![metadata.gid().to_string()]),
        false => None,
    };
    let mount = Mount {
        source: Some(path.to_owned()),
        target: Some(DOCKER_SOCKET.to_owned()),
        typ: Some(MountType::BIND),
        ..Mount::default()
    };
    (Some(vec![mount]), group)
}

fn clamped(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Removes a container of a scale set of this cluster, running or not, with its anonymous volumes, and waits until it is
/// gone.
pub(super) async fn remove(engine: &Engine, scale_set_uid: &str, id: &str) -> Result<(), Error> {
    let docker = engine.client()?.docker;
    check_owner(engine, &docker, scale_set_uid, id).await?;
    destroy(engine, &docker, id).await
}

/// Reads the end of what a container of a scale set of this cluster printed.
pub(super) async fn log_tail(engine: &Engine, scale_set_uid: &str, id: &str) -> Result<String, Error> {
    let docker = engine.client()?.docker;
    check_owner(engine, &docker, scale_set_uid, id).await?;
    let options = LogsOptionsBuilder::new().stdout(true).stderr(true).tail(TAIL_LINES).build();
    let lines = docker
        .logs(id, Some(options))
        .map_ok(|line| String::from_utf8_lossy(&line.into_bytes()).into_owned());
    let text = call("reading a log", ANSWER, lines.try_collect::<String>()).await?;
    let cut = text.len().saturating_sub(TAIL_BYTES);
    Ok(text[text.ceil_char_boundary(cut)..].to_owned())
}

/// Refuses to touch a container unless its own labels name this cluster and the scale set that asks. The id may come from
/// a status, which anyone may have written.
async fn check_owner(engine: &Engine, docker: &Docker, scale_set_uid: &str, id: &str) -> Result<(), Error> {
    let refused = |whose: &str| Err(Error::Refused(format!("container {id} does not belong to {whose}")));
    // Anything else would lead elsewhere in the engine's API.
    if id.is_empty() || !id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')) {
        return refused("any engine: it is no id");
    }
    let known = engine.look(|view| {
        let known = view.index.get(id)?;
        Some((Some(known.cluster.clone()), Some(known.instance.scale_set_uid.clone())))
    });
    let (cluster, owner) = match known.flatten() {
        Some(known) => known,
        None => {
            let inspection = docker.inspect_container(id, None::<InspectContainerOptions>);
            let found = call("an inspection", ANSWER, inspection).await?;
            let mut labels = found.config.and_then(|config| config.labels).unwrap_or_default();
            (labels.remove(Identity::CLUSTER), labels.remove(Identity::SCALE_SET_UID))
        }
    };
    if cluster.as_deref() != Some(&*engine.cluster) {
        return refused("this cluster");
    }
    if owner.as_deref() != Some(scale_set_uid) {
        return refused("this scale set");
    }
    Ok(())
}

async fn destroy(engine: &Engine, docker: &Docker, id: &str) -> Result<(), Error> {
    let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    let removed = match within(REMOVE, docker.remove_container(id, Some(options))).await {
        // Someone else's removal of it is under way.
        Err(EngineError::DockerResponseServerError { status_code: 409, .. }) => vanished(docker, id).await,
        Err(EngineError::RequestTimeoutError) => {
            Err(Error::Unreachable(format!("removing a container took longer than {} s", REMOVE.as_secs())))
        }
        removed => removed.map_err(|error| meaning(&error)),
    };
    if matches!(removed, Ok(()) | Err(Error::Gone)) {
        engine.change(|view| view.index.forget(id).into_iter().collect());
    }
    removed
}

async fn vanished(docker: &Docker, id: &str) -> Result<(), Error> {
    let options = WaitContainerOptionsBuilder::new().condition("removed").build();
    let mut waiting = std::pin::pin!(docker.wait_container(id, Some(options)));
    let answer = async {
        match waiting.next().await {
            // The exit code that comes with it says nothing of the removal.
            Some(Err(error @ EngineError::DockerResponseServerError { .. })) => Err(error),
            _ => Ok(()),
        }
    };
    match call("waiting for a removal", REMOVE, answer).await {
        Err(Error::Gone) => Ok(()),
        answer => answer,
    }
}
