//! Takes over an object as it is now, with what its spec refers to.

use std::sync::Arc;

use tokio::time::timeout;
use tracing::warn;

use super::context::Context;
use super::inputs::{READ_AGAIN, READING};
use super::{inputs, permission};
use crate::api::{OperatorPolicy, RunnerScaleSet};
use crate::scale_set::{Claim, Event, ScaleSetHandle, adopt, leave_github, place_offline, stall};
use crate::time::Plus;

/// Takes over the object as it is now: its generation, its deletion, and what it refers to, where that may have changed.
pub(super) async fn refresh(object: &RunnerScaleSet, set: &ScaleSetHandle, ctx: &Context) {
    let claim = Claim::of(object);
    let claimed = set.state().spec.claim.replace(claim.clone());
    if claimed.as_ref() != Some(&claim) {
        ctx.shared.registry.reconsider(claimed.as_ref(), &set.uid);
        ctx.shared.registry.reconsider(Some(&claim), &set.uid);
    }
    let (due, drain_until) = {
        let mut state = set.state();
        let now = ctx.shared.now();
        state.watch_drain(object, now);
        state.time_passed(ctx.shared.environment.uptime());
        let drain_until = state.drain_deadline(object, now);
        state.reconciled_at = now;
        if state.spec.object_generation != object.metadata.generation {
            state.spec.object_generation = object.metadata.generation;
            state.spec.changed = true;
            // What was read before is of another spec: nothing goes on with it.
            state.spec.read_again_at = None;
        }
        if drain_until.is_some() && state.deletion.until.is_none() {
            ctx.shared.reporter.publish(set, Event::draining());
        }
        state.deletion.until = drain_until;
        let waits = state.spec.read_again_at.is_some_and(|at| at > now);
        (!waits && std::mem::take(&mut state.spec.changed), drain_until)
    };
    if drain_until.is_some() {
        set.target.send_if_modified(|target| target.take().is_some());
    }
    if due {
        judge_and_read(object, set, ctx).await;
    }
    let mut state = set.state();
    let refused = state.spec.refusal().cloned();
    if let Some(policy) = &mut state.spec.policy {
        policy.drain_until = drain_until;
        policy.refused = refused;
    }
    leave_github(&mut state, set);
}

/// Reads what the spec refers to, if the operator's policy permits the spec.
async fn judge_and_read(object: &RunnerScaleSet, set: &ScaleSetHandle, ctx: &Context) {
    let _turn = timeout(READING, ctx.reads.wait()).await;
    let refused_before = set.state().spec.refusal().is_some();
    let policy = ctx.policy();
    match permission::judge(object, &policy, ctx.shared.providers()) {
        Ok(()) => read_inputs(&permission::enforced(object, &policy), set, ctx, &policy).await,
        Err(why) => permission::refuse(object, set, ctx, why).await,
    }
    if set.state().spec.refusal().is_some() != refused_before {
        // It is out of the way of others that name the same scale set at GitHub, or in it again.
        let claim = set.state().spec.claim.clone();
        ctx.shared.registry.reconsider(claim.as_ref(), &set.uid);
    }
}

/// Reads what the spec refers to. Where that is not possible now, what was read before holds, if the spec is the same: jobs
/// do not wait for the API server. Of a new spec nothing is begun until it is known wholly.
async fn read_inputs(
    object: &RunnerScaleSet,
    set: &ScaleSetHandle,
    ctx: &Context,
    policy: &Arc<OperatorPolicy>,
) {
    set.state().spec.referred.clear();
    let refer = |name: &str| {
        set.state().spec.referred.insert(name.to_owned());
    };
    let inputs = timeout(READING, inputs::read(&ctx.client, ctx.shared.providers(), object, &refer)).await;
    if !Arc::ptr_eq(policy, &ctx.policy()) {
        // It was permitted by another policy than the one that is in force now: whoever changed that has it judged again.
        return;
    }
    let elder = ctx.shared.registry.elder(set);
    let own = set.state().github.registration.own();
    let anothers = own.is_some_and(|own| ctx.shared.registry.is_an_elders_own(set, own));
    let mut state = set.state();
    if anothers {
        state.github.registration.lose();
    }
    state.spec.read_again_at = None;
    state.spec.unread = None;
    match inputs.unwrap_or(Err(inputs::Error::Silent)) {
        Ok(inputs) => {
            adopt(&mut state, inputs, elder.as_deref(), set, &ctx.shared);
        }
        Err(inputs::Error::Unusable(invalid)) => stall(&mut state, set, &ctx.shared, invalid),
        Err(error) => {
            warn!(%error, "what the spec refers to cannot be read now");
            state.spec.changed = true;
            state.spec.read_again_at = Some(ctx.shared.now().plus(READ_AGAIN));
            state.spec.unread = Some(error.to_string());
        }
    }
    // What runs is looked at all the same, on the hosts that the spec names itself.
    if state.backends.is_empty() {
        place_offline(&mut state, object, set, &ctx.shared);
    }
}
