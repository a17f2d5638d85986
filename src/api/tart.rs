//! Runners in virtual machines on Macs, by Tart.

use super::{
    Duration, PullPolicy, Quantity, SecretRef,
    schema::{ABSOLUTE_PATH, LABEL, MOST_RUNNERS, NO_SPACE, host_rules, named_list},
};
use kube::core::Rule;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `local` or `ssh://[user@]host[:port]`.
const ENDPOINT: &str =
    "^(local|ssh://([A-Za-z0-9._-]+@)?([A-Za-z0-9._-]+|[[][0-9A-Fa-f:.]+[]])(:[0-9]{1,5})?)$";

/// Runners in virtual machines on Macs, by Tart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tart {
    /// The image that each runner's virtual machine is cloned from, like ghcr.io/cirruslabs/macos-tahoe-xcode:latest.
    #[schemars(length(min = 1, max = 512), regex(pattern = NO_SPACE))]
    pub image: String,

    /// When the image is pulled: Always (before every start), IfNotPresent (when the host does not have it) or Never.
    /// Default: IfNotPresent.
    #[serde(default)]
    pub pull_policy: PullPolicy,

    /// CPUs of a virtual machine. Default: the image's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub cpu: Option<i32>,

    /// Memory of a virtual machine in bytes, like 8Gi. Default: the image's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Quantity>,

    /// Where the runner is installed in the image: an absolute path. Default: /Users/admin/actions-runner.
    #[serde(default = "runner_dir")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = ABSOLUTE_PATH))]
    pub runner_dir: String,

    /// Virtual machines that are booted ahead of need.
    #[serde(default)]
    pub warm_pool: WarmPool,

    /// The Macs (1 to 64). Default: one, named local, with the endpoint local.
    #[serde(default = "local_host")]
    #[schemars(
        length(min = 1, max = 64),
        transform = named_list,
        extend("x-kubernetes-validations" = host_rules())
    )]
    pub hosts: Vec<TartHost>,

    /// What is cleaned up on the hosts, and how often.
    #[serde(default)]
    pub housekeeping: TartHousekeeping,
}

fn runner_dir() -> String {
    "/Users/admin/actions-runner".into()
}

fn local_host() -> Vec<TartHost> {
    vec![TartHost::local()]
}

/// Virtual machines that are booted ahead of need.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct WarmPool {
    /// How many virtual machines are kept booted, without a registration, for this scale set. They hold slots of their
    /// hosts. At most maxRunners. Default: 0.
    #[schemars(range(min = 0, max = MOST_RUNNERS))]
    pub size: i32,
}

/// A Mac.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    Rule::new("!has(self.sshSecretRef) || self.endpoint.startsWith('ssh://')")
        .message("tart.hosts[].sshSecretRef is only for an endpoint with ssh://")
        .field_path(".sshSecretRef"),
    Rule::new("has(self.sshSecretRef) || !self.endpoint.startsWith('ssh://')")
        .message("tart.hosts[].sshSecretRef is required for an endpoint with ssh://")
        .field_path(".sshSecretRef"),
]))]
pub struct TartHost {
    /// Name of the host, unique in the list; status shows it.
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL))]
    pub name: String,

    /// ssh://user@host, or local for the controller's own host.
    #[schemars(length(min = 1, max = 255), regex(pattern = ENDPOINT))]
    pub endpoint: String,

    /// How many virtual machines of this backend the host may run at a time, those of its warm pool among them. What all scale
    /// sets together may have there is the operator's to say, in the policy's hosts; unsaid it is 2, which is what Apple permits
    /// with macOS. 0: it takes no more of them. Default: 2.
    #[serde(default = "two_vms")]
    #[schemars(range(min = 0, max = MOST_RUNNERS))]
    pub max_vms: i32,

    /// The Secret with ssh-privatekey and known_hosts, which an endpoint with ssh:// requires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssh_secret_ref: Option<SecretRef>,

    /// TART_HOME on the host: an absolute path. Default: empty, which is tart's own default.
    #[serde(default)]
    #[schemars(length(max = 1024), regex(pattern = "^(/[^:,\\s]*)?$"))]
    pub tart_home: String,
}

fn two_vms() -> i32 {
    2
}

impl TartHost {
    /// The controller's own host: what a backend without `hosts` has.
    pub fn local() -> Self {
        Self {
            name: "local".into(),
            endpoint: "local".into(),
            max_vms: two_vms(),
            ssh_secret_ref: None,
            tart_home: String::new(),
        }
    }
}

/// What is cleaned up on Macs, and how often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct TartHousekeeping {
    /// The cache of pulled images.
    pub cache: CacheHousekeeping,
    /// How often each host is cleaned up. Default: 24h.
    #[schemars(extend("x-kubernetes-validations" = [
        Rule::new("duration(self) > duration('0s')").message("housekeeping.interval must be longer than 0s"),
    ]))]
    pub interval: Duration,
}

impl Default for TartHousekeeping {
    fn default() -> Self {
        Self { cache: CacheHousekeeping::default(), interval: Duration::hours(24) }
    }
}

/// Whether and when pulled images are removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct CacheHousekeeping {
    /// Whether pulled images are removed. Default: true.
    pub enabled: bool,
    /// An image that has not been used for this long is removed. Default: 168h.
    pub max_age: Duration,
    /// The images that were used least recently are removed until the rest fits. Default: 80Gi.
    pub space_budget: Quantity,
}

impl Default for CacheHousekeeping {
    fn default() -> Self {
        Self { enabled: true, max_age: Duration::hours(168), space_budget: "80Gi".into() }
    }
}
