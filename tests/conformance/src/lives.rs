//! Expectations of single instances: how they start, how they are shown, how they end.

use std::collections::BTreeSet;

use paddock::backend::{Availability, Error};
use paddock::runner::{InstanceState, runner_name};

use crate::controller::{Controller, begin_start, start_in};
use crate::stage::{BACKEND, Block, Stage};

/// A start is only tried on a host that is ready, so a host must come to be.
pub async fn a_host_is_ready_once_it_is_prepared<S: Stage>(stage: &mut S) {
    let controller = Controller::new(stage);
    let set = controller.scale_set(stage, "set", &Block::default()).await;
    assert_eq!((set.host().name, set.listing().host), (set.host_name.clone(), set.host_name.clone()));
    assert_eq!(set.backend.name(), BACKEND);
    assert_eq!(set.host().availability, Availability::Unreachable, "nobody has seen it yet");
    set.seen().await;
    let (unprepared, before) = (set.host().availability == Availability::Unprepared, set.requeued());
    set.ready().await;
    assert_eq!(set.host().message, "", "there is nothing to say of a host that is ready");
    if unprepared {
        set.requeued_after(before, "the end of a preparation").await;
    }
    set.backend.prepare(&set.host_name);
    assert_eq!(set.host().availability, Availability::Ready, "preparing it once more changes nothing");
}

/// The ledger joins an instance to its runner by these words. It is listed at once: a look in between would start another.
pub async fn a_started_instance_is_listed_with_all_that_it_was_made_for<S: Stage>(stage: &mut S) {
    let controller = Controller::new(stage);
    let set = controller.scale_set(stage, "set", &Block::default()).await;
    set.ready().await;
    let name = runner_name("linux");
    let slot = set.reserve().unwrap();
    assert_eq!(slot.host(), set.host_name);
    let started = start_in(slot, &name).await.unwrap();
    let listed = set.shown(&started.id).expect("it is listed as soon as its start is answered");
    for instance in [started, listed] {
        assert_eq!(instance.runner, name);
        assert_eq!(instance.scale_set_uid, set.uid);
        assert_eq!((instance.backend.as_str(), &instance.host), (BACKEND, &set.host_name));
        assert_eq!(instance.template_hash, set.backend.template_hash());
    }
    assert_eq!(set.listing().instances.len(), 1);
}

/// A start may be answered before the runner's process is up.
pub async fn a_start_answers_an_instance_that_comes_to_run<S: Stage>(stage: &mut S) {
    let controller = Controller::new(stage);
    let set = controller.scale_set(stage, "set", &Block::default()).await;
    let started = set.start().await;
    let over = started.state.ended() || started.state == InstanceState::NeverStarted;
    assert!(!over, "{:?}", started.state);
    set.until_running(&started.id).await;
    assert!(stage.has(&started.id).await);
}

/// A burst of demand is met by starts side by side.
pub async fn several_starts_at_once_make_an_instance_each<S: Stage>(stage: &mut S) {
    let controller = Controller::new(stage);
    let set = controller.scale_set(stage, "set", &Block::default()).await;
    set.ready().await;
    let started = futures::future::join_all((0..S::AT_ONCE).map(|_| set.start())).await;
    let ids: BTreeSet<&str> = started.iter().map(|instance| instance.id.as_str()).collect();
    let runners: BTreeSet<&str> = started.iter().map(|instance| instance.runner.as_str()).collect();
    let each = S::AT_ONCE;
    assert_eq!((ids.len(), runners.len(), set.listing().instances.len()), (each, each, each));
}

/// A clean end and a failed one are told apart by the code, whenever the controller gets to it.
pub async fn an_instance_that_ended_is_shown_with_its_code_until_it_is_removed<S: Stage>(stage: &mut S) {
    let controller = Controller::new(stage);
    let set = controller.scale_set(stage, "set", &Block::default()).await;
    for code in [0, 7] {
        let instance = set.running().await;
        stage.end(&instance, code).await;
        let exit = set.until_ended(&instance.id).await;
        assert_eq!((exit.code, exit.out_of_memory), (Some(code.into()), false));
        assert_eq!((exit.clean(), exit.killed()), (code == 0, false));
        let shown = set.shown(&instance.id).expect("it is shown until it is removed");
        assert_eq!(shown.runner, instance.runner);
        set.remove(&instance.id).await.unwrap();
        set.until_absent(&instance.id).await;
        assert!(!stage.has(&instance.id).await, "nothing is left of it");
    }
}

/// What ends is replaced when it ends, not at the next look that comes for another reason.
pub async fn an_end_requeues_the_scale_set<S: Stage>(stage: &mut S) {
    let controller = Controller::new(stage);
    let set = controller.scale_set(stage, "set", &Block::default()).await;
    let instance = set.running().await;
    let before = set.requeued();
    stage.end(&instance, 0).await;
    set.until_ended(&instance.id).await;
    set.requeued_after(before, "an end").await;
}

/// An idle runner is removed while it runs.
pub async fn a_running_instance_that_is_removed_is_gone<S: Stage>(stage: &mut S) {
    let controller = Controller::new(stage);
    let set = controller.scale_set(stage, "set", &Block::default()).await;
    let (removed, kept) = (set.running().await, set.running().await);
    set.remove(&removed.id).await.unwrap();
    set.until_absent(&removed.id).await;
    assert!(!stage.has(&removed.id).await);
    assert_eq!(set.shown(&kept.id).unwrap().state, InstanceState::Running, "the other is left alone");
}

/// A removal that is tried again after its answer was lost must learn that there is nothing more to do.
pub async fn removing_what_is_gone_answers_gone<S: Stage>(stage: &mut S) {
    let controller = Controller::new(stage);
    let set = controller.scale_set(stage, "set", &Block::default()).await;
    let instance = set.running().await;
    set.remove(&instance.id).await.unwrap();
    set.until_absent(&instance.id).await;
    let removed = set.remove(&instance.id).await;
    assert!(matches!(removed, Err(Error::Gone)), "{removed:?}");
}

/// A start is not left half done by who asked for it and gave up: its runner is registered, and its slot taken.
pub async fn a_start_whose_future_is_dropped_is_carried_through<S: Stage>(stage: &mut S) {
    let controller = Controller::new(stage);
    let set = controller.scale_set(stage, "set", &Block::default()).await;
    set.ready().await;
    let mut slot = set.reserve().unwrap();
    slot.ready().await.unwrap();
    let name = runner_name("linux");
    begin_start(slot, &name);
    set.until("the runner runs all the same", || {
        let instances = set.listing().instances;
        let runs = |i: &paddock::runner::Instance| i.runner == name && i.state == InstanceState::Running;
        instances.iter().any(runs).then_some(())
    })
    .await;
}

/// A status may name a host that the spec has no more.
pub async fn a_host_that_the_backend_does_not_have_is_refused<S: Stage>(stage: &mut S) {
    let controller = Controller::new(stage);
    let set = controller.scale_set(stage, "set", &Block::default()).await;
    let instance = set.running().await;
    assert!(set.backend.reserve("elsewhere").is_none());
    set.backend.prepare("elsewhere");
    set.backend.wait_for_slots("elsewhere", 1);
    let removed = set.backend.remove("elsewhere", &instance.id).await;
    assert!(matches!(removed, Err(Error::Refused(_))), "{removed:?}");
    let read = set.backend.log_tail("elsewhere", &instance.id).await;
    assert!(matches!(read, Err(Error::Refused(_))), "{read:?}");
    assert_eq!(set.shown(&instance.id).unwrap().state, InstanceState::Running);
}
