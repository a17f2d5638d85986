//! Amazon ECS as a kind of capacity: reads the `ecs` block of a spec and knows all clusters.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use async_trait::async_trait;

use super::account::{Access, Credentials};
use super::clusters::{Clusters, Watched};
use super::template::{Definition, EcsTemplate, Network, Provider as Capacity, Rendered};
use super::{EcsBackend, Timing, endpoint, stop, unowned};
use crate::api::{self, BackendType, EnvVar, HostCeiling, Reason};
use crate::backend::{
    Backend, Error, Fingerprint, FreedBytes, HostUsage, NamedHost, OwnedInstance, Provider, References,
    Requeuer, ResolveError, Resolved,
};
use crate::runner::Identity;

/// All ECS clusters of one process.
#[derive(Debug)]
pub struct EcsProvider {
    clusters: Arc<Clusters>,
}

/// An `ecs` block, and the cluster that its backend is to use.
struct ResolvedEcs {
    template: EcsTemplate,
    hosts: [NamedHost; 1],
    clusters: Arc<Clusters>,
    reach: Reach,
}

/// By whose access a cluster is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Reach {
    /// By the block's own.
    Own,
    /// The block's Secret is not read: by that of whoever is known to have the scale set's tasks, or had it for a user. Another
    /// cluster of that name may be another account's.
    AsBefore,
    /// The block is not at hand: by any.
    Any,
}

impl EcsProvider {
    /// Knows no cluster yet. `cluster` is the Kubernetes cluster's id; `requeuer` is told which scale sets should look again.
    pub fn new(cluster: &str, requeuer: Requeuer) -> EcsProvider {
        EcsProvider::with_timing(cluster, requeuer, Timing::default())
    }

    /// The same at another pace.
    pub fn with_timing(cluster: &str, requeuer: Requeuer, timing: Timing) -> EcsProvider {
        EcsProvider { clusters: Arc::new(Clusters::new(cluster, requeuer, timing)) }
    }

    fn resolved(&self, template: EcsTemplate, reach: Reach) -> Arc<dyn Resolved> {
        let hosts = [endpoint::named(&template.access.region, &template.cluster)];
        Arc::new(ResolvedEcs { template, hosts, clusters: self.clusters.clone(), reach })
    }
}

#[async_trait]
impl Provider for EcsProvider {
    fn kind(&self) -> BackendType {
        BackendType::Ecs
    }

    async fn resolve(
        &self,
        spec: &api::Backend,
        references: &dyn References,
    ) -> Result<Arc<dyn Resolved>, ResolveError> {
        let field = format!("spec.backends[{}].ecs", spec.name);
        let Some(ecs) = &spec.ecs else {
            return Err(ResolveError::unusable(Reason::InvalidSpec, format!("{field} is missing")));
        };
        check(&field, ecs)?;
        Ok(self.resolved(read(&field, ecs, references).await?, Reach::Own))
    }

    fn resolve_offline(&self, spec: &api::Backend) -> Option<Arc<dyn Resolved>> {
        let ecs = spec.ecs.as_ref()?;
        let (credentials, reach) = match &ecs.credentials_secret_ref {
            Some(_) => (Credentials::Unread, Reach::AsBefore),
            None => (Credentials::Chain, Reach::Own),
        };
        Some(self.resolved(template(ecs, credentials, Vec::new(), Vec::new()), reach))
    }

    fn resolve_host(&self, _: &str, endpoint: &str) -> Option<Arc<dyn Resolved>> {
        let (region, cluster) = endpoint::parse(endpoint)?;
        let access =
            Access { region: region.to_owned(), endpoint: None, credentials: Credentials::Chain, role: None };
        Some(self.resolved(EcsTemplate::of_nothing(access, cluster), Reach::Any))
    }

