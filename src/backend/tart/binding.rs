//! What one backend of a scale set has on a host: the Mac, its image there, its VMs, and how its last starts went.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;

use super::host::{HeldSlot, State};
use super::image::{Image, Wanted};
use super::index::Vm;
use super::mac::Mac;
use super::macs::{Followed, Macs};
use super::record::{Record, vm_name};
use super::slots::User;
use super::template::{HostSpec, TartTemplate};
use super::vm;
use crate::api::Reason;
use crate::backend::host_failure::HostFailure;
use crate::backend::remote::Endpoint;
use crate::backend::{Availability, Error, speaks_for};
use crate::runner::Identity;

/// Whose VMs a backend makes, and from what.
#[derive(Debug)]
pub(super) struct Maker {
    pub(super) owner: Identity,
    /// The backend's name in the scale set.
    pub(super) backend: String,
    /// Its scale set's backends that share a host with it; empty where it speaks for itself alone.
    pub(super) siblings: Vec<String>,
    pub(super) template: TartTemplate,
    pub(super) template_hash: String,
}

/// What a backend has on a host.
#[derive(Debug)]
pub(super) struct HostBinding {
    pub(super) followed: Arc<Followed>,
    pub(super) maker: Arc<Maker>,
    pub(super) image: Arc<Image>,
    /// The VM that is made ahead of need, and that nobody has claimed yet.
    pub(super) filling: Mutex<Option<Making>>,
    failure: HostFailure,
    user: u64,
    wish: u64,
}

/// A VM that is being made. It is carried through, whoever waits for it.
#[derive(Debug, Clone)]
pub(super) struct Making {
    pub(super) vm: String,
    pub(super) record: Record,
    pub(super) slot: Arc<HeldSlot>,
    outcome: watch::Receiver<Option<Result<(), Error>>>,
}

/// Why a host is none.
#[derive(Debug, Clone)]
pub(super) enum NoBinding {
    /// It cannot be one.
    Refused(String),
    /// How it is logged in to is not known.
    NoLogin(String),
}

impl Maker {
    /// Whether the VMs of a backend are this one's to look after: the spec may have called it otherwise when they were made.
    pub(super) fn speaks_for(&self, backend: &str) -> bool {
        speaks_for(&self.backend, &self.siblings, backend)
    }
}

impl Making {
    /// Waits until the VM is up.
    pub(super) async fn done(&mut self) -> Result<(), Error> {
        match self.outcome.wait_for(Option::is_some).await.map(|outcome| outcome.clone()) {
            Ok(Some(outcome)) => outcome,
            Ok(None) | Err(_) => Err(Error::Unreachable("the VM's making was cut off".to_owned())),
        }
    }
}

impl HostBinding {
    /// Binds a backend to a host, and follows the Mac from now on at the latest.
    pub(super) fn new(spec: &HostSpec, maker: &Arc<Maker>, macs: &Macs) -> Result<HostBinding, NoBinding> {
        let endpoint =
            Endpoint::parse(&spec.endpoint).map_err(|invalid| NoBinding::Refused(invalid.to_string()))?;
        let followed = macs
            .mac(endpoint, &spec.tart_home, &spec.login)
            .map_err(|invalid| NoBinding::NoLogin(invalid.to_string()))?;
        let template = &maker.template;
        let wanted = Wanted { reference: template.image.clone(), policy: template.pull_policy };
        let user = User {
            scale_set_uid: maker.owner.scale_set_uid.clone(),
            backend: maker.backend.clone(),
            siblings: maker.siblings.clone(),
            max_vms: spec.max_vms,
        };
        let user = followed.mac.host.state().slots.join(user);
        let wish = followed.pruning.join((template.prune, template.prune_interval));
        Ok(HostBinding {
            image: followed.image(wanted),
            maker: maker.clone(),
            filling: Mutex::default(),
            failure: HostFailure::default(),
            user,
            wish,
            followed,
        })
    }

    pub(super) fn mac(&self) -> &Arc<Mac> {
        &self.followed.mac
    }

    /// Begins to make a VM in a slot.
    pub(super) fn make(self: &Arc<Self>, slot: Arc<HeldSlot>) -> Making {
        let Maker { owner, backend, template_hash, .. } = &*self.maker;
        let owner = (owner.cluster.as_str(), owner.scale_set_uid.as_str(), owner.scale_set.as_str());
        let record = vm::record(owner, backend, (template_hash, self.image.digest()), slot.place());
        let (sender, outcome) = watch::channel(None);
        let making = Making { vm: slot.vm(), record, slot, outcome };
        let (binding, Making { vm, record, slot, .. }) = (Arc::clone(self), making.clone());
        tokio::spawn(async move {
            let made = vm::make(binding.mac(), &vm, &record, &binding.maker.template).await;
            match &made {
                Ok(()) => binding.note_made(),
                Err(error) => binding.note_failure(error),
            }
            sender.send_replace(Some(made));
            drop(slot);
        });
        making
    }

    /// The VMs of this backend without a runner with which nothing is done, and whether each is fit to have one.
    pub(super) fn spares(&self, state: &State) -> Vec<(Vm, bool)> {
        let mac = self.mac();
        let Some(view) = mac.view_of(state) else { return Vec::new() };
        let digest = self.image.digest();
        let own = |vm: &&Vm| {
            let record = vm.record.as_ref().filter(|_| vm.is_spare_of(&mac.cluster));
            record.is_some_and(|record| {
                record.scale_set_uid == self.maker.owner.scale_set_uid
                    && self.maker.speaks_for(&record.backend)
            }) && !state.slots.is_held(&mac.home, &vm.name)
        };
        let fit = |vm: &Vm| {
            vm.running
                && vm.record.as_ref().is_some_and(|record| {
                    record.template_hash == self.maker.template_hash
                        && (digest.is_none() || record.digest == digest)
                })
        };
        view.index.vms().filter(own).map(|vm| (vm.clone(), fit(vm))).collect()
    }

