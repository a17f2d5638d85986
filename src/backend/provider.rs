//! Kinds of capacity: who reads their blocks of a spec, and who knows all of their hosts.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Backend, Error};
use crate::api::{self, BackendType, Explanation, HostCeiling, Reason};
use crate::runner::{Identity, Instance};

/// One kind of capacity, once in the process: it knows every host, however many scale sets use it.
#[async_trait]
pub trait Provider: Send + Sync {
    /// Which kind.
    fn kind(&self) -> BackendType;

    /// Reads its own block of the spec, with what that refers to.
    async fn resolve(
        &self,
        spec: &api::Backend,
        references: &dyn References,
    ) -> Result<Arc<dyn Resolved>, ResolveError>;

    /// What can be known of the block without reading a Secret: enough to see and drain what runs, not to start more. None
    /// where the spec has no block of this kind.
    fn resolve_offline(&self, spec: &api::Backend) -> Option<Arc<dyn Resolved>>;

    /// One host alone, on which nothing is started any more. None where no spec may name that endpoint.
    fn resolve_host(&self, name: &str, endpoint: &str) -> Option<Arc<dyn Resolved>>;

    /// Sets what all scale sets together may have on a host, in place of what was set before, and wakes those for whom a slot
    /// comes free by it. Endpoints of other kinds are passed over. A kind whose hosts have no slots has nothing to do.
    fn limit_hosts(&self, ceilings: &[HostCeiling]);

    /// Every host that is in use. No IO.
    fn hosts(&self) -> Vec<HostUsage>;

    /// What housekeeping freed on each host since this process began. No IO.
    fn freed(&self) -> Vec<FreedBytes>;

    /// The instances of this cluster on all hosts that answer, whatever their scale set, as last known. No IO.
    fn instances(&self) -> Vec<OwnedInstance>;

    /// Removes an instance that no scale set speaks for. It is no error if there is none.
    async fn remove_orphan(&self, orphan: &OwnedInstance) -> Result<(), Error>;
}

/// A spec's block made strict: nothing of it is left to look up.
pub trait Resolved: Send + Sync {
    /// Two of one kind with the same fingerprint make the same backend: an unchanged one is kept.
    fn fingerprint(&self) -> Fingerprint;

    /// The hosts that the block names. No IO.
    fn hosts(&self) -> &[NamedHost];

    /// Why some of the hosts cannot be logged in to, each naming the field: the backend goes without them. A kind that has
    /// such a block refused as a whole has none. No IO.
    fn unusable_logins(&self) -> Vec<String> {
        Vec::new()
    }

    /// The backend of one scale set, which goes by that name there. `siblings` are the scale set's backends that share a host
    /// with it, itself among them. Must be called within a Tokio runtime.
    fn open(&self, name: &str, siblings: &[String], owner: &Identity) -> Arc<dyn Backend>;
}

/// Tells resolved blocks apart, Secrets included. It means nothing to another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub u64);

/// Reads what a spec refers to, and notes each name, so that a change is noticed.
#[async_trait]
pub trait References: Send + Sync {
    /// The text of a key of a Secret in the object's namespace. `field` is where the spec names it, for the error.
    async fn secret_text(&self, field: &str, secret: &str, key: &str) -> Result<String, ResolveError>;
}

/// Why a block cannot be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// A change by a person is needed.
    #[error(transparent)]
    Unusable(Explanation),
    /// What it refers to cannot be read now: try again.
    #[error("{0}")]
    Unread(String),
}

impl ResolveError {
    /// A change by a person is needed: `message` says of which field, and to what.
    pub fn unusable(reason: Reason, message: impl Into<String>) -> ResolveError {
        ResolveError::Unusable(Explanation::new(reason, message))
    }
}

/// A host, however a spec calls it and spells its endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostKey {
    /// The kind of capacity.
    pub kind: BackendType,
    /// Its endpoint in the one spelling that its kind has for it.
    pub endpoint: String,
}

/// A host as a spec names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedHost {
    /// Its name in the backend.
    pub name: String,
    /// Its endpoint, as the spec spells it.
    pub endpoint: String,
    /// Which host it is; none if it can be none.
    pub key: Option<HostKey>,
}

/// The slots of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostUsage {
    /// Which host.
    pub host: HostKey,
    /// Those taken.
    pub taken: u32,
    /// Those free, where there is a limit.
    pub free: Option<u32>,
}

/// What housekeeping freed on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FreedBytes {
    /// Which host.
    pub host: HostKey,
    /// What it was freed from, in one word of its kind.
    pub store: &'static str,
    /// How much.
    pub bytes: u64,
}

