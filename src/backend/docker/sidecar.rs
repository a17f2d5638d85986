//! The private engine beside a runner (`dockerAccess: Sidecar`): a privileged container, a network for it and its runner, and
//! volumes. It is made before its runner and removed after it, and all of it carries the runner's labels.

use std::collections::HashMap;
use std::time::Duration;

use bollard::Docker;
use bollard::exec::StartExecOptions;
use bollard::models::{
    ContainerCreateBody, ExecConfig, HostConfig, Mount, MountType, MountVolumeOptions, NetworkCreateRequest,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, ListContainersOptionsBuilder, ListNetworksOptionsBuilder,
    ListVolumesOptionsBuilder, RemoveVolumeOptions, StartContainerOptions,
};

use tracing::debug;

use super::destroy::{REMOVE, destroy, unless_gone};
use super::engine::Engine;
use super::failure::{ANSWER, CREATE, START, call};
use super::launch::{Launch, limits};
use super::printed;
use crate::api::Reason;
use crate::backend::Error;
use crate::backend::private_engine::{CHECK, SHARED, WORK, command};
use crate::runner::Identity;

/// A private engine that does not answer for so long after its start has failed.
const READY: Duration = Duration::from_secs(120);
/// Between two questions whether it answers.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// How much of what it printed is told of one that failed.
const WORDS: usize = 600;

/// Where an engine keeps its images and containers. An overlay cannot be on another.
const DATA: (&str, &str) = ("data", "/var/lib/docker");

/// Makes and starts the private engine of a runner, and waits until it answers. Returns its container's id. What is left of it
/// after an error, [`remove`] finds.
pub(super) async fn start(engine: &Engine, docker: &Docker, launch: &Launch) -> Result<String, Error> {
    let id = {
        // The semaphore is never closed. Others have their turn while this one comes up.
        let _turn = engine.host.starts.acquire().await;
        let id = create(docker, launch).await?;
        let options = None::<StartContainerOptions>;
        call("starting a private engine", START, docker.start_container(&id, options)).await?;
        id
    };
    ready(docker, &id).await?;
    // Any user of the runner's image may work there. What the image itself has there, it keeps.
    exec(docker, &id, &["chmod", "0777", WORK]).await?;
    Ok(id)
}

async fn create(docker: &Docker, launch: &Launch) -> Result<String, Error> {
    let (template, labels) = (&launch.template, labels(launch));
    let name = name(&launch.runner);
    let network = match template.network_of_engine() {
        Some(network) => network.to_owned(),
        None => {
            let request = NetworkCreateRequest {
                name: name.clone(),
                driver: Some("bridge".to_owned()),
                labels: Some(labels.clone()),
                ..NetworkCreateRequest::default()
            };
            call("making a network", CREATE, docker.create_network(request)).await?;
            name.clone()
        }
    };
    let volumes = SHARED.into_iter().chain([DATA]).map(|volume| mount(launch, volume));
    let body = ContainerCreateBody {
        image: Some(template.images.engine.clone()),
        cmd: Some(command()),
        labels: Some(labels),
        host_config: Some(HostConfig {
            privileged: Some(true),
            network_mode: Some(network),
            mounts: Some(volumes.collect()),
            ..limits(template)
        }),
        ..ContainerCreateBody::default()
    };
    let options = CreateContainerOptionsBuilder::new().name(&name);
    let options =
        template.images.platform.iter().fold(options, |options, platform| options.platform(platform));
    let creation = docker.create_container(Some(options.build()), body);
    Ok(call("making a private engine", CREATE, creation).await?.id)
}

/// What a runner shares with its private engine.
pub(super) fn mounts(launch: &Launch) -> Vec<Mount> {
    SHARED.map(|volume| mount(launch, volume)).into()
}

fn mount(launch: &Launch, (volume, path): (&str, &str)) -> Mount {
    let volume_options = MountVolumeOptions { labels: Some(labels(launch)), ..MountVolumeOptions::default() };
    Mount {
        typ: Some(MountType::VOLUME),
        source: Some(format!("{}-{volume}", name(&launch.runner))),
        target: Some(path.to_owned()),
        volume_options: Some(volume_options),
        ..Mount::default()
    }
}

fn name(runner: &str) -> String {
    format!("{runner}-docker")
}

/// Those of what is beside a runner: the runner's own, with another part.
pub(super) fn labels(launch: &Launch) -> HashMap<String, String> {
    let mut labels = launch.labels.clone();
    labels.insert(Identity::PART.to_owned(), Identity::ENGINE_PART.to_owned());
    labels
}

