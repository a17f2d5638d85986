//! Tags: the rules for them, and the operations on them.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Value, json};

use super::refusal::{own, reported};
use super::state::{Definition, State, Status, Tag};
use super::wire::{Refusal, read};

const MOST: usize = 50;
const KEY_CHARACTERS: usize = 128;
const VALUE_CHARACTERS: usize = 256;

/// Checks tags that somebody wants to set.
pub(super) fn check(tags: &[Tag]) -> Result<(), Refusal> {
    let mut keys = BTreeSet::new();
    for tag in tags {
        let length = tag.key.chars().count();
        let reserved = tag.key.to_ascii_lowercase().starts_with("aws:");
        if length == 0 || length > KEY_CHARACTERS || reserved || !tag.key.chars().all(allowed) {
            return Err(own::malformed(&format!("The tag key '{}'", tag.key)));
        }
        if tag.value.chars().count() > VALUE_CHARACTERS || !tag.value.chars().all(allowed) {
            return Err(own::malformed(&format!("The value of the tag '{}'", tag.key)));
        }
        if !keys.insert(&tag.key) {
            return Err(Refusal::invalid(format!("Duplicate tag keys found: '{}'.", tag.key)));
        }
    }
    if tags.len() > MOST { Err(own::too_many("tags", MOST)) } else { Ok(()) }
}

/// Letters, numbers and spaces of any script, and `+ - = . _ : / @`.
fn allowed(c: char) -> bool {
    c.is_alphanumeric() || c.is_whitespace() || "+-=._:/@".contains(c)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    resource_arn: String,
    #[serde(default)]
    tags: Vec<Tag>,
    #[serde(default)]
    tag_keys: Vec<String>,
}

pub(super) fn tag(state: &mut State, body: &Value) -> Result<Value, Refusal> {
    let request: Request = read(body)?;
    check(&request.tags)?;
    change(state, &request.resource_arn, |tags| {
        for tag in &request.tags {
            tags.retain(|old| old.key != tag.key);
            tags.push(tag.clone());
        }
    })
}

pub(super) fn untag(state: &mut State, body: &Value) -> Result<Value, Refusal> {
    let request: Request = read(body)?;
    change(state, &request.resource_arn, |tags| tags.retain(|tag| !request.tag_keys.contains(&tag.key)))
}

pub(super) fn list(state: &State, body: &Value) -> Result<Value, Refusal> {
    let request: Request = read(body)?;
    let arn = &request.resource_arn;
    let tags = if arn.contains(":task/") {
        state.known_task(arn).map(|task| &task.tags)
    } else if arn.contains(":cluster/") {
        state.clusters.values().find(|cluster| cluster.arn == *arn).map(|cluster| &cluster.tags)
    } else {
        state.definitions.find(arn).map(|definition| &definition.tags)
    };
    Ok(json!({ "tags": tags.ok_or_else(own::resource_not_found)? }))
}

fn change(state: &mut State, arn: &str, change: impl FnOnce(&mut Vec<Tag>)) -> Result<Value, Refusal> {
    if arn.contains(":task/") {
        let known = state.known_task(arn).ok_or_else(own::resource_not_found)?;
        if known.status == Status::Stopped {
            return Err(reported::task_stopped());
        }
        let id = known.id.clone();
        let Some(task) = state.tasks.get_mut(&id) else { return Err(own::resource_not_found()) };
        apply(&mut task.tags, change)?;
        task.version += 1;
    } else if arn.contains(":cluster/") {
        let cluster = state.clusters.values_mut().find(|cluster| cluster.arn == arn);
        apply(&mut cluster.ok_or_else(own::resource_not_found)?.tags, change)?;
    } else {
        let found = state.definitions.find(arn).ok_or_else(own::resource_not_found)?;
        let mut definition = Definition::clone(found);
        apply(&mut definition.tags, change)?;
        state.definitions.put(definition);
    }
    Ok(json!({}))
}

/// Changes tags, unless there were too many afterwards.
fn apply(tags: &mut Vec<Tag>, change: impl FnOnce(&mut Vec<Tag>)) -> Result<(), Refusal> {
    let mut changed = tags.clone();
    change(&mut changed);
    if changed.len() > MOST {
        return Err(own::too_many("tags", MOST));
    }
    *tags = changed;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(key: &str, value: &str) -> Tag {
        Tag { key: key.to_owned(), value: value.to_owned() }
    }

    #[test]
    fn tags_keep_to_the_documented_limits() {
        assert_eq!(check(&[tag("paddock.dev/runner", "a-b_c"), tag("größe", "1 GiB")]), Ok(()));
        for bad in [
            tag("", "v"),
            tag("aws:x", "v"),
            tag(&"k".repeat(129), "v"),
            tag("k", &"v".repeat(257)),
            tag("k!", "v"),
        ] {
            assert!(check(std::slice::from_ref(&bad)).is_err(), "{bad:?}");
        }
        assert!(check(&[tag("k", "1"), tag("k", "2")]).is_err());
        let many: Vec<Tag> = (0..51).map(|n| tag(&n.to_string(), "")).collect();
        assert!(check(&many).is_err() && check(&many[..50]).is_ok());
    }
}
