//! The operations on clusters and capacity providers.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::fault::reason;
use super::page::{self, Page};
use super::refusal::own;
use super::state::{ClusterSpec, PAGE, Provider, ProviderKind, State, Status};
use super::wire::{Refusal, failure, read};

/// The most entries of a page of capacity providers.
const PROVIDERS_PAGE: usize = 10;

#[derive(Deserialize)]
struct CreateCluster {
    #[serde(rename = "clusterName")]
    name: Option<String>,
    #[serde(rename = "capacityProviders")]
    providers: Option<Vec<String>>,
}

/// Creates a cluster, or shows the one of this name.
pub(super) fn create_cluster(state: &mut State, body: &Value) -> Result<Value, Refusal> {
    let request: CreateCluster = read(body)?;
    let name = request.name.unwrap_or_else(|| "default".to_owned());
    if !state.clusters.contains_key(&name) {
        let mut spec = ClusterSpec::new(&name);
        if let Some(wanted) = request.providers {
            spec.providers.retain(|provider| wanted.contains(&provider.name));
        }
        state.add_cluster(spec);
    }
    state.touch();
    Ok(json!({ "cluster": state.clusters.get(&name).map(|cluster| cluster.view(0, 0)) }))
}

#[derive(Deserialize)]
struct DescribeClusters {
    #[serde(default)]
    clusters: Vec<String>,
    #[serde(default)]
    include: Vec<String>,
}

/// Describes clusters; those that are not known are MISSING.
pub(super) fn describe_clusters(state: &State, body: &Value) -> Result<Value, Refusal> {
    let mut request: DescribeClusters = read(body)?;
    if request.clusters.is_empty() {
        request.clusters.push("default".to_owned());
    }
    if request.clusters.len() > PAGE {
        return Err(own::too_many("clusters", PAGE));
    }
    let (mut clusters, mut failures) = (Vec::new(), Vec::new());
    for name in &request.clusters {
        let Some(cluster) = state.named_cluster(name) else {
            let (region, account) = (&state.config.region, &state.config.account);
            let arn = format!("arn:aws:ecs:{region}:{account}:cluster/{name}");
            let arn = if name.starts_with("arn:") { name } else { &arn };
            failures.push(failure(Some(arn), reason::MISSING, None));
            continue;
        };
        let count = |wanted: fn(Status) -> bool| {
            state.tasks.values().filter(|task| task.cluster == cluster.name && wanted(task.status)).count()
        };
        let mut view = cluster.view(count(|s| s == Status::Running), count(|s| s < Status::Running));
        if request.include.iter().any(|field| field == "TAGS") {
            view["tags"] = json!(cluster.tags);
        }
        clusters.push(view);
    }
    Ok(json!({ "clusters": clusters, "failures": failures }))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DescribeProviders {
    #[serde(default)]
    capacity_providers: Vec<String>,
    next_token: Option<String>,
    max_results: Option<i64>,
}

/// Describes the account's capacity providers, all or those that are named, by name or ARN.
pub(super) fn describe_providers(state: &State, body: &Value) -> Result<Value, Refusal> {
    let request: DescribeProviders = read(body)?;
    let (region, account) = (&state.config.region, &state.config.account);
    let arn = |name: &str| format!("arn:aws:ecs:{region}:{account}:capacity-provider/{name}");
    let mut known: Map<String, Value> = Map::new();
    let fixed = [Provider::fargate(), Provider::fargate_spot()];
    for provider in fixed.iter().chain(state.clusters.values().flat_map(|cluster| &cluster.providers)) {
        let mut view = json!({
            "capacityProviderArn": arn(&provider.name), "name": provider.name, "status": "ACTIVE", "tags": [],
        });
        view["type"] = match provider.kind {
            ProviderKind::Fargate => json!("FARGATE"),
            ProviderKind::FargateSpot => json!("FARGATE_SPOT"),
            ProviderKind::AutoScaling { managed } => {
                let status = if managed { "ENABLED" } else { "DISABLED" };
                view["autoScalingGroupProvider"] = json!({
                    "autoScalingGroupArn": format!("arn:aws:autoscaling:{region}:{account}:autoScalingGroup:x:autoScalingGroupName/{}", provider.name),
                    "managedScaling": { "status": status },
                    "managedTerminationProtection": "DISABLED",
                });
                json!("EC2_AUTOSCALING")
            }
        };
        known.insert(provider.name.clone(), view);
    }
    let asked = &request.capacity_providers;
    let is_asked = |name: &str| asked.is_empty() || asked.iter().any(|a| a == name || *a == arn(name));
    let missing = asked.iter().filter(|a| !known.keys().any(|name| *a == name || **a == arn(name)));
    let failures: Vec<Value> = missing.map(|name| failure(Some(&arn(name)), reason::MISSING, None)).collect();
    let names: Vec<String> = known.keys().filter(|name| is_asked(name)).cloned().collect();
    let page =
        Page::read(request.max_results, request.next_token.as_deref(), &page::fingerprint(&asked.join(" ")))?;
    let mut answer = page.cut(names, PROVIDERS_PAGE, "capacityProviders");
    for entry in answer["capacityProviders"].as_array_mut().into_iter().flatten() {
        let view = entry.as_str().and_then(|name| known.get(name)).cloned();
        *entry = view.unwrap_or_default();
    }
    answer["failures"] = json!(failures);
    Ok(answer)
}
