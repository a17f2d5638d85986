//! Expectations of what a runner printed, for kinds that keep it where a controller can read it.

use paddock::backend::Error;
use testkit::wait::eventually;

use crate::controller::Controller;
use crate::stage::{Block, PRINTED, Stage};

/// A failure is reported with the last words of the runner, which are read after its end.
pub async fn the_log_tail_is_what_the_runner_printed<S: Stage>(stage: &mut S) {
    let controller = Controller::new(stage);
    let set = controller.scale_set(stage, "set", &Block::default()).await;
    let instance = set.running().await;
    eventually("the log has what the runner printed", S::PATIENCE, async || {
        set.log_tail(&instance.id).await.unwrap().contains(PRINTED).then_some(())
    })
    .await;
    stage.end(&instance, 7).await;
    set.until_ended(&instance.id).await;
    assert!(set.log_tail(&instance.id).await.unwrap().contains(PRINTED), "it outlives the runner");
}

/// A report of a failure is written without the words of what is gone.
pub async fn reading_what_is_gone_answers_gone<S: Stage>(stage: &mut S) {
    let controller = Controller::new(stage);
    let set = controller.scale_set(stage, "set", &Block::default()).await;
    let instance = set.running().await;
    set.remove(&instance.id).await.unwrap();
    set.until_absent(&instance.id).await;
    let read = set.log_tail(&instance.id).await;
    assert!(matches!(read, Err(Error::Gone)), "{read:?}");
}

/// A status may name the instance of another scale set, and what that printed may be a secret.
pub async fn an_instance_of_another_scale_set_is_not_read<S: Stage>(stage: &mut S) {
    let controller = Controller::new(stage);
    let victim = controller.scale_set(stage, "victim", &Block::default()).await;
    let forger = controller.scale_set(stage, "forger", &Block::default()).await;
    let instance = victim.running().await;
    let read = forger.log_tail(&instance.id).await;
    assert!(matches!(read, Err(Error::Refused(_))), "{read:?}");
}

/// What does not carry the cluster's identity is someone else's.
pub async fn an_instance_of_another_cluster_is_not_read<S: Stage>(stage: &mut S) {
    let foreign = stage.add_foreign().await;
    let controller = Controller::new(stage);
    let set = controller.scale_set(stage, "set", &Block::default()).await;
    set.seen().await;
    let read = set.log_tail(&foreign).await;
    assert!(matches!(read, Err(Error::Refused(_) | Error::Gone)), "{read:?}");
}
