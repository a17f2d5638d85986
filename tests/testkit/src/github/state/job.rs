//! Jobs: queued, assigned to a scale set, taken by a runner, finished.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

use super::{ControlError, RunnerId, ScaleSetId, State, Timer};
use crate::github::builder::Model;
use crate::github::wire::Kind;

/// A job's number; in the GHES model it is its `runnerRequestId` too.
pub type JobId = i64;

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum JobStatus {
    /// Waits in GitHub's queue; in the GHES model it may have been offered to a scale set.
    Queued,
    /// Given to a scale set; no runner has it yet.
    Assigned,
    /// On a runner.
    Running,
    /// Over.
    Completed,
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobResult {
    /// It passed.
    Succeeded,
    /// It failed.
    Failed,
    /// It was canceled, or no runner came.
    Canceled,
}

/// A job to queue.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobSpec {
    /// `owner/name`.
    pub repository: String,
    /// What its `runs-on` names: labels, or the name of a scale set.
    pub labels: Vec<String>,
    /// What people see.
    #[serde(default = "default_name")]
    pub name: String,
    /// How long a runner works on it, in milliseconds. None: until it is finished or canceled by hand.
    #[serde(default)]
    pub duration_ms: Option<u64>,
    /// The exit code of the runner's process.
    #[serde(default)]
    pub exit_code: i32,
    /// How it ends when its time is up.
    #[serde(default = "default_result")]
    pub result: JobResult,
    /// The workflow run that it is a job of. None: one of its own.
    #[serde(default)]
    pub run: Option<i64>,
}

impl JobSpec {
    /// A job that runs until it is finished or canceled by hand.
    pub fn new<L: Into<String>>(repository: impl Into<String>, runs_on: impl IntoIterator<Item = L>) -> Self {
        Self {
            repository: repository.into(),
            labels: runs_on.into_iter().map(Into::into).collect(),
            name: default_name(),
            duration_ms: None,
            exit_code: 0,
            result: default_result(),
            run: None,
        }
    }

    /// It is a job of this workflow run.
    #[must_use]
    pub fn of_run(mut self, run: i64) -> Self {
        self.run = Some(run);
        self
    }

    /// The runner works on it for this long.
    #[must_use]
    pub fn lasting(mut self, duration: Duration) -> Self {
        self.duration_ms = Some(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// The runner's process ends with this code.
    #[must_use]
    pub fn exit_code(mut self, code: i32) -> Self {
        self.exit_code = code;
        self
    }

    /// It ends in this way when its time is up.
    #[must_use]
    pub fn result(mut self, result: JobResult) -> Self {
        self.result = result;
        self
    }
}

/// The workflow runs of jobs that name none are numbered from here on.
const FIRST_RUN: i64 = 7_000_000;

fn default_name() -> String {
    "build".to_owned()
}

fn default_result() -> JobResult {
    JobResult::Succeeded
}

/// A job as GitHub keeps it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// Its number here.
    pub id: JobId,
    /// The `jobId` of its messages.
    pub uuid: String,
    /// `owner/name`.
    pub repository: String,
    /// The workflow run that it is a job of.
    pub run: i64,
    /// It is of an attempt of its run that another followed.
    pub superseded: bool,
    /// What its `runs-on` names.
    pub labels: Vec<String>,
    /// What people see.
    pub name: String,
    /// Where it stands.
    pub status: JobStatus,
    /// The scale set that it was offered or assigned to.
    pub scale_set: Option<ScaleSetId>,
    /// How often it was assigned.
    pub attempts: u32,
    /// The runner that has or had it.
    pub runner: Option<RunnerRef>,
    /// How it ended; of an assignment given up: canceled, until the next one.
    pub result: Option<JobResult>,
    /// Somebody canceled it while it ran.
    pub cancel_requested: bool,
    /// How long a runner works on it, in milliseconds. None: until told.
    pub duration_ms: Option<u64>,
    /// The exit code of the runner's process.
    pub exit_code: i32,
    /// How it ends when its time is up.
    pub planned_result: JobResult,
    /// When it was queued.
    pub queued_at: Timestamp,
    /// When it was last assigned to a scale set.
    pub assigned_at: Option<Timestamp>,
    /// When a runner took it.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

impl Job {
    /// The same job, to be queued once more.
    fn again(&self) -> JobSpec {
        JobSpec {
            repository: self.repository.clone(),
            labels: self.labels.clone(),
            name: self.name.clone(),
            duration_ms: self.duration_ms,
            exit_code: self.exit_code,
            result: self.planned_result,
            run: Some(self.run),
        }
    }
}

/// Why a workflow run is not run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::github) enum RerunRefusal {
    /// The repository has no such run.
    NoSuchRun,
    /// A job of it is not over.
    Running,
    /// All of its jobs succeeded.
    NothingFailed,
}

/// A runner, named by a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunnerRef {
    /// Its number.
    pub id: RunnerId,
    /// Its name.
    pub name: String,
}

