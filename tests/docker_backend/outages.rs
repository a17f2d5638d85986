//! Engines that go away and come back.

use std::time::Duration;

use jiff::Timestamp;
use paddock::backend::docker::DockerBackend;
use paddock::backend::{Availability, Backend, Error};
use paddock::runner::InstanceState;

use crate::parts::Engine;
use crate::proxy::{Fault, Proxy};
use crate::stage::{HOST, Stage, connected, exit, host, prepared, shown, start, start_in, started, until};

#[tokio::test]
async fn an_engine_that_restarts_is_followed_again() {
    let mut engine = Engine::start("restart").await;
    let stage = Stage::at("restart", engine.endpoint()).await;
    let backend = stage.backend("set", stage.template("sleep 1000"));
    let instance = started(&backend).await;
    let slot = backend.reserve(HOST).unwrap();

    let woken = stage.woken("set");
    engine.down();
    until("the loss is seen", || (host(&backend).availability == Availability::Unreachable).then_some(()))
        .await;
    until("its set is woken", || (stage.woken("set") > woken).then_some(())).await;
    let listing = backend.instances().remove(0);
    assert!(!listing.current && listing.listed_at.is_some());
    assert!(listing.instances.iter().any(|known| known.id == instance.id), "it stays as last known");
    assert!(!host(&backend).message.is_empty());
    assert!(backend.reserve(HOST).is_none());
    assert!(matches!(start_in(slot, "linux-unreachable").await, Err(Error::Unreachable(_))));
    assert!(matches!(backend.remove(HOST, &instance.id).await, Err(Error::Unreachable(_))));

    let woken = stage.woken("set");
    engine.up().await;
    until("it is followed again", || backend.instances()[0].current.then_some(())).await;
    assert!(stage.woken("set") > woken);
    // The engine took its containers down with it.
    let ended = until("the end is known", || exit(&backend, &instance.id)).await;
    assert!(ended.code.is_some());
    backend.remove(HOST, &instance.id).await.unwrap();
    assert_eq!(prepared(&backend).await.availability, Availability::Ready);
    let next = start(&backend).await.unwrap();
    assert_eq!(shown(&backend, &next.id).unwrap().state, InstanceState::Running);
    stage.engines.remove(engine.endpoint(), "set", &next.id).await.unwrap();
    until("its removal is seen", || shown(&backend, &next.id).is_none().then_some(())).await;
}

#[tokio::test]
async fn what_happened_while_nobody_watched_is_found() {
    let mut engine = Engine::start("unwatched").await;
    let stage = Stage::at("unwatched", engine.endpoint()).await;
    let backend = stage.backend("set", stage.template("sleep 1000"));
    let (removed, kept) = (started(&backend).await, start(&backend).await.unwrap());
    engine.down();
    until("the loss is seen", || (!backend.instances()[0].current).then_some(())).await;
    // Past Paddock, which connects again only later or sees it by an event: both must do.
    engine.up().await;
    crate::stage::remove(&stage.docker, &removed.id).await;
    until("one is gone and the other ended", || {
        (backend.instances()[0].current
            && shown(&backend, &removed.id).is_none()
            && exit(&backend, &kept.id).is_some())
        .then_some(())
    })
    .await;
    backend.remove(HOST, &kept.id).await.unwrap();
}

#[tokio::test]
async fn a_refusal_is_forgotten_when_the_engine_comes_back() {
    let mut engine = Engine::start("forgiving").await;
    let stage = Stage::at("forgiving", engine.endpoint()).await;
    let mut template = stage.template("exit 0");
    template.user = Some("nobody-knows".to_owned());
    let backend = stage.backend("set", template);
    prepared(&backend).await;
    assert!(matches!(start(&backend).await, Err(Error::Refused(_))));
    assert_eq!(host(&backend).availability, Availability::Refused);
    engine.down();
    engine.up().await;
    until("it is tried again", || (host(&backend).availability == Availability::Ready).then_some(())).await;
}

/// What an engine tells of one container is that container's affair.
#[tokio::test]
async fn a_container_that_cannot_be_inspected_takes_its_host_from_nobody() {
    for (name, fault) in [("inspect-500", Fault::Refused), ("inspect-silent", Fault::Silent)] {
        let stage = Stage::new(name).await;
        let (brief, long) = (stage.template("exit 3"), stage.template("sleep 1000"));
        let before = stage.backend("set", brief);
        let ended = started(&before).await.id;
        let end = until("it ends", || exit(&before, &ended)).await.at;
        // An engine tells again what happened in the second in which it is asked for events.
        until("that second is over", || (Timestamp::now() > end + Duration::from_secs(2)).then_some(()))
            .await;

        let proxy = Proxy::before(name, &stage.endpoint);
        proxy.fail(&ended, fault);
        let mut template = long;
        template.hosts[0].endpoint = proxy.endpoint().to_owned();
        let engines = stage.fresh_engines();
        let backend = DockerBackend::new("rack", stage.identity("set"), template, &engines);
        connected(&backend).await;
        assert_eq!(prepared(&backend).await.availability, Availability::Ready, "{fault:?}");
        let next = start(&backend).await.unwrap();
        assert_eq!(shown(&backend, &next.id).unwrap().state, InstanceState::Running, "{fault:?}");
        let first = backend.instances()[0].listed_at;
        until("it is listed again", || {
            let listing = backend.instances().remove(0);
            assert!(listing.current, "{fault:?}: {:?}", host(&backend));
            (listing.listed_at > first).then_some(())
        })
        .await;
        assert_eq!(shown(&backend, &ended).unwrap().state, InstanceState::Running, "as far as is known");

        proxy.heal();
        assert_eq!(until("it is asked again", || exit(&backend, &ended)).await.code, Some(3), "{fault:?}");
    }
}
