//! The seam: one trait, its types and its errors. The client meets it over HTTP.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::runner::{JitConfiguration, JobEvent, Statistics};

/// What the scale-set service can be asked. Every method ends within a deadline of its own, tries included.
#[async_trait]
pub trait ScaleSetService: Send + Sync {
    /// Answers what GitHub holds. With `own`, the id of a scale set whose session the caller has open: name, group and
    /// labels of that one are changed in place where they differ. Without, or when that one is gone: the scale set of the
    /// wanted name in its group is left as it is, and created if there is none.
    async fn ensure_scale_set(&self, wanted: &WantedScaleSet, own: Option<i64>) -> Result<ScaleSet, Error>;

    /// The scale set of that id, if it exists.
    async fn find_scale_set(&self, id: i64) -> Result<Option<ScaleSet>, Error>;

    /// Deletes a scale set; one that is gone already is a success.
    async fn delete_scale_set(&self, id: i64) -> Result<(), Error>;

    /// Opens the message session, first deleting the one that `left_behind` names, if any.
    async fn open_session(
        &self,
        scale_set_id: i64,
        owner: &str,
        left_behind: Option<&str>,
    ) -> Result<Session, Error>;

    /// Gives the session a new token, and reads its statistics.
    async fn refresh(&self, session: &Session) -> Result<Session, Error>;

    /// Waits for the next message after `last_message_id`; `None` after a quiet poll.
    /// `capacity` is how many jobs the set can have in hand.
    async fn poll(
        &self,
        session: &Session,
        last_message_id: i64,
        capacity: u32,
    ) -> Result<Option<Message>, Error>;

    /// Deletes a message that was recorded; one that is gone already is a success.
    async fn acknowledge(&self, session: &Session, message_id: i64) -> Result<(), Error>;

    /// Acquires offered jobs; answers the request ids that were granted.
    async fn acquire(&self, session: &Session, request_ids: &[i64]) -> Result<Vec<i64>, Error>;

    /// The jobs that are offered now.
    async fn acquirable(&self, scale_set_id: i64) -> Result<Vec<AcquirableJob>, Error>;

    /// Registers an ephemeral runner and answers the configuration that it starts with. A name that is taken by a
    /// stale runner of the same scale set is freed first.
    async fn mint_jit(&self, scale_set_id: i64, runner_name: &str) -> Result<JitRunner, Error>;

    /// The registration of that name, if there is one.
    async fn find_runner(&self, name: &str) -> Result<Option<RunnerReference>, Error>;

    /// All runners that the credential may see, of whatever scale set. It counts against the rate limit: ask seldom.
    async fn list_runners(&self) -> Result<Vec<ListedRunner>, Error>;

    /// Removes a registration; one that is gone already is a success. [`Error::RunnerBusy`] when it has a job.
    async fn remove_runner(&self, id: i64) -> Result<(), Error>;

    /// Has GitHub run the jobs of a workflow run again that did not succeed, as its next attempt. `repository` is
    /// `owner/repository`. It counts against the rate limit. [`Error::NoRerun`] where the run goes on.
    async fn rerun_failed_jobs(&self, repository: &str, run_id: i64) -> Result<(), Error>;

    /// Closes the session; one that is gone already is a success.
    async fn close(&self, session: &Session) -> Result<(), Error>;

    /// For how long GitHub wants to be left alone by everyone who uses this credential; none when it does not. Until then
    /// every call but those of an open session's queue is answered [`Error::RateLimited`] without asking GitHub. No IO.
    fn limited_for(&self) -> Option<Duration>;
}

/// What a scale set should be at GitHub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedScaleSet {
    /// Its name, which `runs-on:` names.
    pub name: String,
    /// The runner group's name.
    pub runner_group: String,
    /// All its labels, the name first.
    pub labels: Vec<String>,
}

/// A scale set as GitHub holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScaleSet {
    /// GitHub's id of it.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// The labels that GitHub accepted.
    pub labels: Vec<String>,
    /// Whether this very call created it; one that was there before may be another's.
    pub created: bool,
}

/// An open message session.
#[derive(Clone)]
pub struct Session {
    /// The session's id, a UUID.
    pub id: String,
    /// The scale set that it belongs to.
    pub scale_set_id: i64,
    /// Who opened it.
    pub owner: String,
    /// Where its messages are.
    pub queue_url: String,
    /// What opens the queue. A secret.
    pub queue_token: String,
    /// The statistics that came with it.
    pub statistics: Option<Statistics>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("id", &self.id).field("owner", &self.owner).finish_non_exhaustive()
    }
}

