//! GitHub's side: scale sets, jobs, registrations, sessions and messages.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use paddock::github::{Error, Message};
use paddock::runner::{Job, JobEvent, JobOutcome, Statistics};
use rand::RngExt;
use rand::seq::SliceRandom;

use crate::history::{Setup, Weather};
use crate::jobs;
use crate::sim::{State, between};

/// An assigned job that no runner takes in this time goes back to the queue.
const UNCLAIMED: Duration = Duration::from_secs(300);
/// So often; then it is dropped.
const TRIES: u32 = 3;
/// A busy runner that is silent for so long has lost its job.
const SILENT: Duration = Duration::from_secs(600);
/// How long idle runners last while GitHub drops them, in milliseconds.
const DROPPED: (u64, u64) = (120_000, 360_000);
/// A session that nobody polls lapses after this.
pub const LAPSE: Duration = Duration::from_secs(300);
/// The most events in a message.
const BATCH: usize = 50;

/// What GitHub holds.
pub struct GitHub {
    pub sets: Vec<ScaleSet>,
    pub registrations: BTreeMap<i64, Registration>,
    pub weather: Weather,
    pub broker: bool,
    /// Until then, idle runners are dropped after minutes.
    pub drops_until: Option<Timestamp>,
}

/// One scale set's own.
#[derive(Default)]
pub struct ScaleSet {
    pub id: Option<i64>,
    pub name: String,
    pub labels: Vec<String>,
    pub session: Option<Session>,
    pub jobs: Vec<JobRecord>,
    /// Messages that are not deleted yet, and whether their statistics are honest.
    pub queue: VecDeque<(Message, bool)>,
    /// Events that wait for a message.
    unsent: Vec<JobEvent>,
    /// Messages that come again, acknowledged or not.
    again: VecDeque<(Message, bool)>,
    last_deleted: Option<(Message, bool)>,
    next_message: i64,
    pub capacity: u32,
    /// What goes wrong next.
    pub zero: bool,
    pub lose: bool,
    pub shuffle: bool,
    pub truncate: bool,
    pub hold_until: Option<Timestamp>,
}

impl ScaleSet {
    /// Whether a message waits to be heard, or something that one is yet to be made of.
    pub fn has_news(&self) -> bool {
        !(self.queue.is_empty() && self.unsent.is_empty() && self.again.is_empty())
    }
}

pub struct Session {
    pub id: String,
    pub owner: String,
    pub seen: Timestamp,
    pub token: u32,
    pub expired: bool,
}

/// A runner, as GitHub knows it.
#[derive(Debug, Clone)]
pub struct Registration {
    pub id: i64,
    pub name: String,
    pub set: usize,
    pub state: Presence,
    /// When it goes if idle runners are dropped; none before it was idle.
    pub dropped_at: Option<Timestamp>,
    /// A list has lacked it. Another would be believed, and rightly.
    pub unlisted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    Offline,
    Idle,
    Busy,
}

pub struct JobRecord {
    pub id: String,
    pub seconds: u32,
    pub hangs: bool,
    pub state: JobState,
    pub tries: u32,
    pub since: Timestamp,
    /// Its runner's process is gone, since then.
    pub silent: Option<Timestamp>,
    pub cancelled: bool,
    /// GitHub has said already that it is over.
    pub told_over: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobState {
    Queued,
    Offered,
    Assigned,
    Running { registration: i64 },
    Over(End),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Succeeded,
    Cancelled,
    /// Its runner died under it.
    Lost,
    /// No runner took it, three times.
    Dropped,
}

impl GitHub {
    pub fn new(setup: &Setup) -> GitHub {
        let set = |number| ScaleSet {
            name: crate::cluster::name(number),
            next_message: 100,
            ..ScaleSet::default()
        };
        GitHub {
            sets: (0..setup.sets.len()).map(set).collect(),
            registrations: BTreeMap::new(),
            weather: Weather::Fine,
            broker: setup.broker,
            drops_until: None,
        }
    }

    pub fn set_of(&self, id: i64) -> Result<usize, Error> {
        self.sets.iter().position(|set| set.id == Some(id)).ok_or(Error::ScaleSetGone)
    }

