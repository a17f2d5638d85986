//! Where runners run. One trait that every backend meets, and the four kinds of error that a plan tells apart.

pub mod docker;
pub mod ecs;
pub mod remote;
pub mod tart;

mod examination;
mod host_failure;
mod image;
mod private_engine;
mod provider;
mod queue;
mod secrets;
mod settle;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

pub use examination::{Examination, Lack};
pub use provider::{
    Decorate, Fingerprint, FreedBytes, HostKey, HostUsage, NamedHost, OwnedInstance, Provider, Providers,
    References, ResolveError, Resolved,
};
pub use queue::SlotQueue;
pub use settle::settle;

use crate::api::{BackendType, Explanation, Reason};
pub use crate::runner::{Availability, HostState};
use crate::runner::{Instance, JitConfiguration, Observation};

/// One backend of one scale set: a template and the hosts it may be started on. What it knows of instances and hosts
/// it keeps by itself, from events and listings, and it wakes the scale set when that changes.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Its name in the scale set.
    fn name(&self) -> &str;

    /// Its kind.
    fn kind(&self) -> BackendType;

    /// Hash of all that affects the runners it starts.
    fn template_hash(&self) -> &str;

    /// Its hosts, as last known. No IO.
    fn hosts(&self) -> Vec<HostState>;

    /// The scale set's instances by host, as last known. No IO.
    fn instances(&self) -> Vec<Listing>;

    /// Begins in the background what must be done on a host before a start (an image to be pulled), and wakes the
    /// scale set when it ended. Asking again while it lasts changes nothing.
    fn prepare(&self, host: &str);

    /// Says for how many runners a slot on a host is wanted and not there; none ends that. Slots that come free are kept
    /// for a few seconds for who has waited longest. No IO; to be said at each look.
    fn wait_for_slots(&self, host: &str, runners: u32);

    /// Takes a slot on a host, if one is free that is not kept for another.
    fn reserve(&self, host: &str) -> Option<Box<dyn Reservation>>;

    /// Keeps instances ready ahead of need, as many as the spec asks for, in the background; or removes them where they are
    /// not wanted. Wakes the scale set when that changed something. No IO; to be said at each look, after what was
    /// reserved in it.
    fn keep_warm(&self, wanted: bool);

    /// How many instances are ready ahead of need. None: this kind has none.
    fn warm(&self) -> Option<u32>;

    /// The hosts that have been silent for so long that nothing is counted on there: their idle runners count as gone. A kind
    /// whose hosts do not come and go by themselves has none.
    fn lost_hosts(&self) -> Vec<String>;

    /// How many instances without a runner are on its hosts, whatever their state.
    fn left_over(&self) -> u32;

    /// Takes what housekeeping has to tell of its hosts: each thing once. No IO. A kind that tells nothing has nothing to do.
    fn take_news(&self) -> Vec<HostNews> {
        Vec::new()
    }

    /// Removes what its runners shared, now that the last of them is gone and the scale set goes. Answers what stays, in words. A
    /// kind whose runners share nothing has nothing to do.
    async fn discard_shared(&self) -> Vec<String> {
        Vec::new()
    }

    /// Removes an instance, running or not. [`Error::Gone`] when there is none.
    async fn remove(&self, host: &str, instance_id: &str) -> Result<(), Error>;

    /// The last lines that an instance printed, for the report of a failure.
    async fn log_tail(&self, host: &str, instance_id: &str) -> Result<String, Error>;

    /// Looks what a host is like, for people who ask. It changes nothing there. A kind that has nothing to tell need not.
    async fn examine(&self, _host: &str) -> Result<Examination, Error> {
        Ok(Examination::default())
    }
}

/// What there is to tell of a host, beside what its status shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostNews {
    /// The host's name in the backend.
    pub host: String,
    /// Whether someone should look at it.
    pub warning: bool,
    /// What happened, in words.
    pub message: String,
}

/// The kinds of capacity that this program has, a line each. `cluster` is the cluster's id; `requeuer` is told which scale sets
/// should look again.
pub fn providers(cluster: &str, requeuer: &Requeuer) -> Providers {
    Providers::new(vec![
        Arc::new(docker::DockerProvider::new(cluster, requeuer.clone())),
        Arc::new(ecs::EcsProvider::new(cluster, requeuer.clone())),
        Arc::new(tart::TartProvider::new(cluster, requeuer.clone())),
    ])
}

