//! What goes wrong on a Mac: each ends in a clear reason, with no clone and no slot lost.

use std::time::Duration;

use paddock::backend::tart::{Limits, TartBackend};
use paddock::backend::{Availability, Backend, Error};
use paddock::runner::InstanceState;
use testkit::tart::{Effect, Fault, Mac};

use crate::stage::*;

/// Starts a runner, which must fail; answers the reason, and the words.
async fn failed(backend: &TartBackend, mac: &Mac) -> (&'static str, String) {
    let Err(error) = start(backend).await else { panic!("it is started") };
    nothing_left(mac).await;
    assert_eq!(host(backend, "mac-1").free_slots, 2, "the slot is free");
    match error {
        Error::NoCapacity(why) => (why.reason.as_str(), why.message),
        Error::Refused(message) => ("refused", message),
        other => panic!("{other}"),
    }
}

async fn backend(name: &str) -> (Stage, Mac, TartBackend) {
    let (stage, mac) = (Stage::new(name), mac("sleep 1000").await);
    let backend = stage.backend("set", template(&[&mac]));
    assert_eq!(prepared(&backend).await.availability, Availability::Ready);
    (stage, mac, backend)
}

#[tokio::test]
async fn a_clone_that_fails_half_way_or_at_its_end_leaves_nothing() {
    let (_stage, mac, backend) = backend("clone").await;
    for effect in [
        Effect::HalfWay { text: "Error: out of luck".to_owned() },
        Effect::FailsAfter { code: 1, text: "Error: out of luck".to_owned() },
    ] {
        mac.fault(Fault::of("clone", effect).times(1)).unwrap();
        let (reason, message) = failed(&backend, &mac).await;
        assert_eq!(reason, "TartError");
        assert!(message.contains("the image cannot be cloned: Error: out of luck"), "{message}");
        assert!(matches!(host(&backend, "mac-1").availability, Availability::BackOff { .. }));
    }
}

#[tokio::test]
async fn a_vm_that_cannot_be_configured_or_dies_at_its_start_leaves_nothing() {
    let (_stage, mac, backend) = backend("start").await;
    mac.fault(Fault::of("run", Effect::Refused { code: 1, text: "Error: no luck".to_owned() }).times(1))
        .unwrap();
    let (reason, message) = failed(&backend, &mac).await;
    assert_eq!(reason, "TartError");
    assert!(message.contains("the VM ended while it booted: Error: no luck"), "{message}");
}

#[tokio::test]
async fn fewer_cpus_than_the_image_needs_are_refused_until_the_spec_changes() {
    let (stage, mac) = (Stage::new("cpus"), mac("sleep 1000").await);
    let mut template = template(&[&mac]);
    template.cpu = Some(1);
    let backend = stage.backend("set", template);
    prepared(&backend).await;
    let (reason, message) = failed(&backend, &mac).await;
    assert_eq!(reason, "refused");
    assert!(message.contains("CPU cores at minimum"), "{message}");
    assert_eq!(host(&backend, "mac-1").availability, Availability::Refused);
}

#[tokio::test]
async fn a_guest_agent_that_never_answers_is_given_up() {
    let stage = Stage::with("agent", Limits { boot: Duration::from_secs(2), ..limits() });
    let mac = mac("sleep 1000").await;
    mac.fault(Fault::of("run", Effect::NoAgent)).unwrap();
    let backend = stage.backend("set", template(&[&mac]));
    prepared(&backend).await;
    let (reason, message) = failed(&backend, &mac).await;
    assert_eq!(reason, "GuestAgentSilent");
    assert!(message.contains("is it installed in the image?"), "{message}");
}

#[tokio::test]
async fn a_guest_agent_that_is_late_is_waited_for() {
    let (_stage, mac, backend) = backend("late").await;
    mac.fault(Fault::of("run", Effect::LateAgent { ms: 2500 })).unwrap();
    start(&backend).await.unwrap();
}

#[tokio::test]
async fn an_image_without_a_runner_ends_its_start_or_its_runner() {
    let (stage, mac) = (Stage::new("no-runner"), mac("sleep 1000").await);
    let mut template = template(&[&mac]);
    template.runner_dir = "/Users/admin/nowhere".to_owned();
    let backend = stage.backend("set", template);
    prepared(&backend).await;
    let (reason, message) = failed(&backend, &mac).await;
    assert_eq!(reason, "TartError");
    assert!(message.contains("nowhere"), "{message}");
}

