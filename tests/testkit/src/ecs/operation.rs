//! The operations of ECS and STS, as faults, limits and the request log tell them apart.

use serde::{Deserialize, Serialize};

/// What precedes the operation in `X-Amz-Target`.
const TARGET: &str = "AmazonEC2ContainerServiceV20141113.";

/// An operation, named as AWS names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs)] // The names are those of the API.
pub enum Operation {
    /// For faults only: every operation of ECS (not those of STS).
    Any,
    CreateCluster,
    DescribeClusters,
    DescribeCapacityProviders,
    RegisterTaskDefinition,
    DeregisterTaskDefinition,
    DeleteTaskDefinitions,
    DescribeTaskDefinition,
    ListTaskDefinitions,
    RunTask,
    StopTask,
    ListTasks,
    DescribeTasks,
    TagResource,
    UntagResource,
    ListTagsForResource,
    /// STS.
    AssumeRole,
    /// STS.
    GetCallerIdentity,
    /// An operation that the simulation does not have.
    Unknown,
}

/// Operations that share one token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Category {
    ClusterModify,
    ClusterRead,
    DefinitionModify,
    DefinitionDelete,
    DefinitionRead,
    ProviderRead,
    TagModify,
    TagRead,
    ResourceModify,
    ResourceRead,
}

impl Operation {
    /// Reads the header `X-Amz-Target`.
    pub(super) fn from_target(target: &str) -> Self {
        let name = target.strip_prefix(TARGET).unwrap_or_default();
        match Self::from_name(name) {
            Some(found) if !found.is_sts() && found != Self::Any => found,
            _ => Self::Unknown,
        }
    }

    /// Reads the parameter `Action` of the query protocol.
    pub(super) fn from_action(action: &str) -> Self {
        Self::from_name(action).filter(|found| found.is_sts()).unwrap_or(Self::Unknown)
    }

    fn from_name(name: &str) -> Option<Self> {
        serde_json::from_value(serde_json::Value::String(name.to_owned())).ok()
    }

    /// Whether the operation belongs to STS.
    pub(super) fn is_sts(self) -> bool {
        matches!(self, Self::AssumeRole | Self::GetCallerIdentity)
    }

    /// The service that a signature for the operation names.
    pub(super) fn service(self) -> &'static str {
        if self.is_sts() { "sts" } else { "ecs" }
    }

    /// The bucket that the operation draws on; none for STS, which is not limited here.
    pub(super) fn category(self) -> Option<Category> {
        Some(match self {
            Self::CreateCluster => Category::ClusterModify,
            Self::DescribeClusters => Category::ClusterRead,
            Self::DescribeCapacityProviders => Category::ProviderRead,
            Self::RegisterTaskDefinition | Self::DeregisterTaskDefinition => Category::DefinitionModify,
            Self::DeleteTaskDefinitions => Category::DefinitionDelete,
            Self::DescribeTaskDefinition | Self::ListTaskDefinitions => Category::DefinitionRead,
            Self::RunTask | Self::StopTask => Category::ResourceModify,
            Self::ListTasks | Self::DescribeTasks => Category::ResourceRead,
            Self::TagResource | Self::UntagResource => Category::TagModify,
            Self::ListTagsForResource => Category::TagRead,
            Self::Any | Self::AssumeRole | Self::GetCallerIdentity | Self::Unknown => return None,
        })
    }
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_known_by_its_target_and_by_its_own_service_only() {
        assert_eq!(Operation::from_target("AmazonEC2ContainerServiceV20141113.RunTask"), Operation::RunTask);
        assert_eq!(Operation::from_target("DynamoDB_20120810.RunTask"), Operation::Unknown);
        assert_eq!(
            Operation::from_target("AmazonEC2ContainerServiceV20141113.AssumeRole"),
            Operation::Unknown
        );
        assert_eq!(Operation::from_action("AssumeRole"), Operation::AssumeRole);
        assert_eq!(Operation::from_action("RunTask"), Operation::Unknown);
    }
}
