//! A table of a configuration that is read field by field, and knows in the end what nobody has read.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::error::ConvertError;
use crate::api::{Duration, Quantity};

/// A table of a configuration. To read a field takes it out.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// Where in the file it is; empty for the file itself.
    path: String,
    fields: Map<String, Value>,
}

impl Table {
    pub(super) fn from_toml(text: &str) -> Result<Table, ConvertError> {
        let value = toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            ConvertError::Syntax {
                line: before.matches('\n').count() + 1,
                problem: error.message().to_owned(),
            }
        })?;
        Table::new(String::new(), value)
    }

    /// The documents of a YAML file but the empty ones.
    pub(super) fn from_yaml(text: &str) -> Result<Vec<Table>, ConvertError> {
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(text).map_err(|error| ConvertError::Syntax {
                line: error
                    .location()
                    .and_then(|location| usize::try_from(location.line()).ok())
                    .unwrap_or(1),
                problem: error.without_snippet().to_string(),
            })?;
        let filled = documents.into_iter().filter(|document| !document.is_null());
        filled.map(|document| Table::new(String::new(), document)).collect()
    }

    fn new(path: String, value: Value) -> Result<Table, ConvertError> {
        match value {
            Value::Object(fields) => Ok(Table { path, fields }),
            _ if path.is_empty() => Err(ConvertError::Nothing("the file has no fields")),
            _ => Err(ConvertError::Field { field: path, problem: "expected a table of fields".into() }),
        }
    }

    /// The path of a field in the file.
    pub(super) fn path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The error that a field cannot be used.
    pub(super) fn error(&self, key: &str, problem: impl Into<String>) -> ConvertError {
        ConvertError::Field { field: self.path(key), problem: problem.into() }
    }

    /// The note on a field that has another meaning here.
    pub(super) fn note(&self, key: &str, text: impl AsRef<str>) -> String {
        format!("{}: {}", self.path(key), text.as_ref())
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.fields.contains_key(key)
    }

    /// An empty table that is within this one.
    pub(super) fn within(&self, name: &str) -> Table {
        Table { path: self.path(name), fields: Map::new() }
    }

    /// A text that is left to be read.
    pub(super) fn peek(&self, key: &str) -> Option<&str> {
        self.fields.get(key).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    /// A field as it stands. One that is null or an empty text is not there.
    pub(super) fn value(&mut self, key: &str) -> Option<Value> {
        self.fields.remove(key).filter(|value| !matches!(value, Value::Null) && value != "")
    }

    pub(super) fn text(&mut self, key: &str) -> Result<Option<String>, ConvertError> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.error(key, "expected a text in quotes")),
        }
    }

    /// A text that must be there; `remedy` says what to write.
    pub(super) fn required_text(&mut self, key: &str, remedy: &str) -> Result<String, ConvertError> {
        self.text(key)?.ok_or_else(|| self.error(key, format!("missing: {remedy}")))
    }

    pub(super) fn texts(&mut self, key: &str) -> Result<Vec<String>, ConvertError> {
        let wrong = self.error(key, "expected a list of texts in quotes");
        match self.value(key) {
            None => Ok(Vec::new()),
            Some(list) => serde_json::from_value(list).map_err(|_| wrong),
        }
    }

    pub(super) fn texts_by_name(&mut self, key: &str) -> Result<BTreeMap<String, String>, ConvertError> {
        let wrong = self.error(key, "expected texts in quotes by their names");
        match self.value(key) {
            None => Ok(BTreeMap::new()),
            Some(texts) => serde_json::from_value(texts).map_err(|_| wrong),
        }
    }

    pub(super) fn flag(&mut self, key: &str) -> Result<Option<bool>, ConvertError> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(_) => Err(self.error(key, "expected true or false")),
        }
    }

    pub(super) fn number(&mut self, key: &str) -> Result<Option<i32>, ConvertError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let number =
            value.as_i64().and_then(|number| i32::try_from(number).ok()).filter(|number| *number >= 0);
        number.map(Some).ok_or_else(|| self.error(key, "expected a whole number that is not negative"))
    }

    /// A number for which 0 says that there is none.
    pub(super) fn number_above_zero(&mut self, key: &str) -> Result<Option<i32>, ConvertError> {
        Ok(self.number(key)?.filter(|number| *number > 0))
    }

    pub(super) fn duration(&mut self, key: &str) -> Result<Option<Duration>, ConvertError> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        text.parse()
            .map(Some)
            .map_err(|error: crate::api::InvalidDuration| self.error(key, error.to_string()))
    }

    pub(super) fn quantity(&mut self, key: &str) -> Result<Option<Quantity>, ConvertError> {
        let quantity = match self.value(key) {
            None => return Ok(None),
            Some(Value::String(text)) => Quantity(text),
            Some(Value::Number(number)) => Quantity(number.to_string()),
            Some(_) => return Err(self.error(key, "expected a quantity, like 2, 500m or 4Gi")),
        };
        quantity.millis().map_err(|error| self.error(key, error.to_string()))?;
        Ok(Some(quantity))
    }

    /// A table within; an empty one if it is not there.
    pub(super) fn table(&mut self, key: &str) -> Result<Table, ConvertError> {
        let value = self.value(key).unwrap_or_else(|| Value::Object(Map::new()));
        Table::new(self.path(key), value)
    }

    /// The tables of a list.
    pub(super) fn tables(&mut self, key: &str) -> Result<Vec<Table>, ConvertError> {
        match self.value(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => {
                let path = |i| format!("{}[{i}]", self.path(key));
                items.into_iter().enumerate().map(|(i, item)| Table::new(path(i), item)).collect()
            }
            Some(_) => Err(self.error(key, "expected a list of tables")),
        }
    }

    /// The tables within by name, in the order of their names.
    pub(super) fn tables_by_name(&mut self, key: &str) -> Result<Vec<(String, Table)>, ConvertError> {
        let Table { path, fields } = self.table(key)?;
        let named = |(name, value)| Ok((String::clone(&name), Table::new(format!("{path}.{name}"), value)?));
        fields.into_iter().map(named).collect()
    }

    /// Takes some of the fields out into a table of their own.
    pub(super) fn split(&mut self, keys: &[&str]) -> Table {
        let taken = keys.iter().filter_map(|key| self.fields.remove_entry(*key)).collect();
        Table { path: self.path.clone(), fields: taken }
    }

    /// Gives a field under an older or newer name the one that is read.
    pub(super) fn rename(&mut self, other: &str, key: &str) {
        if !self.has(key)
            && let Some(value) = self.fields.remove(other)
        {
            self.fields.insert(key.to_owned(), value);
        }
    }

    /// Fills in what is not given here, also in tables within.
    pub(super) fn inherit(&mut self, defaults: &Table) {
        inherit(&mut self.fields, &defaults.fields);
    }

    /// Sets what another table gives.
    pub(super) fn override_with(&mut self, other: &Table) {
        self.fields.extend(other.fields.clone());
    }

    /// A note for each field that nobody has read and that is not empty. `reasons` has words for some of them by their key.
    /// Values are not repeated: they may be secret.
    pub(super) fn leftovers(self, reasons: &[(&str, &str)]) -> Vec<String> {
        let filled = self.fields.iter().filter(|(_, value)| !is_empty(value));
        let reason = |key: &str| reasons.iter().find(|(known, _)| *known == key).map(|(_, reason)| *reason);
        filled.map(|(key, _)| self.note(key, reason(key).unwrap_or("has no counterpart"))).collect()
    }
}

fn inherit(fields: &mut Map<String, Value>, defaults: &Map<String, Value>) {
    for (key, default) in defaults {
        match (fields.get_mut(key), default) {
            (None, default) => {
                fields.insert(key.clone(), default.clone());
            }
            (Some(Value::Object(fields)), Value::Object(defaults)) => inherit(fields, defaults),
            _ => {}
        }
    }
}

/// Whether a value says nothing, like a default in the values of a chart.
pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
        Value::Bool(_) | Value::Number(_) => false,
    }
}
