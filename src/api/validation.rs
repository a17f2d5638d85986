//! Judges a manifest of a `RunnerScaleSet` without an API server, as a strict `kubectl apply` would have it judged: unknown
//! fields, the schema, and the rules written in CEL.

mod structure;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::cel::{ValidationErrors, Validator};
use kube::{CustomResourceExt, Resource};
use regex::Regex;
use serde_json::Value;

use super::RunnerScaleSet;
pub use structure::InvalidField;
use structure::{drop_nulls, judge};

/// What `metadata` may hold.
const METADATA: [&str; 15] = [
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];
const NAME: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// The longest name of an object.
const LONGEST_NAME: usize = 253;

/// Tells whether a manifest is one of a `RunnerScaleSet`, of whatever version.
pub fn is_scale_set(manifest: &Value) -> bool {
    let group = manifest["apiVersion"].as_str().and_then(|version| version.split_once('/'));
    manifest["kind"] == *RunnerScaleSet::kind(&())
        && group.is_some_and(|(group, _)| group == RunnerScaleSet::group(&()))
}

/// Judges a manifest of a `RunnerScaleSet` and reads it, its defaults filled in.
///
/// # Errors
/// Everything that the API server would refuse.
pub fn validate(manifest: &Value) -> Result<RunnerScaleSet, Vec<InvalidField>> {
    let schema = schema().map_err(|invalid| vec![invalid])?;
    let mut object = manifest.clone();
    drop_nulls(&schema, &mut object);
    let mut found = about_object(&object);
    judge(&schema, &object, "", &mut found);
    if found.is_empty() {
        // The API server runs no rule over what has not its shape.
        found = Validator::new().validate(&schema, &object, None).err().map(broken_rules).unwrap_or_default();
    }
    if !found.is_empty() {
        return Err(found);
    }
    serde_json::from_value(object).map_err(|error| vec![InvalidField::new("spec", error.to_string())])
}

fn schema() -> Result<Value, InvalidField> {
    let crd = serde_json::to_value(RunnerScaleSet::crd());
    let crd = crd.map_err(|error| InvalidField::new("", error.to_string()))?;
    Ok(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone())
}

/// What the API server asks of every object.
fn about_object(object: &Value) -> Vec<InvalidField> {
    let mut found = Vec::new();
    let (version, served) = (&object["apiVersion"], RunnerScaleSet::api_version(&()));
    if *version != *served {
        found.push(InvalidField::new("apiVersion", format!("{version} is not served: it is {served}")));
    }
    for (field, _) in object.as_object().into_iter().flatten() {
        if !["apiVersion", "kind", "metadata", "spec", "status"].contains(&field.as_str()) {
            found.push(InvalidField::new(field, format!("unknown field \"{field}\"")));
        }
    }
    about_metadata(&object["metadata"], &mut found);
    found
}

fn about_metadata(metadata: &Value, found: &mut Vec<InvalidField>) {
    for (field, _) in metadata.as_object().into_iter().flatten() {
        if !METADATA.contains(&field.as_str()) {
            let field = format!("metadata.{field}");
            found.push(InvalidField::new(&field, format!("unknown field \"{field}\"")));
        }
    }
    let metadata: ObjectMeta = match serde_json::from_value(metadata.clone()) {
        Ok(metadata) => metadata,
        Err(error) => return found.push(InvalidField::new("metadata", error.to_string())),
    };
    let Some(name) = metadata.name.or(metadata.generate_name) else {
        return found.push(InvalidField::new("metadata.name", "Required value: name or generateName"));
    };
    let is_name = Regex::new(NAME).is_ok_and(|pattern| pattern.is_match(name.trim_end_matches('-')));
    if !is_name || name.len() > LONGEST_NAME {
        let message = format!("{name:?} is no name: it may have lower case letters, digits, '-' and '.'");
        found.push(InvalidField::new("metadata.name", message));
    }
}

fn broken_rules(errors: ValidationErrors) -> Vec<InvalidField> {
    errors.into_vec().into_iter().map(|error| InvalidField::new(error.field_path, error.message)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn full() -> Value {
        serde_saphyr::from_str(include_str!("../../tests/support/full.yaml")).unwrap()
    }

    #[test]
    fn what_the_api_server_takes_is_read_with_its_defaults() {
        let read = validate(&full()).unwrap();
        assert_eq!(read, serde_json::from_value(full()).unwrap());
        let mut bare = full();
        bare["spec"]["timeouts"] = json!({"start": null, "job": null});
        assert_eq!(validate(&bare).unwrap().spec.timeouts.job.to_string(), "6h");
    }

    #[test]
    fn every_wrong_field_is_named_by_its_path() {
        let mut wrong = full();
        wrong["apiVersion"] = json!("paddock.dev/v1");
        wrong["sepc"] = json!({});
        wrong["metadata"] = json!({"name": "Linux_1", "label": {}});
        wrong["spec"]["minRuners"] = json!(1);
        wrong["spec"]["maxRunners"] = json!("many");
        wrong["spec"]["github"]["url"] = json!(null);
        wrong["spec"]["backends"][0]["docker"]["image"] = json!("a b");
        let invalid = validate(&wrong).unwrap_err();
        let fields: Vec<&str> = invalid.iter().map(|invalid| invalid.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "apiVersion",
                "sepc",
                "metadata.label",
                "metadata.name",
                "spec.backends[0].docker.image",
                "spec.github.url",
                "spec.maxRunners",
                "spec.minRuners",
            ]
        );
    }
}
