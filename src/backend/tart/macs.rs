//! All Macs that one process knows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::follow::follow;
use super::host::Host;
use super::image::{Image, Wanted};
use super::mac::{Limits, Mac};
use super::prune::Pruning;
use super::template::Login;
use crate::api::HostCeiling;
use crate::backend::remote::{Endpoint, InvalidLogin, Remote, SshLogin};
use crate::backend::{Error, Requeuer};

/// How one reaches a Mac. Whoever names the same shares a connection and its listings.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Way {
    endpoint: Endpoint,
    home: String,
    login: Option<SshLogin>,
}

/// All Macs of one process, however many scale sets name them. One is followed for as long as some backend uses it.
#[derive(Debug)]
pub struct Macs {
    cluster: String,
    requeuer: Requeuer,
    limits: Limits,
    known: Mutex<Known>,
    ceilings: Mutex<Vec<HostCeiling>>,
    /// The bytes that were freed on each host.
    freed: Arc<Mutex<HashMap<Endpoint, u64>>>,
}

#[derive(Debug, Default)]
struct Known {
    hosts: HashMap<Endpoint, Weak<TimedHost>>,
    followed: HashMap<Way, Weak<Followed>>,
    /// The way in which an endpoint was last reached, for hosts that a spec names no more.
    last: HashMap<Endpoint, Way>,
}

/// A host and the task that keeps its time.
#[derive(Debug)]
struct TimedHost {
    host: Arc<Host>,
    _task: AbortOnDropHandle<()>,
}

/// A Mac and the task that follows it.
#[derive(Debug)]
pub(super) struct Followed {
    pub(super) mac: Arc<Mac>,
    pub(super) pruning: Arc<Pruning>,
    images: Arc<Mutex<HashMap<Wanted, Weak<Image>>>>,
    _host: Arc<TimedHost>,
    _task: AbortOnDropHandle<()>,
}

type Images = Mutex<HashMap<Wanted, Weak<Image>>>;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Followed {
    /// The image that all backends share which want the same of this Mac.
    pub(super) fn image(&self, wanted: Wanted) -> Arc<Image> {
        let mut images = locked(&self.images);
        images.retain(|_, image| image.strong_count() > 0);
        if let Some(image) = images.get(&wanted).and_then(Weak::upgrade) {
            return image;
        }
        let image = Arc::new(Image::new(wanted.clone()));
        images.insert(wanted, Arc::downgrade(&image));
        image
    }
}

/// When which images were pulled.
fn pulled(images: &Images) -> Vec<(String, Instant)> {
    locked(images).values().filter_map(Weak::upgrade).filter_map(|image| image.pulled_at()).collect()
}

impl Macs {
    /// Knows no Mac yet. `cluster` is the cluster's id; `requeuer` is told which scale sets should look again.
    pub fn new(cluster: impl Into<String>, requeuer: Requeuer) -> Macs {
        Macs {
            cluster: cluster.into(),
            requeuer,
            limits: Limits::default(),
            known: Mutex::default(),
            ceilings: Mutex::default(),
            freed: Arc::default(),
        }
    }

