//! What a spec refers to: Secrets and ConfigMaps, read and made strict.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client};

use super::context::brief;
use crate::api::condition::reason;
use crate::api::{self, CaBundleKind, CaBundleRef, EnvVar, RunnerScaleSet, SecretRef};
use crate::backend::docker::{DockerAccess, DockerTemplate, HostSpec, PullPolicy, RegistryCredentials};
use crate::github::{ClientConfig, Credentials, Network, Proxy, WantedScaleSet};
use crate::plan::{Invalid, Policy};

/// Where this version finds Docker engines.
const LOCAL: &str = "unix://";

/// What a scale set is made from, nothing left to look up.
pub(super) struct Inputs {
    /// How GitHub is reached.
    pub client: ClientConfig,
    /// What is to be there.
    pub scale_set: WantedScaleSet,
    /// The rules for its size.
    pub policy: Policy,
    /// Its backends, in order.
    pub backends: Vec<BackendInput>,
}

/// A backend of a scale set.
#[derive(Clone, PartialEq)]
pub(super) struct BackendInput {
    /// Its name.
    pub name: String,
    /// Its ceiling.
    pub max_runners: Option<u32>,
    /// What it starts, and where.
    pub template: DockerTemplate,
}

/// Why there are no inputs.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// A change by a person is needed.
    #[error(transparent)]
    Unusable(#[from] Invalid),
    /// The API server did not answer in time: try again.
    #[error("the API server does not answer")]
    Silent,
    /// The API server did not answer as it should: try again.
    #[error("cannot read {what}: {}", brief(source))]
    Kube {
        /// What was to be read.
        what: String,
        /// Why not.
        source: Box<kube::Error>,
    },
}

fn unusable(reason: &'static str, message: impl Into<String>) -> Error {
    Error::Unusable(Invalid { reason, message: message.into() })
}

/// Reads all that a spec refers to. `refer` is told each name before it is looked for, so that whoever creates or changes
/// it is noticed from then on.
pub(super) async fn read(
    client: &Client,
    object: &RunnerScaleSet,
    refer: &(dyn Fn(&str) + Sync),
) -> Result<Inputs, Error> {
    let namespace = object.metadata.namespace.clone().unwrap_or_default();
    let reader = Reader { client, namespace, refer };
    let policy = Policy::from_spec(&object.spec)?;
    let mut backends = Vec::new();
    for backend in &object.spec.backends {
        backends.push(reader.backend(backend).await?);
    }
    let github = &object.spec.github;
    let credentials =
        reader.secret("spec.github.credentialsSecretRef", &github.credentials_secret_ref).await?;
    let credentials = Credentials::from_secret(&credentials)
        .map_err(|e| unusable(reason::SECRET_INVALID, format!("spec.github.credentialsSecretRef: {e}")))?;
    Ok(Inputs {
        client: ClientConfig {
            url: github.url.clone(),
            allow_insecure: github.allow_insecure,
            credentials,
            network: reader.network(github).await?,
        },
        scale_set: WantedScaleSet {
            name: object.scale_set_name().to_owned(),
            runner_group: github.runner_group.clone(),
            labels: object.scale_set_labels().into_iter().map(str::to_owned).collect(),
        },
        policy,
        backends,
    })
}

/// What can be told of a spec without reading anything: enough to see what runs, not to start more.
pub(super) fn bare(object: &RunnerScaleSet) -> (Option<Policy>, Vec<BackendInput>) {
    let mut spec = object.spec.clone();
    spec.schedules.clear();
    let backend = |backend: &api::Backend| {
        let docker = backend.docker.as_ref()?;
        let hosts = docker.hosts.iter().filter(|h| is_permitted(&h.endpoint)).map(host).collect();
        let template = template(docker, hosts);
        Some(BackendInput { name: backend.name.clone(), max_runners: max_runners(backend), template })
    };
    (Policy::from_spec(&spec).ok(), spec.backends.iter().filter_map(backend).collect())
}

/// Whether a spec may name that endpoint, and so a status too.
pub(super) fn is_permitted(endpoint: &str) -> bool {
    endpoint.starts_with(LOCAL)
}

