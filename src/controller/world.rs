//! The world outside Kubernetes: GitHub, the hosts, and the time. Real in the program, simulated in the model.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::Timestamp;

use crate::backend::docker::{DockerBackend, DockerTemplate, Engines};
use crate::backend::{self, Backend, Waker};
use crate::github::{self, ClientConfig, Clients, ScaleSetService};
use crate::reaper::Stray;
use crate::runner::Identity;

/// The world outside Kubernetes.
#[async_trait]
pub trait World: Send + Sync {
    /// The time by the wall clock, which may be set at any moment.
    fn now(&self) -> Timestamp;

    /// The time since any one moment, by a clock that only runs forward.
    fn uptime(&self) -> Duration;

    /// GitHub, as one scale set reaches it.
    fn github(&self, client: &ClientConfig) -> Result<Arc<dyn ScaleSetService>, github::Error>;

    /// A backend of one scale set. `siblings` are the set's backends that have a host in common with it, itself among them.
    fn backend(
        &self,
        name: &str,
        siblings: &[String],
        identity: Identity,
        template: DockerTemplate,
    ) -> Arc<dyn Backend>;

    /// All instances of this cluster on all hosts, of whatever scale set, as last known. No IO.
    fn instances(&self) -> Vec<Stray>;

    /// Removes an instance that no scale set speaks for.
    async fn remove_stray(&self, stray: &Stray) -> Result<(), backend::Error>;

    /// The slots of each host: where it is, those taken, and those free where there is a limit.
    fn slots(&self) -> Vec<(String, u32, Option<u32>)>;
}

/// The real one.
pub struct Real {
    began: Instant,
    clients: Clients,
    engines: Engines,
}

impl Real {
    /// Knows no host yet. `cluster` is the cluster's id; `waker` is told which scale sets should look again.
    pub fn new(cluster: &str, waker: Waker) -> Real {
        Real { began: Instant::now(), clients: Clients::default(), engines: Engines::new(cluster, waker) }
    }
}

#[async_trait]
impl World for Real {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn uptime(&self) -> Duration {
        self.began.elapsed()
    }

    fn github(&self, client: &ClientConfig) -> Result<Arc<dyn ScaleSetService>, github::Error> {
        self.clients.get(client)
    }

    fn backend(
        &self,
        name: &str,
        siblings: &[String],
        identity: Identity,
        template: DockerTemplate,
    ) -> Arc<dyn Backend> {
        Arc::new(DockerBackend::new(name, identity, template, &self.engines).among(siblings.to_vec()))
    }

    fn instances(&self) -> Vec<Stray> {
        let listings = self.engines.all_instances().into_iter().filter(|listing| listing.current);
        let strays = listings.flat_map(|listing| {
            let endpoint = listing.endpoint;
            listing.found.into_iter().map(move |found| Stray {
                endpoint: endpoint.clone(),
                scale_set: found.scale_set,
                instance: found.instance,
            })
        });
        strays.collect()
    }

    async fn remove_stray(&self, stray: &Stray) -> Result<(), backend::Error> {
        let Stray { endpoint, instance, .. } = stray;
        match self.engines.remove(endpoint, &instance.scale_set_uid, &instance.id).await {
            Ok(()) | Err(backend::Error::Gone) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn slots(&self) -> Vec<(String, u32, Option<u32>)> {
        self.engines.slots()
    }
}