    /// With other limits on how long things may take.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Macs {
        Macs { limits, ..self }
    }

    /// The Mac that is reached so, followed from now on at the latest. Must be called within a Tokio runtime.
    pub(super) fn mac(
        &self,
        endpoint: Endpoint,
        home: &str,
        login: &Login,
    ) -> Result<Arc<Followed>, InvalidLogin> {
        let mut known = locked(&self.known);
        known.hosts.retain(|_, host| host.strong_count() > 0);
        known.followed.retain(|_, followed| followed.strong_count() > 0);
        let way = match login {
            Login::Given(login) => {
                Way { endpoint: endpoint.clone(), home: home.to_owned(), login: login.clone() }
            }
            Login::AsBefore => match known.last.get(&endpoint) {
                Some(way) => way.clone(),
                None if endpoint == Endpoint::Local => {
                    Way { endpoint: endpoint.clone(), home: home.to_owned(), login: None }
                }
                None => return Err(InvalidLogin::Missing),
            },
        };
        if let Some(followed) = known.followed.get(&way).and_then(Weak::upgrade) {
            return Ok(followed);
        }
        let remote = Remote::new(&way.endpoint, way.login.clone())?;
        let host = match known.hosts.get(&endpoint).and_then(Weak::upgrade) {
            Some(host) => host,
            None => {
                let host = Arc::new(TimedHost::begin(self.requeuer.clone()));
                host.host.limit(self.ceiling(&endpoint));
                known.hosts.insert(endpoint.clone(), Arc::downgrade(&host));
                host
            }
        };
        let reached = (endpoint.clone(), way.home.clone(), remote);
        let mac = Arc::new(Mac::new(reached, &self.cluster, host.host.clone(), self.limits));
        let images: Arc<Images> = Arc::default();
        let pruning = Arc::new(Pruning::default());
        let task = {
            let (mac, images, pruning) = (mac.clone(), images.clone(), pruning.clone());
            let (freed, host) = (self.freed.clone(), endpoint.clone());
            let count = move |bytes: u64| {
                let mut freed = locked(&freed);
                let sum = freed.entry(host.clone()).or_default();
                *sum = sum.saturating_add(bytes);
            };
            tokio::spawn(async move {
                tokio::select! {
                    _ = follow(mac.clone(), || pulled(&images)) => {}
                    _ = pruning.keep(&mac, count) => {}
                }
            })
        };
        let followed =
            Arc::new(Followed { mac, pruning, images, _host: host, _task: AbortOnDropHandle::new(task) });
        known.followed.insert(way.clone(), Arc::downgrade(&followed));
        known.last.insert(endpoint, way);
        Ok(followed)
    }

    /// Says how many VMs all scale sets together may have on each Mac, in place of what was said before.
    pub fn limit(&self, ceilings: &[HostCeiling]) {
        ceilings.clone_into(&mut locked(&self.ceilings));
        let hosts: Vec<(Endpoint, Arc<TimedHost>)> = {
            let known = locked(&self.known);
            known
                .hosts
                .iter()
                .filter_map(|(endpoint, host)| Some((endpoint.clone(), host.upgrade()?)))
                .collect()
        };
        hosts.iter().for_each(|(endpoint, host)| host.host.limit(self.ceiling(endpoint)));
    }

    fn ceiling(&self, endpoint: &Endpoint) -> Option<u32> {
        HostCeiling::lowest(&locked(&self.ceilings), |at| Endpoint::parse(at).as_ref() == Ok(endpoint))
    }

    /// All that are followed.
    pub(super) fn all(&self) -> Vec<Arc<Mac>> {
        let known = locked(&self.known);
        known.followed.values().filter_map(Weak::upgrade).map(|followed| followed.mac.clone()).collect()
    }

    /// The slots of each host: its endpoint, those taken, and those free.
    pub fn slots(&self) -> Vec<(String, u32, u32)> {
        let known = locked(&self.known);
        let hosts = known.hosts.iter().filter_map(|(endpoint, host)| Some((endpoint, host.upgrade()?)));
        let slots = |(endpoint, host): (&Endpoint, Arc<TimedHost>)| {
            let state = host.host.state();
            (endpoint.to_string(), state.slots.taken(&state.views), state.slots.free(&state.views))
        };
        hosts.map(slots).collect()
    }

    /// How many bytes pruning freed on each host, by its endpoint.
    pub(super) fn freed(&self) -> Vec<(String, u64)> {
        locked(&self.freed).iter().map(|(endpoint, bytes)| (endpoint.to_string(), *bytes)).collect()
    }

    /// The Mac of an endpoint that has a VM.
    pub(super) fn with_vm(&self, endpoint: &str, vm: &str) -> Result<Arc<Mac>, Error> {
        let has = |mac: &Arc<Mac>| {
            mac.endpoint.to_string() == endpoint
                && mac.look(|view| view.index.get(vm).is_some()).unwrap_or_default()
        };
        self.all().into_iter().find(has).ok_or(Error::Gone)
    }
}

impl TimedHost {
    fn begin(requeuer: Requeuer) -> TimedHost {
        let host = Arc::new(Host::new(requeuer));
        let timed = host.clone();
        let task = tokio::spawn(async move {
            timed.keep_time().await;
        });
        TimedHost { host, _task: AbortOnDropHandle::new(task) }
    }
}
