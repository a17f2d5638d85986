//! Private engines: what a job has of one, and that nothing of it is left whatever ends first.

use std::collections::BTreeSet;
use std::process::Command;

use bollard::models::NetworkCreateRequest;
use bollard::query_parameters::{KillContainerOptionsBuilder, ListVolumesOptions};
use paddock::api::{DockerAccess, HostCeiling, Reason};
use paddock::backend::docker::{DockerBackend, DockerTemplate};
use paddock::backend::{Backend, Error};
use paddock::runner::{Identity, Instance, InstanceState};

use crate::parts::Engine;
use crate::stage::{
    ENGINE_IMAGE, HOST, Stage, connected, exit, host, prepared, shown, start, start_in, started, until,
};

/// A host with the image of the private engines, which has the client too.
async fn stage(name: &str) -> (Engine, Stage) {
    let engine = Engine::start(name).await;
    engine.load(ENGINE_IMAGE).await;
    let stage = Stage::at(name, engine.endpoint()).await;
    (engine, stage)
}

/// A runner with a private engine, on a network of their own.
fn template(stage: &Stage, script: &str) -> DockerTemplate {
    let mut template = stage.template(script);
    template.images.runner = ENGINE_IMAGE.to_owned();
    template.user = Some("runner".to_owned());
    template.network = Some("bridge".to_owned());
    template.docker_access = DockerAccess::Sidecar;
    template
}

/// The containers, networks and volumes of the host, whosever they are.
async fn everything(stage: &Stage) -> BTreeSet<String> {
    let options = bollard::query_parameters::ListContainersOptionsBuilder::new().all(true).build();
    let containers = stage.docker.list_containers(Some(options)).await.unwrap();
    let containers = containers.into_iter().filter_map(|container| container.names).flatten();
    let networks = stage.docker.list_networks(None).await.unwrap();
    let networks = networks.into_iter().filter_map(|network| network.name);
    let volumes = stage.docker.list_volumes(None::<ListVolumesOptions>).await.unwrap().volumes;
    let volumes = volumes.unwrap_or_default().into_iter().map(|volume| volume.name);
    containers.chain(networks).chain(volumes).collect()
}

async fn kill(stage: &Stage, container: &str) {
    let options = KillContainerOptionsBuilder::new().signal("KILL").build();
    stage.docker.kill_container(container, Some(options)).await.unwrap();
}

fn of_engine(instance: &Instance) -> String {
    format!("{}-docker", instance.runner)
}

/// The only host's only instance that is of a runner which never came to be, once it is shown so.
async fn never_started(backend: &DockerBackend) -> Instance {
    until("what is left is shown", || {
        let mut instances = backend.instances().remove(0).instances;
        instances.retain(|instance| instance.state == InstanceState::NeverStarted);
        instances.pop()
    })
    .await
}

/// What a job does with its engine: it sees no container of the host, runs one of its own, in which its files are, and
/// reaches the port of another by `localhost`.
const JOB: &str = "test \"$DOCKER_HOST\" = unix:///var/run/docker.sock || exit 3; \
     docker ps --all --quiet | grep . && exit 4; \
     echo planted >/home/runner/_work/file || exit 5; \
     tar -c -C / bin | docker import - job:1 || exit 6; \
     test \"$(docker run --rm --volume /home/runner/_work:/w job:1 /bin/busybox cat /w/file)\" = planted || exit 7; \
     docker run --detach --publish 8080:80 job:1 /bin/busybox nc -ll -p 80 -e /bin/busybox echo reached || exit 8; \
     for i in $(seq 100); do nc 127.0.0.1 8080 </dev/null | grep reached && exit 0; sleep 0.1; done; exit 9";

