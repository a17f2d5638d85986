//! Private engines beside runners, on an engine that is the test's own.

use std::collections::BTreeSet;
use std::time::Duration;

use bollard::query_parameters::{
    KillContainerOptionsBuilder, ListContainersOptionsBuilder, ListVolumesOptions,
};
use harness::{Engine, IMAGE, Lab, Manifest, PATIENCE, eventually, github, lab};
use serde_json::json;
use testkit::github::{JobSpec, JobStatus, SimGithub};
use tokio::process::Command;
use tokio::sync::Mutex;

/// The machine's Docker engine and its client, as an image.
const ENGINE_IMAGE: &str = "paddock.test/engine:1";
/// The same, with the tests' runner.
const RUNNER_IMAGE: &str = "paddock.test/runner-with-docker:1";

/// Uses the private engine, in which there is nothing but what a job makes, and then runs the job.
const USE_DOCKER: &str = "test -z \"$(docker ps --all --quiet)\" && tar -c -C / bin | docker import - job:1 && \
     docker run --name left job:1 /bin/busybox true && exec /home/runner/run.sh";

/// Two engines of one machine that each run private ones were seen to fail at it for as long as both were there: runc says
/// "can't get final child's PID from pipe". On one engine many do.
static ONE_HOST_AT_A_TIME: Mutex<()> = Mutex::const_new(());

async fn docker_host(name: &str, github: &SimGithub) -> Engine {
    let engine = Engine::start(name, github.address()).await;
    engine.load(ENGINE_IMAGE).await;
    let script = format!(
        "set -e; docker='docker --host {}'; to=$($docker create {ENGINE_IMAGE} none); \
         from=$($docker create {IMAGE}); $docker cp $from:/home - | $docker cp - $to:/; \
         $docker commit $to {RUNNER_IMAGE}; $docker rm $to $from",
        engine.endpoint()
    );
    let made = Command::new("sh").args(["-c", &script]).output().await.unwrap();
    assert!(made.status.success(), "{made:?}");
    engine
}

fn manifest(github: &SimGithub, engine: &Engine) -> Manifest {
    Manifest::sample(&github.config_url("acme")).docker(json!({
        "image": RUNNER_IMAGE, "user": "runner", "dockerAccess": "Sidecar", "sidecarImage": ENGINE_IMAGE,
        "command": ["/bin/sh", "-c", USE_DOCKER],
        "hosts": [{"name": "own", "endpoint": engine.endpoint(), "maxRunners": 2}],
    }))
}

/// The names of all containers, networks and volumes of the engine.
async fn everything(engine: &Engine) -> BTreeSet<String> {
    let options = ListContainersOptionsBuilder::new().all(true).build();
    let containers = engine.docker.list_containers(Some(options)).await.unwrap();
    let containers = containers.into_iter().filter_map(|container| container.names).flatten();
    let networks = engine.docker.list_networks(None).await.unwrap();
    let networks = networks.into_iter().filter_map(|network| network.name);
    let volumes = engine.docker.list_volumes(None::<ListVolumesOptions>).await.unwrap().volumes;
    let volumes = volumes.unwrap_or_default().into_iter().map(|volume| volume.name);
    containers.chain(networks).chain(volumes).collect()
}

async fn until_nothing_is_left(engine: &Engine, before: &BTreeSet<String>) {
    eventually("nothing is left on the host", 3 * PATIENCE, async || {
        (everything(engine).await == *before).then_some(())
    })
    .await;
}

/// Waits until a runner is idle whose name is not that one, and returns its name.
async fn idle(lab: &Lab, other_than: &str) -> String {
    let set = lab
        .until_within(2 * PATIENCE, "linux", "a runner is idle", |set| {
            set.status.as_ref().is_some_and(|s| s.idle_runners == 1 && s.runners[0].name != other_than)
        })
        .await;
    set.status.unwrap().runners.remove(0).name
}

#[tokio::test]
async fn jobs_run_in_engines_of_their_own_and_leave_nothing() {
    lab("sidecar", async |lab| {
        let github = github(lab).await;
        let _turn = ONE_HOST_AT_A_TIME.lock().await;
        let engine = docker_host("sidecar", &github).await;
        let before = everything(&engine).await;
        let _controller = lab.start();
        lab.apply(&manifest(&github, &engine)).await;
        github.queue_jobs(3, &JobSpec::new("acme/app", ["linux"]).lasting(Duration::from_secs(1)));
        let done = github.wait_until(4 * PATIENCE, |s| s.jobs_in(JobStatus::Completed) == 3).await;
        let status = lab.get("linux").await.status.unwrap();
        done.unwrap_or_else(|error| panic!("{error:?}: {status:#?}"));
        until_nothing_is_left(&engine, &before).await;
        assert!(status.recent_failures.is_empty(), "{:?}", status.recent_failures);
    })
    .await;
}

#[tokio::test]
async fn an_idle_runner_whose_engine_dies_is_replaced_and_a_killed_controller_leaves_no_engine() {
    lab("sidecar-dies", async |lab| {
        let github = github(lab).await;
        let _turn = ONE_HOST_AT_A_TIME.lock().await;
        let engine = docker_host("sidecar-dies", &github).await;
        let before = everything(&engine).await;
        let controller = lab.start();
        let manifest = manifest(&github, &engine).docker(json!({"command": ["/home/runner/run.sh"]}));
        lab.apply(&manifest.clone().spec(json!({"minRunners": 1}))).await;
        let first = idle(lab, "").await;
        let options = KillContainerOptionsBuilder::new().signal("KILL").build();
        engine.docker.kill_container(&format!("{first}-docker"), Some(options)).await.unwrap();
        let second = idle(lab, &first).await;
        let failures = lab.get("linux").await.status.unwrap().recent_failures;
        let told: Vec<_> = failures.iter().map(|f| (f.runner.as_str(), f.reason.as_str())).collect();
        assert_eq!(told, [(first.as_str(), "SidecarFailed")]);

        // The next one's engine comes up while the controller is killed.
        lab.apply(&manifest.clone().spec(json!({"minRunners": 2}))).await;
        let of_third = |name: &String| name.ends_with("-docker-data") && !name.starts_with(&second);
        eventually("another engine is made", 2 * PATIENCE, async || {
            everything(&engine).await.iter().any(of_third).then_some(())
        })
        .await;
        controller.kill().await;
        lab.apply(&manifest.spec(json!({"minRunners": 0, "suspend": true}))).await;
        let _next = lab.start();
        until_nothing_is_left(&engine, &before).await;
    })
    .await;
}
