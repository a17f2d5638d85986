//! What a spec refers to: Secrets and ConfigMaps, read and made strict.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client};

use super::answer::api_message;
use crate::api::{self, CaBundleKind, CaBundleRef, Explanation, Reason, RunnerScaleSet, SecretRef};
use crate::backend::{Providers, References, ResolveError, Resolved};
use crate::github::{ClientConfig, Credentials, Network, Proxy, WantedScaleSet};
use crate::plan::Policy;
use crate::scale_set::{BackendInput, Inputs};

/// What a spec refers to is read within this ...
pub(super) const READING: Duration = Duration::from_secs(5);
/// ... or is tried to be read again after this.
pub(super) const READ_AGAIN: Duration = Duration::from_secs(10);

/// Why there are no inputs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A change by a person is needed.
    #[error(transparent)]
    Unusable(#[from] Explanation),
    /// The API server did not answer in time: try again.
    #[error("the API server does not answer")]
    Silent,
    /// What a backend refers to cannot be read now: try again.
    #[error("{0}")]
    Unread(String),
    /// The API server did not answer as it should: try again.
    #[error("cannot read {what}: {}", api_message(source))]
    Kube {
        /// What was to be read.
        what: String,
        /// Why not.
        source: Box<kube::Error>,
    },
}

impl From<ResolveError> for Error {
    fn from(error: ResolveError) -> Error {
        match error {
            ResolveError::Unusable(explanation) => Error::Unusable(explanation),
            ResolveError::Unread(message) => Error::Unread(message),
        }
    }
}

fn unusable(reason: Reason, message: impl Into<String>) -> Error {
    Error::Unusable(Explanation::new(reason, message))
}

/// Reads all that a spec refers to. `refer` is told each name before it is looked for, so that whoever creates or changes
/// it is noticed from then on.
pub(super) async fn read(
    objects: &dyn Objects,
    providers: &Providers,
    object: &RunnerScaleSet,
    refer: &(dyn Fn(&str) + Sync),
) -> Result<Inputs, Error> {
    let reader = Reader::of(objects, object, refer);
    let policy = Policy::from_spec(&object.spec)?;
    let mut backends = Vec::new();
    for backend in &object.spec.backends {
        backends.push(BackendInput::new(backend, providers.resolve(backend, &reader).await?));
    }
    Ok(Inputs {
        client: reader.client(&object.spec.github).await?,
        scale_set: wanted(object),
        policy,
        backends,
    })
}

/// Reads how a spec reaches GitHub, and nothing else.
///
/// # Errors
/// What cannot be used, or cannot be read now.
pub async fn read_client(
    objects: &dyn Objects,
    object: &RunnerScaleSet,
    refer: &(dyn Fn(&str) + Sync),
) -> Result<ClientConfig, Error> {
    Reader::of(objects, object, refer).client(&object.spec.github).await
}

/// Reads one backend of a spec, and nothing else.
///
/// # Errors
/// What cannot be used, or cannot be read now.
pub async fn read_backend(
    objects: &dyn Objects,
    providers: &Providers,
    object: &RunnerScaleSet,
    backend: &api::Backend,
) -> Result<Arc<dyn Resolved>, Error> {
    Ok(providers.resolve(backend, &Reader::of(objects, object, &|_| {})).await?)
}

/// What is to be at GitHub of an object.
pub fn wanted(object: &RunnerScaleSet) -> WantedScaleSet {
    WantedScaleSet {
        name: object.scale_set_name().to_owned(),
        runner_group: object.spec.github.runner_group.clone(),
        labels: object.scale_set_labels().into_iter().map(str::to_owned).collect(),
    }
}

/// What a Secret holds.
pub type Data = BTreeMap<String, Vec<u8>>;

/// Where Secrets and ConfigMaps are.
#[async_trait]
pub trait Objects: Send + Sync {
    /// What a Secret holds; none where there is none.
    async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Data>, Error>;

    /// What a ConfigMap holds; none where there is none.
    async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<Data>, Error>;
}

#[async_trait]
impl Objects for Client {
    async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Data>, Error> {
        let api: Api<Secret> = Api::namespaced(self.clone(), namespace);
        let secret = api.get_opt(name).await.map_err(|e| kube_error(&format!("Secret `{name}`"), e))?;
        let values = |data: BTreeMap<_, ByteString>| data.into_iter().map(|(key, value)| (key, value.0));
        Ok(secret.map(|secret| secret.data.into_iter().flat_map(values).collect()))
    }

