//! All Docker engines that one process knows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::task::AbortOnDropHandle;

use super::container;
use super::endpoint::Endpoint;
use super::engine::{Engine, Patience};
use super::follow::follow;
use super::host::Host;
use super::housekeeping::{self, Store, Wishes};
use super::image::{Image, Wanted};
use super::login::Login;
use super::route::Route;
use crate::api::HostCeiling;
use crate::backend::{Error, Requeuer, SILENCE};
use crate::runner::Instance;

/// A pull of which nothing is heard for so long is stuck.
const STALLED: Duration = Duration::from_secs(120);

/// How one reaches an engine. Whoever names the same shares a client and its listings.
type Way = (Endpoint, Login);

/// All Docker engines of one process, however many scale sets name them. An engine is followed for as long as some backend
/// uses it.
#[derive(Debug)]
pub struct Engines {
    cluster: String,
    requeuer: Requeuer,
    patience: Patience,
    known: Mutex<Known>,
    ceilings: Mutex<Vec<HostCeiling>>,
    freed: Arc<Mutex<HashMap<(Endpoint, Store), u64>>>,
}

#[derive(Debug, Default)]
struct Known {
    hosts: HashMap<Endpoint, Weak<TimedHost>>,
    followed: HashMap<Way, Weak<Followed>>,
    /// How an endpoint was last logged in to, for hosts that a spec names no more.
    last: HashMap<Endpoint, Login>,
}

/// A host and the task that ends the turns of those who wait for its slots and keeps it clean.
#[derive(Debug)]
struct TimedHost {
    host: Arc<Host>,
    wishes: Arc<Wishes>,
    _task: AbortOnDropHandle<()>,
}

/// An engine and the task that follows it.
#[derive(Debug)]
pub(super) struct Followed {
    pub(super) engine: Arc<Engine>,
    images: Mutex<HashMap<Wanted, Weak<Image>>>,
    timed: Arc<TimedHost>,
    _task: AbortOnDropHandle<()>,
}

impl Followed {
    /// Returns what the users of the host wish of its housekeeping.
    pub(super) fn wishes(&self) -> Arc<Wishes> {
        Arc::clone(&self.timed.wishes)
    }

    /// Returns the image that all backends share which want the same of this engine.
    pub(super) fn image(&self, wanted: Wanted) -> Arc<Image> {
        let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        images.retain(|_, image| image.strong_count() > 0);
        if let Some(image) = images.get(&wanted).and_then(Weak::upgrade) {
            return image;
        }
        let image = Arc::new(Image::new(wanted.clone()));
        images.insert(wanted, Arc::downgrade(&image));
        image
    }
}

/// All containers of this cluster on one engine, of whatever scale set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineListing {
    /// Where the engine is reached.
    pub endpoint: String,
    /// When it last answered a whole listing. None: never yet, so absence means nothing.
    pub listed_at: Option<Timestamp>,
    /// Whether this is current; if not, it is what was last known and absence means nothing.
    pub current: bool,
    /// What is there.
    pub found: Vec<Found>,
}

/// A container of this cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The instance; its host is the endpoint.
    pub instance: Instance,
    /// `namespace/name` of its scale set, as its labels say.
    pub scale_set: String,
}

impl Engines {
    /// Knows no engine yet. `cluster` is the cluster's id; `requeuer` is told which scale sets should look again.
    pub fn new(cluster: impl Into<String>, requeuer: Requeuer) -> Self {
        Engines {
            cluster: cluster.into(),
            requeuer,
            patience: Patience { silence: SILENCE, stalled: STALLED },
            known: Mutex::default(),
            ceilings: Mutex::default(),
            freed: Arc::default(),
        }
    }

    /// Takes another host than its own for lost after this time already.
    #[must_use]
    pub fn with_silence(self, silence: Duration) -> Self {
        Engines { patience: Patience { silence, ..self.patience }, ..self }
    }

    /// Takes a pull for stuck when nothing was heard of it for this time.
    #[must_use]
    pub fn with_stalled(self, stalled: Duration) -> Self {
        Engines { patience: Patience { stalled, ..self.patience }, ..self }
    }

    /// The engine of an endpoint, followed from now on at the latest. Must be called within a Tokio runtime.
    pub(super) fn engine(&self, endpoint: Endpoint, login: &Login) -> Arc<Followed> {
        let mut known = self.known();
        known.hosts.retain(|_, host| host.strong_count() > 0);
        known.followed.retain(|_, engine| engine.strong_count() > 0);
        let login = known.login(&endpoint, login);
        let way = (endpoint, login);
        if let Some(engine) = known.followed.get(&way).and_then(Weak::upgrade) {
            return engine;
        }
        let (endpoint, login) = way.clone();
        let timed = self.host(&mut known, &endpoint);
        let (route, host) = (Route::new(&endpoint, login.clone()), timed.host.clone());
        let engine = Arc::new(Engine::new(endpoint.clone(), route, &self.cluster, host, self.patience));
        let followed = engine.clone();
        let task = tokio::spawn(async move {
            follow(followed).await;
        });
        let task = AbortOnDropHandle::new(task);
        let engine = Arc::new(Followed { engine, images: Mutex::default(), timed, _task: task });
        known.followed.insert(way, Arc::downgrade(&engine));
        known.last.insert(endpoint, login);
        engine
    }

