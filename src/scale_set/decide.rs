//! One look at a scale set: observe, decide, and begin what was decided. No IO: what takes time is handed back as tasks.

use std::time::Duration;

use jiff::Timestamp;
use tracing::{debug, info, warn};

use super::event::Event;
use super::handle::ScaleSetHandle;
use super::report::report;
use super::shared::Shared;
use super::state::ScaleSetState;
use super::tasks::Task;
use crate::api::{Explanation, Reason};
use crate::plan::{self, Action, BackendView, Input, Plan, Removal, StartGate, Waiting};
use crate::runner::{Operation, Phase, Runner, runner_name};
use crate::time::Plus;

/// For so long after a set was taken up, hosts may show what runs on them before anything is started.
const HOSTS_ANSWER: Duration = Duration::from_secs(10);

/// What was decided about a scale set.
pub struct Decision {
    /// The plan.
    pub plan: Plan,
    /// The backends, as the plan saw them.
    pub views: Vec<BackendView>,
    /// What is left of the set's runners.
    pub left: Left,
}

impl Decision {
    /// The plan, and the backends as it saw them.
    pub fn seen(&self) -> (&Plan, &[BackendView]) {
        (&self.plan, &self.views)
    }
}

/// What is left of a set's runners.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Left {
    /// Hosts were not looked at yet.
    pub unseen: bool,
    /// Runners with an instance, or on which work is under way.
    pub running: usize,
    /// Runners without one, whose registration may remain.
    pub registered: usize,
    /// Runners that are gone, and whose registration was left when the drain was over.
    pub abandoned: usize,
}

/// Observes what is there, decides, and begins what was decided: the ledger counts with it from now on, and the tasks that
/// are answered must be run. None before the spec could be read.
pub fn decide(
    state: &mut ScaleSetState,
    set: &ScaleSetHandle,
    shared: &Shared,
    now: Timestamp,
) -> Option<(Decision, Vec<Task>)> {
    let observations = state.observations();
    state.ledger.observe(&observations, now);
    let lost = state.lost_hosts();
    state.ledger.mark_lost(&lost, now);
    drain(state, set, shared, now);
    let (mut plan, views) = preview(state, set, now)?;
    let silent = bear_silence(state, &mut plan, now);
    let listed = (!observed(state, set, now)).then(|| set.since.plus(HOSTS_ANSWER));
    state.ledger.mark_surplus(&plan.surplus, now);
    let mut tasks = begin(state, set, &plan, now);
    tasks.extend(begin_reruns(state, now));
    let rerun = state.ledger.reruns().due_at().filter(|at| *at > now);
    plan.requeue_at =
        [plan.requeue_at, listed, silent, limited_until(state, now), rerun].into_iter().flatten().min();
    keep_warm(state, set, now);
    let starts = tasks.iter().filter(|task| matches!(task, Task::Start { .. })).count();
    report(state, set, shared, &plan, starts, now);
    let left = left(state, set, now);
    Some((Decision { plan, views, left }, tasks))
}

/// Takes out of a plan that no host answers while they still have the time to: an engine restarts, or the way to a host was
/// changed. Answers when that is over.
fn bear_silence(state: &mut ScaleSetState, plan: &mut Plan, now: Timestamp) -> Option<Timestamp> {
    if plan.unreachable.is_none() {
        state.silent_since = None;
        return None;
    }
    let until = state.silent_since.get_or_insert(now).plus(HOSTS_ANSWER);
    let bears = until > now;
    if bears {
        plan.unreachable = None;
    }
    bears.then_some(until)
}

fn left(state: &ScaleSetState, set: &ScaleSetHandle, now: Timestamp) -> Left {
    let busy_with = |r: &&Runner| r.occupies() || r.operation.is_some();
    let known = state.ledger.runners().filter(busy_with).count();
    let registered = state.ledger.runners().count() - known;
    let left_over = state.all_backends().map(|backend| backend.left_over()).fold(0, u32::saturating_add);
    let running = known + state.ledger.unseen(|_, _| true) as usize + left_over as usize;
    Left { unseen: !observed(state, set, now), running, registered, abandoned: state.deletion.abandoned }
}

/// Marks the runners on hosts that the spec left out, and lets go of those hosts on which none is left.
fn drain(state: &mut ScaleSetState, set: &ScaleSetHandle, shared: &Shared, now: Timestamp) {
    let ScaleSetState { ledger, draining, .. } = state;
    let left_behind = draining.let_go(ledger, now);
    ledger.mark_draining(|backend, host| draining.has(backend, host));
    if !left_behind.is_empty() {
        let event = Event::left_on_hosts(&left_behind);
        warn!(scale_set = set.identity.scale_set, note = event.note, "drained, not wholly");
        shared.reporter.publish(set, event);
    }
}