#[tokio::test]
async fn a_job_has_an_engine_of_its_own_and_all_of_it_goes_with_its_runner() {
    let (engine, stage) = stage("own-engine").await;
    stage.engines.limit(&[HostCeiling { endpoint: engine.endpoint().to_owned(), max_runners: 1 }]);
    let before = everything(&stage).await;
    let mut template = template(&stage, JOB);
    template.env = ["DOCKER_HOST", "DOCKER_TLS_VERIFY"].map(|name| (name.to_owned(), "x".to_owned())).into();
    let backend = stage.backend("set", template);
    let instance = started(&backend).await;
    let slots: Vec<_> = stage.engines.slots().into_iter().map(|(_, taken, free)| (taken, free)).collect();
    assert_eq!(slots, [(1, Some(0))], "runner and engine are one");
    let ended = until("its job ends", || exit(&backend, &instance.id)).await;
    let log = backend.log_tail(HOST, &instance.id).await.unwrap();
    assert!(ended.clean(), "{ended:?}: {log}");

    let beside = everything(&stage).await.difference(&before).count();
    assert_eq!(beside, 2 + 1 + 4, "a runner, its engine, their network and volumes");
    kill(&stage, &of_engine(&instance)).await;
    backend.remove(HOST, &instance.id).await.unwrap();
    assert_eq!(everything(&stage).await, before);
    assert_eq!(backend.instances()[0].instances, []);
}

#[tokio::test]
async fn a_clean_end_is_one_whatever_the_private_engine_does_after_it() {
    let (_engine, stage) = stage("clean-end").await;
    let backend = stage.backend("set", template(&stage, "exit 0"));
    let instance = started(&backend).await;
    until("it ends", || exit(&backend, &instance.id)).await;
    kill(&stage, &of_engine(&instance)).await;
    let listed = backend.instances()[0].listed_at;
    until("it is looked at again", || (backend.instances()[0].listed_at > listed).then_some(())).await;
    assert!(exit(&backend, &instance.id).unwrap().clean());
}

#[tokio::test]
async fn a_runner_ends_with_its_private_engine_and_says_so() {
    let (_engine, stage) = stage("engine-dies").await;
    let before = everything(&stage).await;
    let backend = stage.backend("set", template(&stage, "sleep 1000"));
    let instance = started(&backend).await;
    let woken = stage.woken("set");
    kill(&stage, &of_engine(&instance)).await;
    let ended = until("its end is seen", || exit(&backend, &instance.id)).await;
    let cause = ended.cause.unwrap();
    assert_eq!(cause.why.reason, Reason::SidecarFailed);
    assert!(cause.why.message.contains("Docker engine"), "{}", cause.why.message);
    assert!(stage.woken("set") > woken, "its set is woken");
    backend.remove(HOST, &instance.id).await.unwrap();
    assert_eq!(everything(&stage).await, before);
}

#[tokio::test]
async fn of_a_runner_that_is_killed_no_engine_is_left() {
    let (_engine, stage) = stage("runner-dies").await;
    let before = everything(&stage).await;
    let backend = stage.backend("set", template(&stage, "sleep 1000"));
    let instance = started(&backend).await;
    kill(&stage, &instance.id).await;
    assert!(until("its end is seen", || exit(&backend, &instance.id)).await.killed());
    backend.remove(HOST, &instance.id).await.unwrap();
    assert_eq!(everything(&stage).await, before);

    // Someone else removes the next one past Paddock.
    let instance = start(&backend).await.unwrap();
    crate::stage::remove(&stage.docker, &instance.id).await;
    until("its end is seen", || shown(&backend, &instance.id).is_none().then_some(())).await;
    let left = never_started(&backend).await;
    assert_eq!(left.runner, instance.runner);
    backend.remove(HOST, &left.id).await.unwrap_or_else(|error| assert!(matches!(error, Error::Gone)));
    assert_eq!(everything(&stage).await, before);
}

