//! What GitHub says of jobs: how many there are, and what became of each.

use jiff::Timestamp;

/// GitHub's own count of a scale set, as one reading gave it. It comes with every session and every message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Offered and not acquired.
    pub available: u32,
    /// Acquired and not assigned yet.
    pub acquired: u32,
    /// Assigned to the set, waiting or running: the demand.
    pub assigned: u32,
    /// Running.
    pub running: u32,
    /// Runners registered.
    pub registered_runners: u32,
    /// Runners with a job.
    pub busy_runners: u32,
    /// Runners without one.
    pub idle_runners: u32,
}

/// A job, as far as GitHub describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Job {
    /// GitHub's id of the job, a UUID.
    pub id: String,
    /// `owner/repository`.
    pub repository: String,
    /// The workflow's path and ref.
    pub workflow_ref: String,
    /// The workflow run.
    pub run_id: i64,
    /// Where a person finds that run; none where GitHub does not say which it is.
    pub url: Option<String>,
    /// The job's name as GitHub shows it.
    pub display_name: String,
    /// The event that caused the run.
    pub event_name: String,
    /// When it was queued.
    pub queued_at: Option<Timestamp>,
    /// When it was assigned to the scale set.
    pub scale_set_assigned_at: Option<Timestamp>,
    /// When a runner took it.
    pub runner_assigned_at: Option<Timestamp>,
    /// When it was over.
    pub finished_at: Option<Timestamp>,
}

/// One entry of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobEvent {
    /// Offered: the set may acquire it (the older assignment model).
    Available {
        /// The job.
        job: Job,
        /// What `acquire` is called with.
        request_id: i64,
    },
    /// Given to the set.
    Assigned {
        /// The job.
        job: Job,
    },
    /// A runner took it.
    Started {
        /// The job.
        job: Job,
        /// The runner that took it.
        runner_name: String,
        /// The runner's id at GitHub.
        runner_id: i64,
    },
    /// It is over.
    Completed {
        /// The job.
        job: Job,
        /// The runner that had it; empty when none did.
        runner_name: String,
        /// How it ended.
        outcome: JobOutcome,
    },
}

/// How a job ended, in GitHub's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobOutcome {
    /// `succeeded`
    Succeeded,
    /// `failed`
    Failed,
    /// `canceled`
    Canceled,
    /// Any other word.
    Other,
}

impl JobEvent {
    /// The job that it speaks of, to be added to.
    pub fn job_mut(&mut self) -> &mut Job {
        match self {
            JobEvent::Available { job, .. }
            | JobEvent::Assigned { job }
            | JobEvent::Started { job, .. }
            | JobEvent::Completed { job, .. } => job,
        }
    }

    /// The job that it speaks of.
    pub fn job(&self) -> &Job {
        match self {
            JobEvent::Available { job, .. }
            | JobEvent::Assigned { job }
            | JobEvent::Started { job, .. }
            | JobEvent::Completed { job, .. } => job,
        }
    }
}
