//! What an engine has of a scale set beside containers, a network or a volume: by which name, and how it is known again.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use crate::runner::Identity;

/// What is kept of a scale set's name: a file's name may have 255 bytes.
const MOST_NAME: usize = 200;

/// Name and labels of what is of one object of one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owned {
    /// It has namespace and name, for who lists what there is, and a hash of what tells objects and clusters apart.
    pub(super) name: String,
    pub(super) labels: HashMap<String, String>,
}

impl Owned {
    pub(super) fn by(owner: &Identity) -> Owned {
        let digest = Sha256::digest(format!("{}/{}", owner.cluster, owner.scale_set_uid));
        let hash: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        let set: String = owner.scale_set.replace('/', ".").chars().take(MOST_NAME).collect();
        let labels = [
            (Identity::CLUSTER, &owner.cluster),
            (Identity::SCALE_SET_UID, &owner.scale_set_uid),
            (Identity::SCALE_SET, &owner.scale_set),
        ];
        Owned {
            name: format!("paddock-{set}-{hash}"),
            labels: labels.map(|(key, value)| (key.to_owned(), value.clone())).into(),
        }
    }

    /// Tells whether what carries these labels is it.
    pub(super) fn is(&self, found: &HashMap<String, String>) -> bool {
        self.labels.iter().all(|(key, value)| found.get(key) == Some(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_of_one_object_of_one_cluster_and_says_which() {
        let name = |cluster: &str, uid: &str, set: &str| {
            Owned::by(&Identity { cluster: cluster.into(), scale_set_uid: uid.into(), scale_set: set.into() })
                .name
        };
        let one = name("c", "u", "ci/linux");
        assert!(one.starts_with("paddock-ci.linux-"), "{one}");
        assert_ne!(one, name("c", "v", "ci/linux"), "made anew");
        assert_ne!(one, name("d", "u", "ci/linux"), "of another cluster");
        assert_eq!(one, name("c", "u", "ci/linux"));
        assert!(name("c", "u", &format!("ci/{}", "x".repeat(253))).len() < 255);
    }
}
