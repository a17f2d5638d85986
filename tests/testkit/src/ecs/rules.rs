//! The rules of RunTask: which combinations of its parameters are refused.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::fargate;
use super::refusal::{own, reported};
use super::state::{
    Cluster, Definition, DefinitionStatus, LaunchType, Provider, ProviderKind, State, StrategyItem, Tag,
};
use super::tags;
use super::wire::Refusal;

/// The most characters of `overrides` as JSON.
const OVERRIDES_CHARACTERS: usize = 8192;
const MOST_PROVIDERS: usize = 20;
const MOST_SUBNETS: usize = 16;
const MOST_SECURITY_GROUPS: usize = 5;

/// The members of a RunTask request that the simulation heeds.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RunTask {
    pub task_definition: String,
    pub cluster: Option<String>,
    pub count: Option<i64>,
    pub launch_type: Option<String>,
    #[serde(default)]
    pub capacity_provider_strategy: Vec<StrategyItem>,
    network_configuration: Option<NetworkConfiguration>,
    #[serde(default)]
    pub overrides: Value,
    pub platform_version: Option<String>,
    pub propagate_tags: Option<String>,
    #[serde(default, rename = "enableECSManagedTags")]
    pub enable_ecs_managed_tags: bool,
    pub started_by: Option<String>,
    #[serde(default)]
    pub tags: Vec<Tag>,
    pub group: Option<String>,
    pub client_token: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NetworkConfiguration {
    awsvpc_configuration: Option<AwsVpc>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AwsVpc {
    #[serde(default)]
    subnets: Vec<String>,
    #[serde(default)]
    security_groups: Vec<String>,
    assign_public_ip: Option<String>,
}

/// What an accepted request comes to.
#[derive(Debug)]
pub(super) struct Plan {
    pub definition: Arc<Definition>,
    pub launch_type: LaunchType,
    /// The strategy, if capacity providers are used.
    pub strategy: Vec<StrategyItem>,
    pub count: usize,
    pub cpu: i64,
    pub memory: i64,
    pub subnet: Option<String>,
    pub platform_version: Option<String>,
    pub tags: Vec<Tag>,
}

/// Checks a request against the rules.
pub(super) fn check(state: &State, cluster: &Cluster, request: &RunTask) -> Result<Plan, Refusal> {
    let definition = definition(state, &request.task_definition)?;
    let count = request.count.unwrap_or(1);
    if !(1..=10).contains(&count) {
        return Err(own::out_of_range("count", 1, 10));
    }
    check_words(request)?;
    let (launch_type, strategy) = launch(cluster, request)?;
    if !definition.is_compatible_with(launch_type.name()) {
        return Err(reported::launch_type_unsupported(launch_type.name()));
    }
    let platform_version = platform(request, launch_type, &definition)?;
    let subnet = network(state, request, launch_type, &definition)?;
    let (cpu, memory) = overrides(request, launch_type, &definition)?;
    let tags = all_tags(cluster, request, &definition)?;
    Ok(Plan {
        definition,
        launch_type,
        strategy,
        count: usize::try_from(count).unwrap_or(1),
        cpu,
        memory,
        subnet,
        platform_version,
        tags,
    })
}

fn definition(state: &State, name: &str) -> Result<Arc<Definition>, Refusal> {
    let found = state.definitions.find(name).ok_or_else(reported::definition_not_found)?;
    if found.status != DefinitionStatus::Active {
        return Err(reported::definition_inactive());
    }
    Ok(Arc::clone(found))
}

fn check_words(request: &RunTask) -> Result<(), Refusal> {
    let started_by = |c: char| c.is_ascii_alphanumeric() || "-/_".contains(c);
    if request.started_by.as_ref().is_some_and(|s| s.len() > 128 || !s.chars().all(started_by)) {
        return Err(own::malformed("startedBy"));
    }
    let printable = |c: char| ('!'..='~').contains(&c);
    if request
        .client_token
        .as_ref()
        .is_some_and(|t| t.is_empty() || t.len() > 64 || !t.chars().all(printable))
    {
        return Err(own::malformed("clientToken"));
    }
    tags::check(&request.tags)
}

/// The launch type, and the strategy if there is one.
fn launch(cluster: &Cluster, request: &RunTask) -> Result<(LaunchType, Vec<StrategyItem>), Refusal> {
    let named = request.launch_type.as_deref();
    if named.is_some() && !request.capacity_provider_strategy.is_empty() {
        return Err(reported::launch_type_and_strategy());
    }
    let launch_type = match named {
        Some("EC2") => LaunchType::Ec2,
        Some("FARGATE") => LaunchType::Fargate,
        Some("EXTERNAL") => LaunchType::External,
        Some("MANAGED_INSTANCES") => return Err(own::managed_instances_launch_type()),
        Some(_) => return Err(own::malformed("launchType")),
        None => {
            let asked = &request.capacity_provider_strategy;
            let strategy = if asked.is_empty() { &cluster.default_strategy } else { asked };
            if strategy.is_empty() {
                return Ok((LaunchType::Ec2, Vec::new()));
            }
            return Ok((check_strategy(cluster, strategy)?, strategy.clone()));
        }
    };
    Ok((launch_type, Vec::new()))
}

fn check_strategy(cluster: &Cluster, strategy: &[StrategyItem]) -> Result<LaunchType, Refusal> {
    if strategy.len() > MOST_PROVIDERS {
        return Err(own::too_many("capacityProviderStrategy", MOST_PROVIDERS));
    }
    let providers: Option<Vec<&Provider>> =
        strategy.iter().map(|item| cluster.provider(&item.capacity_provider)).collect();
    let providers = providers.ok_or_else(reported::provider_not_of_cluster)?;
    let scaling = |provider: &&&Provider| matches!(provider.kind, ProviderKind::AutoScaling { .. });
    let scaled = providers.iter().filter(scaling).count();
    if scaled != 0 && scaled != providers.len() {
        return Err(own::mixed_providers());
    }
    for item in strategy {
        if !(0..=1000).contains(&item.weight) {
            return Err(own::out_of_range("weight", 0, 1000));
        }
        if !(0..=100_000).contains(&item.base) {
            return Err(own::out_of_range("base", 0, 100_000));
        }
    }
    if strategy.iter().filter(|item| item.base > 0).count() > 1 {
        return Err(own::two_bases());
    }
    if strategy.iter().all(|item| item.weight == 0) {
        return Err(own::no_weight());
    }
    Ok(if scaled == 0 { LaunchType::Fargate } else { LaunchType::Ec2 })
}

fn platform(
    request: &RunTask,
    launch_type: LaunchType,
    definition: &Definition,
) -> Result<Option<String>, Refusal> {
    let asked = request.platform_version.as_deref();
    if launch_type != LaunchType::Fargate {
        return if asked.is_some() { Err(reported::platform_version_elsewhere()) } else { Ok(None) };
    }
    let version = fargate::platform_version(asked).ok_or_else(reported::platform_unknown)?;
    let platform = &definition.body["runtimePlatform"];
    let large = definition.cpu() >= 8192 || definition.body["ephemeralStorage"].is_object();
    if version == "1.3.0" && (large || platform["cpuArchitecture"] == "ARM64") {
        return Err(own::platform_incompatible());
    }
    Ok(Some(version.to_owned()))
}

/// The subnet of the task's network interface.
fn network(
    state: &State,
    request: &RunTask,
    launch_type: LaunchType,
    definition: &Definition,
) -> Result<Option<String>, Refusal> {
    let given = request.network_configuration.as_ref().and_then(|n| n.awsvpc_configuration.as_ref());
    if definition.network_mode() != "awsvpc" {
        let unfit = request.network_configuration.is_some();
        return if unfit { Err(reported::network_not_for_mode()) } else { Ok(None) };
    }
    let network = given.ok_or_else(reported::network_missing)?;
    let first = network.subnets.first().ok_or_else(reported::no_subnets)?;
    if network.subnets.len() > MOST_SUBNETS {
        return Err(own::too_many("subnets", MOST_SUBNETS));
    }
    if network.security_groups.len() > MOST_SECURITY_GROUPS {
        return Err(reported::too_many_security_groups());
    }
    let known = |id: &String| match state.config.subnets.as_slice() {
        [] => id.starts_with("subnet-"),
        subnets => subnets.contains(id),
    };
    if let Some(unknown) = network.subnets.iter().find(|id| !known(id)) {
        return Err(reported::no_such_subnet(unknown));
    }
    if let Some(unknown) = network.security_groups.iter().find(|id| !id.starts_with("sg-")) {
        return Err(reported::no_such_security_group(unknown));
    }
    match network.assign_public_ip.as_deref() {
        None | Some("DISABLED") => {}
        Some("ENABLED") if launch_type == LaunchType::Fargate => {}
        Some("ENABLED") => return Err(reported::public_ip_unsupported()),
        Some(_) => return Err(own::malformed("assignPublicIp")),
    }
    Ok(Some(first.clone()))
}

/// Checks the overrides; gives the task's CPU units and MiB.
fn overrides(
    request: &RunTask,
    launch_type: LaunchType,
    definition: &Definition,
) -> Result<(i64, i64), Refusal> {
    let overrides = &request.overrides;
    let text = if overrides.is_null() { String::new() } else { overrides.to_string() };
    if text.chars().count() > OVERRIDES_CHARACTERS {
        return Err(reported::overrides_too_long());
    }
    for container in overrides["containerOverrides"].as_array().into_iter().flatten() {
        let name = container["name"].as_str().unwrap_or_default();
        let empty = container.as_object().is_some_and(serde_json::Map::is_empty);
        if !empty && definition.containers().all(|c| c["name"] != name) {
            return Err(reported::override_of_no_container(name));
        }
    }
    let cpu =
        overrides["cpu"].as_str().map(|text| fargate::read_cpu(text).ok_or_else(|| own::malformed("cpu")));
    let memory = overrides["memory"].as_str();
    let memory = memory.map(|text| fargate::read_memory(text).ok_or_else(|| own::malformed("memory")));
    let size = (cpu.unwrap_or(Ok(definition.cpu()))?, memory.unwrap_or(Ok(definition.memory()))?);
    if launch_type == LaunchType::Fargate {
        fargate::check_size(size.0, size.1)?;
    }
    Ok(size)
}

/// The task's tags: its own, those that propagate, and ECS's.
fn all_tags(cluster: &Cluster, request: &RunTask, definition: &Definition) -> Result<Vec<Tag>, Refusal> {
    let mut tags = request.tags.clone();
    match request.propagate_tags.as_deref() {
        None | Some("NONE" | "") => {}
        Some("TASK_DEFINITION") => {
            let missing =
                definition.tags.iter().filter(|tag| request.tags.iter().all(|own| own.key != tag.key));
            tags.extend(missing.cloned());
        }
        Some("SERVICE") => return Err(own::propagate_service()),
        Some(_) => return Err(own::malformed("propagateTags")),
    }
    if request.enable_ecs_managed_tags {
        tags.push(Tag { key: "aws:ecs:clusterName".to_owned(), value: cluster.name.clone() });
    }
    Ok(tags)
}
