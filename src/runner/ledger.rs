//! The ledger of one scale set: what each of its runners is doing, joined from what the backends show, what GitHub
//! says and what became of the controller's own actions. In memory only: all of it can be read again.

mod hosts;
mod removals;
mod starts;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use jiff::Timestamp;

use super::demand::Demand;
use super::failure::{Failure, Failures};
use super::observation::Listings;
use super::recent::Recent;
use super::rerun::{Rerun, RerunAnswer, Reruns};
use super::unseen::Unseen;
use super::{
    Exit, Instance, InstanceState, Job, JobEvent, JobOutcome, Observation, Operation, PersistedRunner, Phase,
    Registration, Runner, Statistics, Watched,
};
use crate::time::Plus;

/// How long a runner that is gone is remembered, so that nothing is asked about it twice.
const RETIRED_FOR: Duration = Duration::from_secs(3600);
/// A listing that is this much younger than a removal and still shows the instance is believed.
const RETIRED_SETTLES: Duration = Duration::from_secs(10);
/// A runner is connected to GitHub, and counted there, at the latest so long after its instance came up.
const CONNECTED_AFTER: Duration = Duration::from_secs(60);
/// A list of GitHub's that lacks a runner is believed when another, this much later, does so too.
const UNLISTED_SETTLES: Duration = Duration::from_secs(5);
/// How many job events are remembered, to tell repeats: what comes again is of the last few messages.
const EVENTS_REMEMBERED: usize = 2_000;
/// After GitHub answered that a job still runs, the removal is not tried again before this: it is costly for the service.
const BUSY_RETRY: Duration = Duration::from_secs(30);

/// A job event that was applied: the job's id, its runner, and whether the job was over. GitHub may hand a job out anew, under
/// the id that it has; no runner gets it twice.
type AppliedEvent<'a> = (&'a str, &'a str, bool);

/// The runners of one scale set and what is known of its demand.
#[derive(Debug, Default)]
pub struct Ledger {
    runners: BTreeMap<String, Runner>,
    demand: Demand,
    failures: Failures,
    reruns: Reruns,
    /// Of [`AppliedEvent`]s.
    applied: Recent,
    retired: HashMap<String, Retired>,
    /// How many looks there were.
    looks: u64,
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
        Ledger { applied: Recent::new(EVENTS_REMEMBERED), ..Ledger::default() }
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

    /// The workflow runs that lost jobs which are to be run again.
    pub fn reruns(&self) -> &Reruns {
        &self.reruns
    }

    /// Takes over what the status of the object tells of those, newest first.
    pub fn restore_reruns(&mut self, remembered: impl IntoIterator<Item = Rerun>) {
        self.reruns.restore(remembered);
    }

    /// Answers for which runs GitHub is to be asked now, by repository and id. They count as being asked for until
    /// [`Ledger::rerun_answered`].
    pub fn begin_reruns(&mut self, now: Timestamp) -> Vec<(String, i64)> {
        self.reruns.due(now)
    }

    /// Notes what GitHub answered. Answers the run if it is waited for no more.
    pub fn rerun_answered(&mut self, run: (&str, i64), answer: RerunAnswer, now: Timestamp) -> Option<Rerun> {
        self.reruns.answered(run, answer, now)
    }

    /// Takes over what the status of the object tells of runners, before anything else is known. They count until
    /// their hosts have been listed without them.
    pub fn restore(&mut self, remembered: impl IntoIterator<Item = PersistedRunner>, now: Timestamp) {
        for entry in remembered.into_iter().filter(|entry| entry.phase.occupies()) {
            let mut runner = Runner::pending(&entry.name, &entry.backend, &entry.host, "", now);
            runner.phase = entry.phase;
            runner.since = entry.since;
            runner.work.busy = Watched::begun_before(entry.since, now);
            runner.seen.instance_id = entry.instance_id;
            runner.work.job = entry.job;
            self.runners.entry(entry.name).or_insert(runner);
        }
    }

    /// Notes how much time has passed since the last look, by a clock that nobody sets.
    pub fn time_passed(&mut self, passed: Duration) {
        let busy = self.runners.values_mut().filter(|r| r.phase == Phase::Busy);
        busy.for_each(|runner| runner.work.busy.pass(passed));
    }

