//! The handle of one scale set: who it is, what runs for it, and its state behind a lock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::claim::Seniority;
use super::environment::Environment;
use super::registration::Target;
use super::state::ScaleSetState;
use crate::api::RunnerScaleSet;
use crate::runner::Identity;
use crate::telemetry::SetLabels;

/// How many runners of a set are being registered at a time.
const MINTED_AT_ONCE: usize = 16;
/// How many runners of a set are registered and not started yet on a host: enough to keep it busy, few enough that no
/// configuration waits for long.
const MINTED_AHEAD: usize = 16;

/// How many removals of a set GitHub is asked for at a time.
const DEREGISTERED_AT_ONCE: usize = 16;

/// The name of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectName {
    /// Its namespace.
    pub namespace: String,
    /// Its name there.
    pub name: String,
}

/// One scale set.
pub struct ScaleSetHandle {
    /// The object's UID.
    pub uid: String,
    /// Its namespace and name.
    pub object: ObjectName,
    /// What its instances carry.
    pub identity: Identity,
    /// What metrics carry.
    pub labels: SetLabels,
    /// Its place among objects that name the same scale set at GitHub.
    pub seniority: Seniority,
    /// Since when this process knows it.
    pub since: Timestamp,
    /// Its message session was opened: what waits for that goes on.
    pub session_opened: Notify,
    /// What every poll tells GitHub.
    pub capacity: watch::Sender<u32>,
    /// What is to be registered and listened to.
    pub target: watch::Sender<Option<Target>>,
    /// How much is under way for it at a time.
    pub limits: Limits,
    /// Everything that runs for it.
    pub tasks: TaskTracker,
    /// It is forgotten, or the process stops.
    pub ended: CancellationToken,
    state: Mutex<ScaleSetState>,
}

impl ScaleSetHandle {
    /// Begins to know an object: with what its status tells of the time before this process, and the scale set at GitHub
    /// that is recorded as its own. It ends with `ended`.
    pub fn load(
        object: &RunnerScaleSet,
        cluster: &str,
        own: Option<i64>,
        environment: &dyn Environment,
        ended: CancellationToken,
    ) -> ScaleSetHandle {
        let metadata = &object.metadata;
        let (namespace, name) =
            (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default());
        let uid = metadata.uid.clone().unwrap_or_default();
        let now = environment.now();
        let status = object.status.clone().unwrap_or_default().not_after(now);
        let (providers, uptime) = (environment.providers(), environment.uptime());
        ScaleSetHandle {
            identity: Identity {
                cluster: cluster.to_owned(),
                scale_set_uid: uid.clone(),
                scale_set: format!("{namespace}/{name}"),
            },
            labels: labels(&namespace, &name, &object.spec.github.url),
            seniority: Seniority::of(object),
            uid,
            object: ObjectName { namespace, name },
            since: now,
            session_opened: Notify::new(),
            capacity: watch::Sender::new(0),
            target: watch::Sender::new(None),
            limits: Limits::new(),
            tasks: TaskTracker::new(),
            ended,
            state: Mutex::new(ScaleSetState::restored(status, providers, own, now, uptime)),
        }
    }

    /// Its state. Never held over an await.
    pub fn state(&self) -> MutexGuard<'_, ScaleSetState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether its inputs come from a Secret or ConfigMap of that name.
    pub fn inputs_refer_to(&self, name: &str) -> bool {
        self.state().spec.referred.contains(name)
    }

    /// Has its spec judged and its inputs read again at the next reconcile, though they could not be read a moment ago.
    pub fn judge_again(&self) {
        let mut state = self.state();
        state.spec.changed = true;
        state.spec.read_again_at = None;
    }

    /// Has its inputs read again at the next reconcile.
    pub fn read_inputs_again(&self) {
        self.state().spec.changed = true;
    }
}

/// How much is under way for one scale set at a time.
pub struct Limits {
    /// Bounds the registrations that GitHub is asked for.
    pub minting: Semaphore,
    /// Bounds the removals that GitHub is asked for.
    pub deregistering: Semaphore,
    /// Bounds the registrations that wait for their start, by backend and host: one that hangs does not hold up the others.
    minted_ahead: Mutex<HashMap<(String, String), Arc<Semaphore>>>,
}

impl Limits {
    fn new() -> Limits {
        Limits {
            minting: Semaphore::new(MINTED_AT_ONCE),
            deregistering: Semaphore::new(DEREGISTERED_AT_ONCE),
            minted_ahead: Mutex::default(),
        }
    }

    /// What bounds the registrations that wait for their start on a host.
    pub fn minted_ahead(&self, backend: &str, host: &str) -> Arc<Semaphore> {
        let mut hosts = self.minted_ahead.lock().unwrap_or_else(PoisonError::into_inner);
        let of_host = hosts.entry((backend.to_owned(), host.to_owned()));
        of_host.or_insert_with(|| Arc::new(Semaphore::new(MINTED_AHEAD))).clone()
    }
}

/// Of a URL's path, one part is an organisation, two are a repository, and `enterprises/X` is an enterprise.
fn labels(namespace: &str, name: &str, url: &str) -> SetLabels {
    let mut labels =
        SetLabels { name: name.to_owned(), namespace: namespace.to_owned(), ..SetLabels::default() };
    let (_, path) = url.split_once("://").unwrap_or_default();
    let parts: Vec<&str> = path.split('/').skip(1).filter(|part| !part.is_empty()).collect();
    match parts[..] {
        ["enterprises", enterprise] => labels.enterprise = enterprise.to_owned(),
        [organization, repository] => {
            labels.organization = organization.to_owned();
            labels.repository = repository.to_owned();
        }
        [organization] => labels.organization = organization.to_owned(),
        _ => {}
    }
    labels
}
