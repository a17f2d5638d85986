//! The hosts of a world as a kind of capacity: a kind of its own, which reads the spec's `docker` block and starts nothing.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use async_trait::async_trait;
use paddock::api::{self, BackendType, HostCeiling};
use paddock::backend::{
    Backend, Error, Fingerprint, FreedBytes, HostKey, HostUsage, NamedHost, OwnedInstance, Provider,
    References, ResolveError, Resolved,
};
use paddock::runner::{Identity, Instance, InstanceState};
use serde_json::json;

use crate::history::Kind;
use crate::hosts::{self, SimBackend};
use crate::life::Life;
use crate::sim::State;
use crate::{cluster, ecs, left_out, mac, rules};

/// The hosts, as one controller reaches them.
pub struct Hosts(pub Arc<Life>);

/// A block of a spec.
struct Block {
    life: Arc<Life>,
    docker: api::Docker,
    hosts: Vec<NamedHost>,
}

impl Hosts {
    fn block(&self, docker: api::Docker) -> Arc<dyn Resolved> {
        let named = |host: &api::DockerHost| NamedHost {
            name: host.name.clone(),
            endpoint: host.endpoint.clone(),
            key: Some(key(&host.endpoint)),
        };
        let hosts = docker.hosts.iter().map(named).collect();
        Arc::new(Block { life: self.0.clone(), docker, hosts })
    }
}

#[async_trait]
impl Provider for Hosts {
    fn kind(&self) -> BackendType {
        BackendType::Docker
    }

    async fn resolve(
        &self,
        spec: &api::Backend,
        _: &dyn References,
    ) -> Result<Arc<dyn Resolved>, ResolveError> {
        Ok(self.resolve_offline(spec).expect("all are Docker's"))
    }

    fn resolve_offline(&self, spec: &api::Backend) -> Option<Arc<dyn Resolved>> {
        spec.docker.clone().map(|docker| self.block(docker))
    }

    fn resolve_host(&self, name: &str, endpoint: &str) -> Option<Arc<dyn Resolved>> {
        let docker = json!({"hosts": [{"name": name, "endpoint": endpoint}]});
        Some(self.block(serde_json::from_value(docker).expect("a block")))
    }

    /// The hosts have the slots of the history.
    fn limit_hosts(&self, _: &[HostCeiling]) {}

    fn hosts(&self) -> Vec<HostUsage> {
        Vec::new()
    }

    fn freed(&self) -> Vec<FreedBytes> {
        Vec::new()
    }

    fn instances(&self) -> Vec<OwnedInstance> {
        let state = self.0.sim.state();
        let leaves_nothing = state.setup.kind == Kind::Ecs;
        let shown = state.lives[self.0.number].views.iter().enumerate().filter(|(_, view)| view.up);
        let instances = shown.flat_map(|(host, view)| {
            view.instances.values().filter(|i| i.ours() && (i.live() || !leaves_nothing)).map(move |i| {
                OwnedInstance {
                    host: key(&left_out::endpoint(host)),
                    scale_set: format!("ns/{}", cluster::name(i.set)),
                    instance: i.shown.clone(),
                }
            })
        });
        instances.chain(spares(&state, self.0.number)).collect()
    }

    async fn remove_orphan(&self, orphan: &OwnedInstance) -> Result<(), Error> {
        self.0.living().await;
        let host = left_out::number(&orphan.host.endpoint);
        rules::orphan_asked(&mut self.0.sim.state(), self.0.number, &orphan.instance.runner);
        if self.0.sim.state().setup.kind == Kind::Ecs {
            let removed = ecs::remove(&self.0, ecs::Whose::Nobodys, host, &orphan.instance.id).await;
            return removed.or_else(|error| if matches!(error, Error::Gone) { Ok(()) } else { Err(error) });
        }
        self.0.sim.pause(1, 3_000).await;
        let removed =
            hosts::take_orphan_away(&mut self.0.sim.state(), self.0.number, host, &orphan.instance.id);
        self.0.sim.hosts[host].tell();
        self.0.living().await;
        removed
    }
}

impl Resolved for Block {
    fn fingerprint(&self) -> Fingerprint {
        Fingerprint(digest(&self.docker))
    }

    fn hosts(&self) -> &[NamedHost] {
        &self.hosts
    }

    fn open(&self, name: &str, _: &[String], owner: &Identity) -> Arc<dyn Backend> {
        let template = api::Docker { hosts: Vec::new(), ..self.docker.clone() };
        let hash = format!("{:016x}", digest(&template));
        SimBackend::open(&self.life, name, owner, hash, &self.hosts)
    }
}

/// VMs without runners, which may be nobody's.
fn spares(state: &State, life: usize) -> impl Iterator<Item = OwnedInstance> {
    let now = state.now;
    let shown = state.lives[life].views.iter().enumerate().filter(|(_, view)| view.up);
    shown.flat_map(move |(host, view)| {
        view.mac.spares.iter().map(move |(number, spare)| OwnedInstance {
            host: key(&left_out::endpoint(host)),
            scale_set: format!("ns/{}", cluster::name(spare.set)),
            instance: Instance {
                id: mac::vm(*number),
                runner: mac::vm(*number),
                scale_set_uid: cluster::uid(spare.set),
                backend: spare.backend.clone(),
                host: String::new(),
                template_hash: spare.template_hash.clone(),
                created_at: now,
                state: InstanceState::Starting,
            },
        })
    })
}

fn key(endpoint: &str) -> HostKey {
    HostKey { kind: BackendType::Docker, endpoint: endpoint.to_owned() }
}

fn digest(docker: &api::Docker) -> u64 {
    let mut hasher = DefaultHasher::new();
    serde_json::to_string(docker).expect("plain data has a JSON form").hash(&mut hasher);
    hasher.finish()
}
