//! A controller as the suite plays it: one provider, the scale sets that it serves, and how often each was requeued.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use paddock::api::{self, HostCeiling};
use paddock::backend::{
    Availability, Backend, Error, HostKey, HostState, HostUsage, Listing, NewRunner, OwnedInstance,
    Providers, References, Requeuer, Reservation, ResolveError, Resolved,
};
use paddock::runner::{Exit, Identity, Instance, InstanceState, JitConfiguration, runner_name};
use testkit::wait::eventually;

use crate::stage::{BACKEND, Block, Secrets, Stage};

/// A controller of the stage's cluster.
pub struct Controller {
    /// The kinds of capacity that it has: the stage's.
    pub providers: Providers,
    cluster: String,
    secrets: Arc<Namespace>,
    requeued: Arc<Mutex<HashMap<String, usize>>>,
    patience: Duration,
}

/// A scale set's backend with the stage's host, as a controller has it.
pub struct ScaleSet {
    /// The backend.
    pub backend: Arc<dyn Backend>,
    /// The scale set's UID.
    pub uid: String,
    /// The host's name in the backend.
    pub host_name: String,
    /// Which host it is.
    pub key: HostKey,
    requeued: Arc<Mutex<HashMap<String, usize>>>,
    providers: Providers,
    patience: Duration,
}

/// The Secrets of a stage, where its scale sets are.
struct Namespace(Secrets);

#[async_trait]
impl References for Namespace {
    async fn secret_text(&self, field: &str, secret: &str, key: &str) -> Result<String, ResolveError> {
        let unread = || ResolveError::Unread(format!("{field}: there is no {key} in a Secret {secret}"));
        self.0.get(&(secret, key)).cloned().ok_or_else(unread)
    }
}

impl Controller {
    /// A controller that knows nothing yet.
    pub fn new<S: Stage>(stage: &S) -> Controller {
        let requeued = Arc::<Mutex<HashMap<String, usize>>>::default();
        let counts = requeued.clone();
        let requeuer =
            Requeuer::new(move |uid| *counts.lock().unwrap().entry(uid.to_owned()).or_default() += 1);
        Controller {
            providers: Providers::new(vec![stage.provider(requeuer)]),
            cluster: stage.cluster().to_owned(),
            secrets: Arc::new(Namespace(stage.secrets())),
            requeued,
            patience: S::PATIENCE,
        }
    }

    /// Resolves a block, which must succeed.
    pub async fn resolve(&self, spec: &api::Backend) -> Arc<dyn Resolved> {
        self.try_resolve(spec).await.unwrap()
    }

    /// Resolves a block.
    pub async fn try_resolve(&self, spec: &api::Backend) -> Result<Arc<dyn Resolved>, ResolveError> {
        self.providers.resolve(spec, &*self.secrets).await
    }

    /// Opens the backend of a scale set, by its UID. The maximum of the block is the operator's for the host too.
    pub async fn scale_set<S: Stage>(&self, stage: &S, uid: &str, block: &Block) -> ScaleSet {
        let resolved = self.resolve(&stage.backend(block)).await;
        if let Some(max_runners) = block.max_runners {
            self.limit(&*resolved, max_runners.into());
        }
        self.open(&*resolved, BACKEND, &[BACKEND], uid)
    }

    /// Says what all scale sets together may have on the host of a block.
    pub fn limit(&self, resolved: &dyn Resolved, max_runners: u32) {
        let endpoint = resolved.hosts()[0].endpoint.clone();
        self.providers.limit_hosts(&[HostCeiling { endpoint, max_runners }]);
    }

    /// Opens a resolved block as the backend of that name, one of those that share the host.
    pub fn open(&self, resolved: &dyn Resolved, name: &str, siblings: &[&str], uid: &str) -> ScaleSet {
        let owner = Identity {
            cluster: self.cluster.clone(),
            scale_set_uid: uid.to_owned(),
            scale_set: format!("ci/{uid}"),
        };
        let siblings: Vec<String> = siblings.iter().map(|name| (*name).to_owned()).collect();
        ScaleSet {
            backend: self.providers.open(resolved, name, &siblings, &owner),
            uid: uid.to_owned(),
            host_name: resolved.hosts()[0].name.clone(),
            key: resolved.hosts()[0].key.clone().expect("the stage's host can be one"),
            requeued: self.requeued.clone(),
            providers: self.providers.clone(),
            patience: self.patience,
        }
    }

    /// Waits until the provider shows an instance, whatever its scale set.
    pub async fn owned(&self, id: &str) -> OwnedInstance {
        let find = async || self.providers.instances().into_iter().find(|owned| owned.instance.id == id);
        eventually("the provider shows the instance", self.patience, find).await
    }
}

impl ScaleSet {
    /// Waits until something is so.
    pub async fn until<T>(&self, what: &str, mut find: impl FnMut() -> Option<T>) -> T {
        eventually(what, self.patience, async || find()).await
    }