    pub fn registered(&self, name: &str) -> Option<&Registration> {
        self.registrations.values().find(|r| r.name == name)
    }

    /// Counts, as they are.
    pub fn count(&self, set: usize) -> Statistics {
        let jobs = |wanted: fn(&JobRecord) -> bool| {
            u32::try_from(self.sets[set].jobs.iter().filter(|job| wanted(job)).count()).expect("few")
        };
        let runners = |wanted: fn(&Registration) -> bool| {
            let of_set = self.registrations.values().filter(|r| r.set == set && wanted(r));
            u32::try_from(of_set.count()).expect("few")
        };
        let running = |job: &JobRecord| matches!(job.state, JobState::Running { .. }) && !job.told_over;
        Statistics {
            available: jobs(|job| job.state == JobState::Offered),
            acquired: 0,
            assigned: jobs(|job| job.state == JobState::Assigned)
                + self.sets[set].jobs.iter().filter(|j| running(j)).count() as u32,
            running: self.sets[set].jobs.iter().filter(|j| running(j)).count() as u32,
            registered_runners: runners(|_| true),
            busy_runners: runners(|r| r.state == Presence::Busy),
            idle_runners: runners(|r| r.state == Presence::Idle),
        }
    }
}

impl JobRecord {
    fn job(&self) -> Job {
        Job {
            id: self.id.clone(),
            display_name: self.id.clone(),
            repository: "acme/app".into(),
            ..Job::default()
        }
    }
}

impl State {
    /// Jobs are queued for a set.
    pub fn queue_jobs(&mut self, set: usize, jobs: u32, seconds: u32, hangs: bool) {
        for _ in 0..jobs {
            let id = format!("job-{}", self.number());
            let since = self.now;
            self.github.sets[set].jobs.push(JobRecord {
                id,
                seconds,
                hangs,
                since,
                state: JobState::Queued,
                tries: 0,
                silent: None,
                cancelled: false,
                told_over: false,
            });
        }
        self.offer(set);
    }

    /// Where GitHub does not assign by itself it offers.
    fn offer(&mut self, set: usize) {
        if self.github.broker || self.github.sets[set].id.is_none() {
            return;
        }
        let ScaleSet { jobs, unsent, .. } = &mut self.github.sets[set];
        for (number, job) in jobs.iter_mut().enumerate() {
            if job.state == JobState::Queued {
                job.state = JobState::Offered;
                let request_id = i64::try_from(number).expect("few") + 1;
                unsent.push(JobEvent::Available { job: job.job(), request_id });
            }
        }
    }

    /// The broker's gate: so many jobs as the set says it can have.
    pub fn assign(&mut self, set: usize) {
        self.offer(set);
        if !self.github.broker {
            return;
        }
        let room = self.github.sets[set].capacity.saturating_sub(self.github.count(set).assigned);
        let waiting: Vec<usize> = self.jobs_in(set, &JobState::Queued);
        for job in waiting.into_iter().take(room as usize) {
            self.assign_job(set, job);
        }
    }

    fn jobs_in(&self, set: usize, state: &JobState) -> Vec<usize> {
        let jobs = self.github.sets[set].jobs.iter().enumerate();
        jobs.filter(|(_, job)| job.state == *state).map(|(number, _)| number).collect()
    }

    fn assign_job(&mut self, set: usize, number: usize) {
        let now = self.now;
        let scale_set = &mut self.github.sets[set];
        let job = &mut scale_set.jobs[number];
        job.state = JobState::Assigned;
        job.since = now;
        job.tries += 1;
        scale_set.unsent.push(JobEvent::Assigned { job: job.job() });
        let id = job.id.clone();
        self.note(|| format!("GitHub assigns {id} to set {set}"));
        jobs::assigned(self, set, &id);
    }

    /// The older model: the set takes what it was offered.
    pub fn acquire(&mut self, set: usize, request_ids: &[i64]) -> Vec<i64> {
        let mut granted = Vec::new();
        for id in request_ids {
            let number = usize::try_from(*id - 1).unwrap_or(usize::MAX);
            if self.github.sets[set].jobs.get(number).is_some_and(|job| job.state == JobState::Offered) {
                self.assign_job(set, number);
                granted.push(*id);
            }
        }
        granted
    }

