//! Docker hosts as a backend: a container for each runner.
//!
//! [`Engines`] knows each engine once, follows its events and shares its slots; a [`DockerBackend`] is one scale set's
//! use of some of them.

mod container;
mod credentials;
mod endpoint;
mod engine;
mod engines;
mod failure;
mod follow;
mod image;
mod index;
mod slots;
mod template;

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;
use tracing::debug;

pub use credentials::{InvalidCredentials, RegistryCredentials};
pub use engines::{EngineListing, Engines, Found};
pub use template::{DockerAccess, DockerTemplate, HostSpec, PullPolicy};

use super::{Availability, Backend, Error, HostState, Listing, NewRunner, Slot};
use crate::api::condition::reason::{IMAGE_MISSING, IMAGE_PULL_FAILED};
use crate::runner::{Identity, Instance, InstanceState};
use container::Launch;
use endpoint::Endpoint;
use engine::{Engine, Link, Membership, Reservation, State};
use engines::Followed;
use image::{Image, RETRY, Wanted};

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
    place: Result<Place, String>,
}

/// What a backend has on a host.
struct Place {
    followed: Arc<Followed>,
    image: Arc<Image>,
    trouble: Mutex<Trouble>,
    _membership: Membership,
}

/// What keeps a host from taking starts, beside its image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Trouble {
    #[default]
    None,
    /// The last start failed for want of something.
    Lacking { until: Timestamp, failures: u32, reason: &'static str, message: String },
    /// The engine, at that connection, refused what it was asked for.
    Refused { connection: u64, message: String },
}

impl DockerBackend {
    /// One scale set's backend of that name. `identity` is written on every container. A host that cannot be used is
    /// there and says why. Must be called within a Tokio runtime.
    pub fn new(
        name: impl Into<String>,
        identity: Identity,
        template: DockerTemplate,
        engines: &Engines,
    ) -> Self {
        let template_hash = template.hash();
        let mut hosts: Vec<Host> = Vec::new();
        for spec in &template.hosts {
            let place = Place::new(spec, &identity, &template, engines).and_then(|place| {
                let same = |host: &&Host| {
                    host.engine().is_some_and(|engine| Arc::ptr_eq(engine, &place.followed.engine))
                };
                match hosts.iter().find(same) {
                    Some(host) => Err(format!("{} is host {} already", spec.endpoint, host.name)),
                    None => Ok(place),
                }
            });
            hosts.push(Host { name: spec.name.clone(), place });
        }
        let siblings = Vec::new();
        DockerBackend {
            name: name.into(),
            siblings,
            identity,
            template: Arc::new(template),
            template_hash,
            hosts,
        }
    }

    /// One of several backends of its scale set that share a host. What a backend that is none of them left on a host of
    /// this one, it takes for its own: the spec called it otherwise then, or gave the host to another.
    pub fn among(self, siblings: Vec<String>) -> Self {
        DockerBackend { siblings, ..self }
    }

    fn place(&self, host: &str) -> Result<&Place, Error> {
        let host = self.hosts.iter().find(|known| known.name == host);
        let host = host.ok_or_else(|| Error::Refused("there is no such host".to_owned()))?;
        host.place.as_ref().map_err(|why| Error::Refused(why.clone()))
    }

    fn labels(&self, runner: &str) -> HashMap<String, String> {
        let labels = [
            (Identity::CLUSTER, self.identity.cluster.as_str()),
            (Identity::SCALE_SET_UID, &self.identity.scale_set_uid),
            (Identity::SCALE_SET, &self.identity.scale_set),
            (Identity::RUNNER, runner),
            (Identity::TEMPLATE_HASH, &self.template_hash),
            (Identity::BACKEND, &self.name),
        ];
        labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
    }

    fn speaks_for(&self, backend: &str) -> bool {
        backend == self.name || (!self.siblings.is_empty() && !self.siblings.iter().any(|s| s == backend))
    }

    fn listing(&self, host: &str, engine: &Engine) -> Listing {
        let state = engine.state();
        let instances = state.index.containers().filter(|known| {
            known.cluster == self.identity.cluster
                && known.instance.scale_set_uid == self.identity.scale_set_uid
                && self.speaks_for(&known.instance.backend)
        });
        // Made and never started, by a controller that is no more: nobody will start it.
        let forsaken = |known: &index::Container| {
            known.unstarted >= LOOKS
                && known.instance.state == InstanceState::Starting
                && !state.slots.is_held_for(&known.instance.runner)
        };
        let instances = instances.map(|known| {
            let mut instance =
                Instance { backend: self.name.clone(), host: host.to_owned(), ..known.instance.clone() };
            if forsaken(known) {
                instance.state = InstanceState::Forsaken;
            }
            instance
        });
        Listing {
            host: host.to_owned(),
            listed_at: state.listed_at,
            current: matches!(state.link, Link::Up(_)),
            instances: instances.collect(),
        }
    }
}