/// A host that has not answered for so long is lost.
const SILENCE: Duration = Duration::from_secs(180);

/// Tells whether a backend of that name looks after what one called `other` made: `siblings` are the set's backends that share
/// a host with it, and what none of them is called was left by a rename or a move in the spec.
fn speaks_for(name: &str, siblings: &[String], other: &str) -> bool {
    other == name || (!siblings.is_empty() && !siblings.iter().any(|sibling| sibling == other))
}

/// A runner to be started.
#[derive(Debug)]
pub struct NewRunner<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it starts with: the encoded JIT configuration. A secret.
    pub jit: &'a JitConfiguration,
}

/// A slot taken on a host. Dropping it gives the slot back, unless [`Reservation::start`] has begun: then the slot turns
/// into the instance's own. A start has two steps, because a JIT configuration must not wait.
#[async_trait]
pub trait Reservation: Send {
    /// The host's name in the backend.
    fn host(&self) -> &str;

    /// Does all that needs no registration, such as pulling an image. It may take long, and has bounds of its own.
    /// Dropping the future abandons the wait and keeps the slot.
    async fn ready(&mut self) -> Result<(), Error>;

    /// Starts an instance for a runner and waits until it is up, or is on its way up where the backend shows how far it is.
    /// After an error nothing of it is left. It is carried through even if the future is dropped.
    async fn start(self: Box<Self>, runner: &NewRunner<'_>) -> Result<Instance, Error>;
}

/// How a backend says that something changed: called with the UID of the scale set that should look again. It must
/// return at once, and may be called more often than something changed.
#[derive(Clone)]
pub struct Requeuer(Arc<dyn Fn(&str) + Send + Sync>);

impl Requeuer {
    /// Requeues by calling `requeue`.
    pub fn new(requeue: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Requeuer(Arc::new(requeue))
    }

    /// Requeues a scale set, by its UID.
    pub fn requeue(&self, scale_set_uid: &str) {
        (self.0)(scale_set_uid);
    }
}

impl fmt::Debug for Requeuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Requeuer")
    }
}

/// The instances of one scale set on one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The host's name in the backend.
    pub host: String,
    /// When the host last answered a whole listing. None: never yet, so absence means nothing.
    pub listed_at: Option<Timestamp>,
    /// Whether what is shown is current: the event stream is up, or the last listing succeeded. When false, the
    /// instances are what was last known and absence means nothing.
    pub current: bool,
    /// What was made within this before a listing may be missing in it; all may that an earlier controller made, where it is
    /// the longest there is. None on a host that shows at once what it has.
    pub hides: Duration,
    /// The instances, those that ended and are not removed yet among them.
    pub instances: Vec<Instance>,
}

impl Listing {
    /// What the ledger of a scale set is to take over, of the backend of that name.
    pub fn observed(self, backend: &str) -> Observation {
        Observation {
            backend: backend.to_owned(),
            host: self.host,
            listed_at: self.listed_at.filter(|_| self.current),
            hides: self.hides,
            instances: self.instances,
        }
    }

    /// What is shown of a host of which nothing is known.
    fn unknown(host: &str) -> Listing {
        Listing {
            host: host.to_owned(),
            listed_at: None,
            current: false,
            hides: Duration::ZERO,
            instances: Vec::new(),
        }
    }
}

/// What went wrong on a backend, by what is to be done about it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No capacity now: back off, and let the next backend take it.
    #[error(transparent)]
    NoCapacity(Explanation),
    /// It does not exist (any more).
    #[error("it is gone")]
    Gone,
    /// It cannot work until something is changed.
    #[error("{0}")]
    Refused(String),
    /// No answer: try again, and keep what was last known.
    #[error("no answer: {0}")]
    Unreachable(String),
}

impl Error {
    /// No capacity now, for that reason.
    pub fn no_capacity(reason: Reason, message: impl Into<String>) -> Error {
        Error::NoCapacity(Explanation::new(reason, message))
    }

    /// The reason to be told of a start that failed so.
    pub fn reason(&self) -> Reason {
        match self {
            Error::NoCapacity(why) => why.reason,
            Error::Gone => Reason::Vanished,
            Error::Refused(_) => Reason::BackendRefused,
            Error::Unreachable(_) => Reason::HostUnreachable,
        }
    }
}
