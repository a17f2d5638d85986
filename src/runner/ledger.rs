//! The ledger of one scale set: what each of its runners is doing, joined from what the backends show, what GitHub
//! says and what became of the controller's own actions. In memory only: all of it can be read again.

mod hosts;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;

use super::demand::Demand;
use super::failure::{Failure, Failures};
use super::observation::Listings;
use super::recent::Recent;
use super::unseen::Unseen;
use super::{
    Exit, Instance, InstanceState, Job, JobEvent, JobOutcome, Observation, Operation, PersistedRunner, Phase,
    Registration, Runner, Statistics, Watched,
};
use crate::api::condition::reason;
use crate::time::Plus;

/// How long a runner that is gone is remembered, so that nothing is asked about it twice.
const RETIRED_FOR: Duration = Duration::from_secs(3600);
/// A listing that is this much younger than a removal and still shows the instance is believed.
const RETIRED_SETTLES: Duration = Duration::from_secs(10);
/// A runner is connected to GitHub, and counted there, at the latest so long after its instance came up.
const CONNECTED_AFTER: Duration = Duration::from_secs(60);
/// A list of GitHub's that lacks a runner is believed when another, this much later, does so too.
const UNLISTED_SETTLES: Duration = Duration::from_secs(5);
/// How much of what was heard of jobs is remembered, to tell repeats: what comes again is of the last few messages.
const EVENTS_REMEMBERED: usize = 2_000;
/// After GitHub answered that a job still runs, the removal is not tried again before this: it is costly for the service.
const BUSY_RETRY: Duration = Duration::from_secs(30);

/// What was heard of a job: its id, its runner, and whether it was over. GitHub may hand a job out anew, under the id that
/// it has; no runner gets it twice.
type Heard = (String, String, bool);

/// The runners of one scale set and what is known of its demand.
#[derive(Debug, Default)]
pub struct Ledger {
    runners: BTreeMap<String, Runner>,
    demand: Demand,
    failures: Failures,
    heard: Recent<Heard>,
    retired: HashMap<String, Retired>,
    unseen: Unseen,
}

/// A runner that is gone.
#[derive(Debug)]
struct Retired {
    at: Timestamp,
    backend: String,
    host: String,
}

impl Ledger {
    /// An empty ledger.
    pub fn new() -> Ledger {
        Ledger { heard: Recent::new(EVENTS_REMEMBERED), ..Ledger::default() }
    }

    /// All runners, by name.
    pub fn runners(&self) -> impl Iterator<Item = &Runner> {
        self.runners.values()
    }

    /// One runner.
    pub fn runner(&self, name: &str) -> Option<&Runner> {
        self.runners.get(name)
    }

    /// What GitHub asks for.
    pub fn demand(&self) -> &Demand {
        &self.demand
    }

    /// What failed lately, and until when starts are held back.
    pub fn failures(&self) -> &Failures {
        &self.failures
    }

    /// The failures, to be cleared or added to.
    pub fn failures_mut(&mut self) -> &mut Failures {
        &mut self.failures
    }

    /// Takes over what the status of the object tells of runners, before anything else is known. They count until
    /// their hosts have been listed without them.
    pub fn restore(&mut self, remembered: impl IntoIterator<Item = PersistedRunner>, now: Timestamp) {
        for entry in remembered.into_iter().filter(|entry| entry.phase.occupies()) {
            let mut runner = Runner::pending(&entry.name, &entry.backend, &entry.host, "", now);
            runner.phase = entry.phase;
            runner.since = entry.since;
            runner.busy = Watched::begun_before(entry.since, now);
            runner.instance_id = entry.instance_id;
            runner.job = entry.job;
            self.runners.entry(entry.name).or_insert(runner);
        }
    }

    /// Notes how much time has passed since the last look, by a clock that nobody sets.
    pub fn time_passed(&mut self, passed: Duration) {
        let busy = self.runners.values_mut().filter(|r| r.phase == Phase::Busy);
        busy.for_each(|runner| runner.busy.pass(passed));
    }

