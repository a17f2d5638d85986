//! Deletion: the finalizer, the drain, and the end at GitHub. It ends whatever happens, and says what it left.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde_json::json;
use tracing::{info, warn};

use super::answer::with_timeout;
use super::context::{Context, name_of};
use super::permission;
use super::requeue::Requeue;
use crate::api::{FINALIZER, RunnerScaleSet};
use crate::github;
use crate::scale_set::{Event, Left, ScaleSetHandle, delete_at_github, own_scale_set};
use crate::time::Plus;

/// Between two tries.
const RETRY: Duration = Duration::from_secs(10);
/// For so long after the drain, runners are removed; after that they are left behind: their host does not come back.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(300);

/// A scale set to which another session holds on for so long is left to whoever has that.
const CONTESTED: Duration = Duration::from_secs(15 * 60);

/// Whether the object is kept by us.
fn is_held(object: &RunnerScaleSet) -> bool {
    object.finalizers().iter().any(|f| f == FINALIZER)
}

/// Keeps the object from now on, unless it is being deleted. Answers whether it is kept; what is known of one that goes is
/// forgotten.
pub(super) async fn ensure(object: &RunnerScaleSet, ctx: &Context) -> Result<bool, kube::Error> {
    if is_held(object) {
        return Ok(true);
    }
    if object.metadata.deletion_timestamp.is_some() {
        ctx.shared.registry.named(&name_of(object)).iter().for_each(|set| ctx.forget(set));
        return Ok(false);
    }
    add_finalizer(object, ctx).await?;
    Ok(true)
}

async fn add_finalizer(object: &RunnerScaleSet, ctx: &Context) -> Result<(), kube::Error> {
    let mut finalizers = object.finalizers().to_vec();
    finalizers.push(FINALIZER.to_owned());
    set_finalizers(object, ctx, finalizers).await
}

/// Its status may have been written while GitHub was asked: then it is read again, not asked again.
async fn remove_finalizer(object: &RunnerScaleSet, ctx: &Context) -> Result<(), kube::Error> {
    let others = |object: &RunnerScaleSet| -> Vec<String> {
        object.finalizers().iter().filter(|f| *f != FINALIZER).cloned().collect()
    };
    let mut answer = set_finalizers(object, ctx, others(object)).await;
    if matches!(&answer, Err(kube::Error::Api(status)) if status.is_conflict()) {
        let api = ctx.scale_sets(&object.namespace().unwrap_or_default());
        let Some(latest) = with_timeout(api.get_opt(&object.name_any())).await? else { return Ok(()) };
        if latest.uid() != object.uid() {
            return Ok(());
        }
        answer = set_finalizers(&latest, ctx, others(&latest)).await;
    }
    match answer {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        answer => answer,
    }
}

/// The resource version makes sure that nobody else's finalizer is lost.
async fn set_finalizers(
    object: &RunnerScaleSet,
    ctx: &Context,
    finalizers: Vec<String>,
) -> Result<(), kube::Error> {
    let patch = json!({"metadata": {
        "finalizers": finalizers, "resourceVersion": object.meta().resource_version,
    }});
    let api = ctx.scale_sets(&object.namespace().unwrap_or_default());
    let (name, params) = (object.name_any(), PatchParams::default());
    let _turn = ctx.writes.wait().await;
    with_timeout(api.patch_metadata(&name, &params, &Patch::Merge(patch))).await?;
    Ok(())
}

/// Ends the set of a deleted object at GitHub and lets the object go, once its runners are gone or were waited for long
/// enough. None for one that is not deleted, and while it is too early.
pub(super) async fn advance(
    object: &RunnerScaleSet,
    set: &Arc<ScaleSetHandle>,
    ctx: &Context,
    left: Left,
    now: Timestamp,
) -> Result<Option<Requeue>, kube::Error> {
    let Some(deleted_at) = object.metadata.deletion_timestamp.as_ref().map(|at| at.0) else {
        return Ok(None);
    };
    let drain_until = set.state().deletion.until;
    let expired = drain_until.is_some_and(|until| until <= now);
    // A controller that has just begun has its own time for it.
    let given_up = drain_until.is_some_and(|until| until.max(set.since).plus(GIVEN_UP_AFTER) <= now);
    if left.unseen || (left.running > 0 && !given_up) || (left.registered > 0 && !expired) {
        return Ok(None);
    }
    let mut remains = discard_shared(set).await;
    if !remains.is_empty() && !given_up {
        warn!(what = remains.join("; "), "what runners shared cannot be removed yet");
        return Ok(Some(Requeue::After(RETRY)));
    }
    if let Some(id) = own_scale_set(set, &ctx.shared) {
        let contested = deleted_at.max(set.since).plus(CONTESTED) <= now;
        match delete_at_github(set, id, &ctx.shared).await {
            Ok(()) => set.state().github.registration.lose(),
            Err(error @ github::Error::SessionConflict { .. }) if contested => {
                remains.push(format!("scale set {id} at GitHub ({error})"));
            }
            Err(error) if expired || is_out_of_reach(object, set, ctx) => {
                remains.push(format!("scale set {id} at GitHub ({error})"))
            }
            Err(error) => {
                warn!(%error, "the scale set cannot be deleted at GitHub yet");
                return Ok(Some(Requeue::After(RETRY)));
            }
        }
    }
    remains.extend(set.state().ledger.runners().filter(|r| r.occupies()).map(|runner| {
        format!("{} on {}/{}, which could not be removed", runner.name, runner.backend, runner.host)
    }));
    let registrations = left.registered + left.abandoned;
    if registrations > 0 {
        remains.push(format!("the registrations of {registrations} runners at GitHub"));
    }
    finish(object, set, ctx, &remains).await?;
    Ok(Some(Requeue::OnChange))
}

/// Removes what the runners shared on their hosts. Answers what stays.
async fn discard_shared(set: &ScaleSetHandle) -> Vec<String> {
    let backends: Vec<_> = set.state().all_backends().cloned().collect();
    let mut remains = Vec::new();
    for backend in backends {
        remains.extend(backend.discard_shared().await);
    }
    remains
}

/// Whether GitHub is never reached again: the operator's policy does not permit it, and this process did not before.
fn is_out_of_reach(object: &RunnerScaleSet, set: &ScaleSetHandle, ctx: &Context) -> bool {
    set.state().github.service.is_none() && !permission::permits_github(object, ctx)
}

async fn finish(
    object: &RunnerScaleSet,
    set: &Arc<ScaleSetHandle>,
    ctx: &Context,
    remains: &[String],
) -> Result<(), kube::Error> {
    if remains.is_empty() {
        // What is not this object's own stays at GitHub as it was.
        let anothers =
            ctx.shared.registry.elder(set).is_some() || set.state().github.registration.held.is_some();
        ctx.shared.reporter.publish(set, Event::deleted(anothers));
    } else {
        let event = Event::left_behind(remains);
        warn!(note = event.note, "deleted, not wholly");
        ctx.shared.reporter.publish(set, event);
    }
    remove_finalizer(object, ctx).await?;
    info!("scale set gone");
    ctx.forget(set);
    Ok(())
}
