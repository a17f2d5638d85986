//! The fake as a kind of capacity: reads a block, and knows the hosts of one controller.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use async_trait::async_trait;
use paddock::api::{self, BackendType, HostCeiling, Reason};
use paddock::backend::{
    Backend, Error, Fingerprint, FreedBytes, HostKey, HostUsage, NamedHost, OwnedInstance, Provider,
    References, Requeuer, ResolveError, Resolved,
};
use paddock::runner::{Identity, Instance};

use super::backend::{Bound, FakeBackend};
use super::hosts::{Fault, Hosts, Method};
use super::view::Followed;

/// Fake hosts, as one controller reaches them.
pub struct FakeProvider(Arc<Reached>);

struct Reached {
    hosts: Hosts,
    cluster: String,
    requeuer: Requeuer,
    followed: Mutex<BTreeMap<String, Weak<Followed>>>,
    ceilings: Mutex<Vec<HostCeiling>>,
}

/// A block, and the hosts that its backend is to use.
struct FakeBlock {
    block: api::Docker,
    hosts: Vec<NamedHost>,
    reached: Arc<Reached>,
}

impl FakeProvider {
    /// Knows no host yet. `cluster` is the cluster's id; `requeuer` is told which scale sets should look again.
    pub fn new(hosts: &Hosts, cluster: &str, requeuer: Requeuer) -> FakeProvider {
        FakeProvider(Arc::new(Reached {
            hosts: hosts.clone(),
            cluster: cluster.to_owned(),
            requeuer,
            followed: Mutex::default(),
            ceilings: Mutex::default(),
        }))
    }

    fn resolved(&self, block: api::Docker) -> Arc<dyn Resolved> {
        let named = |host: &api::DockerHost| NamedHost {
            name: host.name.clone(),
            endpoint: host.endpoint.clone(),
            key: self.0.endpoint(&host.endpoint).map(key),
        };
        let hosts = block.hosts.iter().map(named).collect();
        Arc::new(FakeBlock { block, hosts, reached: self.0.clone() })
    }
}

impl Reached {
    /// Returns an endpoint in its one spelling, if it is one.
    fn endpoint(&self, spelled: &str) -> Option<String> {
        let name = spelled.strip_prefix("fake://")?;
        let name =
            if self.hosts.has_fault(Fault::KeyAsSpelled) { name.to_owned() } else { name.to_lowercase() };
        Some(format!("fake://{name}"))
    }

    /// Returns a host, followed from now on at the latest.
    fn follow(&self, endpoint: &str) -> Arc<Followed> {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = followed.get(endpoint).and_then(Weak::upgrade) {
            return known;
        }
        let host = Arc::new(Followed::new(endpoint, &self.cluster, &self.hosts, &self.requeuer));
        host.host.limit(self.ceiling(endpoint));
        followed.insert(endpoint.to_owned(), Arc::downgrade(&host));
        host
    }

    fn ceiling(&self, endpoint: &str) -> Option<u32> {
        let ceilings = self.ceilings.lock().unwrap_or_else(PoisonError::into_inner);
        HostCeiling::lowest(&ceilings, |at| self.endpoint(at).as_deref() == Some(endpoint))
    }

    fn in_use(&self) -> Vec<Arc<Followed>> {
        let followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        followed.values().filter_map(Weak::upgrade).collect()
    }
}

#[async_trait]
impl Provider for FakeProvider {
    fn kind(&self) -> BackendType {
        BackendType::Docker
    }

    async fn resolve(
        &self,
        spec: &api::Backend,
        _: &dyn References,
    ) -> Result<Arc<dyn Resolved>, ResolveError> {
        self.0.hosts.resolving(&spec.name)?;
        let missing = || ResolveError::unusable(Reason::InvalidSpec, "there is no `docker` block");
        self.resolve_offline(spec).ok_or_else(missing)
    }

    fn resolve_offline(&self, spec: &api::Backend) -> Option<Arc<dyn Resolved>> {
        spec.docker.clone().map(|block| self.resolved(block))
    }

