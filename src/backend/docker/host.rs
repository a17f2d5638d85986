//! One Docker host as all scale sets share it: what is known of its engine, its slots, and whom a change concerns.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep_until};

use super::slots::Slots;
use super::view::{Client, Link, Views};
use crate::backend::Requeuer;

/// Containers created and started at once, by all scale sets together: an engine works on few at a time, and more of
/// them only wait inside it.
const PARALLEL_STARTS: usize = 8;

/// One Docker host, with whatever credentials its engine is reached.
#[derive(Debug)]
pub(super) struct Host {
    /// Bounds the starts.
    pub(super) starts: Semaphore,
    /// Slots are kept for someone from now on.
    turn_began: Notify,
    requeuer: Requeuer,
    state: Mutex<State>,
    /// The turn to make a network: one at a time.
    pub(super) networks: Turn,
    /// Whose turn it is to pull each image that is being pulled.
    pulls: Mutex<HashMap<String, Weak<Turn>>>,
}

/// The turn to do something of which one at a time is done.
pub(super) type Turn = tokio::sync::Mutex<()>;

/// Everything that is known of a host.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) slots: Slots,
    pub(super) views: Views,
}

impl Host {
    pub(super) fn new(requeuer: Requeuer) -> Host {
        Host {
            starts: Semaphore::new(PARALLEL_STARTS),
            turn_began: Notify::new(),
            requeuer,
            state: Mutex::default(),
            networks: Turn::default(),
            pulls: Mutex::default(),
        }
    }

    /// What is known. Held for moments only, never over an await.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The turn to pull an image here, whoever wants it with whatever credentials: those who come after a pull look first
    /// whether they still need one.
    pub(super) fn pull_turn(&self, image: &str) -> Arc<Turn> {
        let mut pulls = self.pulls.lock().unwrap_or_else(PoisonError::into_inner);
        pulls.retain(|_, turn| turn.strong_count() > 0);
        let known = pulls.get(image).and_then(Weak::upgrade);
        let turn = known.unwrap_or_default();
        pulls.insert(image.to_owned(), Arc::downgrade(&turn));
        turn
    }

    /// Changes what is known, and wakes whom it concerns: the scale sets that `change` returns, and those for which a slot
    /// came free where there was none.
    pub(super) fn update(&self, change: impl FnOnce(&mut State) -> BTreeSet<String>) {
        let (affected, turns) = {
            let mut state = self.state();
            let before = state.slots.served(&state.views);
            let mut affected = change(&mut state);
            let State { slots, views } = &mut *state;
            let turns = slots.begin_turns(views, Instant::now());
            let after = slots.served(views).into_iter().filter(|(user, _)| !before.contains_key(user));
            affected.extend(after.map(|(_, uid)| uid));
            (affected, turns)
        };
        if !turns.is_empty() {
            self.turn_began.notify_one();
        }
        affected.union(&turns).for_each(|uid| self.requeuer.requeue(uid));
    }

    /// Ends the turns of those who do not take the slot that is kept for them, for ever.
    pub(super) async fn end_turns(&self) -> Infallible {
        loop {
            let first = self.state().slots.queue.first_end();
            match first {
                None => self.turn_began.notified().await,
                Some(at) => {
                    sleep_until(at).await;
                    self.update(|state| {
                        state.slots.queue.end_turns(Instant::now());
                        BTreeSet::new()
                    });
                }
            }
        }
    }

    /// Wakes all scale sets that use the host.
    pub(super) fn requeue_all(&self) {
        self.update(|state| state.slots.users());
    }

    /// Returns a client, by whichever way the engine answers.
    pub(super) fn client(&self) -> Option<Client> {
        let state = self.state();
        state.views.believed().find_map(|view| match &view.link {
            Link::Up(client) => Some(client.clone()),
            Link::Down { .. } => None,
        })
    }

    /// Says how many runners all scale sets together may have here, and wakes those for whom a slot comes free by it.
    pub(super) fn limit(&self, ceiling: Option<u32>) {
        self.update(|state| {
            state.slots.ceiling = ceiling;
            BTreeSet::new()
        });
    }
}

/// A slot that is held until this is dropped, or until its runner is seen.
#[derive(Debug)]
pub(super) struct HeldSlot {
    host: Arc<Host>,
    number: u64,
}

impl HeldSlot {
    pub(super) fn new(host: &Arc<Host>, number: u64) -> HeldSlot {
        HeldSlot { host: Arc::clone(host), number }
    }

    /// Says for which runner it is.
    pub(super) fn bind(&self, runner: &str) {
        self.host.state().slots.bind(self.number, runner);
    }
}

impl Drop for HeldSlot {
    fn drop(&mut self) {
        self.host.update(|state| {
            state.slots.release(self.number);
            BTreeSet::new()
        });
    }
}