    /// How many VMs are up and have no runner.
    pub(super) fn warm(&self, state: &State) -> u32 {
        let fit = self.spares(state).into_iter().filter(|(_, fit)| *fit).count();
        u32::try_from(fit).unwrap_or(u32::MAX)
    }

    fn is_filling(&self) -> bool {
        self.filling.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Slots that are free for the backend and no VM's.
    pub(super) fn free(&self, state: &State) -> u32 {
        state.slots.free_for(self.user, &state.views)
    }

    /// Whether runners of the backend wait for a slot.
    pub(super) fn is_waiting(&self, state: &State) -> bool {
        state.slots.queue.runners_of(self.user) > 0
    }

    /// Says for how many runners a slot is wanted and not there.
    pub(super) fn wait(&self, runners: u32) {
        let host = &self.mac().host;
        let (known, runners) = {
            let State { slots, views, .. } = &*host.state();
            (slots.queue.runners_of(self.user), slots.to_wait_for(self.user, runners, views))
        };
        if known != runners {
            host.update(|state| {
                state.slots.queue.wait(self.user, runners, Instant::now());
                Default::default()
            });
        }
    }

    /// Holds a place for a VM of the backend that is there.
    pub(super) fn hold(&self, vm: &str) -> HeldSlot {
        self.mac().hold(self.user, vm)
    }

    /// Takes a slot for a VM to come, unless none is free or the host is not seen, as then nobody knows.
    pub(super) fn take_slot(&self) -> Option<HeldSlot> {
        let mac = self.mac();
        let mut held = None;
        mac.host.update(|state| {
            let seen = mac.view_of(state).is_some_and(|view| view.down.is_none());
            if seen && self.free(state) > 0 {
                state.slots.took(self.user);
                held =
                    Some(state.slots.hold(self.user, &mac.home, &vm_name(&self.maker.owner), &state.views));
            }
            Default::default()
        });
        held.map(|number| HeldSlot::new(&mac.host, number))
    }

    /// Takes a VM that is up, with its record.
    pub(super) fn take_warm(&self) -> Option<(HeldSlot, Record)> {
        let mac = self.mac();
        let mut held = None;
        mac.host.update(|state| {
            let seen = mac.view_of(state).is_some_and(|view| view.down.is_none());
            let fit = self.spares(state).into_iter().find(|(_, fit)| *fit && seen);
            if let Some((Vm { name, record: Some(record), .. }, _)) = fit {
                state.slots.took(self.user);
                held = Some((state.slots.hold(self.user, &mac.home, &name, &state.views), record));
            }
            Default::default()
        });
        held.map(|(number, record)| (HeldSlot::new(&mac.host, number), record))
    }

    /// Takes the VM that is being made ahead of need.
    pub(super) fn take_filling(&self) -> Option<Making> {
        self.filling.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether the host takes starts, how many slots are there for the backend, how many of these have a VM that is up, and
    /// why it takes none, in words.
    pub(super) fn state(&self) -> (Availability, (u32, u32), u32, String) {
        let mac = self.mac();
        let state = mac.host.state();
        let Some(view) = mac.view_of(&state) else {
            return (Availability::Unreachable, (0, 0), 0, String::new());
        };
        if let Some(why) = &view.down {
            return (Availability::Unreachable, (0, 0), 0, why.clone());
        }
        let warm = self.warm(&state);
        let all = state.slots.all_for(self.user);
        let free = self.free(&state) + warm + u32::from(self.is_filling());
        let connections = view.connections;
        let full = full(&state, self.user);
        drop(state);
        let failure = self.failure.state(connections);
        let (availability, message) = failure.unwrap_or_else(|| self.image.state(mac).availability());
        let message = if message.is_empty() && free == 0 { full } else { message };
        (availability, (all, free), warm, message)
    }

    /// Notes that a VM was made: the host is well.
    pub(super) fn note_made(&self) {
        self.image.readiness().used();
        self.failure.clear();
    }

    /// Notes what the failure of a start says of the host.
    pub(super) fn note_failure(&self, error: &Error) {
        match error {
            Error::NoCapacity(why) => match why.reason {
                Reason::ImageMissing => self.image.readiness().missing(&why.message),
                // The slots say so.
                Reason::ImagePullFailed | Reason::HostFull => {}
                reason => self.failure.lacks(reason, &why.message),
            },
            Error::Refused(message) => {
                let connections = self.mac().look(|view| view.connections).unwrap_or_default();
                self.failure.refused(connections, message);
            }
            Error::Unreachable(_) | Error::Gone => self.mac().suspect(),
        }
    }
}

impl Drop for HostBinding {
    fn drop(&mut self) {
        self.followed.pruning.leave(self.wish);
        self.mac().host.update(|state| {
            state.slots.leave(self.user);
            Default::default()
        });
    }
}

fn full(state: &State, user: u64) -> String {
    if state.slots.full_until().is_some() {
        return "the host runs as many VMs as macOS lets it; it is tried again within a minute".to_owned();
    }
    if state.slots.left_of_own(user, &state.views) == 0 {
        let most = state.slots.own_maximum(user).unwrap_or_default();
        return format!("hosts[].maxVms gives this backend {most} slots here, and all are taken");
    }
    if state.slots.free(&state.views) > 0 {
        return "the free slots are kept for scale sets that wait longer".to_owned();
    }
    let (limit, users) = (state.slots.limit(), state.slots.users().len());
    match users {
        1 => format!("all {limit} slots are taken"),
        _ => format!("all {limit} slots, shared by {users} scale sets, are taken"),
    }
}
