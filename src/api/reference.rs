//! References to Secrets and ConfigMaps, always in the set's own namespace.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the API server admits as an object's name.
const OBJECT_NAME: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// What the API server admits as a key of a Secret or ConfigMap.
const DATA_KEY: &str = "^[-._a-zA-Z0-9]+$";

/// A Secret in the set's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct SecretRef {
    /// Name of the Secret, in the namespace of the RunnerScaleSet.
    #[schemars(length(min = 1, max = 253), regex(pattern = OBJECT_NAME))]
    pub name: String,
}

/// One key of a Secret in the set's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretKeyRef {
    /// Name of the Secret, in the namespace of the RunnerScaleSet.
    #[schemars(length(min = 1, max = 253), regex(pattern = OBJECT_NAME))]
    pub name: String,
    /// Key within the Secret whose value is used.
    #[schemars(length(min = 1, max = 253), regex(pattern = DATA_KEY))]
    pub key: String,
}

/// One key of a ConfigMap or Secret that holds PEM certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CaBundleRef {
    /// Kind of the object: ConfigMap or Secret. Default: ConfigMap.
    #[serde(default)]
    pub kind: CaBundleKind,
    /// Name of the object, in the namespace of the RunnerScaleSet.
    #[schemars(length(min = 1, max = 253), regex(pattern = OBJECT_NAME))]
    pub name: String,
    /// Key whose value is one or more certificates in PEM. Default: ca.crt.
    #[serde(default = "ca_crt")]
    #[schemars(length(min = 1, max = 253), regex(pattern = DATA_KEY))]
    pub key: String,
}

fn ca_crt() -> String {
    "ca.crt".into()
}

/// The kind of object that a [`CaBundleRef`] points at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CaBundleKind {
    /// A ConfigMap.
    #[default]
    ConfigMap,
    /// A Secret.
    Secret,
}
