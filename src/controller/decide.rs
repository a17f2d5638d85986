//! One look at a scale set: observe, decide, and begin what was decided. No IO: what takes time is handed back as work.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tracing::{debug, info, warn};

use super::context::Context;
use super::finalize::Left;
use super::set::ScaleSetHandle;
use super::state::ScaleSetState;
use super::status;
use super::tasks::Task;
use crate::api::RunnerScaleSetStatus;
use crate::api::condition::reason;
use crate::plan::{self, Action, BackendView, Input, Plan, Removal, StartGate, Waiting};
use crate::runner::{Failure, Operation, Phase, Runner, runner_name};
use crate::telemetry::StartPhase;
use crate::time::{Plus, elapsed};

/// For so long after a set was taken up, hosts may show what runs on them before anything is started.
const HOSTS_ANSWER: Duration = Duration::from_secs(10);

/// What befalls only runners that had begun, beside an end with an exit code.
const BEGUN: [&str; 4] = [reason::VANISHED, reason::JOB_LOST, reason::JOB_TIMEOUT, reason::NEVER_CONNECTED];

/// What a look came to.
pub(super) struct Decision {
    /// What was decided.
    pub plan: Plan,
    /// What is to be done.
    pub tasks: Vec<Task>,
    /// What is to be shown.
    pub status: RunnerScaleSetStatus,
    /// What is left of the set's runners.
    pub left: Left,
}

/// Looks, decides and begins.
pub(super) fn decide(set: &ScaleSetHandle, ctx: &Context, now: Timestamp) -> Option<Decision> {
    let mut state = set.state();
    let observations = state.observations();
    state.ledger.observe(&observations, now);
    let lost = state.lost_hosts();
    state.ledger.mark_lost(&lost, now);
    drain(&mut state, set, ctx, now);
    let (mut plan, views) = plan_for(&state, set, now)?;
    let listed = (!observed(&state, set, now)).then(|| set.since.plus(HOSTS_ANSWER));
    plan.wake_at = [plan.wake_at, listed, limited_until(&state, now)].into_iter().flatten().min();
    state.ledger.mark_surplus(&plan.surplus, now);
    let tasks = begin(&mut state, set, &plan, now);
    if ctx.leadership.is_held() {
        keep_warm(&state, set, now);
    }
    report(&mut state, set, ctx, &plan, &tasks, now);
    let status = status::status(&mut state, Some((&plan, &views)), now);
    let busy_with = |r: &&Runner| r.occupies() || r.operation.is_some();
    let known = state.ledger.runners().filter(busy_with).count();
    let registered = state.ledger.runners().count() - known;
    let left_over = state.all_backends().map(|backend| backend.left_over()).fold(0, u32::saturating_add);
    let running = known + state.ledger.unseen(|_, _| true) as usize + left_over as usize;
    let left = Left { unseen: !observed(&state, set, now), running, registered, abandoned: state.abandoned };
    Some(Decision { plan, tasks, status, left })
}

/// Marks the runners on hosts that the spec left out, and lets go of those hosts on which none is left.
fn drain(state: &mut ScaleSetState, set: &ScaleSetHandle, ctx: &Context, now: Timestamp) {
    let ScaleSetState { ledger, draining, .. } = state;
    let left_behind = draining.let_go(ledger, now);
    ledger.mark_draining(|backend, host| draining.has(backend, host));
    if !left_behind.is_empty() {
        let note = format!(
            "hosts that the spec left out do not answer; this was left behind: {}",
            left_behind.join(", ")
        );
        warn!(scale_set = set.identity.scale_set, note, "drained, not wholly");
        ctx.events.warning(&set.reference, "LeftBehind", "Drain", note);
    }
}

/// The status as it is, nothing begun.
pub(super) fn status(set: &ScaleSetHandle, now: Timestamp) -> RunnerScaleSetStatus {
    let mut state = set.state();
    let decision = plan_for(&state, set, now);
    status::status(&mut state, decision.as_ref().map(|(plan, views)| (plan, views.as_slice())), now)
}

fn plan_for(state: &ScaleSetState, set: &ScaleSetHandle, now: Timestamp) -> Option<(Plan, Vec<BackendView>)> {
    let policy = state.policy.as_ref()?;
    let views = state.views(now);
    let start_gate = start_gate(state, set, now);
    let input = Input { policy, ledger: &state.ledger, backends: &views, start_gate, now };
    let plan = plan::plan(&input);
    Some((plan, views))
}

