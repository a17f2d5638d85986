//! The Secrets and ConfigMaps that a spec names, found by the names of the fields.

use std::fmt;

use serde_json::Value;

/// A Secret or ConfigMap that a spec names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference {
    pub(super) field: String,
    pub(super) kind: Kind,
    pub(super) name: String,
}

/// What keys and texts are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Secret,
    ConfigMap,
}

impl Kind {
    /// The kind of that name.
    pub(super) fn of(name: &str) -> Option<Kind> {
        [Kind::Secret, Kind::ConfigMap].into_iter().find(|kind| kind.to_string() == name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Lists what a value at that path names.
pub(super) fn of(value: &Value, path: &str) -> Vec<Reference> {
    match value {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, field)| {
                let path = format!("{path}.{name}");
                reference(name, field, &path).map_or_else(|| of(field, &path), |found| vec![found])
            })
            .collect(),
        Value::Array(items) => {
            let items = items.iter().enumerate();
            items.flat_map(|(number, item)| of(item, &format!("{path}[{number}]"))).collect()
        }
        _ => Vec::new(),
    }
}

fn reference(field: &str, value: &Value, path: &str) -> Option<Reference> {
    let kind = match field {
        "caBundleRef" => Kind::of(value["kind"].as_str().unwrap_or("ConfigMap"))?,
        "secretKeyRef" => Kind::Secret,
        _ if field.ends_with("SecretRef") => Kind::Secret,
        _ => return None,
    };
    Some(Reference { field: path.to_owned(), kind, name: value["name"].as_str()?.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_of_the_full_example_is_found() {
        let full: Value = serde_saphyr::from_str(include_str!("../../tests/support/full.yaml")).unwrap();
        let found = of(&full["spec"], "spec");
        let has = |field: &str, kind| found.iter().any(|r| r.field == field && r.kind == kind);
        assert!(has("spec.github.credentialsSecretRef", Kind::Secret), "{found:?}");
        let text = include_str!("../../tests/support/full.yaml");
        let named = text.matches("SecretRef:").count() + text.matches("secretKeyRef:").count();
        assert_eq!(found.len(), named + text.matches("caBundleRef:").count());
    }
}
