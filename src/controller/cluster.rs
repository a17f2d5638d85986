//! What the commands beside the controller read of Kubernetes.

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use super::answer::with_timeout;
use super::context::Guarded;
use super::inputs::{Data, Error, Objects, kube_error};
use super::lease;
use crate::api::RunnerScaleSet;

/// A Kubernetes cluster, to be read.
pub struct Cluster {
    client: Client,
}

/// All scale sets that could be listed.
#[derive(Debug, Default)]
pub struct ScaleSets {
    /// Those that this version understands.
    pub objects: Vec<RunnerScaleSet>,
    /// `namespace/name` of those that it does not, and why.
    pub unreadable: Vec<(String, String)>,
}

/// A Lease by which one of several controllers leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseState {
    /// Where it is.
    pub namespace: String,
    /// Who holds it; none after it was given back.
    pub holder: Option<String>,
    /// When it was last renewed.
    pub renewed_at: Option<Timestamp>,
}

impl Cluster {
    /// Reads through a client.
    pub fn new(client: Client) -> Cluster {
        Cluster { client }
    }

    /// The namespace of those objects that name none.
    pub fn default_namespace(&self) -> &str {
        self.client.default_namespace()
    }

    /// The cluster's id, which marks what is ours on every backend.
    ///
    /// # Errors
    /// The API server does not answer, or does not permit it.
    pub async fn id(&self) -> Result<String, Error> {
        let id = super::run::cluster_id(&self.client).await;
        id.map_err(|error| kube_error("the kube-system namespace for the cluster's id", error))
    }

    /// All scale sets, of those namespaces or of all where there are none.
    ///
    /// # Errors
    /// The API server does not answer, or does not permit it.
    pub async fn scale_sets(&self, namespaces: &[String]) -> Result<ScaleSets, Error> {
        let mut found = ScaleSets::default();
        for scale_sets in self.apis::<Guarded>(namespaces) {
            let list = with_timeout(scale_sets.list(&ListParams::default())).await;
            for object in list.map_err(|error| kube_error("the scale sets", error))? {
                let name = format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any());
                match object.0 {
                    Ok(object) => found.objects.push(object),
                    Err(invalid) => found.unreadable.push((name, invalid.error)),
                }
            }
        }
        Ok(found)
    }

    /// The scale set of that name, if there is one.
    ///
    /// # Errors
    /// The API server does not answer, does not permit it, or has one that this version does not understand.
    pub async fn scale_set(&self, namespace: &str, name: &str) -> Result<Option<RunnerScaleSet>, Error> {
        let scale_sets: Api<RunnerScaleSet> = Api::namespaced(self.client.clone(), namespace);
        let object = with_timeout(scale_sets.get_opt(name)).await;
        object.map_err(|error| kube_error(&format!("RunnerScaleSet {namespace}/{name}"), error))
    }

    /// The Leases of controllers, of those namespaces or of all where there are none.
    ///
    /// # Errors
    /// The API server does not answer, or does not permit it.
    pub async fn leases(&self, namespaces: &[String]) -> Result<Vec<LeaseState>, Error> {
        let named = ListParams::default().fields(&format!("metadata.name={}", lease::NAME));
        let mut found = Vec::new();
        for leases in self.apis::<Lease>(namespaces) {
            let list = with_timeout(leases.list(&named)).await;
            found.extend(
                list.map_err(|error| kube_error("the controllers' Leases", error))?.into_iter().map(
                    |lease| {
                        let spec = lease.spec.clone().unwrap_or_default();
                        LeaseState {
                            namespace: lease.namespace().unwrap_or_default(),
                            holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
                            renewed_at: spec.renew_time.map(|time| time.0),
                        }
                    },
                ),
            );
        }
        Ok(found)
    }

    fn apis<K>(&self, namespaces: &[String]) -> Vec<Api<K>>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        if namespaces.is_empty() {
            return vec![Api::all(self.client.clone())];
        }
        namespaces.iter().map(|namespace| Api::namespaced(self.client.clone(), namespace)).collect()
    }
}

#[async_trait]
impl Objects for Cluster {
    async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Data>, Error> {
        self.client.secret(namespace, name).await
    }

    async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<Data>, Error> {
        self.client.config_map(namespace, name).await
    }
}
