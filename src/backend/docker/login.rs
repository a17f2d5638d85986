//! How an engine is logged in to.

use super::tls::TlsLogin;
use crate::backend::remote::SshLogin;

/// How an engine is logged in to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Login {
    /// Not at all.
    None,
    /// By TLS, with certificates of both ends.
    Tls(TlsLogin),
    /// By SSH.
    Ssh(SshLogin),
    /// What the spec says cannot be used, and why: the host does not answer.
    Unusable(String),
    /// As its endpoint was last reached: for a host that a spec names no more, or whose Secret cannot be read.
    AsBefore,
}
