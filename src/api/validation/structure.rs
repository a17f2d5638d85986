//! What a structural schema says of a value. As much of it as the CRD uses; the words are the API server's.

use std::collections::HashSet;

use regex::Regex;
use serde_json::{Map, Value};

/// A field of a manifest, and why the API server refuses it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct InvalidField {
    /// The field's path, as the API server tells it: `spec.backends[0].docker.image`.
    pub field: String,
    /// What is wrong.
    pub message: String,
}

impl InvalidField {
    pub(super) fn new(field: impl Into<String>, message: impl Into<String>) -> InvalidField {
        InvalidField { field: field.into(), message: message.into() }
    }
}

/// Drops what is null and may not be: the API server takes that for absent.
pub(super) fn drop_nulls(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, field| {
                let schema = field_schema(schema, name);
                !field.is_null() || schema.is_some_and(|schema| schema["nullable"] == true)
            });
            for (name, field) in fields {
                if let Some(schema) = field_schema(schema, name) {
                    drop_nulls(schema, field);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| drop_nulls(&schema["items"], item)),
        _ => {}
    }
}

/// Judges a value and all below it. Of an object, `metadata` and what makes it one are others' to judge.
pub(super) fn judge(schema: &Value, value: &Value, path: &str, found: &mut Vec<InvalidField>) {
    if let Some(message) = wrong_type(schema, value) {
        return found.push(InvalidField::new(path, message));
    }
    match value {
        Value::Object(fields) => judge_object(schema, fields, path, found),
        Value::Array(items) => judge_list(schema, items, path, found),
        Value::String(text) => wrong_text(schema, text, path, found),
        Value::Number(number) => {
            wrong_number(schema, number.as_f64().unwrap_or_default(), path, found);
        }
        Value::Bool(_) | Value::Null => {}
    }
}

fn field_schema<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    schema["properties"].get(name).or(schema.get("additionalProperties"))
}

