//! The credentials that a runner starts with.

use std::fmt;

/// The JIT configuration of one runner: its credentials. Never printed.
#[derive(Clone)]
pub struct JitConfiguration(String);

impl JitConfiguration {
    /// Wraps the encoded configuration as GitHub gave it.
    pub fn new(encoded: String) -> Self {
        JitConfiguration(encoded)
    }

    /// The secret itself, for the instance that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for JitConfiguration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JitConfiguration(…)")
    }
}
