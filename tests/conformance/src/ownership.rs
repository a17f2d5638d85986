//! Expectations of whose an instance is: what each controller, scale set and backend shows, and what it leaves alone.

use paddock::backend::{Error, OwnedInstance};
use paddock::runner::{Instance, InstanceState};

use crate::controller::{Controller, ScaleSet};
use crate::stage::{BACKEND, Block, Stage};

/// The id of an instance may come from a status, which anyone may have written.
pub async fn an_instance_of_another_scale_set_is_neither_shown_nor_removed<S: Stage>(stage: &mut S) {
    let controller = Controller::new(stage);
    let victim = controller.scale_set(stage, "victim", &Block::default()).await;
    let forger = controller.scale_set(stage, "forger", &Block::default()).await;
    let instance = victim.running().await;
    refuses(&forger, &instance.id).await;
    // A controller that came later, and may not have seen it yet.
    let later = Controller::new(stage);
    let unseeing = later.scale_set(stage, "forger", &Block::default()).await;
    unseeing.seen().await;
    refuses(&unseeing, &instance.id).await;
    assert_eq!(victim.shown(&instance.id).unwrap().state, InstanceState::Running);
    assert!(stage.has(&instance.id).await);
}

/// What does not carry the cluster's identity is someone else's.
pub async fn an_instance_of_another_cluster_is_neither_shown_nor_removed<S: Stage>(stage: &mut S) {
    let foreign = stage.add_foreign().await;
    let controller = Controller::new(stage);
    let set = controller.scale_set(stage, "set", &Block::default()).await;
    let own = set.running().await;
    assert_eq!(set.shown(&foreign), None);
    // A kind that finds instances by their identity finds none.
    let removed = set.remove(&foreign).await;
    assert!(matches!(removed, Err(Error::Refused(_) | Error::Gone)), "{removed:?}");
    let owned = controller.owned(&own.id).await;
    assert!(controller.providers.instances().iter().all(|owned| owned.instance.id != foreign));
    let forged = Instance { id: foreign.clone(), ..own };
    let removed = controller.providers.remove_orphan(&OwnedInstance { instance: forged, ..owned }).await;
    assert!(stage.has(&foreign).await, "it was removed: {removed:?}");
}

async fn refuses(set: &ScaleSet, id: &str) {
    assert_eq!(set.shown(id), None);
    let removed = set.remove(id).await;
    assert!(matches!(removed, Err(Error::Refused(_))), "{removed:?}");
}

/// One host may serve a scale set under two templates.
pub async fn two_backends_on_one_host_show_each_its_own<S: Stage>(stage: &mut S) {
    let controller = Controller::new(stage);
    let resolved = controller.resolve(&stage.backend(&Block::default())).await;
    let siblings = [BACKEND, "shelf"];
    let rack = controller.open(&*resolved, BACKEND, &siblings, "set");
    let shelf = controller.open(&*resolved, "shelf", &siblings, "set");
    let (on_rack, on_shelf) = (rack.running().await, shelf.running().await);
    assert_eq!((on_rack.backend.as_str(), on_shelf.backend.as_str()), (BACKEND, "shelf"));
    assert_eq!((rack.shown(&on_shelf.id), shelf.shown(&on_rack.id)), (None, None));
    assert_eq!((rack.listing().instances.len(), shelf.listing().instances.len()), (1, 1));
}

/// The spec called the backend otherwise when the instance was started: it is still the scale set's.
pub async fn what_a_backend_left_that_is_no_more_is_adopted_by_its_sibling<S: Stage>(stage: &mut S) {
    let before = Controller::new(stage);
    let set = before.scale_set(stage, "set", &Block::default()).await;
    let instance = set.running().await;
    drop((set, before));

    let after = Controller::new(stage);
    let resolved = after.resolve(&stage.backend(&Block::default())).await;
    let renamed = after.open(&*resolved, "shelf", &["shelf"], "set");
    let adopted = renamed.until_running(&instance.id).await;
    assert_eq!((adopted.backend.as_str(), adopted.runner), ("shelf", instance.runner));
    renamed.remove(&instance.id).await.unwrap();
    renamed.until_absent(&instance.id).await;
}

