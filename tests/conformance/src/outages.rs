//! Expectations of hosts that nobody has seen yet, and of those that fall silent and answer again.

use paddock::backend::{Availability, Error};
use paddock::runner::runner_name;

use crate::controller::{Controller, ScaleSet, start_in};
use crate::stage::{Block, Stage};

/// Nobody knows what runs there, so nobody knows how many slots are taken.
pub async fn nothing_is_reserved_on_a_host_that_was_not_seen_yet<S: Stage>(stage: &mut S) {
    let controller = Controller::new(stage);
    let set = controller.scale_set(stage, "set", &Block::limited(2)).await;
    assert!(set.reserve().is_none());
    let listing = set.listing();
    assert_eq!((listing.current, listing.listed_at, listing.instances), (false, None, Vec::new()));
    set.seen().await;
    assert!(set.listing().listed_at.is_some());
    assert!(set.reserve().is_some());
}

async fn until_silent(set: &ScaleSet) {
    let silent = || (set.host().availability == Availability::Unreachable).then_some(());
    set.until("the silence is noticed", silent).await;
}

/// Absence means nothing while nobody answers: a runner that is believed to be gone would be replaced.
pub async fn a_silent_host_is_shown_as_last_known_and_not_current<S: Stage>(stage: &mut S) {
    let controller = Controller::new(stage);
    let set = controller.scale_set(stage, "set", &Block::limited(2)).await;
    let instance = set.running().await;
    let before = set.requeued();
    stage.fall_silent().await;
    until_silent(&set).await;
    set.requeued_after(before, "a silent host").await;
    let listing = set.listing();
    assert!(!listing.current && listing.listed_at.is_some());
    assert!(set.shown(&instance.id).is_some(), "it stays as last known");
    assert!(!set.host().message.is_empty(), "it says why it takes none");
    let swept = controller.providers.instances();
    assert!(swept.is_empty(), "a sweep reads only what is current: {swept:?}");
}

/// Nothing is started or removed without an answer, and who tries is told that it may try again.
pub async fn a_silent_host_takes_no_start_and_no_removal<S: Stage>(stage: &mut S) {
    let controller = Controller::new(stage);
    let set = controller.scale_set(stage, "set", &Block::limited(2)).await;
    let instance = set.running().await;
    let slot = set.reserve().unwrap();
    stage.fall_silent().await;
    until_silent(&set).await;
    assert!(set.reserve().is_none());
    let started = start_in(slot, &runner_name("linux")).await;
    assert!(matches!(started, Err(Error::Unreachable(_))), "{started:?}");
    let removed = set.remove(&instance.id).await;
    assert!(matches!(removed, Err(Error::Unreachable(_))), "{removed:?}");
    stage.answer_again().await;
    set.seen().await;
    assert_eq!(set.listing().instances.len(), 1, "what could not be started left nothing");
    let ended = set.shown(&instance.id).is_some_and(|instance| instance.state.ended());
    assert_eq!(set.usage().taken, u32::from(!ended), "and gave its slot back");
}

/// All that waited for the host goes on.
pub async fn a_host_that_answers_again_is_current_and_requeues<S: Stage>(stage: &mut S) {
    let controller = Controller::new(stage);
    let set = controller.scale_set(stage, "set", &Block::limited(2)).await;
    let instance = set.running().await;
    stage.fall_silent().await;
    until_silent(&set).await;
    let (before, listed_at) = (set.requeued(), set.listing().listed_at);
    stage.answer_again().await;
    set.seen().await;
    set.requeued_after(before, "a host that answers again").await;
    assert!(set.listing().listed_at > listed_at);
    assert!(set.shown(&instance.id).is_some(), "it is still to be removed, whatever became of it");
    let next = set.running().await;
    assert_ne!(next.id, instance.id);
}
