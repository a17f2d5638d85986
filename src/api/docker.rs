//! Runners in containers on Docker hosts.

use super::{
    DockerHousekeeping, Duration, EnvVar, PullPolicy, Quantity, SecretRef,
    image::runner_image,
    schema::{ABSOLUTE_PATH, LABEL, MOST_RUNNERS, NO_SPACE, host_rules, named_list},
};
use kube::core::Rule;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `unix:///path`, `tcp://host:port` or `ssh://[user@]host[:port]`.
const ENDPOINT: &str = "^(unix:///\\S+|tcp://([A-Za-z0-9._-]+|[[][0-9A-Fa-f:.]+[]]):[0-9]{1,5}|\
    ssh://([A-Za-z0-9._-]+@)?([A-Za-z0-9._-]+|[[][0-9A-Fa-f:.]+[]])(:[0-9]{1,5})?)$";

/// Begins the names of networks and volumes that are of one scale set.
pub(super) const NAMES_OF_SETS: &str = "paddock-";

/// Stands in [`Docker::network`] for a network of the scale set alone. The operator's policy puts it there.
pub const NETWORK_OF_SET: &str = "paddock-scale-set";

/// Tells whether Docker takes a network's name for its default network.
pub fn is_default_network(name: &str) -> bool {
    matches!(name, "" | "default" | "bridge")
}

/// Runners in containers on Docker hosts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Docker {
    /// The runner's image. Default: ghcr.io/actions/actions-runner:latest.
    #[schemars(length(min = 1, max = 512), regex(pattern = NO_SPACE))]
    pub image: String,

    /// When the image is pulled: Always (before every start), IfNotPresent (when the host does not have it) or Never.
    /// Default: IfNotPresent.
    pub pull_policy: PullPolicy,

    /// The Secret, of type kubernetes.io/dockerconfigjson, with the registry's credentials. Default: an anonymous pull.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_pull_secret_ref: Option<SecretRef>,

    /// The platform of the image, like linux/amd64. Default: the host's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), regex(pattern = "^[a-z0-9]+/[a-z0-9_]+(/[a-z0-9]+)?$"))]
    pub platform: Option<String>,

    /// The command that starts the runner, in place of the image's. Default: [/home/runner/run.sh].
    #[schemars(length(min = 1, max = 64), inner(length(max = 4096)))]
    pub command: Vec<String>,

    /// The user that the container runs as: a name or number, with an optional group behind a colon. Default: the image's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = NO_SPACE))]
    pub user: Option<String>,

    /// Further environment variables of the runner. Default: none.
    #[schemars(length(max = 128), transform = named_list)]
    pub env: Vec<EnvVar>,

    /// What one runner may use. Default: no limit but that of processes.
    pub resources: Resources,

    /// The Docker network of the container, as the host knows it. Default: bridge, or one of the scale set alone where the
    /// operator's policy says so.
    #[schemars(length(min = 1, max = 128), regex(pattern = NO_SPACE))]
    pub network: String,

    /// Whether programs in the container may gain no rights that they were not started with: sudo does not work then, which
    /// the official image has for jobs. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_new_privileges: Option<bool>,

    /// How jobs get a Docker engine: None; HostSocket mounts the host's own socket, which is full control of the host;
    /// Sidecar runs a private engine beside each runner. Default: None.
    pub docker_access: DockerAccess,

    /// The image of the engine where dockerAccess is Sidecar. Default: docker:dind.
    #[schemars(length(min = 1, max = 512), regex(pattern = NO_SPACE))]
    pub sidecar_image: String,

    /// A volume that the runners of this set share on each host, for caches. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared_volume: Option<SharedVolume>,

    /// The Docker hosts (1 to 64). Default: one, named local, at unix:///var/run/docker.sock.
    #[schemars(
        length(min = 1, max = 64),
        transform = named_list,
        extend("x-kubernetes-validations" = host_rules())
    )]
    pub hosts: Vec<DockerHost>,

    /// What is cleaned up on the hosts, and how often.
    pub housekeeping: DockerHousekeeping,
}

