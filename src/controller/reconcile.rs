//! Reconciles one object: observe, decide, begin, report. It is short: what takes time runs in tasks that requeue it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};
use tracing::{Instrument, warn};

use super::answer::api_message;
use super::context::{Context, Guarded};
use super::load::load;
use super::requeue::Requeue;
use super::{finalizer, report, resolve, status};
use crate::api::RunnerScaleSet;
use crate::scale_set::{Decision, Event, ScaleSetHandle, decide, spawn};
use crate::time::elapsed;

/// Without any other reason, a set is looked at this often.
const QUIET: Duration = Duration::from_secs(60);
/// What a reconcile could not do.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The API server did not answer as it should.
    #[error("the API server: {}", api_message(.0))]
    Kube(#[from] kube::Error),
}

impl Error {
    /// For metrics.
    pub fn category(&self) -> &'static str {
        match self {
            Error::Kube(_) => "kube",
        }
    }
}

/// Reconciles what the watch yields.
pub(super) async fn reconcile(object: Arc<Guarded>, ctx: Arc<Context>) -> Result<Action, Error> {
    let next = match &object.0 {
        Ok(object) => reconcile_timed(object, &ctx).await?,
        Err(error) => {
            let reference = object.object_ref(&());
            warn!(scale_set = reference.name, %error, "a RunnerScaleSet cannot be read; it is left alone until it changes");
            ctx.reporter.events().publish(reference, Event::unreadable(&error.to_string()));
            Requeue::OnChange
        }
    };
    Ok(match next {
        Requeue::After(pause) => Action::requeue(pause),
        Requeue::OnChange => Action::await_change(),
    })
}

/// Reconciles one object, timed.
pub(super) async fn reconcile_timed(object: &RunnerScaleSet, ctx: &Arc<Context>) -> Result<Requeue, Error> {
    let span = tracing::info_span!(
        "reconcile",
        scale_set = format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
    );
    let began = Instant::now();
    let result = reconcile_one(object, ctx).instrument(span).await;
    ctx.shared.metrics.reconcile(began.elapsed(), result.as_ref().err().map(Error::category));
    result
}

async fn reconcile_one(object: &RunnerScaleSet, ctx: &Arc<Context>) -> Result<Requeue, Error> {
    if !ctx.leadership.is_held() || !finalizer::ensure(object, ctx).await? {
        return Ok(Requeue::OnChange);
    }
    let set = load(object, ctx);
    resolve::refresh(object, &set, ctx).await;
    let now = ctx.shared.now();
    let (decision, status) = {
        let mut state = set.state();
        let (decision, tasks) = decide(&mut state, &set, &ctx.shared, now).unzip();
        let status = status::status(&mut state, decision.as_ref().map(Decision::seen), now);
        spawn(&set, &ctx.shared, tasks.unwrap_or_default());
        (decision, status)
    };
    report::publish(&set, status, decision.as_ref(), ctx);
    let Some(decision) = decision else { return Ok(Requeue::After(QUIET)) };
    if let Some(requeue) = finalizer::advance(object, &set, ctx, decision.left, now).await? {
        return Ok(requeue);
    }
    Ok(Requeue::After(until_next_look(&set, &decision, now)))
}

/// Time to the next moment at which time alone changes something.
fn until_next_look(set: &ScaleSetHandle, decision: &Decision, now: Timestamp) -> Duration {
    let read_again_at = set.state().spec.read_again_at;
    let requeue_at = [decision.plan.requeue_at, read_again_at].into_iter().flatten().min();
    let requeue_in = requeue_at.map_or(QUIET, |at| elapsed(now, at).min(QUIET));
    requeue_in.saturating_add(Duration::from_millis(1))
}

/// When to try again after an error.
pub(super) fn after_error(_: Arc<Guarded>, error: &Error, _: Arc<Context>) -> Action {
    warn!(%error, "a reconcile failed");
    Action::requeue(Duration::from_secs(5))
}
