//! What an ECS backend runs, and how: a spec's `ecs` block with everything that it refers to resolved.

use std::fmt;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::account::{Access, Kind};
use super::strategy::{FARGATE, FARGATE_SPOT};
use crate::api::{CapacityProvider, LaunchType, ManagedTaskDefinition, NetworkMode};

/// To be raised whenever `definition` renders the same block otherwise: part of the hash, so that it is registered anew.
const RENDERING: u32 = 1;

/// Characters of a template's hash that are kept: 64 bits tell the templates of a scale set apart.
const HASH_LENGTH: usize = 16;

/// What an ECS backend runs, and how.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct EcsTemplate {
    /// How the account is reached.
    pub(super) access: Access,
    /// The cluster, by name or ARN.
    pub(super) cluster: String,
    /// The task definition.
    pub(super) definition: Definition,
    /// The container that is the runner.
    pub(super) container: String,
    /// Where tasks run; none leaves it to `providers`, or to the cluster.
    pub(super) launch_type: Option<LaunchType>,
    /// The capacity providers.
    pub(super) providers: Vec<Provider>,
    /// The network of tasks that have an interface of their own.
    pub(super) network: Option<Network>,
    /// Fargate's platform version.
    pub(super) platform_version: Option<String>,
    /// Further tags, by key.
    pub(super) tags: Vec<(String, String)>,
    /// Variables whose values come from Secrets. They go with each task, as a task definition is kept for ever.
    pub(super) secret_env: Vec<(String, String)>,
    /// Whether a job that a Spot interruption ended is to be run again.
    pub(super) rerun_interrupted: bool,
}

/// A capacity provider, comparable.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub(super) struct Provider {
    name: String,
    weight: i32,
    base: i32,
}

impl From<&CapacityProvider> for Provider {
    fn from(provider: &CapacityProvider) -> Provider {
        Provider { name: provider.name.clone(), weight: provider.weight, base: provider.base }
    }
}

/// A task definition.
#[derive(Clone, PartialEq, Eq, Hash, Serialize)]
pub(super) enum Definition {
    /// One that exists: family, family:revision or ARN.
    Existing(String),
    /// One that is rendered and registered.
    Managed(Box<Rendered>),
}

/// The task definition that a block asks for.
#[derive(Clone, PartialEq, Eq, Hash, Serialize)]
pub(super) struct Rendered {
    /// The family; none is that of the scale set and backend.
    #[serde(skip)]
    pub(super) family: Option<String>,
    rendering: u32,
    pub(super) image: String,
    pub(super) cpu: i32,
    pub(super) memory: i32,
    pub(super) architecture: crate::api::Architecture,
    pub(super) operating_system: String,
    pub(super) network_mode: NetworkMode,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) execution_role_arn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) task_role_arn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) log_group: Option<String>,
    /// Without those whose values come from Secrets.
    pub(super) env: Vec<(String, String)>,
    pub(super) sidecar: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ephemeral_storage_gib: Option<i32>,
    /// FARGATE, EC2 or EXTERNAL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) compatibility: Option<&'static str>,
}

/// The network of a task.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub(super) struct Network {
    pub(super) subnets: Vec<String>,
    pub(super) security_groups: Vec<String>,
    pub(super) public_ip: bool,
}

impl Rendered {
    /// What a `managedTaskDefinition` asks for. `launch_type` and `providers` say where it must be able to run.
    pub(super) fn new(
        managed: &ManagedTaskDefinition,
        network_mode: NetworkMode,
        launch_type: Option<LaunchType>,
        providers: &[CapacityProvider],
        env: Vec<(String, String)>,
    ) -> Rendered {
        let fargate = providers.iter().any(|provider| is_fargate(&provider.name));
        Rendered {
            family: managed.family.clone(),
            rendering: RENDERING,
            image: managed.image.clone(),
            cpu: managed.cpu,
            memory: managed.memory,
            architecture: managed.architecture,
            operating_system: managed.operating_system.clone(),
            network_mode,
            execution_role_arn: managed.execution_role_arn.clone(),
            task_role_arn: managed.task_role_arn.clone(),
            log_group: managed.log_group.clone(),
            env,
            sidecar: managed.docker_access == crate::api::EcsDockerAccess::Sidecar,
            ephemeral_storage_gib: managed.ephemeral_storage_gib,
            compatibility: match launch_type {
                Some(LaunchType::Fargate) => Some("FARGATE"),
                Some(LaunchType::Ec2) => Some("EC2"),
                Some(LaunchType::External) => Some("EXTERNAL"),
                None if fargate => Some("FARGATE"),
                None => None,
            },
        }
    }
}