fn wrong_type(schema: &Value, value: &Value) -> Option<String> {
    let is_whole = value.is_i64() || value.is_u64();
    if schema["x-kubernetes-int-or-string"] == true {
        let fits = is_whole || value.is_string();
        return (!fits)
            .then(|| format!("Invalid value: must be an integer or a string, not {}", kind(value)));
    }
    let wanted = schema["type"].as_str()?;
    let fits = match wanted {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => is_whole,
        "number" => value.is_number(),
        _ => true,
    };
    (!fits).then(|| format!("Invalid value: must be of type {wanted}, not {}", kind(value)))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn judge_object(schema: &Value, fields: &Map<String, Value>, path: &str, found: &mut Vec<InvalidField>) {
    let is_root = path.is_empty();
    let below = |name: &str| if is_root { name.to_owned() } else { format!("{path}.{name}") };
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    for name in required.filter(|name| !fields.contains_key(*name)) {
        found.push(InvalidField::new(below(name), "Required value"));
    }
    let most = schema["maxProperties"].as_u64();
    if let Some(most) = most.filter(|most| fields.len() as u64 > *most) {
        found.push(InvalidField::new(path, format!("Too many: must have at most {most} entries")));
    }
    for (name, field) in fields {
        match field_schema(schema, name) {
            Some(schema) => judge(schema, field, &below(name), found),
            None if is_root || schema["x-kubernetes-preserve-unknown-fields"] == true => {}
            None => {
                let field = below(name);
                found.push(InvalidField::new(&field, format!("unknown field \"{field}\"")));
            }
        }
    }
}

fn judge_list(schema: &Value, items: &[Value], path: &str, found: &mut Vec<InvalidField>) {
    let count = items.len() as u64;
    if let Some(least) = schema["minItems"].as_u64().filter(|least| count < *least) {
        found.push(InvalidField::new(path, format!("Invalid value: should have at least {least} items")));
    }
    if let Some(most) = schema["maxItems"].as_u64().filter(|most| count > *most) {
        found.push(InvalidField::new(path, format!("Too many: must have at most {most} items")));
    }
    let mut seen = HashSet::new();
    for (number, item) in items.iter().enumerate() {
        let path = format!("{path}[{number}]");
        if let Some(key) = list_key(schema, item).filter(|key| !seen.insert(key.clone())) {
            found.push(InvalidField::new(&path, format!("Duplicate value: {key}")));
        }
        judge(&schema["items"], item, &path, found);
    }
}

/// What tells the items of a list apart; none where they may be the same.
fn list_key(schema: &Value, item: &Value) -> Option<String> {
    match schema["x-kubernetes-list-type"].as_str()? {
        "map" => {
            let keys = schema["x-kubernetes-list-map-keys"].as_array()?.iter().filter_map(Value::as_str);
            Some(keys.map(|key| format!("{key}: {}", item[key])).collect::<Vec<_>>().join(", "))
        }
        "set" => Some(item.to_string()),
        _ => None,
    }
}

fn wrong_text(schema: &Value, text: &str, path: &str, found: &mut Vec<InvalidField>) {
    let mut refuse = |message: String| found.push(InvalidField::new(path, message));
    let length = text.chars().count() as u64;
    if let Some(least) = schema["minLength"].as_u64().filter(|least| length < *least) {
        refuse(format!("Invalid value: {text:?}: should be at least {least} chars long"));
    }
    if let Some(most) = schema["maxLength"].as_u64().filter(|most| length > *most) {
        refuse(format!("Too long: may not be more than {most} characters"));
    }
    let pattern = schema["pattern"].as_str().unwrap_or_default();
    if !compiled(pattern).is_some_and(|pattern| pattern.is_match(text)) {
        refuse(format!("Invalid value: {text:?}: should match '{pattern}'"));
    }
    let known = schema["enum"].as_array();
    if let Some(known) = known.filter(|known| !known.iter().any(|value| value == text)) {
        let known: Vec<String> = known.iter().map(Value::to_string).collect();
        refuse(format!("Unsupported value: {text:?}: supported values: {}", known.join(", ")));
    }
}

/// Compiles a pattern of the schema, which is in Go's dialect: there a `[` within brackets stands for itself.
fn compiled(pattern: &str) -> Option<Regex> {
    let mut translated = String::new();
    let mut brackets = None;
    let mut escaped = false;
    for (at, c) in pattern.char_indices() {
        match (c, brackets) {
            _ if escaped => {}
            ('[', None) => brackets = Some(at),
            ('[', Some(_)) => translated.push('\\'),
            (']', Some(opened)) if at > opened + 1 => brackets = None,
            _ => {}
        }
        escaped = c == '\\' && !escaped;
        translated.push(c);
    }
    Regex::new(&translated).ok()
}

fn wrong_number(schema: &Value, number: f64, path: &str, found: &mut Vec<InvalidField>) {
    let mut refuse = |message: String| found.push(InvalidField::new(path, message));
    if let Some(least) = schema["minimum"].as_f64().filter(|least| number < *least) {
        refuse(format!("Invalid value: {number}: should be greater than or equal to {least}"));
    }
    if let Some(most) = schema["maximum"].as_f64().filter(|most| number > *most) {
        refuse(format!("Invalid value: {number}: should be less than or equal to {most}"));
    }
    let (least, most) = match schema["format"].as_str() {
        Some("int32") => (f64::from(i32::MIN), f64::from(i32::MAX)),
        Some("uint32") => (0.0, f64::from(u32::MAX)),
        _ => return,
    };
    if number < least || number > most {
        refuse(format!("Invalid value: {number}: is beyond what its type can hold"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_means_what_it_means_in_go() {
        for (pattern, text, matches) in [
            ("^[[][0-9:]+[]]$", "[::1]", true),
            ("^[[][0-9:]+[]]$", "::1", false),
            (r"^\S[a-z]$", "xa", true),
            (r"^[\p{L}@-]*$", "größe@", true),
            ("", "anything", true),
        ] {
            assert_eq!(compiled(pattern).unwrap().is_match(text), matches, "{pattern} {text}");
        }
    }
}
