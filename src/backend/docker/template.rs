//! What a Docker backend runs, and where.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::credentials::RegistryCredentials;
use super::housekeeping::{Rules, SharedVolume};
use super::login::Login;
use crate::api::{DockerAccess, PullPolicy, is_default_network};

/// Characters of a template's hash that are kept: 64 bits tell the templates of a scale set apart.
const HASH_LENGTH: usize = 16;

/// Processes and threads that a runner may have where the spec does not say: a build of many jobs stays far below, and a
/// fork bomb does not take the host's 32,768 process ids.
pub(super) const MOST_PIDS: u32 = 8192;

/// Names in the environment that the controller alone sets.
pub(super) const JIT_CONFIGURATION: &str = "ACTIONS_RUNNER_INPUT_JITCONFIG";
/// Names that would lead the runner elsewhere than to its private engine.
const OF_ENGINE: [&str; 4] = ["DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"];
/// Makes the runner exit with 7 when GitHub refuses its version; without it, that looks like success.
pub(super) const RETURN_VERSION_DEPRECATED: &str = "ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE";

/// What a Docker backend runs, and where: the spec's `docker` section with everything that it refers to resolved.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct DockerTemplate {
    /// Its images.
    pub images: Images,
    /// What is run, in place of the image's own entrypoint and command.
    pub command: Vec<String>,
    /// The user it runs as. None: the image's.
    pub user: Option<String>,
    /// Further environment, values of Secrets among it. Of one name twice, the last counts.
    pub env: Vec<(String, String)>,
    /// What one runner may use and do.
    pub limits: Limits,
    /// The Docker network. None: the engine's default. [`NETWORK_OF_SET`](crate::api::NETWORK_OF_SET): one of the scale set
    /// alone.
    pub network: Option<String>,
    /// What the runner sees of Docker.
    pub docker_access: DockerAccess,
    /// What the runners of the scale set share on each host.
    pub shared_volume: Option<SharedVolume>,
    /// What may be removed on the hosts. None: the spec does not name them any more, and wishes nothing.
    pub housekeeping: Option<Rules>,
    /// The hosts it may run on.
    pub hosts: Vec<HostSpec>,
}

/// The images of a runner, and how a host comes by them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Images {
    /// The runner's, as `docker run` takes it.
    pub runner: String,
    /// That of its private engine, where it has one.
    pub engine: String,
    /// `os/architecture[/variant]` of both. None: the host's own.
    pub platform: Option<String>,
    /// When they are pulled.
    pub policy: PullPolicy,
    /// Logins for private registries.
    pub credentials: Option<RegistryCredentials>,
}

/// What one runner may use and do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Limits {
    /// CPU limit in thousandths of a CPU. None: unlimited.
    pub cpu_millis: Option<u64>,
    /// Memory limit in bytes, swap included. None: unlimited.
    pub memory_bytes: Option<u64>,
    /// Limit of processes and threads. None: 8192.
    pub pids: Option<u32>,
    /// Whether no program may gain rights that it was not started with.
    pub no_new_privileges: bool,
}

/// A Docker host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostSpec {
    /// Its name, unique in the backend.
    pub name: String,
    /// `unix://…`, `tcp://…` or `ssh://…`
    pub endpoint: String,
    /// How many runners of this backend it may have. None: no limit.
    pub max_runners: Option<u32>,
    /// How it is logged in to.
    pub login: Login,
}

impl DockerTemplate {
    /// The environment that the user asked for, without the names that are the controller's own.
    pub(super) fn user_env(&self) -> BTreeMap<&str, &str> {
        let own = |name: &str| {
            [JIT_CONFIGURATION, RETURN_VERSION_DEPRECATED].contains(&name)
                || (self.has_private_engine() && OF_ENGINE.contains(&name))
        };
        let pairs = self.env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        pairs.filter(|(name, _)| !own(name)).collect()
    }

    /// Whether each runner has an engine of its own beside it.
    pub(super) fn has_private_engine(&self) -> bool {
        self.docker_access == DockerAccess::Sidecar
    }

