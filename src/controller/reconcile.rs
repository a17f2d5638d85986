//! Reconciles one object: observe, decide, act, report. It is short: what takes time runs in tasks that wake it again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};
use tokio::time::timeout;
use tracing::{Instrument, info, warn};

use super::context::{Context, Guarded, api_message};
use super::ownership::Claim;
use super::set::ScaleSetHandle;
use super::state::ScaleSetState;
use super::{decide, finalize, inputs, registrar};
use crate::api::RunnerScaleSet;
use crate::api::condition::reason;
use crate::plan::Invalid;
use crate::time::{Plus, elapsed};

/// Without any other reason, a set is looked at this often.
const QUIET: Duration = Duration::from_secs(60);
/// What a spec refers to is read within this ...
const READING: Duration = Duration::from_secs(5);
/// ... or is tried to be read again after this.
const READ_AGAIN: Duration = Duration::from_secs(10);

/// When an object is to be looked at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// After this, or when it changes.
    After(Duration),
    /// When it changes.
    OnChange,
}

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
            let note = format!("it cannot be read, and is left alone until it changes: {error}");
            ctx.events.warning(&reference, reason::UNREADABLE, "Reconcile", note);
            Next::OnChange
        }
    };
    Ok(match next {
        Next::After(pause) => Action::requeue(pause),
        Next::OnChange => Action::await_change(),
    })
}

/// Reconciles one object, timed.
pub(super) async fn reconcile_timed(object: &RunnerScaleSet, ctx: &Arc<Context>) -> Result<Next, Error> {
    let span = tracing::info_span!(
        "reconcile",
        scale_set = format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
    );
    let began = Instant::now();
    let result = reconcile_one(object, ctx).instrument(span).await;
    ctx.metrics.reconcile(began.elapsed(), result.as_ref().err().map(Error::category));
    result
}

async fn reconcile_one(object: &RunnerScaleSet, ctx: &Arc<Context>) -> Result<Next, Error> {
    if !ctx.leadership.is_held() {
        return Ok(Next::OnChange);
    }
    let deleting = object.metadata.deletion_timestamp.is_some();
    if deleting && !finalize::is_held(object) {
        ctx.sets.named(object).iter().for_each(|set| ctx.forget(set));
        return Ok(Next::OnChange);
    }
    if !deleting && !finalize::is_held(object) {
        finalize::add_finalizer(object, ctx).await?;
    }
    let set = ctx.sets.of(object, |uid| begin(object, uid, ctx));
    replace_others(object, &set, ctx);
    sync_spec(object, &set, ctx).await;

    let now = ctx.environment.now();
    let Some(decision) = decide::decide(&set, ctx, now) else {
        set.writer.write(decide::status(&set, now));
        return Ok(Next::After(QUIET));
    };
    decide::spawn(&set, ctx, decision.tasks);
    record_ownership(&set, ctx);
    set.capacity.send_if_modified(|capacity| {
        std::mem::replace(capacity, decision.plan.capacity) != decision.plan.capacity
    });
    set.writer.write(decision.status);
    if deleting && let Some(next) = finalize::advance(object, &set, ctx, decision.left, now).await? {
        return Ok(next);
    }
    let read_again_at = set.state().read_again_at;
    let wake_at = [decision.plan.wake_at, read_again_at].into_iter().flatten().min();
    let wake_in = wake_at.map_or(QUIET, |at| elapsed(now, at).min(QUIET));
    Ok(Next::After(wake_in.saturating_add(Duration::from_millis(1))))
}

/// Begins to know a set: its tasks start.
fn begin(object: &RunnerScaleSet, uid: &str, ctx: &Arc<Context>) -> Arc<ScaleSetHandle> {
    let set = Arc::new(ScaleSetHandle::load(object, uid, ctx));
    info!("scale set taken up");
    let span = tracing::info_span!(parent: None, "listen", scale_set = set.identity.scale_set);
    set.tasks.spawn(registrar::run(set.clone(), ctx.clone()).instrument(span));
    let writer = set.clone();
    set.tasks.spawn(async move { writer.writer.run(writer.ended.clone()).await });
    set
}

/// Records what is the object's own at GitHub, where that is due. Nobody waits for it.
fn record_ownership(set: &Arc<ScaleSetHandle>, ctx: &Arc<Context>) {
    if !set.record_is_due() {
        return;
    }
    let (recorder, ctx) = (set.clone(), ctx.clone());
    set.tasks.spawn(async move {
        match recorder.record_ownership(&ctx).await {
            Ok(()) => ctx.sets.requeue(&recorder.uid),
            Err(error) => {
                warn!(
                    error = api_message(&error),
                    "which scale set is this object's own could not be recorded"
                )
            }
        }
    });
}