/// Into the queue and to a scale set.
impl State {
    pub(in crate::github) fn queue_job(&mut self, spec: JobSpec) -> JobId {
        let id = self.next_id();
        let job = Job {
            id,
            uuid: Uuid::new_v4().to_string(),
            repository: spec.repository,
            run: spec.run.unwrap_or(FIRST_RUN + id),
            superseded: false,
            labels: spec.labels,
            name: spec.name,
            status: JobStatus::Queued,
            scale_set: None,
            attempts: 0,
            runner: None,
            result: None,
            cancel_requested: false,
            duration_ms: spec.duration_ms,
            exit_code: spec.exit_code,
            planned_result: spec.result,
            queued_at: Timestamp::now(),
            assigned_at: None,
            started_at: None,
            finished_at: None,
        };
        self.jobs.insert(id, job);
        self.offer(id);
        self.touch();
        id
    }

    /// Runs the jobs of a workflow run again that did not succeed, as new jobs: the next attempt of the run.
    pub(in crate::github) fn rerun_failed_jobs(
        &mut self,
        repository: &str,
        run: i64,
    ) -> Result<(), RerunRefusal> {
        let of_run =
            |job: &&Job| job.run == run && !job.superseded && job.repository.eq_ignore_ascii_case(repository);
        let jobs: Vec<&Job> = self.jobs.values().filter(of_run).collect();
        if jobs.is_empty() {
            return Err(RerunRefusal::NoSuchRun);
        }
        if jobs.iter().any(|job| job.status != JobStatus::Completed) {
            return Err(RerunRefusal::Running);
        }
        let failed = jobs.iter().filter(|job| job.result != Some(JobResult::Succeeded));
        let failed: Vec<(JobId, JobSpec)> = failed.map(|job| (job.id, job.again())).collect();
        if failed.is_empty() {
            return Err(RerunRefusal::NothingFailed);
        }
        for (id, spec) in failed {
            if let Some(job) = self.jobs.get_mut(&id) {
                job.superseded = true;
            }
            self.queue_job(spec);
        }
        Ok(())
    }

    /// Hands a queued job to the scale set that matches, or keeps it until one does.
    fn offer(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        let set = self.matching_set(&job.repository, &job.labels);
        if let Some(job) = self.jobs.get_mut(&id) {
            job.scale_set = set;
        }
        match self.set_mut(set) {
            Some(set) => {
                set.waiting.push_back(id);
                set.touch();
                if self.config.model == Model::Ghes {
                    self.emit(Kind::Available, id);
                }
            }
            None => self.unmatched.push_back(id),
        }
    }

    pub(super) fn offer_unmatched(&mut self) {
        for job in std::mem::take(&mut self.unmatched) {
            self.offer(job);
        }
    }

    /// Takes a job back from a scale set that is gone.
    pub(super) fn release(&mut self, id: JobId) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.status = JobStatus::Queued;
            job.scale_set = None;
            job.assigned_at = None;
            self.offer(id);
        }
    }

    /// The broker's gate: assigned jobs, waiting and running, never exceed the capacity.
    pub(in crate::github) fn assign_up_to(&mut self, set: ScaleSetId, capacity: usize) {
        while let Some(set) = self.set_mut(Some(set))
            && set.assigned.len() + set.running.len() < capacity
            && let Some(job) = set.waiting.pop_front()
        {
            self.assign(job);
        }
    }

    /// GHES: the client acquires what it was offered. Gives the ids that it got; one acquired before counts as got.
    pub(in crate::github) fn acquire(&mut self, set: ScaleSetId, ids: &[JobId]) -> Vec<JobId> {
        let mut granted = Vec::new();
        for id in ids {
            let Some(found) = self.set_mut(Some(set)) else {
                break;
            };
            if let Some(at) = found.waiting.iter().position(|job| job == id) {
                found.waiting.remove(at);
                self.assign(*id);
                granted.push(*id);
            } else if found.assigned.contains(id) || found.running.contains(id) {
                granted.push(*id);
            }
        }
        granted
    }

    fn assign(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.status = JobStatus::Assigned;
        job.result = None;
        job.finished_at = None;
        job.assigned_at = Some(Timestamp::now());
        job.attempts += 1;
        let (set, attempt) = (job.scale_set, job.attempts);
        let set = self.set_mut(set).map(|set| {
            set.assigned.push_back(id);
            set.id
        });
        self.emit(Kind::Assigned, id);
        self.schedule(Instant::now() + self.config.unclaimed_after, Timer::Unclaimed { job: id, attempt });
        if let Some(set) = set {
            self.wake_idle_runners(set);
        }
        self.touch();
    }

    /// No runner came in time: canceled, and queued again until the attempts are used up.
    pub(super) fn give_up_assignment(&mut self, id: JobId, attempt: u32) {
        let last = self.config.attempts;
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if job.status != JobStatus::Assigned || job.attempts != attempt {
            return;
        }
        job.result = Some(JobResult::Canceled);
        job.finished_at = Some(Timestamp::now());
        let set = job.scale_set;
        let again = attempt < last;
        job.status = if again { JobStatus::Queued } else { JobStatus::Completed };
        if let Some(set) = self.set_mut(set) {
            set.assigned.retain(|job| *job != id);
        }
        self.emit(Kind::Completed, id);
        if again {
            self.offer(id);
        }
        self.touch();
    }
}

