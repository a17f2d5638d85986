//! How long something has gone on, where nobody may be sure of the wall clock: it can be set.

use std::time::Duration;

use jiff::Timestamp;

use crate::time::{Plus, elapsed};

/// What began before this process is watched for at least this long before its time is up.
const LEAST: Duration = Duration::from_secs(120);

/// How long this process has watched something go on, by a clock that only runs forward.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Watched {
    /// How long it had gone on when it was first seen, as the wall clock said then; none if its beginning was seen.
    before: Duration,
    /// How long it was watched since; `None` before the first look.
    seen: Option<Duration>,
}

impl Watched {
    /// Begins to watch what had begun at `since` by the wall clock, when nobody was there to see.
    pub fn begun_before(since: Timestamp, now: Timestamp) -> Watched {
        Watched { before: elapsed(since, now), seen: None }
    }

    /// Adds the time that has passed since the last look at anything. What is new since then does not get it.
    pub fn pass(&mut self, passed: Duration) {
        self.seen = Some(self.seen.map_or(Duration::ZERO, |seen| seen.saturating_add(passed)));
    }

    /// Returns when it will have gone on for `limit`: both by the wall clock, `since` its beginning, and as it was watched.
    pub fn due(&self, since: Timestamp, limit: Duration, now: Timestamp) -> Timestamp {
        let due = since.plus(limit);
        let wanted = limit.saturating_sub(self.before).max(LEAST.min(limit));
        let left = wanted.saturating_sub(self.seen.unwrap_or_default());
        if due > now || left.is_zero() { due } else { now.plus(left) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: i64 = 24 * 3600;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn what_began_under_our_eyes_is_due_when_both_clocks_say_so() {
        let mut watched = Watched::default();
        assert_eq!(watched.due(at(0), HOUR, at(0)), at(3600));
        watched.pass(HOUR); // since a look before it began
        watched.pass(HOUR / 2);
        assert_eq!(watched.due(at(0), HOUR, at(1800)), at(3600));
        assert_eq!(watched.due(at(0), HOUR, at(DAY)), at(DAY + 1800), "the wall clock was set");
        watched.pass(HOUR / 2);
        assert_eq!(watched.due(at(0), HOUR, at(3600)), at(3600));
        assert_eq!(watched.due(at(DAY), HOUR, at(DAY)), at(DAY + 3600), "the wall clock was set back");
    }

    #[test]
    fn what_began_before_a_restart_is_watched_for_two_minutes_at_least() {
        let mut watched = Watched::begun_before(at(0), at(7200));
        assert_eq!(watched.due(at(0), HOUR, at(7200)), at(7320));
        watched.pass(HOUR);
        watched.pass(LEAST);
        assert_eq!(watched.due(at(0), HOUR, at(7320)), at(3600));
    }

    #[test]
    fn what_began_before_a_restart_keeps_the_time_that_it_had_left() {
        let mut watched = Watched::begun_before(at(0), at(1800));
        watched.pass(HOUR);
        watched.pass(HOUR / 4);
        assert_eq!(watched.due(at(0), HOUR, at(DAY)), at(DAY + 900), "the wall clock was set");
        watched.pass(HOUR / 4);
        assert_eq!(watched.due(at(0), HOUR, at(3600)), at(3600));
    }

    #[test]
    fn a_limit_of_nothing_is_over_at_once() {
        assert_eq!(Watched::default().due(at(5), Duration::ZERO, at(6)), at(5));
        assert_eq!(Watched::begun_before(at(0), at(6)).due(at(0), Duration::ZERO, at(6)), at(0));
    }
}