    /// Returns the host as the backend shows it now.
    pub fn host(&self) -> HostState {
        let [host] = &self.backend.hosts()[..] else { panic!("one host: {:?}", self.backend.hosts()) };
        host.clone()
    }

    /// Returns how many slots are free for the scale set.
    pub fn free(&self) -> u32 {
        self.host().free_slots
    }

    /// Returns the slots of the host as the provider shows them now.
    pub fn usage(&self) -> HostUsage {
        let hosts = self.providers.hosts();
        let usage = hosts.iter().find(|usage| usage.host == self.key);
        usage.unwrap_or_else(|| panic!("{:?} is in use: {hosts:?}", self.key)).clone()
    }

    /// Returns what the backend shows now.
    pub fn listing(&self) -> Listing {
        let [listing] = &self.backend.instances()[..] else { panic!("one host: {:?}", self.backend.hosts()) };
        listing.clone()
    }

    /// Returns an instance as the backend shows it now.
    pub fn shown(&self, id: &str) -> Option<Instance> {
        self.listing().instances.into_iter().find(|instance| instance.id == id)
    }

    /// Returns how an instance ended, as the backend shows it now.
    pub fn exit(&self, id: &str) -> Option<Exit> {
        match self.shown(id)?.state {
            InstanceState::Exited(exit) => Some(exit),
            _ => None,
        }
    }

    /// Returns how often the scale set was requeued.
    pub fn requeued(&self) -> usize {
        self.requeued.lock().unwrap().get(&self.uid).copied().unwrap_or_default()
    }

    /// Waits until the scale set was requeued more often than so.
    pub async fn requeued_after(&self, before: usize, by: &str) {
        self.until(&format!("{by} requeues {}", self.uid), || (self.requeued() > before).then_some(())).await;
    }

    /// Waits until the host was listed.
    pub async fn seen(&self) {
        self.until("the host is listed", || self.listing().current.then_some(())).await;
    }

    /// Prepares the host and waits until it is ready.
    pub async fn ready(&self) {
        self.seen().await;
        self.until("the host is ready", || {
            let host = self.host();
            match host.availability {
                Availability::Ready => return Some(()),
                Availability::Refused => panic!("the host refuses: {}", host.message),
                Availability::Unprepared => self.backend.prepare(&self.host_name),
                Availability::Preparing { .. } | Availability::BackOff { .. } | Availability::Unreachable => {
                }
            }
            None
        })
        .await;
    }

    /// Takes a slot, if one is free.
    pub fn reserve(&self) -> Option<Box<dyn Reservation>> {
        self.backend.reserve(&self.host_name)
    }

    /// Prepares the host and starts a runner, which must succeed.
    pub async fn start(&self) -> Instance {
        self.ready().await;
        let slot = self.reserve().expect("a free slot");
        start_in(slot, &runner_name("linux")).await.unwrap()
    }

    /// Starts a runner and waits until it is shown to run.
    pub async fn running(&self) -> Instance {
        let started = self.start().await;
        self.until_running(&started.id).await
    }

    /// Waits until an instance is shown to run, by a listing that is current: an event may tell of it sooner.
    pub async fn until_running(&self, id: &str) -> Instance {
        let runs = |instance: &Instance| instance.state == InstanceState::Running;
        let running = || self.shown(id).filter(|instance| self.listing().current && runs(instance));
        self.until("the instance is shown to run", running).await
    }

    /// Waits until an instance is shown to have ended.
    pub async fn until_ended(&self, id: &str) -> Exit {
        self.until("the instance is shown to have ended", || self.exit(id)).await
    }

    /// Waits until an instance is not shown any more.
    pub async fn until_absent(&self, id: &str) {
        let absent = || (self.listing().current && self.shown(id).is_none()).then_some(());
        self.until("the instance is not shown any more", absent).await;
    }

    /// Removes an instance.
    pub async fn remove(&self, id: &str) -> Result<(), Error> {
        self.backend.remove(&self.host_name, id).await
    }

    /// Reads what an instance printed.
    pub async fn log_tail(&self, id: &str) -> Result<String, Error> {
        self.backend.log_tail(&self.host_name, id).await
    }
}

/// Starts a runner in a slot, both steps.
pub async fn start_in(mut slot: Box<dyn Reservation>, name: &str) -> Result<Instance, Error> {
    slot.ready().await?;
    let jit = JitConfiguration::new("conformance".to_owned());
    slot.start(&NewRunner { name, jit: &jit }).await
}

/// Begins a start in a slot that is ready, and drops its future once it waits.
pub fn begin_start(slot: Box<dyn Reservation>, name: &str) {
    let jit = JitConfiguration::new("conformance".to_owned());
    let runner = NewRunner { name, jit: &jit };
    let answered = slot.start(&runner).now_or_never();
    assert!(answered.is_none(), "a start that waits for nothing: {answered:?}");
}
