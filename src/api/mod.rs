//! The `RunnerScaleSet` API, `paddock.dev/v1alpha1`: types, defaults, and the rules that the API server enforces.
//!
//! The doc comments of fields are what `kubectl explain` prints, so they are for who writes manifests, with units and
//! defaults. Whatever the schema admits can be read by these types: an object that could not would stop the watch for all.

mod backend;
pub mod condition;
mod docker;
mod docker_housekeeping;
mod duration;
mod ecs;
mod env;
mod free_space;
mod github;
mod image;
mod operator_policy;
mod permission;
mod quantity;
mod reference;
mod schedule;
mod schema;
pub mod status;
mod tart;
mod timing;
mod validation;

pub use backend::{Backend, BackendType};
pub use condition::{Explanation, Reason};
pub use docker::{
    Docker, DockerAccess, DockerHost, NETWORK_OF_SET, Resources, SharedVolume, is_default_network,
};
pub use docker_housekeeping::{
    BuildCacheHousekeeping, BuildxHousekeeping, DiskGuard, DockerHousekeeping, ImageHousekeeping,
};
pub use duration::{Duration, InvalidDuration};
pub use ecs::{
    Architecture, CapacityProvider, Ecs, EcsDockerAccess, LaunchType, ManagedTaskDefinition, NetworkMode, Tag,
};
pub use env::{EnvVar, EnvVarSource, JIT_CONFIG_ENV, VERSION_EXIT_CODE_ENV};
pub use free_space::{FreeBytes, FreeSpace};
pub use github::{GitHub, Proxy};
pub use image::PullPolicy;
pub use operator_policy::{Globs, HostCeiling, InvalidPolicy, OperatorPolicy, PolicyRule, glob_matches};
pub use permission::{Spelling, enforce, only_permitted_hosts, permits_github, permits_host, violations};
pub use quantity::{InvalidQuantity, Quantity};
pub use reference::{CaBundleKind, CaBundleRef, SecretKeyRef, SecretRef};
pub use schedule::Schedule;
pub use status::{RunnerPhase, RunnerScaleSetStatus};
pub use tart::{CacheHousekeeping, Tart, TartHost, TartHousekeeping, WarmPool};
pub use timing::{Disruption, InvalidMaxUnavailable, MaxUnavailable, ScaleDown, Timeouts};
pub use validation::{InvalidField, is_scale_set, validate};

use kube::{CustomResource, CustomResourceExt, core::Rule};
use schema::{MOST_RUNNERS, kubernetes_style, named_list};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The finalizer by which the controller keeps an object until nothing of it is left elsewhere.
pub const FINALIZER: &str = "paddock.dev/finalizer";

/// What is wanted of a fleet of ephemeral runners.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "paddock.dev",
    version = "v1alpha1",
    kind = "RunnerScaleSet",
    plural = "runnerscalesets",
    shortname = "rss",
    category = "paddock",
    namespaced,
    status = "RunnerScaleSetStatus",
    derive = "PartialEq",
    doc = "A fleet of ephemeral GitHub Actions runners, kept at the size that GitHub's job queue asks for.",
    scale(spec_replicas_path = ".spec.minRunners", status_replicas_path = ".status.currentRunners"),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".status.desiredRunners"),
    printcolumn(name = "Current", type_ = "integer", json_path = ".status.currentRunners"),
    printcolumn(name = "Pending", type_ = "integer", json_path = ".status.pendingRunners"),
    printcolumn(name = "Idle", type_ = "integer", json_path = ".status.idleRunners"),
    printcolumn(name = "Busy", type_ = "integer", json_path = ".status.busyRunners"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Min", type_ = "integer", json_path = ".spec.minRunners", priority = 1),
    printcolumn(name = "Max", type_ = "integer", json_path = ".spec.maxRunners", priority = 1),
    printcolumn(name = "Schedule", type_ = "string", json_path = ".status.activeSchedule", priority = 1),
    printcolumn(name = "GitHub URL", type_ = "string", json_path = ".spec.github.url", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("has(self.spec.scaleSetName) || self.metadata.name.size() <= 45")
        .message("metadata.name is longer than 45 characters: spec.scaleSetName must be given"),
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules()), transform = kubernetes_style)]
pub struct RunnerScaleSetSpec {
    /// Where at GitHub the runners belong, and how to get there.
    pub github: GitHub,

    /// What runs-on names: the scale set's name at GitHub, the first of its labels and the beginning of its runners' names;
    /// at most 45 characters. Default: metadata.name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 45), regex(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]*$"))]
    pub scale_set_name: Option<String>,

    /// Further labels of the scale set, each of 1 to 255 characters; its name is always one. A job goes to a set that has all
    /// the labels it names. Default: none.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(min = 1, max = 255), regex(pattern = "^\\S(.*\\S)?$")))]
    pub labels: Vec<String>,

    /// Idle runners that are kept on top of the jobs in hand. kubectl scale sets it. Default: 0.
    #[serde(default)]
    #[schemars(range(min = 0, max = MOST_RUNNERS))]
    pub min_runners: i32,

