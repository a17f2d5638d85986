//! Deletion: the finalizer, the drain, and the end at GitHub. It ends whatever happens, and says what it left.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde_json::json;
use tokio::time::timeout;
use tracing::{info, warn};

use super::context::{Context, with_timeout};
use super::reconcile::Next;
use super::set::ScaleSetHandle;
use crate::api::RunnerScaleSet;
use crate::github::{self, ScaleSetService};
use crate::runner::Watched;
use crate::time::Plus;

/// Keeps the object until nothing of it is left elsewhere.
const FINALIZER: &str = "paddock.dev/finalizer";
/// How long one try to delete the scale set may take.
const DEADLINE: Duration = Duration::from_secs(15);
/// Between two tries.
const RETRY: Duration = Duration::from_secs(10);
/// For so long after the drain, runners are removed; after that they are left behind: their host does not come back.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(300);

/// A scale set to which another session holds on for so long is left to whoever has that.
const CONTESTED: Duration = Duration::from_secs(15 * 60);

/// What is left of a set's runners.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Left {
    /// Hosts were not looked at yet.
    pub unseen: bool,
    /// Runners with an instance, or on which work is under way.
    pub running: usize,
    /// Runners without one, whose registration may remain.
    pub registered: usize,
    /// Runners that are gone, and whose registration was left when the drain was over.
    pub abandoned: usize,
}

/// Whether the object is kept by us.
pub(super) fn is_held(object: &RunnerScaleSet) -> bool {
    object.finalizers().iter().any(|f| f == FINALIZER)
}

fn drain_begun(object: &RunnerScaleSet) -> Option<Timestamp> {
    object.metadata.deletion_timestamp.as_ref().map(|at| at.0)
}

/// Until when a deleted object's busy runners are waited for. `draining` is how long this process has watched that.
pub(super) fn drain_until(
    object: &RunnerScaleSet,
    draining: Option<&Watched>,
    now: Timestamp,
) -> Option<Timestamp> {
    let deleted_at = drain_begun(object)?;
    Some(draining?.due(deleted_at, object.spec.timeouts.drain.get(), now))
}

/// Keeps the object from now on.
pub(super) async fn add_finalizer(object: &RunnerScaleSet, ctx: &Context) -> Result<(), kube::Error> {
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
    with_timeout(api.patch_metadata(&name, &params, &Patch::Merge(patch))).await?;
    Ok(())
}

/// Ends the set at GitHub and lets the object go, once its runners are gone or were waited for long enough. None while
/// it is too early.
pub(super) async fn advance(
    object: &RunnerScaleSet,
    set: &Arc<ScaleSetHandle>,
    ctx: &Context,
    left: Left,
    now: Timestamp,
) -> Result<Option<Next>, kube::Error> {
    let drain_until = set.state().drain_until;
    let expired = drain_until.is_some_and(|until| until <= now);
    // A controller that has just begun has its own time for it.
    let given_up = drain_until.is_some_and(|until| until.max(set.since).plus(GIVEN_UP_AFTER) <= now);
    if left.unseen || (left.running > 0 && !given_up) || (left.registered > 0 && !expired) {
        return Ok(None);
    }
    let mut remains = Vec::new();
    if let Some(id) = own_scale_set(set, ctx) {
        let contested = drain_begun(object).is_some_and(|at| at.max(set.since).plus(CONTESTED) <= now);
        match delete_at_github(set, id, ctx).await {
            Ok(()) => set.state().registration.lose(),
            Err(error @ github::Error::SessionConflict { .. }) if contested => {
                remains.push(format!("scale set {id} at GitHub ({error})"));
            }
            Err(error) if expired => remains.push(format!("scale set {id} at GitHub ({error})")),
            Err(error) => {
                warn!(%error, "the scale set cannot be deleted at GitHub yet");
                return Ok(Some(Next::After(RETRY)));
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
    Ok(Some(Next::OnChange))
}

/// The scale set at GitHub that is this object's own, and no elder's.
fn own_scale_set(set: &ScaleSetHandle, ctx: &Context) -> Option<i64> {
    let own = set.state().registration.own()?;
    let anothers = ctx.sets.elder(set).is_some() || ctx.sets.is_an_elders_own(set, own);
    (!anothers).then_some(own)
}

/// Deletes the scale set, once its message session has shown that nobody else has taken it over meanwhile.
async fn delete_at_github(set: &ScaleSetHandle, id: i64, ctx: &Context) -> Result<(), github::Error> {
    let (service, open, left_behind) = {
        let state = set.state();
        let left_behind = state.session.as_ref().map(|session| session.id.clone());
        (state.service.clone(), state.registration.session_open, left_behind)
    };
    let Some(service) = service else {
        return Err(github::Error::Config("there are no credentials for GitHub".to_owned()));
    };
    let deleting = async {
        if open {
            return service.delete_scale_set(id).await;
        }
        delete_in_a_session(&*service, id, &ctx.owner, left_behind.as_deref()).await
    };
    let silence = || Err(github::Error::Transient("no answer within the deadline".to_owned()));
    timeout(DEADLINE, deleting).await.unwrap_or_else(|_| silence())
}

async fn delete_in_a_session(
    service: &dyn ScaleSetService,
    id: i64,
    owner: &str,
    left_behind: Option<&str>,
) -> Result<(), github::Error> {
    let session = match service.open_session(id, owner, left_behind).await {
        Ok(session) => session,
        Err(github::Error::ScaleSetGone) => return Ok(()),
        Err(error) => return Err(error),
    };
    let deleted = service.delete_scale_set(id).await;
    if deleted.is_err() {
        // It would be in the way of the next try.
        let _ = service.close(&session).await;
    }
    deleted
}

async fn finish(
    object: &RunnerScaleSet,
    set: &Arc<ScaleSetHandle>,
    ctx: &Context,
    remains: &[String],
) -> Result<(), kube::Error> {
    if remains.is_empty() {
        // What is not this object's own stays at GitHub as it was.
        let anothers = ctx.sets.elder(set).is_some() || set.state().registration.held.is_some();
        let note = match anothers {
            true => "all runners and their registrations are gone; the scale set is another's, and stays",
            false => "all runners, their registrations and the scale set are gone",
        };
        let note = note.to_owned();
        ctx.events.normal(&set.reference, "Deleted", "Delete", note);
    } else {
        let note = format!("the drain is over; this was left behind: {}", remains.join("; "));
        warn!(note, "deleted, not wholly");
        ctx.events.warning(&set.reference, "LeftBehind", "Delete", note);
    }
    remove_finalizer(object, ctx).await?;
    info!("scale set gone");
    ctx.forget(set);
    Ok(())
}
