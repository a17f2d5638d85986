//! What a VM carries: its name, and a record in a file beside it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::rng;
use crate::runner::Identity;

/// Length of the random part of a VM's name.
const SUFFIX_LENGTH: usize = 8;

/// Whose a VM is and what it was made from: a line of JSON beside it on its host, written before the VM is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    pub(super) cluster: String,
    pub(super) scale_set_uid: String,
    /// `namespace/name`, for people.
    pub(super) scale_set: String,
    /// The backend's name in the scale set.
    pub(super) backend: String,
    pub(super) template_hash: String,
    /// The image's digest, where it is looked at before every start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) digest: Option<String>,
    /// Its place on the host, which its MAC follows from.
    pub(super) place: u32,
    pub(super) created_at: Timestamp,
}

impl Record {
    /// The line of JSON.
    pub(super) fn line(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// What the line of a VM of this cluster and scale set contains, and no other.
    pub(super) fn marks(cluster: &str, scale_set_uid: &str) -> [String; 2] {
        let mark = |key: &str, value: &str| format!("\"{key}\":{}", serde_json::Value::from(value));
        [mark("cluster", cluster), mark("scaleSetUid", scale_set_uid)]
    }
}

/// A fresh name for a VM: `paddock-<8 of its cluster and scale set>-<8 of a-z0-9>`. Short, as it is a part of a socket's path.
pub(super) fn vm_name(owner: &Identity) -> String {
    const ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let digest = Sha256::digest(format!("{}\0{}", owner.cluster, owner.scale_set_uid));
    let of: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let suffix = (0..SUFFIX_LENGTH).map(|_| char::from(ALPHABET[rng::below(ALPHABET.len())]));
    format!("paddock-{of}-{}", suffix.collect::<String>())
}

/// Whether a text can be the name of a VM of ours: an instance's id may come from a status, which anyone may have written.
pub(super) fn is_vm_name(text: &str) -> bool {
    text.strip_prefix("paddock-").is_some_and(|rest| {
        rest.len() <= 64 && rest.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
    })
}

/// The MAC of a place on a host. It is always the same, so that a VM gets the address that the one before it had: the host's
/// DHCP server has 253 of them and leases each for a day.
pub(super) fn mac_address(cluster: &str, endpoint: &str, place: u32) -> String {
    let digest = Sha256::digest(format!("{cluster}\0{endpoint}\0{place}"));
    let mut bytes: Vec<u8> = digest.iter().copied().take(6).collect();
    if let Some(first) = bytes.first_mut() {
        // Of one card, and given by its administrator.
        *first = (*first & 0xfc) | 0x02;
    }
    let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    hex.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(uid: &str) -> Identity {
        Identity { cluster: "c".to_owned(), scale_set_uid: uid.to_owned(), scale_set: "ci/macs".to_owned() }
    }

    #[test]
    fn names_tell_scale_sets_apart_and_are_never_twice_the_same() {
        let (a, b, other) = (vm_name(&owner("a")), vm_name(&owner("a")), vm_name(&owner("b")));
        assert_ne!(a, b);
        assert_eq!(a[..16], b[..16]);
        assert_ne!(a[..16], other[..16]);
        assert!([&a, &b, &other].into_iter().all(|name| is_vm_name(name) && name.len() == 25));
        for text in ["", "vm", "paddock-../x", "paddock-a b", "paddock-$(id)", "paddock-A"] {
            assert!(!is_vm_name(text), "{text}");
        }
    }

    #[test]
    fn a_place_has_one_mac_for_ever() {
        let mac = mac_address("cluster", "ssh://ci@mac-1", 0);
        assert_eq!(mac, "76:41:5e:f7:0f:b7");
        assert_ne!(mac, mac_address("cluster", "ssh://ci@mac-1", 1));
        assert_ne!(mac, mac_address("cluster", "ssh://ci@mac-2", 0));
    }

    #[test]
    fn a_line_is_marked_by_its_own_scale_set_alone() {
        let line = |uid: &str, backend: &str| {
            Record {
                cluster: "c".to_owned(),
                scale_set_uid: uid.to_owned(),
                scale_set: "ci/macs".to_owned(),
                backend: backend.to_owned(),
                template_hash: "h".to_owned(),
                digest: None,
                place: 0,
                created_at: Timestamp::UNIX_EPOCH,
            }
            .line()
        };
        let marked = |line: &str| Record::marks("c", "a").iter().all(|mark| line.contains(mark));
        assert!(marked(&line("a", "x")));
        assert!(!marked(&line("b", "\"scaleSetUid\":\"a\"")));
        let read: Record = serde_json::from_str(&line("a", "x")).unwrap();
        assert_eq!(read.line(), line("a", "x"));
    }
}