/// A controller that dies leaves everything to the next, which starts nothing twice and ends nothing.
pub async fn a_new_controller_adopts_what_runs<S: Stage>(stage: &mut S) {
    let before = Controller::new(stage);
    let set = before.scale_set(stage, "set", &Block::default()).await;
    let (running, ended) = (set.running().await, set.running().await);
    stage.end(&ended, 7).await;
    set.until_ended(&ended.id).await;
    drop((set, before));

    let after = Controller::new(stage);
    let set = after.scale_set(stage, "set", &Block::default()).await;
    let adopted = set.until_running(&running.id).await;
    assert_eq!((adopted.runner, adopted.template_hash), (running.runner, running.template_hash));
    assert_eq!((adopted.backend.as_str(), &adopted.host), (BACKEND, &set.host_name));
    assert_eq!(set.until_ended(&ended.id).await.code, Some(7));
    assert_eq!(set.listing().instances.len(), 2);
    for id in [&running.id, &ended.id] {
        set.remove(id).await.unwrap();
        set.until_absent(id).await;
        assert!(!stage.has(id).await);
    }
}

/// A host that the spec leaves out is drained by what the status kept of it, its name and its endpoint. A kind that needs
/// more to reach a host has it from whoever else uses the host.
pub async fn a_host_alone_shows_what_runs_there_and_removes_it<S: Stage>(stage: &mut S) {
    let before = Controller::new(stage);
    let set = before.scale_set(stage, "set", &Block::default()).await;
    let instance = set.running().await;
    let (kind, name) = (set.backend.kind(), set.host_name.clone());
    let endpoint = before.resolve(&stage.backend(&Block::default())).await.hosts()[0].endpoint.clone();
    drop((set, before));

    let after = Controller::new(stage);
    let _other = after.scale_set(stage, "other", &Block::default()).await;
    let resolved = after.providers.resolve_host(kind, &name, &endpoint).expect("a host of a spec");
    let left = after.open(&*resolved, BACKEND, &[BACKEND], "set");
    left.until_running(&instance.id).await;
    left.remove(&instance.id).await.unwrap();
    left.until_absent(&instance.id).await;
    assert!(!stage.has(&instance.id).await);
}

/// No scale set speaks for an instance whose own is deleted: the sweep finds it, on every host that is in use.
pub async fn an_orphan_is_found_and_removed_by_the_provider<S: Stage>(stage: &mut S) {
    let before = Controller::new(stage);
    let gone = before.scale_set(stage, "gone", &Block::default()).await;
    let orphan = gone.running().await;
    drop((gone, before));

    let after = Controller::new(stage);
    let set = after.scale_set(stage, "set", &Block::default()).await;
    let own = set.running().await;
    let found = after.owned(&orphan.id).await;
    assert_eq!((found.scale_set.as_str(), found.instance.scale_set_uid.as_str()), ("ci/gone", "gone"));
    assert_eq!((&found.host, &found.instance.runner), (&set.key, &orphan.runner));
    assert_eq!(after.owned(&own.id).await.scale_set, "ci/set", "it shows those of all scale sets");
    after.providers.remove_orphan(&found).await.unwrap();
    assert!(!stage.has(&orphan.id).await);
    after.providers.remove_orphan(&found).await.expect("no error if there is none");
    assert_eq!(set.shown(&own.id).unwrap().state, InstanceState::Running);
}

/// Before anything is removed, its own label must say the scale set that it is removed for.
pub async fn an_orphan_is_not_removed_for_another_scale_set<S: Stage>(stage: &mut S) {
    let controller = Controller::new(stage);
    let set = controller.scale_set(stage, "set", &Block::default()).await;
    let running = set.running().await;
    let mut forged = controller.owned(&running.id).await;
    forged.instance.scale_set_uid = "gone".to_owned();
    let removed = controller.providers.remove_orphan(&forged).await;
    assert!(matches!(removed, Err(Error::Refused(_))), "{removed:?}");
    assert!(stage.has(&running.id).await);
}
