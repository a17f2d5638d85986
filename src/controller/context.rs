//! What the controller's steps share.

use std::sync::{Arc, PoisonError, RwLock};

use kube::core::DeserializeGuard;
use kube::{Api, Client, ResourceExt};
use tokio_util::sync::CancellationToken;

use super::lease::Leadership;
use super::reporter::ApiReporter;
use super::turns::Turns;
use crate::api::{OperatorPolicy, RunnerScaleSet};
use crate::backend::Requeuer;
use crate::scale_set::{Environment, ObjectName, Registry, ScaleSetHandle, Shared};
use crate::telemetry::Metrics;

/// What the watch of scale sets yields: an object that cannot be read stops nothing but itself.
pub(super) type Guarded = DeserializeGuard<RunnerScaleSet>;

/// What the controller's steps share.
pub(super) struct Context {
    /// The API server.
    pub client: Client,
    /// Whether this process may act.
    pub leadership: Leadership,
    /// What all scale sets share.
    pub shared: Arc<Shared>,
    /// Tells of scale sets at the API server.
    pub reporter: Arc<ApiReporter>,
    /// Turns at writing to the API server: of a thousand answers that are waited for at once, one with little CPU would give
    /// none in time.
    pub writes: Turns,
    /// Turns at reading specs, as long as that keeps none waiting for longer than they take: each is copied for it, and may have a
    /// MiB and more.
    pub reads: Turns,
    /// The process is stopping.
    pub stopping: CancellationToken,
    /// What tenants may do.
    policy: RwLock<Arc<OperatorPolicy>>,
}

impl Context {
    /// Knows no scale set yet, and lets them have what `policy` permits. `environment` is made with what requeues a scale set
    /// by its UID.
    pub fn new(
        client: Client,
        cluster: String,
        owner: String,
        leadership: Leadership,
        policy: OperatorPolicy,
        stopping: CancellationToken,
        environment: impl FnOnce(Requeuer) -> Arc<dyn Environment>,
    ) -> Context {
        let registry = Arc::new(Registry::default());
        let requeue = registry.clone();
        let environment = environment(Requeuer::new(move |uid| requeue.requeue(uid)));
        let metrics = Metrics::new();
        let (writes, reads) = (Turns::default(), Turns::default());
        let reporter = Arc::new(ApiReporter::new(
            client.clone(),
            writes.clone(),
            &owner,
            environment.clone(),
            metrics.clone(),
            leadership.clone(),
        ));
        let held = leadership.clone();
        let shared = Shared::new(
            (cluster, owner),
            registry,
            environment,
            reporter.clone(),
            metrics,
            Arc::new(move || held.is_held()),
        );
        shared.providers().limit_hosts(&policy.hosts);
        let policy = RwLock::new(Arc::new(policy));
        Context { client, leadership, shared: Arc::new(shared), reporter, writes, reads, stopping, policy }
    }

    /// The operator's policy that is in force.
    pub fn policy(&self) -> Arc<OperatorPolicy> {
        self.policy.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another policy in force. All scale sets are judged by it.
    pub fn put_in_force(&self, policy: OperatorPolicy) {
        let policy = Arc::new(policy);
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = policy.clone();
        self.shared.providers().limit_hosts(&policy.hosts);
        self.shared.registry.reconsider_all();
    }

    /// Forgets a set whose object is gone, or is kept by us no more, and ends its tasks.
    pub fn forget(&self, set: &ScaleSetHandle) {
        self.shared.forget(set);
        self.reporter.forget(set);
    }

    /// The API of one namespace.
    pub fn scale_sets(&self, namespace: &str) -> Api<RunnerScaleSet> {
        Api::namespaced(self.client.clone(), namespace)
    }
}

/// The name of an object.
pub(super) fn name_of(object: &RunnerScaleSet) -> ObjectName {
    ObjectName { namespace: object.namespace().unwrap_or_default(), name: object.name_any() }
}