/// A template of a host on which nothing is started any more.
pub(super) fn nothing_to_start(host: HostSpec) -> DockerTemplate {
    template(&api::Docker::default(), vec![host])
}

fn max_runners(backend: &api::Backend) -> Option<u32> {
    backend.max_runners.map(|max| max.max(0).unsigned_abs())
}

/// The parts of a template that the spec holds itself.
fn template(docker: &api::Docker, hosts: Vec<HostSpec>) -> DockerTemplate {
    DockerTemplate {
        image: docker.image.clone(),
        pull_policy: match docker.pull_policy {
            api::PullPolicy::Always => PullPolicy::Always,
            api::PullPolicy::IfNotPresent => PullPolicy::IfNotPresent,
            api::PullPolicy::Never => PullPolicy::Never,
        },
        pull_credentials: None,
        platform: docker.platform.clone(),
        command: docker.command.clone(),
        user: docker.user.clone(),
        env: Vec::new(),
        cpu_millis: None,
        memory_bytes: None,
        network: Some(docker.network.clone()),
        docker_access: match docker.docker_access {
            api::DockerAccess::HostSocket => DockerAccess::HostSocket,
            _ => DockerAccess::None,
        },
        hosts,
    }
}

type Data = BTreeMap<String, Vec<u8>>;

struct Reader<'a> {
    client: &'a Client,
    namespace: String,
    refer: &'a (dyn Fn(&str) + Sync),
}