#[async_trait]
impl Backend for DockerBackend {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "docker"
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
        if let Ok(place) = self.place(host) {
            place.image.prepare(&place.followed.engine);
        }
    }

    fn reserve(&self, host: &str) -> Option<Slot> {
        let reservation = self.place(host).ok()?.followed.engine.reserve()?;
        Some(Slot { host: host.to_owned(), hold: Box::new(reservation) })
    }

    /// Carried through even if the caller stops waiting for it, so that nothing is left half made.
    async fn start(&self, slot: Slot, runner: &NewRunner<'_>) -> Result<Instance, Error> {
        let place = self.place(&slot.host)?;
        let hold: Box<dyn Any + Send> = slot.hold;
        let reservation = hold.downcast::<Reservation>();
        let reservation =
            reservation.map_err(|_| Error::Refused("the slot is not a Docker host's".to_owned()))?;
        reservation.bind(runner.name);
        let launch = Launch {
            runner: runner.name.to_owned(),
            jit: runner.jit.clone(),
            template: Arc::clone(&self.template),
            labels: self.labels(runner.name),
        };
        let (engine, image) = (Arc::clone(&place.followed.engine), Arc::clone(&place.image));
        let started = tokio::spawn(async move {
            image.refresh(&engine).await?;
            let started = container::start(&engine, &launch).await;
            drop(reservation);
            started
        });
        let started = started.await.unwrap_or_else(|error| Err(Error::Unreachable(error.to_string())));
        place.learn(&started);
        debug!(runner = runner.name, host = slot.host, ok = started.is_ok(), "container start");
        started.map(|instance| Instance { host: slot.host, ..instance })
    }

    async fn remove(&self, host: &str, instance_id: &str) -> Result<(), Error> {
        let engine = &self.place(host)?.followed.engine;
        let removed = container::remove(engine, instance_id).await;
        if matches!(removed, Err(Error::Unreachable(_))) {
            engine.suspect();
        }
        removed
    }

    async fn log_tail(&self, host: &str, instance_id: &str) -> Result<String, Error> {
        container::log_tail(&self.place(host)?.followed.engine, instance_id).await
    }
}

impl Host {
    fn engine(&self) -> Option<&Arc<Engine>> {
        self.place.as_ref().ok().map(|place| &place.followed.engine)
    }

    fn state(&self) -> HostState {
        let (availability, free_slots, message) = match &self.place {
            Ok(place) => place.state(),
            Err(why) => (Availability::Refused, 0, why.clone()),
        };
        HostState { name: self.name.clone(), availability, free_slots, failures: 0, message }
    }
}

impl Place {
    fn new(
        spec: &HostSpec,
        identity: &Identity,
        template: &DockerTemplate,
        engines: &Engines,
    ) -> Result<Self, String> {
        let endpoint = Endpoint::parse(&spec.endpoint)?;
        if let Some(why) = template.refusal() {
            return Err(why);
        }
        let logins = template.pull_credentials.as_ref();
        let wanted = Wanted {
            reference: template.image.clone(),
            platform: template.platform.clone(),
            policy: template.pull_policy,
            login: logins.and_then(|logins| logins.for_image(&template.image)).cloned(),
        };
        let followed = engines.engine(endpoint);
        Ok(Place {
            image: followed.engine.image(wanted),
            trouble: Mutex::default(),
            _membership: followed.engine.join(&identity.scale_set_uid, spec.max_runners),
            followed,
        })
    }

    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> (Availability, u32, String) {
        let state = self.followed.engine.state();
        if let Link::Down(why) = &state.link {
            return (Availability::Unreachable, 0, why.clone());
        }
        let free = state.slots.free(&state.index);
        let (availability, message) = match &*self.trouble() {
            Trouble::Refused { connection, message } if *connection == state.connections => {
                (Availability::Refused, message.clone())
            }
            Trouble::Lacking { until, reason, message, .. } if *until > Timestamp::now() => {
                (Availability::BackOff { until: *until, reason }, message.clone())
            }
            _ => image_state(&self.image),
        };
        let message = if message.is_empty() && free == 0 { full(&state) } else { message };
        (availability, free, message)
    }

    /// What the end of a start says of the host.
    fn learn(&self, started: &Result<Instance, Error>) {
        match started {
            Ok(_) => {
                self.image.started();
                *self.trouble() = Trouble::None;
            }
            Err(Error::NoCapacity { reason: IMAGE_MISSING, message }) => self.image.missing(message),
            Err(Error::NoCapacity { reason: IMAGE_PULL_FAILED, .. }) => {}
            Err(Error::NoCapacity { reason, message }) => self.trouble().lacks(reason, message),
            Err(Error::Refused(message)) => {
                let connection = self.followed.engine.state().connections;
                *self.trouble() = Trouble::Refused { connection, message: message.clone() };
            }
            Err(Error::Unreachable(_) | Error::Gone) => self.followed.engine.suspect(),
        }
    }
}

impl Trouble {
    /// Starts that fail together are one failure.
    fn lacks(&mut self, reason: &'static str, message: &str) {
        let now = Timestamp::now();
        let before = match self {
            Trouble::Lacking { until, .. } if *until > now => return,
            Trouble::Lacking { failures, .. } => *failures,
            Trouble::None | Trouble::Refused { .. } => 0,
        };
        let failures = before + 1;
        *self = Trouble::Lacking {
            until: now + RETRY.after(failures),
            failures,
            reason,
            message: message.to_owned(),
        };
    }
}

fn image_state(image: &Image) -> (Availability, String) {
    match image.state() {
        image::State::Ready => (Availability::Ready, String::new()),
        image::State::Unknown => (Availability::Unprepared, String::new()),
        image::State::Preparing { since, message } => (Availability::Preparing { since }, message),
        image::State::Failed { until, reason, message } if until > Timestamp::now() => {
            (Availability::BackOff { until, reason }, message)
        }
        image::State::Failed { message, .. } => (Availability::Unprepared, message),
    }
}

fn full(state: &State) -> String {
    let (limit, users) = (state.slots.limit().unwrap_or_default(), state.slots.users().len());
    match users {
        1 => format!("all {limit} slots are taken"),
        _ => format!("all {limit} slots, shared by {users} scale sets, are taken"),
    }
}

impl fmt::Debug for DockerBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DockerBackend").field("name", &self.name).field("template", &self.template).finish()
    }
}
