//! Names, and the identity that every instance carries on its backend.

use crate::rng;

/// Whose an instance is. Written on every instance; what does not carry `cluster` is never touched.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The cluster's id: the UID of the `kube-system` namespace, unless the operator chose another.
    pub cluster: String,
    /// The UID of the `RunnerScaleSet`.
    pub scale_set_uid: String,
    /// `namespace/name` of the `RunnerScaleSet`, for people.
    pub scale_set: String,
}

impl Identity {
    /// Key of the cluster's id.
    pub const CLUSTER: &str = "paddock.dev/cluster";
    /// Key of the scale set's UID.
    pub const SCALE_SET_UID: &str = "paddock.dev/scale-set-uid";
    /// Key of the scale set's `namespace/name`.
    pub const SCALE_SET: &str = "paddock.dev/scale-set";
    /// Key of the runner's name.
    pub const RUNNER: &str = "paddock.dev/runner";
    /// Key of the hash of the template that the instance was made from.
    pub const TEMPLATE_HASH: &str = "paddock.dev/template-hash";
    /// Key of the backend's name in the scale set: two backends may share a host.
    pub const BACKEND: &str = "paddock.dev/backend";
    /// Of a helper of housekeeping, and it alone: the cluster's id. Without the others it is no runner to anyone.
    pub const HELPER: &str = "paddock.dev/helper";
    /// Key of what it is of a runner that is of several parts: [`Identity::RUNNER_PART`] or [`Identity::ENGINE_PART`].
    pub const PART: &str = "paddock.dev/part";
    /// The runner itself, beside which there is a private engine.
    pub const RUNNER_PART: &str = "runner";
    /// Its private engine, or what is that one's: a network, a volume. No runner.
    pub const ENGINE_PART: &str = "docker";
}

/// Length of the random part of a runner's name.
const SUFFIX_LENGTH: usize = 8;

/// A fresh runner name: `<scaleSetName>-<8 of a-z0-9>`.
pub fn runner_name(scale_set_name: &str) -> String {
    const ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let suffix: String =
        (0..SUFFIX_LENGTH).map(|_| char::from(ALPHABET[rng::below(ALPHABET.len())])).collect();
    format!("{scale_set_name}-{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_the_scale_set_and_differ() {
        let (a, b) = (runner_name("linux"), runner_name("linux"));
        assert_ne!(a, b);
        let suffix = a.strip_prefix("linux-").unwrap();
        assert!(suffix.len() == 8 && suffix.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()));
    }
}
