//! Time that cannot go wrong: what is added to a moment ends at the last moment there is, and what others say of the past
//! is not later than now. The plain `+` panics past the year 9999, and clippy refuses it here (`src/lib.rs`).

mod backoff;

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

pub(crate) use backoff::Backoff;

/// A moment that a length of time can be added to.
pub trait Plus {
    /// Returns the moment that is `pause` later, or the last moment there is.
    fn plus(self, pause: Duration) -> Self;
}

impl Plus for Timestamp {
    fn plus(self, pause: Duration) -> Timestamp {
        self.checked_add(pause).unwrap_or(Timestamp::MAX)
    }
}

/// Of [`Instant`] nobody knows the last: as far away as tokio's own timers go.
impl Plus for Instant {
    fn plus(self, pause: Duration) -> Instant {
        const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
        self.checked_add(pause).or_else(|| self.checked_add(FAR)).unwrap_or(self)
    }
}

/// Returns a moment that someone else told of, or now if it is later: clocks differ, and not everyone tells the truth.
pub fn past(told: Timestamp) -> Timestamp {
    told.min(Timestamp::now())
}

/// Returns the time between two moments; none where the second is the earlier one, as clocks differ.
pub fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_past_the_last_moment_is_the_last_moment() {
        let near_the_end: Timestamp = "9999-12-30T21:59:59Z".parse().unwrap();
        assert_eq!(near_the_end.plus(Duration::from_secs(60)), Timestamp::MAX);
        assert_eq!(Timestamp::MAX.plus(Duration::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::UNIX_EPOCH.plus(Duration::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::UNIX_EPOCH.plus(Duration::from_secs(1)).as_second(), 1);
        let now = Instant::now();
        assert_eq!(now.plus(Duration::from_secs(1)), now + Duration::from_secs(1));
        assert!(now.plus(Duration::MAX) > now + Duration::from_secs(365 * 24 * 3600));
    }

    #[test]
    fn what_is_told_of_the_future_is_now_and_of_the_past_as_it_is() {
        assert!(past(Timestamp::MAX) <= Timestamp::now());
        assert_eq!(past(Timestamp::MIN), Timestamp::MIN);
    }

    #[test]
    fn no_time_passes_backwards() {
        assert_eq!(elapsed(Timestamp::MAX, Timestamp::MIN), Duration::ZERO);
        assert!(elapsed(Timestamp::MIN, Timestamp::MAX) > Duration::from_secs(9998 * 365 * 24 * 3600));
    }
}