    fn resolve_host(&self, name: &str, endpoint: &str) -> Option<Arc<dyn Resolved>> {
        self.0.endpoint(endpoint)?;
        let host = api::DockerHost {
            name: name.to_owned(),
            endpoint: endpoint.to_owned(),
            ..api::DockerHost::local()
        };
        Some(self.resolved(api::Docker { hosts: vec![host], ..api::Docker::default() }))
    }

    fn limit_hosts(&self, ceilings: &[HostCeiling]) {
        ceilings.clone_into(&mut self.0.ceilings.lock().unwrap_or_else(PoisonError::into_inner));
        for followed in self.0.in_use() {
            followed.host.limit(self.0.ceiling(&followed.host.endpoint));
        }
    }

    fn hosts(&self) -> Vec<HostUsage> {
        let usage = |followed: &Arc<Followed>| {
            let view = followed.host.view();
            HostUsage {
                host: key(followed.host.endpoint.clone()),
                taken: view.taken(),
                free: view.free_of_limit(),
            }
        };
        self.0.in_use().iter().map(usage).collect()
    }

    fn freed(&self) -> Vec<FreedBytes> {
        Vec::new()
    }

    fn instances(&self) -> Vec<OwnedInstance> {
        let orphans_unseen = self.0.hosts.has_fault(Fault::OrphansUnseen);
        let mut owned = Vec::new();
        for followed in self.0.in_use() {
            let host = &followed.host;
            let view = host.view();
            let ours = view.instances.values().filter(|made| {
                made.cluster == host.cluster
                    && (!orphans_unseen || view.has_user(&made.instance.scale_set_uid))
            });
            owned.extend(ours.filter(|_| view.current).map(|made| OwnedInstance {
                host: key(host.endpoint.clone()),
                scale_set: made.scale_set.clone(),
                instance: Instance { host: host.endpoint.clone(), ..made.instance.clone() },
            }));
        }
        owned
    }

    async fn remove_orphan(&self, orphan: &OwnedInstance) -> Result<(), Error> {
        let OwnedInstance { host, instance, .. } = orphan;
        let Reached { hosts, cluster, .. } = &*self.0;
        hosts.called(Method::RemoveOrphan, &host.endpoint, &instance.id)?;
        match hosts.remove(&host.endpoint, cluster, &instance.scale_set_uid, &instance.id) {
            Ok(()) | Err(Error::Gone) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Resolved for FakeBlock {
    fn fingerprint(&self) -> Fingerprint {
        let one = self.reached.hosts.has_fault(Fault::OneFingerprint);
        Fingerprint(if one { 0 } else { digest(&self.block) })
    }

    fn hosts(&self) -> &[NamedHost] {
        &self.hosts
    }

    fn open(&self, name: &str, siblings: &[String], owner: &Identity) -> Arc<dyn Backend> {
        let bind = |host: &api::DockerHost| {
            let followed = self.reached.follow(&self.reached.endpoint(&host.endpoint)?);
            let max_runners = host.max_runners.and_then(|max| u32::try_from(max).ok());
            let membership = followed.host.join(&owner.scale_set_uid, max_runners);
            Some(Bound { name: host.name.clone(), membership, followed })
        };
        let hash_of_hosts = self.reached.hosts.has_fault(Fault::HashOfHosts);
        let hosts = if hash_of_hosts { self.block.hosts.clone() } else { Vec::new() };
        let template = api::Docker { hosts, ..self.block.clone() };
        Arc::new(FakeBackend {
            name: name.to_owned(),
            siblings: siblings.to_vec(),
            owner: owner.clone(),
            template_hash: format!("{:016x}", digest(&template)),
            hosts: self.block.hosts.iter().filter_map(bind).collect(),
            requeuer: self.reached.requeuer.clone(),
            prepared: Arc::default(),
        })
    }
}

fn key(endpoint: String) -> HostKey {
    HostKey { kind: BackendType::Docker, endpoint }
}

fn digest(block: &api::Docker) -> u64 {
    let mut hasher = DefaultHasher::new();
    serde_json::to_string(block).expect("plain data has a JSON form").hash(&mut hasher);
    hasher.finish()
}
