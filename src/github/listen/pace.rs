//! How long the loop waits for what.

use std::time::Duration;

use crate::rng;

/// How patient the loop is.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    /// A back-off starts here and doubles up to the cap, plus up to half of itself by chance.
    pub first_wait: Duration,
    pub longest_wait: Duration,
    /// A conflict with a session that is probably our own clears fast, if it clears: a few tries come this soon.
    pub own_conflict: Duration,
    /// A foreign session is waited out; plus up to as much again by chance.
    pub conflict: Duration,
    /// Statistics that are older are asked for: a quiet poll brings none.
    pub stale_statistics: Duration,
    /// Jobs that are offered and were not heard of are looked for so often at most: where GitHub assigns by itself it
    /// counts some for as long as there is a queue, and lists none.
    pub offers: Duration,
    /// A session whose polls are dropped for changing capacity again and again is refreshed so often, to show that it
    /// lives.
    pub sign_of_life: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(30),
            own_conflict: Duration::from_secs(1),
            conflict: Duration::from_secs(15),
            stale_statistics: Duration::from_secs(3 * 60),
            offers: Duration::from_secs(30),
            sign_of_life: Duration::from_secs(2 * 60),
        }
    }
}

impl Pace {
    /// How long to wait after so many failures in a row.
    pub fn back_off(&self, failures: u32) -> Duration {
        let doubled = self.first_wait.saturating_mul(1 << failures.saturating_sub(1).min(16));
        jitter(doubled, 0.5).min(self.longest_wait)
    }
}

/// `wait` plus up to `share` of itself, by chance.
pub(super) fn jitter(wait: Duration, share: f64) -> Duration {
    wait.mul_f64(1.0 + share * rng::unit())
}