/// An instance of this cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedInstance {
    /// Where it is.
    pub host: HostKey,
    /// `namespace/name` of the scale set that it was made for.
    pub scale_set: String,
    /// The instance.
    pub instance: Instance,
}

/// All kinds of capacity that a process has.
#[derive(Clone)]
pub struct Providers {
    kinds: Vec<Arc<dyn Provider>>,
    decorate: Option<Decorate>,
}

/// Wraps a backend in what is common to all kinds.
pub type Decorate = Arc<dyn Fn(Arc<dyn Backend>) -> Arc<dyn Backend> + Send + Sync>;

impl Providers {
    /// These, one of each kind.
    pub fn new(providers: Vec<Arc<dyn Provider>>) -> Providers {
        Providers { kinds: providers, decorate: None }
    }

    /// The same, with every backend that is opened from now on wrapped by `decorate`.
    pub fn decorated(&self, decorate: Decorate) -> Providers {
        Providers { kinds: self.kinds.clone(), decorate: Some(decorate) }
    }

    /// The providers, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Provider>> {
        self.kinds.iter()
    }

    /// As [`Resolved::open`], decorated.
    pub fn open(
        &self,
        resolved: &dyn Resolved,
        name: &str,
        siblings: &[String],
        owner: &Identity,
    ) -> Arc<dyn Backend> {
        let backend = resolved.open(name, siblings, owner);
        match &self.decorate {
            Some(decorate) => decorate(backend),
            None => backend,
        }
    }

    fn of(&self, kind: BackendType) -> Option<&Arc<dyn Provider>> {
        self.kinds.iter().find(|provider| provider.kind() == kind)
    }

    /// As [`Provider::resolve`], by the provider of the block's kind.
    ///
    /// # Errors
    /// Those of the provider; [`ResolveError::Unusable`] where there is none.
    pub async fn resolve(
        &self,
        spec: &api::Backend,
        references: &dyn References,
    ) -> Result<Arc<dyn Resolved>, ResolveError> {
        if let Some(provider) = spec.kind().and_then(|kind| self.of(kind)) {
            return provider.resolve(spec, references).await;
        }
        let kind = spec.kind().map_or_else(|| "its kind".to_owned(), |kind| kind.to_string());
        let message = format!(
            "spec.backends[{}]: backends of type {kind} are not available in this version",
            spec.name
        );
        Err(ResolveError::unusable(Reason::BackendNotAvailable, message))
    }

    /// As [`Provider::resolve_offline`].
    pub fn resolve_offline(&self, spec: &api::Backend) -> Option<Arc<dyn Resolved>> {
        self.of(spec.kind()?)?.resolve_offline(spec)
    }

    /// As [`Provider::resolve_host`], for a host of that kind.
    pub fn resolve_host(&self, kind: BackendType, name: &str, endpoint: &str) -> Option<Arc<dyn Resolved>> {
        self.of(kind)?.resolve_host(name, endpoint)
    }

    /// As [`Provider::limit_hosts`], of all kinds.
    pub fn limit_hosts(&self, ceilings: &[HostCeiling]) {
        self.kinds.iter().for_each(|provider| provider.limit_hosts(ceilings));
    }

    /// The one spelling of an endpoint among the hosts of a kind; none where it can be none of them. Reads links of the
    /// file system where the kind follows them.
    pub fn spelling(&self, kind: BackendType, endpoint: &str) -> Option<String> {
        let resolved = self.resolve_host(kind, "", endpoint)?;
        resolved.hosts().first()?.key.as_ref().map(|key| key.endpoint.clone())
    }

    /// As [`Provider::hosts`], of all kinds.
    pub fn hosts(&self) -> Vec<HostUsage> {
        self.kinds.iter().flat_map(|provider| provider.hosts()).collect()
    }

    /// As [`Provider::freed`], of all kinds.
    pub fn freed(&self) -> Vec<FreedBytes> {
        self.kinds.iter().flat_map(|provider| provider.freed()).collect()
    }

    /// As [`Provider::instances`], of all kinds.
    pub fn instances(&self) -> Vec<OwnedInstance> {
        self.kinds.iter().flat_map(|provider| provider.instances()).collect()
    }

    /// As [`Provider::remove_orphan`].
    ///
    /// # Errors
    /// Those of the provider.
    pub async fn remove_orphan(&self, orphan: &OwnedInstance) -> Result<(), Error> {
        match self.of(orphan.host.kind) {
            Some(provider) => provider.remove_orphan(orphan).await,
            None => Err(Error::Unreachable(format!("nothing reaches hosts of kind {}", orphan.host.kind))),
        }
    }
}
