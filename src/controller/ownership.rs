//! Which scale set at GitHub is an object's own, and which of two objects that name the same one may have it.
//!
//! A scale set is an object's own once the controller created it for that object, or has held its message session for
//! it: GitHub gives a session to one at a time. That is recorded in an annotation, not in status: who may write the
//! status of an object has no say in what is closed, changed or deleted at GitHub. A record names the UID of its object,
//! so that a copy of the object (a backup restored elsewhere) owns nothing.

use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::api::RunnerScaleSet;

/// Records the scale set that is the object's own: the object's UID, a slash, and GitHub's id of the set.
const RECORD: &str = "paddock.dev/own-scale-set";

/// The id of the scale set that is recorded as the object's own.
pub(super) fn recorded(object: &RunnerScaleSet) -> Option<i64> {
    let (uid, id) = object.annotations().get(RECORD)?.split_once('/')?;
    if object.metadata.uid.as_deref() != Some(uid) {
        return None;
    }
    id.parse().ok().filter(|id| *id > 0)
}

/// The patch that records `own` with the object of that UID, and with no other of its name.
pub(super) fn record(uid: &str, own: Option<i64>) -> Value {
    let record = own.map(|id| format!("{uid}/{id}"));
    json!({"metadata": {"uid": uid, "annotations": {RECORD: record}}})
}

/// What makes two objects name the same scale set: where it is, its group and its name, as GitHub compares them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    /// The configuration URL.
    pub url: String,
    group: String,
    name: String,
}

impl Claim {
    /// What the object's spec names.
    pub fn of(object: &RunnerScaleSet) -> Claim {
        let github = &object.spec.github;
        let url = github.url.trim_end_matches('/').to_lowercase();
        let parts: Vec<&str> = url.split('/').skip(3).collect();
        // A repository has no runner groups.
        let is_repository = parts.len() == 2 && parts[0] != "enterprises";
        let group = if is_repository { String::new() } else { github.runner_group.to_lowercase() };
        Claim { group, name: object.scale_set_name().to_lowercase(), url }
    }
}

/// The order in which objects may have what several of them name: the one created first, and of one second the one with
/// the smaller UID.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seniority(Timestamp, String);

impl Seniority {
    /// The object's place in that order.
    pub fn of(object: &RunnerScaleSet) -> Seniority {
        let created = object.metadata.creation_timestamp.as_ref().map_or(Timestamp::MAX, |time| time.0);
        Seniority(created, object.uid().unwrap_or_default())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn object(spec: &Value) -> RunnerScaleSet {
        let mut object: RunnerScaleSet =
            serde_saphyr::from_str(include_str!("../../tests/support/full.yaml")).unwrap();
        object.metadata.uid = Some("u-1".to_owned());
        object.spec.github.url = spec["url"].as_str().unwrap().to_owned();
        object.spec.github.runner_group = spec["group"].as_str().unwrap().to_owned();
        object.spec.scale_set_name = Some(spec["name"].as_str().unwrap().to_owned());
        object
    }

    fn claim(url: &str, group: &str, name: &str) -> Claim {
        Claim::of(&object(&json!({"url": url, "group": group, "name": name})))
    }

    #[test]
    fn a_record_counts_for_the_object_that_it_names_alone() {
        let mut set = object(&json!({"url": "https://github.com/acme", "group": "default", "name": "linux"}));
        let record_of = |value: &str| std::iter::once((RECORD.to_owned(), value.to_owned())).collect();
        for (value, owned) in
            [("u-1/7", Some(7)), ("u-2/7", None), ("7", None), ("u-1/-7", None), ("u-1/x", None)]
        {
            set.metadata.annotations = Some(record_of(value));
            assert_eq!(recorded(&set), owned, "{value}");
        }
        let patch = record("u-1", Some(7));
        assert_eq!(patch["metadata"]["annotations"][RECORD], "u-1/7");
        assert_eq!(patch["metadata"]["uid"], "u-1");
        assert!(record("u-1", None)["metadata"]["annotations"][RECORD].is_null());
    }

    #[test]
    fn claims_are_compared_as_github_compares_names() {
        let one = claim("https://github.com/Acme/", "Default", "Linux");
        assert_eq!(one, claim("https://github.com/acme", "default", "linux"));
        assert_ne!(one, claim("https://github.com/acme", "gpu", "linux"));
        assert_ne!(one, claim("https://github.com/other", "default", "linux"));
        assert_eq!(
            claim("https://github.com/acme/app", "gpu", "linux"),
            claim("https://github.com/acme/app", "default", "linux")
        );
        assert_ne!(
            claim("https://github.com/enterprises/acme", "gpu", "linux"),
            claim("https://github.com/enterprises/acme", "default", "linux")
        );
    }

    #[test]
    fn the_elder_is_the_one_created_first_then_the_one_with_the_smaller_uid() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert!(Seniority(at(1), "b".into()) < Seniority(at(2), "a".into()));
        assert!(Seniority(at(1), "a".into()) < Seniority(at(1), "b".into()));
    }
}