    fn hosts(&self) -> Vec<HostUsage> {
        let usage = |watched: &Arc<Watched>| {
            let taken = u32::try_from(watched.cluster.state().index.live()).unwrap_or(u32::MAX);
            HostUsage { host: watched.key(), taken, free: None }
        };
        let mut usages: Vec<HostUsage> = self.clusters.all().iter().map(usage).collect();
        // A cluster that is reached in several ways shows the same tasks each time.
        usages.sort_by(|a, b| (&a.host.endpoint, b.taken).cmp(&(&b.host.endpoint, a.taken)));
        usages.dedup_by(|a, b| a.host == b.host);
        usages
    }

    /// A cluster has no slots.
    fn limit_hosts(&self, _: &[HostCeiling]) {}

    /// AWS keeps its own house.
    fn freed(&self) -> Vec<FreedBytes> {
        Vec::new()
    }

    fn instances(&self) -> Vec<OwnedInstance> {
        let mut owned = Vec::new();
        for watched in self.clusters.all() {
            let host = watched.key();
            let state = watched.cluster.state();
            let seen = state.link == super::Link::Up;
            // Nothing is left of what has ended.
            let live = state.index.tasks().filter(|task| seen && !task.stage.has_ended());
            owned.extend(live.map(|task| OwnedInstance {
                host: host.clone(),
                scale_set: task.tags.as_ref().map(|tags| tags.scale_set.clone()).unwrap_or_default(),
                instance: unowned(&host.endpoint, task),
            }));
        }
        owned.sort_by(|a, b| a.instance.id.cmp(&b.instance.id));
        owned.dedup_by(|a, b| a.instance.id == b.instance.id);
        owned
    }

