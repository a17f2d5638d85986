//! Everything that the simulated GitHub knows. All of it is plain data behind one lock; nothing here waits.
//!
//! A change wakes who waits for it: the poll of the scale set concerned, the runner concerned, and whoever waits in
//! [`super::SimGithub::wait_until`].

mod job;
mod runner;
mod scale_set;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

pub(super) use job::RerunRefusal;
pub use job::{Job, JobId, JobResult, JobSpec, JobStatus, RunnerRef};
pub use runner::{Hold, Order, Runner, RunnerId};
pub use scale_set::{ScaleSet, ScaleSetId, Session, Statistics};

use super::auth::Tokens;
use super::builder::Config;
use super::fault::Fault;
use super::requests::RequestLog;

/// A runner group.
#[derive(Debug, Clone, Serialize)]
pub struct RunnerGroup {
    /// Its id; 1 is `Default`.
    pub id: i64,
    /// Its name.
    pub name: String,
}

/// A control call that cannot be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// No job has this id.
    #[error("no job {0}")]
    NoSuchJob(JobId),
    /// No runner has this name.
    #[error("no runner {0:?}")]
    NoSuchRunner(String),
    /// No scale set has this name.
    #[error("no scale set {0:?}")]
    NoSuchScaleSet(String),
    /// The scale set has no session.
    #[error("scale set {0:?} has no session")]
    NoSession(String),
    /// The job or runner is in another state than the call needs.
    #[error("{0}")]
    WrongState(String),
}

/// What happens later unless something happens first.
#[derive(Debug, Clone, Copy)]
enum Timer {
    /// No runner took the job in this attempt.
    Unclaimed { job: JobId, attempt: u32 },
    /// A runner has had no connection since its link counted this much.
    Silent { runner: RunnerId, link: u64 },
    /// A runner whose job is over loses its registration.
    Linger { runner: RunnerId },
}

/// What the simulated GitHub knows: scale sets with their sessions, runners, jobs, and the requests it was sent.
pub struct State {
    pub(super) config: Config,
    pub(super) base_url: String,
    pub(super) tokens: Tokens,
    pub(super) faults: Vec<Fault>,
    pub(super) requests: RequestLog,
    groups: Vec<RunnerGroup>,
    sets: BTreeMap<ScaleSetId, ScaleSet>,
    runners: BTreeMap<RunnerId, Runner>,
    jobs: BTreeMap<JobId, Job>,
    /// Jobs that no scale set matches.
    unmatched: VecDeque<JobId>,
    timers: BTreeMap<(Instant, u64), Timer>,
    alarm: Arc<Notify>,
    changed: watch::Sender<()>,
    last_id: i64,
}

impl State {
    pub(super) fn new(config: Config, base_url: String, alarm: Arc<Notify>) -> Self {
        let groups =
            (1..).zip(&config.runner_groups).map(|(id, name)| RunnerGroup { id, name: name.clone() });
        Self {
            groups: groups.collect(),
            tokens: Tokens::new(&config),
            base_url,
            config,
            faults: Vec::new(),
            requests: RequestLog::default(),
            sets: BTreeMap::new(),
            runners: BTreeMap::new(),
            jobs: BTreeMap::new(),
            unmatched: VecDeque::new(),
            timers: BTreeMap::new(),
            alarm,
            changed: watch::Sender::new(()),
            last_id: 0,
        }
    }

    /// Every scale set, in the order of creation.
    pub fn scale_sets(&self) -> impl Iterator<Item = &ScaleSet> {
        self.sets.values()
    }

    /// The scale set of this name, or of this id in digits. Of several, the oldest.
    pub fn scale_set(&self, name: &str) -> Option<&ScaleSet> {
        let by_id = name.parse().ok().and_then(|id: ScaleSetId| self.sets.get(&id));
        self.sets.values().find(|s| s.name == name).or(by_id)
    }

    /// The scale set of this number.
    pub fn scale_set_by_id(&self, id: ScaleSetId) -> Option<&ScaleSet> {
        self.sets.get(&id)
    }

    /// Every registered runner, in the order of registration.
    pub fn runners(&self) -> impl Iterator<Item = &Runner> {
        self.runners.values()
    }

    /// The registered runner of this name.
    pub fn runner(&self, name: &str) -> Option<&Runner> {
        self.runners.values().find(|r| r.name == name)
    }

    /// Every job ever queued, in that order.
    pub fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.jobs.values()
    }

    /// The job of this id.
    pub fn job(&self, id: JobId) -> Option<&Job> {
        self.jobs.get(&id)
    }

    /// How many jobs are in this status.
    pub fn jobs_in(&self, status: JobStatus) -> usize {
        self.jobs.values().filter(|j| j.status == status).count()
    }

    /// The true statistics of the scale set of this name.
    pub fn statistics(&self, scale_set: &str) -> Option<Statistics> {
        self.scale_set(scale_set).map(|set| self.count(set))
    }

    /// What it has been asked.
    pub fn requests(&self) -> &RequestLog {
        &self.requests
    }

    pub(super) fn groups(&self) -> &[RunnerGroup] {
        &self.groups
    }

    pub(super) fn add_group(&mut self, name: &str) {
        let id = self.groups.last().map_or(1, |group| group.id + 1);
        self.groups.push(RunnerGroup { id, name: name.to_owned() });
    }

    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Wakes whoever waits for any change.
    pub(super) fn touch(&self) {
        self.changed.send_replace(());
    }

    fn next_id(&mut self) -> i64 {
        self.last_id += 1;
        self.last_id
    }

    fn schedule(&mut self, at: Instant, timer: Timer) {
        let id = self.next_id().unsigned_abs();
        self.timers.insert((at, id), timer);
        self.alarm.notify_one();
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.timers.first_key_value().map(|((at, _), _)| *at)
    }

    /// Does what has come due. A timer that something else overtook does nothing.
    pub(super) fn fire(&mut self, now: Instant) {
        while let Some(entry) = self.timers.first_entry().filter(|e| e.key().0 <= now) {
            match entry.remove() {
                Timer::Unclaimed { job, attempt } => self.give_up_assignment(job, attempt),
                Timer::Silent { runner, link } => self.lose_runner(runner, link),
                Timer::Linger { runner } => self.forget_runner(runner),
            }
        }
    }
}

/// For the message of a wait that timed out: what a person would want to see first.
impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for set in self.sets.values() {
            let session =
                set.session.as_ref().map_or("no session".to_owned(), |s| format!("session of {}", s.owner));
            writeln!(f, "scale set {} {:?}: {session}, {:?}", set.id, set.name, self.count(set))?;
        }
        for runner in self.runners.values() {
            writeln!(f, "runner {} {:?}: {}, job {:?}", runner.id, runner.name, runner.status(), runner.job)?;
        }
        for job in self.jobs.values() {
            writeln!(f, "job {} of {:?}: {:?}, {:?}", job.id, job.scale_set, job.status, job.result)?;
        }
        Ok(())
    }
}
