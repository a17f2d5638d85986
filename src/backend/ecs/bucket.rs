//! Token buckets: how many calls of a kind an account takes. AWS counts them per account and region, so all users of one
//! account share them here too.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::time::Plus;

/// What AWS documents of a kind of call.
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/request-throttling.html>
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    /// Calls at once, from a bucket that is full.
    pub(super) burst: u32,
    /// Calls per second in the long run.
    pub(super) per_second: u32,
}

/// This part of each burst is left to others in the account: the console, a deployment, a second controller.
const SHARE: f64 = 0.95;

/// A bucket of tokens. Whoever takes one that is not there yet waits in turn until it is.
#[derive(Debug)]
pub(super) struct Bucket {
    limit: Limit,
    level: Mutex<Level>,
}

#[derive(Debug)]
struct Level {
    /// Below zero: so many tokens are promised that have not come yet.
    tokens: f64,
    at: Instant,
}

impl Bucket {
    /// A full bucket. Must be called within a Tokio runtime where time is paused in tests.
    pub(super) fn new(limit: Limit) -> Bucket {
        let tokens = f64::from(limit.burst) * SHARE;
        Bucket { limit, level: Mutex::new(Level { tokens, at: Instant::now() }) }
    }

    /// Takes a token and waits until it is there.
    pub(super) async fn take(&self) {
        let ready_at = self.promise(Instant::now());
        tokio::time::sleep_until(ready_at).await;
    }

    /// Empties the bucket: the account said that it is. Whoever comes next waits for a second's worth of tokens.
    pub(super) fn drain(&self) {
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        level.tokens = level.tokens.min(-f64::from(self.limit.per_second));
    }

    /// Takes a token; returns when it is there.
    fn promise(&self, now: Instant) -> Instant {
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        let rate = f64::from(self.limit.per_second);
        let passed = now.saturating_duration_since(level.at).as_secs_f64();
        level.at = level.at.max(now);
        level.tokens = (level.tokens + passed * rate).min(f64::from(self.limit.burst) * SHARE) - 1.0;
        let lacking = (-level.tokens / rate).max(0.0);
        now.plus(Duration::try_from_secs_f64(lacking).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
        let bucket = Bucket::new(Limit { burst: 100, per_second: 20 });
        let begun = Instant::now();
        for _ in 0..95 {
            bucket.take().await;
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
        for _ in 0..105 {
            bucket.take().await;
        }
        let took = begun.elapsed().as_secs_f64();
        assert!((5.2..5.4).contains(&took), "{took}");
        tokio::time::sleep(Duration::from_secs(60)).await;
        let begun = Instant::now();
        for _ in 0..96 {
            bucket.take().await;
        }
        assert!(begun.elapsed() >= Duration::from_millis(50), "never more than a burst");
    }

    #[tokio::test(start_paused = true)]
    async fn an_account_that_is_out_of_tokens_is_left_alone_for_a_second() {
        let bucket = Bucket::new(Limit { burst: 100, per_second: 20 });
        bucket.drain();
        let begun = Instant::now();
        bucket.take().await;
        assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    }
}