    /// The most runners at a time, over all backends. 0: none. Default: 10.
    #[serde(default = "ten")]
    #[schemars(range(min = 0, max = MOST_RUNNERS))]
    pub max_runners: i32,

    /// Windows of time in which other minRunners and maxRunners hold (at most 32). Of those open at once the last in the list
    /// wins. Default: none.
    #[serde(default)]
    #[schemars(length(max = 32), transform = named_list)]
    pub schedules: Vec<Schedule>,

    /// Whether the set takes no new job, removes its idle runners and lets the busy ones finish. Default: false.
    #[serde(default)]
    pub suspend: bool,

    /// How long a runner may stay in each phase.
    #[serde(default)]
    pub timeouts: Timeouts,

    /// How surplus idle runners go.
    #[serde(default)]
    pub scale_down: ScaleDown,

    /// How idle runners are replaced when the template they were made from changed.
    #[serde(default)]
    pub disruption: Disruption,

    /// What the runners run on (1 to 8), filled in order: the next takes what the one before cannot.
    #[schemars(length(min = 1, max = 8), transform = named_list)]
    pub backends: Vec<Backend>,
}

fn ten() -> i32 {
    10
}

/// What holds between the fields of [`RunnerScaleSetSpec`].
fn rules() -> Vec<Rule> {
    vec![
        Rule::new("self.minRunners <= self.maxRunners")
            .message("spec.minRunners must not be greater than spec.maxRunners")
            .field_path(".minRunners"),
        Rule::new(
            "self.schedules.all(s, (has(s.minRunners) ? s.minRunners : self.minRunners) <= \
             (has(s.maxRunners) ? s.maxRunners : self.maxRunners))",
        )
        .message(
            "spec.schedules: a window's minRunners must not be greater than its maxRunners, and what it leaves out is the spec's",
        )
        .field_path(".schedules"),
        Rule::new(
            "self.backends.map(b, has(b.tart) && has(b.tart.warmPool) && has(b.tart.warmPool.size) ? \
             b.tart.warmPool.size : 0).sum() <= self.maxRunners",
        )
        .message("spec.backends: the warmPool.size of all tart backends together must not be greater than spec.maxRunners")
        .field_path(".backends"),
    ]
}

impl RunnerScaleSet {
    /// The scale set's name at GitHub: `spec.scaleSetName`, else the object's own.
    pub fn scale_set_name(&self) -> &str {
        self.spec.scale_set_name.as_deref().or(self.metadata.name.as_deref()).unwrap_or_default()
    }

    /// The scale set's labels at GitHub: its name first, then `spec.labels` in order, without those that differ from an earlier
    /// one in case alone.
    pub fn scale_set_labels(&self) -> Vec<&str> {
        let mut labels = vec![self.scale_set_name()];
        for label in &self.spec.labels {
            if !labels.iter().any(|known| known.to_lowercase() == label.to_lowercase()) {
                labels.push(label);
            }
        }
        labels
    }
}

/// The CustomResourceDefinition as YAML, as `paddock crd` prints it and `crds/runnerscaleset.yaml` keeps it.
pub fn crd_yaml() -> Result<String, serde_saphyr::ser::Error> {
    let mut crd = RunnerScaleSet::crd();
    let schemas = crd.spec.versions.iter_mut().filter_map(|version| version.schema.as_mut());
    schemas.filter_map(|schema| schema.open_api_v3_schema.as_mut()).for_each(schema::say_no_default);
    serde_saphyr::to_string(&crd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::cel::{validate_cel, validate_cel_update};

    fn full() -> RunnerScaleSet {
        serde_saphyr::from_str(include_str!("../../tests/support/full.yaml")).unwrap()
    }

    #[test]
    fn the_name_is_the_objects_own_unless_given() {
        let mut set = full();
        set.metadata.name = Some("other".into());
        assert_eq!(set.scale_set_name(), "linux");
        set.spec.scale_set_name = None;
        assert_eq!(set.scale_set_name(), "other");
    }

    #[test]
    fn the_name_is_the_first_label_and_none_comes_twice() {
        let mut set = full();
        set.spec.labels = ["x64", "LINUX", "X64", "gpu", "gpu"].map(String::from).to_vec();
        assert_eq!(set.scale_set_labels(), ["linux", "x64", "gpu"]);
    }

    #[test]
    fn the_rules_can_be_checked_without_an_api_server() {
        let set = full();
        validate_cel(&set).unwrap();
        let mut wrong = set.clone();
        wrong.spec.min_runners = 11;
        let errors = validate_cel(&wrong).unwrap_err().to_string();
        assert!(errors.contains("spec.minRunners must not be greater than spec.maxRunners"), "{errors}");
        let mut moved = set.clone();
        moved.spec.github.url = "https://github.com/other".into();
        let errors = validate_cel_update(&moved, &set).unwrap_err().to_string();
        assert!(errors.contains("spec.github.url cannot be changed"), "{errors}");
    }
}
