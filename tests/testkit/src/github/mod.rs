//! A simulated GitHub that speaks the scale-set service's wire protocol over plain HTTP.
//!
//! ```no_run
//! # async fn f() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use testkit::github::{DEFAULT_TOKEN, JobSpec, JobStatus, SimGithub};
//!
//! let github = SimGithub::builder().long_poll(Duration::from_secs(2)).start().await?;
//! // The client under test gets github.config_url("acme") and DEFAULT_TOKEN.
//! let job = github.queue_job(JobSpec::new("acme/app", ["linux"]).lasting(Duration::from_secs(1)));
//! github.wait_until(Duration::from_secs(30), |s| s.jobs_in(JobStatus::Completed) == 1).await?;
//! # Ok(()) }
//! ```
//!
//! What it does follows what is known of github.com ([`Model::Broker`]) and GitHub Enterprise Server ([`Model::Ghes`]):
//! what was not acknowledged is delivered again to the next session, a runner is offline until its process connects, an
//! assignment that no runner claims is canceled and made again. Anything that can go wrong goes wrong on request: see
//! [`Fault`].

mod auth;
mod builder;
mod control;
mod fault;
mod jit;
mod requests;
mod rest;
mod route;
mod runner;
mod server;
mod service;
mod state;
mod wire;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use auth::{KeyError, app_private_key};
pub use builder::{DEFAULT_TOKEN, Model, SimGithubBuilder, StartError};
pub use fault::{Effect, Fault};
pub use jit::JitError;
pub use requests::{Request, RequestLog};
pub use route::{Endpoint, Scope};
pub use runner::{Gone, SimRunner};
pub use state::{
    ControlError, Hold, Job, JobId, JobResult, JobSpec, JobStatus, Order, Runner, RunnerGroup, RunnerId,
    RunnerRef, ScaleSet, ScaleSetId, Session, State, Statistics,
};
pub use wire::{Label, RunnerSetting};

use builder::Config;
use server::Call;
use wire::{Refusal, ScaleSetBody};

/// A handle on a simulated GitHub. Clones share it; it stops when the last one is dropped.
#[derive(Clone)]
pub struct SimGithub {
    inner: Arc<Inner>,
    _stop: Arc<DropGuard>,
}

impl std::fmt::Debug for SimGithub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SimGithub").field(&self.inner.public_url).finish()
    }
}

/// What the server's tasks share.
struct Inner {
    config: Config,
    address: SocketAddr,
    public_url: String,
    runner_url: String,
    state: Mutex<State>,
    alarm: Arc<Notify>,
    stop: CancellationToken,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a runner and makes its JIT configuration.
    fn mint_jit(
        &self,
        state: &mut State,
        scope: &Scope,
        set: ScaleSetId,
        name: &str,
        work_folder: &str,
    ) -> Result<(RunnerId, String), Refusal> {
        let (id, secret) = state.register_runner(scope, set, name)?;
        let encoded = jit::encode(&jit::Contents {
            runner: state.runner_of(scope, id)?,
            secret: &secret,
            scope,
            work_folder,
            public_url: &self.public_url,
            runner_url: &self.runner_url,
            small: self.config.small_jit,
        });
        Ok((id, encoded))
    }

    /// The fault that strikes this call now, if any.
    fn take_fault(&self, call: &Call, filter: fn(&Effect) -> bool) -> Option<Effect> {
        let mut state = self.lock();
        if state.faults.is_empty() {
            return None;
        }
        let set = call.route.scale_set().and_then(|id| state.scale_set_by_id(id)).map(|set| set.name.clone());
        fault::take(&mut state.faults, call.endpoint, set.as_deref(), filter)
    }
}

