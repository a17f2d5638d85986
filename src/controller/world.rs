//! The world outside Kubernetes: GitHub, the hosts, and the time. Real in the program, simulated in the model.

use std::sync::Arc;

use jiff::Timestamp;

use crate::backend::docker::{DockerBackend, DockerTemplate, Engines};
use crate::backend::{Backend, Waker};
use crate::github::{self, ClientConfig, Clients, ScaleSetService};
use crate::runner::Identity;

/// The world outside Kubernetes.
pub trait World: Send + Sync {
    /// The time.
    fn now(&self) -> Timestamp;

    /// GitHub, as one scale set reaches it.
    fn github(&self, client: &ClientConfig) -> Result<Arc<dyn ScaleSetService>, github::Error>;

    /// A backend of one scale set.
    fn backend(&self, name: &str, identity: Identity, template: DockerTemplate) -> Arc<dyn Backend>;

    /// The slots of each host: where it is, those taken, and those free where there is a limit.
    fn slots(&self) -> Vec<(String, u32, Option<u32>)>;
}

/// The real one.
pub(super) struct Real {
    clients: Clients,
    engines: Engines,
}

impl Real {
    pub fn new(cluster: &str, waker: Waker) -> Real {
        Real { clients: Clients::default(), engines: Engines::new(cluster, waker) }
    }
}

impl World for Real {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn github(&self, client: &ClientConfig) -> Result<Arc<dyn ScaleSetService>, github::Error> {
        self.clients.get(client)
    }

    fn backend(&self, name: &str, identity: Identity, template: DockerTemplate) -> Arc<dyn Backend> {
        Arc::new(DockerBackend::new(name, identity, template, &self.engines))
    }

    fn slots(&self) -> Vec<(String, u32, Option<u32>)> {
        self.engines.slots()
    }
}
