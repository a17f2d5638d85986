//! A simulated Amazon ECS that speaks the JSON protocol of the AWS SDKs over plain HTTP, with as much of STS as their
//! credential chain needs.
//!
//! ```no_run
//! # async fn f() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use testkit::ecs::{Delays, Operation, SimEcs, Status};
//!
//! let ecs = SimEcs::builder().delays(Delays::each(Duration::from_millis(50))).start().await?;
//! // The client under test gets ecs.url(), DEFAULT_ACCESS_KEY, DEFAULT_SECRET_KEY and the region eu-west-1.
//! ecs.wait_until(Duration::from_secs(30), |s| s.tasks_in(Status::Running) == 1).await?;
//! assert_eq!(ecs.requests(Operation::RunTask).len(), 1);
//! # Ok(()) }
//! ```
//!
//! It is as particular as AWS is known to be: readers are late, lists are paged, requests are limited by token buckets, a
//! task goes through every state in order, StopTask deletes tags, a client token is remembered, bad combinations of
//! parameters are refused. Anything that can go wrong goes wrong on request: see [`Fault`]. With
//! [`SimEcsBuilder::runner`] a task runs a real process.
//!
//! Not simulated: services, task sets, tasks on Managed Instances, ExecuteCommand, task protection, EventBridge, placement
//! constraints and strategies, CreateCapacityProvider, the up to ten minutes in which an INACTIVE task definition still
//! runs; and no signature is verified.

mod auth;
mod builder;
mod clock;
mod clusters;
mod control;
mod definition_rules;
mod definitions;
mod fargate;
mod fault;
mod look;
mod operation;
mod page;
mod process;
mod refusal;
mod requests;
mod rules;
mod run;
mod server;
mod state;
mod sts;
mod tags;
mod throttle;
mod wire;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use auth::Credential;
pub use builder::{SimEcsBuilder, StartError};
pub use fault::{Effect, Fault, reason};
pub use operation::Operation;
pub use requests::{Request, RequestLog};
pub use state::{
    Cluster, ClusterSpec, Container, ControlError, Definition, DefinitionStatus, Definitions, Delays,
    Instance, InstanceSpec, Lag, LaunchType, Provider, ProviderKind, State, Status, StopCode, StrategyItem,
    Tag, Task, TaskId, Times,
};
pub use throttle::Limit;

use builder::Config;
use process::Orders;

/// The access key that a simulated ECS accepts when its builder names no other.
pub const DEFAULT_ACCESS_KEY: &str = "AKIASIMULATED0000000";
/// A secret key to go with it; no signature is verified.
pub const DEFAULT_SECRET_KEY: &str = "simulated/secret/key/0123456789abcdefghi";

/// A handle on a simulated ECS. Clones share it; it stops, and its tasks' processes are killed, when the last one is dropped.
#[derive(Clone)]
pub struct SimEcs {
    inner: Arc<Inner>,
    _stop: Arc<DropGuard>,
}

impl std::fmt::Debug for SimEcs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SimEcs").field(&self.inner.url).finish()
    }
}

/// What the server's tasks share.
struct Inner {
    config: Config,
    url: String,
    state: Mutex<State>,
    alarm: Arc<Notify>,
    stop: CancellationToken,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
            () = due => inner.lock().fire(),
            () = inner.alarm.notified() => {}
            () = inner.stop.cancelled() => return,
        }
    }
}

/// A wait whose time ran out, with the state as it then was.
#[derive(thiserror::Error)]
#[error("not so after {waited:?}; the state of ECS:\n{state}")]
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
impl SimEcs {
    /// A builder with the defaults of AWS.
    pub fn builder() -> SimEcsBuilder {
        SimEcsBuilder::new()
    }

    async fn start(config: Config) -> Result<Self, StartError> {
        let address = config.bind;
        let failed = |source| StartError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let bound: SocketAddr = listener.local_addr().map_err(failed)?;
        let alarm = Arc::new(Notify::new());
        let stop = CancellationToken::new();
        let (orders, received) = Orders::new();
        let inner = Arc::new(Inner {
            state: Mutex::new(State::new(config.clone(), orders, Arc::clone(&alarm))),
            config,
            url: format!("http://{bound}"),
            alarm,
            stop: stop.clone(),
        });
        tokio::spawn(keep_time(Arc::clone(&inner)));
        tokio::spawn(process::supervise(Arc::clone(&inner), received));
        let router = Router::new().fallback(server::handle).with_state(Arc::clone(&inner));
        let stopped = stop.clone().cancelled_owned();
        tokio::spawn(async move { axum::serve(listener, router).with_graceful_shutdown(stopped).await });
        Ok(Self { inner, _stop: Arc::new(stop.drop_guard()) })
    }

    /// The endpoint's URL, for ECS and for STS.
    pub fn url(&self) -> &str {
        &self.inner.url
    }

    /// The region that signatures have to name.
    pub fn region(&self) -> &str {
        &self.inner.config.region
    }

    /// Looks at the state. The simulation stands still meanwhile.
    pub fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.inner.lock())
    }

    /// The requests of one operation so far.
    pub fn requests(&self, operation: Operation) -> Vec<Request> {
        self.look(|s| s.requests().to(operation).cloned().collect())
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
                return Err(TimedOut { waited: timeout, state: self.look(ToString::to_string) });
            }
        }
    }

    /// Changes the state, and tells those who wait.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.inner.lock();
        let changed = change(&mut state);
        state.touch();
        changed
    }
}

