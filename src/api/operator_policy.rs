//! The operator's policy: what tenants, who write `RunnerScaleSet`s, may have of the controller and its hosts.
//!
//! A document of its own and no Kubernetes object: `paddock run --policy FILE` reads it. Whatever it leaves out has the default
//! that stands here.

use serde::Deserialize;

/// The endpoint of the Docker engine on the controller's own host.
const LOCAL_ENGINE: &str = "unix:///var/run/docker.sock";

/// What tenants may do, and what all of them together may have on a host.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OperatorPolicy {
    /// What a namespace may do. The first rule whose namespaces match holds; where none does, all is refused.
    pub rules: Vec<PolicyRule>,
    /// What all scale sets together may have on a host.
    pub hosts: Vec<HostCeiling>,
}

/// What the namespaces of a rule may do.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct PolicyRule {
    /// The namespaces that it holds for.
    pub namespaces: Globs,
    /// The hosts of `github.url` and of `github.proxy.url`.
    pub github_hosts: Globs,
    /// Plain http to GitHub (`github.allowInsecure`) and to ECS (`ecs.endpointUrl`).
    pub insecure_http: bool,
    /// The endpoints of Docker hosts and Macs.
    pub endpoints: Globs,
    /// `dockerAccess: HostSocket`: full control of the host.
    pub host_socket: bool,
    /// `dockerAccess: Sidecar`: a privileged container beside the runner.
    pub privileged_sidecar: bool,
    /// The networks of Docker runners.
    pub networks: Globs,
    /// The AWS identity of the controller, for `ecs` without `credentialsSecretRef`.
    pub controller_aws_identity: bool,
    /// Images are pulled before every start, whatever `pullPolicy` says: one that a host has from another tenant's pull is
    /// run for nobody whose own credentials the registry does not take. Kubernetes has an admission plugin of that name.
    pub always_pull_images: bool,
    /// Docker runners whose spec leaves them on Docker's default network are on a network of their scale set alone, so that
    /// other sets do not reach what they listen on.
    pub network_per_scale_set: bool,
}

/// What all scale sets together may have on a host.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct HostCeiling {
    /// The host's endpoint, in any spelling.
    pub endpoint: String,
    /// How many runners it takes at a time. What is someone else's there takes a place too.
    pub max_runners: u32,
}

impl HostCeiling {
    /// Returns the lowest number that `ceilings` give a host, which `is_it` knows by its endpoint; none where they give none.
    pub fn lowest(ceilings: &[HostCeiling], is_it: impl Fn(&str) -> bool) -> Option<u32> {
        ceilings.iter().filter(|ceiling| is_it(&ceiling.endpoint)).map(|ceiling| ceiling.max_runners).min()
    }
}

/// Patterns in which `*` stands for any run of characters. A pattern behind `!` takes away what it matches, whatever the order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Globs(Vec<String>);

/// A text that is no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidPolicy(String);

impl Default for OperatorPolicy {
    fn default() -> Self {
        OperatorPolicy {
            rules: vec![PolicyRule::default()],
            hosts: vec![HostCeiling { endpoint: LOCAL_ENGINE.to_owned(), max_runners: 16 }],
        }
    }
}

impl Default for PolicyRule {
    fn default() -> Self {
        PolicyRule {
            namespaces: Globs::new(["*"]),
            github_hosts: Globs::new(["*"]),
            insecure_http: false,
            endpoints: Globs::new([LOCAL_ENGINE, "tcp://*", "ssh://*"]),
            host_socket: false,
            privileged_sidecar: true,
            networks: Globs::new(["*", "!host", "!container:*"]),
            controller_aws_identity: true,
            always_pull_images: false,
            network_per_scale_set: false,
        }
    }
}