    /// The network that a private engine is put on; none: one of its own, made for it. Of a network that the spec names the
    /// engine is a part too, so that a job comes no further by it than without.
    pub(super) fn network_of_engine(&self) -> Option<&str> {
        let network = self.network.as_deref()?;
        let own = is_default_network(network) || !self.shares_network_of_engine();
        (!own).then_some(network)
    }

    /// Whether a runner has its private engine's network for its own, so that the ports of a job's containers are on its
    /// `localhost`. Not on the host's network, where a second engine would take the first one's bridge away.
    pub(super) fn shares_network_of_engine(&self) -> bool {
        let network = self.network.as_deref().unwrap_or_default();
        network != "host" && !network.starts_with("container:")
    }

    /// Why no engine could run it. Judged here and not by the engine, whose answer would show the value.
    pub(super) fn refusal(&self) -> Option<String> {
        if self.images.runner.is_empty() {
            return Some("no image is named".to_owned());
        }
        let malformed = |name: &str| name.is_empty() || name.contains(['=', '\0']);
        let (name, _) = self.env.iter().find(|(name, value)| malformed(name) || value.contains('\0'))?;
        Some(match malformed(name) {
            true => format!("{name:?} cannot be the name of an environment variable"),
            false => format!("the value of environment variable {name} contains a NUL character"),
        })
    }

    /// Hash of all that affects the runners: not when and how the image is fetched, nor where they run. It is the same
    /// for as long as those fields are the same, over restarts and over versions that add optional fields.
    pub fn hash(&self) -> String {
        #[derive(Serialize)]
        struct Runner<'a> {
            image: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            platform: Option<&'a str>,
            command: &'a [String],
            #[serde(skip_serializing_if = "Option::is_none")]
            user: Option<&'a str>,
            env: BTreeMap<&'a str, &'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            cpu_millis: Option<u64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            memory_bytes: Option<u64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            pids: Option<u32>,
            #[serde(skip_serializing_if = "std::ops::Not::not")]
            no_new_privileges: bool,
            #[serde(skip_serializing_if = "Option::is_none")]
            network: Option<&'a str>,
            docker_access: DockerAccess,
            #[serde(skip_serializing_if = "Option::is_none")]
            shared_volume: Option<(&'a str, bool)>,
            #[serde(skip_serializing_if = "Option::is_none")]
            sidecar_image: Option<&'a str>,
        }
        let runner = Runner {
            image: &self.images.runner,
            platform: self.images.platform.as_deref(),
            command: &self.command,
            user: self.user.as_deref(),
            env: self.user_env(),
            cpu_millis: self.limits.cpu_millis,
            memory_bytes: self.limits.memory_bytes,
            pids: self.limits.pids,
            no_new_privileges: self.limits.no_new_privileges,
            network: self.network.as_deref(),
            docker_access: self.docker_access,
            shared_volume: self.shared_volume.as_ref().map(|v| (v.mount_path.as_str(), v.read_only)),
            sidecar_image: self.has_private_engine().then_some(&self.images.engine),
        };
        // Strings, numbers and a map keyed by strings always have a JSON form.
        #[allow(clippy::expect_used)]
        let canonical = serde_json::to_vec(&runner).expect("plain data has a JSON form");
        let digest = Sha256::digest(canonical);
        let mut hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        hex.truncate(HASH_LENGTH);
        hex
    }
}

