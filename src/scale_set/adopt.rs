//! Takes over what was read of a spec, and says when it cannot be followed.

use tracing::warn;

use super::event::Event;
use super::handle::ScaleSetHandle;
use super::inputs::{Inputs, partial};
use super::registration::{Target, reason_of};
use super::shared::Shared;
use super::state::ScaleSetState;
use crate::api::{Explanation, Reason, RunnerScaleSet};
use crate::github;

/// Takes over what was read of the spec and all that it refers to, or stalls. With an elder that names the same scale set,
/// nothing is done at GitHub.
pub fn adopt(
    state: &mut ScaleSetState,
    inputs: Inputs,
    elder: Option<&ScaleSetHandle>,
    set: &ScaleSetHandle,
    shared: &Shared,
) {
    if let Err(error) = try_adopt(state, inputs, elder, set, shared) {
        let why = Explanation::new(reason_of(&error), error.to_string());
        stall(state, set, shared, why);
    }
}

fn try_adopt(
    state: &mut ScaleSetState,
    inputs: Inputs,
    elder: Option<&ScaleSetHandle>,
    set: &ScaleSetHandle,
    shared: &Shared,
) -> Result<(), github::Error> {
    let changed = state.place(inputs.backends, shared.providers(), &set.identity, shared.now());
    let unchanged = set.target.borrow().as_ref().is_some_and(|t| t.client == inputs.client);
    let service = match (&state.github.service, unchanged) {
        (Some(service), true) => service.clone(),
        _ => shared.github(&inputs.client)?,
    };
    state.github.service = Some(service.clone());
    state.spec.policy = Some(inputs.policy);
    state.spec.wanted = Some(inputs.scale_set.clone());
    state.spec.stalled = None;
    state.spec.generation = state.spec.object_generation;
    if changed {
        state.ledger.failures_mut().reset();
    }
    if state
        .spec
        .rejected_before
        .take()
        .is_some_and(|rejected| state.spec.object_generation == Some(rejected))
        && let Some(first) = state.backends.first()
    {
        state.ledger.failures_mut().reject(first.backend.template_hash());
    }
    if state.deletion.until.is_some() {
        return Ok(());
    }
    if let Some(elder) = elder {
        yield_to(elder, state, set, shared);
        return Ok(());
    }
    let target = Target { client: inputs.client, scale_set: inputs.scale_set, service };
    set.target.send_if_modified(|current| {
        let differs = current.as_ref() != Some(&target);
        *current = Some(target);
        differs
    });
    Ok(())
}

/// Leaves the scale set at GitHub to an elder that names it too.
fn yield_to(elder: &ScaleSetHandle, state: &mut ScaleSetState, set: &ScaleSetHandle, shared: &Shared) {
    let elder = format!("{}/{}", elder.object.namespace, elder.object.name);
    let message = format!("the RunnerScaleSet {elder}, which is older, has this name, URL and runner group");
    let why = Explanation::new(Reason::NameTaken, message);
    if state.github.registration.error.as_ref() != Some(&why) {
        shared.reporter.publish(set, Event::not_registered(why.clone()));
    }
    state.github.registration.held = None;
    state.github.registration.error = Some(why);
    set.target.send_if_modified(|target| target.take().is_some());
}

/// The scale set cannot go on without a change.
pub fn stall(state: &mut ScaleSetState, set: &ScaleSetHandle, shared: &Shared, why: Explanation) {
    warn!(reason = why.reason.as_str(), message = why.message, "stalled");
    if state.spec.stalled.as_ref() != Some(&why) {
        shared.reporter.publish(set, Event::stalled(why.clone()));
    }
    state.spec.stalled = Some(why);
    state.spec.generation = state.spec.object_generation;
}

/// The operator's policy does not permit the spec: what runs is drained by what was permitted before. A process that has seen
/// nothing permitted looks for it on the hosts of `permitted`, and only where status tells of runners.
pub fn refuse(
    state: &mut ScaleSetState,
    permitted: &RunnerScaleSet,
    set: &ScaleSetHandle,
    shared: &Shared,
    why: Explanation,
) {
    stall(state, set, shared, why);
    if state.spec.policy.is_some() {
        return;
    }
    match state.has_runners() {
        true => place_offline(state, permitted, set, shared),
        false => state.spec.policy = partial(permitted, shared.providers()).0,
    }
}

/// Lets go of GitHub once nothing is left to be drained of a spec that is not permitted.
pub fn leave_github(state: &mut ScaleSetState, set: &ScaleSetHandle) {
    if state.spec.refusal().is_some() && !state.has_runners() {
        set.target.send_if_modified(|target| target.take().is_some());
        state.github.listening = None;
    }
}

/// Looks at what runs on the hosts that the spec names itself, before the whole of it could be read.
pub fn place_offline(
    state: &mut ScaleSetState,
    object: &RunnerScaleSet,
    set: &ScaleSetHandle,
    shared: &Shared,
) {
    let (policy, backends) = partial(object, shared.providers());
    state.spec.policy = policy;
    state.place(backends, shared.providers(), &set.identity, shared.now());
}
