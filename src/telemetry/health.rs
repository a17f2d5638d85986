//! Whether the controller is alive and ready.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::lock;

/// A listen loop that has not turned for this long is stuck: a poll ends by its own deadline within 2 minutes.
const STUCK_AFTER: Duration = Duration::from_secs(300);

/// The state behind `/healthz` and `/readyz`. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<State>);

#[derive(Debug, Default)]
struct State {
    ready: AtomicBool,
    /// What keeps it from its work although it was ready before.
    obstacle: Mutex<Option<&'static str>>,
    /// By UID of the scale set.
    loops: Mutex<BTreeMap<String, Pulse>>,
}

#[derive(Debug)]
struct Pulse {
    set: String,
    at: Instant,
}

/// A listen loop that is stuck.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stalled {
    /// The scale set, as it was registered.
    pub set: String,
    /// How long ago its loop turned.
    pub silent_for: Duration,
}

impl Health {
    /// Alive, with no loop to watch, and not ready.
    pub fn new() -> Health {
        Health::default()
    }

    /// Says that the watch caches are filled, once and for all.
    pub fn ready(&self) {
        self.0.ready.store(true, Ordering::Relaxed);
    }

    /// Says what keeps the controller from its work, whatever its caches hold; none: nothing does. Returns what was said before.
    pub fn set_obstacle(&self, obstacle: Option<&'static str>) -> Option<&'static str> {
        std::mem::replace(&mut *lock(&self.0.obstacle), obstacle)
    }

    /// Returns why the controller is not ready, in words; none: it is.
    pub fn not_ready(&self) -> Option<&'static str> {
        let unfilled = !self.0.ready.load(Ordering::Relaxed);
        let obstacle = *lock(&self.0.obstacle);
        obstacle.or(unfilled.then_some("the watch caches are not filled yet"))
    }

    /// Watches the listen loop of a scale set from now on; `set` is `namespace/name`, for people.
    pub fn register(&self, uid: &str, set: &str) {
        self.register_at(uid, set, Instant::now());
    }

    /// Says that a listen loop turned: a poll came back, well or not, or it waits on purpose and is awake.
    /// The beat of a loop that is not registered, or no longer, means nothing.
    pub fn beat(&self, uid: &str) {
        self.beat_at(uid, Instant::now());
    }

    /// Watches the listen loop no more.
    pub fn forget(&self, uid: &str) {
        lock(&self.0.loops).remove(uid);
    }

    /// The registered loops that have not turned for more than 5 minutes. None: the controller is alive.
    pub fn stalled(&self) -> Vec<Stalled> {
        self.stalled_at(Instant::now())
    }

    pub(super) fn register_at(&self, uid: &str, set: &str, at: Instant) {
        let set = set.to_owned();
        lock(&self.0.loops).insert(uid.to_owned(), Pulse { set, at });
    }

    fn beat_at(&self, uid: &str, now: Instant) {
        if let Some(pulse) = lock(&self.0.loops).get_mut(uid) {
            pulse.at = now;
        }
    }

    fn stalled_at(&self, now: Instant) -> Vec<Stalled> {
        let loops = lock(&self.0.loops);
        let silent = loops.values().map(|pulse| Stalled {
            set: pulse.set.clone(),
            silent_for: now.saturating_duration_since(pulse.at),
        });
        silent.filter(|s| s.silent_for > STUCK_AFTER).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_is_stuck_after_five_minutes_of_silence() {
        let health = Health::new();
        let start = Instant::now();
        health.register_at("uid-1", "ci/linux", start);
        health.register_at("uid-2", "ci/mac", start);
        assert_eq!(health.stalled_at(start + STUCK_AFTER), []);

        health.beat_at("uid-2", start + Duration::from_secs(200));
        let stuck = Stalled { set: "ci/linux".to_owned(), silent_for: Duration::from_secs(301) };
        assert_eq!(health.stalled_at(start + Duration::from_secs(301)), [stuck]);

        health.beat_at("uid-1", start + Duration::from_secs(301));
        assert_eq!(health.stalled_at(start + Duration::from_secs(301)), []);
    }

    #[test]
    fn a_late_beat_does_not_bring_a_forgotten_loop_back() {
        let health = Health::new();
        let start = Instant::now();
        health.register_at("uid", "ci/linux", start);
        health.forget("uid");
        health.beat_at("uid", start);
        assert_eq!(health.stalled_at(start + Duration::from_secs(3600)), []);
    }

    #[test]
    fn ready_once_said_so_and_while_nothing_is_in_the_way() {
        let health = Health::new();
        assert_eq!(health.not_ready(), Some("the watch caches are not filled yet"));
        health.clone().ready();
        assert_eq!(health.not_ready(), None);
        health.set_obstacle(Some("the definition is gone"));
        assert_eq!(health.not_ready(), Some("the definition is gone"));
        health.set_obstacle(None);
        assert_eq!(health.not_ready(), None);
    }
}
