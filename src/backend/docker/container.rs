//! What is done to a runner's container: made and started, removed, its last words read.

use std::collections::BTreeSet;

use bollard::Docker;
use bollard::errors::Error as EngineError;
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, StartContainerOptions,
};
use jiff::Timestamp;
use tracing::{debug, warn};

use super::engine::Engine;
use super::failure::{ANSWER, CREATE, START, call, meaning, within};
use super::index::Container;
use super::launch::{Launch, limits};
use super::template::{JIT_CONFIGURATION, RETURN_VERSION_DEPRECATED};
use super::view::Client;
use super::{destroy, printed, sidecar, socket};
use crate::api::DockerAccess;
use crate::api::Reason;
use crate::backend::{Error, private_engine};
use crate::runner::{Identity, Instance, InstanceState};

/// Makes and starts a container. After an error nothing is left of it, as far as the engine answers; what it makes
/// in spite of that carries its identity.
pub(super) async fn start(engine: &Engine, launch: &Launch) -> Result<Instance, Error> {
    let client = engine.client()?;
    match made(engine, &client, launch).await {
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

/// Makes and starts the container, after its private engine if it is to have one.
async fn made(engine: &Engine, client: &Client, launch: &Launch) -> Result<String, Error> {
    let beside = match launch.template.has_private_engine() {
        true => Some(sidecar::start(engine, &client.docker, launch).await?),
        false => None,
    };
    // The semaphore is never closed.
    let _turn = engine.host.starts.acquire().await;
    let id = create(engine, client, launch, beside).await?;
    let options = None::<StartContainerOptions>;
    call("starting a container", START, client.docker.start_container(&id, options)).await?;
    Ok(id)
}

/// Makes the container, or takes the one that an earlier try made.
async fn create(
    engine: &Engine,
    client: &Client,
    launch: &Launch,
    beside: Option<String>,
) -> Result<String, Error> {
    let template = &launch.template;
    let options = CreateContainerOptionsBuilder::new().name(&launch.runner);
    let options =
        template.images.platform.iter().fold(options, |options, platform| options.platform(platform));
    let body = body(engine, client, launch, beside).await;
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
        }?;
        let scale_set_uid =
            launch.labels.get(Identity::SCALE_SET_UID).filter(|_| launch.template.has_private_engine());
        match scale_set_uid {
            Some(uid) => sidecar::remove(engine, docker, uid, &launch.runner).await,
            None => Ok(()),
        }
    };
    if let Err(error) = removed.await {
        debug!(runner = launch.runner, %error, "what a failed start left cannot be removed now");
    }
}

async fn body(
    engine: &Engine,
    client: &Client,
    launch: &Launch,
    beside: Option<String>,
) -> ContainerCreateBody {
    let template = &launch.template;
    let user_env = template.user_env().into_iter().map(|(name, value)| format!("{name}={value}"));
    let own_env =
        [format!("{JIT_CONFIGURATION}={}", launch.jit.expose()), format!("{RETURN_VERSION_DEPRECATED}=1")];
    let engine_env = beside.as_ref().map(|_| format!("DOCKER_HOST={}", private_engine::SOCKET));
    ContainerCreateBody {
        image: Some(template.images.runner.clone()),
        // One empty word takes the image's own entrypoint away.
        entrypoint: Some(vec![String::new()]),
        cmd: Some(template.command.clone()),
        user: template.user.clone(),
        env: Some(user_env.chain(own_env).chain(engine_env).collect()),
        labels: Some(launch.labels.clone()),
        host_config: Some(host_config(engine, client, launch, beside).await),
        ..ContainerCreateBody::default()
    }
}

async fn host_config(
    engine: &Engine,
    client: &Client,
    launch: &Launch,
    beside: Option<String>,
) -> HostConfig {
    let template = &launch.template;
    let (mounts, group_add) = match template.docker_access {
        DockerAccess::None => (None, None),
        DockerAccess::Sidecar => {
            (Some(sidecar::mounts(launch)), Some(vec![private_engine::GROUP.to_owned()]))
        }
        DockerAccess::HostSocket => {
            let group = socket::group(engine, &client.docker, launch).await;
            (Some(vec![socket::mount(engine)]), group.map(|group| vec![group]))
        }
    };
    let shared = beside.filter(|_| template.shares_network_of_engine());
    HostConfig {
        // With raw sockets a job could pass for its neighbours on the bridge. Engines let ping do without.
        cap_drop: Some(vec!["NET_RAW".to_owned()]),
        security_opt: template.limits.no_new_privileges.then(|| vec!["no-new-privileges".to_owned()]),
        network_mode: shared
            .map(|id| format!("container:{id}"))
            .or(launch.network.clone())
            .or(template.network.clone()),
        init: client.init.then_some(true),
        mounts: Some(mounts.into_iter().flatten().chain(launch.volume.clone()).collect()),
        group_add,
        ..limits(template)
    }
}

/// Removes a container of a scale set of this cluster, running or not, with its anonymous volumes and what else is its, and
/// waits until it is gone.
pub(super) async fn remove(engine: &Engine, scale_set_uid: &str, id: &str) -> Result<(), Error> {
    let docker = engine.client()?.docker;
    let owned = check_owner(engine, &docker, scale_set_uid, id).await?;
    let removed = destroy(engine, &docker, id).await;
    if owned.beside_engine && matches!(removed, Ok(()) | Err(Error::Gone)) {
        sidecar::remove(engine, &docker, scale_set_uid, &owned.instance.runner).await?;
    }
    removed
}

/// Reads the end of what a container of a scale set of this cluster printed.
pub(super) async fn log_tail(engine: &Engine, scale_set_uid: &str, id: &str) -> Result<String, Error> {
    let docker = engine.client()?.docker;
    check_owner(engine, &docker, scale_set_uid, id).await?;
    printed::tail(&docker, id).await
}

/// Refuses to touch a container unless its own labels name this cluster and the scale set that asks. The id may come from
/// a status, which anyone may have written. Returns what is known of it.
async fn check_owner(
    engine: &Engine,
    docker: &Docker,
    scale_set_uid: &str,
    id: &str,
) -> Result<Container, Error> {
    let refused = |whose: &str| Err(Error::Refused(format!("container {id} does not belong to {whose}")));
    // Anything else would lead elsewhere in the engine's API.
    if id.is_empty() || !id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')) {
        return refused("any engine: it is no id");
    }
    let known = match engine.look(|view| view.index.get(id).cloned()).flatten() {
        Some(known) => Some(known),
        None => {
            let inspection = docker.inspect_container(id, None::<InspectContainerOptions>);
            let found = call("an inspection", ANSWER, inspection).await?;
            let labels = found.config.and_then(|config| config.labels).unwrap_or_default();
            Container::from_labels(id, &labels, Timestamp::now(), InstanceState::Starting)
        }
    };
    match known {
        Some(known) if known.cluster == engine.cluster => match known.instance.scale_set_uid == scale_set_uid
        {
            true => Ok(known),
            false => refused("this scale set"),
        },
        _ => refused("this cluster"),
    }
}

/// Removes a container, and forgets it.
async fn destroy(engine: &Engine, docker: &Docker, id: &str) -> Result<(), Error> {
    let removed = destroy::destroy(docker, id).await;
    if matches!(removed, Ok(()) | Err(Error::Gone)) {
        engine.change(|view| view.index.forget(id).into_iter().collect());
    }
    removed
}
