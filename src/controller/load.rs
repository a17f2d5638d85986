//! Begins to know a scale set, and forgets those that were there before under its name.

use std::sync::Arc;

use tracing::{Instrument, info, info_span, warn};

use super::context::{Context, name_of};
use super::{permission, record};
use crate::api::RunnerScaleSet;
use crate::scale_set::{Claim, ScaleSetHandle, keep_registered};

/// Returns the handle of an object's scale set, made when there is none.
pub(super) fn load(object: &RunnerScaleSet, ctx: &Context) -> Arc<ScaleSetHandle> {
    let uid = object.metadata.uid.clone().unwrap_or_default();
    let set = ctx.shared.registry.get_or_insert(&uid, || begin(object, ctx));
    replace_others(object, &set, ctx);
    set
}

/// Begins to know a set: its tasks start.
fn begin(object: &RunnerScaleSet, ctx: &Context) -> Arc<ScaleSetHandle> {
    let shared = &ctx.shared;
    let (own, ended) = (record::recorded(object), ctx.stopping.child_token());
    let known = permission::without_refused_hosts(object, ctx);
    let set = Arc::new(ScaleSetHandle::load(&known, &shared.cluster, own, &*shared.environment, ended));
    info!("scale set loaded");
    let span = info_span!(parent: None, "listen", scale_set = set.identity.scale_set);
    set.tasks.spawn(keep_registered(set.clone(), shared.clone()).instrument(span));
    let writer = ctx.reporter.load(&set, object.status.clone().unwrap_or_default());
    let ended = set.ended.clone();
    set.tasks.spawn(async move { writer.run(ended).await });
    set
}

/// An object of the same name that was there before is gone, although its end was not ours. The session that it leaves
/// is in the way of the new one's.
fn replace_others(object: &RunnerScaleSet, set: &ScaleSetHandle, ctx: &Context) {
    for other in ctx.shared.registry.named(&name_of(object)).into_iter().filter(|other| other.uid != set.uid)
    {
        warn!(uid = other.uid, "another object of this name is gone");
        ctx.forget(&other);
        let (left_behind, own, claim) = {
            let other = other.state();
            (other.github.session.clone(), other.github.registration.own(), other.spec.claim.clone())
        };
        let mut state = set.state();
        state.github.session = left_behind;
        if claim == Some(Claim::of(object))
            && let Some(own) = own
        {
            state.github.registration.take(own);
        }
    }
}
