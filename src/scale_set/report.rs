//! Events, logs and metrics of what was decided.

use jiff::Timestamp;
use tracing::warn;

use super::event::Event;
use super::handle::ScaleSetHandle;
use super::shared::Shared;
use super::state::ScaleSetState;
use crate::api::Reason;
use crate::plan::Plan;
use crate::runner::{Phase, Runner};
use crate::telemetry::{SetGauges, StartPhase};
use crate::time::elapsed;

/// Events and metrics for what was decided.
pub fn report(
    state: &mut ScaleSetState,
    set: &ScaleSetHandle,
    shared: &Shared,
    plan: &Plan,
    starts: usize,
    now: Timestamp,
) {
    let publish = |event| shared.reporter.publish(set, event);
    if starts > 0 && state.tell(Reason::ScaledUp, now) {
        publish(Event::scaled_up(starts, plan.desired));
    }
    if let Some(why) = &plan.refused
        && state.tell(why.reason, now)
    {
        publish(Event::short_of_runners(why.clone()));
    }
    for failure in state.unreported_failures() {
        warn!(
            scale_set = set.identity.scale_set,
            runner = failure.runner,
            host = failure.host,
            reason = failure.reason.as_str(),
            error = failure.message,
            "runner failed"
        );
        shared.metrics.runner_failure(failure.reason.as_str());
        if state.tell(failure.reason, now) {
            publish(Event::failed(&failure));
            // That the demand is not met for it is no other news.
            state.tell(Reason::StartFailures, now);
        }
    }
    let demand_status = &plan.demand_status;
    // A controller has just begun, as is to be expected.
    let unmet = demand_status.met == Some(false) && demand_status.explanation.reason != Reason::Starting;
    if unmet && state.tell(demand_status.explanation.reason, now) {
        publish(Event::demand_unmet(demand_status.explanation.clone()));
    }
    // A pull is under way, as is to be expected.
    let short = plan.short.as_ref().filter(|why| why.reason != Reason::ImagePulling);
    if let Some(why) = plan.unreachable.as_ref().or(short).filter(|_| plan.refused.is_none())
        && state.tell(why.reason, now)
    {
        publish(Event::short_of_runners(why.clone()));
    }
    for backend in state.all_backends() {
        backend.take_news().iter().for_each(|news| publish(Event::housekeeping(backend.name(), news)));
    }
    measure(state, set, shared, plan, starts, now);
}

fn measure(
    state: &mut ScaleSetState,
    set: &ScaleSetHandle,
    shared: &Shared,
    plan: &Plan,
    starts: usize,
    now: Timestamp,
) {
    let metrics = &shared.metrics;
    metrics.set(&set.labels, &gauges(state, plan));
    if starts > 0 || plan.demand_status.met == Some(false) {
        let since = *state.told.wanting_since.get_or_insert(now);
        (0..starts).for_each(|_| metrics.start_latency(StartPhase::DemandToPlaced, elapsed(since, now)));
    } else {
        state.told.wanting_since = None;
    }
    let retry_at = state.ledger.failures().at_github(now).and_then(|streak| streak.retry_at).unwrap_or(now);
    metrics.backoff(&set.object.namespace, &set.object.name, elapsed(now, retry_at));
}

/// What metrics show of a set beside GitHub's own counts.
fn gauges(state: &ScaleSetState, plan: &Plan) -> SetGauges {
    let runners = |counts: fn(&Runner) -> bool| {
        u32::try_from(state.ledger.runners().filter(|r| counts(r)).count()).unwrap_or(u32::MAX)
    };
    SetGauges {
        statistics: state.ledger.demand().latest().map(|(statistics, _)| statistics),
        registered_runners: runners(Runner::is_registered),
        busy_runners: runners(|r| r.phase == Phase::Busy),
        idle_runners: runners(|r| r.phase == Phase::Idle),
        min_runners: plan.bounds.min,
        max_runners: plan.bounds.max,
        desired_runners: plan.desired,
    }
}
