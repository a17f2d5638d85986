//! The network that is a scale set's alone: made once, of no other, and gone with its set.

use bollard::models::NetworkCreateRequest;
use bollard::query_parameters::InspectContainerOptions;
use futures::future::join_all;
use paddock::api::{NETWORK_OF_SET, Reason};
use paddock::backend::docker::{DockerBackend, DockerTemplate};
use paddock::backend::{Availability, Backend, Error};
use paddock::runner::{Identity, Instance};

use crate::parts::Engine;
use crate::stage::{HOST, Stage, host, prepared, shown, start, started, until};

fn template(stage: &Stage) -> DockerTemplate {
    let mut template = stage.template("sleep 1000");
    template.network = Some(NETWORK_OF_SET.to_owned());
    template
}

/// The names of the networks that a set has, one for each.
async fn networks_of(stage: &Stage, set: &str) -> Vec<String> {
    let networks = stage.docker.list_networks(None).await.unwrap();
    let is = |labels: &std::collections::HashMap<String, String>| {
        labels.get(Identity::CLUSTER) == Some(&stage.cluster)
            && labels.get(Identity::SCALE_SET_UID).is_some_and(|uid| uid == set)
    };
    let own = networks.into_iter().filter(|network| network.labels.as_ref().is_some_and(is));
    own.filter_map(|network| network.name).collect()
}

/// The networks that a runner is on.
async fn networks_with(stage: &Stage, runner: &Instance) -> Vec<String> {
    let found = stage.docker.inspect_container(&runner.id, None::<InspectContainerOptions>).await.unwrap();
    let networks = found.network_settings.unwrap().networks.unwrap();
    networks.into_values().filter_map(|network| network.network_id).collect()
}

async fn remove(backend: &DockerBackend, runner: &Instance) {
    backend.remove(HOST, &runner.id).await.unwrap();
    until("its removal is seen", || shown(backend, &runner.id).is_none().then_some(())).await;
}

#[tokio::test]
async fn runners_of_a_set_are_on_one_network_that_is_theirs_alone_and_goes_with_the_set() {
    let engine = Engine::start("set-network").await;
    let stage = Stage::at("set-network", engine.endpoint()).await;
    // Two backends of the set have the host; their first starts come together.
    let rack = stage.backend("set", template(&stage));
    let spare = DockerBackend::new("spare", stage.identity("set"), template(&stage), &stage.engines);
    for backend in [&rack, &spare] {
        assert_eq!(prepared(backend).await.availability, Availability::Ready);
    }
    let both = [&rack, &spare, &rack, &spare];
    let runners: Vec<Instance> =
        join_all(both.map(start)).await.into_iter().map(|started| started.unwrap()).collect();
    let names = networks_of(&stage, "set").await;
    assert!(names.len() == 1 && names[0].starts_with("paddock-ci.set-"), "{names:?}");
    let first = networks_with(&stage, &runners[0]).await;
    assert_eq!(first.len(), 1);
    for runner in &runners {
        assert_eq!(networks_with(&stage, runner).await, first);
    }
    let other = stage.backend("other", template(&stage));
    let anothers = started(&other).await;
    assert_ne!(networks_with(&stage, &anothers).await, first);

    assert_eq!(rack.discard_shared().await.len(), 1, "runners are on it");
    for (backend, runner) in both.into_iter().zip(&runners) {
        remove(backend, runner).await;
    }
    assert_eq!(rack.discard_shared().await, [""; 0]);
    assert_eq!(networks_of(&stage, "set").await, [""; 0]);
    assert_eq!(networks_of(&stage, "other").await.len(), 1);
    assert_eq!(rack.discard_shared().await, [""; 0], "there is none");

    // It goes with the set too where the policy was changed and the set's runners are on it no more.
    remove(&other, &anothers).await;
    let mut plain = template(&stage);
    plain.network = Some("none".to_owned());
    let other = stage.backend("other", plain);
    prepared(&other).await;
    assert_eq!(other.discard_shared().await, [""; 0]);
    assert_eq!(networks_of(&stage, "other").await, [""; 0]);
}

#[tokio::test]
async fn a_network_of_that_name_which_is_not_the_sets_is_not_used_and_stays() {
    let engine = Engine::start("foreign-network").await;
    let stage = Stage::at("foreign-network", engine.endpoint()).await;
    let backend = stage.backend("set", template(&stage));
    let runner = started(&backend).await;
    let name = networks_of(&stage, "set").await.remove(0);
    remove(&backend, &runner).await;
    assert_eq!(backend.discard_shared().await, [""; 0]);

    let planted = NetworkCreateRequest {
        name: name.clone(),
        labels: Some([(Identity::CLUSTER.to_owned(), stage.cluster.clone())].into()),
        ..NetworkCreateRequest::default()
    };
    let planted = stage.docker.create_network(planted).await.unwrap().id;
    let error = start(&backend).await.unwrap_err();
    let Error::NoCapacity(why) = &error else { panic!("{error:?}") };
    assert_eq!(why.reason, Reason::NetworkMissing);
    assert!(why.message.contains(&name) && why.message.contains("not this scale set's"), "{why:?}");
    assert_eq!(host(&backend).message, why.message);
    assert_eq!(stage.count().await, 0);
    assert_eq!(backend.discard_shared().await, [""; 0]);
    assert!(stage.docker.inspect_network(&planted, None).await.is_ok(), "what is not ours stays");

    // Without it the set has its own again.
    stage.docker.remove_network(&planted).await.unwrap();
    until("the host is tried again", || (host(&backend).availability == Availability::Ready).then_some(()))
        .await;
    start(&backend).await.unwrap();
    assert_eq!(networks_of(&stage, "set").await, [name]);
}

#[tokio::test]
async fn a_host_without_addresses_for_another_network_says_so_and_is_tried_again() {
    let engine = Engine::with_room_for_one_network("full-networks").await;
    let stage = Stage::at("full-networks", engine.endpoint()).await;
    let first = stage.backend("first", template(&stage));
    let runner = started(&first).await;
    let second = stage.backend("second", template(&stage));
    prepared(&second).await;
    let error = start(&second).await.unwrap_err();
    let Error::NoCapacity(why) = &error else { panic!("{error:?}") };
    assert_eq!(why.reason, Reason::EngineError);
    assert!(why.message.contains("default-address-pools"), "{}", why.message);
    assert_eq!(host(&second).message, why.message);
    assert!(matches!(host(&second).availability, Availability::BackOff { .. }));
    start(&first).await.unwrap();

    let others = first.instances().remove(0).instances;
    assert_eq!(others.len(), 2);
    for runner in &others {
        remove(&first, runner).await;
    }
    assert!(shown(&first, &runner.id).is_none());
    assert_eq!(first.discard_shared().await, [""; 0]);
    until("the host is tried again", || (host(&second).availability == Availability::Ready).then_some(()))
        .await;
    start(&second).await.unwrap();
}