/// Without the values of the environment, which may be secrets.
impl fmt::Debug for DockerTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DockerTemplate")
            .field("images", &self.images)
            .field("command", &self.command)
            .field("user", &self.user)
            .field("env", &self.env.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .field("limits", &self.limits)
            .field("network", &self.network)
            .field("docker_access", &self.docker_access)
            .field("shared_volume", &self.shared_volume)
            .field("housekeeping", &self.housekeeping)
            .field("hosts", &self.hosts)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::api::NETWORK_OF_SET;

    fn template() -> DockerTemplate {
        DockerTemplate {
            images: Images {
                runner: "runner:1".into(),
                engine: "docker:dind".into(),
                platform: None,
                policy: PullPolicy::IfNotPresent,
                credentials: None,
            },
            command: vec!["/run.sh".into()],
            user: None,
            env: vec![("A".into(), "planted-secret".into()), ("B".into(), "2".into())],
            limits: Limits::default(),
            network: None,
            docker_access: DockerAccess::None,
            shared_volume: None,
            housekeeping: None,
            hosts: Vec::new(),
        }
    }

    #[test]
    fn the_hash_is_the_same_in_every_version() {
        assert_eq!(template().hash(), "c441385289275a88");
    }

    #[test]
    fn the_hash_follows_what_affects_the_runner_and_nothing_else() {
        let changed = |change: fn(&mut DockerTemplate)| {
            let mut template = template();
            change(&mut template);
            template.hash()
        };
        let same = template().hash();
        assert_eq!(changed(|t| t.images.policy = PullPolicy::Always), same);
        assert_eq!(changed(|t| t.env.reverse()), same);
        assert_eq!(changed(|t| t.env.push((JIT_CONFIGURATION.into(), "x".into()))), same);
        let host = HostSpec {
            name: "h".into(),
            endpoint: "unix:///x".into(),
            max_runners: Some(1),
            login: Login::None,
        };
        let mut elsewhere = template();
        elsewhere.hosts.push(host);
        assert_eq!(elsewhere.hash(), same);
        assert_eq!(changed(|t| t.images.engine = "docker:1".into()), same);

        let shared = |hours: u64, read_only| {
            let ttl = Duration::from_secs(hours * 3600);
            let mut template = template();
            template.shared_volume = Some(SharedVolume { mount_path: "/shared".into(), ttl, read_only });
            template.hash()
        };
        assert_eq!(shared(1, false), shared(2, false), "how long files are kept");
        let changes: [fn(&mut DockerTemplate); 14] = [
            |t| t.images.runner = "runner:2".into(),
            |t| t.images.platform = Some("linux/arm64".into()),
            |t| t.command.push("x".into()),
            |t| t.user = Some("root".into()),
            |t| t.env[0].1 = "other".into(),
            |t| t.limits.cpu_millis = Some(1),
            |t| t.limits.pids = Some(100),
            |t| t.limits.no_new_privileges = true,
            |t| t.limits.memory_bytes = Some(1),
            |t| t.network = Some("none".into()),
            |t| t.network = Some(NETWORK_OF_SET.into()),
            |t| t.docker_access = DockerAccess::HostSocket,
            |t| t.docker_access = DockerAccess::Sidecar,
            |t| (t.docker_access, t.images.engine) = (DockerAccess::Sidecar, "docker:1".into()),
        ];
        let mut hashes: Vec<_> = changes.into_iter().map(changed).collect();
        hashes.extend([same, shared(1, false), shared(1, true)]);
        hashes.sort();
        hashes.dedup();
        assert_eq!(hashes.len(), 17);
    }

    #[test]
    fn no_variable_leads_away_from_a_private_engine() {
        let mut template = template();
        let names = ["DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"];
        template.env = names.map(|name| (name.into(), "elsewhere".into())).into();
        assert_eq!(template.user_env().len(), names.len(), "without one they are the user's");
        template.docker_access = DockerAccess::Sidecar;
        assert!(template.user_env().is_empty());
    }

    #[test]
    fn a_private_engine_is_on_no_network_that_the_spec_does_not_name_but_its_own() {
        for (network, of_engine, shared) in [
            (None, None, true),
            (Some("bridge"), None, true),
            (Some("builds"), Some("builds"), true),
            (Some("none"), Some("none"), true),
            (Some("host"), None, false),
            (Some("container:vpn"), None, false),
        ] {
            let mut template = template();
            template.network = network.map(str::to_owned);
            let found = (template.network_of_engine(), template.shares_network_of_engine());
            assert_eq!(found, (of_engine, shared), "{network:?}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let mut bad = template();
        assert!(!format!("{bad:?}").contains("planted-secret"));
        bad.env = vec![("".into(), "planted-secret".into())];
        assert!(!bad.refusal().unwrap().contains("planted-secret"));
        bad.env = vec![("A".into(), "planted-secret\0".into())];
        assert!(!bad.refusal().unwrap().contains("planted-secret"));
    }
}
