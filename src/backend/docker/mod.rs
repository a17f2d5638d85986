//! Docker hosts as a backend: a container for each runner.
//!
//! [`Engines`] knows each engine once, follows its events and shares its slots; a [`DockerBackend`] is one scale set's
//! use of some of them.

mod beside;
mod binding;
mod container;
mod credentials;
mod destroy;
mod endpoint;
mod engine;
mod engines;
mod examine;
mod failure;
mod follow;
mod host;
mod housekeeping;
mod image;
mod index;
mod launch;
mod login;
mod membership;
mod network;
mod owned;
mod printed;
mod provider;
mod reservation;
mod route;
mod sidecar;
mod slots;
mod socket;
mod ssh;
mod template;
mod tls;
mod view;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;

pub use credentials::{InvalidCredentials, RegistryCredentials};
pub use engines::{EngineListing, Engines, Found};
pub use housekeeping::{DiskGuard, Rules, SharedVolume, Store};
pub use login::Login;
pub use provider::DockerProvider;
pub use template::{DockerTemplate, HostSpec, Images, Limits};
pub use tls::{InvalidTlsLogin, TlsLogin};

use super::{
    Availability, Backend, Error, Examination, HostNews, HostState, Listing, Reservation, speaks_for,
};
use crate::api::BackendType;
use crate::runner::{Identity, Instance, InstanceState};
use binding::HostBinding;
use engine::Engine;
use housekeeping::Wishing;
use reservation::DockerReservation;

/// So many hosts of a backend pull an image at a time, ahead of any start: more of them only share the way to the registry.
const PULLS: usize = 2;
/// So many listings in a row must show that a container was made and not started, before that is believed.
const LOOKS: u32 = 2;

/// The Docker hosts of one backend of a scale set.
pub struct DockerBackend {
    name: String,
    siblings: Vec<String>,
    identity: Identity,
    template: Arc<DockerTemplate>,
    template_hash: String,
    hosts: Vec<Host>,
}

/// A host, or why it cannot be one.
struct Host {
    name: String,
    binding: Result<Arc<HostBinding>, String>,
}

impl DockerBackend {
    /// One scale set's backend of that name. `identity` is written on every container. A host that cannot be used is
    /// there and says why. Must be called within a Tokio runtime.
    pub fn new(
        name: impl Into<String>,
        identity: Identity,
        template: impl Into<Arc<DockerTemplate>>,
        engines: &Engines,
    ) -> Self {
        let (name, template) = (name.into(), template.into());
        let template_hash = template.hash();
        let pulls = Arc::new(Semaphore::new(PULLS));
        let mut hosts: Vec<Host> = Vec::new();
        for spec in &template.hosts {
            let binding =
                HostBinding::new(spec, (&name, &identity), &template, engines, &pulls).and_then(|binding| {
                    let at = &binding.followed.engine.host;
                    let same =
                        |host: &&Host| host.engine().is_some_and(|engine| Arc::ptr_eq(&engine.host, at));
                    match hosts.iter().find(same) {
                        Some(host) => Err(format!("{} is host {} already", spec.endpoint, host.name)),
                        None => Ok(Arc::new(binding)),
                    }
                });
            hosts.push(Host { name: spec.name.clone(), binding });
        }
        let siblings = Vec::new();
        DockerBackend { name, siblings, identity, template, template_hash, hosts }
    }

    /// One of several backends of its scale set that share a host. What a backend that is none of them left on a host of
    /// this one, it takes for its own: the spec called it otherwise then, or gave the host to another.
    pub fn among(self, siblings: Vec<String>) -> Self {
        let bindings = self.hosts.iter().filter_map(|host| host.binding.as_ref().ok());
        bindings.for_each(|binding| binding.membership.set_siblings(&siblings));
        DockerBackend { siblings, ..self }
    }

    fn binding(&self, host: &str) -> Result<&Arc<HostBinding>, Error> {
        let host = self.hosts.iter().find(|known| known.name == host);
        let host = host.ok_or_else(|| Error::Refused("there is no such host".to_owned()))?;
        host.binding.as_ref().map_err(|why| Error::Refused(why.clone()))
    }