/// An object of the same name that was there before is gone, although its end was not ours. The session that it leaves
/// is in the way of the new one's.
fn replace_others(object: &RunnerScaleSet, set: &ScaleSetHandle, ctx: &Context) {
    for other in ctx.sets.named(object).into_iter().filter(|other| other.uid != set.uid) {
        warn!(uid = other.uid, "another object of this name is gone");
        ctx.forget(&other);
        let (left_behind, own, claim) = {
            let other = other.state();
            (other.session.clone(), other.registration.own(), other.claim.clone())
        };
        let mut state = set.state();
        state.session = left_behind;
        if claim == Some(Claim::of(object))
            && let Some(own) = own
        {
            state.registration.take(own);
        }
    }
}

/// Takes over the object as it is now: its generation, its deletion, and what it refers to, where that may have changed.
async fn sync_spec(object: &RunnerScaleSet, set: &ScaleSetHandle, ctx: &Context) {
    let claim = Claim::of(object);
    let claimed = set.state().claim.replace(claim.clone());
    if claimed.as_ref() != Some(&claim) {
        ctx.sets.reconsider(claimed.as_ref(), &set.uid);
        ctx.sets.reconsider(Some(&claim), &set.uid);
    }
    let (due, drain_until) = {
        let mut state = set.state();
        let now = ctx.environment.now();
        state.watch_drain(object, now);
        state.time_passed(ctx.environment.uptime());
        let drain_until = finalize::drain_until(object, state.drain_watched.as_ref(), now);
        state.reconciled_at = now;
        if state.object_generation != object.metadata.generation {
            state.object_generation = object.metadata.generation;
            state.inputs_changed = true;
            // What was read before is of another spec: nothing goes on with it.
            state.read_again_at = None;
        }
        state.drain_until = drain_until;
        let waits = state.read_again_at.is_some_and(|at| at > now);
        (!waits && std::mem::take(&mut state.inputs_changed), drain_until)
    };
    if drain_until.is_some() {
        set.target.send_if_modified(|target| target.take().is_some());
    }
    if due {
        read_inputs(object, set, ctx).await;
    }
    if let Some(policy) = &mut set.state().policy {
        policy.drain_until = drain_until;
    }
}

/// Reads what the spec refers to. Where that is not possible now, what was read before holds, if the spec is the same: jobs
/// do not wait for the API server. Of a new spec nothing is begun until it is known wholly.
async fn read_inputs(object: &RunnerScaleSet, set: &ScaleSetHandle, ctx: &Context) {
    set.state().referred.clear();
    let refer = |name: &str| {
        set.state().referred.insert(name.to_owned());
    };
    let inputs =
        timeout(READING, inputs::read(&ctx.client, ctx.environment.providers(), object, &refer)).await;
    let elder = ctx.sets.elder(set);
    let own = set.state().registration.own();
    let anothers = own.is_some_and(|own| ctx.sets.is_an_elders_own(set, own));
    let mut state = set.state();
    if anothers {
        state.registration.lose();
    }
    state.read_again_at = None;
    state.unread = None;
    match inputs.unwrap_or(Err(inputs::Error::Silent)) {
        Ok(inputs) => {
            if let Err(error) = state.adopt(inputs, elder.as_deref(), set, ctx) {
                let invalid = Invalid { reason: registrar::reason_of(&error), message: error.to_string() };
                stall(&mut state, set, ctx, invalid);
            }
        }
        Err(inputs::Error::Unusable(invalid)) => stall(&mut state, set, ctx, invalid),
        Err(error) => {
            warn!(%error, "what the spec refers to cannot be read now");
            state.inputs_changed = true;
            state.read_again_at = Some(ctx.environment.now().plus(READ_AGAIN));
            state.unread = Some(error.to_string());
        }
    }
    // What runs is looked at all the same, on the hosts that the spec names itself.
    if state.backends.is_empty() {
        let (policy, backends) = inputs::partial(object, ctx.environment.providers());
        state.policy = policy;
        state.place(backends, set, ctx);
    }
}

/// It cannot go on without a change.
fn stall(state: &mut ScaleSetState, set: &ScaleSetHandle, ctx: &Context, invalid: Invalid) {
    warn!(reason = invalid.reason, message = invalid.message, "stalled");
    if state.stalled.as_ref() != Some(&invalid) {
        ctx.events.warning(&set.reference, invalid.reason, "Reconcile", invalid.message.clone());
    }
    state.stalled = Some(invalid);
    state.generation = state.object_generation;
}

/// When to try again after an error.
pub(super) fn after_error(_: Arc<Guarded>, error: &Error, _: Arc<Context>) -> Action {
    warn!(%error, "a reconcile failed");
    Action::requeue(Duration::from_secs(5))
}
