//! Why a command has no result.

use crate::cause;

/// Why a command has no result. Each means that nothing is known of what the host did.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// There is no connection, or it was lost.
    #[error("{0}")]
    Disconnected(String),
    /// Whoever answers has not the host key that is expected.
    #[error("{0}")]
    HostKey(String),
    /// The host takes neither the user nor the key.
    #[error("the host does not accept the key of user {user}")]
    LoginRefused {
        /// The user.
        user: String,
    },
    /// The host refuses to begin.
    #[error("the host refuses: {0}")]
    Refused(String),
    /// It was not done in time.
    #[error("{what} took longer than {seconds} s")]
    TimedOut {
        /// What.
        what: &'static str,
        /// Its time.
        seconds: u64,
    },
    /// Nothing was heard of it for too long.
    #[error("nothing was heard of {what} for {seconds} s")]
    Silent {
        /// What.
        what: &'static str,
        /// For how long.
        seconds: u64,
    },
}

impl From<russh::Error> for Failure {
    fn from(error: russh::Error) -> Failure {
        Failure::Disconnected(cause::innermost(&error))
    }
}