/// Lets time pass: does what comes due in the state.
async fn keep_time(inner: Arc<Inner>) {
    loop {
        let next = inner.lock().next_deadline();
        let due = async {
            match next {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => inner.lock().fire(Instant::now()),
            () = inner.alarm.notified() => {}
            () = inner.stop.cancelled() => return,
        }
    }
}

/// A wait whose time ran out, with the state as it then was.
#[derive(thiserror::Error)]
#[error("not so after {waited:?}; GitHub's state:\n{state}")]
pub struct TimedOut {
    waited: Duration,
    state: String,
}

/// The same as its message, so that `unwrap` in a test shows the state.
impl std::fmt::Debug for TimedOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// Starting, addresses, looking, waiting.
impl SimGithub {
    /// A builder with the defaults of github.com.
    pub fn builder() -> SimGithubBuilder {
        SimGithubBuilder::new()
    }

    async fn start(config: Config) -> Result<Self, StartError> {
        let address = config.bind;
        let failed = |source| StartError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let public_url = config.public_url.clone().unwrap_or_else(|| format!("http://{address}"));
        let runner_url = config.runner_url.clone().unwrap_or_else(|| public_url.clone());
        let alarm = Arc::new(Notify::new());
        let stop = CancellationToken::new();
        let inner = Arc::new(Inner {
            state: Mutex::new(State::new(config.clone(), public_url.clone(), Arc::clone(&alarm))),
            config,
            address,
            public_url,
            runner_url,
            alarm,
            stop: stop.clone(),
        });
        tokio::spawn(keep_time(Arc::clone(&inner)));
        let router = Router::new().fallback(server::handle).with_state(Arc::clone(&inner));
        let stopped = stop.clone().cancelled_owned();
        tokio::spawn(async move { axum::serve(listener, router).with_graceful_shutdown(stopped).await });
        Ok(Self { inner, _stop: Arc::new(stop.drop_guard()) })
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.inner.address
    }

    /// The base of every URL that it hands out.
    pub fn url(&self) -> &str {
        &self.inner.public_url
    }

    /// A configuration URL: `path` is `org`, `owner/repository` or `enterprises/name`.
    pub fn config_url(&self, path: &str) -> String {
        format!("{}/{path}", self.url())
    }

    /// Looks at the state. The simulation stands still meanwhile.
    pub fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.inner.lock())
    }

    /// The true statistics of a scale set.
    ///
    /// # Errors
    ///
    /// When there is no such scale set.
    pub fn statistics(&self, scale_set: &str) -> Result<Statistics, ControlError> {
        let statistics = self.look(|s| s.statistics(scale_set));
        statistics.ok_or_else(|| ControlError::NoSuchScaleSet(scale_set.to_owned()))
    }

    /// The requests to one endpoint so far.
    pub fn requests(&self, endpoint: Endpoint) -> Vec<Request> {
        self.look(|s| s.requests().to(endpoint).cloned().collect())
    }

    /// Forgets the requests so far.
    pub fn clear_requests(&self) {
        self.inner.lock().requests.clear();
    }

    /// Waits until the state is so. It looks again on each change, and only then.
    ///
    /// # Errors
    ///
    /// When it is not so within `timeout`.
    pub async fn wait_until(
        &self,
        timeout: Duration,
        mut so: impl FnMut(&State) -> bool,
    ) -> Result<(), TimedOut> {
        self.wait_for(timeout, |state| so(state).then_some(())).await
    }

    /// Waits until `find` finds something.
    ///
    /// # Errors
    ///
    /// When it finds nothing within `timeout`.
    pub async fn wait_for<T>(
        &self,
        timeout: Duration,
        mut find: impl FnMut(&State) -> Option<T>,
    ) -> Result<T, TimedOut> {
        let deadline = Instant::now() + timeout;
        let mut changes = self.inner.lock().changes();
        loop {
            changes.borrow_and_update();
            if let Some(found) = self.look(&mut find) {
                return Ok(found);
            }
            if timeout_at(deadline, changes.changed()).await.is_err() {
                return Err(TimedOut { waited: timeout, state: self.look(State::to_string) });
            }
        }
    }
}

/// Jobs and runners.
impl SimGithub {
    /// Queues a job. It goes to the oldest scale set that covers its repository and has its labels, now or once there
    /// is one.
    pub fn queue_job(&self, job: JobSpec) -> JobId {
        self.inner.lock().queue_job(job)
    }

    /// Queues the same job several times.
    pub fn queue_jobs(&self, count: usize, job: &JobSpec) -> Vec<JobId> {
        let mut state = self.inner.lock();
        (0..count).map(|_| state.queue_job(job.clone())).collect()
    }

    /// Starts an assigned job on a registered runner of its scale set, connected or not.
    ///
    /// # Errors
    ///
    /// When either is missing or in another state.
    pub fn start_job(&self, job: JobId, runner: &str) -> Result<(), ControlError> {
        self.inner.lock().start_job(job, runner)
    }