    fn host(&self, known: &mut Known, endpoint: &Endpoint) -> Arc<TimedHost> {
        if let Some(host) = known.hosts.get(endpoint).and_then(Weak::upgrade) {
            return host;
        }
        let host = Arc::new(Host::new(self.requeuer.clone()));
        host.limit(self.ceiling(endpoint));
        let wishes = Arc::<Wishes>::default();
        let task = self.keep(endpoint.clone(), host.clone(), wishes.clone());
        let host = Arc::new(TimedHost { host, wishes, _task: task });
        known.hosts.insert(endpoint.clone(), Arc::downgrade(&host));
        host
    }

    /// Ends turns on a host and keeps it clean, for as long as the task is there.
    fn keep(&self, endpoint: Endpoint, host: Arc<Host>, wishes: Arc<Wishes>) -> AbortOnDropHandle<()> {
        let (freed, cluster, shown) = (self.freed.clone(), self.cluster.clone(), endpoint.to_string());
        let count = move |store: Store, bytes: u64| {
            let mut freed = freed.lock().unwrap_or_else(PoisonError::into_inner);
            let sum = freed.entry((endpoint.clone(), store)).or_default();
            *sum = sum.saturating_add(bytes);
        };
        AbortOnDropHandle::new(tokio::spawn(async move {
            tokio::select! {
                _ = host.end_turns() => {}
                _ = housekeeping::keep(&wishes, &host, (&shown, &cluster), count) => {}
            }
        }))
    }

    /// Returns how many bytes housekeeping freed on each engine, by its endpoint and from where.
    pub fn freed(&self) -> Vec<(String, Store, u64)> {
        let freed = self.freed.lock().unwrap_or_else(PoisonError::into_inner);
        freed.iter().map(|((endpoint, store), bytes)| (endpoint.to_string(), *store, *bytes)).collect()
    }

    /// Says how many runners all scale sets together may have on each engine, in place of what was said before.
    pub fn limit(&self, ceilings: &[HostCeiling]) {
        ceilings.clone_into(&mut self.ceilings.lock().unwrap_or_else(PoisonError::into_inner));
        for (endpoint, timed) in self.hosts() {
            timed.host.limit(self.ceiling(&endpoint));
        }
    }

    fn ceiling(&self, endpoint: &Endpoint) -> Option<u32> {
        let ceilings = self.ceilings.lock().unwrap_or_else(PoisonError::into_inner);
        HostCeiling::lowest(&ceilings, |at| Endpoint::parse(at).as_ref() == Ok(endpoint))
    }

    /// All containers of this cluster on all engines, those whose scale set nobody knows among them. No IO.
    pub fn all_instances(&self) -> Vec<EngineListing> {
        self.hosts().iter().filter_map(|(endpoint, timed)| self.listing(endpoint, &timed.host)).collect()
    }

    fn listing(&self, endpoint: &Endpoint, host: &Host) -> Option<EngineListing> {
        let state = host.state();
        let view = state.views.believed().max_by_key(|view| view.listed_at)?;
        let ours = view.index.containers().filter(|known| known.cluster == self.cluster);
        let found = ours.map(|known| Found {
            instance: Instance { host: endpoint.to_string(), ..known.instance.clone() },
            scale_set: known.scale_set.clone(),
        });
        let found = found.collect();
        Some(EngineListing {
            endpoint: endpoint.to_string(),
            listed_at: view.listed_at,
            current: view.is_up(),
            found,
        })
    }

    /// The slots of each engine: its endpoint, those taken, and those free where there is a limit.
    pub fn slots(&self) -> Vec<(String, u32, Option<u32>)> {
        let slots = |(endpoint, timed): &(Endpoint, Arc<TimedHost>)| {
            let state = timed.host.state();
            let free = state.slots.ceiling.map(|_| state.slots.free(&state.views));
            (endpoint.to_string(), state.slots.taken(&state.views), free)
        };
        self.hosts().iter().map(slots).collect()
    }

    /// Removes a container of a scale set of this cluster, for which no backend speaks. [`Error::Gone`] when there is none.
    pub async fn remove(&self, endpoint: &str, scale_set_uid: &str, instance_id: &str) -> Result<(), Error> {
        let endpoint = Endpoint::parse(endpoint).map_err(Error::Refused)?;
        let at = self.engines().into_iter().filter(|followed| followed.engine.endpoint == endpoint);
        let followed = at.max_by_key(|followed| followed.engine.client().is_ok());
        let followed = followed.ok_or_else(|| Error::Unreachable(format!("{endpoint} is not followed")))?;
        container::remove(&followed.engine, scale_set_uid, instance_id).await
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn engines(&self) -> Vec<Arc<Followed>> {
        self.known().followed.values().filter_map(Weak::upgrade).collect()
    }

    fn hosts(&self) -> Vec<(Endpoint, Arc<TimedHost>)> {
        let known = self.known();
        let hosts = known.hosts.iter();
        hosts.filter_map(|(endpoint, host)| Some((endpoint.clone(), host.upgrade()?))).collect()
    }
}

impl Known {
    /// How an endpoint is to be logged in to.
    fn login(&self, endpoint: &Endpoint, login: &Login) -> Login {
        match (login, self.last.get(endpoint)) {
            (Login::AsBefore, Some(last)) => last.clone(),
            (Login::AsBefore, None) if !endpoint.is_local() => {
                Login::Unusable("how it is logged in to is not known".to_owned())
            }
            (Login::AsBefore, None) => Login::None,
            (given, _) => given.clone(),
        }
    }
}
