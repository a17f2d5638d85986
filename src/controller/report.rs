//! Shows what was decided in the object, and tells GitHub how much the set can take.

use std::sync::Arc;

use tracing::warn;

use super::answer::api_message;
use super::context::Context;
use super::writer::Writer;
use crate::api::RunnerScaleSetStatus;
use crate::scale_set::{Decision, ScaleSetHandle};

/// Has a status written, the ownership of the scale set recorded, and the set's capacity told with the next poll.
pub(super) fn publish(
    set: &Arc<ScaleSetHandle>,
    status: RunnerScaleSetStatus,
    decision: Option<&Decision>,
    ctx: &Context,
) {
    let Some(writer) = ctx.reporter.writer(set) else { return };
    writer.write(status);
    if let Some(Decision { plan, .. }) = decision {
        set.capacity.send_if_modified(|capacity| std::mem::replace(capacity, plan.capacity) != plan.capacity);
        record_ownership(set, writer, ctx);
    }
}

/// Records what is the object's own at GitHub, where that is due. Nobody waits for it.
fn record_ownership(set: &Arc<ScaleSetHandle>, writer: Arc<Writer>, ctx: &Context) {
    if !writer.record_is_due(set) {
        return;
    }
    let (recorder, registry) = (set.clone(), ctx.shared.registry.clone());
    set.tasks.spawn(async move {
        match writer.record_ownership(&recorder).await {
            Ok(()) => registry.requeue(&recorder.uid),
            Err(error) => {
                warn!(
                    error = api_message(&error),
                    "which scale set is this object's own could not be recorded"
                )
            }
        }
    });
}
