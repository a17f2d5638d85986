//! Runners in tasks on Amazon ECS.

use super::{
    EnvVar, SecretRef,
    image::runner_image,
    schema::{ARN, NO_SPACE, named_list},
};
use kube::core::Rule;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// CPU units of a task that says none.
const CPU: i32 = 1024;
/// Memory of a task that says none, in MiB.
const MEMORY: i32 = 2048;

/// Runners in tasks on Amazon ECS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules()))]
pub struct Ecs {
    /// The AWS region, like eu-west-1.
    #[schemars(length(max = 64), regex(pattern = "^[a-z]+(-[a-z]+)+-[0-9]+$"))]
    pub region: String,

    /// The cluster, by name or ARN.
    #[schemars(length(min = 1, max = 255), regex(pattern = "^(arn:\\S+|[A-Za-z0-9_-]+)$"))]
    pub cluster: String,

    /// Where the ECS API is, for a VPC endpoint or a test: an http or https URL. Default: empty, which is AWS's own.
    #[serde(default)]
    #[schemars(length(max = 255), regex(pattern = "^(https?://[^\\s/?#@]+(/\\S*)?)?$"))]
    pub endpoint_url: String,

    /// The Secret with aws_access_key_id, aws_secret_access_key and, if there is one, aws_session_token. Default: what the
    /// AWS provider chain finds around the controller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<SecretRef>,

    /// The role that is assumed for all calls. Default: empty, which is none.
    #[serde(default)]
    #[schemars(length(max = 2048), regex(pattern = "^(arn:\\S+)?$"))]
    pub assume_role_arn: String,

    /// A task definition that exists: a family, family:revision or an ARN. Excludes managedTaskDefinition; one of them is
    /// required.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = "^(arn:\\S+|[A-Za-z0-9_-]+(:[0-9]+)?)$"))]
    pub task_definition: Option<String>,

    /// A task definition that the controller renders, registers and retires. Excludes taskDefinition; one of them is
    /// required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub managed_task_definition: Option<ManagedTaskDefinition>,

    /// The container of the task definition that is the runner. Default: runner.
    #[serde(default = "runner_container")]
    #[schemars(length(min = 1, max = 255), regex(pattern = "^[A-Za-z0-9_-]+$"))]
    pub container_name: String,

    /// Where tasks run: FARGATE, EC2 (the cluster's own instances) or EXTERNAL (ECS Anywhere). Excludes capacityProviders.
    /// Default: the cluster's default capacity provider strategy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub launch_type: Option<LaunchType>,

    /// The capacity providers that tasks are spread over (at most 20), like FARGATE_SPOT. Excludes launchType. Default:
    /// none.
    #[serde(default)]
    #[schemars(
        length(max = 20),
        transform = named_list,
        extend("x-kubernetes-validations" = provider_rules())
    )]
    pub capacity_providers: Vec<CapacityProvider>,

    /// The subnets (at most 16) of tasks with a network interface of their own; Fargate requires them. Default: none.
    #[serde(default)]
    #[schemars(length(max = 16), inner(length(max = 64), regex(pattern = "^subnet-[a-z0-9]+$")))]
    pub subnets: Vec<String>,

    /// The security groups (at most 5) of tasks in subnets. Default: none, which is the VPC's default group.
    #[serde(default)]
    #[schemars(length(max = 5), inner(length(max = 64), regex(pattern = "^sg-[a-z0-9]+$")))]
    pub security_groups: Vec<String>,

    /// Whether tasks in subnets get a public address. Default: false.
    #[serde(default)]
    pub assign_public_ip: bool,

    /// The platform version of tasks on Fargate, like LATEST or 1.4.0. Default: none, which is LATEST.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), regex(pattern = "^[A-Za-z0-9.]+$"))]
    pub platform_version: Option<String>,

    /// Further tags of every task (at most 40), for cost allocation. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 40, "x-kubernetes-validations" = tag_rules()))]
    pub tags: BTreeMap<String, Tag>,

    /// Whether a job that a Spot interruption ended is run again, where the credentials for GitHub may do so. Default: false.
    #[serde(default)]
    pub rerun_interrupted: bool,
}

