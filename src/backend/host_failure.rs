//! What keeps a host from taking starts, beside its image: how the last ones went.

use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::Availability;
use super::image::RETRY;
use crate::api::Reason;
use crate::time::Plus;

/// What one backend's last starts on a host say of it.
#[derive(Debug, Default)]
pub(super) struct HostFailure(Mutex<Last>);

#[derive(Debug, Default)]
enum Last {
    #[default]
    Well,
    /// The last start failed for want of something.
    Lacking { until: Timestamp, failures: u32, reason: Reason, message: String },
    /// The host, at that connection, refused what it was asked for.
    Refused { connection: u64, message: String },
}

impl HostFailure {
    fn last(&self) -> MutexGuard<'_, Last> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A start went well.
    pub(super) fn clear(&self) {
        *self.last() = Last::Well;
    }

    /// The host refused a start, over the connection of that number: another may be to another host.
    pub(super) fn refused(&self, connection: u64, message: &str) {
        *self.last() = Last::Refused { connection, message: message.to_owned() };
    }

    /// A start failed for want of something. Starts that fail together are one failure.
    pub(super) fn lacks(&self, reason: Reason, message: &str) {
        let now = Timestamp::now();
        let mut last = self.last();
        let before = match &*last {
            Last::Lacking { until, .. } if *until > now => return,
            Last::Lacking { failures, .. } => *failures,
            Last::Well | Last::Refused { .. } => 0,
        };
        let failures = before + 1;
        let until = now.plus(RETRY.after(failures));
        *last = Last::Lacking { until, failures, reason, message: message.to_owned() };
    }

    /// What keeps the host from taking starts now, over the connection of that number, and why, in words.
    pub(super) fn state(&self, connection: u64) -> Option<(Availability, String)> {
        match &*self.last() {
            Last::Refused { connection: refused, message } if *refused == connection => {
                Some((Availability::Refused, message.clone()))
            }
            Last::Lacking { until, reason, message, .. } if *until > Timestamp::now() => {
                Some((Availability::BackOff { until: *until, reason: *reason }, message.clone()))
            }
            _ => None,
        }
    }
}
