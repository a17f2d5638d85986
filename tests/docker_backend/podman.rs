//! Podman in place of a Docker engine.

use bollard::query_parameters::KillContainerOptionsBuilder;
use harness::eventually;
use paddock::api::NETWORK_OF_SET;
use paddock::backend::docker::DockerBackend;
use paddock::backend::{Backend, Error};
use paddock::runner::InstanceState;

use crate::parts::Podman;
use crate::stage::{HOST, PATIENCE, Stage, exit, prepared, shown, started, until};

const WAITS: &str = "trap 'exit 7' TERM; echo up; while :; do sleep 0.1; done";

#[tokio::test]
async fn a_runner_lives_on_podman_as_on_docker() {
    let podman = Podman::start("podman").await;
    let stage = Stage::at("podman", podman.endpoint()).await;
    let mut template = stage.template(WAITS);
    template.limits.memory_bytes = Some(64 << 20);
    template.network = Some(NETWORK_OF_SET.to_owned());
    let backend = stage.backend("set", template.clone());
    let instance = started(&backend).await;
    assert_eq!(instance.state, InstanceState::Running);
    let log = async || backend.log_tail(HOST, &instance.id).await.unwrap();
    eventually("it is up", PATIENCE, async || log().await.contains("up\n").then_some(())).await;

    // A controller that starts anew finds it.
    let again = DockerBackend::new("rack", stage.identity("set"), template, &stage.fresh_engines());
    prepared(&again).await;
    let mut adopted = shown(&again, &instance.id).expect("it is adopted");
    adopted.created_at = instance.created_at;
    assert_eq!(adopted, instance);

    let options = KillContainerOptionsBuilder::new().signal("TERM").build();
    stage.docker.kill_container(&instance.id, Some(options)).await.unwrap();
    for backend in [&backend, &again] {
        let ended = until("its end is seen", || exit(backend, &instance.id)).await;
        assert_eq!((ended.code, ended.out_of_memory), (Some(7), false));
    }
    backend.remove(HOST, &instance.id).await.unwrap();
    assert!(matches!(backend.remove(HOST, &instance.id).await, Err(Error::Gone)));
    assert_eq!(stage.count().await, 0);

    let networks = async || stage.docker.list_networks(None).await.unwrap().len();
    let with_the_sets = networks().await;
    assert_eq!(backend.discard_shared().await, [""; 0]);
    assert_eq!(networks().await, with_the_sets - 1);
}
