//! The status, from what is known.

use jiff::Timestamp;

use super::conditions::{Facts, conditions, whole_seconds};
use crate::api::RunnerScaleSetStatus;
use crate::api::status::{
    BackendStatus, Demand, Failure, HostStatus, Job, MAX_LISTED_RUNNERS, MAX_RECENT_FAILURES, Rerun,
    RunnerStatus, Session,
};
use crate::plan::{self, BackendView, Plan};
use crate::runner::{self, Availability, HostState, Phase, Runner};
use crate::scale_set::{ConfiguredBackend, ScaleSetHandle, ScaleSetState, preview};

/// Builds the status as it is now, nothing begun.
pub(super) fn current(set: &ScaleSetHandle, now: Timestamp) -> RunnerScaleSetStatus {
    let mut state = set.state();
    let decision = preview(&state, set, now);
    status(&mut state, decision.as_ref().map(|(plan, views)| (plan, views.as_slice())), now)
}

/// Builds the status, and keeps its conditions for the next.
pub(super) fn status(
    state: &mut ScaleSetState,
    decision: Option<(&Plan, &[BackendView])>,
    now: Timestamp,
) -> RunnerScaleSetStatus {
    let decided = decision.map(|(plan, _)| plan);
    let views = decision.map_or(&[][..], |(_, views)| views);
    // Which template is current is not known before the whole of a spec was read once.
    let outdated = |r: &Runner| state.spec.wanted.is_some() && plan::is_outdated(r, views);
    let mut runners: Vec<RunnerStatus> = newest_first(state).map(|r| runner_status(r, outdated(r))).collect();
    let unseen = state.ledger.unseen(|_, _| true) as usize;
    let omitted = runners.len().saturating_sub(MAX_LISTED_RUNNERS) + unseen;
    let outdated = runners.iter().filter(|r| r.outdated && r.phase == Phase::Idle).count();
    runners.truncate(MAX_LISTED_RUNNERS);
    let in_phase = |phase| count(state.ledger.runners().filter(|r| r.phase == phase).count());
    let (pending, idle, busy) = (in_phase(Phase::Pending), in_phase(Phase::Idle), in_phase(Phase::Busy));
    let facts = Facts {
        wanted: state.spec.wanted.as_ref(),
        generation: state.spec.object_generation,
        deleting: state.deletion.until.is_some(),
        outdated,
        plan: decided,
        now,
        state,
    };
    let conditions = conditions(&facts);
    let held = state.github.registration.held.as_ref().map(|(held, _)| held);
    let status = RunnerScaleSetStatus {
        observed_generation: state.spec.object_generation,
        scale_set_id: state.github.registration.shown(),
        scale_set_name: held.map(|h| h.name.clone()),
        labels: held.map(|h| h.labels.clone()).unwrap_or_default(),
        desired_runners: decided.map_or(0, |p| count(p.desired as usize)),
        current_runners: (pending + idle + busy).saturating_add(count(unseen)),
        pending_runners: pending,
        idle_runners: idle,
        busy_runners: busy,
        active_schedule: decided.and_then(|p| p.bounds.schedule.clone()),
        session: state.github.session.as_ref().map(|s| Session {
            id: s.id.clone(),
            owner: s.owner.clone(),
            since: whole_seconds(s.since),
        }),
        demand: state.ledger.demand().latest().map(|(s, at)| Demand {
            assigned_jobs: count(s.assigned as usize),
            running_jobs: count(s.running as usize),
            available_jobs: count(s.available as usize),
            observed_at: whole_seconds(at),
        }),
        backends: backends(state, views),
        runners,
        runners_omitted: count(omitted),
        recent_failures: recent_failures(state),
        reruns: state.ledger.reruns().iter().map(rerun).collect(),
        conditions,
    };
    state.told.conditions.clone_from(&status.conditions);
    status
}

fn newest_first(state: &ScaleSetState) -> impl Iterator<Item = &Runner> {
    let mut runners: Vec<&Runner> = state.ledger.runners().collect();
    runners.sort_by(|a, b| b.created_at.cmp(&a.created_at).then_with(|| a.name.cmp(&b.name)));
    runners.into_iter()
}

fn runner_status(runner: &Runner, outdated: bool) -> RunnerStatus {
    RunnerStatus {
        name: runner.name.clone(),
        phase: runner.phase,
        backend: runner.backend.clone(),
        host: Some(runner.host.clone()).filter(|h| !h.is_empty()),
        instance_id: runner.seen.instance_id.clone(),
        since: whole_seconds(runner.since),
        outdated,
        job: runner.work.job.as_ref().map(|job| Job {
            repository: job.repository.clone(),
            workflow_ref: job.workflow_ref.clone(),
            run_id: job.run_id,
            display_name: job.display_name.clone(),
            id: job.id.clone(),
            url: job.url.clone(),
        }),
    }
}