/// Whether runners may be started.
fn start_gate(state: &ScaleSetState, set: &ScaleSetHandle, now: Timestamp) -> StartGate {
    if let Some(invalid) = &state.stalled {
        return StartGate::Closed(invalid.reason, invalid.message.clone());
    }
    if let Some(why) = state.behind() {
        return StartGate::Closed(reason::PROGRESSING, format!("the latest spec is not applied yet: {why}"));
    }
    if state.registration.held.is_none() {
        let error = state.registration.error.clone();
        let (reason, message) =
            error.unwrap_or((reason::NOT_REGISTERED, "the set is not registered at GitHub yet".to_owned()));
        return StartGate::Closed(reason, message);
    }
    // Nothing is registered in what may be another's: that its session is open is the proof.
    if state.registration.held.as_ref().is_some_and(|(held, _)| !state.registration.owns(held.id)) {
        let message = "the scale set was there before, and its message session is not open yet".to_owned();
        return StartGate::Closed(reason::NOT_LISTENING, message);
    }
    if !observed(state, set, now) {
        return StartGate::Closed(
            reason::STARTING,
            "the hosts have not shown yet what runs on them".to_owned(),
        );
    }
    if let Some(until) = limited_until(state, now) {
        return StartGate::Closed(reason::RATE_LIMITED, format!("GitHub limits the rate until {until:.0}"));
    }
    StartGate::Open
}

/// Returns when GitHub's rate limit passes, if there is one.
fn limited_until(state: &ScaleSetState, now: Timestamp) -> Option<Timestamp> {
    let left = state.service.as_ref()?.limited_for()?;
    // At most 15 minutes.
    Some(now.plus(left))
}

/// Whether every host was listed, or had the time to be.
fn observed(state: &ScaleSetState, set: &ScaleSetHandle, now: Timestamp) -> bool {
    let listed = state.all_backends().all(|b| b.instances().iter().all(|l| l.listed_at.is_some()));
    listed || set.since.plus(HOSTS_ANSWER) <= now
}

/// Notes in the ledger what is about to be done, so that the next look counts with it.
fn begin(state: &mut ScaleSetState, set: &ScaleSetHandle, plan: &Plan, now: Timestamp) -> Vec<Task> {
    let mut tasks = Vec::new();
    if !observed(state, set, now) {
        return tasks;
    }
    // Another set took the slot meanwhile: they wait for the next.
    let mut unplaced = Vec::new();
    let frozen = (state.stalled.is_some() || state.behind().is_some()) && state.drain_until.is_none();
    for action in &plan.actions {
        match action {
            Action::Collect { runner } => tasks.extend(begin_removal(state, runner, None, now)),
            _ if frozen => {}
            Action::Prepare { backend, host } => {
                if let Some(backend) = state.backend(backend) {
                    backend.prepare(host);
                }
            }
            Action::Start { backend, host } => match begin_start(state, set, backend, host, now) {
                Some(start) => tasks.push(start),
                None => unplaced.push((backend, host)),
            },
            Action::Remove { runner, why } => {
                if *why == Removal::StartTimeout {
                    state.ledger.start_timed_out(runner, "it was not up within timeouts.start", now);
                }
                if *why == Removal::NeverConnected {
                    state.ledger.begin_recycling(now);
                }
                if *why == Removal::JobTimeout {
                    state.ledger.job_timed_out(runner, now);
                }
                tasks.extend(begin_removal(state, runner, Some(*why), now));
            }
        }
    }
    for Waiting { backend, host, runners } in &plan.waiting {
        let more = unplaced.iter().filter(|(b, h)| *b == backend && *h == host).count();
        let runners =
            if frozen { 0 } else { runners.saturating_add(u32::try_from(more).unwrap_or(u32::MAX)) };
        if let Some(backend) = state.backend(backend) {
            backend.wait_for_slots(host, runners);
        }
    }
    tasks
}

/// Has instances kept ready ahead of need where the spec asks for it and starts something; on hosts that it left out they go.
fn keep_warm(state: &ScaleSetState, set: &ScaleSetHandle, now: Timestamp) {
    let frozen = (state.stalled.is_some() || state.behind().is_some()) && state.drain_until.is_none();
    if frozen || !observed(state, set, now) {
        return;
    }
    let wanted = state.policy.as_ref().is_some_and(|policy| !policy.stands_down());
    state.backends.iter().for_each(|configured| configured.backend.keep_warm(wanted));
    state.draining.backends().for_each(|backend| backend.keep_warm(false));
}

fn begin_start(
    state: &mut ScaleSetState,
    set: &ScaleSetHandle,
    backend: &str,
    host: &str,
    now: Timestamp,
) -> Option<Task> {
    let backend = state.backend(backend)?;
    let service = state.service.clone()?;
    let (scale_set, _) = state.registration.held.as_ref()?;
    // Another set may have taken the last slot since the hosts were looked at: the host wakes us when one is free.
    let reservation = backend.reserve(host)?;
    let name = runner_name(&scale_set.name);
    let scale_set_id = scale_set.id;
    let deadline = state.policy.as_ref()?.start_timeout(backend.name());
    state.ledger.begin_start(Runner::pending(&name, backend.name(), host, backend.template_hash(), now));
    info!(scale_set = set.identity.scale_set, runner = name, backend = backend.name(), host, "runner placed");
    let abandoned = set.ended.child_token();
    state.preparing.insert(name.clone(), abandoned.clone());
    Some(Task::Start { name, reservation, abandoned, backend, service, scale_set_id, deadline })
}

