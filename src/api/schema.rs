//! What the generated schema needs beyond the types: patterns, and the shape that Kubernetes' own schemas have.
//!
//! Rules are written on the types as `#[schemars(extend("x-kubernetes-validations" = [Rule::new(..)]))]`: unlike kube's
//! `KubeSchema` derive this goes together with `#[serde(default)]` on a whole struct, which keeps every default in one place.
//! Everything that a rule can see is bounded, since the API server prices a rule by the largest input it admits.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::core::Rule;
use schemars::{Schema, transform::transform_subschemas};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A DNS label: what backends, hosts and schedules are called. At most 63 characters, checked beside it.
pub(super) const LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

/// An absolute path without characters that the engines give a meaning to.
pub(super) const ABSOLUTE_PATH: &str = "^/[^:,\\s]*$";

/// An Amazon resource name.
pub(super) const ARN: &str = "^arn:[^\\s]+$";

/// Anything without white space: image references, which the registries judge.
pub(super) const NO_SPACE: &str = "^\\S+$";

/// The most runners of anything: GitHub's limit for one runner group.
/// <https://docs.github.com/en/actions/reference/limits#existing-system-limits>
pub(super) const MOST_RUNNERS: i32 = 10_000;

/// A number or a text, as the API server's `x-kubernetes-int-or-string` admits.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum IntOrText {
    Int(i64),
    Text(String),
}

/// Marks a list as keyed by `name`: a name given twice is refused, and server-side apply merges by it.
pub(super) fn named_list(schema: &mut Schema) {
    schema.insert("x-kubernetes-list-type".into(), "map".into());
    schema.insert("x-kubernetes-list-map-keys".into(), Value::from(vec!["name"]));
}

/// Gives an object one owner as a whole, so that what one does not give any more goes, whoever filled it in.
pub(super) fn one_owner(schema: &mut Schema) {
    schema.insert("x-kubernetes-map-type".into(), "atomic".into());
}

/// What holds between the hosts of a backend.
pub(super) fn host_rules() -> [Rule; 1] {
    [Rule::new("self.all(host, self.exists_one(other, other.endpoint == host.endpoint))")
        .message("hosts: two of them have the same endpoint")]
}

/// Gives a schema and all below it the shape that Kubernetes' own types have: an optional field can be left out but is
/// not nullable, so that the API server drops a `null` before defaults are filled in and rules run; the items of lists
/// have no defaults; and a description is one paragraph to a line.
pub(super) fn kubernetes_style(schema: &mut Schema) {
    transform_subschemas(&mut (kubernetes_style as fn(&mut Schema)), schema);
    not_nullable(schema);
    if let Some(items) = schema.get_mut("items").and_then(|items| items.try_into().ok()) {
        no_default(items);
    }
    if let Some(Value::String(description)) = schema.get_mut("description") {
        *description = description
            .split("\n\n")
            .map(|paragraph| paragraph.split('\n').collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>()
            .join("\n\n");
    }
}

/// Takes `nullable: false` away, which the API server drops: `kubectl apply` would miss it, and call the CRD changed for ever.
pub(super) fn say_no_default(schema: &mut JSONSchemaProps) {
    schema.nullable = schema.nullable.filter(|nullable| *nullable);
    schema.properties.iter_mut().flat_map(|fields| fields.values_mut()).for_each(say_no_default);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        say_no_default(items);
    }
}

/// Takes the defaults away, which reading the object fills in then. The API server's would make the items of a list others than
/// those in the manifest, and lists are compared whole: `kubectl apply` would call the object configured, and Argo CD out of sync,
/// for ever.
fn no_default(schema: &mut Schema) {
    schema.remove("default");
    transform_subschemas(&mut (no_default as fn(&mut Schema)), schema);
}

fn not_nullable(schema: &mut Schema) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(values)) = schema.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    let wrapped = match schema.get("anyOf").and_then(Value::as_array).map(Vec::as_slice) {
        Some([Value::Object(inner), null]) if null.get("type") == Some(&"null".into()) => inner.clone(),
        _ => return,
    };
    schema.remove("anyOf");
    for (key, value) in wrapped {
        schema.ensure_object().entry(key).or_insert(value);
    }
}