/// The backends of the spec, and after them what is left of those that it left out.
fn backends(state: &ScaleSetState, views: &[BackendView]) -> Vec<BackendStatus> {
    let configured = views.iter().zip(&state.backends);
    let mut shown: Vec<BackendStatus> =
        configured.map(|(view, configured)| backend(state, view, configured)).collect();
    for draining in state.draining.shown() {
        let host = HostStatus {
            name: draining.host.name.clone(),
            endpoint: Some(draining.host.endpoint.clone()),
            ready: false,
            current_runners: runners_on(state, draining.backend, Some(&draining.host.name)),
            free_slots: Some(0),
            message: draining.message.clone(),
        };
        match shown.iter_mut().find(|backend| backend.name == draining.backend) {
            Some(backend) => backend.hosts.push(host),
            None => shown.push(BackendStatus {
                name: draining.backend.to_owned(),
                kind: draining.kind,
                current_runners: runners_on(state, draining.backend, None),
                warm: None,
                message: draining.message,
                backoff_until: None,
                hosts: vec![host],
            }),
        }
    }
    shown
}

/// How many runners take a slot of a backend, or of one of its hosts.
fn runners_on(state: &ScaleSetState, backend: &str, host: Option<&str>) -> i32 {
    let wanted = |name: &str, on: &str| name == backend && host.is_none_or(|host| on == host);
    let here = |r: &&Runner| r.occupies() && wanted(&r.backend, &r.host);
    count(state.ledger.runners().filter(here).count() + state.ledger.unseen(wanted) as usize)
}

fn backend(state: &ScaleSetState, view: &BackendView, configured: &ConfiguredBackend) -> BackendStatus {
    let on = |host: Option<&str>| runners_on(state, &view.name, host);
    let named = configured.input.resolved.hosts();
    let endpoint = |name: &str| named.iter().find(|host| host.name == name).map(|host| host.endpoint.clone());
    let host = |h: &HostState| HostStatus {
        name: h.name.clone(),
        endpoint: endpoint(&h.name),
        ready: h.availability == Availability::Ready,
        current_runners: on(Some(&h.name)),
        free_slots: (h.free_slots < u32::MAX).then(|| count(h.free_slots as usize)),
        message: h.message.clone(),
    };
    let until = |h: &HostState| match h.availability {
        Availability::BackOff { until, .. } => Some(whole_seconds(until)),
        _ => None,
    };
    let current = on(None);
    let ceiling = view.max_runners.filter(|max| current >= count(*max as usize));
    let ceiling = ceiling.map(|max| format!("its maxRunners of {max} is reached"));
    // A host that takes runners tells of its housekeeping.
    let takes = |h: &&HostState| h.availability == Availability::Ready && h.free_slots > 0;
    let hosts = view.hosts.iter().filter(|h| !takes(h)).map(|h| h.message.clone()).filter(|m| !m.is_empty());
    let messages: Vec<String> = ceiling.into_iter().chain(hosts).collect();
    BackendStatus {
        name: view.name.clone(),
        kind: configured.backend.kind(),
        current_runners: current,
        warm: configured.backend.warm().map(|warm| count(warm as usize)),
        message: messages.join("; "),
        backoff_until: view.hosts.iter().filter_map(until).max_by_key(|t| t.0),
        hosts: view.hosts.iter().map(host).collect(),
    }
}

fn recent_failures(state: &ScaleSetState) -> Vec<Failure> {
    let failures = state.ledger.failures().recent().map(failure);
    failures.chain(state.told.failures_before.iter().cloned()).take(MAX_RECENT_FAILURES).collect()
}

fn rerun(run: &runner::Rerun) -> Rerun {
    Rerun {
        repository: run.repository.clone(),
        run_id: run.run_id,
        state: run.state,
        since: whole_seconds(run.since),
        message: run.message.clone(),
    }
}

fn failure(failure: &runner::Failure) -> Failure {
    Failure {
        runner: failure.runner.clone(),
        backend: failure.backend.clone(),
        host: Some(failure.host.clone()).filter(|h| !h.is_empty()),
        reason: failure.reason.to_string(),
        exit_code: failure.exit_code.and_then(|code| i32::try_from(code).ok()),
        message: failure.message.clone(),
        time: whole_seconds(failure.at),
    }
}

fn count(value: usize) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}
