//! The host's own engine for a runner (`dockerAccess: HostSocket`): its socket as a mount, and the group that may use it.

use std::os::unix::fs::MetadataExt;

use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig, Mount, MountType};
use bollard::query_parameters::{CreateContainerOptions, StartContainerOptions, WaitContainerOptions};
use futures::StreamExt;
use tracing::warn;

use super::destroy::destroy;
use super::endpoint::found_at;
use super::engine::Engine;
use super::failure::{CREATE, START, call};
use super::launch::{Launch, limits};
use super::{printed, sidecar};
use crate::backend::Error;

/// Where a runner looks for Docker.
const DOCKER_SOCKET: &str = "/var/run/docker.sock";

/// The engine's socket as a mount.
pub(super) fn mount(engine: &Engine) -> Mount {
    Mount {
        source: Some(engine.endpoint.socket().to_owned()),
        target: Some(DOCKER_SOCKET.to_owned()),
        typ: Some(MountType::BIND),
        ..Mount::default()
    }
}

/// The number of the socket's group on its host, which is not the image's. None where it cannot be told: root can use the socket
/// all the same.
pub(super) async fn group(engine: &Engine, docker: &Docker, launch: &Launch) -> Option<String> {
    if engine.endpoint.is_local() {
        let metadata = tokio::fs::metadata(found_at(engine.endpoint.socket())).await.ok()?;
        return Some(metadata.gid().to_string());
    }
    let looked = engine.socket_group.get_or_try_init(|| look(engine, docker, launch)).await;
    looked
        .map_err(|error| warn!(endpoint = %engine.endpoint, %error, "the group of its socket is not known"))
        .ok()
        .cloned()
}

/// Looks on another host, from within a container of the runner's image.
async fn look(engine: &Engine, docker: &Docker, launch: &Launch) -> Result<String, Error> {
    let id = create(engine, docker, launch).await?;
    let looked = async {
        call("starting a container", START, docker.start_container(&id, None::<StartContainerOptions>))
            .await?;
        let mut ended = docker.wait_container(&id, None::<WaitContainerOptions>);
        // Whatever the exit code: what it printed says more.
        let end = async { Ok(ended.next().await.map(drop)) };
        call("looking at the socket", START, end).await?;
        printed::tail(docker, &id).await
    };
    let looked = looked.await;
    destroy(docker, &id).await?;
    let printed = looked?;
    let group: Result<u32, _> = printed.trim().parse();
    group.map(|group| group.to_string()).map_err(|_| Error::Refused(format!("`stat` printed {printed:?}")))
}

/// It carries the labels of something beside the runner, so that it is found if it is left behind.
async fn create(engine: &Engine, docker: &Docker, launch: &Launch) -> Result<String, Error> {
    let command = ["stat", "-c", "%g", DOCKER_SOCKET];
    let body = ContainerCreateBody {
        image: Some(launch.template.images.runner.clone()),
        entrypoint: Some(vec![String::new()]),
        cmd: Some(command.map(str::to_owned).into()),
        user: Some("0".to_owned()),
        labels: Some(sidecar::labels(launch)),
        host_config: Some(HostConfig {
            mounts: Some(vec![mount(engine)]),
            network_mode: Some("none".to_owned()),
            ..limits(&launch.template)
        }),
        ..ContainerCreateBody::default()
    };
    let creation = docker.create_container(None::<CreateContainerOptions>, body);
    Ok(call("making a container", CREATE, creation).await?.id)
}
