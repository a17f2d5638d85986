//! Macs as a backend: a virtual machine of Tart's for each runner.
//!
//! [`Macs`] knows each Mac once, lists it and shares its slots; a [`TartBackend`] is one scale set's use of some of them.

mod binding;
mod examine;
mod failure;
mod follow;
mod host;
mod image;
mod index;
mod listing;
mod mac;
mod macs;
mod pool;
mod provider;
mod prune;
mod record;
mod reservation;
mod scripts;
mod slots;
mod template;
mod view;
mod vm;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub use mac::Limits;
pub use macs::Macs;
pub use provider::TartProvider;
pub use template::{HostSpec, Login, Prune, TartTemplate};

use super::{Availability, Backend, Error, Examination, HostState, Listing, Reservation};
use crate::api::BackendType;
use crate::runner::{Identity, Instance, InstanceState};
use binding::{HostBinding, Maker, NoBinding};

/// So many listings in a row must show that a VM has a runner that was not started, before that is believed.
const LOOKS: u32 = 2;

/// The Macs of one backend of a scale set.
pub struct TartBackend {
    maker: Arc<Maker>,
    hosts: Vec<Host>,
}

/// A host, or why it cannot be one.
struct Host {
    name: String,
    binding: Result<Arc<HostBinding>, NoBinding>,
}

impl TartBackend {
    /// One scale set's backend of that name. `identity` is recorded beside every VM. `siblings` are the scale set's backends
    /// that share a host with it, itself among them: what a backend that is none of them left on a host of this one, it
    /// takes for its own. A host that cannot be used is there and says why. Must be called within a Tokio runtime.
    pub fn new(
        name: impl Into<String>,
        siblings: Vec<String>,
        owner: Identity,
        template: TartTemplate,
        macs: &Macs,
    ) -> TartBackend {
        let template_hash = template.hash();
        let maker = Arc::new(Maker { owner, backend: name.into(), siblings, template, template_hash });
        let mut hosts: Vec<Host> = Vec::new();
        for spec in &maker.template.hosts {
            let binding = HostBinding::new(spec, &maker, macs).and_then(|binding| {
                let same =
                    |host: &&Host| host.bound().is_some_and(|other| Arc::ptr_eq(other.mac(), binding.mac()));
                match hosts.iter().find(same) {
                    Some(host) => {
                        let why = format!("{} is host {} already", spec.endpoint, host.name);
                        Err(NoBinding::Refused(why))
                    }
                    None => Ok(Arc::new(binding)),
                }
            });
            hosts.push(Host { name: spec.name.clone(), binding });
        }
        TartBackend { maker, hosts }
    }

    fn binding(&self, host: &str) -> Result<&Arc<HostBinding>, Error> {
        let host = self.hosts.iter().find(|known| known.name == host);
        let host = host.ok_or_else(|| Error::Refused("there is no such host".to_owned()))?;
        host.binding.as_ref().map_err(|none| match none {
            NoBinding::Refused(why) => Error::Refused(why.clone()),
            NoBinding::NoLogin(why) => Error::Unreachable(why.clone()),
        })
    }

    fn bound(&self) -> impl Iterator<Item = &Arc<HostBinding>> {
        self.hosts.iter().filter_map(Host::bound)
    }

    fn listing(&self, host: &str, binding: &HostBinding) -> Listing {
        let mac = binding.mac();
        let state = mac.host.state();
        let Some(view) = mac.view_of(&state) else { return Listing::unknown(host) };
        let own = |instance: &Instance| {
            instance.scale_set_uid == self.maker.owner.scale_set_uid
                && self.maker.speaks_for(&instance.backend)
        };
        let shown = view.index.vms().filter_map(|vm| {
            let mut instance = vm.instance(&mac.cluster).filter(own)?;
            instance.backend.clone_from(&self.maker.backend);
            host.clone_into(&mut instance.host);
            // Given a runner by a controller that is no more: nobody will start it.
            let abandoned = vm.unstarted >= LOOKS && !state.slots.is_held(&mac.home, &vm.name);
            if abandoned && instance.state == InstanceState::Starting {
                instance.state = InstanceState::NeverStarted;
            }
            Some(instance)
        });
        Listing {
            host: host.to_owned(),
            listed_at: view.listed_at,
            current: view.down.is_none(),
            hides: Duration::ZERO,
            instances: shown.collect(),
        }
    }
}

