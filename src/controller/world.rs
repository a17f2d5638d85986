//! The world outside Kubernetes: GitHub, the hosts, and the time. Real in the program, simulated in the model.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::backend::{self, Providers, Waker};
use crate::github::{self, ClientConfig, Clients, ScaleSetService};

/// The world outside Kubernetes.
pub trait World: Send + Sync {
    /// The time by the wall clock, which may be set at any moment.
    fn now(&self) -> Timestamp;

    /// The time since any one moment, by a clock that only runs forward.
    fn uptime(&self) -> Duration;

    /// GitHub, as one scale set reaches it.
    fn github(&self, client: &ClientConfig) -> Result<Arc<dyn ScaleSetService>, github::Error>;

    /// The hosts, by kind of capacity.
    fn providers(&self) -> &Providers;
}

/// The real one.
pub struct Real {
    began: Instant,
    clients: Clients,
    providers: Providers,
}

impl Real {
    /// Knows no host yet. `cluster` is the cluster's id; `waker` is told which scale sets should look again.
    pub fn new(cluster: &str, waker: Waker) -> Real {
        Real {
            began: Instant::now(),
            clients: Clients::default(),
            providers: backend::providers(cluster, &waker),
        }
    }
}

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

    fn providers(&self) -> &Providers {
        &self.providers
    }
}
