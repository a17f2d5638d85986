//! The hosts in truth: what runs on them, what was asked of them, and what fails next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use jiff::Timestamp;
use paddock::backend::{Error, ResolveError};
use paddock::runner::{Exit, Instance, InstanceState, JitConfiguration};
use testkit::changes::{Changes, Follower};

use crate::stage::PRINTED;

/// The world that the hosts are in. By itself it is the real one, and what is started there does nothing.
pub trait World: Send + Sync {
    /// Returns the time.
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    /// Has an instance that has just come up on a host do what it does, with the JIT configuration that it was started with.
    fn runs(&self, endpoint: &str, instance: &Instance, jit: &JitConfiguration) {
        let _ = (endpoint, instance, jit);
    }
}

struct Real;

impl World for Real {}

/// The hosts of a test. Clones are the same.
#[derive(Clone)]
pub struct Hosts(Arc<Shared>);

struct Shared {
    truth: Mutex<Truth>,
    changed: Changes,
    world: Box<dyn World>,
}

#[derive(Default)]
struct Truth {
    silent: BTreeSet<String>,
    /// By id.
    instances: BTreeMap<String, Made>,
    made: usize,
    calls: Vec<Call>,
    failures: Vec<(Method, Error)>,
    unresolved: Vec<ResolveError>,
    faults: BTreeSet<Fault>,
}

/// An instance, in truth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Made {
    pub(super) endpoint: String,
    pub(super) cluster: String,
    pub(super) scale_set: String,
    pub(super) instance: Instance,
}

/// What a controller may ask for that takes effect or fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `Provider::resolve`. It fails by [`Hosts::fail_next_resolve`].
    Resolve,
    /// `Backend::prepare`. When it fails, the host stays unprepared and says why.
    Prepare,
    /// `Backend::reserve`. When it fails, no slot is free.
    Reserve,
    /// `Reservation::ready`.
    Ready,
    /// `Reservation::start`.
    Start,
    /// `Backend::remove`.
    Remove,
    /// `Backend::log_tail`.
    LogTail,
    /// `Provider::remove_orphan`.
    RemoveOrphan,
}

/// A call that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What was asked for.
    pub method: Method,
    /// The host's endpoint; empty where a block was to be resolved.
    pub host: String,
    /// The backend of the block, the runner that was to be started, or the id of the instance; else empty.
    pub subject: String,
}

/// A breach of what a plan may expect, to be planted: the suite must notice each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A reservation that is dropped keeps its slot.
    LeakedSlot,
    /// A slot is always free.
    NoMaximum,
    /// What the operator says of a host is passed over.
    NoCeiling,
    /// The smallest maximum that any scale set states holds for all.
    SharedMaximum,
    /// Foreign instances take no slot.
    ForeignTakesNoSlot,
    /// Slots that come free are kept for nobody.
    NoQueue,
    /// A host takes starts before it was listed.
    StartsUnseen,
    /// Each spelling of an endpoint is a host of its own.
    KeyAsSpelled,
    /// A start ends with its future.
    AbandonedStart,
    /// An instance is listed a moment after its start was answered.
    ListedLate,
    /// Exit codes are not told.
    NoExitCode,
    /// What ended is not shown any more.
    EndedVanishes,
    /// An instance is shown without its template's hash.
    NoTemplateHash,
    /// Nobody is requeued.
    NoRequeue,
    /// Removing what is gone succeeds.
    GoneIsRemoved,
    /// Whoever asks may remove and read an instance of this cluster.
    AnyScaleSet,
    /// What is asked for is removed whatever its cluster.
    AnyCluster,
    /// A backend shows what is its own by name and no more.
    NoAdoption,
    /// The provider shows no instance of a scale set that has no backend.
    OrphansUnseen,
    /// All blocks have the same fingerprint.
    OneFingerprint,
    /// The hash of a template has the hosts in it.
    HashOfHosts,
    /// A host that falls silent is shown empty.
    SilentIsEmpty,
    /// A host that falls silent is shown as current.
    SilentIsCurrent,
    /// Instances print nothing.
    NoLog,
}

impl Hosts {
    /// Hosts on which nothing runs. Every endpoint `fake://NAME` is one.
    pub fn new() -> Hosts {
        Hosts::within(Real)
    }

    /// Hosts in a world, on which nothing runs.
    pub fn within(world: impl World + 'static) -> Hosts {
        let world = Box::new(world);
        Hosts(Arc::new(Shared { truth: Mutex::default(), changed: Changes::default(), world }))
    }

    pub(super) fn world(&self) -> &dyn World {
        &*self.0.world
    }

