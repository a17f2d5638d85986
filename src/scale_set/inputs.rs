//! What a scale set is made from: its spec and all that this refers to, made strict.

use std::sync::Arc;

use crate::api::{self, RunnerScaleSet};
use crate::backend::{HostKey, Providers, Resolved};
use crate::github::{ClientConfig, WantedScaleSet};
use crate::plan::Policy;

/// What a scale set is made from, nothing left to look up.
pub struct Inputs {
    /// How GitHub is reached.
    pub client: ClientConfig,
    /// What is to be there.
    pub scale_set: WantedScaleSet,
    /// The rules for its size.
    pub policy: Policy,
    /// Its backends, in order.
    pub backends: Vec<BackendInput>,
}

/// A backend of a scale set.
#[derive(Clone)]
pub struct BackendInput {
    /// Its name.
    pub name: String,
    /// Its ceiling.
    pub max_runners: Option<u32>,
    /// What it starts, and where.
    pub resolved: Arc<dyn Resolved>,
}

impl BackendInput {
    /// A backend of a spec, with what its block came to.
    pub fn new(backend: &api::Backend, resolved: Arc<dyn Resolved>) -> BackendInput {
        let max_runners = backend.max_runners.map(|max| max.max(0).unsigned_abs());
        BackendInput { name: backend.name.clone(), max_runners, resolved }
    }

    /// Whether a backend that was made from this is one that the other would make.
    pub fn makes_the_same(&self, other: &BackendInput) -> bool {
        self.name == other.name && self.resolved.fingerprint() == other.resolved.fingerprint()
    }

    /// The hosts that it names and that can be one.
    pub fn host_keys(&self) -> impl Iterator<Item = &HostKey> {
        self.resolved.hosts().iter().filter_map(|host| host.key.as_ref())
    }
}

/// What can be told of a spec without reading anything: enough to see what runs, not to start more.
pub fn partial(object: &RunnerScaleSet, providers: &Providers) -> (Option<Policy>, Vec<BackendInput>) {
    let mut spec = object.spec.clone();
    spec.schedules.clear();
    let backend =
        |backend: &api::Backend| Some(BackendInput::new(backend, providers.resolve_offline(backend)?));
    (Policy::from_spec(&spec).ok(), spec.backends.iter().filter_map(backend).collect())
}