    /// The labels of every container that it starts; the runner's own comes on top.
    fn labels(&self) -> HashMap<String, String> {
        let part = self.template.has_private_engine().then_some((Identity::PART, Identity::RUNNER_PART));
        let labels = [
            (Identity::CLUSTER, self.identity.cluster.as_str()),
            (Identity::SCALE_SET_UID, &self.identity.scale_set_uid),
            (Identity::SCALE_SET, &self.identity.scale_set),
            (Identity::TEMPLATE_HASH, &self.template_hash),
            (Identity::BACKEND, &self.name),
        ];
        labels.into_iter().chain(part).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    fn speaks_for(&self, backend: &str) -> bool {
        speaks_for(&self.name, &self.siblings, backend)
    }

    fn listing(&self, host: &str, engine: &Engine) -> Listing {
        let state = engine.host.state();
        let Some(view) = engine.view_of(&state) else { return Listing::unknown(host) };
        let instances = view.index.of_set(&self.identity.scale_set_uid).filter(|known| {
            known.cluster == self.identity.cluster && self.speaks_for(&known.instance.backend)
        });
        // Made and never started, by a controller that is no more: nobody will start it.
        let never_started = |known: &index::Container| {
            known.unstarted >= LOOKS
                && known.instance.state == InstanceState::Starting
                && !state.slots.is_held_for(&known.instance.runner)
        };
        let instances = instances.map(|known| {
            let state = match never_started(known) {
                true => InstanceState::NeverStarted,
                false => known.instance.state.clone(),
            };
            // Not by a clone of the whole, which is made at each look of each set: two of its texts would be thrown away.
            Instance {
                id: known.instance.id.clone(),
                runner: known.instance.runner.clone(),
                scale_set_uid: known.instance.scale_set_uid.clone(),
                backend: self.name.clone(),
                host: host.to_owned(),
                template_hash: known.instance.template_hash.clone(),
                created_at: known.instance.created_at,
                state,
            }
        });
        Listing {
            host: host.to_owned(),
            listed_at: view.listed_at,
            current: view.is_up(),
            hides: Duration::ZERO,
            instances: instances.collect(),
        }
    }
}

#[async_trait]
impl Backend for DockerBackend {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> BackendType {
        BackendType::Docker
    }

    fn template_hash(&self) -> &str {
        &self.template_hash
    }

    fn hosts(&self) -> Vec<HostState> {
        self.hosts.iter().map(Host::state).collect()
    }

    fn instances(&self) -> Vec<Listing> {
        let engines = self.hosts.iter().filter_map(|host| Some((&host.name, host.engine()?)));
        engines.map(|(name, engine)| self.listing(name, engine)).collect()
    }

    fn prepare(&self, host: &str) {
        if let Ok(binding) = self.binding(host) {
            binding.prepare();
        }
    }

    fn wait_for_slots(&self, host: &str, runners: u32) {
        if let Ok(binding) = self.binding(host) {
            binding.membership.wait(runners);
        }
    }

    fn reserve(&self, host: &str) -> Option<Box<dyn Reservation>> {
        let binding = self.binding(host).ok()?;
        let slot = binding.membership.reserve()?;
        Some(Box::new(DockerReservation {
            host: host.to_owned(),
            binding: Arc::clone(binding),
            slot,
            template: Arc::clone(&self.template),
            labels: self.labels(),
            network: None,
        }))
    }

    /// Nothing is ready ahead of need.
    fn keep_warm(&self, _: bool) {}

    fn warm(&self) -> Option<u32> {
        None
    }

    fn lost_hosts(&self) -> Vec<String> {
        let lost = |host: &&Host| host.engine().is_some_and(|engine| engine.is_lost());
        self.hosts.iter().filter(lost).map(|host| host.name.clone()).collect()
    }

    fn left_over(&self) -> u32 {
        0
    }

    fn take_news(&self) -> Vec<HostNews> {
        let bindings = self.hosts.iter().filter_map(|host| Some((&host.name, host.binding.as_ref().ok()?)));
        let news = bindings.flat_map(|(name, binding)| {
            let news = binding.wishing.iter().flat_map(Wishing::take_news);
            news.map(|(warning, message)| HostNews { host: name.clone(), warning, message })
        });
        news.collect()
    }

    async fn discard_shared(&self) -> Vec<String> {
        let mut left = Vec::new();
        for host in &self.hosts {
            let Ok(binding) = &host.binding else { continue };
            for (what, discarded) in [
                ("the shared volume", binding.discard_volume().await),
                ("the network", binding.discard_network().await),
            ] {
                if let Err(error) = discarded {
                    left.push(format!("{what} on {}/{} ({error})", self.name, host.name));
                }
            }
        }
        left
    }

    async fn remove(&self, host: &str, instance_id: &str) -> Result<(), Error> {
        let engine = &self.binding(host)?.followed.engine;
        let removed = container::remove(engine, &self.identity.scale_set_uid, instance_id).await;
        if matches!(removed, Err(Error::Unreachable(_))) {
            engine.suspect();
        }
        removed
    }

    async fn log_tail(&self, host: &str, instance_id: &str) -> Result<String, Error> {
        let engine = &self.binding(host)?.followed.engine;
        container::log_tail(engine, &self.identity.scale_set_uid, instance_id).await
    }

    async fn examine(&self, host: &str) -> Result<Examination, Error> {
        examine::examine(&self.binding(host)?.followed.engine).await
    }
}

impl Host {
    fn engine(&self) -> Option<&Arc<Engine>> {
        self.binding.as_ref().ok().map(|binding| &binding.followed.engine)
    }

    fn state(&self) -> HostState {
        let (availability, (slots, free_slots), message) = match &self.binding {
            Ok(binding) => binding.state(),
            Err(why) => (Availability::Refused, (0, 0), why.clone()),
        };
        HostState { name: self.name.clone(), availability, slots, free_slots, warm: 0, failures: 0, message }
    }
}

impl fmt::Debug for DockerBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DockerBackend").field("name", &self.name).field("template", &self.template).finish()
    }
}
