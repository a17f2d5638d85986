//! A slot taken on a Docker host, and the two steps of a start in it.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use tracing::debug;

use super::binding::HostBinding;
use super::container;
use super::host::HeldSlot;
use super::launch::Launch;
use super::template::DockerTemplate;
use crate::backend::{Error, NewRunner, Reservation};
use crate::runner::{Identity, Instance};

/// A slot on a Docker host, and what is to be started in it.
pub(super) struct DockerReservation {
    pub(super) host: String,
    pub(super) binding: Arc<HostBinding>,
    pub(super) slot: HeldSlot,
    pub(super) template: Arc<DockerTemplate>,
    /// Without the runner's name.
    pub(super) labels: HashMap<String, String>,
    /// The network of its scale set, once that is ready.
    pub(super) network: Option<String>,
}

#[async_trait]
impl Reservation for DockerReservation {
    fn host(&self) -> &str {
        &self.host
    }

    /// Refreshes the images where `pullPolicy` is `Always`, and makes the shared volume and the set's network.
    async fn ready(&mut self) -> Result<(), Error> {
        let ready = async {
            self.binding.refresh().await?;
            self.binding.ready_volume().await?;
            self.binding.ready_network().await
        };
        match ready.await {
            Ok(network) => {
                self.network = network;
                Ok(())
            }
            Err(error) => {
                self.binding.note_failure(&error);
                Err(error)
            }
        }
    }

    async fn start(self: Box<Self>, runner: &NewRunner<'_>) -> Result<Instance, Error> {
        let DockerReservation { host, binding, slot, template, mut labels, network } = *self;
        slot.bind(runner.name);
        labels.insert(Identity::RUNNER.to_owned(), runner.name.to_owned());
        let shared = binding.volume.as_ref().zip(template.shared_volume.as_ref());
        let volume = shared.map(|(volume, shared)| volume.mount(&shared.mount_path, shared.read_only));
        let launch = Launch {
            runner: runner.name.to_owned(),
            jit: runner.jit.clone(),
            template,
            labels,
            volume,
            network,
        };
        let started = tokio::spawn(async move {
            let started = container::start(&binding.followed.engine, &launch).await;
            // The slot is the container's own by now, or free again.
            drop(slot);
            match &started {
                Ok(_) => binding.note_success(),
                Err(error) => binding.note_failure(error),
            }
            debug!(runner = launch.runner, host, ok = started.is_ok(), "container start");
            started.map(|instance| Instance { host, ..instance })
        });
        started.await.unwrap_or_else(|error| Err(Error::Unreachable(error.to_string())))
    }
}
