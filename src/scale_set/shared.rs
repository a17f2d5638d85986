//! What all scale sets share.

use std::sync::Arc;

use jiff::Timestamp;

use super::environment::Environment;
use super::handle::ScaleSetHandle;
use super::leader_only::{self, LeaderOnly, LeadershipCheck};
use super::registry::Registry;
use super::reporter::Reporter;
use crate::backend::{self, Backend, OwnedInstance, Providers};
use crate::github::{self, ClientConfig, ScaleSetService};
use crate::telemetry::{Health, Instrumented, Metrics};

/// What all scale sets share.
pub struct Shared {
    /// The cluster's id: what is ours on every backend.
    pub cluster: String,
    /// Who owns the message sessions.
    pub owner: String,
    /// GitHub, the hosts and the time.
    pub environment: Arc<dyn Environment>,
    /// The scale sets.
    pub registry: Arc<Registry>,
    /// Where the objects are told of what happens.
    pub reporter: Arc<dyn Reporter>,
    /// Metrics.
    pub metrics: Metrics,
    /// Health.
    pub health: Health,
    leads: LeadershipCheck,
    providers: Providers,
}

impl Shared {
    /// Reads the leadership at each act through `leads`.
    pub fn new(
        (cluster, owner): (String, String),
        registry: Arc<Registry>,
        environment: Arc<dyn Environment>,
        reporter: Arc<dyn Reporter>,
        metrics: Metrics,
        leads: LeadershipCheck,
    ) -> Shared {
        let (measured, allowed) = (metrics.clone(), leads.clone());
        let providers = environment.providers().decorated(Arc::new(move |backend| {
            let backend: Arc<dyn Backend> = Arc::new(Instrumented::new(backend, measured.clone()));
            Arc::new(LeaderOnly::new(backend, allowed.clone()))
        }));
        let counted = providers.clone();
        metrics.host_slots_from(move || {
            counted.hosts().into_iter().map(|h| (h.host.endpoint, h.taken, h.free)).collect()
        });
        let freeing = providers.clone();
        metrics.freed_bytes_from(move || {
            freeing.freed().into_iter().map(|f| (f.host.endpoint, f.store, f.bytes)).collect()
        });
        let health = Health::new();
        Shared { cluster, owner, environment, registry, reporter, metrics, health, leads, providers }
    }

    /// The time by the wall clock.
    pub fn now(&self) -> Timestamp {
        self.environment.now()
    }

    /// The kinds of capacity. Their backends are measured, and change nothing while this process does not lead.
    pub fn providers(&self) -> &Providers {
        &self.providers
    }

    /// GitHub, as one scale set reaches it: measured, and silent while this process does not lead.
    ///
    /// # Errors
    /// Those of [`Environment::github`].
    pub fn github(&self, client: &ClientConfig) -> Result<Arc<dyn ScaleSetService>, github::Error> {
        let service = Instrumented::new(self.environment.github(client)?, self.metrics.clone());
        let service: Arc<dyn ScaleSetService> = Arc::new(service);
        Ok(Arc::new(LeaderOnly::new(service, self.leads.clone())))
    }

    /// As [`Providers::remove_orphan`], and nothing while this process does not lead.
    ///
    /// # Errors
    /// Those of the provider; [`backend::Error::Unreachable`] while it does not lead.
    pub async fn remove_orphan(&self, orphan: &OwnedInstance) -> Result<(), backend::Error> {
        leader_only::check(&self.leads)?;
        self.providers.remove_orphan(orphan).await
    }

    /// Forgets a set whose object is gone, or is kept by us no more, and ends its tasks.
    pub fn forget(&self, set: &ScaleSetHandle) {
        self.registry.remove(&set.uid);
        let claim = set.state().spec.claim.clone();
        self.registry.reconsider(claim.as_ref(), &set.uid);
        set.ended.cancel();
        self.health.forget(&set.uid);
        self.metrics.forget_set(&set.labels);
    }
}
