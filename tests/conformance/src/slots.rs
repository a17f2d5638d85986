//! Expectations of hosts with a maximum: who takes the slots, who gets them, and that no more are taken than there are.

use paddock::runner::runner_name;

use crate::controller::{Controller, start_in};
use crate::stage::{BACKEND, Block, Stage};

/// A start that is given up before it began costs nothing.
pub async fn a_reservation_takes_a_slot_and_gives_it_back_when_dropped<S: Stage>(stage: &mut S) {
    let controller = Controller::new(stage);
    let set = controller.scale_set(stage, "set", &Block::limited(1)).await;
    set.ready().await;
    assert_eq!((set.free(), set.usage().taken, set.usage().free), (1, 0, Some(1)));
    let slot = set.reserve().expect("a free slot");
    assert_eq!((set.free(), set.usage().taken, set.usage().free), (0, 1, Some(0)));
    assert!(set.reserve().is_none());
    let before = set.requeued();
    drop(slot);
    assert_eq!((set.free(), set.usage().taken), (1, 0));
    set.requeued_after(before, "a slot that comes free").await;
    assert!(set.reserve().is_some());
}

/// The maximum is the host's, not a scale set's.
pub async fn no_more_is_reserved_than_the_maximum_whoever_asks<S: Stage>(stage: &mut S) {
    let controller = Controller::new(stage);
    let sets = [
        controller.scale_set(stage, "first", &Block::limited(2)).await,
        controller.scale_set(stage, "second", &Block::limited(2)).await,
    ];
    for set in &sets {
        set.ready().await;
    }
    let running = sets[0].running().await;
    let held: Vec<_> = (0..10).filter_map(|n| sets[n % 2].reserve()).collect();
    assert_eq!(held.len(), 1, "beside the one that runs");
    for set in &sets {
        assert_eq!((set.free(), set.usage().taken, set.usage().free), (0, 2, Some(0)));
        assert!(!set.host().message.is_empty(), "it says why it takes no more");
    }
    drop(held);
    assert_eq!((sets[0].free(), sets[1].free()), (1, 1));
    sets[0].remove(&running.id).await.unwrap();
    sets[1].until("its slot is free for all", || (sets[1].free() == 2).then_some(())).await;
}

/// A scale set that wants nothing of a host, or little, takes nothing from the others there.
pub async fn the_maximum_of_a_scale_set_limits_that_one_alone<S: Stage>(stage: &mut S) {
    let controller = Controller::new(stage);
    let other = controller.scale_set(stage, "other", &Block::limited(2)).await;
    other.ready().await;
    let none = controller.resolve(&stage.backend(&Block::limited(0))).await;
    let none = controller.open(&*none, BACKEND, &[BACKEND], "none");
    let one = controller.resolve(&stage.backend(&Block::limited(1))).await;
    let one = controller.open(&*one, BACKEND, &[BACKEND], "one");
    none.ready().await;
    one.ready().await;
    assert_eq!((none.free(), one.free(), other.free()), (0, 1, 2));
    assert!(none.reserve().is_none());
    assert!(!none.host().message.is_empty(), "it says why it takes no more");
    none.backend.wait_for_slots(&none.host_name, 5);
    assert_eq!((one.free(), other.free()), (1, 2), "no slot is kept for what it may not have");
    let running = one.running().await;
    assert_eq!((one.free(), other.free()), (0, 1));
    let others = other.running().await;
    one.remove(&running.id).await.unwrap();
    one.until("its own slot is free", || (one.free() == 1).then_some(())).await;
    assert_eq!(other.free(), 1, "what another has does not count as its own");
    other.remove(&others.id).await.unwrap();
}

/// The operator's word holds whatever specs state, from the moment it is given.
pub async fn a_ceiling_that_is_raised_wakes_those_who_wait<S: Stage>(stage: &mut S) {
    let controller = Controller::new(stage);
    let resolved = controller.resolve(&stage.backend(&Block::limited(2))).await;
    controller.limit(&*resolved, 1);
    let first = controller.open(&*resolved, BACKEND, &[BACKEND], "first");
    let second = controller.open(&*resolved, BACKEND, &[BACKEND], "second");
    first.ready().await;
    second.ready().await;
    let held = first.reserve().expect("a free slot");
    assert_eq!((first.free(), second.free(), second.usage().free), (0, 0, Some(0)));
    assert!(first.reserve().is_none() && second.reserve().is_none());
    second.backend.wait_for_slots(&second.host_name, 1);
    let before = second.requeued();
    controller.limit(&*resolved, 2);
    second.requeued_after(before, "a ceiling that is raised").await;
    assert_eq!((first.free(), second.free()), (0, 1), "the slot is kept for whoever waited");
    let other = second.reserve().expect("the new slot");
    controller.limit(&*resolved, 1);
    assert_eq!((first.free(), second.usage().free), (0, Some(0)), "what runs is left");
    drop((held, other));
}