    /// Takes over what the backends show now.
    pub fn observe(&mut self, observations: &[Observation], now: Timestamp) {
        self.forget_retired(now);
        self.looks += 1;
        for observation in observations {
            for instance in &observation.instances {
                self.observe_instance(instance, observation.listed_at, now);
            }
        }
        self.notice_missing(observations, now);
        self.unseen.observe(observations);
        for runner in self.runners.values_mut() {
            let leaving = runner.occupies() && !runner.serves();
            runner.leaving.since = leaving.then(|| runner.leaving.since.unwrap_or(now));
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
        let known = self.runners.get_mut(&instance.runner);
        let mut first_sight = known.is_none();
        let runner = match known {
            Some(runner) => runner,
            None if matches!(&instance.state, InstanceState::Exited(exit) if exit.leaves_nothing) => return,
            None => self.runners.entry(instance.runner.clone()).or_insert_with(|| Runner::adopted(instance)),
        };
        runner.shown_in = self.looks;
        if runner.template_hash.is_empty() {
            first_sight = true;
            runner.template_hash.clone_from(&instance.template_hash);
            runner.created_at = instance.created_at;
        }
        // One that had ended before it was first seen was an earlier controller's: what it did is not known.
        runner.seen.found_ended |= first_sight && instance.state.ended();
        if first_sight && instance.state == InstanceState::Running {
            runner.seen.up_since = Some(instance.created_at);
        }
        if !runner.occupies() && runner.operation.is_none() && !instance.state.ended() {
            runner.revive(instance, now);
            // GitHub said so while the runner was held to be gone, and does not say it again.
            let is_over = |job: &Job| self.applied.contains(over(&job.id, &instance.runner));
            runner.work.over_at = runner.work.job.as_ref().is_some_and(is_over).then_some(now);
        }
        runner.observe(instance, now);
        if runner.seen.exit.is_some() && runner.occupies() && runner.operation != Some(Operation::Starting) {
            self.end(&instance.runner, now);
        }
    }

    /// A runner whose host was listed twice without it is gone. Its start may still be under way: that is left to the start.
    fn notice_missing(&mut self, observations: &[Observation], now: Timestamp) {
        let listings = Listings::of(observations);
        let mut gone = Vec::new();
        for runner in self.runners.values_mut() {
            if !runner.occupies() || runner.operation.is_some() || runner.shown_in == self.looks {
                continue;
            }
            // Where nothing was listed since, nothing new is known of it.
            let Some(listed_at) = listings.without(runner) else { continue };
            match runner.seen.missing_since {
                None => runner.seen.missing_since = Some(listed_at),
                Some(first) if listed_at > first => gone.push(runner.name.clone()),
                Some(_) => {}
            }
        }
        for name in gone {
            if let Some(runner) = self.runners.get_mut(&name) {
                runner.seen.instance_id = None;
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
        runner.leaving.retry_at = None;
        let exit = runner.seen.exit.clone();
        if exit.is_none() && runner.template_hash.is_empty() {
            // No host ever showed it, only a status remembers it: the controller that wrote that has heard and said
            // what became of it since.
            runner.enter(Phase::Done, now);
        } else if runner.phase == Phase::Busy {
            runner.enter(Phase::Done, now);
            if runner.work.over_at.is_none() {
                self.demand.ended_with_job(runner, now);
                if !exit.as_ref().is_some_and(Exit::clean) {
                    job_lost((&mut self.failures, &mut self.reruns), runner, now);
                }
            } else {
                self.failures.succeeded(&runner.backend, &runner.host);
                // A runner that is told to end gives its job up, and may still say so to GitHub.
                let given_up = runner.work.outcome.is_some_and(|outcome| outcome != JobOutcome::Succeeded);
                if given_up && exit.as_ref().is_some_and(|exit| exit.cause.is_some()) {
                    job_lost((&mut self.failures, &mut self.reruns), runner, now);
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
            Phase::Busy => r.work.over_at.is_none(),
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
                let news = self.applied.insert(begun(&job.id, runner_name));
                if news {
                    self.job_started(job, runner_name, *runner_id, now);
                }
                news
            }
            JobEvent::Completed { job, runner_name, outcome } => {
                let news = self.applied.insert(over(&job.id, runner_name));
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
        let is_over = self.applied.contains(over(&job.id, runner_name));
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
        runner.work.job = Some(job.clone());
        if runner.enter(Phase::Busy, now) && is_over {
            runner.work.over_at = Some(now);
        }
        let died = runner.seen.exit.as_ref().is_some_and(|exit| !exit.clean());
        if died && runner.phase == Phase::Failed && !is_over {
            // Its end was seen before anyone heard of its job.
            self.demand.ended_with_job(runner, now);
            job_lost((&mut self.failures, &mut self.reruns), runner, now);
        }
    }

    fn job_completed(&mut self, job: &Job, runner_name: &str, outcome: JobOutcome, now: Timestamp) {
        self.demand.completed(runner_name, &job.id);
        if !self.applied.contains(begun(&job.id, runner_name)) {
            self.came_to_a_job(runner_name);
        }
        let Some(runner) = self.runners.get_mut(runner_name) else {
            return;
        };
        if runner.occupies() {
            runner.work.job.get_or_insert_with(|| job.clone());
            runner.enter(Phase::Busy, now);
            runner.work.over_at.get_or_insert(now);
            runner.work.outcome = Some(outcome);
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

    fn forget_retired(&mut self, now: Timestamp) {
        self.retired.retain(|_, retired| retired.at.plus(RETIRED_FOR) > now);
    }
}

/// Notes that a runner's end took its job along, and that the job is to be run again where the end says so.
fn job_lost((failures, reruns): (&mut Failures, &mut Reruns), runner: &Runner, now: Timestamp) {
    failures.note(Failure::job_lost(runner, now));
    let cause = runner.seen.exit.as_ref().and_then(|exit| exit.cause.as_ref());
    if let Some(job) = runner.work.job.as_ref().filter(|_| cause.is_some_and(|cause| cause.rerun)) {
        reruns.note(job, now);
    }
}

fn begun<'a>(job: &'a str, runner: &'a str) -> AppliedEvent<'a> {
    (job, runner, false)
}

fn over<'a>(job: &'a str, runner: &'a str) -> AppliedEvent<'a> {
    (job, runner, true)
}

#[cfg(test)]
mod tests;