/// Waits until a private engine answers. The error tells what it printed.
async fn ready(docker: &Docker, id: &str) -> Result<(), Error> {
    let answered = tokio::time::timeout(READY, async {
        while !exec(docker, id, &CHECK).await? {
            tokio::time::sleep(ASK_AGAIN).await;
        }
        Ok(())
    });
    let why = match answered.await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(Error::Unreachable(why))) => return Err(Error::Unreachable(why)),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("it did not answer for {} s", READY.as_secs()),
    };
    let printed = printed::tail(docker, id).await.unwrap_or_default();
    let printed = printed.trim_end();
    let words = &printed[printed.ceil_char_boundary(printed.len().saturating_sub(WORDS))..];
    let message = format!("the private Docker engine does not come up: {why}; the end of its log: {words}");
    Err(Error::no_capacity(Reason::SidecarFailed, message))
}

/// Runs a command in a container and waits for its end. Answers whether it succeeded.
async fn exec(docker: &Docker, id: &str, command: &[&str]) -> Result<bool, Error> {
    const WHAT: &str = "running a command in a private engine";
    let cmd = Some(command.iter().map(|word| (*word).to_owned()).collect());
    let config = ExecConfig { cmd, ..ExecConfig::default() };
    let made = call(WHAT, ANSWER, docker.create_exec(id, config)).await?;
    let options = StartExecOptions { detach: true, ..StartExecOptions::default() };
    call(WHAT, ANSWER, docker.start_exec(&made.id, Some(options))).await?;
    loop {
        let found = call(WHAT, ANSWER, docker.inspect_exec(&made.id)).await?;
        if found.running != Some(true) {
            return Ok(found.exit_code == Some(0));
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// The labels of all networks and volumes of private engines. Where the engine does not tell, none are looked after.
pub(super) async fn parts(docker: &Docker) -> Vec<HashMap<String, String>> {
    let label = format!("{}={}", Identity::PART, Identity::ENGINE_PART);
    let filters = HashMap::from([("label", vec![label.as_str()])]);
    let networks = ListNetworksOptionsBuilder::new().filters(&filters).build();
    let volumes = ListVolumesOptionsBuilder::new().filters(&filters).build();
    let (networks, volumes) = tokio::join!(
        call("a listing of networks", ANSWER, docker.list_networks(Some(networks))),
        call("a listing of volumes", ANSWER, docker.list_volumes(Some(volumes))),
    );
    let untold = |error| debug!(%error, "what is left of private engines is not known");
    let networks = networks.map_err(untold).unwrap_or_default();
    let volumes = volumes.map_err(untold).ok().and_then(|answer| answer.volumes).unwrap_or_default();
    let networks = networks.into_iter().filter_map(|network| network.labels);
    networks.chain(volumes.into_iter().map(|volume| volume.labels)).collect()
}

/// Removes what there is of a runner's private engine.
pub(super) async fn remove(
    engine: &Engine,
    docker: &Docker,
    scale_set_uid: &str,
    runner: &str,
) -> Result<(), Error> {
    let labels = [
        format!("{}={}", Identity::CLUSTER, engine.cluster),
        format!("{}={scale_set_uid}", Identity::SCALE_SET_UID),
        format!("{}={runner}", Identity::RUNNER),
        format!("{}={}", Identity::PART, Identity::ENGINE_PART),
    ];
    let filters = HashMap::from([("label", labels.to_vec())]);
    let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    let containers = call("a listing", ANSWER, docker.list_containers(Some(options))).await?;
    for id in containers.into_iter().filter_map(|container| container.id) {
        match destroy(docker, &id).await {
            Ok(()) | Err(Error::Gone) => {}
            Err(error) => return Err(error),
        }
    }
    let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
    let networks = call("a listing of networks", ANSWER, docker.list_networks(Some(options))).await?;
    for id in networks.into_iter().filter_map(|network| network.id) {
        call("removing a network", REMOVE, unless_gone(docker.remove_network(&id))).await?;
    }
    let options = ListVolumesOptionsBuilder::new().filters(&filters).build();
    let volumes = call("a listing of volumes", ANSWER, docker.list_volumes(Some(options))).await?;
    for volume in volumes.volumes.unwrap_or_default() {
        let removal = docker.remove_volume(&volume.name, None::<RemoveVolumeOptions>);
        call("removing a volume", REMOVE, unless_gone(removal)).await?;
    }
    Ok(())
}
