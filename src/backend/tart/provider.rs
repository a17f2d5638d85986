//! Tart as a kind of capacity: reads the `tart` block of a spec and knows all Macs.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{HostSpec, Login, Macs, Prune, TartBackend, TartTemplate, vm};
use crate::api::{self, BackendType, HostCeiling, PullPolicy, Quantity, Reason};
use crate::backend::remote::{Endpoint, SshLogin};
use crate::backend::secrets::ssh_login;
use crate::backend::{
    Backend, Error, Fingerprint, FreedBytes, HostKey, HostUsage, NamedHost, OwnedInstance, Provider,
    References, Requeuer, ResolveError, Resolved,
};
use crate::runner::{Identity, Instance, InstanceState};

/// All Macs of one process.
#[derive(Debug)]
pub struct TartProvider {
    macs: Arc<Macs>,
}

/// A `tart` block, and the Macs that its backend is to use.
struct ResolvedTart {
    template: TartTemplate,
    hosts: Vec<NamedHost>,
    macs: Arc<Macs>,
}

impl TartProvider {
    /// Knows no Mac yet. `cluster` is the cluster's id; `requeuer` is told which scale sets should look again.
    pub fn new(cluster: &str, requeuer: Requeuer) -> TartProvider {
        TartProvider::of(Arc::new(Macs::new(cluster, requeuer)))
    }

    /// Knows these Macs.
    pub fn of(macs: Arc<Macs>) -> TartProvider {
        TartProvider { macs }
    }

    fn resolved(&self, template: TartTemplate) -> Arc<dyn Resolved> {
        let hosts = template.hosts.iter().map(named).collect();
        Arc::new(ResolvedTart { template, hosts, macs: self.macs.clone() })
    }
}

#[async_trait]
impl Provider for TartProvider {
    fn kind(&self) -> BackendType {
        BackendType::Tart
    }

    async fn resolve(
        &self,
        spec: &api::Backend,
        references: &dyn References,
    ) -> Result<Arc<dyn Resolved>, ResolveError> {
        let field = format!("spec.backends[{}].tart", spec.name);
        let invalid = |message| ResolveError::unusable(Reason::InvalidSpec, message);
        let Some(tart) = &spec.tart else { return Err(invalid(format!("{field} is missing"))) };
        if tart.image.starts_with('-') {
            return Err(invalid(format!("{field}.image: {:?} is no image's name", tart.image)));
        }
        let bytes = |name: &str, quantity: &Quantity| {
            quantity.bytes().map_err(|why| invalid(format!("{field}.{name}: {why}")))
        };
        let memory = tart.memory.as_ref().map(|memory| bytes("memory", memory)).transpose()?;
        let budget = bytes("housekeeping.cache.spaceBudget", &tart.housekeeping.cache.space_budget)?;
        let mut hosts = Vec::new();
        for host in &tart.hosts {
            let field = format!("{field}.hosts[{}]", host.name);
            Endpoint::parse(&host.endpoint).map_err(|why| invalid(format!("{field}.endpoint: {why}")))?;
            hosts.push(self::host(host, Login::Given(login(&field, host, references).await?)));
        }
        let memory_mb = memory.map(|bytes| u64::try_from(bytes).unwrap_or_default() >> 20);
        Ok(self.resolved(TartTemplate { memory_mb, prune: prune(tart, budget), ..template(tart, hosts) }))
    }

    fn resolve_offline(&self, spec: &api::Backend) -> Option<Arc<dyn Resolved>> {
        let tart = spec.tart.as_ref()?;
        let reachable = |h: &&api::TartHost| Endpoint::parse(&h.endpoint).is_ok();
        let hosts = tart.hosts.iter().filter(reachable).map(|h| host(h, Login::AsBefore)).collect();
        Some(self.resolved(TartTemplate { warm: 0, ..template(tart, hosts) }))
    }

    fn resolve_host(&self, name: &str, endpoint: &str) -> Option<Arc<dyn Resolved>> {
        Endpoint::parse(endpoint).ok()?;
        let host = HostSpec {
            name: name.to_owned(),
            endpoint: endpoint.to_owned(),
            max_vms: None,
            login: Login::AsBefore,
            tart_home: String::new(),
        };
        Some(self.resolved(TartTemplate {
            image: String::new(),
            pull_policy: PullPolicy::Never,
            cpu: None,
            memory_mb: None,
            runner_dir: String::new(),
            warm: 0,
            prune: None,
            prune_interval: Duration::ZERO,
            hosts: vec![host],
        }))
    }

    fn limit_hosts(&self, ceilings: &[HostCeiling]) {
        self.macs.limit(ceilings);
    }

