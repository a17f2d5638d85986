//! What the fake is for: it records, and it fails on request.

use std::sync::Arc;

use conformance::fake::{Call, FakeProvider, Hosts, Method};
use conformance::{BACKEND, Block, Controller, HostUse, Stage};
use paddock::api::{BackendType, Reason};
use paddock::backend::{Availability, Error, NewRunner, Providers, Requeuer, ResolveError};
use paddock::runner::JitConfiguration;

use crate::stage::{CLUSTER, ENDPOINT, FakeStage, HOST};

fn call(method: Method, subject: &str) -> Call {
    Call { method, host: ENDPOINT.to_owned(), subject: subject.to_owned() }
}

#[tokio::test]
async fn each_call_is_recorded_with_what_it_was_about() {
    let stage = FakeStage::set_up(HostUse::Own).await;
    let controller = Controller::new(&stage);
    let set = controller.scale_set(&stage, "set", &Block::default()).await;
    let instance = set.running().await;
    set.log_tail(&instance.id).await.unwrap();
    let owned = controller.owned(&instance.id).await;
    set.remove(&instance.id).await.unwrap();
    controller.providers.remove_orphan(&owned).await.unwrap();
    let expected = [
        Call { method: Method::Resolve, host: String::new(), subject: BACKEND.to_owned() },
        call(Method::Prepare, ""),
        call(Method::Reserve, ""),
        call(Method::Ready, ""),
        call(Method::Start, &instance.runner),
        call(Method::LogTail, &instance.id),
        call(Method::Remove, &instance.id),
        call(Method::RemoveOrphan, &instance.id),
    ];
    assert_eq!(stage.hosts.calls(), expected);
}

#[tokio::test]
async fn the_next_call_fails_on_request_and_the_one_after_does_not() {
    let stage = FakeStage::set_up(HostUse::Own).await;
    let controller = Controller::new(&stage);
    let hosts = &stage.hosts;
    hosts.fail_next_resolve(ResolveError::Unread("on request".to_owned()));
    let unresolved = controller.try_resolve(&stage.backend(&Block::default())).await;
    assert!(matches!(unresolved.map(drop), Err(ResolveError::Unread(_))));
    let set = controller.scale_set(&stage, "set", &Block::limited(1)).await;
    let error = || Error::no_capacity(Reason::EngineError, "on request");

    hosts.fail_next(Method::Prepare, error());
    set.seen().await;
    set.backend.prepare(HOST);
    set.until("the preparation fails", || (set.host().message == "on request").then_some(())).await;
    assert_eq!(set.host().availability, Availability::Unprepared);
    set.ready().await;

    hosts.fail_next(Method::Reserve, error());
    assert!(set.reserve().is_none());
    let mut slot = set.reserve().unwrap();

    hosts.fail_next(Method::Ready, error());
    assert!(matches!(slot.ready().await, Err(Error::NoCapacity(_))));
    slot.ready().await.unwrap();

    hosts.fail_next(Method::Start, Error::Unreachable("on request".to_owned()));
    let jit = JitConfiguration::new("secret".to_owned());
    let started = slot.start(&NewRunner { name: "linux-1", jit: &jit }).await;
    assert!(matches!(started, Err(Error::Unreachable(_))));
    assert_eq!(set.free(), 1, "a start that failed gave its slot back");
    let instance = set.running().await;

    hosts.fail_next(Method::LogTail, error());
    hosts.fail_next(Method::Remove, Error::Gone);
    hosts.fail_next(Method::Remove, error());
    assert!(set.log_tail(&instance.id).await.is_err());
    assert!(matches!(set.remove(&instance.id).await, Err(Error::Gone)));
    assert!(matches!(set.remove(&instance.id).await, Err(Error::NoCapacity(_))));
    assert!(stage.hosts.has(&instance.id));
    set.remove(&instance.id).await.unwrap();
}

/// A new kind is one folder, `src/fake`, and the one line that lists it: nothing outside the folder names it.
#[tokio::test]
async fn the_fake_is_one_line_in_the_list_of_providers() {
    let stage = FakeStage { hosts: Hosts::new() };
    let requeuer = Requeuer::new(|_| {});
    let providers = Providers::new(vec![Arc::new(FakeProvider::new(&stage.hosts, CLUSTER, requeuer))]);
    let host = providers.resolve_host(BackendType::Docker, HOST, ENDPOINT).unwrap();
    assert_eq!(host.hosts()[0].endpoint, ENDPOINT);
    assert!(providers.resolve_host(BackendType::Docker, HOST, "unix:///var/run/docker.sock").is_none());
    let block = providers.resolve_offline(&stage.backend(&Block::default())).unwrap();
    assert_eq!(block.hosts()[0].name, HOST);
    assert_eq!(stage.backend(&Block::default()).name, BACKEND);
}