    /// Takes over what the backends show now.
    pub fn observe(&mut self, observations: &[Observation], now: Timestamp) {
        self.forget_retired(now);
        for observation in observations {
            for instance in &observation.instances {
                self.observe_instance(instance, observation.listed_at, now);
            }
        }
        self.notice_missing(observations, now);
        self.unseen.observe(observations);
        for runner in self.runners.values_mut() {
            let leaving = runner.occupies() && !runner.serves();
            runner.leaving_since = leaving.then(|| runner.leaving_since.unwrap_or(now));
        }
        self.demand.settle(now, &mut self.failures);
        let (idle, busy) = (self.serving(Phase::Idle), self.serving(Phase::Busy));
        self.demand.compare(idle, busy, now);
    }

    /// How many runners of a phase can be counted on for demand.
    fn serving(&self, phase: Phase) -> u32 {
        let serving = self.runners.values().filter(|r| r.serves() && r.phase == phase).count();
        u32::try_from(serving).unwrap_or(u32::MAX)
    }

    fn observe_instance(&mut self, instance: &Instance, listed_at: Option<Timestamp>, now: Timestamp) {
        if let Some(retired) = self.retired.get(&instance.runner) {
            // An engine may show for a moment what was just removed.
            if listed_at.is_none_or(|at| at < retired.at.plus(RETIRED_SETTLES)) {
                return;
            }
            self.retired.remove(&instance.runner);
        }
        let mut first_sight = !self.runners.contains_key(&instance.runner);
        if first_sight && matches!(&instance.state, InstanceState::Exited(exit) if exit.leaves_nothing) {
            return;
        }
        let runner = self.runners.entry(instance.runner.clone()).or_insert_with(|| Runner::adopted(instance));
        if runner.template_hash.is_empty() {
            first_sight = true;
            runner.template_hash.clone_from(&instance.template_hash);
            runner.created_at = instance.created_at;
        }
        // One that had ended before it was first seen was an earlier controller's: what it did is not known.
        runner.found_ended |= first_sight && instance.state.ended();
        if first_sight && instance.state == InstanceState::Running {
            runner.up_since = Some(instance.created_at);
        }
        if !runner.occupies() && runner.operation.is_none() && !instance.state.ended() {
            runner.revive(instance, now);
            // GitHub said so while the runner was held to be gone, and does not say it again.
            let over = |job: &Job| self.heard.contains(&(job.id.clone(), instance.runner.clone(), true));
            runner.job_completed_at = runner.job.as_ref().is_some_and(over).then_some(now);
        }
        runner.observe(instance, now);
        if runner.exit.is_some() && runner.occupies() && runner.operation != Some(Operation::Starting) {
            self.end(&instance.runner, now);
        }
    }

    /// A runner whose host was listed twice without it is gone. Its start may still be under way: that is left to the start.
    fn notice_missing(&mut self, observations: &[Observation], now: Timestamp) {
        let listings = Listings::of(observations);
        let mut gone = Vec::new();
        for runner in self.runners.values_mut() {
            if !runner.occupies() || runner.operation.is_some() {
                continue;
            }
            // Where nothing was listed since, nothing new is known of it.
            let Some(listed_at) = listings.without(runner) else { continue };
            match runner.missing_since {
                None => runner.missing_since = Some(listed_at),
                Some(first) if listed_at > first => gone.push(runner.name.clone()),
                Some(_) => {}
            }
        }
        for name in gone {
            if let Some(runner) = self.runners.get_mut(&name) {
                runner.instance_id = None;
            }
            self.end(&name, now);
        }
    }

