//! Where Secrets and ConfigMaps come from: the files first, as they are to be applied, then the cluster.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde_json::Value;

use super::files::Document;
use super::references::Kind;
use crate::controller::{Cluster, Data, InputError, Objects};

/// The files' own and the cluster's.
pub(super) struct Sources<'a> {
    files: HashMap<(Kind, String, String), Data>,
    cluster: Option<&'a Cluster>,
}

/// Where something is.
pub(super) enum Found {
    InFile(Data),
    InCluster(Data),
    /// Not among the files, and there is no cluster to look in.
    NotLookedAt,
    Nowhere,
}

/// Tells whether a manifest is one that others may refer to.
pub(super) fn is_source(manifest: &Value) -> bool {
    manifest["apiVersion"] == "v1" && manifest["kind"].as_str().and_then(Kind::of).is_some()
}

impl<'a> Sources<'a> {
    /// Those among the documents, of that namespace where they name none, and those of the cluster.
    pub(super) fn new(documents: &[Document], namespace: &str, cluster: Option<&'a Cluster>) -> Sources<'a> {
        let mut files = HashMap::new();
        for Document { manifest, .. } in documents.iter().filter(|document| is_source(&document.manifest)) {
            let Some(kind) = manifest["kind"].as_str().and_then(Kind::of) else { continue };
            let metadata = &manifest["metadata"];
            let namespace = metadata["namespace"].as_str().unwrap_or(namespace).to_owned();
            let name = metadata["name"].as_str().unwrap_or_default().to_owned();
            files.insert((kind, namespace, name), data(kind, manifest));
        }
        Sources { files, cluster }
    }

    /// Looks for one.
    pub(super) async fn find(&self, kind: Kind, namespace: &str, name: &str) -> Result<Found, InputError> {
        if let Some(data) = self.files.get(&(kind, namespace.to_owned(), name.to_owned())) {
            return Ok(Found::InFile(data.clone()));
        }
        let Some(cluster) = self.cluster else { return Ok(Found::NotLookedAt) };
        let data = match kind {
            Kind::Secret => cluster.secret(namespace, name).await?,
            Kind::ConfigMap => cluster.config_map(namespace, name).await?,
        };
        Ok(data.map_or(Found::Nowhere, Found::InCluster))
    }

    /// What is not there has a line of its own: here it is only what cannot be read.
    async fn read(&self, kind: Kind, namespace: &str, name: &str) -> Result<Option<Data>, InputError> {
        match self.find(kind, namespace, name).await? {
            Found::InFile(data) | Found::InCluster(data) => Ok(Some(data)),
            Found::NotLookedAt | Found::Nowhere => {
                Err(InputError::Unread(format!("{kind} `{name}` is not there")))
            }
        }
    }
}

#[async_trait]
impl Objects for Sources<'_> {
    async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Data>, InputError> {
        self.read(Kind::Secret, namespace, name).await
    }

    async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<Data>, InputError> {
        self.read(Kind::ConfigMap, namespace, name).await
    }
}

/// What a manifest holds; nothing where it is malformed, so that each key that is asked for is missing.
fn data(kind: Kind, manifest: &Value) -> Data {
    let text =
        |texts: BTreeMap<String, String>| texts.into_iter().map(|(key, text)| (key, text.into_bytes()));
    match kind {
        Kind::Secret => {
            let secret: Secret = serde_json::from_value(manifest.clone()).unwrap_or_default();
            let data = secret.data.into_iter().flatten().map(|(key, value)| (key, value.0));
            data.chain(secret.string_data.into_iter().flat_map(text)).collect()
        }
        Kind::ConfigMap => {
            let map: ConfigMap = serde_json::from_value(manifest.clone()).unwrap_or_default();
            map.data.into_iter().flat_map(text).collect()
        }
    }
}
