//! What the loop is told, and what it tells.

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::watch;

use crate::github::Message;
use crate::runner::Statistics;

/// Who hears what is heard: the ledger and the controller behind it.
#[async_trait]
pub trait MessageHandler: Send + Sync {
    /// Writes the session's id down, before its first poll, so that whoever comes next can clear it. Polling goes on
    /// without it after a few seconds.
    async fn session_opened(&self, session: &SessionRecord);

    /// The session was closed by us: nothing is left behind.
    async fn session_closed(&self);

    /// Current statistics: of a new session before its first poll, and of a refreshed one.
    fn statistics(&self, statistics: Statistics);

    /// A message for the ledger, before it is acknowledged. May come more than once.
    fn message(&self, message: &Message);

    /// How listening goes.
    fn state(&self, state: ListenState);

    /// How many jobs the set can have in hand, live. Every poll tells GitHub.
    fn capacity(&self) -> watch::Receiver<u32>;
}

/// Which set to listen to, and as whom.
#[derive(Debug, Clone)]
pub struct ListenTarget {
    /// The scale set's id.
    pub scale_set_id: i64,
    /// Who GitHub says owns the session. Keep it the same over restarts.
    pub owner: String,
    /// A session that an earlier controller wrote down: it is deleted first.
    pub left_behind: Option<String>,
}

/// An open session, as it is written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// The session's id.
    pub id: String,
    /// Its owner.
    pub owner: String,
    /// When it was opened.
    pub since: Timestamp,
}

/// How listening goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenState {
    /// A session is open: newly, or a refresh has just shown it. A sign of life, as `PollCompleted` is.
    Polling {
        /// Since when.
        since: Timestamp,
    },
    /// A poll came back, with or without a message.
    PollCompleted {
        /// When.
        at: Timestamp,
    },
    /// Another session is open; it is waited out.
    Conflict {
        /// Whose it is, where GitHub says so.
        owner: Option<String>,
        /// When it was first met.
        since: Timestamp,
    },
    /// GitHub wants to be left alone.
    RateLimited {
        /// Until when.
        until: Timestamp,
    },
    /// It does not work, and may in a moment.
    Unreachable {
        /// What happened last.
        message: String,
        /// When it began.
        since: Timestamp,
    },
    /// GitHub refused the credential, or a right that it lacks. After a few tries the loop ends.
    Refused {
        /// What GitHub said.
        message: String,
    },
}

/// Why the loop ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenEnd {
    /// It was told to.
    Cancelled,
    /// The scale set does not exist, on a second look either: register it again.
    ScaleSetGone,
    /// The credential is not accepted.
    AuthRejected(String),
    /// The credential lacks a right.
    Forbidden(String),
}