    /// A runner's instance is seen ended or gone: its slot is free, and what its end means is judged.
    fn end(&mut self, name: &str, now: Timestamp) {
        let busy = self.serving(Phase::Busy);
        let Some(runner) = self.runners.get_mut(name) else {
            return;
        };
        // A refusal to stop it delays nothing any more: what is left of it can be cleared away.
        runner.retry_at = None;
        let exit = runner.exit.clone();
        if exit.is_none() && runner.template_hash.is_empty() {
            // No host ever showed it, only a status remembers it: the controller that wrote that has heard and said
            // what became of it since.
            runner.enter(Phase::Done, now);
        } else if runner.phase == Phase::Busy {
            runner.enter(Phase::Done, now);
            if runner.job_completed_at.is_none() {
                self.demand.ended_with_job(runner, now);
                if !exit.as_ref().is_some_and(Exit::clean) {
                    self.failures.note(Failure::job_lost(runner, now));
                }
            } else {
                self.failures.succeeded(&runner.backend, &runner.host);
                // A runner that is told to end gives its job up, and may still say so to GitHub.
                let given_up = runner.job_outcome.is_some_and(|outcome| outcome != JobOutcome::Succeeded);
                if given_up && exit.as_ref().is_some_and(|exit| exit.cause.is_some()) {
                    self.failures.note(Failure::job_lost(runner, now));
                }
            }
        } else if runner.operation == Some(Operation::Removing) {
            runner.enter(Phase::Done, now);
        } else if exit.as_ref().is_some_and(|e| e.code == Some(0)) {
            // It may have run a job whose messages are still on their way: judged when they should have come.
            runner.enter(Phase::Done, now);
            self.demand.ended_unexplained(runner, busy, now);
        } else {
            runner.enter(Phase::Failed, now);
            let failure = Failure::ended_without_job(runner, now);
            self.failures.note(failure);
        }
    }

    /// Takes over GitHub's counts. GitHub has been seen to answer nothing but zeros while runners were at work.
    pub fn count(&mut self, statistics: Statistics, now: Timestamp) {
        let at_work = |r: &Runner| match r.phase {
            Phase::Idle => r.since.plus(CONNECTED_AFTER) <= now,
            Phase::Busy => r.job_completed_at.is_none(),
            Phase::Pending | Phase::Done | Phase::Failed => false,
        };
        let contradicted =
            statistics == Statistics::default() && self.runners.values().any(|r| r.serves() && at_work(r));
        self.demand.count(statistics, contradicted, now);
    }

    /// GitHub answered a poll or opened a session: what is queued there comes now. Answers whether someone waits for it.
    pub fn answered(&mut self, now: Timestamp) -> bool {
        self.demand.answered(now)
    }

    /// Takes over what happened to a job. Answers whether it was news.
    pub fn apply(&mut self, event: &JobEvent, now: Timestamp) -> bool {
        match event {
            JobEvent::Available { .. } | JobEvent::Assigned { .. } => true,
            JobEvent::Started { job, runner_name, runner_id } => {
                let news = self.heard.insert((job.id.clone(), runner_name.clone(), false));
                if news {
                    self.job_started(job, runner_name, *runner_id, now);
                }
                news
            }
            JobEvent::Completed { job, runner_name, outcome } => {
                let news = self.heard.insert((job.id.clone(), runner_name.clone(), true));
                if news {
                    self.job_completed(job, runner_name, *outcome, now);
                }
                news
            }
        }
    }

    fn job_started(&mut self, job: &Job, runner_name: &str, runner_id: i64, now: Timestamp) {
        self.demand.started(runner_name, &job.id, now);
        self.came_to_a_job(runner_name);
        let over = self.heard.contains(&(job.id.clone(), runner_name.to_owned(), true));
        let Some(runner) = self.runners.get_mut(runner_name) else {
            return;
        };
        // A job is given to none that GitHub does not know, whatever a list of it lacked.
        if runner_id > 0 && !matches!(runner.registration, Registration::Present(_)) {
            runner.registration = Registration::Present(runner_id);
        }
        // One that has just come up says nothing of those that were there before.
        if runner.phase == Phase::Idle && runner.since.plus(CONNECTED_AFTER) <= now {
            self.demand.idle_taken();
        }
        runner.job = Some(job.clone());
        if runner.enter(Phase::Busy, now) && over {
            runner.job_completed_at = Some(now);
        }
        let died = runner.exit.as_ref().is_some_and(|exit| !exit.clean());
        if died && runner.phase == Phase::Failed && !over {
            // Its end was seen before anyone heard of its job.
            self.demand.ended_with_job(runner, now);
            self.failures.note(Failure::job_lost(runner, now));
        }
    }

