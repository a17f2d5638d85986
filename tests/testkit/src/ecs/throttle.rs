//! Limits of the API: token buckets per account and region, as "Request throttling for the Amazon ECS API" lists them.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::operation::{Category, Operation};

/// Burst and refill per second of Fargate's own limit on RunTask: one bucket for on-demand, one for Spot.
const FARGATE: Limit = Limit { burst: 100, per_second: 20.0 };

/// What a bucket holds, and how quickly it fills.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limit {
    /// Requests that may come at once.
    pub burst: u32,
    /// Requests per second in the long run.
    pub per_second: f64,
}

impl Category {
    fn documented(self) -> Limit {
        let (burst, per_second) = match self {
            Self::ClusterModify | Self::DefinitionModify => (20, 1.0),
            Self::ClusterRead | Self::DefinitionRead | Self::ProviderRead | Self::TagRead => (50, 20.0),
            Self::DefinitionDelete => (5, 1.0),
            Self::TagModify => (20, 10.0),
            Self::ResourceModify => (100, 40.0),
            Self::ResourceRead => (100, 20.0),
        };
        Limit { burst, per_second }
    }
}

#[derive(Debug)]
struct Bucket {
    limit: Limit,
    tokens: f64,
    filled_at: Instant,
}

impl Bucket {
    fn full(limit: Limit, now: Instant) -> Self {
        Self { limit, tokens: f64::from(limit.burst), filled_at: now }
    }

    /// Takes one token, if there is one.
    fn take(&mut self, now: Instant) -> bool {
        let passed: Duration = now.saturating_duration_since(self.filled_at);
        self.filled_at = now;
        let filled = self.tokens + passed.as_secs_f64() * self.limit.per_second;
        self.tokens = filled.min(f64::from(self.limit.burst));
        let taken = self.tokens >= 1.0;
        if taken {
            self.tokens -= 1.0;
        }
        taken
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
enum Key {
    Api(Category),
    Fargate { spot: bool },
}

/// The buckets of the account.
#[derive(Debug)]
pub(super) struct Throttle {
    enabled: bool,
    set: BTreeMap<Key, Limit>,
    buckets: BTreeMap<Key, Bucket>,
}

impl Throttle {
    pub fn new(enabled: bool) -> Self {
        Self { enabled, set: BTreeMap::new(), buckets: BTreeMap::new() }
    }

    /// Sets the limit of an operation, and of those that share its bucket; the bucket is full.
    pub fn set(&mut self, operation: Operation, limit: Limit) {
        if let Some(category) = operation.category() {
            self.replace(Key::Api(category), limit);
        }
    }

    /// Sets Fargate's own limit on RunTask.
    pub fn set_fargate(&mut self, limit: Limit) {
        self.replace(Key::Fargate { spot: false }, limit);
        self.replace(Key::Fargate { spot: true }, limit);
    }

    fn replace(&mut self, key: Key, limit: Limit) {
        self.set.insert(key, limit);
        self.buckets.remove(&key);
    }

    /// Whether a request of this operation passes.
    pub fn admits(&mut self, operation: Operation, now: Instant) -> bool {
        operation.category().is_none_or(|category| self.take(Key::Api(category), category.documented(), now))
    }

    /// Whether Fargate takes one more RunTask.
    pub fn fargate_admits(&mut self, spot: bool, now: Instant) -> bool {
        self.take(Key::Fargate { spot }, FARGATE, now)
    }

    fn take(&mut self, key: Key, documented: Limit, now: Instant) -> bool {
        if !self.enabled {
            return true;
        }
        let limit = self.set.get(&key).copied().unwrap_or(documented);
        self.buckets.entry(key).or_insert_with(|| Bucket::full(limit, now)).take(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(throttle: &mut Throttle, operation: Operation, tries: usize, now: Instant) -> usize {
        (0..tries).filter(|_| throttle.admits(operation, now)).count()
    }

    #[test]
    fn a_burst_empties_the_bucket_that_run_and_stop_share_and_it_refills_at_the_documented_rate() {
        let (mut throttle, now) = (Throttle::new(true), Instant::now());
        assert_eq!(admitted(&mut throttle, Operation::RunTask, 60, now), 60);
        assert_eq!(admitted(&mut throttle, Operation::StopTask, 60, now), 40);
        assert_eq!(admitted(&mut throttle, Operation::ListTasks, 200, now), 100);
        let later = now + Duration::from_millis(500);
        assert_eq!(admitted(&mut throttle, Operation::RunTask, 60, later), 20);
        assert_eq!(admitted(&mut throttle, Operation::DescribeTasks, 60, later), 10);
        let much_later = now + Duration::from_secs(60);
        assert_eq!(
            admitted(&mut throttle, Operation::RunTask, 200, much_later),
            100,
            "never more than the burst"
        );
    }

    #[test]
    fn fargate_has_a_bucket_for_spot_and_one_for_on_demand() {
        let (mut throttle, now) = (Throttle::new(true), Instant::now());
        assert_eq!((0..150).filter(|_| throttle.fargate_admits(false, now)).count(), 100);
        assert!(throttle.fargate_admits(true, now));
        let later = now + Duration::from_secs(1);
        assert_eq!((0..150).filter(|_| throttle.fargate_admits(false, later)).count(), 20);
    }

    #[test]
    fn limits_can_be_set_and_switched_off() {
        let (mut throttle, now) = (Throttle::new(true), Instant::now());
        throttle.set(Operation::TagResource, Limit { burst: 1, per_second: 1.0 });
        assert_eq!(admitted(&mut throttle, Operation::TagResource, 5, now), 1);
        assert_eq!(admitted(&mut Throttle::new(false), Operation::RunTask, 500, now), 500);
    }
}
