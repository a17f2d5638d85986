//! What the runners run on.

use super::{
    Docker, Ecs, Tart,
    schema::{LABEL, MOST_RUNNERS, one_owner},
};
use kube::core::Rule;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A place for runners: Docker hosts, Macs with Tart, or an Amazon ECS cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    Rule::new("[has(self.docker), has(self.tart), has(self.ecs)].filter(given, given).size() == 1")
        .message("exactly one of docker, tart and ecs must be given for each of spec.backends"),
    Rule::new("!has(self.tart) || !has(self.tart.warmPool) || !has(self.tart.warmPool.size) || !has(self.maxRunners) || \
               self.tart.warmPool.size <= self.maxRunners")
        .message("tart.warmPool.size must not be greater than the backend's maxRunners")
        .field_path(".tart.warmPool.size"),
]))]
pub struct Backend {
    /// Name of the backend, unique in the list; status and metrics show it.
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL))]
    pub name: String,

    /// The most runners that this backend has at a time. Default: no limit but spec.maxRunners and the hosts' own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = MOST_RUNNERS))]
    pub max_runners: Option<i32>,

    /// Runners in containers on Docker hosts. Exactly one of docker, tart and ecs is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = one_owner)]
    pub docker: Option<Docker>,

    /// Runners in macOS or Linux virtual machines on Macs, by Tart. Exactly one of docker, tart and ecs is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = one_owner)]
    pub tart: Option<Tart>,

    /// Runners in tasks on Amazon ECS. Exactly one of docker, tart and ecs is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(transform = one_owner)]
    pub ecs: Option<Ecs>,
}

impl Backend {
    /// Which of the three it is. `None` only for an object that did not pass the API server's rules.
    pub fn kind(&self) -> Option<BackendType> {
        match self {
            Self { docker: Some(_), .. } => Some(BackendType::Docker),
            Self { tart: Some(_), .. } => Some(BackendType::Tart),
            Self { ecs: Some(_), .. } => Some(BackendType::Ecs),
            _ => None,
        }
    }

    /// Leaves out all that removes something on its hosts on a timer, for a program that only looks.
    pub fn keep_no_house(&mut self) {
        if let Some(docker) = &mut self.docker {
            docker.housekeeping.buildx.enabled = false;
            docker.housekeeping.images.enabled = false;
            docker.housekeeping.build_cache.enabled = false;
            docker.housekeeping.disk_guard.enabled = false;
            docker.shared_volume = None;
        }
        if let Some(tart) = &mut self.tart {
            tart.housekeeping.cache.enabled = false;
        }
    }
}

/// The three kinds of backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BackendType {
    /// Containers on Docker hosts.
    Docker,
    /// Virtual machines on Macs.
    Tart,
    /// Tasks on Amazon ECS.
    Ecs,
}

impl BackendType {
    /// As a spec and metrics write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Tart => "tart",
            Self::Ecs => "ecs",
        }
    }
}

impl fmt::Display for BackendType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
