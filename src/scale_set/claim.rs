//! What an object names at GitHub, and which of two objects that name the same scale set may have it.
//!
//! A scale set is an object's own once the controller created it for that object, or has held its message session for
//! it: GitHub gives a session to one at a time.

use jiff::Timestamp;

use crate::api::RunnerScaleSet;

/// What makes two objects name the same scale set: where it is, its group and its name, as GitHub compares them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
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
pub struct Seniority(Timestamp, String);

impl Seniority {
    /// The object's place in that order.
    pub fn of(object: &RunnerScaleSet) -> Seniority {
        let created = object.metadata.creation_timestamp.as_ref().map_or(Timestamp::MAX, |time| time.0);
        Seniority(created, object.metadata.uid.clone().unwrap_or_default())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

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
