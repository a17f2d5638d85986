//! Runners: registered by a JIT configuration, offline until they connect, gone after one job.

use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{JobId, JobResult, JobStatus, RunnerRef, ScaleSetId, State, Timer};
use crate::github::auth::random;
use crate::github::route::Scope;
use crate::github::wire::Refusal;

/// A runner's number.
pub type RunnerId = i64;

/// A registered runner.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Runner {
    /// Its number.
    pub id: RunnerId,
    /// Its name, unique in its scope.
    pub name: String,
    /// The scale set that it belongs to.
    pub scale_set: ScaleSetId,
    /// The scope of that set.
    pub scope: Scope,
    /// Its process has connected and is not known to be lost.
    pub connected: bool,
    /// The job that it has; after it, for as long as the registration lingers.
    pub job: Option<JobId>,
    /// When its JIT configuration was made.
    pub created_at: Timestamp,
    /// When its process first connected.
    pub connected_at: Option<Timestamp>,
    #[serde(skip)]
    secret: String,
    /// Connections that are open now.
    #[serde(skip)]
    links: u32,
    /// Counts every connection made or lost, so that an old timer can tell that it is old.
    #[serde(skip)]
    link: u64,
    #[serde(skip)]
    changed: watch::Sender<()>,
}

impl Runner {
    /// `online` or `offline`.
    pub fn status(&self) -> &'static str {
        if self.connected { "online" } else { "offline" }
    }

    pub(super) fn reference(&self) -> RunnerRef {
        RunnerRef { id: self.id, name: self.name.clone() }
    }

    pub(super) fn touch(&self) {
        self.changed.send_replace(());
    }
}

/// What a runner is told to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// The job's number.
    pub id: JobId,
    /// The `jobId` of its messages.
    pub job_id: String,
    /// What people see.
    pub job_name: String,
    /// How long to work, in milliseconds; -1: until told.
    pub duration_ms: i64,
    /// The exit code to end with.
    pub exit_code: i32,
    /// What to report when the time is up.
    pub result: JobResult,
}

/// What a runner with a job learns while it works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Hold {
    /// Work on.
    Running,
    /// Somebody canceled the job.
    Canceled,
    /// GitHub holds the job to be over.
    Finished,
}

/// As clients of the service see runners.
impl State {
    /// Registers a runner; gives its number and the secret for its JIT configuration.
    pub(in crate::github) fn register_runner(
        &mut self,
        scope: &Scope,
        set: ScaleSetId,
        name: &str,
    ) -> Result<(RunnerId, String), Refusal> {
        self.owned(scope, set)?;
        if name.is_empty() {
            return Err(Refusal::bad_request("A runner needs a name."));
        }
        if self.runners.values().any(|r| r.scope == *scope && r.name.eq_ignore_ascii_case(name)) {
            let message = format!("A runner exists with the same name {name}.");
            return Err(Refusal::service(StatusCode::CONFLICT, "TaskAgentExistsException", message));
        }
        let id = self.next_id();
        let secret = random("runner_");
        let runner = Runner {
            id,
            name: name.to_owned(),
            scale_set: set,
            scope: scope.clone(),
            connected: false,
            job: None,
            created_at: Timestamp::now(),
            connected_at: None,
            secret: secret.clone(),
            links: 0,
            link: 0,
            changed: watch::Sender::new(()),
        };
        self.runners.insert(id, runner);
        if let Some(set) = self.set_mut(Some(set)) {
            set.runners.insert(id);
        }
        self.touch();
        Ok((id, secret))
    }

    pub(in crate::github) fn runner_of(&self, scope: &Scope, id: RunnerId) -> Result<&Runner, Refusal> {
        let message = format!("The agent with id {id} does not exist.");
        self.runners
            .get(&id)
            .filter(|r| r.scope == *scope)
            .ok_or_else(|| Refusal::service(StatusCode::NOT_FOUND, "TaskAgentNotFoundException", message))
    }

    /// Removes a runner as a client asks; one that is not there counts as removed, a busy one stays.
    pub(in crate::github) fn remove_runner(&mut self, scope: &Scope, id: RunnerId) -> Result<(), Refusal> {
        let Ok(runner) = self.runner_of(scope, id) else {
            return Ok(());
        };
        if runner.job.is_some() {
            let message = format!("Runner {:?} is still running a job.", runner.name);
            return Err(Refusal::service(
                StatusCode::BAD_REQUEST,
                "TaskAgentJobStillRunningException",
                message,
            ));
        }
        self.forget_runner(id);
        Ok(())
    }