/// On a runner and to its end.
impl State {
    /// The next job that this runner may take.
    pub(super) fn assigned_job(&self, set: ScaleSetId) -> Option<JobId> {
        self.set(Some(set))?.assigned.front().copied()
    }

    /// The runner takes the job.
    pub(super) fn begin(&mut self, id: JobId, runner: RunnerRef) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.status = JobStatus::Running;
        job.started_at = Some(Timestamp::now());
        job.runner = Some(runner.clone());
        let set = job.scale_set;
        if let Some(set) = self.set_mut(set) {
            set.assigned.retain(|job| *job != id);
            set.running.insert(id);
        }
        if let Some(runner) = self.runners.get_mut(&runner.id) {
            runner.job = Some(id);
            runner.touch();
        }
        self.emit(Kind::Started, id);
        self.touch();
    }

    /// For tests: the job starts on a registered runner, connected or not.
    pub(in crate::github) fn start_job(&mut self, id: JobId, runner: &str) -> Result<(), ControlError> {
        let job = self.jobs.get(&id).ok_or(ControlError::NoSuchJob(id))?;
        let found = self.runner(runner).ok_or_else(|| ControlError::NoSuchRunner(runner.to_owned()))?;
        if job.status != JobStatus::Assigned || job.scale_set != Some(found.scale_set) || found.job.is_some()
        {
            let message = format!("job {id} is {:?}, runner {runner:?} has job {:?}", job.status, found.job);
            return Err(ControlError::WrongState(message));
        }
        let runner = found.reference();
        self.begin(id, runner);
        Ok(())
    }

    /// The job is over, and with it the ephemeral runner that had it.
    pub(in crate::github) fn finish_job(&mut self, id: JobId, result: JobResult) -> Result<(), ControlError> {
        let job = self.jobs.get_mut(&id).ok_or(ControlError::NoSuchJob(id))?;
        if job.status != JobStatus::Running {
            return Err(ControlError::WrongState(format!("job {id} is {:?}, not running", job.status)));
        }
        let runner = job.runner.as_ref().map(|r| r.id);
        self.complete(id, result);
        if let Some(runner) = runner {
            self.retire_runner(runner);
        }
        Ok(())
    }

    /// Cancels a job wherever it stands; a running one ends when its runner says so, if that is connected.
    pub(in crate::github) fn cancel_job(&mut self, id: JobId) -> Result<(), ControlError> {
        let job = self.jobs.get_mut(&id).ok_or(ControlError::NoSuchJob(id))?;
        let runner = job.runner.as_ref().map(|r| r.id);
        match job.status {
            JobStatus::Completed => {
                return Err(ControlError::WrongState(format!("job {id} is over already")));
            }
            JobStatus::Running => {
                job.cancel_requested = true;
                match runner.and_then(|id| self.runners.get(&id)).filter(|r| r.connected) {
                    Some(runner) => runner.touch(),
                    None => self.finish_job(id, JobResult::Canceled)?,
                }
            }
            JobStatus::Queued | JobStatus::Assigned => self.complete(id, JobResult::Canceled),
        }
        self.touch();
        Ok(())
    }

    fn complete(&mut self, id: JobId, result: JobResult) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let announced = job.status != JobStatus::Queued || self.config.model == Model::Ghes;
        job.status = JobStatus::Completed;
        job.result = Some(result);
        job.finished_at = Some(Timestamp::now());
        let set = job.scale_set;
        self.unmatched.retain(|job| *job != id);
        if let Some(set) = self.set_mut(set) {
            set.waiting.retain(|job| *job != id);
            set.assigned.retain(|job| *job != id);
            set.running.remove(&id);
            set.touch();
        }
        if announced {
            self.emit(Kind::Completed, id);
        }
        self.touch();
    }
}
