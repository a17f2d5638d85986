//! Docker as a kind of capacity: reads the `docker` block of a spec and knows all engines.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use async_trait::async_trait;

use super::endpoint::Endpoint;
use super::housekeeping::{Rules, SharedVolume, Store};
use super::{
    DockerBackend, DockerTemplate, Engines, HostSpec, Images, Limits, Login, RegistryCredentials, TlsLogin,
};
use crate::api::{self, BackendType, EnvVar, HostCeiling, Reason};
use crate::backend::secrets::ssh_login;
use crate::backend::{
    Backend, Error, Fingerprint, FreedBytes, HostKey, HostUsage, NamedHost, OwnedInstance, Provider,
    References, Requeuer, ResolveError, Resolved,
};
use crate::runner::Identity;

/// All Docker hosts of one process.
#[derive(Debug)]
pub struct DockerProvider {
    engines: Arc<Engines>,
}

/// A `docker` block, and the engines that its backend is to use.
struct ResolvedDocker {
    template: Arc<DockerTemplate>,
    hosts: Vec<NamedHost>,
    engines: Arc<Engines>,
}

impl DockerProvider {
    /// Knows no engine yet. `cluster` is the cluster's id; `requeuer` is told which scale sets should look again.
    pub fn new(cluster: &str, requeuer: Requeuer) -> DockerProvider {
        DockerProvider { engines: Arc::new(Engines::new(cluster, requeuer)) }
    }

    fn resolved(&self, template: DockerTemplate) -> Arc<dyn Resolved> {
        let hosts = template.hosts.iter().map(named).collect();
        Arc::new(ResolvedDocker { template: Arc::new(template), hosts, engines: self.engines.clone() })
    }
}

#[async_trait]
impl Provider for DockerProvider {
    fn kind(&self) -> BackendType {
        BackendType::Docker
    }

    async fn resolve(
        &self,
        spec: &api::Backend,
        references: &dyn References,
    ) -> Result<Arc<dyn Resolved>, ResolveError> {
        let field = format!("spec.backends[{}].docker", spec.name);
        let Some(docker) = &spec.docker else {
            return Err(ResolveError::unusable(Reason::InvalidSpec, format!("{field} is missing")));
        };
        Ok(self.resolved(read(&field, docker, references).await?))
    }

    fn resolve_offline(&self, spec: &api::Backend) -> Option<Arc<dyn Resolved>> {
        let docker = spec.docker.as_ref()?;
        let reachable = |h: &&api::DockerHost| Endpoint::parse(&h.endpoint).is_ok();
        let hosts = docker.hosts.iter().filter(reachable).map(|h| {
            let secret = h.tls_secret_ref.is_some() || h.ssh_secret_ref.is_some();
            host(h, if secret { Login::AsBefore } else { Login::None })
        });
        let hosts = hosts.collect();
        Some(self.resolved(DockerTemplate { hosts, ..template(docker) }))
    }

    fn resolve_host(&self, name: &str, endpoint: &str) -> Option<Arc<dyn Resolved>> {
        Endpoint::parse(endpoint).ok()?;
        let host = HostSpec {
            name: name.to_owned(),
            endpoint: endpoint.to_owned(),
            max_runners: None,
            login: Login::AsBefore,
        };
        let template =
            DockerTemplate { housekeeping: None, hosts: vec![host], ..template(&api::Docker::default()) };
        Some(self.resolved(template))
    }

    fn limit_hosts(&self, ceilings: &[HostCeiling]) {
        self.engines.limit(ceilings);
    }

    fn hosts(&self) -> Vec<HostUsage> {
        let usage = |(endpoint, taken, free)| HostUsage { host: key(endpoint), taken, free };
        self.engines.slots().into_iter().map(usage).collect()
    }

    fn freed(&self) -> Vec<FreedBytes> {
        let freed = |(endpoint, store, bytes): (_, Store, _)| FreedBytes {
            host: key(endpoint),
            store: store.as_str(),
            bytes,
        };
        self.engines.freed().into_iter().map(freed).collect()
    }

    fn instances(&self) -> Vec<OwnedInstance> {
        let listings = self.engines.all_instances().into_iter().filter(|listing| listing.current);
        let owned = listings.flat_map(|listing| {
            let host = key(listing.endpoint);
            listing.found.into_iter().map(move |found| OwnedInstance {
                host: host.clone(),
                scale_set: found.scale_set,
                instance: found.instance,
            })
        });
        owned.collect()
    }