    async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<Data>, Error> {
        let api: Api<ConfigMap> = Api::namespaced(self.clone(), namespace);
        let map = api.get_opt(name).await.map_err(|e| kube_error(&format!("ConfigMap `{name}`"), e))?;
        let values = |data: BTreeMap<_, String>| data.into_iter().map(|(key, text)| (key, text.into_bytes()));
        Ok(map.map(|map| map.data.into_iter().flat_map(values).collect()))
    }
}

struct Reader<'a> {
    objects: &'a dyn Objects,
    namespace: String,
    refer: &'a (dyn Fn(&str) + Sync),
}

impl<'a> Reader<'a> {
    fn of(objects: &'a dyn Objects, object: &RunnerScaleSet, refer: &'a (dyn Fn(&str) + Sync)) -> Reader<'a> {
        Reader { objects, namespace: object.metadata.namespace.clone().unwrap_or_default(), refer }
    }

    async fn client(&self, github: &api::GitHub) -> Result<ClientConfig, Error> {
        const FIELD: &str = "spec.github.credentialsSecretRef";
        let credentials = self.secret(FIELD, &github.credentials_secret_ref).await?;
        let credentials = Credentials::from_secret(&credentials)
            .map_err(|e| unusable(Reason::SecretInvalid, format!("{FIELD}: {e}")))?;
        Ok(ClientConfig {
            url: github.url.clone(),
            allow_insecure: github.allow_insecure,
            credentials,
            network: self.network(github).await?,
        })
    }

    async fn secret(&self, field: &str, reference: &SecretRef) -> Result<Data, Error> {
        (self.refer)(&reference.name);
        let secret = self.objects.secret(&self.namespace, &reference.name).await?;
        secret.ok_or_else(|| {
            unusable(Reason::SecretMissing, format!("{field}: Secret `{}` does not exist", reference.name))
        })
    }

    async fn text_of(&self, field: &str, reference: &SecretRef, key: &str) -> Result<String, Error> {
        let mut data = self.secret(field, reference).await?;
        let missing = || {
            unusable(
                Reason::SecretMissing,
                format!("{field}: Secret `{}` has no key `{key}`", reference.name),
            )
        };
        let value = data.remove(key).ok_or_else(missing)?;
        String::from_utf8(value).map_err(|_| {
            unusable(
                Reason::SecretInvalid,
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
                let user = self.text_of(field, secret, "username").await?;
                login = Some((user, self.text_of(field, secret, "password").await?));
            }
            network.proxy = Some(Proxy { url: proxy.url.clone(), no_proxy: proxy.no_proxy.clone(), login });
        }
        Ok(network)
    }

    async fn ca_bundle(&self, reference: &CaBundleRef) -> Result<Vec<u8>, Error> {
        const FIELD: &str = "spec.github.caBundleRef";
        let CaBundleRef { kind, name, key } = reference;
        let missing = |what: &str| unusable(Reason::CaBundleMissing, format!("{FIELD}: {what}"));
        let (kind, bundle) = match kind {
            CaBundleKind::Secret => {
                let mut data = self.secret(FIELD, &SecretRef { name: name.clone() }).await?;
                ("Secret", data.remove(key))
            }
            CaBundleKind::ConfigMap => {
                (self.refer)(name);
                let map = self.objects.config_map(&self.namespace, name).await?;
                let mut map = map.ok_or_else(|| missing(&format!("ConfigMap `{name}` does not exist")))?;
                ("ConfigMap", map.remove(key))
            }
        };
        bundle.ok_or_else(|| missing(&format!("{kind} `{name}` has no key `{key}`")))
    }
}

#[async_trait]
impl References for Reader<'_> {
    async fn secret_text(&self, field: &str, secret: &str, key: &str) -> Result<String, ResolveError> {
        let reference = SecretRef { name: secret.to_owned() };
        self.text_of(field, &reference, key).await.map_err(|error| match error {
            Error::Unusable(explanation) => ResolveError::Unusable(explanation),
            error => ResolveError::Unread(error.to_string()),
        })
    }
}

pub(super) fn kube_error(what: &str, source: kube::Error) -> Error {
    Error::Kube { what: what.to_owned(), source: Box::new(source) }
}