    pub fn offered(&self, set: usize) -> Vec<i64> {
        self.jobs_in(set, &JobState::Offered)
            .into_iter()
            .map(|n| i64::try_from(n).expect("few") + 1)
            .collect()
    }

    /// A runner that is there asks for a job.
    pub fn take_job(&mut self, registration: i64) -> Option<usize> {
        let now = self.now;
        let lasts = self.millis(DROPPED.0, DROPPED.1);
        let runner = self.github.registrations.get_mut(&registration)?;
        runner.state = Presence::Idle;
        runner.dropped_at.get_or_insert(now + lasts);
        let set = runner.set;
        let number = self.github.sets[set].jobs.iter().position(|job| job.state == JobState::Assigned)?;
        let runner = self.github.registrations.get_mut(&registration)?;
        runner.state = Presence::Busy;
        let name = runner.name.clone();
        let scale_set = &mut self.github.sets[set];
        let job = &mut scale_set.jobs[number];
        job.state = JobState::Running { registration };
        job.since = now;
        let about = Job { runner_assigned_at: Some(now), ..job.job() };
        scale_set.unsent.push(JobEvent::Started {
            job: about,
            runner_name: name.clone(),
            runner_id: registration,
        });
        let id = job.id.clone();
        self.note(|| format!("{name} takes {id}"));

        Some(number)
    }

    /// A job is over, in truth.
    pub fn end_job(&mut self, set: usize, number: usize, end: End) {
        let registration = match self.github.sets[set].jobs[number].state {
            JobState::Running { registration } => Some(registration),
            _ => None,
        };
        self.tell_over(set, number, end);
        self.github.sets[set].jobs[number].state = JobState::Over(end);
        let id = self.github.sets[set].jobs[number].id.clone();
        self.note(|| format!("{id} is over: {end:?}"));
        if let Some(registration) = registration {
            self.github.registrations.remove(&registration);
        }
    }

    /// GitHub says that a job is over, which it may be or not.
    pub fn tell_over(&mut self, set: usize, number: usize, end: End) {
        let runner = match self.github.sets[set].jobs[number].state {
            JobState::Running { registration } => self.github.registrations.get(&registration),
            _ => None,
        };
        let runner_name = runner.map(|r| r.name.clone()).unwrap_or_default();
        let outcome = match end {
            End::Succeeded => JobOutcome::Succeeded,
            End::Cancelled => JobOutcome::Canceled,
            End::Lost | End::Dropped => JobOutcome::Failed,
        };
        let scale_set = &mut self.github.sets[set];
        let job = &mut scale_set.jobs[number];
        if !std::mem::replace(&mut job.told_over, true) {
            scale_set.unsent.push(JobEvent::Completed { job: job.job(), runner_name, outcome });
        }
    }

    /// Someone cancels a job.
    pub fn cancel_job(&mut self, set: usize, number: usize) {
        match self.github.sets[set].jobs[number].state {
            JobState::Running { .. } => self.github.sets[set].jobs[number].cancelled = true,
            JobState::Over(_) => {}
            JobState::Assigned => self.end_job(set, number, End::Cancelled),
            JobState::Queued | JobState::Offered => {
                self.github.sets[set].jobs[number].state = JobState::Over(End::Cancelled)
            }
        }
    }

    fn drop_spares(&mut self) {
        let now = self.now;
        if self.github.drops_until.is_none_or(|until| until <= now) {
            return;
        }
        let dropped =
            |r: &Registration| r.state == Presence::Idle && r.dropped_at.is_some_and(|at| at <= now);
        let names: Vec<String> =
            self.github.registrations.values().filter(|r| dropped(r)).map(|r| r.name.clone()).collect();
        self.github.registrations.retain(|_, r| !dropped(r));
        names.iter().for_each(|name| self.note(|| format!("GitHub drops {name}")));
    }