    /// Ends a running job. Its runner, if connected, is told.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn finish_job(&self, job: JobId, result: JobResult) -> Result<(), ControlError> {
        self.inner.lock().finish_job(job, result)
    }

    /// Cancels a job wherever it stands. A running one ends when its connected runner reports so.
    ///
    /// # Errors
    ///
    /// When it is over.
    pub fn cancel_job(&self, job: JobId) -> Result<(), ControlError> {
        self.inner.lock().cancel_job(job)
    }

    /// Connects a runner that lives in the test.
    ///
    /// # Errors
    ///
    /// When `jit` is no JIT configuration, or its registration is gone ([`Gone`]).
    pub fn connect_runner(&self, jit: &str) -> Result<SimRunner, ConnectError> {
        let secret = jit::secret(jit)?;
        Ok(SimRunner::connect(&self.inner, &secret)?)
    }

    /// Removes a runner's registration as GitHub does on its own, of an idle runner or a lost one. A job that it has
    /// fails.
    ///
    /// # Errors
    ///
    /// When there is no such runner.
    pub fn remove_runner(&self, name: &str) -> Result<(), ControlError> {
        let mut state = self.inner.lock();
        let id = state.runner(name).map(|r| r.id);
        state.forget_runner(id.ok_or_else(|| ControlError::NoSuchRunner(name.to_owned()))?);
        Ok(())
    }
}

/// What a client of the service does, done by hand: for tests of runners that have no such client.
impl SimGithub {
    /// Creates a scale set in runner group 1. `path` is that of a configuration URL; the name is the only label.
    ///
    /// # Errors
    ///
    /// When `path` is none, or the name is taken.
    pub fn create_scale_set(&self, path: &str, name: &str) -> Result<ScaleSetId, ControlError> {
        let scope =
            Scope::from_path(path).ok_or_else(|| ControlError::WrongState(format!("no scope: {path}")))?;
        let body = ScaleSetBody { name: Some(name.to_owned()), ..ScaleSetBody::default() };
        self.inner.lock().create_scale_set(&scope, body).map_err(refused)
    }

    /// Registers a runner; gives its JIT configuration.
    ///
    /// # Errors
    ///
    /// When there is no such scale set, or the name is taken.
    pub fn mint_jit(&self, scale_set: &str, runner: &str) -> Result<String, ControlError> {
        let mut state = self.inner.lock();
        let (scope, id) = find_scale_set(&state, scale_set)?;
        let minted = self.inner.mint_jit(&mut state, &scope, id, runner, "_work");
        minted.map(|(_, encoded)| encoded).map_err(refused)
    }

    /// Assigns waiting jobs to the scale set as one poll with this capacity would.
    ///
    /// # Errors
    ///
    /// When there is no such scale set.
    pub fn assign_jobs(&self, scale_set: &str, capacity: usize) -> Result<(), ControlError> {
        let mut state = self.inner.lock();
        let (_, id) = find_scale_set(&state, scale_set)?;
        state.assign_up_to(id, capacity);
        Ok(())
    }
}

fn find_scale_set(state: &State, name: &str) -> Result<(Scope, ScaleSetId), ControlError> {
    let found = state.scale_set(name).map(|set| (set.scope.clone(), set.id));
    found.ok_or_else(|| ControlError::NoSuchScaleSet(name.to_owned()))
}

fn refused(refusal: Refusal) -> ControlError {
    ControlError::WrongState(refusal.message)
}

