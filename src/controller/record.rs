//! The record of the scale set at GitHub that is an object's own.
//!
//! It is an annotation, and not in status: who may write the status of an object has no say in what is closed, changed or
//! deleted at GitHub. A record names the UID of its object, so that a copy of the object (a backup restored elsewhere) owns
//! nothing.

use kube::ResourceExt;
use serde_json::{Value, json};

use crate::api::RunnerScaleSet;

/// Records the scale set that is the object's own: the object's UID, a slash, and GitHub's id of the set.
pub(super) const RECORD: &str = "paddock.dev/own-scale-set";

/// The id of the scale set that is recorded as the object's own.
pub fn recorded(object: &RunnerScaleSet) -> Option<i64> {
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_for_the_object_that_it_names_alone() {
        let mut set: RunnerScaleSet =
            serde_saphyr::from_str(include_str!("../../tests/support/full.yaml")).unwrap();
        set.metadata.uid = Some("u-1".to_owned());
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
}
