//! One Docker engine as all scale sets share it: what is known of it, its slots, and whom a change concerns.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bollard::Docker;
use jiff::Timestamp;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep_until};

use super::endpoint::Endpoint;
use super::index::Index;
use super::slots::{Slots, User};
use crate::backend::{Error, Requeuer};

/// Containers created and started at once, by all scale sets together: an engine works on few at a time, and more of
/// them only wait inside it.
const PARALLEL_STARTS: usize = 8;

/// One Docker engine.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) endpoint: Endpoint,
    /// Whose containers are ours.
    pub(super) cluster: String,
    /// Bounds the starts.
    pub(super) starts: Semaphore,
    /// Asks for a listing now.
    pub(super) suspicion: Notify,
    /// Slots are kept for someone from now on.
    turn_began: Notify,
    requeuer: Requeuer,
    state: Mutex<State>,
}

/// Everything that is known of an engine.
#[derive(Debug)]
pub(super) struct State {
    pub(super) index: Index,
    pub(super) slots: Slots,
    pub(super) link: Link,
    /// When it last answered a whole listing.
    pub(super) listed_at: Option<Timestamp>,
    /// Connections so far: what an engine refused is tried again when it comes back, maybe changed.
    pub(super) connections: u64,
}

/// The connection to an engine.
#[derive(Debug, Clone)]
pub(super) enum Link {
    /// Its events flow and it was listed.
    Up(Client),
    /// Why not.
    Down(String),
}

/// What is needed to talk to an engine.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) docker: Docker,
    /// Whether it can put an init process into containers, which reaps what jobs leave behind and passes signals on.
    pub(super) init: bool,
}

impl Engine {
    pub(super) fn new(endpoint: Endpoint, cluster: String, requeuer: Requeuer) -> Self {
        Engine {
            endpoint,
            cluster,
            starts: Semaphore::new(PARALLEL_STARTS),
            suspicion: Notify::new(),
            turn_began: Notify::new(),
            requeuer,
            state: Mutex::new(State {
                index: Index::default(),
                slots: Slots::default(),
                link: Link::Down("not connected yet".to_owned()),
                listed_at: None,
                connections: 0,
            }),
        }
    }

    /// What is known. Held for moments only, never over an await.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is known, and wakes whom it concerns: the scale sets that `change` returns, and those for which a slot
    /// came free where there was none.
    pub(super) fn update(&self, change: impl FnOnce(&mut State) -> BTreeSet<String>) {
        let (affected, turns) = {
            let mut state = self.state();
            let before = state.slots.served(&state.index);
            let mut affected = change(&mut state);
            let State { index, slots, .. } = &mut *state;
            let turns = slots.begin_turns(index, Instant::now());
            let after = slots.served(index).into_iter().filter(|(user, _)| !before.contains_key(user));
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

    /// Wakes all scale sets that use the engine.
    pub(super) fn requeue_all(&self) {
        self.update(|state| state.slots.users());
    }

    /// Something did not answer: looks at once whether the engine still does.
    pub(super) fn suspect(&self) {
        self.suspicion.notify_one();
    }

    /// The client, while the engine answers.
    pub(super) fn client(&self) -> Result<Client, Error> {
        match &self.state().link {
            Link::Up(client) => Ok(client.clone()),
            Link::Down(why) => Err(Error::Unreachable(why.clone())),
        }
    }

    /// Says how many runners all scale sets together may have here, and wakes those for whom a slot comes free by it.
    pub(super) fn limit(&self, ceiling: Option<u32>) {
        self.update(|state| {
            state.slots.ceiling = ceiling;
            BTreeSet::new()
        });
    }

    /// Counts a backend among the engine's users.
    pub(super) fn join(self: &Arc<Self>, user: User) -> Membership {
        let number = self.state().slots.join(user);
        Membership { engine: Arc::clone(self), number }
    }
}

/// A slot that is held until this is dropped, or until its runner is seen.
#[derive(Debug)]
pub(super) struct HeldSlot {
    engine: Arc<Engine>,
    number: u64,
}

impl HeldSlot {
    /// Says for which runner it is.
    pub(super) fn bind(&self, runner: &str) {
        self.engine.state().slots.bind(self.number, runner);
    }
}

impl Drop for HeldSlot {
    fn drop(&mut self) {
        self.engine.update(|state| {
            state.slots.release(self.number);
            BTreeSet::new()
        });
    }
}

/// A backend's use of an engine, with what it states of the engine's slots, until this is dropped.
#[derive(Debug)]
pub(super) struct Membership {
    engine: Arc<Engine>,
    number: u64,
}

impl Membership {
    /// Takes a slot. None while there is none, or none that is not kept for another, or while the engine is not seen, as
    /// then nobody knows.
    pub(super) fn reserve(&self) -> Option<HeldSlot> {
        let mut held = None;
        // Slots may be kept for others from now on, or not any more.
        self.engine.update(|state| {
            let seen = matches!(state.link, Link::Up(_));
            if seen && self.free(state) > 0 {
                held = Some(state.slots.reserve(self.number));
            }
            BTreeSet::new()
        });
        held.map(|number| HeldSlot { engine: Arc::clone(&self.engine), number })
    }

    /// Says for how many runners a slot is wanted and not there.
    pub(super) fn wait(&self, runners: u32) {
        let (known, runners) = {
            let State { slots, index, .. } = &*self.engine.state();
            (slots.queue.runners_of(self.number), slots.to_wait_for(self.number, runners, index))
        };
        if known != runners {
            self.engine.update(|state| {
                state.slots.queue.wait(self.number, runners, Instant::now());
                BTreeSet::new()
            });
        }
    }

    /// Slots that are free for this use of the engine.
    pub(super) fn free(&self, state: &State) -> u32 {
        state.slots.free_for(self.number, &state.index)
    }

    /// Says which backends of the scale set share a host with this one.
    pub(super) fn set_siblings(&self, siblings: &[String]) {
        self.engine.state().slots.set_siblings(self.number, siblings);
    }

    /// Why no slot is free, in words.
    pub(super) fn full(&self, state: &State) -> String {
        let State { slots, index, .. } = state;
        if slots.left_of_own(self.number, index) == 0 {
            let most = slots.own_maximum(self.number).unwrap_or_default();
            return format!("hosts[].maxRunners gives this backend {most} slots here, and all are taken");
        }
        if slots.free(index) > 0 {
            return "the free slots are kept for scale sets that wait longer".to_owned();
        }
        let (ceiling, users) = (slots.ceiling.unwrap_or_default(), slots.users().len());
        match users {
            1 => format!("all {ceiling} slots are taken"),
            _ => format!("all {ceiling} slots, shared by {users} scale sets, are taken"),
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.engine.update(|state| {
            state.slots.leave(self.number);
            BTreeSet::new()
        });
    }
}