/// Why a runner did not connect.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The text is no JIT configuration.
    #[error(transparent)]
    Jit(#[from] JitError),
    /// The registration is gone.
    #[error(transparent)]
    Gone(#[from] Gone),
}

/// Faults, expiry and misbehaviour.
impl SimGithub {
    /// Injects a fault. Faults of one endpoint strike in the order of injection.
    pub fn inject(&self, fault: Fault) {
        let mut state = self.inner.lock();
        state.faults.push(fault);
        for set in state.scale_sets() {
            set.touch();
        }
    }

    /// Clears every fault.
    pub fn clear_faults(&self) {
        self.inner.lock().faults.clear();
    }

    /// Clears the faults of one endpoint.
    pub fn clear_faults_at(&self, endpoint: Endpoint) {
        self.inner.lock().faults.retain(|fault| fault.endpoint != endpoint);
    }

    /// From now on every connection of a client of GitHub closes at once, held polls included, until
    /// [`SimGithub::clear_faults`]. Runners keep theirs.
    pub fn go_down(&self) {
        self.inject(Fault::new(Endpoint::Any, Effect::Refuse));
    }

    /// Adds a runner group, as an administrator does at last.
    pub fn add_runner_group(&self, name: &str) {
        self.inner.lock().add_group(name);
    }

    /// From now on these personal access tokens are accepted, and no other.
    pub fn replace_tokens<S: Into<String>>(&self, tokens: impl IntoIterator<Item = S>) {
        self.inner.lock().tokens.replace_personal(tokens.into_iter().map(Into::into).collect());
    }

    /// Gives all credentials the right `actions: write`, which they have from the beginning, or takes it from them.
    pub fn permit_actions(&self, permitted: bool) {
        self.inner.lock().tokens.permit_actions(permitted);
    }

    /// Voids every installation token that is out.
    pub fn expire_installation_tokens(&self) {
        self.inner.lock().tokens.expire_installation();
    }

    /// Voids every admin token that is out.
    pub fn expire_admin_tokens(&self) {
        self.inner.lock().tokens.expire_admin();
    }

    /// Voids the queue token: 401 for the held poll and the next ones, until the session is refreshed.
    ///
    /// # Errors
    ///
    /// When there is no such scale set or it has no session.
    pub fn expire_queue_token(&self, scale_set: &str) -> Result<(), ControlError> {
        self.inner.lock().expire_queue_token(scale_set)
    }

    /// Lets the session lapse: polls and refreshes are answered 400 `RunnerScaleSetSessionExpiredException`, and another
    /// session may be opened.
    ///
    /// # Errors
    ///
    /// When there is no such scale set or it has no session.
    pub fn expire_session(&self, scale_set: &str) -> Result<(), ControlError> {
        self.inner.lock().expire_session(scale_set)
    }

    /// Drops the session without a trace: polls are answered 404.
    ///
    /// # Errors
    ///
    /// When there is no such scale set or it has no session.
    pub fn drop_session(&self, scale_set: &str) -> Result<(), ControlError> {
        self.inner.lock().drop_session(scale_set)
    }

    /// Opens a session on behalf of somebody else, who then stands in everyone's way; gives its id. `expire_session` or
    /// `drop_session` ends it.
    ///
    /// # Errors
    ///
    /// When there is no such scale set, or it has a session.
    pub fn occupy_session(&self, scale_set: &str, owner: &str) -> Result<String, ControlError> {
        let mut state = self.inner.lock();
        let found = state.scale_set(scale_set).map(|set| (set.scope.clone(), set.id));
        let (scope, id) = found.ok_or_else(|| ControlError::NoSuchScaleSet(scale_set.to_owned()))?;
        state.open_session(&scope, id, owner).map_err(|refusal| ControlError::WrongState(refusal.message))?;
        let session = state.scale_set_by_id(id).and_then(|set| set.session.as_ref());
        session.map(|s| s.id.clone()).ok_or_else(|| ControlError::NoSession(scale_set.to_owned()))
    }

    /// Takes a scale set away, with its session, queue and idle runners, as an outage does.
    ///
    /// # Errors
    ///
    /// When there is no such scale set.
    pub fn vanish_scale_set(&self, scale_set: &str) -> Result<(), ControlError> {
        self.inner.lock().vanish_scale_set(scale_set)
    }

    /// Makes the statistics all zeros the next so many times that they are sent.
    ///
    /// # Errors
    ///
    /// When there is no such scale set.
    pub fn zero_statistics(&self, scale_set: &str, times: u32) -> Result<(), ControlError> {
        self.inner.lock().zero_statistics(scale_set, times)
    }

    /// Sends the entries of the latest batch once more, under a new message id.
    ///
    /// # Errors
    ///
    /// When there is no such scale set.
    pub fn repeat_last_batch(&self, scale_set: &str) -> Result<(), ControlError> {
        self.inner.lock().repeat_last_batch(scale_set)
    }

    /// Turns the order of the next batch round.
    ///
    /// # Errors
    ///
    /// When there is no such scale set.
    pub fn reverse_next_batch(&self, scale_set: &str) -> Result<(), ControlError> {
        self.inner.lock().reverse_next_batch(scale_set)
    }

    /// From now on a batch holds at most so many job messages; GitHub's own limit is 50.
    ///
    /// # Errors
    ///
    /// When there is no such scale set.
    pub fn limit_batch(&self, scale_set: &str, most: usize) -> Result<(), ControlError> {
        self.inner.lock().limit_batch(scale_set, most)
    }
}