fn begin_removal(
    state: &mut ScaleSetState,
    name: &str,
    why: Option<Removal>,
    now: Timestamp,
) -> Option<Task> {
    let runner = state.ledger.runner(name)?.clone();
    let backend = state.backend_of(&runner)?;
    let unexplained = runner.phase == Phase::Done && runner.job.is_none();
    if let Some(why) = why {
        debug!(runner = name, why = why.as_str(), "removal begins");
    }
    if runner.operation == Some(Operation::Preparing) {
        abandon_start(state, name, now);
        return None;
    }
    state.ledger.begin_removal(name);
    Some(Task::Remove { runner: Box::new(runner), why, unexplained, backend, service: state.service.clone() })
}

/// Gives up a start that waits for its host to be ready. There is nothing of the runner to be removed.
fn abandon_start(state: &mut ScaleSetState, name: &str, now: Timestamp) {
    if let Some(abandoned) = state.preparing.remove(name) {
        abandoned.cancel();
    }
    state.ledger.retire(name, now);
}

/// Events and metrics for what was decided.
fn report(
    state: &mut ScaleSetState,
    set: &ScaleSetHandle,
    ctx: &Context,
    plan: &Plan,
    tasks: &[Task],
    now: Timestamp,
) {
    let starts = tasks.iter().filter(|w| matches!(w, Task::Start { .. })).count();
    if starts > 0 && state.tell("ScaledUp", now) {
        let note = format!("starting {starts} more of {} wanted runners", plan.desired);
        ctx.events.normal(&set.reference, "ScaledUp", "Scale", note);
    }
    let demand_status = &plan.demand_status;
    if demand_status.met == Some(false) && state.tell(demand_status.reason, now) {
        ctx.events.warning(&set.reference, demand_status.reason, "Scale", demand_status.message.clone());
    }
    let refused = plan.refused.clone().map(|message| (reason::BACKEND_REFUSED, message));
    // A pull is under way, as is to be expected.
    let short = plan.short.clone().filter(|(reason, _)| *reason != reason::IMAGE_PULLING);
    if let Some((reason, message)) = refused.or(short)
        && state.tell(reason, now)
    {
        ctx.events.warning(&set.reference, reason, "Scale", message);
    }
    for failure in state.unreported_failures() {
        let had_begun = failure.exit_code.is_some() || BEGUN.contains(&failure.reason);
        let reason = if had_begun { "RunnerFailed" } else { "StartFailed" };
        tracing::warn!(
            scale_set = set.identity.scale_set,
            runner = failure.runner,
            host = failure.host,
            reason = failure.reason,
            message = failure.message,
            "runner failed"
        );
        ctx.metrics.runner_failure(failure.reason);
        if state.tell(failure.reason, now) {
            ctx.events.warning(&set.reference, reason, "Start", describe(&failure));
        }
    }
    measure(state, set, ctx, plan, starts, now);
}

fn measure(
    state: &mut ScaleSetState,
    set: &ScaleSetHandle,
    ctx: &Context,
    plan: &Plan,
    starts: usize,
    now: Timestamp,
) {
    let metrics = &ctx.metrics;
    metrics.set(&set.labels, &status::gauges(state, plan));
    if starts > 0 || plan.demand_status.met == Some(false) {
        let since = *state.wanting_since.get_or_insert(now);
        (0..starts).for_each(|_| metrics.start_latency(StartPhase::DemandToPlaced, elapsed(since, now)));
    } else {
        state.wanting_since = None;
    }
    let retry_at = state.ledger.failures().at_github(now).and_then(|row| row.retry_at).unwrap_or(now);
    metrics.backoff(&set.namespace, &set.name, elapsed(now, retry_at));
    let slots = ctx.environment.providers().hosts().into_iter();
    metrics.host_slots(slots.map(|h| (h.host.endpoint, h.taken, h.free)).collect());
}

fn describe(failure: &Failure) -> String {
    let Failure { runner, backend, host, reason, message, .. } = failure;
    format!("runner {runner} on {backend}/{host}: {reason}: {message}")
}

/// Hands work to tasks of the set.
pub(super) fn spawn(set: &Arc<ScaleSetHandle>, ctx: &Arc<Context>, tasks: Vec<Task>) {
    for task in tasks {
        let (set, ctx) = (set.clone(), ctx.clone());
        set.tasks.clone().spawn(async move { task.run(&set, &ctx).await });
    }
}
