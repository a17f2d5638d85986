//! Task definitions: families and their revisions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

use super::task::Tag;

/// The state of a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs)] // The names are those of the API.
pub enum DefinitionStatus {
    Active,
    Inactive,
    DeleteInProgress,
}

/// One revision of a task definition.
#[derive(Debug, Clone)]
pub struct Definition {
    /// The family.
    pub family: String,
    /// The revision.
    pub revision: u32,
    /// The ARN.
    pub arn: String,
    /// The state.
    pub status: DefinitionStatus,
    /// The members as DescribeTaskDefinition shows them, without those that change.
    pub body: Value,
    /// The tags.
    pub tags: Vec<Tag>,
    pub(in crate::ecs) registered_at: Instant,
    pub(in crate::ecs) deregistered_at: Option<Instant>,
    pub(in crate::ecs) delete_requested_at: Option<Instant>,
}

impl Definition {
    /// The containers' definitions.
    pub fn containers(&self) -> impl Iterator<Item = &Value> {
        self.body["containerDefinitions"].as_array().into_iter().flatten()
    }

    /// The network mode; bridge where none is named.
    pub fn network_mode(&self) -> &str {
        self.body["networkMode"].as_str().unwrap_or("bridge")
    }

    /// Whether a launch type of this name is among the compatibilities.
    pub fn is_compatible_with(&self, launch_type: &str) -> bool {
        self.body["compatibilities"].as_array().into_iter().flatten().any(|name| name == launch_type)
    }

    /// CPU units of a task: the task's own, or the containers' together.
    pub fn cpu(&self) -> i64 {
        self.number("cpu").unwrap_or_else(|| self.containers().filter_map(|c| c["cpu"].as_i64()).sum())
    }

    /// MiB of a task: the task's own, or the containers' together.
    pub fn memory(&self) -> i64 {
        let of = |c: &Value| c["memoryReservation"].as_i64().or(c["memory"].as_i64());
        self.number("memory").unwrap_or_else(|| self.containers().filter_map(of).sum())
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.body[name].as_str()?.parse().ok()
    }

    /// The longest `stopTimeout` of the containers.
    pub fn stop_timeout(&self) -> Option<Duration> {
        self.containers().filter_map(|c| c["stopTimeout"].as_u64()).max().map(Duration::from_secs)
    }
}

/// Every family of the account.
#[derive(Debug, Default)]
pub struct Definitions {
    families: BTreeMap<String, BTreeMap<u32, Arc<Definition>>>,
    /// The newest revision of each family; kept when revisions are deleted.
    newest: BTreeMap<String, u32>,
}

impl Definitions {
    /// Every revision, by family and number.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Definition>> {
        self.families.values().flat_map(BTreeMap::values)
    }

    /// The revision that `family`, `family:revision` or an ARN names; a family alone names its newest ACTIVE one.
    pub fn find(&self, name: &str) -> Option<&Arc<Definition>> {
        let name = name.rsplit_once(":task-definition/").map_or(name, |(_, rest)| rest);
        match name.split_once(':') {
            Some((family, revision)) => self.families.get(family)?.get(&revision.parse().ok()?),
            None => {
                let revisions = self.families.get(name)?.values().rev();
                revisions.into_iter().find(|definition| definition.status == DefinitionStatus::Active)
            }
        }
    }

    /// The number of the family's next revision.
    pub(in crate::ecs) fn next_revision(&self, family: &str) -> u32 {
        self.newest.get(family).map_or(1, |newest| newest + 1)
    }

    /// Puts a revision in, new or changed.
    pub(in crate::ecs) fn put(&mut self, definition: Definition) -> Arc<Definition> {
        let newest = self.newest.entry(definition.family.clone()).or_default();
        *newest = definition.revision.max(*newest);
        let definition = Arc::new(definition);
        let family = self.families.entry(definition.family.clone()).or_default();
        family.insert(definition.revision, Arc::clone(&definition));
        definition
    }

    /// Removes the revisions whose deletion was asked for and that no task uses.
    pub(in crate::ecs) fn sweep(&mut self, used: impl Fn(&Definition) -> bool) {
        for revisions in self.families.values_mut() {
            revisions.retain(|_, d| d.status != DefinitionStatus::DeleteInProgress || used(d));
        }
        self.families.retain(|_, revisions| !revisions.is_empty());
    }
}