/// Whether a capacity provider is one of Fargate's.
pub(super) fn is_fargate(provider: &str) -> bool {
    [FARGATE, FARGATE_SPOT].contains(&provider)
}

impl EcsTemplate {
    /// A cluster in which nothing is started any more.
    pub(super) fn of_nothing(access: Access, cluster: &str) -> EcsTemplate {
        EcsTemplate {
            access,
            cluster: cluster.to_owned(),
            definition: Definition::Existing(String::new()),
            container: String::new(),
            launch_type: None,
            providers: Vec::new(),
            network: None,
            platform_version: None,
            tags: Vec::new(),
            secret_env: Vec::new(),
            rerun_interrupted: false,
        }
    }

    /// The capacity providers, as the spec has them.
    pub(super) fn providers(&self) -> Vec<CapacityProvider> {
        let provider =
            |p: &Provider| CapacityProvider { name: p.name.clone(), weight: p.weight, base: p.base };
        self.providers.iter().map(provider).collect()
    }

    /// Whether a task on a provider, or without one, is told to run on Fargate.
    pub(super) fn on_fargate(&self, provider: Option<&str>) -> bool {
        provider.map_or(self.launch_type == Some(LaunchType::Fargate), is_fargate)
    }

    /// Which of Fargate's limits a start meets, beside that on all calls. Where it is left to the cluster, Fargate's.
    pub(super) fn fargate_limit(&self, provider: Option<&str>) -> Option<Kind> {
        match (self.launch_type, provider) {
            (Some(LaunchType::Ec2 | LaunchType::External), _) => None,
            (_, Some(provider)) => {
                is_fargate(provider).then_some(Kind::Fargate { spot: provider == FARGATE_SPOT })
            }
            (_, None) => Some(Kind::Fargate { spot: false }),
        }
    }

    /// Hash of all that affects the runners: not where tasks find room, nor what they are tagged with. It is the same for as
    /// long as those fields are the same, over restarts and over versions that add optional fields.
    pub(super) fn hash(&self) -> String {
        #[derive(Serialize)]
        struct Runner<'a> {
            definition: &'a Definition,
            container: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            launch_type: Option<LaunchType>,
            #[serde(skip_serializing_if = "Option::is_none")]
            network: Option<&'a Network>,
            #[serde(skip_serializing_if = "Option::is_none")]
            platform_version: Option<&'a str>,
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            secret_env: &'a [(String, String)],
        }
        let runner = Runner {
            definition: &self.definition,
            container: &self.container,
            launch_type: self.launch_type,
            network: self.network.as_ref(),
            platform_version: self.platform_version.as_deref(),
            secret_env: &self.secret_env,
        };
        // Strings, numbers and lists of them always have a JSON form.
        #[allow(clippy::expect_used)]
        let canonical = serde_json::to_vec(&runner).expect("plain data has a JSON form");
        let mut hex: String = Sha256::digest(canonical).iter().map(|byte| format!("{byte:02x}")).collect();
        hex.truncate(HASH_LENGTH);
        hex
    }

    /// Where the runner's output of a task is to be read, if it is known.
    pub(super) fn log_link(&self, task_id: &str) -> Option<String> {
        let Definition::Managed(rendered) = &self.definition else { return None };
        let group = rendered.log_group.as_ref()?;
        let stream = format!("{}/{}/{task_id}", LOG_PREFIX, self.container);
        // The console's own way to write a path within the fragment of a URL.
        let quoted = |text: &str| text.replace('$', "$2524").replace('/', "$252F").replace('#', "$2523");
        let region = &self.access.region;
        Some(format!(
            "https://{region}.console.aws.amazon.com/cloudwatch/home?region={region}#logsV2:log-groups/log-group/{}/log-events/{}",
            quoted(group),
            quoted(&stream)
        ))
    }
}

