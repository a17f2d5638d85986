//! Logins for image registries, and which of them an image needs.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard::auth::DockerCredentials;
use serde::Deserialize;

/// The registry of images that name none, as references write it.
const DOCKER_HUB: &str = "docker.io";
/// What else Docker Hub is called in Docker's own configuration.
const DOCKER_HUB_ALIASES: [&str; 2] = ["index.docker.io", "registry-1.docker.io"];

/// Logins by registry, as a Secret of type `kubernetes.io/dockerconfigjson` holds them. Never printed.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RegistryCredentials(BTreeMap<String, Login>);

/// A login for one registry. Never printed.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Login {
    registry: String,
    username: Option<String>,
    password: Option<String>,
    identity_token: Option<String>,
    registry_token: Option<String>,
}

/// The text is not what `docker login` writes. What it is instead is not told: it holds passwords.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no Docker configuration with logins: {0}")]
pub struct InvalidCredentials(String);

#[derive(Deserialize)]
struct DockerConfig {
    auths: HashMap<String, Auth>,
}

#[derive(Deserialize)]
struct Auth {
    username: Option<String>,
    password: Option<String>,
    /// base64 of `username:password`, in place of both.
    auth: Option<String>,
    #[serde(rename = "identitytoken")]
    identity_token: Option<String>,
    #[serde(rename = "registrytoken")]
    registry_token: Option<String>,
}

impl RegistryCredentials {
    /// Reads the value of `.dockerconfigjson`.
    pub fn from_docker_config(json: &[u8]) -> Result<Self, InvalidCredentials> {
        let config: DockerConfig = serde_json::from_slice(json).map_err(|error| {
            InvalidCredentials(format!("malformed at line {} column {}", error.line(), error.column()))
        })?;
        let logins = config.auths.into_iter().map(|(registry, auth)| {
            let registry = normal(&registry);
            Ok((registry.clone(), auth.login(registry)?))
        });
        logins.collect::<Result<_, _>>().map(RegistryCredentials)
    }

    /// The login for an image: of its registry, or of the longest part of its path that has one.
    pub(super) fn for_image(&self, image: &str) -> Option<&Login> {
        let name = qualified(image);
        let covers = |prefix: &str| {
            name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ':', '@']))
        };
        let logins = self.0.iter().filter(|(prefix, _)| covers(prefix));
        logins.max_by_key(|(prefix, _)| prefix.len()).map(|(_, login)| login)
    }
}

impl Auth {
    fn login(self, registry: String) -> Result<Login, InvalidCredentials> {
        let (mut username, mut password) = (self.username, self.password);
        if let Some(auth) = self.auth.filter(|auth| !auth.is_empty()) {
            let decoded = STANDARD.decode(auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let pair = decoded.as_deref().and_then(|pair| pair.split_once(':'));
            let (user, word) =
                pair.ok_or_else(|| InvalidCredentials(format!("malformed auth of {registry}")))?;
            (username, password) = (Some(user.to_owned()), Some(word.to_owned()));
        }
        let (identity_token, registry_token) = (self.identity_token, self.registry_token);
        Ok(Login { registry, username, password, identity_token, registry_token })
    }
}

impl Login {
    /// As the engine takes it.
    pub(super) fn credentials(&self) -> DockerCredentials {
        DockerCredentials {
            username: self.username.clone(),
            password: self.password.clone(),
            identitytoken: self.identity_token.clone(),
            registrytoken: self.registry_token.clone(),
            serveraddress: Some(self.registry.clone()),
            ..DockerCredentials::default()
        }
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({}, …)", self.registry)
    }
}

impl fmt::Debug for RegistryCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RegistryCredentials").field(&self.0.keys().collect::<Vec<_>>()).finish()
    }
}

/// A registry as a configuration names it: `https://index.docker.io/v1/`, `ghcr.io`, `ghcr.io/acme`.
fn normal(registry: &str) -> String {
    let address = registry.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let address = address.strip_suffix("/v1").or(address.strip_suffix("/v2")).unwrap_or(address);
    let (host, path) = address.split_once('/').unwrap_or((address, ""));
    let host = if DOCKER_HUB_ALIASES.contains(&host) { DOCKER_HUB } else { host };
    if path.is_empty() { host.to_owned() } else { format!("{host}/{path}") }
}

/// An image reference with its registry. The first part is a registry if it looks like a host, as Docker has it.
fn qualified(image: &str) -> String {
    match image.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => {
            format!("{}/{path}", normal(host))
        }
        _ => format!("{DOCKER_HUB}/{image}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(credentials: &RegistryCredentials, image: &str) -> Option<String> {
        credentials.for_image(image).and_then(|login| login.username.clone())
    }

    #[test]
    fn an_image_gets_the_login_of_its_registry() {
        let auth = STANDARD.encode("hub:pass:word");
        let json = format!(
            r#"{{"auths": {{
                "https://index.docker.io/v1/": {{"auth": "{auth}"}},
                "ghcr.io": {{"username": "octo", "password": "planted-secret"}},
                "ghcr.io/acme": {{"username": "acme", "password": "x"}},
                "127.0.0.1:5000": {{"username": "local", "password": "x", "auth": ""}}
            }}}}"#
        );
        let logins = RegistryCredentials::from_docker_config(json.as_bytes()).unwrap();
        for (image, expected) in [
            ("busybox", Some("hub")),
            ("acme/runner:1", Some("hub")),
            ("docker.io/acme/runner", Some("hub")),
            ("ghcr.io/actions/actions-runner:latest", Some("octo")),
            ("ghcr.io/acme/runner@sha256:00", Some("acme")),
            ("ghcr.io/acmecorp/runner", Some("octo")),
            ("127.0.0.1:5000/x", Some("local")),
            ("127.0.0.1:5001/x", None),
            ("quay.io/x/y", None),
        ] {
            assert_eq!(user(&logins, image).as_deref(), expected, "{image}");
        }
        assert_eq!(logins.for_image("busybox").unwrap().password.as_deref(), Some("pass:word"));
        assert!(!format!("{logins:?}").contains("planted-secret"));
    }

    #[test]
    fn what_is_malformed_is_refused_without_being_shown() {
        for json in [
            "",
            "planted-secret",
            r#"{"auths": "planted-secret"}"#,
            r#"{"auths": {"ghcr.io": {"username": {"planted-secret": 1}}}}"#,
            r#"{"auths": {"ghcr.io": {"auth": "planted-secret"}}}"#,
        ] {
            let error = RegistryCredentials::from_docker_config(json.as_bytes()).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("planted-secret"), "{json}: {error}");
        }
    }

    #[test]
    fn fuzz_a_docker_config_is_read_or_refused_without_a_word_of_it() {
        let samples = [
            r#"{"auths": {"ghcr.io": {"auth": "dXNlcjpwbGFudGVk"}, "https://index.docker.io/v1/": {"username": "u", "password": "planted"}}}"#,
        ];
        testkit::fuzz::each(&samples, |input| match RegistryCredentials::from_docker_config(input) {
            Ok(credentials) => {
                for image in ["runner", "ghcr.io/acme/runner:1", "localhost:5000/x@sha256:0"] {
                    credentials.for_image(image);
                }
            }
            Err(error) => assert!(!error.to_string().contains("planted"), "{error}"),
        });
    }
}
