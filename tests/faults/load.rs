//! What keeps a scale set busy while parts fail, and chance that can be repeated.

use std::time::Duration;

use harness::Manifest;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use testkit::github::{JobId, JobSpec, SimGithub};

/// Never more runners than this in these tests.
pub const MAX_RUNNERS: usize = 4;

/// Whether the tests are to take their long forms.
pub fn soaking() -> bool {
    std::env::var_os("PADDOCK_SOAK").is_some()
}

/// The figure of a short run, or of a long one.
pub fn short_or_long<T>(short: T, long: T) -> T {
    if soaking() { long } else { short }
}

/// A scale set that gives up soon what does not start, and keeps nothing that is not needed.
pub fn manifest(github_url: &str) -> Manifest {
    Manifest::sample(github_url).spec(json!({
        "maxRunners": MAX_RUNNERS, "timeouts": {"start": "5s"}, "scaleDown": {"delay": "1s"},
    }))
}

/// Chance, from a seed that is printed.
pub struct Chance(StdRng);

impl Chance {
    /// From the seed in `PADDOCK_SEED`, or from one of its own.
    pub fn of(test: &str) -> Chance {
        let given = std::env::var("PADDOCK_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| rand::rng().random());
        println!("{test}: PADDOCK_SEED={seed}");
        Chance(StdRng::seed_from_u64(seed))
    }

    /// So long, at least and at most, in milliseconds.
    pub fn time(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.0.random_range(from..=to))
    }

    /// Queues so many short jobs.
    pub fn queue_jobs(&mut self, github: &SimGithub, count: usize) -> Vec<JobId> {
        let mut queue =
            |_| github.queue_job(JobSpec::new("acme/app", ["linux"]).lasting(self.time(300, 1000)));
        (0..count).map(&mut queue).collect()
    }
}