/// The value of a tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Tag(#[schemars(length(max = 256), regex(pattern = TAG))] pub String);

/// What AWS takes in the key or the value of a tag.
const TAG: &str = "^[\\p{L}\\p{Z}\\p{N}_.:/=+@-]*$";

/// What holds for the keys of tags, which no pattern of the schema sees.
fn tag_rules() -> Vec<Rule> {
    let rule = |rule: &str, message: &str| Rule::new(rule).message(message);
    vec![
        rule("self.all(key, size(key) > 0 && size(key) <= 128)", "ecs.tags: a key has 1 to 128 characters"),
        rule(
            "self.all(key, !key.startsWith('paddock.dev/') && !key.startsWith('aws:'))",
            "ecs.tags: keys that begin with paddock.dev/ or aws: are reserved",
        ),
    ]
}

fn runner_container() -> String {
    "runner".into()
}

/// What holds between the fields of [`Ecs`]. None has a default in the schema: what is left out is not there.
fn rules() -> Vec<Rule> {
    let launched = |kind: &str| format!("(has(self.launchType) && self.launchType == '{kind}')");
    let given = |list: &str| format!("(has(self.{list}) && self.{list}.size() > 0)");
    let (external, providers, subnets) = (launched("EXTERNAL"), given("capacityProviders"), given("subnets"));
    let fargate = format!(
        "({} || (has(self.capacityProviders) && self.capacityProviders.exists(p, p.name in ['FARGATE', 'FARGATE_SPOT'])))",
        launched("FARGATE")
    );
    let managed = "has(self.managedTaskDefinition)";
    let (access, mode) =
        ("self.managedTaskDefinition.dockerAccess", "self.managedTaskDefinition.networkMode");
    let rule = |rule: String, field: &str, message: &str| Rule::new(rule).message(message).field_path(field);
    vec![
        Rule::new("has(self.taskDefinition) != has(self.managedTaskDefinition)")
            .message("exactly one of ecs.taskDefinition and ecs.managedTaskDefinition must be given"),
        rule(
            format!("!has(self.launchType) || !{providers}"),
            ".capacityProviders",
            "ecs.launchType and ecs.capacityProviders exclude each other",
        ),
        rule(
            format!("!{external} || !{subnets}"),
            ".subnets",
            "ecs.subnets cannot be used with launchType EXTERNAL",
        ),
        rule(format!("!{fargate} || {subnets}"), ".subnets", "ecs.subnets is required on Fargate"),
        rule(
            format!("!{} || {subnets}", given("securityGroups")),
            ".securityGroups",
            "ecs.securityGroups needs ecs.subnets",
        ),
        rule(
            format!("!(has(self.assignPublicIp) && self.assignPublicIp) || {subnets}"),
            ".assignPublicIp",
            "ecs.assignPublicIp needs ecs.subnets",
        ),
        rule(
            format!("!has(self.platformVersion) || {fargate} || (!has(self.launchType) && !{providers})"),
            ".platformVersion",
            "ecs.platformVersion is for Fargate only",
        ),
        rule(
            format!("!({fargate} && {managed}) || {}", fargate_sizes()),
            ".managedTaskDefinition.memory",
            "Fargate does not have this pair of ecs.managedTaskDefinition.cpu and memory: 256 CPU units go with 512, 1024 or \
             2048 MiB, 512 with 1024 to 4096, 1024 with 2048 to 8192, 2048 with 4096 to 16384, 4096 with 8192 to 30720 (all by \
             1024), 8192 with 16384 to 61440 by 4096, 16384 with 32768 to 122880 by 8192",
        ),
        rule(
            format!("!({fargate} && {managed}) || !has({access}) || {access} != 'Sidecar'"),
            ".managedTaskDefinition.dockerAccess",
            "ecs.managedTaskDefinition.dockerAccess: Fargate does not run the privileged container that Sidecar needs",
        ),
        rule(
            format!("!({fargate} && {managed}) || !has({mode}) || {mode} == 'awsvpc'"),
            ".managedTaskDefinition.networkMode",
            "ecs.managedTaskDefinition.networkMode must be awsvpc on Fargate",
        ),
        rule(
            format!("!({external} && {managed}) || !has({mode}) || {mode} != 'awsvpc'"),
            ".managedTaskDefinition.networkMode",
            "ecs.managedTaskDefinition.networkMode cannot be awsvpc with launchType EXTERNAL",
        ),
        rule(
            format!("!{managed} || {external} || (has({mode}) && {mode} != 'awsvpc') || {subnets}"),
            ".subnets",
            "ecs.subnets is required where managedTaskDefinition.networkMode is awsvpc",
        ),
    ]
}

