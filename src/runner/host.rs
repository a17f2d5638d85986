//! Hosts, as far as a decision needs to know them.

use jiff::Timestamp;

use crate::api::Reason;

/// A host, as a plan sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostState {
    /// Its name in the backend.
    pub name: String,
    /// Whether a runner can be started there.
    pub availability: Availability,
    /// Slots that this scale set may have there; `u32::MAX` where nothing limits them.
    pub slots: u32,
    /// How many of them are free for it; `u32::MAX` where nothing limits them.
    pub free_slots: u32,
    /// How many of these have an instance that is ready and waits for a runner.
    pub warm: u32,
    /// How many starts failed there in a row.
    pub failures: u32,
    /// Why it takes none, or what it is about, in words; empty when all is well.
    pub message: String,
}

/// Whether a host can take a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Availability {
    /// Yes.
    Ready,
    /// After it is prepared.
    Unprepared,
    /// It is being prepared: an image is pulled.
    Preparing {
        /// Since when.
        since: Timestamp,
    },
    /// The last preparation or start failed for want of something; it may be tried again at that time.
    BackOff {
        /// When.
        until: Timestamp,
        /// A condition reason, CamelCase.
        reason: Reason,
    },
    /// It refuses, and will until the spec (or the host) is changed.
    Refused,
    /// It does not answer; it is tried again in the background.
    Unreachable,
}
