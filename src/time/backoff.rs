//! How long to wait before something that failed is tried again.

use std::time::Duration;

use crate::rng;

/// From `first`, doubled by each failure up to `last`; up to a fifth of it is taken off at random, so that what
/// failed together is not tried again together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    /// The longest wait after the first failure.
    pub(crate) first: Duration,
    /// The longest wait of all.
    pub(crate) last: Duration,
}

impl Backoff {
    /// How long to wait after that many failures in a row.
    pub(crate) fn after(self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let full = self.first.saturating_mul(1 << doublings).min(self.last);
        full.mul_f64(1.0 - 0.2 * rng::unit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_the_last() {
        let backoff = Backoff { first: Duration::from_secs(5), last: Duration::from_secs(300) };
        for (failures, longest) in [(0, 5), (1, 5), (2, 10), (3, 20), (6, 160), (7, 300), (u32::MAX, 300)] {
            let longest = Duration::from_secs(longest);
            let wait = backoff.after(failures);
            assert!(wait <= longest && wait >= longest.mul_f64(0.79), "{failures}: {wait:?}");
        }
    }
}