    async fn remove_orphan(&self, orphan: &OwnedInstance) -> Result<(), Error> {
        let OwnedInstance { host, instance, .. } = orphan;
        let known = self.clusters.of_key(host);
        let watched = known.iter().find(|watched| watched.cluster.state().index.get(&instance.id).is_some());
        let Some(watched) = watched else { return Ok(()) };
        match stop::remove(&watched.cluster, &instance.scale_set_uid, &instance.id).await {
            Ok(()) | Err(Error::Gone) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Resolved for ResolvedEcs {
    fn fingerprint(&self) -> Fingerprint {
        let mut hasher = DefaultHasher::new();
        (&self.template, self.reach).hash(&mut hasher);
        Fingerprint(hasher.finish())
    }

    fn hosts(&self) -> &[NamedHost] {
        &self.hosts
    }

    fn open(&self, name: &str, siblings: &[String], owner: &Identity) -> Arc<dyn Backend> {
        let mut template = self.template.clone();
        let known = self.known(&owner.scale_set_uid);
        let watched = known.unwrap_or_else(|| self.clusters.cluster(&template.access, &template.cluster));
        template.access = watched.cluster.account.access.clone();
        Arc::new(EcsBackend::new(name, siblings, owner, template, watched))
    }
}

impl ResolvedEcs {
    /// The cluster as it is reached already, where the block does not say how.
    fn known(&self, scale_set_uid: &str) -> Option<Arc<Watched>> {
        if self.reach == Reach::Own {
            return None;
        }
        let known = self.clusters.of_key(self.hosts[0].key.as_ref()?);
        let has = |watched: &&Arc<Watched>| {
            let state = watched.cluster.state();
            state.index.of_set(scale_set_uid).next().is_some() || state.users().contains(scale_set_uid)
        };
        let any = known.first().filter(|_| self.reach == Reach::Any);
        known.iter().find(has).or(any).cloned()
    }
}

fn unusable(reason: Reason, message: String) -> ResolveError {
    ResolveError::unusable(reason, message)
}

/// Refuses what the schema cannot judge.
fn check(field: &str, ecs: &api::Ecs) -> Result<(), ResolveError> {
    let allowed = |c: char| c.is_alphanumeric() || c == ' ' || "+-=._:/@".contains(c);
    if let Some(key) = ecs.tags.keys().find(|key| !key.chars().all(allowed)) {
        let message = format!(
            "{field}.tags: AWS does not take the key {key:?}: it may have letters, digits, spaces and + - = . _ : / @"
        );
        return Err(unusable(Reason::InvalidSpec, message));
    }
    let arn = ecs.cluster.strip_prefix("arn:").map(|arn| arn.split(':').nth(2).unwrap_or_default());
    if let Some(region) = arn.filter(|region| *region != ecs.region) {
        let message =
            format!("{field}.cluster is in the region {region}, and {field}.region is {}", ecs.region);
        return Err(unusable(Reason::InvalidSpec, message));
    }
    Ok(())
}

/// Reads a block and all that it refers to.
async fn read(field: &str, ecs: &api::Ecs, references: &dyn References) -> Result<EcsTemplate, ResolveError> {
    let credentials = match &ecs.credentials_secret_ref {
        None => Credentials::Chain,
        Some(secret) => {
            let field = format!("{field}.credentialsSecretRef");
            let text = async |key| references.secret_text(&field, &secret.name, key).await;
            let trimmed = |text: String| text.trim().to_owned();
            let token = match text("aws_session_token").await {
                Ok(token) => Some(trimmed(token)).filter(|token| !token.is_empty()),
                // Keys of a user have none.
                Err(ResolveError::Unusable(why)) if why.reason == Reason::SecretMissing => None,
                Err(error) => return Err(error),
            };
            let id = trimmed(text("aws_access_key_id").await?);
            let secret = trimmed(text("aws_secret_access_key").await?);
            if id.is_empty() || secret.is_empty() {
                let message =
                    format!("{field}: aws_access_key_id and aws_secret_access_key must not be empty");
                return Err(unusable(Reason::SecretInvalid, message));
            }
            Credentials::Keys { id, secret, token }
        }
    };
    let (mut env, mut secret_env) = (Vec::new(), Vec::new());
    for EnvVar { name, value, value_from } in
        ecs.managed_task_definition.iter().flat_map(|managed| &managed.env)
    {
        match value_from {
            None => env.push((name.clone(), value.clone().unwrap_or_default())),
            Some(source) => {
                let key = &source.secret_key_ref;
                let field = format!("{field}.managedTaskDefinition.env[{name}].valueFrom.secretKeyRef");
                secret_env.push((name.clone(), references.secret_text(&field, &key.name, &key.key).await?));
            }
        }
    }
    Ok(template(ecs, credentials, env, secret_env))
}

fn template(
    ecs: &api::Ecs,
    credentials: Credentials,
    env: Vec<(String, String)>,
    secret_env: Vec<(String, String)>,
) -> EcsTemplate {
    let text = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let definition = match &ecs.managed_task_definition {
        Some(managed) => {
            let own = [api::JIT_CONFIG_ENV, api::VERSION_EXIT_CODE_ENV];
            let env = env.into_iter().filter(|(name, _)| !own.contains(&name.as_str())).collect();
            let mode = ecs.network_mode();
            Definition::Managed(Box::new(Rendered::new(
                managed,
                mode,
                ecs.launch_type,
                &ecs.capacity_providers,
                env,
            )))
        }
        None => Definition::Existing(ecs.task_definition.clone().unwrap_or_default()),
    };
    let network = (!ecs.subnets.is_empty()).then(|| Network {
        subnets: ecs.subnets.clone(),
        security_groups: ecs.security_groups.clone(),
        public_ip: ecs.assign_public_ip,
    });
    EcsTemplate {
        access: Access {
            region: ecs.region.clone(),
            endpoint: text(&ecs.endpoint_url),
            credentials,
            role: text(&ecs.assume_role_arn),
        },
        cluster: ecs.cluster.clone(),
        definition,
        container: ecs.container_name.clone(),
        launch_type: ecs.launch_type,
        providers: ecs.capacity_providers.iter().map(Capacity::from).collect(),
        network,
        platform_version: ecs.platform_version.clone(),
        tags: ecs.tags.iter().map(|(key, tag)| (key.clone(), tag.0.clone())).collect(),
        secret_env,
        rerun_interrupted: ecs.rerun_interrupted,
    }
}
