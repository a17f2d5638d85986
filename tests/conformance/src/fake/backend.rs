//! One scale set's backend on fake hosts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use paddock::api::BackendType;
use paddock::backend::{Availability, Backend, Error, HostState, Listing, Requeuer, Reservation};
use paddock::runner::{Identity, Instance};

use super::hosts::{Fault, Method};
use super::reservation::FakeReservation;
use super::view::{Followed, Membership, SeenHost};

/// A backend of a scale set.
pub(super) struct FakeBackend {
    pub(super) name: String,
    pub(super) siblings: Vec<String>,
    pub(super) owner: Identity,
    pub(super) template_hash: String,
    pub(super) hosts: Vec<Bound>,
    pub(super) requeuer: Requeuer,
    pub(super) prepared: Arc<Mutex<Prepared>>,
}

/// A host as a backend has it.
pub(super) struct Bound {
    pub(super) name: String,
    pub(super) membership: Membership,
    pub(super) followed: Arc<Followed>,
}

/// The hosts, by name, that were prepared, and why the last preparation of the others failed.
#[derive(Default)]
pub(super) struct Prepared {
    done: BTreeSet<String>,
    failed: BTreeMap<String, String>,
}

impl FakeBackend {
    fn bound(&self, host: &str) -> Result<&Bound, Error> {
        let bound = self.hosts.iter().find(|bound| bound.name == host);
        bound.ok_or_else(|| Error::Refused("there is no such host".to_owned()))
    }

    fn speaks_for(&self, host: &SeenHost, backend: &str) -> bool {
        let adopts = !self.siblings.is_empty() && !self.siblings.iter().any(|sibling| sibling == backend);
        backend == self.name || (adopts && !host.hosts.has_fault(Fault::NoAdoption))
    }

    fn state(&self, bound: &Bound) -> HostState {
        let view = bound.host().view();
        let current = view.current;
        drop(view);
        let full = bound.membership.full();
        let slots = bound.membership.all();
        let free_slots = if current { bound.membership.free() } else { 0 };
        let prepared = self.prepared.lock().expect("no test panics with it");
        let (availability, mut message) = match () {
            () if !current => (Availability::Unreachable, format!("{} is silent", bound.host().endpoint)),
            () if prepared.done.contains(&bound.name) => (Availability::Ready, String::new()),
            () => (Availability::Unprepared, prepared.failed.get(&bound.name).cloned().unwrap_or_default()),
        };
        if message.is_empty() && free_slots == 0 {
            message = full;
        }
        HostState { name: bound.name.clone(), availability, slots, free_slots, warm: 0, failures: 0, message }
    }

    fn listing(&self, bound: &Bound) -> Listing {
        let host = bound.host();
        let view = host.view();
        let own = view.instances.values().filter(|made| {
            made.cluster == host.cluster
                && made.instance.scale_set_uid == self.owner.scale_set_uid
                && self.speaks_for(host, &made.instance.backend)
        });
        let shown = own.map(|made| Instance {
            backend: self.name.clone(),
            host: bound.name.clone(),
            ..made.instance.clone()
        });
        Listing {
            host: bound.name.clone(),
            listed_at: view.listed_at,
            current: view.current,
            hides: std::time::Duration::ZERO,
            instances: shown.collect(),
        }
    }
}

impl Bound {
    fn host(&self) -> &Arc<SeenHost> {
        &self.followed.host
    }

    fn check_seen(&self) -> Result<(), Error> {
        match self.host().view().current {
            true => Ok(()),
            false => Err(Error::Unreachable(format!("{} is silent", self.host().endpoint))),
        }
    }
}

#[async_trait]
impl Backend for FakeBackend {
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
        self.hosts.iter().map(|bound| self.state(bound)).collect()
    }

    fn instances(&self) -> Vec<Listing> {
        self.hosts.iter().map(|bound| self.listing(bound)).collect()
    }

    fn prepare(&self, host: &str) {
        let Ok(bound) = self.bound(host) else { return };
        let outcome = bound.host().hosts.called(Method::Prepare, &bound.host().endpoint, "");
        let (prepared, requeuer) = (self.prepared.clone(), self.requeuer.clone());
        let (host, uid) = (host.to_owned(), self.owner.scale_set_uid.clone());
        tokio::spawn(async move {
            match outcome {
                Ok(()) => prepared.lock().expect("no test panics with it").done.insert(host),
                Err(error) => {
                    let failed = &mut prepared.lock().expect("no test panics with it").failed;
                    failed.insert(host, error.to_string()).is_none()
                }
            };
            requeuer.requeue(&uid);
        });
    }

    fn wait_for_slots(&self, host: &str, runners: u32) {
        if let Ok(bound) = self.bound(host) {
            bound.membership.wait(runners);
        }
    }

    fn reserve(&self, host: &str) -> Option<Box<dyn Reservation>> {
        let bound = self.bound(host).ok()?;
        bound.host().hosts.called(Method::Reserve, &bound.host().endpoint, "").ok()?;
        Some(Box::new(FakeReservation {
            slot: bound.membership.reserve()?,
            host: host.to_owned(),
            backend: self.name.clone(),
            owner: self.owner.clone(),
            template_hash: self.template_hash.clone(),
        }))
    }

    /// Nothing is ready ahead of need.
    fn keep_warm(&self, _: bool) {}

    fn warm(&self) -> Option<u32> {
        None
    }

    /// What runs outlives a host's silence, and is seen again as it was.
    fn lost_hosts(&self) -> Vec<String> {
        Vec::new()
    }

    fn left_over(&self) -> u32 {
        0
    }

    async fn remove(&self, host: &str, instance_id: &str) -> Result<(), Error> {
        let bound = self.bound(host)?;
        let SeenHost { hosts, endpoint, cluster, .. } = &**bound.host();
        hosts.called(Method::Remove, endpoint, instance_id)?;
        bound.check_seen()?;
        let removed = hosts.remove(endpoint, cluster, &self.owner.scale_set_uid, instance_id);
        bound.host().look();
        match removed {
            Err(Error::Gone) if hosts.has_fault(Fault::GoneIsRemoved) => Ok(()),
            removed => removed,
        }
    }

    async fn log_tail(&self, host: &str, instance_id: &str) -> Result<String, Error> {
        let bound = self.bound(host)?;
        let SeenHost { hosts, endpoint, cluster, .. } = &**bound.host();
        hosts.called(Method::LogTail, endpoint, instance_id)?;
        bound.check_seen()?;
        hosts.log(endpoint, cluster, &self.owner.scale_set_uid, instance_id)
    }
}