    fn hosts(&self) -> Vec<HostUsage> {
        let usage = |(endpoint, taken, free)| HostUsage { host: key(endpoint), taken, free: Some(free) };
        self.macs.slots().into_iter().map(usage).collect()
    }

    fn freed(&self) -> Vec<FreedBytes> {
        let freed = |(endpoint, bytes)| FreedBytes { host: key(endpoint), store: "cache", bytes };
        self.macs.freed().into_iter().map(freed).collect()
    }

    /// Those that are kept ready among them, as instances of a runner of their own name.
    fn instances(&self) -> Vec<OwnedInstance> {
        let mut found = Vec::new();
        for mac in self.macs.all() {
            let host = key(mac.endpoint.to_string());
            mac.look(|view| {
                let vms = view.index.vms().filter(|_| view.down.is_none());
                found.extend(vms.filter_map(|vm| {
                    let record = vm.record.as_ref().filter(|record| record.cluster == mac.cluster)?;
                    let spare = || Instance {
                        id: vm.name.clone(),
                        runner: vm.name.clone(),
                        scale_set_uid: record.scale_set_uid.clone(),
                        backend: record.backend.clone(),
                        host: String::new(),
                        template_hash: record.template_hash.clone(),
                        created_at: record.created_at,
                        state: InstanceState::Starting,
                    };
                    let instance = vm.instance(&mac.cluster).unwrap_or_else(spare);
                    Some(OwnedInstance { host: host.clone(), scale_set: record.scale_set.clone(), instance })
                }));
            });
        }
        found
    }

    async fn remove_orphan(&self, orphan: &OwnedInstance) -> Result<(), Error> {
        let OwnedInstance { host, instance, .. } = orphan;
        let mac = match self.macs.with_vm(&host.endpoint, &instance.id) {
            Err(Error::Gone) => return Ok(()),
            found => found?,
        };
        match vm::remove(&mac, &instance.scale_set_uid, &instance.id).await {
            Ok(()) | Err(Error::Gone) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Resolved for ResolvedTart {
    fn fingerprint(&self) -> Fingerprint {
        let mut hasher = DefaultHasher::new();
        Hash::hash(&self.template, &mut hasher);
        Fingerprint(hasher.finish())
    }

    fn hosts(&self) -> &[NamedHost] {
        &self.hosts
    }

    fn open(&self, name: &str, siblings: &[String], owner: &Identity) -> Arc<dyn Backend> {
        let template = self.template.clone();
        Arc::new(TartBackend::new(name, siblings.to_vec(), owner.clone(), template, &self.macs))
    }
}

fn key(endpoint: String) -> HostKey {
    HostKey { kind: BackendType::Tart, endpoint }
}

fn named(host: &HostSpec) -> NamedHost {
    let key = Endpoint::parse(&host.endpoint).ok().map(|endpoint| key(endpoint.to_string()));
    NamedHost { name: host.name.clone(), endpoint: host.endpoint.clone(), key }
}

async fn login(
    field: &str,
    host: &api::TartHost,
    references: &dyn References,
) -> Result<Option<SshLogin>, ResolveError> {
    let Some(secret) = &host.ssh_secret_ref else { return Ok(None) };
    ssh_login(&format!("{field}.sshSecretRef"), &secret.name, references).await.map(Some)
}

/// The parts of a template that the spec holds itself, and that need no judgement.
fn template(tart: &api::Tart, hosts: Vec<HostSpec>) -> TartTemplate {
    TartTemplate {
        image: tart.image.clone(),
        pull_policy: tart.pull_policy,
        cpu: tart.cpu.map(|cpu| cpu.max(1).unsigned_abs()),
        memory_mb: None,
        runner_dir: tart.runner_dir.clone(),
        warm: tart.warm_pool.size.max(0).unsigned_abs(),
        prune: None,
        prune_interval: tart.housekeeping.interval.get(),
        hosts,
    }
}

/// In Tart's units: whole days, and whole gigabytes.
fn prune(tart: &api::Tart, budget: i64) -> Option<Prune> {
    const DAY: u64 = 86_400;
    let cache = &tart.housekeeping.cache;
    cache.enabled.then(|| Prune {
        older_than_days: cache.max_age.get().as_secs().div_ceil(DAY).max(1),
        budget_gb: u64::try_from(budget).unwrap_or_default() >> 30,
    })
}

fn host(host: &api::TartHost, login: Login) -> HostSpec {
    HostSpec {
        name: host.name.clone(),
        endpoint: host.endpoint.clone(),
        max_vms: Some(host.max_vms.max(0).unsigned_abs()),
        login,
        tart_home: host.tart_home.clone(),
    }
}