/// A CEL expression: the managed task definition has a size that Fargate has, in CPU units and MiB.
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html#fargate-tasks-size>
fn fargate_sizes() -> String {
    let sizes = [
        (512, 1024, 4096, 1024),
        (1024, 2048, 8192, 1024),
        (2048, 4096, 16384, 1024),
        (4096, 8192, 30720, 1024),
        (8192, 16384, 61440, 4096),
        (16384, 32768, 122_880, 8192),
    ];
    let steps: String = sizes
        .iter()
        .map(|(cpu, least, most, step)| {
            format!(" || (s[0] == {cpu} && s[1] >= {least} && s[1] <= {most} && s[1] % {step} == 0)")
        })
        .collect();
    let size = |field: &str, default: i32| {
        let field = format!("self.managedTaskDefinition.{field}");
        format!("has({field}) ? {field} : {default}")
    };
    format!(
        "[[{}, {}]].exists(s, (s[0] == 256 && s[1] in [512, 1024, 2048]){steps})",
        size("cpu", CPU),
        size("memory", MEMORY)
    )
}

/// What ECS demands of a capacity provider strategy.
fn provider_rules() -> Vec<Rule> {
    vec![
        Rule::new("self.size() == 0 || self.exists(p, !has(p.weight) || p.weight > 0)")
            .message("ecs.capacityProviders: at least one must have a weight above 0"),
        Rule::new("self.filter(p, has(p.base) && p.base > 0).size() <= 1")
            .message("ecs.capacityProviders: only one may have a base above 0"),
        Rule::new("self.all(p, p.name in ['FARGATE', 'FARGATE_SPOT']) || !self.exists(p, p.name in ['FARGATE', 'FARGATE_SPOT'])")
            .message("ecs.capacityProviders: Fargate and other providers cannot be mixed"),
    ]
}

impl Ecs {
    /// The network mode of the managed task definition: what it says, else `bridge` on ECS Anywhere, which has no `awsvpc`,
    /// and `awsvpc` elsewhere.
    pub fn network_mode(&self) -> NetworkMode {
        let default = match self.launch_type {
            Some(LaunchType::External) => NetworkMode::Bridge,
            _ => NetworkMode::Awsvpc,
        };
        self.managed_task_definition.as_ref().and_then(|managed| managed.network_mode).unwrap_or(default)
    }
}

/// Where ECS runs a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum LaunchType {
    /// On AWS Fargate.
    Fargate,
    /// On the cluster's own EC2 instances.
    Ec2,
    /// On the user's own machines (ECS Anywhere).
    External,
}

/// A share in a capacity provider strategy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CapacityProvider {
    /// Name of the capacity provider: FARGATE, FARGATE_SPOT or one of the cluster's own. Unique in the list.
    #[schemars(length(min = 1, max = 255), regex(pattern = "^[A-Za-z0-9_-]+$"))]
    pub name: String,
    /// The share of the tasks beyond base, relative to the other weights: 0 to 1000. Default: 1.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1000))]
    pub weight: i32,
    /// How many tasks go to this provider before weights count: 0 to 100000. Only one provider has a base. Default: 0.
    #[serde(default)]
    #[schemars(range(min = 0, max = 100_000))]
    pub base: i32,
}

fn one() -> i32 {
    1
}

