//! The environment outside Kubernetes: GitHub, the hosts, and the time. A program has the production one, the model a simulated one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::backend::{self, Providers, Requeuer};
use crate::github::{self, ClientConfig, Clients, ScaleSetService};

/// What is outside Kubernetes, and the time.
pub trait Environment: Send + Sync {
    /// The time by the wall clock, which may be set at any moment.
    fn now(&self) -> Timestamp;

    /// The time since any one moment, by a clock that only runs forward.
    fn uptime(&self) -> Duration;

    /// GitHub, as one scale set reaches it.
    fn github(&self, client: &ClientConfig) -> Result<Arc<dyn ScaleSetService>, github::Error>;

    /// The hosts, by kind of capacity.
    fn providers(&self) -> &Providers;
}

/// GitHub, the hosts and the clock as they are.
pub struct Production {
    began: Instant,
    clients: Clients,
    providers: Providers,
}

impl Production {
    /// Knows no host yet. `cluster` is the cluster's id; `requeuer` is told which scale sets should look again.
    pub fn new(cluster: &str, requeuer: Requeuer) -> Production {
        Production {
            began: Instant::now(),
            clients: Clients::default(),
            providers: backend::providers(cluster, &requeuer),
        }
    }
}

impl Environment for Production {
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
