//! The account's clock: the runtime's, and as much further as a test has set it.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

/// Tells the time of the simulation. It runs as the runtime's clock does, and can be set forward.
#[derive(Debug)]
pub(super) struct Clock {
    origin: Instant,
    wall: Timestamp,
    ahead: Duration,
}

impl Clock {
    pub fn new() -> Self {
        Self { origin: Instant::now(), wall: Timestamp::now(), ahead: Duration::ZERO }
    }

    /// The time of the simulation.
    pub fn now(&self) -> Instant {
        Instant::now() + self.ahead
    }

    /// Sets the clock forward.
    pub fn advance(&mut self, time: Duration) {
        self.ahead += time;
    }

    /// The moment of the runtime's clock at which the simulation's shows `at`.
    pub fn runtime_moment(&self, at: Instant) -> Instant {
        at.checked_sub(self.ahead).unwrap_or_else(Instant::now)
    }

    /// Seconds since 1970, as the JSON protocol writes times: with milliseconds.
    pub fn epoch_seconds(&self, at: Instant) -> f64 {
        let since = i128::try_from(at.saturating_duration_since(self.origin).as_millis()).unwrap_or(0);
        let millis = i128::from(self.wall.as_millisecond()) + since;
        // A date in milliseconds is far below 2^53.
        #[allow(clippy::cast_precision_loss)]
        let seconds = millis as f64 / 1000.0;
        seconds
    }
}