/// A task definition that the controller renders, registers and retires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct ManagedTaskDefinition {
    /// The family that revisions are registered in. Default: namespace, name of the set and name of the backend, joined by
    /// hyphens.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255), regex(pattern = "^[A-Za-z0-9_-]+$"))]
    pub family: Option<String>,

    /// The runner's image. Default: ghcr.io/actions/actions-runner:latest.
    #[schemars(length(min = 1, max = 512), regex(pattern = NO_SPACE))]
    pub image: String,

    /// CPU units of the task; 1024 are one vCPU. Default: 1024.
    #[schemars(range(min = 128, max = 196_608))]
    pub cpu: i32,

    /// Memory of the task in MiB. Default: 2048.
    #[schemars(range(min = 128, max = 16_777_216))]
    pub memory: i32,

    /// The CPU architecture: X86_64 or ARM64. Default: X86_64.
    pub architecture: Architecture,

    /// The ECS operating system family, like LINUX or WINDOWS_SERVER_2022_CORE. Default: LINUX.
    #[schemars(length(max = 64), regex(pattern = "^(LINUX|WINDOWS_SERVER_[0-9A-Z_]+)$"))]
    pub operating_system: String,

    /// The network mode of the task: awsvpc, bridge, host or none. Fargate has only awsvpc, which needs subnets. Default:
    /// awsvpc, and bridge with launchType EXTERNAL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_mode: Option<NetworkMode>,

    /// The role with which ECS pulls the image and writes the log. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = ARN))]
    pub execution_role_arn: Option<String>,

    /// The role that jobs have. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = ARN))]
    pub task_role_arn: Option<String>,

    /// The CloudWatch log group that the runner's output goes to. Default: none, which is no log.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = "^[-A-Za-z0-9_/.#]+$"))]
    pub log_group: Option<String>,

    /// Further environment variables of the runner. Default: none.
    #[schemars(length(max = 128), transform = named_list)]
    pub env: Vec<EnvVar>,

    /// How jobs get a Docker engine: None, or Sidecar for a private engine beside each runner (EC2 and EXTERNAL only).
    /// Default: None.
    pub docker_access: EcsDockerAccess,

    /// Ephemeral storage of a task on Fargate in GiB: 21 to 200. Default: Fargate's own 20.
    #[serde(rename = "ephemeralStorageGiB", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 21, max = 200))]
    pub ephemeral_storage_gib: Option<i32>,
}

impl Default for ManagedTaskDefinition {
    fn default() -> Self {
        Self {
            family: None,
            image: runner_image(),
            cpu: CPU,
            memory: MEMORY,
            architecture: Architecture::default(),
            operating_system: "LINUX".into(),
            network_mode: None,
            execution_role_arn: None,
            task_role_arn: None,
            log_group: None,
            env: Vec::new(),
            docker_access: EcsDockerAccess::default(),
            ephemeral_storage_gib: None,
        }
    }
}

/// A CPU architecture, as ECS calls it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Architecture {
    /// 64-bit Intel and AMD.
    #[default]
    #[serde(rename = "X86_64")]
    X86_64,
    /// 64-bit Arm.
    #[serde(rename = "ARM64")]
    Arm64,
}

/// The network mode of a task definition, as ECS calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// A network interface of the task's own, in subnets.
    Awsvpc,
    /// Docker's bridge on the instance.
    Bridge,
    /// The instance's network.
    Host,
    /// No network.
    None,
}

/// How jobs on ECS get a Docker engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum EcsDockerAccess {
    /// Not at all.
    #[default]
    None,
    /// By a private engine beside the runner.
    Sidecar,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ecs_anywhere_has_no_awsvpc() {
        let ecs = |extra: &str| -> Ecs {
            serde_json::from_str(&format!(
                r#"{{"region": "eu-west-1", "cluster": "c", "managedTaskDefinition": {{}}{extra}}}"#
            ))
            .unwrap()
        };
        assert_eq!(ecs("").network_mode(), NetworkMode::Awsvpc);
        assert_eq!(ecs(r#", "launchType": "EXTERNAL""#).network_mode(), NetworkMode::Bridge);
        let mut host = ecs(r#", "launchType": "EXTERNAL""#);
        host.managed_task_definition.as_mut().unwrap().network_mode = Some(NetworkMode::Host);
        assert_eq!(host.network_mode(), NetworkMode::Host);
    }
}