    fn truth(&self) -> MutexGuard<'_, Truth> {
        self.0.truth.lock().expect("no test panics with it")
    }

    fn change<T>(&self, change: impl FnOnce(&mut Truth) -> T) -> T {
        let changed = change(&mut self.truth());
        self.0.changed.tell();
        changed
    }

    /// Returns the calls so far, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.truth().calls.clone()
    }

    /// Fails the next call of a method that has not failed yet; those asked for before fail first.
    pub fn fail_next(&self, method: Method, error: Error) {
        self.truth().failures.push((method, error));
    }

    /// Fails the next block that is to be resolved; those asked for before fail first.
    pub fn fail_next_resolve(&self, error: ResolveError) {
        self.truth().unresolved.push(error);
    }

    /// Plants a fault.
    pub fn plant(&self, fault: Fault) {
        self.truth().faults.insert(fault);
    }

    /// Ends an instance with an exit code.
    pub fn end(&self, id: &str, code: i64) {
        let now = self.world().now();
        self.change(|truth| {
            let code = (!truth.faults.contains(&Fault::NoExitCode)).then_some(code);
            let exit = Exit { code, out_of_memory: false, at: now, ..Exit::default() };
            truth.instances.get_mut(id).expect("an instance").instance.state = InstanceState::Exited(exit);
        });
    }

    /// Takes an instance away, so that nothing is left of it.
    pub fn take_away(&self, id: &str) {
        self.change(|truth| truth.instances.remove(id));
    }

    /// Adds an instance of another cluster to a host, and returns its id.
    pub fn add_foreign(&self, endpoint: &str) -> String {
        let instance = Instance {
            id: String::new(),
            runner: "theirs".to_owned(),
            scale_set_uid: "theirs".to_owned(),
            backend: "theirs".to_owned(),
            host: String::new(),
            template_hash: "theirs".to_owned(),
            created_at: self.world().now(),
            state: InstanceState::Running,
        };
        self.make(Made {
            endpoint: endpoint.to_owned(),
            cluster: "another".to_owned(),
            scale_set: "ci/theirs".to_owned(),
            instance,
        })
    }

    /// Tells whether there is an instance.
    pub fn has(&self, id: &str) -> bool {
        self.truth().instances.contains_key(id)
    }

    /// Has a host answer nobody until [`Hosts::answer_again`].
    pub fn fall_silent(&self, endpoint: &str) {
        self.change(|truth| truth.silent.insert(endpoint.to_owned()));
    }

    /// Tells whether a host answers nobody.
    pub fn is_silent(&self, endpoint: &str) -> bool {
        self.truth().silent.contains(endpoint)
    }

    /// Has a host answer again.
    pub fn answer_again(&self, endpoint: &str) {
        self.change(|truth| truth.silent.remove(endpoint));
    }

    /// Notes a call.
    ///
    /// # Errors
    /// The one that it was to fail with.
    pub(super) fn called(&self, method: Method, host: &str, subject: &str) -> Result<(), Error> {
        let mut truth = self.truth();
        truth.calls.push(Call { method, host: host.to_owned(), subject: subject.to_owned() });
        match truth.failures.iter().position(|(failing, _)| *failing == method) {
            Some(at) => Err(truth.failures.remove(at).1),
            None => Ok(()),
        }
    }

    /// Notes that a block was to be resolved.
    ///
    /// # Errors
    /// The one that it was to fail with.
    pub(super) fn resolving(&self, backend: &str) -> Result<(), ResolveError> {
        let mut truth = self.truth();
        let subject = backend.to_owned();
        truth.calls.push(Call { method: Method::Resolve, host: String::new(), subject });
        if truth.unresolved.is_empty() { Ok(()) } else { Err(truth.unresolved.remove(0)) }
    }

    pub(super) fn has_fault(&self, fault: Fault) -> bool {
        self.truth().faults.contains(&fault)
    }

    /// Tells of every change from now on.
    pub(super) fn follow(&self) -> Follower {
        self.0.changed.follow()
    }

    /// Returns what runs on a host; none while it does not answer.
    pub(super) fn list(&self, endpoint: &str) -> Option<BTreeMap<String, Made>> {
        let truth = self.truth();
        if truth.silent.contains(endpoint) {
            return None;
        }
        let there = truth.instances.iter().filter(|(_, made)| made.endpoint == endpoint);
        Some(there.map(|(id, made)| (id.clone(), made.clone())).collect())
    }

    /// Makes an instance and returns the id that it got.
    pub(super) fn make(&self, mut made: Made) -> String {
        self.change(|truth| {
            truth.made += 1;
            made.instance.id = format!("fake-{}", truth.made);
            if truth.faults.contains(&Fault::NoTemplateHash) {
                made.instance.template_hash.clear();
            }
            let id = made.instance.id.clone();
            truth.instances.insert(id.clone(), made);
            id
        })
    }

    /// Brings up an instance that was made, and returns it; none if it is gone.
    pub(super) fn bring_up(&self, id: &str) -> Option<Instance> {
        self.change(|truth| {
            let instance = &mut truth.instances.get_mut(id)?.instance;
            if instance.state == InstanceState::Starting {
                instance.state = InstanceState::Running;
            }
            Some(instance.clone())
        })
    }

    /// Removes an instance of a scale set of a cluster.
    pub(super) fn remove(&self, endpoint: &str, cluster: &str, uid: &str, id: &str) -> Result<(), Error> {
        self.owned(endpoint, cluster, uid, id)?;
        self.change(|truth| truth.instances.remove(id));
        Ok(())
    }

    /// Reads what an instance of a scale set of a cluster printed.
    pub(super) fn log(&self, endpoint: &str, cluster: &str, uid: &str, id: &str) -> Result<String, Error> {
        self.owned(endpoint, cluster, uid, id)?;
        Ok(if self.has_fault(Fault::NoLog) { String::new() } else { format!("{PRINTED}\n") })
    }

    /// Refuses what is not the scale set's.
    fn owned(&self, endpoint: &str, cluster: &str, uid: &str, id: &str) -> Result<(), Error> {
        let truth = self.truth();
        if truth.silent.contains(endpoint) {
            return Err(Error::Unreachable(format!("{endpoint} is silent")));
        }
        let made = truth.instances.get(id).filter(|made| made.endpoint == endpoint).ok_or(Error::Gone)?;
        if made.cluster != cluster && !truth.faults.contains(&Fault::AnyCluster) {
            return Err(Error::Refused(format!("{id} does not belong to this cluster")));
        }
        if made.cluster == cluster
            && made.instance.scale_set_uid != uid
            && !truth.faults.contains(&Fault::AnyScaleSet)
        {
            return Err(Error::Refused(format!("{id} does not belong to this scale set")));
        }
        Ok(())
    }
}

impl Default for Hosts {
    fn default() -> Self {
        Hosts::new()
    }
}