#[tokio::test]
async fn a_vm_that_dies_in_mid_job_has_ended_nobody_knows_how() {
    let (_stage, mac, backend) = backend("crash").await;
    mac.fault(Fault::of("run", Effect::Dies { ms: 3000, code: 0 })).unwrap();
    let instance = start(&backend).await.unwrap();
    let ended = until("its end is seen", || exit(&backend, &instance.id)).await;
    assert_eq!(ended.code, None);
    until("its slot is free", || (host(&backend, "mac-1").free_slots == 2).then_some(())).await;
    backend.remove("mac-1", &instance.id).await.unwrap();
    nothing_left(&mac).await;
}

#[tokio::test]
async fn a_vm_that_someone_removed_is_an_end() {
    let (_stage, mac, backend) = backend("removed").await;
    let instance = start(&backend).await.unwrap();
    assert!(mac.tart(&["stop", &instance.id]).await.unwrap().status.success());
    assert!(mac.tart(&["delete", &instance.id]).await.unwrap().status.success());
    until("its end is seen", || exit(&backend, &instance.id)).await;
    backend.remove("mac-1", &instance.id).await.unwrap();
    nothing_left(&mac).await;
}

/// `tart stop` does not wait for ever, and a VM that will not be stopped is killed.
#[tokio::test]
async fn a_vm_that_does_not_listen_is_removed_all_the_same() {
    let (_stage, mac, backend) = backend("deaf").await;
    mac.fault(Fault::of("run", Effect::Deaf)).unwrap();
    let instance = start(&backend).await.unwrap();
    backend.remove("mac-1", &instance.id).await.unwrap();
    nothing_left(&mac).await;
}

#[tokio::test]
async fn a_removal_that_fails_keeps_the_slot_until_the_vm_is_gone() {
    let (_stage, mac, backend) = backend("removal").await;
    let instance = start(&backend).await.unwrap();
    let effect = Effect::Refused { code: 1, text: "Error: not now".to_owned() };
    for command in ["stop", "delete"] {
        mac.fault(Fault::of(command, effect.clone()).times(1)).unwrap();
    }
    let Err(Error::NoCapacity(why)) = backend.remove("mac-1", &instance.id).await else {
        panic!("it is removed")
    };
    assert!(why.message.contains("not now"), "{why}");
    assert_eq!(host(&backend, "mac-1").free_slots, 1);
    assert_eq!(shown(&backend, &instance.id).unwrap().state, InstanceState::Running);
    backend.remove("mac-1", &instance.id).await.unwrap();
    assert_eq!(host(&backend, "mac-1").free_slots, 2);
}

/// A runner that a controller gave to a VM and died before it could start it.
#[tokio::test]
async fn a_runner_that_nobody_started_is_shown_as_that() {
    let (stage, mac, backend) = backend("unstarted").await;
    let mut slot = backend.reserve("mac-1").unwrap();
    slot.ready().await.unwrap();
    drop((slot, backend));
    let notes = mac.tart_home().join("paddock");
    let vm = std::fs::read_dir(&notes).unwrap().next().unwrap().unwrap();
    std::fs::write(vm.path().join("runner"), "macs-a\n").unwrap();
    let next = stage.fresh();
    let backend = next.backend("set", template(&[&mac]));
    let id = vm.file_name().into_string().unwrap();
    until("it is shown", || (shown(&backend, &id)?.state == InstanceState::NeverStarted).then_some(())).await;
    backend.remove("mac-1", &id).await.unwrap();
    nothing_left(&mac).await;
}

/// What notes a VM's end and what removes its notes come at the same moment.
#[tokio::test]
async fn the_notes_of_many_vms_that_end_as_they_are_removed_are_all_gone() {
    let (_stage, mac, backend) = backend("notes").await;
    for _ in 0..15 {
        let instance = start(&backend).await.unwrap();
        backend.remove("mac-1", &instance.id).await.unwrap();
    }
    nothing_left(&mac).await;
}