    fn job_completed(&mut self, job: &Job, runner_name: &str, outcome: JobOutcome, now: Timestamp) {
        self.demand.completed(runner_name, &job.id);
        if !self.heard.contains(&(job.id.clone(), runner_name.to_owned(), false)) {
            self.came_to_a_job(runner_name);
        }
        let Some(runner) = self.runners.get_mut(runner_name) else {
            return;
        };
        if runner.occupies() {
            runner.job.get_or_insert_with(|| job.clone());
            runner.enter(Phase::Busy, now);
            runner.job_completed_at.get_or_insert(now);
            runner.job_outcome = Some(outcome);
        }
    }

    /// Its host can start runners, even if it is heard of only now that the runner is gone.
    fn came_to_a_job(&mut self, name: &str) {
        let there = self.runners.get(name).map(|r| (&r.backend, &r.host));
        if let Some((backend, host)) = there.or_else(|| self.retired.get(name).map(|r| (&r.backend, &r.host)))
        {
            self.failures.succeeded(backend, host);
        }
    }

    /// A runner is asked for: from now on it takes a slot.
    pub fn begin_start(&mut self, mut runner: Runner) {
        runner.operation = Some(Operation::Preparing);
        self.runners.insert(runner.name.clone(), runner);
    }

    /// Its host is ready for it: it is registered and started now, and `timeouts.start` counts from here. Answers false if
    /// it is not wanted any more.
    pub fn host_ready(&mut self, name: &str, now: Timestamp) -> bool {
        let preparing = |runner: &&mut Runner| runner.operation == Some(Operation::Preparing);
        let Some(runner) = self.runners.get_mut(name).filter(preparing) else { return false };
        runner.operation = Some(Operation::Starting);
        runner.since = now;
        true
    }

    /// Its host could not be made ready, for the reason given: nothing of it is anywhere, not even a registration.
    pub fn host_not_ready(&mut self, name: &str, reason: &'static str, message: &str, now: Timestamp) {
        self.deregistered(name);
        self.start_failed(name, reason, message, now);
    }

    /// GitHub registered it.
    pub fn registered(&mut self, name: &str, runner_id: i64) {
        if let Some(runner) = self.runners.get_mut(name) {
            runner.registration = Registration::Present(runner_id);
        }
    }

    /// GitHub's list lacks it. Answers whether that is to be believed: the first time it is not.
    pub fn unlisted(&mut self, name: &str, now: Timestamp) -> bool {
        let Some(runner) = self.runners.get_mut(name) else { return true };
        runner.unlisted_since.get_or_insert(now).plus(UNLISTED_SETTLES) <= now
    }

    /// Its instance is up.
    pub fn start_succeeded(&mut self, instance: &Instance, now: Timestamp) {
        let Some(runner) = self.runners.get_mut(&instance.runner) else {
            return;
        };
        runner.operation = None;
        runner.observe(instance, now);
        if runner.exit.is_some() && runner.occupies() {
            self.end(&instance.runner, now);
        }
    }

    /// It was not up in time, and its start is still under way: a failure, and no capacity, but it keeps its slot. Not so
    /// one that its host has shown to be up: of its start nothing but the answer is missing.
    pub fn start_given_up(&mut self, name: &str, message: &str, now: Timestamp) {
        if self.runners.get(name).is_none_or(|r| r.phase != Phase::Pending) {
            return;
        }
        self.start_timed_out(name, message, now);
        self.begin_removal(name);
    }

    /// Its start failed, for the reason given; nothing of it is left on the backend.
    pub fn start_failed(&mut self, name: &str, reason: &'static str, message: &str, now: Timestamp) {
        let Some(runner) = self.runners.get_mut(name) else {
            return;
        };
        let given_up = runner.operation.take() == Some(Operation::Removing);
        runner.enter(Phase::Failed, now);
        if !given_up {
            let failure = Failure::start(runner, reason, message, now);
            self.failures.note(failure);
        }
    }

    /// Forgets a runner whose registration was not even tried, and which another will take the place of later.
    pub fn start_put_off(&mut self, name: &str) {
        self.runners.remove(name);
    }

    /// GitHub did not register it, for the reason given: there is no instance of it.
    pub fn registration_failed(&mut self, name: &str, reason: &'static str, message: &str, now: Timestamp) {
        let Some(runner) = self.runners.get_mut(name) else { return };
        runner.operation = None;
        runner.enter(Phase::Failed, now);
        let failure = Failure::registration(runner, reason, message, now);
        self.failures.note(failure);
    }