impl OperatorPolicy {
    /// Reads a policy from YAML. A document without content is the default policy.
    ///
    /// # Errors
    /// [`InvalidPolicy`] names the line and, where a field is unknown, the field.
    pub fn from_yaml(text: &str) -> Result<OperatorPolicy, InvalidPolicy> {
        let policy: Option<OperatorPolicy> = serde_saphyr::from_str(text)
            .map_err(|error| InvalidPolicy(error.without_snippet().to_string()))?;
        Ok(policy.unwrap_or_default())
    }
}

impl Globs {
    /// These patterns.
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Globs {
        Globs(patterns.into_iter().map(str::to_owned).collect())
    }

    /// The patterns that let something in.
    pub fn permitting(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str).filter(|pattern| !pattern.starts_with('!'))
    }

    /// The patterns that take something away, without their `!`.
    pub fn excluding(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|pattern| pattern.strip_prefix('!'))
    }
}

/// Tells whether a pattern matches a text as a whole.
pub fn glob_matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut left) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = left.find(part) else { return false };
        left = &left[at + part.len()..];
    }
    left.ends_with(last)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_has_the_default_of_each_field() {
        let default = OperatorPolicy::default();
        for empty in ["", "\n# nothing but a comment\n", "{}", "---\n", "null"] {
            assert_eq!(OperatorPolicy::from_yaml(empty).unwrap(), default, "{empty:?}");
        }
        let policy = OperatorPolicy::from_yaml("rules:\n- {namespaces: [ci], hostSocket: true}\n").unwrap();
        let rule = PolicyRule { namespaces: Globs::new(["ci"]), host_socket: true, ..PolicyRule::default() };
        assert_eq!(policy, OperatorPolicy { rules: vec![rule], ..default.clone() });
        let policy = OperatorPolicy::from_yaml("hosts: []").unwrap();
        assert_eq!(policy, OperatorPolicy { hosts: Vec::new(), ..default });
    }

    #[test]
    fn the_documented_defaults_are_the_defaults() {
        let document = include_str!("../../docs/policy.md");
        let yaml = document.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
        assert_eq!(OperatorPolicy::from_yaml(yaml).unwrap(), OperatorPolicy::default());
        let deployed: k8s_openapi::api::core::v1::ConfigMap =
            serde_saphyr::from_str(include_str!("../../deploy/policy.yaml")).unwrap();
        let yaml = &deployed.data.unwrap()["policy.yaml"];
        assert_eq!(OperatorPolicy::from_yaml(yaml).unwrap(), OperatorPolicy::default());
    }

    #[test]
    fn what_is_no_policy_is_refused_with_its_field_and_line() {
        for (text, words) in [
            ("rules:\n- namespaces: [ci]\n  hostsocket: true\n", &["hostsocket", "line 3"] as &[&str]),
            ("rules:\n- namespaces: [ci]\nhost: []\n", &["`host`", "line 3"]),
            ("hosts:\n- endpoint: local\n  maxRunners: -1\n", &["line 3"]),
            ("hosts:\n- {maxRunners: 3}\n", &["endpoint", "line 2"]),
            ("rules: [{hostSocket: perhaps}]", &["line 1"]),
            ("rules: everyone", &["line 1"]),
            ("rules: [", &["line"]),
            ("rules: []\n---\nrules: []\n", &["document"]),
            ("rules:\n- hostSocket: false\n  hostSocket: true\n", &["hostSocket", "line 3"]),
        ] {
            let error = OperatorPolicy::from_yaml(text).unwrap_err().to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{text:?}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    #[test]
    fn a_star_matches_any_run_of_characters() {
        for (pattern, text, matches) in [
            ("*", "", true),
            ("*", "anything", true),
            ("ci", "ci", true),
            ("ci", "ci-2", false),
            ("ci-*", "ci-2", true),
            ("ci-*", "ci", false),
            ("*-ci", "a-ci", true),
            ("*.corp", "ghes.corp.evil", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
            ("**", "x", true),
            ("ssh://*@mac-*", "ssh://ci@mac-1", true),
        ] {
            assert_eq!(glob_matches(pattern, text), matches, "{pattern} {text}");
        }
    }
}