/// One message of the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What the acknowledgement names.
    pub id: i64,
    /// GitHub's counts at that moment.
    pub statistics: Option<Statistics>,
    /// What happened to jobs, in the order given.
    pub events: Vec<JobEvent>,
    /// Entries that could not be read: logged and counted by the client, and passed over.
    pub unreadable: usize,
}

/// A job that may be acquired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcquirableJob {
    /// What `acquire` is called with.
    pub request_id: i64,
    /// `owner/repository`.
    pub repository: String,
}

/// A freshly registered runner.
#[derive(Debug)]
pub struct JitRunner {
    /// GitHub's id of the registration.
    pub id: i64,
    /// What the runner starts with.
    pub configuration: JitConfiguration,
}

/// A registration, as the service shows it. It does not tell whether the runner is busy: only removal does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunnerReference {
    /// GitHub's id of the registration.
    pub id: i64,
    /// The runner's name.
    pub name: String,
    /// The scale set that it belongs to.
    pub scale_set_id: i64,
}

/// A registration, as GitHub's public API lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedRunner {
    /// GitHub's id of the registration.
    pub id: i64,
    /// The runner's name.
    pub name: String,
    /// Whether its process is connected.
    pub online: bool,
    /// Whether it has a job. GitHub is known to say no of a busy one, so that alone proves nothing.
    pub busy: bool,
}

/// What went wrong, by what a caller can do about it. No variant carries a credential.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// GitHub does not accept the credential: change the Secret.
    #[error("GitHub rejected the credential: {0}")]
    AuthRejected(String),
    /// The credential is good and lacks a right: grant it.
    #[error("GitHub forbids it: {0}")]
    Forbidden(String),
    /// There is no runner group of that name: create it or name another.
    #[error("runner group `{0}` does not exist or is not visible to this credential")]
    GroupNotFound(String),
    /// Another scale set of the group has the name.
    #[error("the scale set name is taken: {0}")]
    NameTaken(String),
    /// The scale set does not exist: register it again.
    #[error("the scale set is gone from GitHub")]
    ScaleSetGone,
    /// The queue's token has expired: refresh the session.
    #[error("the message queue's token has expired")]
    TokenExpired,
    /// The session is no longer valid: open a new one.
    #[error("the message session is lost: {0}")]
    SessionLost(String),
    /// Another session is open: wait until it lapses.
    #[error("another message session is open{}", .owner.as_ref().map(|o| format!(", owned by `{o}`")).unwrap_or_default())]
    SessionConflict {
        /// Who owns it, where GitHub says so.
        owner: Option<String>,
    },
    /// A runner of that name exists and is not ours to free: take another name.
    #[error("a runner of that name exists")]
    RunnerExists,
    /// There is no such runner.
    #[error("the runner is not registered")]
    RunnerGone,
    /// A job runs on it: leave it alone. Answered for a scale set, too, that cannot be deleted for its jobs.
    #[error("a job is still running")]
    RunnerBusy,
    /// The workflow run is not run again: it goes on, mostly, and may be later. GitHub words this in several ways, and one of
    /// them is also that of a run which can never be.
    #[error("GitHub does not run it again: {0}")]
    NoRerun(String),
    /// Too many requests, or a service that says when to come again: ask after the delay.
    #[error("GitHub limits the rate: retry after {} s", .retry_after.as_secs())]
    RateLimited {
        /// How long GitHub wants to be left alone.
        retry_after: Duration,
    },
    /// It may work in a moment: a network fault, a server error, a deadline.
    #[error("GitHub cannot be reached: {0}")]
    Transient(String),
    /// The answer made no sense.
    #[error("GitHub's answer could not be read: {0}")]
    BadReply(String),
    /// What we were told to use cannot work: URL, key, proxy or CA bundle.
    #[error("{0}")]
    Config(String),
}

/// A rate limit is waited out, but never for longer than this without another look.
const LONGEST_RATE_LIMIT: Duration = Duration::from_secs(15 * 60);

impl Error {
    /// For how long GitHub is to be left alone: not at all, unless it limits the rate.
    pub fn retry_after(&self) -> Duration {
        match self {
            Error::RateLimited { retry_after } => (*retry_after).min(LONGEST_RATE_LIMIT),
            _ => Duration::ZERO,
        }
    }
}