    async fn remove_orphan(&self, orphan: &OwnedInstance) -> Result<(), Error> {
        let OwnedInstance { host, instance, .. } = orphan;
        match self.engines.remove(&host.endpoint, &instance.scale_set_uid, &instance.id).await {
            Ok(()) | Err(Error::Gone) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Resolved for ResolvedDocker {
    fn fingerprint(&self) -> Fingerprint {
        let mut hasher = DefaultHasher::new();
        Hash::hash(&self.template, &mut hasher);
        Fingerprint(hasher.finish())
    }

    fn hosts(&self) -> &[NamedHost] {
        &self.hosts
    }

    fn unusable_logins(&self) -> Vec<String> {
        let login = |host: &HostSpec| match &host.login {
            Login::Unusable(why) => Some(why.clone()),
            _ => None,
        };
        self.template.hosts.iter().filter_map(login).collect()
    }

    fn open(&self, name: &str, siblings: &[String], owner: &Identity) -> Arc<dyn Backend> {
        let backend = DockerBackend::new(name, owner.clone(), self.template.clone(), &self.engines);
        Arc::new(backend.among(siblings.to_vec()))
    }
}

fn key(endpoint: String) -> HostKey {
    HostKey { kind: BackendType::Docker, endpoint }
}

/// Follows the links of the endpoint's path.
fn named(host: &HostSpec) -> NamedHost {
    let key = Endpoint::parse(&host.endpoint).ok().map(|endpoint| key(endpoint.to_string()));
    NamedHost { name: host.name.clone(), endpoint: host.endpoint.clone(), key }
}

/// Reads a block and all that it refers to.
async fn read(
    field: &str,
    docker: &api::Docker,
    references: &dyn References,
) -> Result<DockerTemplate, ResolveError> {
    let quantity = |name: &str, value: Result<i64, api::InvalidQuantity>| {
        let invalid =
            |e| ResolveError::unusable(Reason::InvalidSpec, format!("{field}.resources.{name}: {e}"));
        Ok::<_, ResolveError>(u64::try_from(value.map_err(invalid)?).unwrap_or_default())
    };
    let mut template = template(docker);
    template.limits.cpu_millis =
        docker.resources.cpu.as_ref().map(|cpu| quantity("cpu", cpu.millis())).transpose()?;
    template.limits.memory_bytes =
        docker.resources.memory.as_ref().map(|memory| quantity("memory", memory.bytes())).transpose()?;
    let rules = Rules::read(&docker.housekeeping).map_err(|(name, e)| {
        ResolveError::unusable(Reason::InvalidSpec, format!("{field}.housekeeping.{name}: {e}"))
    })?;
    if let Some(reference) = &docker.image_pull_secret_ref {
        let field = format!("{field}.imagePullSecretRef");
        let text = references.secret_text(&field, &reference.name, ".dockerconfigjson").await?;
        let invalid = |e| ResolveError::unusable(Reason::SecretInvalid, format!("{field}: {e}"));
        template.images.credentials =
            Some(RegistryCredentials::from_docker_config(text.as_bytes()).map_err(invalid)?);
    }
    for variable in &docker.env {
        template.env.push((variable.name.clone(), value_of(field, variable, references).await?));
    }
    for host in &docker.hosts {
        let field = format!("{field}.hosts[{}]", host.name);
        template.hosts.push(self::host(host, login(&field, host, references).await?));
    }
    template.housekeeping = Some(rules);
    Ok(template)
}

/// How a host is logged in to. A Secret that cannot be used is that host's affair alone: the others work on.
async fn login(
    field: &str,
    host: &api::DockerHost,
    references: &dyn References,
) -> Result<Login, ResolveError> {
    let read = match (&host.tls_secret_ref, &host.ssh_secret_ref) {
        (Some(secret), _) => tls_login(&format!("{field}.tlsSecretRef"), &secret.name, references).await,
        (None, Some(secret)) => {
            let field = format!("{field}.sshSecretRef");
            ssh_login(&field, &secret.name, references).await.map(Login::Ssh)
        }
        (None, None) => Ok(Login::None),
    };
    match read {
        Err(ResolveError::Unusable(why)) => Ok(Login::Unusable(why.message)),
        read => read,
    }
}

async fn tls_login(field: &str, secret: &str, references: &dyn References) -> Result<Login, ResolveError> {
    let authority = references.secret_text(field, secret, "ca.crt").await?;
    let certificate = references.secret_text(field, secret, "tls.crt").await?;
    let key = references.secret_text(field, secret, "tls.key").await?;
    let invalid = |why| ResolveError::unusable(Reason::SecretInvalid, format!("{field}: {why}"));
    TlsLogin::read(&authority, &certificate, &key).map(Login::Tls).map_err(invalid)
}

async fn value_of(
    field: &str,
    variable: &EnvVar,
    references: &dyn References,
) -> Result<String, ResolveError> {
    let Some(source) = &variable.value_from else {
        return Ok(variable.value.clone().unwrap_or_default());
    };
    let key = &source.secret_key_ref;
    let field = format!("{field}.env[{}].valueFrom.secretKeyRef", variable.name);
    references.secret_text(&field, &key.name, &key.key).await
}

/// The parts of a template that the spec holds itself.
fn template(docker: &api::Docker) -> DockerTemplate {
    DockerTemplate {
        images: Images {
            runner: docker.image.clone(),
            engine: docker.sidecar_image.clone(),
            platform: docker.platform.clone(),
            policy: docker.pull_policy,
            credentials: None,
        },
        command: docker.command.clone(),
        user: docker.user.clone(),
        env: Vec::new(),
        limits: Limits {
            cpu_millis: None,
            memory_bytes: None,
            pids: docker.resources.pids.map(|pids| pids.max(0).unsigned_abs()),
            no_new_privileges: docker.no_new_privileges.unwrap_or(false),
        },
        network: Some(docker.network.clone()),
        docker_access: docker.docker_access,
        shared_volume: docker.shared_volume.as_ref().map(shared_volume),
        housekeeping: Rules::read(&docker.housekeeping).ok(),
        hosts: Vec::new(),
    }
}

fn shared_volume(shared: &api::SharedVolume) -> SharedVolume {
    SharedVolume { mount_path: shared.mount_path.clone(), ttl: shared.ttl.get(), read_only: shared.read_only }
}

fn host(host: &api::DockerHost, login: Login) -> HostSpec {
    HostSpec {
        name: host.name.clone(),
        endpoint: host.endpoint.clone(),
        max_runners: host.max_runners.map(|max| max.max(0).unsigned_abs()),
        login,
    }
}
