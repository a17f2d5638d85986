//! The simulated world: its time, its chance, and all that is true in it. Controllers come and go; this stays.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use testkit::changes::Changes;
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::github::GitHub;
use crate::history::Setup;
use crate::hosts::Host;
use crate::life::Memory;
use crate::rules::{Violation, Watch};

/// The cluster whose instances are ours.
pub const CLUSTER: &str = "cluster-1";

/// The world, shared by all that lives in it.
pub struct Sim {
    state: Mutex<State>,
    began: Instant,
    /// Told when something changed at GitHub, in the cluster, on a host.
    pub github: Changes,
    pub cluster: Changes,
    pub hosts: Vec<Changes>,
}

/// What is true.
pub struct State {
    pub setup: Setup,
    pub rng: StdRng,
    pub now: Timestamp,
    pub github: GitHub,
    pub hosts: Vec<Host>,
    pub cluster: Cluster,
    /// What each controller that ever lived has in its memory or could have.
    pub lives: Vec<Memory>,
    pub violations: Vec<Violation>,
    /// What the rules remember between two looks.
    pub watch: Watch,
    /// What happened, for people; none unless someone looks.
    pub trace: Option<Vec<String>>,
    /// The fake hosts, in a world that has them.
    pub fake: Option<conformance::fake::Hosts>,
    next: u64,
}

impl Sim {
    pub fn new(setup: &Setup, seed: u64, traced: bool) -> Arc<Sim> {
        let hosts: Vec<Host> = setup.hosts.iter().enumerate().map(|(at, host)| Host::new(at, host)).collect();
        let now = base();
        Arc::new(Sim {
            began: Instant::now(),
            github: Changes::default(),
            cluster: Changes::default(),
            hosts: hosts.iter().map(|_| Changes::default()).collect(),
            state: Mutex::new(State {
                rng: StdRng::seed_from_u64(seed),
                now,
                github: GitHub::new(setup),
                hosts,
                cluster: Cluster::new(setup, now),
                lives: Vec::new(),
                violations: Vec::new(),
                watch: Watch::new(setup, now),
                trace: traced.then(Vec::new),
                fake: None,
                next: 0,
                setup: setup.clone(),
            }),
        })
    }

    /// How long the history has lasted.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// The time, there and then.
    pub fn now(&self) -> Timestamp {
        let elapsed =
            SignedDuration::try_from(self.began.elapsed()).expect("a history is shorter than for ever");
        base() + elapsed
    }

    /// What is true now. Never held over an await.
    pub fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.now = self.now();
        state
    }

    /// Waits for a time that chance chooses, in milliseconds.
    pub async fn pause(&self, from: u64, to: u64) {
        let millis = self.state().rng.random_range(from..=to);
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }
}

impl State {
    /// A number that was not used before.
    pub fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.rng.random_range(from..=to))
    }

    /// Notes what happened, if someone looks.
    pub fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let line = format!("{:>10.3} {}", self.now.duration_since(base()).as_secs_f64(), what());
            trace.push(line);
        }
    }

    /// A rule is broken.
    pub fn violate(&mut self, rule: u8, what: impl Into<String>) {
        let what = what.into();
        self.note(|| format!("RULE {rule} IS BROKEN: {what}"));
        let at = self.now.duration_since(base()).as_secs_f64();
        self.violations.push(Violation { rule, what, at });
    }
}

/// When every history begins.
pub fn base() -> Timestamp {
    Timestamp::from_second(1_767_225_600).expect("a time")
}

/// Whole seconds between two times, none if negative.
pub fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}
