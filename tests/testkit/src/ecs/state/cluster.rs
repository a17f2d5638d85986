//! Clusters: their capacity providers and container instances.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::task::Tag;

/// A capacity provider's kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ProviderKind {
    /// `FARGATE`.
    Fargate,
    /// `FARGATE_SPOT`.
    FargateSpot,
    /// An Auto Scaling group of EC2 instances. With managed scaling a task waits in PROVISIONING for an instance.
    AutoScaling {
        /// Whether managed scaling is on.
        managed: bool,
    },
}

/// A capacity provider of a cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Provider {
    /// The short name.
    pub name: String,
    /// The kind.
    pub kind: ProviderKind,
}

impl Provider {
    /// `FARGATE`.
    pub fn fargate() -> Self {
        Self { name: "FARGATE".to_owned(), kind: ProviderKind::Fargate }
    }

    /// `FARGATE_SPOT`.
    pub fn fargate_spot() -> Self {
        Self { name: "FARGATE_SPOT".to_owned(), kind: ProviderKind::FargateSpot }
    }

    /// An Auto Scaling group's provider.
    pub fn auto_scaling(name: impl Into<String>, managed: bool) -> Self {
        Self { name: name.into(), kind: ProviderKind::AutoScaling { managed } }
    }
}

/// An element of a capacity provider strategy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StrategyItem {
    /// The provider's short name.
    pub capacity_provider: String,
    /// The relative share of tasks.
    #[serde(default)]
    pub weight: i64,
    /// How many tasks of a call go to this provider first.
    #[serde(default)]
    pub base: i64,
}

/// What a container instance has to offer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InstanceSpec {
    /// CPU units.
    pub cpu: i64,
    /// MiB.
    pub memory: i64,
    /// Network interfaces for tasks of network mode awsvpc.
    pub interfaces: usize,
    /// An instance of launch type EXTERNAL.
    pub external: bool,
    /// The capacity provider that the instance belongs to.
    pub provider: Option<String>,
    /// Whether the agent is connected.
    pub connected: bool,
}

impl Default for InstanceSpec {
    fn default() -> Self {
        Self { cpu: 4096, memory: 16_384, interfaces: 3, external: false, provider: None, connected: true }
    }
}

/// A container instance.
#[derive(Debug, Clone)]
pub struct Instance {
    /// The container instance's ARN.
    pub arn: String,
    /// The instance's id at EC2 or Systems Manager.
    pub machine: String,
    /// What the instance has in all.
    pub spec: InstanceSpec,
}

/// How a cluster begins.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSpec {
    /// The short name.
    pub name: String,
    /// The capacity providers that are associated with the cluster.
    #[serde(default = "fargate_providers")]
    pub providers: Vec<Provider>,
    /// The strategy for tasks that name neither strategy nor launch type.
    #[serde(default)]
    pub default_strategy: Vec<StrategyItem>,
    /// The container instances.
    #[serde(default)]
    pub instances: Vec<InstanceSpec>,
}

fn fargate_providers() -> Vec<Provider> {
    vec![Provider::fargate(), Provider::fargate_spot()]
}

impl ClusterSpec {
    /// A cluster with Fargate and Fargate Spot, and no instances.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            providers: fargate_providers(),
            default_strategy: Vec::new(),
            instances: Vec::new(),
        }
    }

    /// Associates a capacity provider.
    #[must_use]
    pub fn provider(mut self, provider: Provider) -> Self {
        self.providers.push(provider);
        self
    }

    /// Adds a container instance.
    #[must_use]
    pub fn instance(mut self, instance: InstanceSpec) -> Self {
        self.instances.push(instance);
        self
    }
}

