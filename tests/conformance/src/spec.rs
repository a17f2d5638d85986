//! Expectations of a spec's block: what is noticed as a change, and what its hosts are called.

use paddock::api;
use paddock::backend::ResolveError;

use crate::controller::Controller;
use crate::stage::{BACKEND, Block, Stage};

/// An unchanged backend is kept, and its runners are not renewed, also by the next controller.
pub async fn an_unchanged_block_has_the_same_fingerprint_and_template_hash<S: Stage>(stage: &mut S) {
    let spec = stage.backend(&Block::default());
    let (one, next) = (Controller::new(stage), Controller::new(stage));
    assert_eq!(one.resolve(&spec).await.fingerprint(), one.resolve(&spec).await.fingerprint());
    let before = one.scale_set(stage, "set", &Block::default()).await;
    let after = next.scale_set(stage, "set", &Block::default()).await;
    assert_eq!(before.backend.template_hash(), after.backend.template_hash());
    assert!(!before.backend.template_hash().is_empty());
}

/// A template that is edited reaches the runners.
pub async fn a_changed_block_has_another_fingerprint_and_template_hash<S: Stage>(stage: &mut S) {
    let controller = Controller::new(stage);
    let changed = Block { changed: true, ..Block::default() };
    let resolved = controller.resolve(&stage.backend(&Block::default())).await;
    let edited = controller.resolve(&stage.backend(&changed)).await;
    assert_ne!(resolved.fingerprint(), edited.fingerprint());
    let before = controller.scale_set(stage, "set", &Block::default()).await;
    let after = controller.scale_set(stage, "set", &changed).await;
    assert_ne!(before.backend.template_hash(), after.backend.template_hash());
}

/// Backends that share a host must know it, however a spec spells it.
pub async fn two_spellings_of_a_host_have_one_key<S: Stage>(stage: &mut S) {
    let controller = Controller::new(stage);
    let one = controller.resolve(&stage.backend(&Block::default())).await.hosts()[0].clone();
    let respelled = stage.backend(&Block { respelled: true, ..Block::default() });
    let other = controller.resolve(&respelled).await.hosts()[0].clone();
    assert_eq!(one.endpoint != other.endpoint, S::SPELLS_ENDPOINTS, "each is told as its spec spells it");
    let key = one.key.expect("a host");
    assert_eq!(Some(&key), other.key.as_ref());
    assert_eq!(key.kind, controller.scale_set(stage, "set", &Block::default()).await.backend.kind());
}

/// What runs is seen and drained although a Secret of the spec cannot be read.
pub async fn a_block_read_without_secrets_names_the_same_hosts<S: Stage>(stage: &mut S) {
    let controller = Controller::new(stage);
    let spec = stage.backend(&Block::default());
    let resolved = controller.resolve(&spec).await;
    let offline = controller.providers.resolve_offline(&spec).expect("a block of this kind");
    assert_eq!(resolved.hosts(), offline.hosts());
    let set = controller.open(&*resolved, BACKEND, &[BACKEND], "set");
    let instance = set.running().await;
    controller.open(&*offline, BACKEND, &[BACKEND], "set").until_running(&instance.id).await;
}

/// Each kind reads its own block, and nothing else does.
pub async fn a_spec_without_a_block_of_this_kind_is_not_resolved<S: Stage>(stage: &mut S) {
    let controller = Controller::new(stage);
    let spec = stage.backend(&Block::default());
    let spec = api::Backend { docker: None, tart: None, ecs: None, ..spec };
    for provider in controller.providers.iter() {
        assert!(provider.resolve_offline(&spec).is_none());
    }
    let resolved = controller.try_resolve(&spec).await.map(|resolved| resolved.fingerprint());
    assert!(matches!(resolved, Err(ResolveError::Unusable(_))), "{resolved:?}");
}
