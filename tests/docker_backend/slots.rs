//! Slots of a host, shared by all scale sets that name it.

use paddock::api::HostCeiling;
use paddock::backend::Backend;
use paddock::backend::docker::{DockerBackend, DockerTemplate};
use paddock::runner::Identity;

use crate::parts::Engine;
use crate::stage::{HOST, Stage, connected, host, prepared, remove, shown, start, until};

/// Slots count every runner on the engine, so each test has an engine of its own.
async fn stage(name: &str) -> (Engine, Stage) {
    let engine = Engine::start(name).await;
    let stage = Stage::at(name, engine.endpoint()).await;
    (engine, stage)
}

/// Says what all scale sets together may have on the engine.
fn limit(stage: &Stage, max_runners: u32) {
    stage.engines.limit(&[HostCeiling { endpoint: stage.endpoint.clone(), max_runners }]);
}

fn limited(stage: &Stage, script: &str, max_runners: Option<u32>) -> DockerTemplate {
    let mut template = stage.template(script);
    template.hosts[0].max_runners = max_runners;
    template
}

fn free(backend: &DockerBackend) -> u32 {
    host(backend).free_slots
}

#[tokio::test]
async fn sets_share_the_operators_slots_and_each_has_its_own_number_within() {
    let (_engine, stage) = stage("sharing").await;
    limit(&stage, 2);
    let first = stage.backend("first", limited(&stage, "sleep 1000", Some(3)));
    let second = stage.backend("second", limited(&stage, "sleep 1000", Some(1)));
    let third = stage.backend("third", limited(&stage, "sleep 1000", None));
    assert!(first.reserve(HOST).is_none(), "nobody knows yet what is taken");
    connected(&first).await;
    assert_eq!((free(&first), free(&second), free(&third)), (2, 1, 2));

    let held = [first.reserve(HOST).unwrap(), third.reserve(HOST).unwrap()];
    assert_eq!(free(&second), 0);
    assert!(first.reserve(HOST).is_none() && second.reserve(HOST).is_none());
    prepared(&second).await;
    assert!(
        host(&second).message.contains("all 2 slots, shared by 3 scale sets"),
        "{}",
        host(&second).message
    );

    let woken = stage.woken("second");
    drop(held);
    assert!(stage.woken("second") > woken, "who waits for a slot is woken when one comes free");
    assert_eq!(free(&first), 2);
    stage.engines.limit(&[]);
    assert_eq!((free(&first), free(&second), free(&third)), (3, 1, u32::MAX));
}

#[tokio::test]
async fn a_set_that_wants_nothing_of_a_host_takes_nothing_from_the_others() {
    let (_engine, stage) = stage("cordon").await;
    limit(&stage, 3);
    let none = stage.backend("none", limited(&stage, "sleep 1000", Some(0)));
    let other = stage.backend("other", limited(&stage, "sleep 1000", None));
    prepared(&none).await;
    prepared(&other).await;
    assert_eq!((free(&none), free(&other)), (0, 3));
    assert!(host(&none).message.contains("gives this backend 0 slots"), "{}", host(&none).message);
    none.wait_for_slots(HOST, 3);
    start(&other).await.unwrap();
    assert_eq!(free(&other), 2);
}

#[tokio::test]
async fn a_slot_that_comes_free_wakes_those_who_wait_for_it() {
    let (_engine, stage) = stage("waiting").await;
    limit(&stage, 1);
    let first = stage.backend("first", limited(&stage, "sleep 1000", Some(1)));
    let second = stage.backend("second", limited(&stage, "sleep 1000", Some(1)));
    prepared(&first).await;
    prepared(&second).await;
    let instance = start(&first).await.unwrap();
    assert_eq!(free(&second), 0);
    let woken = stage.woken("second");
    remove(&stage.docker, &instance.id).await;
    until("the other set is woken", || (stage.woken("second") > woken).then_some(())).await;
    assert!(second.reserve(HOST).is_some());
}

#[tokio::test]
async fn runners_of_other_clusters_take_slots_and_other_containers_do_not() {
    let (_engine, stage) = stage("clusters").await;
    limit(&stage, 3);
    let backend = stage.backend("set", limited(&stage, "sleep 1000", Some(3)));
    connected(&backend).await;
    let other = stage.foreign("somebody", &[]).await;
    let runner = stage.foreign("their-runner", &[(Identity::CLUSTER, "another")]).await;
    until("their runner is counted", || (free(&backend) == 2).then_some(())).await;
    assert_eq!(backend.instances()[0].instances, []);
    remove(&stage.docker, &runner).await;
    until("it is gone", || (free(&backend) == 3).then_some(())).await;
    assert!(stage.exists(&other).await);
}

/// Lets both scale sets want the only slot without end: each says so at each look, and starts what it may.
#[tokio::test]
async fn a_slot_that_comes_free_goes_to_the_set_that_waits_longest() {
    let (_engine, stage) = stage("longest").await;
    limit(&stage, 1);
    let (first, second, third) = ("first", "second", "third");
    let backends = [first, second, third].map(|set| stage.backend(set, limited(&stage, "sleep 1000", None)));
    for backend in &backends {
        prepared(backend).await;
    }
    let [first, second, third] = &backends;
    let mut running = start(first).await.unwrap();
    second.wait_for_slots(HOST, 2);
    third.wait_for_slots(HOST, 1);
    first.wait_for_slots(HOST, 5);
    for expected in [second, third, first, second] {
        let woken = stage.woken(set_of(expected, &backends));
        let owner = backends.iter().find(|b| shown(b, &running.id).is_some()).unwrap();
        owner.remove(HOST, &running.id).await.unwrap();
        assert!(stage.woken(set_of(expected, &backends)) > woken, "whose turn it is is woken");
        for other in backends.iter().filter(|other| !std::ptr::eq(*other, expected)) {
            assert!(other.reserve(HOST).is_none(), "the slot is another's");
            assert_eq!(free(other), 0);
            assert!(host(other).message.contains("wait longer"), "{}", host(other).message);
        }
        running = start(expected).await.unwrap();
    }
}

fn set_of(backend: &DockerBackend, backends: &[DockerBackend]) -> &'static str {
    let at = backends.iter().position(|known| std::ptr::eq(known, backend)).unwrap();
    ["first", "second", "third"][at]
}

#[tokio::test]
async fn a_set_that_does_not_take_its_slot_does_not_keep_it_from_others() {
    let (_engine, stage) = stage("idler").await;
    limit(&stage, 1);
    let idle = stage.backend("idle", limited(&stage, "sleep 1000", Some(1)));
    let eager = stage.backend("eager", limited(&stage, "sleep 1000", Some(1)));
    prepared(&idle).await;
    prepared(&eager).await;
    idle.wait_for_slots(HOST, 1);
    eager.wait_for_slots(HOST, 1);
    assert_eq!(free(&eager), 0);
    let woken = stage.woken("eager");
    until("the turn passes", || (free(&eager) == 1).then_some(())).await;
    assert!(stage.woken("eager") > woken, "whose turn it is then is woken");
    let held = eager.reserve(HOST).unwrap();
    drop(held);

    // One that leaves waits for nothing.
    let gone = stage.backend("gone", limited(&stage, "sleep 1000", Some(1)));
    prepared(&gone).await;
    gone.wait_for_slots(HOST, 1);
    assert_eq!(free(&eager), 0);
    drop(gone);
    assert_eq!(free(&eager), 1);
}