/// An image with the engine's client, in which this is run in place of the engine.
fn without_engine(stage: &Stage, name: &str, script: &str) -> String {
    let image = format!("paddock.test/{name}:1");
    let docker = |args: &[&str]| {
        let done = Command::new("docker").args(["--host", &stage.endpoint]).args(args).output().unwrap();
        assert!(done.status.success(), "{args:?}: {done:?}");
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    };
    let container = docker(&["create", ENGINE_IMAGE, "none"]);
    let entrypoint = format!("ENTRYPOINT {}", serde_json::json!(["/bin/busybox", "sh", "-c", script]));
    docker(&["commit", "--change", &entrypoint, &container, &image]);
    docker(&["rm", &container]);
    image
}

#[tokio::test]
async fn a_private_engine_that_does_not_come_up_is_a_start_that_failed_with_its_last_words() {
    let (_engine, stage) = stage("no-engine").await;
    let before = everything(&stage).await;
    let mut template = template(&stage, "sleep 1000");
    template.images.engine = without_engine(&stage, "no-engine", "echo planted words; exit 3");
    let backend = stage.backend("set", template);
    prepared(&backend).await;
    let failed = start(&backend).await;
    let Err(Error::NoCapacity(why)) = &failed else { panic!("{failed:?}") };
    assert_eq!(why.reason, Reason::SidecarFailed);
    assert!(why.message.contains("planted words"), "{}", why.message);
    assert!(host(&backend).message.contains("planted words"));
    assert_eq!(everything(&stage).await, before);
}

/// A controller that is killed while the engine comes up leaves that one; one that is killed before leaves a network.
#[tokio::test]
async fn what_a_killed_controller_left_of_a_private_engine_is_found_and_removed_by_the_next() {
    let (_engine, stage) = stage("killed").await;
    let before = everything(&stage).await;
    let mut slow = template(&stage, "sleep 1000");
    slow.images.engine = without_engine(&stage, "slow-engine", "sleep 1000");
    let first = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let controller = first.enter();
    let engines = stage.fresh_engines();
    let killed = DockerBackend::new("rack", stage.identity("set"), slow.clone(), &engines);
    drop(controller);
    prepared(&killed).await;
    let starting = first.spawn(start_in(killed.reserve(HOST).unwrap(), "linux-killed"));
    let has = async |part: &str| everything(&stage).await.iter().any(|name| name.ends_with(part));
    harness::eventually("the engine is made", crate::stage::PATIENCE, async || {
        has("-docker-data").await.then_some(())
    })
    .await;
    first.shutdown_background();
    assert!(starting.await.is_err(), "it did not get further");

    let backend = stage.backend("set", slow);
    connected(&backend).await;
    let left = never_started(&backend).await;
    let other = stage.backend("other", self::template(&stage, "sleep 1000"));
    let forged = other.remove(HOST, &left.id).await;
    assert!(matches!(forged, Err(Error::Refused(_))), "{forged:?}");
    backend.remove(HOST, &left.id).await.unwrap_or_else(|error| assert!(matches!(error, Error::Gone)));
    assert_eq!(everything(&stage).await, before);

    let labels = [
        (Identity::CLUSTER, stage.cluster.as_str()),
        (Identity::SCALE_SET_UID, "set"),
        (Identity::SCALE_SET, "ci/set"),
        (Identity::RUNNER, "linux-left"),
        (Identity::BACKEND, "rack"),
        (Identity::PART, Identity::ENGINE_PART),
    ];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let request = NetworkCreateRequest {
        name: "linux-left-docker".to_owned(),
        labels: Some(labels),
        ..NetworkCreateRequest::default()
    };
    stage.docker.create_network(request).await.unwrap();
    let left = never_started(&backend).await;
    assert_eq!(left.runner, "linux-left");
    let owned = stage.engines.all_instances().remove(0).found;
    assert!(owned.iter().any(|found| found.instance.id == left.id && found.scale_set == "ci/set"));
    let removed = stage.engines.remove(&stage.endpoint, "set", &left.id).await;
    assert!(matches!(removed, Ok(()) | Err(Error::Gone)), "{removed:?}");
    assert_eq!(everything(&stage).await, before);
}