/// The reservation turns into the instance's own slot: in no moment there are two of them, or none.
pub async fn a_runner_takes_one_slot_from_its_reservation_to_its_end<S: Stage>(stage: &mut S) {
    let controller = Controller::new(stage);
    let set = controller.scale_set(stage, "set", &Block::limited(2)).await;
    set.ready().await;
    let slot = set.reserve().unwrap();
    let name = runner_name("linux");
    let watch = async {
        loop {
            assert_eq!(set.free(), 1);
            tokio::task::yield_now().await;
        }
    };
    let instance = tokio::select! {
        started = start_in(slot, &name) => started.unwrap(),
        never = watch => never,
    };
    assert_eq!(set.free(), 1);
    let running = set.until_running(&instance.id).await;
    assert_eq!((set.free(), set.usage().taken), (1, 1));
    stage.end(&running, 0).await;
    set.until_ended(&running.id).await;
    let kept = u32::from(S::ENDED_KEEPS_SLOT);
    assert_eq!((set.free(), set.usage().taken), (2 - kept, kept), "what ended takes no slot, removed or not");
    set.remove(&running.id).await.unwrap();
    assert_eq!((set.free(), set.usage().taken), (2, 0), "what is removed takes none");
}

/// Whoever gives up waiting for a pull still holds the slot, and may wait again.
pub async fn a_ready_that_is_dropped_keeps_the_slot<S: Stage>(stage: &mut S) {
    let controller = Controller::new(stage);
    let set = controller.scale_set(stage, "set", &Block::limited(1)).await;
    set.ready().await;
    let mut slot = set.reserve().unwrap();
    {
        let mut ready = slot.ready();
        let _ = futures::poll!(&mut ready);
    }
    assert_eq!(set.free(), 0);
    let instance = start_in(slot, &runner_name("linux")).await.unwrap();
    set.until_running(&instance.id).await;
    assert_eq!(set.free(), 0);
}

/// A scale set that has none must not be kept from the next slot by one that has many.
pub async fn a_slot_that_comes_free_goes_to_the_scale_set_that_waits_for_it<S: Stage>(stage: &mut S) {
    let controller = Controller::new(stage);
    let first = controller.scale_set(stage, "first", &Block::limited(1)).await;
    let second = controller.scale_set(stage, "second", &Block::limited(1)).await;
    second.ready().await;
    let instance = first.running().await;
    assert!(second.reserve().is_none());
    second.backend.wait_for_slots(&second.host_name, 1);
    let before = second.requeued();
    first.remove(&instance.id).await.unwrap();
    second.requeued_after(before, "a slot that comes free").await;
    assert!(first.reserve().is_none(), "the slot is kept for whoever waits");
    assert_eq!((first.free(), second.free()), (0, 1));
    drop(second.reserve().expect("the slot that it waited for"));
    assert_eq!((first.free(), second.free()), (1, 1), "whoever took its turn waits no more");
}

/// Two installations may share a host.
pub async fn what_belongs_to_another_cluster_takes_a_slot<S: Stage>(stage: &mut S) {
    let controller = Controller::new(stage);
    let set = controller.scale_set(stage, "set", &Block::limited(2)).await;
    set.ready().await;
    stage.add_foreign().await;
    set.until("the foreign instance is counted", || (set.free() == 1).then_some(())).await;
    assert_eq!((set.usage().taken, set.usage().free), (1, Some(1)));
    let held = set.reserve().expect("the other slot");
    assert!(set.reserve().is_none());
    drop(held);
}

/// A restart must not start above the maximum.
pub async fn a_new_controller_finds_the_same_slots_taken<S: Stage>(stage: &mut S) {
    let before = Controller::new(stage);
    let set = before.scale_set(stage, "set", &Block::limited(2)).await;
    let (_running, ended) = (set.running().await, set.running().await);
    stage.end(&ended, 0).await;
    set.until_ended(&ended.id).await;
    let (usage, kept) = (set.usage(), u32::from(S::ENDED_KEEPS_SLOT));
    assert_eq!((usage.taken, usage.free), (1 + kept, Some(1 - kept)));
    drop((set, before));

    let after = Controller::new(stage);
    let set = after.scale_set(stage, "set", &Block::limited(2)).await;
    set.seen().await;
    assert_eq!((set.usage(), set.free()), (usage, 1 - kept));
}

/// A host that two specs spell in two ways has its slots once.
pub async fn two_spellings_of_a_host_share_its_slots<S: Stage>(stage: &mut S) {
    let controller = Controller::new(stage);
    let first = controller.scale_set(stage, "first", &Block::limited(1)).await;
    let respelled = Block { respelled: true, ..Block::limited(1) };
    let second = controller.scale_set(stage, "second", &respelled).await;
    assert_eq!(first.key, second.key);
    first.ready().await;
    second.ready().await;
    assert_eq!(controller.providers.hosts().len(), 1);
    let held = first.reserve().unwrap();
    assert!(second.reserve().is_none());
    drop(held);
}

/// A host that may run more is no other template.
pub async fn a_changed_maximum_is_noticed_and_renews_no_runner<S: Stage>(stage: &mut S) {
    let controller = Controller::new(stage);
    let few = controller.resolve(&stage.backend(&Block::limited(1))).await;
    let more = controller.resolve(&stage.backend(&Block::limited(2))).await;
    assert_ne!(few.fingerprint(), more.fingerprint());
    let few = controller.open(&*few, BACKEND, &[BACKEND], "set");
    let more = controller.open(&*more, BACKEND, &[BACKEND], "set");
    assert_eq!(few.backend.template_hash(), more.backend.template_hash());
}
