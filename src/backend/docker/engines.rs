//! All Docker engines that one process knows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use jiff::Timestamp;
use tokio_util::task::AbortOnDropHandle;

use super::container;
use super::endpoint::Endpoint;
use super::engine::{Engine, Link};
use super::follow::follow;
use super::image::{Image, Wanted};
use crate::api::HostCeiling;
use crate::backend::{Error, Requeuer};
use crate::runner::Instance;

/// All Docker engines of one process, one for each endpoint however many scale sets name it. An engine is followed
/// for as long as some backend uses it.
#[derive(Debug)]
pub struct Engines {
    cluster: String,
    requeuer: Requeuer,
    followed: Mutex<HashMap<Endpoint, Weak<Followed>>>,
    ceilings: Mutex<Vec<HostCeiling>>,
}

/// An engine and the task that follows it.
#[derive(Debug)]
pub(super) struct Followed {
    pub(super) engine: Arc<Engine>,
    images: Mutex<HashMap<Wanted, Weak<Image>>>,
    _task: AbortOnDropHandle<()>,
}

impl Followed {
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
        Engines { cluster: cluster.into(), requeuer, followed: Mutex::default(), ceilings: Mutex::default() }
    }

    /// The engine of an endpoint, followed from now on at the latest. Must be called within a Tokio runtime.
    pub(super) fn engine(&self, endpoint: Endpoint) -> Arc<Followed> {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        followed.retain(|_, engine| engine.strong_count() > 0);
        if let Some(engine) = followed.get(&endpoint).and_then(Weak::upgrade) {
            return engine;
        }
        let engine = Arc::new(Engine::new(endpoint.clone(), self.cluster.clone(), self.requeuer.clone()));
        engine.limit(self.ceiling(&endpoint));
        let task = AbortOnDropHandle::new(tokio::spawn(follow(Arc::clone(&engine))));
        let engine = Arc::new(Followed { engine, images: Mutex::default(), _task: task });
        followed.insert(endpoint, Arc::downgrade(&engine));
        engine
    }

    /// Says how many runners all scale sets together may have on each engine, in place of what was said before.
    pub fn limit(&self, ceilings: &[HostCeiling]) {
        ceilings.clone_into(&mut self.ceilings.lock().unwrap_or_else(PoisonError::into_inner));
        for Followed { engine, .. } in self.engines().iter().map(|followed| &**followed) {
            engine.limit(self.ceiling(&engine.endpoint));
        }
    }

    fn ceiling(&self, endpoint: &Endpoint) -> Option<u32> {
        let ceilings = self.ceilings.lock().unwrap_or_else(PoisonError::into_inner);
        HostCeiling::lowest(&ceilings, |at| Endpoint::parse(at).as_ref() == Ok(endpoint))
    }

    /// All containers of this cluster on all engines, those whose scale set nobody knows among them. No IO.
    pub fn all_instances(&self) -> Vec<EngineListing> {
        self.engines().iter().map(|followed| listing(&followed.engine)).collect()
    }

    /// The slots of each engine: its endpoint, those taken, and those free where there is a limit.
    pub fn slots(&self) -> Vec<(String, u32, Option<u32>)> {
        let slots = |followed: &Arc<Followed>| {
            let state = followed.engine.state();
            let free = state.slots.ceiling.map(|_| state.slots.free(&state.index));
            (followed.engine.endpoint.to_string(), state.slots.taken(&state.index), free)
        };
        self.engines().iter().map(slots).collect()
    }

    /// Removes a container of a scale set of this cluster, for which no backend speaks. [`Error::Gone`] when there is none.
    pub async fn remove(&self, endpoint: &str, scale_set_uid: &str, instance_id: &str) -> Result<(), Error> {
        let endpoint = Endpoint::parse(endpoint).map_err(Error::Refused)?;
        let followed = self.engines().into_iter().find(|followed| followed.engine.endpoint == endpoint);
        let followed = followed.ok_or_else(|| Error::Unreachable(format!("{endpoint} is not followed")))?;
        container::remove(&followed.engine, scale_set_uid, instance_id).await
    }

    fn engines(&self) -> Vec<Arc<Followed>> {
        let followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        followed.values().filter_map(Weak::upgrade).collect()
    }
}

fn listing(engine: &Engine) -> EngineListing {
    let state = engine.state();
    let ours = state.index.containers().filter(|known| known.cluster == engine.cluster);
    let found = ours.map(|known| Found {
        instance: Instance { host: engine.endpoint.to_string(), ..known.instance.clone() },
        scale_set: known.scale_set.clone(),
    });
    EngineListing {
        endpoint: engine.endpoint.to_string(),
        listed_at: state.listed_at,
        current: matches!(state.link, Link::Up(_)),
        found: found.collect(),
    }
}