/// What would be decided now, nothing begun. None before the spec could be read.
pub fn preview(
    state: &ScaleSetState,
    set: &ScaleSetHandle,
    now: Timestamp,
) -> Option<(Plan, Vec<BackendView>)> {
    let policy = state.spec.policy.as_ref()?;
    let views = state.views(now);
    let start_gate = start_gate(state, set, now);
    let input = Input { policy, ledger: &state.ledger, backends: &views, start_gate, now };
    let plan = plan::plan(&input);
    Some((plan, views))
}

/// Whether runners may be started.
fn start_gate(state: &ScaleSetState, set: &ScaleSetHandle, now: Timestamp) -> StartGate {
    let closed = |reason, message: String| StartGate::Closed(Explanation { reason, message });
    if let Some(why) = &state.spec.stalled {
        return StartGate::Closed(why.clone());
    }
    if let Some(why) = state.behind() {
        return closed(Reason::Progressing, format!("the latest spec is not applied yet: {why}"));
    }
    let Some((held, _)) = &state.github.registration.held else {
        let unknown = || Explanation::new(Reason::NotRegistered, "the set is not registered at GitHub yet");
        return StartGate::Closed(state.github.registration.error.clone().unwrap_or_else(unknown));
    };
    // Nothing is registered in what may be another's: that its session is open is the proof.
    if !state.github.registration.owns(held.id) {
        let message = "the scale set was there before, and its message session is not open yet";
        return closed(Reason::NotListening, message.to_owned());
    }
    if !observed(state, set, now) {
        return closed(Reason::Starting, "the hosts have not shown yet what runs on them".to_owned());
    }
    if let Some(until) = limited_until(state, now) {
        return closed(Reason::RateLimited, format!("GitHub limits the rate until {until:.0}"));
    }
    StartGate::Open
}

/// Returns when GitHub's rate limit passes, if there is one.
fn limited_until(state: &ScaleSetState, now: Timestamp) -> Option<Timestamp> {
    let left = state.github.service.as_ref()?.limited_for()?;
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
    let frozen = is_frozen(state);
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
    if is_frozen(state) || !observed(state, set, now) {
        return;
    }
    let wanted = state.spec.policy.as_ref().is_some_and(|policy| !policy.stands_down());
    state.backends.iter().for_each(|configured| configured.backend.keep_warm(wanted));
    state.draining.backends().for_each(|backend| backend.keep_warm(false));
}

/// Whether nothing new is begun: the spec cannot be followed, or is not known wholly. One that is not permitted stands down.
fn is_frozen(state: &ScaleSetState) -> bool {
    let stalled = state.spec.stalled.is_some() && state.spec.refusal().is_none();
    (stalled || state.behind().is_some()) && state.deletion.until.is_none()
}

fn begin_start(
    state: &mut ScaleSetState,
    set: &ScaleSetHandle,
    backend: &str,
    host: &str,
    now: Timestamp,
) -> Option<Task> {
    let backend = state.backend(backend)?;
    let service = state.github.service.clone()?;
    let (scale_set, _) = state.github.registration.held.as_ref()?;
    // Another set may have taken the last slot since the hosts were looked at: the host wakes us when one is free.
    let reservation = backend.reserve(host)?;
    let name = runner_name(&scale_set.name);
    let scale_set_id = scale_set.id;
    let deadline = state.spec.policy.as_ref()?.start_timeout(backend.name());
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
    let unexplained = runner.phase == Phase::Done && runner.work.job.is_none();
    if let Some(why) = why {
        debug!(runner = name, why = why.as_str(), "removal begins");
    }
    if runner.operation == Some(Operation::Preparing) {
        abandon_start(state, name, now);
        return None;
    }
    state.ledger.begin_removal(name);
    Some(Task::Remove {
        runner: Box::new(runner),
        why,
        unexplained,
        backend,
        service: state.github.service.clone(),
    })
}

/// Asks for the workflow runs that are due: whoever decides on starts, those jobs are lost already.
fn begin_reruns(state: &mut ScaleSetState, now: Timestamp) -> Vec<Task> {
    let Some(service) = state.github.service.clone() else { return Vec::new() };
    let due = state.ledger.begin_reruns(now).into_iter();
    due.map(|(repository, run_id)| Task::Rerun { repository, run_id, service: service.clone() }).collect()
}

/// Gives up a start that waits for its host to be ready. There is nothing of the runner to be removed.
fn abandon_start(state: &mut ScaleSetState, name: &str, now: Timestamp) {
    if let Some(abandoned) = state.preparing.remove(name) {
        abandoned.cancel();
    }
    state.ledger.retire(name, now);
}