    /// Removes the registration whatever the runner does; a job that it has fails.
    pub(in crate::github) fn forget_runner(&mut self, id: RunnerId) {
        let Some(runner) = self.runners.remove(&id) else {
            return;
        };
        if let Some(set) = self.set_mut(Some(runner.scale_set)) {
            set.runners.remove(&id);
            set.touch();
        }
        if let Some(job) = runner.job {
            // A job that is over already stays as it ended.
            self.finish_job(job, JobResult::Failed).ok();
        }
        self.touch();
    }

    /// After its job: gone at once, or after lingering.
    pub(super) fn retire_runner(&mut self, id: RunnerId) {
        match self.config.linger {
            Some(linger) => {
                if let Some(runner) = self.runners.get(&id) {
                    runner.touch();
                    self.schedule(Instant::now() + linger, Timer::Linger { runner: id });
                }
            }
            None => self.forget_runner(id),
        }
    }

    /// The runner of this link has been silent for too long.
    pub(super) fn lose_runner(&mut self, id: RunnerId, link: u64) {
        let Some(runner) = self.runners.get_mut(&id).filter(|r| r.link == link) else {
            return;
        };
        runner.connected = false;
        match runner.job {
            Some(_) => self.forget_runner(id),
            None => self.touch(),
        }
    }

    pub(super) fn wake_idle_runners(&self, set: ScaleSetId) {
        let runners = self.set(Some(set)).into_iter().flat_map(|set| &set.runners);
        for runner in runners.filter_map(|id| self.runners.get(id)).filter(|r| r.job.is_none()) {
            runner.touch();
        }
    }
}

/// As the runner's own process sees GitHub.
impl State {
    /// Whose secret this is.
    pub(in crate::github) fn runner_by_secret(&self, secret: &str) -> Option<&Runner> {
        self.runners.values().find(|r| r.secret == secret)
    }

    /// Wakes on whatever concerns this runner; none when its registration is gone.
    pub(in crate::github) fn runner_changes(&self, id: RunnerId) -> Option<watch::Receiver<()>> {
        self.runners.get(&id).map(|runner| runner.changed.subscribe())
    }

    /// A connection of the runner opens.
    pub(in crate::github) fn link(&mut self, id: RunnerId) {
        let Some(runner) = self.runners.get_mut(&id) else {
            return;
        };
        runner.links += 1;
        runner.link += 1;
        runner.connected = true;
        runner.connected_at.get_or_insert_with(Timestamp::now);
        let set = runner.scale_set;
        if let Some(set) = self.set(Some(set)) {
            set.touch();
        }
        self.touch();
    }

    /// A connection of the runner is over; silence begins with the last one.
    pub(in crate::github) fn unlink(&mut self, id: RunnerId) {
        let Some(runner) = self.runners.get_mut(&id) else {
            return;
        };
        runner.links = runner.links.saturating_sub(1);
        runner.link += 1;
        let link = runner.link;
        if runner.links == 0 {
            self.schedule(Instant::now() + self.config.silence, Timer::Silent { runner: id, link });
        }
    }

    /// Takes a job for an idle runner, if one is assigned. A runner whose answer was lost gets its job once more.
    pub(in crate::github) fn take_job(&mut self, id: RunnerId) -> Option<Order> {
        let runner = self.runners.get(&id)?;
        let job = match runner.job {
            Some(job) => job,
            None => {
                let job = self.assigned_job(runner.scale_set)?;
                let runner = runner.reference();
                self.begin(job, runner);
                job
            }
        };
        let job = self.jobs.get(&job).filter(|job| job.status == JobStatus::Running)?;
        Some(Order {
            id: job.id,
            job_id: job.uuid.clone(),
            job_name: job.name.clone(),
            duration_ms: job.duration_ms.map_or(-1, |ms| i64::try_from(ms).unwrap_or(i64::MAX)),
            exit_code: job.exit_code,
            result: job.planned_result,
        })
    }

    /// How the job of this runner stands.
    pub(in crate::github) fn hold(&self, id: RunnerId) -> Hold {
        let job = self.runners.get(&id).and_then(|r| r.job).and_then(|job| self.jobs.get(&job));
        match job {
            Some(job) if job.status != JobStatus::Running => Hold::Finished,
            Some(job) if job.cancel_requested => Hold::Canceled,
            Some(_) => Hold::Running,
            None => Hold::Finished,
        }
    }
}