#[async_trait]
impl Backend for TartBackend {
    fn name(&self) -> &str {
        &self.maker.backend
    }

    fn kind(&self) -> BackendType {
        BackendType::Tart
    }

    fn template_hash(&self) -> &str {
        &self.maker.template_hash
    }

    fn hosts(&self) -> Vec<HostState> {
        self.hosts.iter().map(Host::state).collect()
    }

    fn instances(&self) -> Vec<Listing> {
        let listing = |host: &Host| match &host.binding {
            Ok(binding) => Some(self.listing(&host.name, binding)),
            Err(NoBinding::NoLogin(_)) => Some(Listing::unknown(&host.name)),
            // Nothing ever ran there.
            Err(NoBinding::Refused(_)) => None,
        };
        self.hosts.iter().filter_map(listing).collect()
    }

    fn prepare(&self, host: &str) {
        if let Ok(binding) = self.binding(host) {
            binding.image.prepare(binding.mac());
        }
    }

    fn wait_for_slots(&self, host: &str, runners: u32) {
        if let Ok(binding) = self.binding(host) {
            binding.wait(runners);
        }
    }

    fn reserve(&self, host: &str) -> Option<Box<dyn Reservation>> {
        let binding = self.binding(host).ok()?;
        Some(Box::new(reservation::reserve(host, binding)?))
    }

    fn keep_warm(&self, wanted: bool) {
        let bindings: Vec<&Arc<HostBinding>> = self.bound().collect();
        pool::keep(&bindings, if wanted { self.maker.template.warm } else { 0 });
    }

    fn warm(&self) -> Option<u32> {
        let warm = |binding: &Arc<HostBinding>| binding.warm(&binding.mac().host.state());
        Some(self.bound().map(warm).fold(0, u32::saturating_add))
    }

    fn lost_hosts(&self) -> Vec<String> {
        let lost = |host: &&Host| host.bound().is_some_and(|binding| binding.mac().is_lost());
        self.hosts.iter().filter(lost).map(|host| host.name.clone()).collect()
    }

    fn left_over(&self) -> u32 {
        let left = |binding: &Arc<HostBinding>| {
            let mac = binding.mac();
            let own = |vm: &&index::Vm| {
                vm.is_spare_of(&mac.cluster)
                    && vm.record.as_ref().is_some_and(|record| {
                        record.scale_set_uid == self.maker.owner.scale_set_uid
                            && self.maker.speaks_for(&record.backend)
                    })
            };
            mac.look(|view| view.index.vms().filter(own).count()).unwrap_or_default()
        };
        u32::try_from(self.bound().map(left).sum::<usize>()).unwrap_or(u32::MAX)
    }

    async fn remove(&self, host: &str, instance_id: &str) -> Result<(), Error> {
        let mac = self.binding(host)?.mac();
        vm::remove(mac, &self.maker.owner.scale_set_uid, instance_id).await
    }

    async fn log_tail(&self, host: &str, instance_id: &str) -> Result<String, Error> {
        let mac = self.binding(host)?.mac();
        let Maker { owner, template, .. } = &*self.maker;
        vm::log_tail(mac, &owner.scale_set_uid, instance_id, &template.runner_dir).await
    }

    async fn examine(&self, host: &str) -> Result<Examination, Error> {
        examine::examine(self.binding(host)?.mac()).await
    }
}

impl Host {
    fn bound(&self) -> Option<&Arc<HostBinding>> {
        self.binding.as_ref().ok()
    }

    fn state(&self) -> HostState {
        let (availability, (slots, free_slots), warm, message) = match &self.binding {
            Ok(binding) => binding.state(),
            Err(NoBinding::Refused(why)) => (Availability::Refused, (0, 0), 0, why.clone()),
            Err(NoBinding::NoLogin(why)) => (Availability::Unreachable, (0, 0), 0, why.clone()),
        };
        HostState { name: self.name.clone(), availability, slots, free_slots, warm, failures: 0, message }
    }
}

impl fmt::Debug for TartBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TartBackend").field("maker", &self.maker).finish()
    }
}