/// What the names of log streams begin with.
pub(super) const LOG_PREFIX: &str = "paddock";

/// Without the values of the environment, which may be secrets.
impl fmt::Debug for EcsTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EcsTemplate")
            .field("access", &self.access)
            .field("cluster", &self.cluster)
            .field("container", &self.container)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::account::Credentials;
    use super::*;

    fn template() -> EcsTemplate {
        let access = Access {
            region: "eu-west-1".to_owned(),
            endpoint: None,
            credentials: Credentials::Chain,
            role: None,
        };
        let managed = ManagedTaskDefinition { log_group: Some("/runners".to_owned()), ..Default::default() };
        let env = vec![("A".to_owned(), "1".to_owned())];
        let rendered = Rendered::new(&managed, NetworkMode::Awsvpc, Some(LaunchType::Fargate), &[], env);
        EcsTemplate {
            access,
            cluster: "runners".to_owned(),
            definition: Definition::Managed(Box::new(rendered)),
            container: "runner".to_owned(),
            launch_type: Some(LaunchType::Fargate),
            providers: Vec::new(),
            network: None,
            platform_version: None,
            tags: Vec::new(),
            secret_env: vec![("TOKEN".to_owned(), "planted-secret".to_owned())],
            rerun_interrupted: false,
        }
    }

    fn managed(template: &mut EcsTemplate) -> &mut Rendered {
        match &mut template.definition {
            Definition::Managed(rendered) => rendered,
            Definition::Existing(_) => panic!("it is managed"),
        }
    }

    #[test]
    fn the_hash_is_the_same_in_every_version() {
        assert_eq!(template().hash(), "07ffaf4e9b68cd86");
    }

    #[test]
    fn the_hash_follows_what_affects_the_runner_and_nothing_else() {
        let changed = |change: fn(&mut EcsTemplate)| {
            let mut template = template();
            change(&mut template);
            template.hash()
        };
        let same = template().hash();
        let nothing: [fn(&mut EcsTemplate); 5] = [
            |t| t.rerun_interrupted = true,
            |t| t.tags.push(("team".into(), "ci".into())),
            |t| t.access.role = Some("arn:aws:iam::1:role/x".into()),
            |t| managed(t).family = Some("other".into()),
            |t| t.providers.push(Provider { name: "spot".into(), weight: 1, base: 0 }),
        ];
        assert!(nothing.into_iter().all(|change| changed(change) == same));
        let changes: [fn(&mut EcsTemplate); 8] = [
            |t| managed(t).image = "runner:2".into(),
            |t| managed(t).cpu = 2048,
            |t| managed(t).env[0].1 = "2".into(),
            |t| managed(t).sidecar = true,
            |t| t.container = "other".into(),
            |t| t.secret_env[0].1 = "other".into(),
            |t| t.platform_version = Some("1.4.0".into()),
            |t| t.definition = Definition::Existing("runner:7".into()),
        ];
        let mut hashes: Vec<_> = changes.into_iter().map(changed).collect();
        hashes.push(same);
        hashes.sort();
        hashes.dedup();
        assert_eq!(hashes.len(), 9);
    }

    #[test]
    fn secrets_are_not_printed() {
        assert!(!format!("{:?}", template()).contains("planted-secret"));
    }

    #[test]
    fn the_console_shows_the_log() {
        let link = template().log_link("0123abcd").unwrap();
        assert!(
            link.ends_with("log-group/$252Frunners/log-events/paddock$252Frunner$252F0123abcd"),
            "{link}"
        );
    }

    #[test]
    fn a_start_meets_fargates_limit_where_it_may_run_there() {
        let mut template = template();
        assert_eq!(template.fargate_limit(None), Some(Kind::Fargate { spot: false }));
        template.launch_type = None;
        assert_eq!(template.fargate_limit(Some(FARGATE_SPOT)), Some(Kind::Fargate { spot: true }));
        assert_eq!(template.fargate_limit(Some("asg")), None);
        template.launch_type = Some(LaunchType::External);
        assert_eq!(template.fargate_limit(None), None);
    }
}