impl Reader<'_> {
    async fn secret(&self, field: &str, reference: &SecretRef) -> Result<Data, Error> {
        (self.refer)(&reference.name);
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let what = format!("Secret `{}`", reference.name);
        let secret = api.get_opt(&reference.name).await.map_err(|e| kube_error(&what, e))?;
        let secret = secret
            .ok_or_else(|| unusable(reason::SECRET_MISSING, format!("{field}: {what} does not exist")))?;
        let data = secret.data.unwrap_or_default();
        Ok(data.into_iter().map(|(key, value)| (key, value.0)).collect())
    }

    async fn secret_text(&self, field: &str, reference: &SecretRef, key: &str) -> Result<String, Error> {
        let mut data = self.secret(field, reference).await?;
        let missing = || {
            unusable(
                reason::SECRET_MISSING,
                format!("{field}: Secret `{}` has no key `{key}`", reference.name),
            )
        };
        let value = data.remove(key).ok_or_else(missing)?;
        String::from_utf8(value).map_err(|_| {
            unusable(
                reason::SECRET_INVALID,
                format!("{field}: key `{key}` of Secret `{}` is not text", reference.name),
            )
        })
    }

    async fn network(&self, github: &api::GitHub) -> Result<Network, Error> {
        let mut network = Network::default();
        if let Some(reference) = &github.ca_bundle_ref {
            network.ca_bundle = Some(self.ca_bundle(reference).await?);
        }
        if let Some(proxy) = &github.proxy {
            let mut login = None;
            if let Some(secret) = &proxy.credentials_secret_ref {
                let field = "spec.github.proxy.credentialsSecretRef";
                let user = self.secret_text(field, secret, "username").await?;
                login = Some((user, self.secret_text(field, secret, "password").await?));
            }
            network.proxy = Some(Proxy { url: proxy.url.clone(), no_proxy: proxy.no_proxy.clone(), login });
        }
        Ok(network)
    }

    async fn ca_bundle(&self, reference: &CaBundleRef) -> Result<Vec<u8>, Error> {
        const FIELD: &str = "spec.github.caBundleRef";
        let CaBundleRef { kind, name, key } = reference;
        let missing = |what: &str| unusable(reason::CA_BUNDLE_MISSING, format!("{FIELD}: {what}"));
        let (kind, bundle) = match kind {
            CaBundleKind::Secret => {
                let mut data = self.secret(FIELD, &SecretRef { name: name.clone() }).await?;
                ("Secret", data.remove(key))
            }
            CaBundleKind::ConfigMap => {
                (self.refer)(name);
                let what = format!("ConfigMap `{name}`");
                let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
                let map = api.get_opt(name).await.map_err(|e| kube_error(&what, e))?;
                let mut map = map.ok_or_else(|| missing(&format!("{what} does not exist")))?;
                ("ConfigMap", map.data.as_mut().and_then(|data| data.remove(key)).map(String::into_bytes))
            }
        };
        bundle.ok_or_else(|| missing(&format!("{kind} `{name}` has no key `{key}`")))
    }

    async fn backend(&self, backend: &api::Backend) -> Result<BackendInput, Error> {
        let field = format!("spec.backends[{}]", backend.name);
        let Some(docker) = &backend.docker else {
            let kind = backend.kind().map_or_else(|| "its kind".to_owned(), |kind| kind.to_string());
            let message = format!("{field}: backends of type {kind} are not available in this version");
            return Err(unusable(reason::BACKEND_NOT_AVAILABLE, message));
        };
        available(&field, docker)?;
        Ok(BackendInput {
            name: backend.name.clone(),
            max_runners: max_runners(backend),
            template: self.docker(&format!("{field}.docker"), docker).await?,
        })
    }

    async fn docker(&self, field: &str, docker: &api::Docker) -> Result<DockerTemplate, Error> {
        let quantity = |name: &str, value: Result<i64, api::InvalidQuantity>| {
            let value = value
                .map_err(|e| unusable(reason::INVALID_SPEC, format!("{field}.resources.{name}: {e}")))?;
            Ok::<_, Error>(u64::try_from(value).unwrap_or_default())
        };
        let cpu_millis =
            docker.resources.cpu.as_ref().map(|cpu| quantity("cpu", cpu.millis())).transpose()?;
        let memory_bytes =
            docker.resources.memory.as_ref().map(|memory| quantity("memory", memory.bytes())).transpose()?;
        let mut pull_credentials = None;
        if let Some(reference) = &docker.image_pull_secret_ref {
            let field = format!("{field}.imagePullSecretRef");
            let text = self.secret_text(&field, reference, ".dockerconfigjson").await?;
            let parsed = RegistryCredentials::from_docker_config(text.as_bytes());
            pull_credentials =
                Some(parsed.map_err(|e| unusable(reason::SECRET_INVALID, format!("{field}: {e}")))?);
        }
        let mut env = Vec::new();
        for variable in &docker.env {
            env.push((variable.name.clone(), self.env(field, variable).await?));
        }
        let hosts = docker.hosts.iter().map(host).collect();
        Ok(DockerTemplate { pull_credentials, env, cpu_millis, memory_bytes, ..template(docker, hosts) })
    }

    async fn env(&self, field: &str, variable: &EnvVar) -> Result<String, Error> {
        let Some(source) = &variable.value_from else {
            return Ok(variable.value.clone().unwrap_or_default());
        };
        let key = &source.secret_key_ref;
        let field = format!("{field}.env[{}].valueFrom.secretKeyRef", variable.name);
        self.secret_text(&field, &SecretRef { name: key.name.clone() }, &key.key).await
    }
}

fn host(host: &api::DockerHost) -> HostSpec {
    HostSpec {
        name: host.name.clone(),
        endpoint: host.endpoint.clone(),
        max_runners: host.max_runners.map(|max| max.max(0).unsigned_abs()),
    }
}

/// What the schema has and this version does not.
fn available(field: &str, docker: &api::Docker) -> Result<(), Error> {
    let refuse = |what: String| {
        let message = format!("{field}.docker.{what} is not available in this version");
        Err(unusable(reason::BACKEND_NOT_AVAILABLE, message))
    };
    if docker.docker_access == api::DockerAccess::Sidecar {
        return refuse("dockerAccess: Sidecar".to_owned());
    }
    if docker.shared_volume.is_some() {
        return refuse("sharedVolume".to_owned());
    }
    match docker.hosts.iter().find(|host| !is_permitted(&host.endpoint)) {
        Some(host) => refuse(format!("hosts[{}].endpoint `{}` (only unix:// is)", host.name, host.endpoint)),
        None => Ok(()),
    }
}

fn kube_error(what: &str, source: kube::Error) -> Error {
    Error::Kube { what: what.to_owned(), source: Box::new(source) }
}