impl Default for Docker {
    fn default() -> Self {
        Self {
            image: runner_image(),
            pull_policy: PullPolicy::default(),
            image_pull_secret_ref: None,
            platform: None,
            command: vec!["/home/runner/run.sh".into()],
            user: None,
            env: Vec::new(),
            resources: Resources::default(),
            network: "bridge".into(),
            no_new_privileges: None,
            docker_access: DockerAccess::default(),
            sidecar_image: "docker:dind".into(),
            shared_volume: None,
            hosts: vec![DockerHost::local()],
            housekeeping: DockerHousekeeping::default(),
        }
    }
}

/// What one runner may use, in Kubernetes quantities.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Resources {
    /// CPUs, like 2 or 500m. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Quantity>,
    /// Memory in bytes, like 4Gi. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Quantity>,
    /// Processes and threads: what a job that forks without end can take of its host. Default: 8192.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 16, max = 4_194_304))]
    pub pids: Option<i32>,
}

/// How jobs get a Docker engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum DockerAccess {
    /// Not at all.
    #[default]
    None,
    /// By the host's socket: full control of the host.
    HostSocket,
    /// By a private engine beside the runner.
    Sidecar,
}

/// A volume that the runners of one set share on each host. Its name carries namespace and set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SharedVolume {
    /// Where the runners see the volume: an absolute path.
    #[schemars(length(min = 1, max = 1024), regex(pattern = ABSOLUTE_PATH))]
    pub mount_path: String,

    /// A file in it that nobody has used for this long is removed: read, where the host's file system keeps note of that, or
    /// else changed. 0s: never. Default: 168h.
    #[serde(default = "a_week")]
    pub ttl: Duration,

    /// Whether the runners can only read. Default: false.
    #[serde(default)]
    pub read_only: bool,
}

fn a_week() -> Duration {
    Duration::hours(168)
}

/// A Docker host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    Rule::new("!has(self.tlsSecretRef) || self.endpoint.startsWith('tcp://')")
        .message("docker.hosts[].tlsSecretRef is only for an endpoint with tcp://")
        .field_path(".tlsSecretRef"),
    Rule::new("!has(self.sshSecretRef) || self.endpoint.startsWith('ssh://')")
        .message("docker.hosts[].sshSecretRef is only for an endpoint with ssh://")
        .field_path(".sshSecretRef"),
    Rule::new("has(self.sshSecretRef) || !self.endpoint.startsWith('ssh://')")
        .message("docker.hosts[].sshSecretRef is required for an endpoint with ssh://")
        .field_path(".sshSecretRef"),
]))]
pub struct DockerHost {
    /// Name of the host, unique in the list; status shows it.
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL))]
    pub name: String,

    /// Where the engine listens: unix:///var/run/docker.sock, tcp://host:port (in the clear unless tlsSecretRef is given)
    /// or ssh://user@host.
    #[schemars(length(min = 1, max = 255), regex(pattern = ENDPOINT))]
    pub endpoint: String,

    /// How many runners of this backend the host may have at a time. What all scale sets together may have there is the
    /// operator's to say, in the policy's hosts. 0: it takes no more of them. Default: no limit but the operator's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = MOST_RUNNERS))]
    pub max_runners: Option<i32>,

    /// The Secret with ca.crt, tls.crt and tls.key, for an endpoint with tcp://. Default: no TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_secret_ref: Option<SecretRef>,

    /// The Secret with ssh-privatekey and known_hosts, which an endpoint with ssh:// requires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssh_secret_ref: Option<SecretRef>,
}

impl DockerHost {
    /// The engine on the controller's own host: what a backend without `hosts` has.
    pub fn local() -> Self {
        Self {
            name: "local".into(),
            endpoint: "unix:///var/run/docker.sock".into(),
            max_runners: None,
            tls_secret_ref: None,
            ssh_secret_ref: None,
        }
    }
}
