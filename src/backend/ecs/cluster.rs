//! One ECS cluster as one credential reaches it: what runs there, whether it answers, and who uses it. Shared by all scale sets.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::account::Account;
use super::endpoint;
use super::index::Index;
use super::task::Task;
use crate::backend::Requeuer;

/// How often a cluster is looked at, and what is believed of what it does not show.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// The pause between two looks while a task is on its way up or down.
    pub moving: Duration,
    /// The pause otherwise.
    pub resting: Duration,
    /// A task that is not shown for so long is none.
    pub settles: Duration,
}

impl Default for Timing {
    /// What AWS's limits allow with room to spare. It advises to go on looking for five minutes.
    fn default() -> Timing {
        Timing {
            moving: Duration::from_secs(10),
            resting: Duration::from_secs(30),
            settles: Duration::from_secs(300),
        }
    }
}

/// Whether a cluster can be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Link {
    /// It answered the last time.
    Up,
    /// It does not answer, or has not been asked yet.
    Down(String),
    /// It refuses to be looked at until something is changed.
    Refused(String),
}

/// A cluster.
pub(super) struct Cluster {
    /// By name or ARN, as a spec names it.
    pub(super) name: String,
    /// The account that it is in.
    pub(super) account: Arc<Account>,
    /// What our tasks say of who started them: one listing serves every scale set.
    pub(super) started_by: String,
    pub(super) timing: Timing,
    state: Mutex<State>,
    requeuer: Requeuer,
    quickened: Notify,
    changed: watch::Sender<()>,
}

/// What is known of a cluster.
pub(super) struct State {
    pub(super) index: Index,
    pub(super) link: Link,
    /// When it was last looked at as a whole.
    pub(super) listed_at: Option<Timestamp>,
    /// Since when it is looked at.
    looked_at_since: Option<Instant>,
    /// Whether the absence of a task means something: it has been looked for long enough.
    pub(super) settled: bool,
    users: HashMap<u64, String>,
    next: u64,
}

impl Cluster {
    pub(super) fn new(
        name: &str,
        account: Arc<Account>,
        owner: &str,
        requeuer: Requeuer,
        timing: Timing,
    ) -> Cluster {
        let state = State {
            index: Index::new(timing.settles),
            link: Link::Down("it has not been looked at yet".to_owned()),
            listed_at: None,
            looked_at_since: None,
            settled: false,
            users: HashMap::new(),
            next: 0,
        };
        Cluster {
            name: name.to_owned(),
            account,
            started_by: started_by(owner),
            timing,
            state: Mutex::new(state),
            requeuer,
            quickened: Notify::new(),
            changed: watch::Sender::new(()),
        }
    }

    /// Its short name.
    pub(super) fn short_name(&self) -> &str {
        endpoint::short_name(&self.name)
    }

    /// What is known of it. Held for moments only, and over no await.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is known, and wakes the scale sets whose UIDs `change` answers.
    pub(super) fn update(&self, change: impl FnOnce(&mut State) -> BTreeSet<String>) {
        let affected = change(&mut self.state());
        self.changed.send_replace(());
        affected.iter().for_each(|uid| self.requeuer.requeue(uid));
    }

    /// Tells of changes from now on.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Something begins to move: the next look comes sooner.
    pub(super) fn quicken(&self) {
        self.quickened.notify_one();
    }

    /// Waits until something begins to move.
    pub(super) async fn quickened(&self) {
        self.quickened.notified().await;
    }

    /// Takes over what a look showed.
    pub(super) fn swept(&self, swept: Swept, asked_at: Timestamp) {
        self.update(|state| {
            let mut affected = state.index.swept(swept.described, &swept.shown, asked_at);
            let was_up = std::mem::replace(&mut state.link, Link::Up) == Link::Up;
            state.listed_at = Some(Timestamp::now());
            let since = *state.looked_at_since.get_or_insert_with(Instant::now);
            let settled = since.elapsed() >= self.timing.settles;
            if !was_up || settled != std::mem::replace(&mut state.settled, settled) {
                affected.extend(state.users());
            }
            affected
        });
    }

    /// Notes that it could not be looked at. Answers whether that is news.
    pub(super) fn lost(&self, link: Link) -> bool {
        let mut news = false;
        self.update(|state| {
            news = state.link != link;
            state.link = link;
            if news { state.users() } else { BTreeSet::new() }
        });
        news
    }

    /// A backend of a scale set uses it until the membership is dropped.
    pub(super) fn join(self: &Arc<Self>, scale_set_uid: &str) -> Membership {
        let mut state = self.state();
        state.next += 1;
        let number = state.next;
        state.users.insert(number, scale_set_uid.to_owned());
        Membership { cluster: Arc::clone(self), number }
    }
}

/// What a look at a cluster showed.
pub(super) struct Swept {
    /// The tasks that were described.
    pub(super) described: Vec<Task>,
    /// The ids of all that were listed or described.
    pub(super) shown: HashSet<String>,
}

impl State {
    /// How old a task may be that is not shown although it is there. Whoever has not looked for `settles` yet knows nothing of
    /// what ECS leaves out, whatever its age.
    pub(super) fn hides(&self, settles: Duration) -> Duration {
        if self.settled { settles } else { Duration::MAX }
    }

    /// The UIDs of the scale sets that use it.
    pub(super) fn users(&self) -> BTreeSet<String> {
        self.users.values().cloned().collect()
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("name", &self.name)
            .field("account", &self.account)
            .finish_non_exhaustive()
    }
}

/// A backend's use of a cluster, until this is dropped.
#[derive(Debug)]
pub(super) struct Membership {
    cluster: Arc<Cluster>,
    number: u64,
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.cluster.state().users.remove(&self.number);
    }
}

/// What tasks of a Kubernetes cluster say of who started them: at most 128 letters, digits, hyphens and underscores. An id that
/// has others is told apart by its hash.
fn started_by(owner: &str) -> String {
    const LONGEST: usize = 100;
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if owner.len() <= LONGEST && owner.chars().all(fits) {
        return format!("paddock-{owner}");
    }
    let readable: String = owner.chars().filter(|c| fits(*c)).take(LONGEST / 2).collect();
    let digest = Sha256::digest(owner.as_bytes());
    let hash: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("paddock-{readable}-{hash}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_started_a_task_is_told_in_the_characters_that_ecs_takes() {
        assert_eq!(started_by("4d1c-uid_1"), "paddock-4d1c-uid_1");
        let (odd, other) = (started_by("my cluster: é"), started_by("my cluster: è"));
        assert_ne!(odd, other);
        for told in [odd, started_by(&"x".repeat(1000))] {
            assert!(
                told.len() <= 128 && told.bytes().all(|c| c.is_ascii_alphanumeric() || b"-/_".contains(&c)),
                "{told}"
            );
        }
    }
}