/// Time.
impl SimEcs {
    /// Sets the simulation's clock forward; what comes due by then is done. Processes do not notice.
    pub fn advance(&self, time: Duration) {
        self.change(|state| state.advance(time));
    }

    /// Sets how late ListTasks and DescribeTasks are.
    pub fn set_lag(&self, lag: Lag) {
        self.change(|state| state.lag = lag);
    }

    /// Keeps tasks that enter a state in it.
    pub fn hold(&self, status: Status) {
        self.change(|state| state.hold(status));
    }

    /// Lets the tasks that are kept in a state go on.
    pub fn release(&self, status: Status) {
        self.change(|state| state.release(status));
    }
}

/// Tasks.
impl SimEcs {
    /// Ends every essential container of a task with this exit code, as far as no process stands behind it.
    ///
    /// # Errors
    ///
    /// When there is no such task, or no container of it is up.
    pub fn exit_task(&self, task: &str, code: i64) -> Result<(), ControlError> {
        self.change(|state| state.exit_task(task, code))
    }

    /// Takes a Spot task's capacity back, with two minutes' notice.
    ///
    /// # Errors
    ///
    /// When there is no such task, it does not run on Spot, or it stops already.
    pub fn interrupt_spot(&self, task: &str) -> Result<(), ControlError> {
        self.change(|state| state.interrupt_spot(task))
    }

    /// Stops a task as AWS itself does, with any code and reason.
    ///
    /// # Errors
    ///
    /// When there is no such task.
    pub fn stop_task_as(&self, task: &str, code: Option<StopCode>, reason: &str) -> Result<(), ControlError> {
        self.change(|state| state.stop_task_as(task, code, reason))
    }

    /// Forgets a task at once, as if the hour after its end were over.
    ///
    /// # Errors
    ///
    /// When there is no such task.
    pub fn forget_task(&self, task: &str) -> Result<(), ControlError> {
        self.change(|state| state.forget_task(task))
    }

    /// Starts tasks that somebody else runs in the cluster: RUNNING already, with a `startedBy` and a family of their own;
    /// gives their ARNs.
    ///
    /// # Errors
    ///
    /// When there is no such cluster.
    pub fn run_foreign_tasks(&self, cluster: &str, count: usize) -> Result<Vec<String>, ControlError> {
        self.change(|state| state.run_foreign_tasks(cluster, count))
    }
}

/// Clusters and capacity.
impl SimEcs {
    /// Adds a cluster.
    pub fn add_cluster(&self, cluster: ClusterSpec) {
        self.change(|state| state.add_cluster(cluster));
    }

    /// Makes a cluster INACTIVE.
    ///
    /// # Errors
    ///
    /// When there is no such cluster.
    pub fn deactivate_cluster(&self, cluster: &str) -> Result<(), ControlError> {
        self.change(|state| state.deactivate_cluster(cluster))
    }

    /// Registers a container instance, which takes waiting tasks at once; gives its ARN.
    ///
    /// # Errors
    ///
    /// When there is no such cluster.
    pub fn add_instance(&self, cluster: &str, instance: InstanceSpec) -> Result<String, ControlError> {
        self.change(|state| state.add_instance(cluster, instance))
    }

    /// Loses a container instance with its tasks.
    ///
    /// # Errors
    ///
    /// When there is no such cluster or instance.
    pub fn lose_instance(&self, cluster: &str, arn: &str) -> Result<(), ControlError> {
        self.change(|state| state.lose_instance(cluster, arn))
    }

    /// Sets for how many tasks a Fargate provider has room in a cluster; none: for any number.
    ///
    /// # Errors
    ///
    /// When there is no such cluster.
    pub fn set_fargate_room(
        &self,
        cluster: &str,
        provider: &str,
        room: Option<usize>,
    ) -> Result<(), ControlError> {
        self.change(|state| state.set_fargate_room(cluster, provider, room))
    }
}

/// Faults, limits and credentials.
impl SimEcs {
    /// Injects a fault. Faults of one operation strike in the order of injection.
    pub fn inject(&self, fault: Fault) {
        self.change(|state| state.faults.push(fault));
    }

    /// Clears every fault.
    pub fn clear_faults(&self) {
        self.change(|state| state.faults.clear());
    }

    /// From now on every connection for ECS closes at once, until [`SimEcs::clear_faults`]. STS stays up.
    pub fn go_down(&self) {
        self.inject(Fault::new(Operation::Any, Effect::Refuse));
    }

    /// Sets the limit of an operation, and of those that share its bucket.
    pub fn set_limit(&self, operation: Operation, limit: Limit) {
        self.change(|state| state.throttle.set(operation, limit));
    }

    /// Sets Fargate's own limit on RunTask, for on-demand and for Spot.
    pub fn set_fargate_limit(&self, limit: Limit) {
        self.change(|state| state.throttle.set_fargate(limit));
    }

    /// Denies an operation to every key, as an IAM policy does.
    pub fn deny(&self, operation: Operation) {
        self.change(|state| state.access.deny(operation));
    }

    /// Allows an operation again.
    pub fn allow(&self, operation: Operation) {
        self.change(|state| state.access.allow(operation));
    }

    /// Accepts one more credential.
    pub fn accept(&self, credential: Credential) {
        self.change(|state| state.access.add(&state.config.account, credential));
    }

    /// Accepts a key no longer; says whether there was one.
    pub fn revoke(&self, access_key: &str) -> bool {
        self.change(|state| state.access.revoke(access_key))
    }

    /// Lets every temporary credential expire.
    pub fn expire_sessions(&self) {
        self.change(|state| state.access.expire_sessions(state.clock.now()));
    }
}