    /// What GitHub does by itself when time passes.
    pub fn github_ages(&mut self) {
        self.drop_spares();
        for set in 0..self.github.sets.len() {
            for number in 0..self.github.sets[set].jobs.len() {
                let job = &self.github.sets[set].jobs[number];
                let unclaimed = job.state == JobState::Assigned && between(job.since, self.now) > UNCLAIMED;
                let silent = job.silent.is_some_and(|at| between(at, self.now) > SILENT);
                let running = matches!(job.state, JobState::Running { .. });
                if unclaimed && job.tries >= TRIES {
                    self.end_job(set, number, End::Dropped);
                } else if unclaimed {
                    self.tell_over(set, number, End::Cancelled);
                    let job = &mut self.github.sets[set].jobs[number];
                    job.state = JobState::Queued;
                    job.told_over = false;
                    let id = job.id.clone();
                    self.note(|| format!("{id} was not taken and is queued again"));
                } else if running && silent {
                    self.end_job(set, number, End::Lost);
                }
            }
        }
    }

    /// The scale set is gone; nothing of it stays.
    pub fn forget_scale_set(&mut self, set: usize) {
        self.note(|| format!("the scale set of set {set} is gone from GitHub"));
        self.github.registrations.retain(|_, r| r.set != set);
        let scale_set = &mut self.github.sets[set];
        scale_set.id = None;
        scale_set.session = None;
        scale_set.capacity = 0;
        scale_set.queue.clear();
        scale_set.unsent.clear();
        scale_set.again.clear();
        for job in &mut scale_set.jobs {
            if matches!(job.state, JobState::Assigned | JobState::Offered) {
                job.state = JobState::Queued;
            }
        }
    }

    /// Counts, as GitHub says them now; and whether that is honest.
    pub fn reading(&mut self, set: usize) -> (Statistics, bool) {
        if std::mem::take(&mut self.github.sets[set].zero) {
            self.note(|| format!("GitHub says that set {set} has nothing at all"));
            return (Statistics::default(), false);
        }
        (self.github.count(set), true)
    }

    /// The next message after `last`, if there is one.
    pub fn next_message(&mut self, set: usize, last: i64) -> Option<(Message, bool)> {
        let now = self.now;
        if self.github.sets[set].hold_until.is_some_and(|until| until > now) {
            return None;
        }
        if let Some(again) = self.github.sets[set].again.pop_front() {
            return Some(again);
        }
        self.pack(set);
        self.github.sets[set].queue.iter().find(|(message, _)| message.id > last).cloned()
    }

    /// Makes a message of the events that wait.
    fn pack(&mut self, set: usize) {
        if self.github.sets[set].unsent.is_empty() {
            return;
        }
        if std::mem::take(&mut self.github.sets[set].shuffle) {
            let State { github, rng, .. } = self;
            github.sets[set].unsent.shuffle(rng);
        }
        let (statistics, honest) = self.reading(set);
        let random = self.rng.random_range(0..3);
        let scale_set = &mut self.github.sets[set];
        let count = scale_set.unsent.len().min(BATCH);
        let mut events: Vec<JobEvent> = scale_set.unsent.drain(..count).collect();
        let truncated = std::mem::take(&mut scale_set.truncate);
        if truncated {
            events.truncate(random);
        }
        scale_set.next_message += 1;
        let message =
            Message { id: scale_set.next_message, statistics: Some(statistics), events, unreadable: 0 };
        let lost = std::mem::take(&mut scale_set.lose);
        if lost || truncated {
            self.watch.jobs.lost[set] = Some(self.now);
        }
        if lost {
            self.note(|| format!("message {} of set {set} is lost", message.id));
            return;
        }
        self.github.sets[set].queue.push_back((message, honest));
    }

    pub fn delete_message(&mut self, set: usize, id: i64) {
        let scale_set = &mut self.github.sets[set];
        if let Some(at) = scale_set.queue.iter().position(|(message, _)| message.id == id) {
            scale_set.last_deleted = scale_set.queue.remove(at);
        }
    }

    pub fn repeat_message(&mut self, set: usize) {
        let scale_set = &mut self.github.sets[set];
        let old = scale_set.last_deleted.clone().or_else(|| scale_set.queue.front().cloned());
        scale_set.again.extend(old);
    }
}