/// A cluster.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// The short name.
    pub name: String,
    /// The ARN.
    pub arn: String,
    /// Whether the cluster is ACTIVE; else it is INACTIVE.
    pub active: bool,
    /// The capacity providers.
    pub providers: Vec<Provider>,
    /// The strategy for tasks that name neither strategy nor launch type.
    pub default_strategy: Vec<StrategyItem>,
    /// The container instances.
    pub instances: Vec<Instance>,
    /// The cluster's tags.
    pub tags: Vec<Tag>,
    /// How many tasks Fargate has room for, by provider; no entry: any number.
    pub fargate_room: BTreeMap<String, usize>,
    /// How many tasks went to each provider by weight, over all calls: one call of one task each comes out right, too.
    pub(super) by_weight: BTreeMap<String, i64>,
}

impl Cluster {
    pub(super) fn new(spec: ClusterSpec, region: &str, account: &str) -> Self {
        let mut cluster = Self {
            arn: format!("arn:aws:ecs:{region}:{account}:cluster/{}", spec.name),
            name: spec.name,
            active: true,
            providers: spec.providers,
            default_strategy: spec.default_strategy,
            instances: Vec::new(),
            tags: Vec::new(),
            fargate_room: BTreeMap::new(),
            by_weight: BTreeMap::new(),
        };
        for instance in spec.instances {
            cluster.add_instance(instance);
        }
        cluster
    }

    /// Registers a container instance; gives its ARN.
    pub(super) fn add_instance(&mut self, spec: InstanceSpec) -> String {
        let id = Uuid::new_v4().simple().to_string();
        let arn = self.arn.replacen(":cluster/", ":container-instance/", 1) + "/" + &id;
        let prefix = if spec.external { "mi" } else { "i" };
        self.instances.push(Instance { arn: arn.clone(), machine: format!("{prefix}-{}", &id[..17]), spec });
        arn
    }

    /// The provider of this name.
    pub fn provider(&self, name: &str) -> Option<&Provider> {
        self.providers.iter().find(|provider| provider.name == name)
    }

    /// Picks the provider of the next task by weight.
    pub(in crate::ecs) fn next_by_weight(&mut self, strategy: &[StrategyItem]) -> Option<String> {
        let share = |item: &&StrategyItem| {
            let placed = self.by_weight.get(&item.capacity_provider).copied().unwrap_or(0);
            // The next task's share, scaled so that whole numbers can be compared.
            (placed + 1) * 1_000_000 / item.weight
        };
        let next = strategy.iter().filter(|item| item.weight > 0).min_by_key(share)?;
        let name = next.capacity_provider.clone();
        *self.by_weight.entry(name.clone()).or_default() += 1;
        Some(name)
    }

    /// The cluster as DescribeClusters shows it; `running` and `pending` are counts of tasks.
    pub(in crate::ecs) fn view(&self, running: usize, pending: usize) -> Value {
        json!({
            "clusterArn": self.arn,
            "clusterName": self.name,
            "status": if self.active { "ACTIVE" } else { "INACTIVE" },
            "registeredContainerInstancesCount": self.instances.len(),
            "runningTasksCount": running,
            "pendingTasksCount": pending,
            "activeServicesCount": 0,
            "statistics": [],
            "tags": [],
            "settings": [{ "name": "containerInsights", "value": "disabled" }],
            "capacityProviders": self.providers.iter().map(|provider| &provider.name).collect::<Vec<_>>(),
            "defaultCapacityProviderStrategy": self.default_strategy,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_met_over_many_picks_of_one() {
        let mut cluster = Cluster::new(ClusterSpec::new("c"), "eu-west-1", "1");
        let item = |name: &str, weight| StrategyItem { capacity_provider: name.to_owned(), weight, base: 0 };
        let strategy = [item("FARGATE_SPOT", 3), item("FARGATE", 1), item("never", 0)];
        let picks: Vec<String> = (0..40).filter_map(|_| cluster.next_by_weight(&strategy)).collect();
        assert_eq!(picks.iter().filter(|name| *name == "FARGATE_SPOT").count(), 30);
        assert_eq!(picks.iter().filter(|name| *name == "FARGATE").count(), 10);
    }
}