    /// What a runner that failed, or may have, printed last.
    pub fn add_log(&mut self, name: &str, log: &str) {
        self.failures.add_log(name, log);
    }

    /// Its removal begins.
    pub fn begin_removal(&mut self, name: &str) {
        if let Some(runner) = self.runners.get_mut(name) {
            runner.operation = Some(Operation::Removing);
            runner.retry_at = None;
        }
    }

    /// It was not up in time: a failed start, although something of it may be left to remove. Said once, however often its
    /// removal is tried.
    pub fn start_timed_out(&mut self, name: &str, message: &str, now: Timestamp) {
        let Some(runner) = self.runners.get(name).filter(|r| r.retry_at.is_none()) else {
            return;
        };
        let failure = Failure::start(runner, reason::START_TIMEOUT, message, now);
        self.failures.note(failure);
    }

    /// Its job runs for too long, and is stopped with it. Said once, too.
    pub fn job_timed_out(&mut self, name: &str, now: Timestamp) {
        let Some(runner) = self.runners.get(name).filter(|r| r.retry_at.is_none()) else {
            return;
        };
        let failure = Failure::job_timed_out(runner, now);
        self.failures.note(failure);
    }

    /// An idle runner begins to be recycled, because jobs that wait do not come to it. The next is not before the
    /// replacement of this one has had its chance.
    pub fn begin_recycling(&mut self, now: Timestamp) {
        self.demand.begin_recycling(now);
    }

    /// It was idle while jobs waited, and GitHub let go of it: a failure of its host, so that its replacement is started
    /// on another, if there is one.
    pub fn never_connected(&mut self, name: &str, now: Timestamp) {
        if let Some(runner) = self.runners.get(name) {
            let failure = Failure::never_connected(runner, now);
            self.failures.note(failure);
        }
    }

    /// GitHub does not know it any more.
    pub fn deregistered(&mut self, name: &str) {
        if let Some(runner) = self.runners.get_mut(name) {
            runner.registration = Registration::Absent;
        }
    }

    /// GitHub still had the registration of it, which goes with a runner's job: if it has ended, it never had one.
    pub fn was_registered(&mut self, name: &str, now: Timestamp) {
        self.demand.had_no_job(name, now, &mut self.failures);
    }

    /// GitHub answered that a job runs on it: it is busy, whatever else was believed. If GitHub has also said that the job
    /// is over it counts it no more, and neither do we; it is asked about again after a while.
    pub fn found_busy(&mut self, name: &str, now: Timestamp) {
        if let Some(runner) = self.runners.get_mut(name) {
            runner.operation = None;
            if !runner.occupies() {
                // It ended while the answer was under way.
                return;
            }
            runner.retry_at = Some(now.plus(BUSY_RETRY));
            runner.job_completed_at = runner.job_completed_at.map(|_| now);
            runner.enter(Phase::Busy, now);
        }
    }

    /// Its removal did not work: it stays, and is tried again after a while.
    pub fn removal_failed(&mut self, name: &str, retry_at: Timestamp) {
        if let Some(runner) = self.runners.get_mut(name) {
            runner.operation = None;
            runner.retry_at = Some(retry_at);
        }
    }

    /// Nothing of it is left: no instance, no registration.
    pub fn retire(&mut self, name: &str, now: Timestamp) {
        self.failures.forget_log(name);
        if let Some(Runner { name, backend, host, .. }) = self.runners.remove(name) {
            self.retired.insert(name, Retired { at: now, backend, host });
        }
    }

    /// Marks the runners for which there is no demand, and unmarks all others.
    pub fn mark_surplus(&mut self, names: &[String], now: Timestamp) {
        let names: HashSet<&str> = names.iter().map(String::as_str).collect();
        for runner in self.runners.values_mut() {
            if names.contains(runner.name.as_str()) {
                runner.surplus_since.get_or_insert(now);
            } else {
                runner.surplus_since = None;
            }
        }
    }

    fn forget_retired(&mut self, now: Timestamp) {
        self.retired.retain(|_, retired| retired.at.plus(RETIRED_FOR) > now);
    }
}

#[cfg(test)]
mod tests;
