//! The operator's policy at work: a spec is judged before anything is read or done on its behalf. What it may not have is not
//! started, and what runs is drained by what was permitted before.

use tokio::time::timeout;
use tracing::warn;

use super::context::Context;
use super::inputs::{self, READ_AGAIN, READING};
use crate::api::{self, Explanation, OperatorPolicy, Reason, RunnerScaleSet};
use crate::backend::Providers;
use crate::scale_set::{self, ScaleSetHandle};
use crate::time::Plus;

/// So many violations are told of one spec; a person mends one after the other anyway.
const TOLD: usize = 8;

/// Judges a spec.
///
/// # Errors
/// What is not permitted, in one explanation.
pub fn judge(
    object: &RunnerScaleSet,
    policy: &OperatorPolicy,
    providers: &Providers,
) -> Result<(), Explanation> {
    let spelling = |kind, endpoint: &str| providers.spelling(kind, endpoint);
    let violations = api::violations(policy, namespace(object), &object.spec, &spelling);
    if violations.is_empty() {
        return Ok(());
    }
    let mut told: Vec<String> = violations.iter().take(TOLD).map(|why| why.message.clone()).collect();
    if violations.len() > TOLD {
        told.push(format!("and {} more", violations.len() - TOLD));
    }
    Err(Explanation::new(Reason::NotPermitted, told.join("; ")))
}

/// The object as strict as the policy wants it.
pub fn enforced(object: &RunnerScaleSet, policy: &OperatorPolicy) -> RunnerScaleSet {
    let mut strict = object.clone();
    api::enforce(policy, namespace(object), &mut strict.spec);
    strict
}

/// Whether the scale set may be at its GitHub, reached as the spec says.
pub(super) fn permits_github(object: &RunnerScaleSet, ctx: &Context) -> bool {
    api::permits_github(&ctx.policy(), namespace(object), &object.spec.github)
}

/// The object without the hosts that its status names and its namespace may not have: a status that someone else wrote makes
/// the controller connect nowhere that a spec could not.
pub(super) fn without_refused_hosts(object: &RunnerScaleSet, ctx: &Context) -> RunnerScaleSet {
    let (mut object, policy, providers) = (object.clone(), ctx.policy(), ctx.shared.providers());
    let namespace = namespace(&object).to_owned();
    let spelling = |kind, endpoint: &str| providers.spelling(kind, endpoint);
    for backend in object.status.iter_mut().flat_map(|status| &mut status.backends) {
        let kind = backend.kind;
        backend.hosts.retain(|host| {
            let endpoint = host.endpoint.as_deref();
            endpoint.is_none_or(|at| api::permits_host(&policy, &namespace, (kind, at), &spelling))
        });
    }
    object
}

/// Takes over that a spec is not permitted. Nothing is read or asked on its behalf but what ends the runners that are there.
pub(super) async fn refuse(object: &RunnerScaleSet, set: &ScaleSetHandle, ctx: &Context, why: Explanation) {
    let ends_something = {
        let mut state = set.state();
        state.spec.referred.clear();
        state.spec.read_again_at = None;
        state.spec.unread = None;
        let deleting = object.metadata.deletion_timestamp.is_some();
        state.has_runners() || (deleting && state.github.registration.own().is_some())
    };
    let unreached = set.state().github.service.is_none();
    if ends_something && unreached && permits_github(object, ctx) {
        reach_github(object, set, ctx).await;
    }
    let providers = ctx.shared.providers();
    let spelling = |kind, endpoint: &str| providers.spelling(kind, endpoint);
    let mut permitted = object.clone();
    permitted.spec = api::only_permitted_hosts(&ctx.policy(), namespace(object), &object.spec, &spelling);
    scale_set::refuse(&mut set.state(), &permitted, set, &ctx.shared, why);
}

/// Has GitHub reached, so that idle runners of an earlier process can be removed; nothing is registered or listened to.
async fn reach_github(object: &RunnerScaleSet, set: &ScaleSetHandle, ctx: &Context) {
    let refer = |name: &str| {
        set.state().spec.referred.insert(name.to_owned());
    };
    let client = timeout(READING, inputs::read_client(&ctx.client, object, &refer)).await;
    let client = client.unwrap_or(Err(inputs::Error::Silent)).map_err(|error| error.to_string());
    match client.and_then(|client| ctx.shared.github(&client).map_err(|error| error.to_string())) {
        Ok(service) => set.state().github.service = Some(service),
        Err(error) => {
            warn!(error, "GitHub cannot be reached to drain what is not permitted any more");
            let mut state = set.state();
            state.spec.changed = true;
            state.spec.read_again_at = Some(ctx.shared.now().plus(READ_AGAIN));
        }
    }
}

fn namespace(object: &RunnerScaleSet) -> &str {
    object.metadata.namespace.as_deref().unwrap_or_default()
}
