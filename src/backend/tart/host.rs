//! One host as all scale sets share it: its slots, what is known of it, and whom a change concerns.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Mutex as Turn, Notify, Semaphore};
use tokio::time::{Instant, sleep_until};

use super::slots::Slots;
use super::view::View;
use crate::backend::Requeuer;

/// One host.
#[derive(Debug)]
pub(super) struct Host {
    /// Held by whoever pulls or prunes images: one at a time, whoever wants them.
    pub(super) images: Turn<()>,
    /// Held by whoever makes a VM ahead of need.
    pub(super) filling: Arc<Semaphore>,
    /// Something is to happen at a time that may be earlier than was known.
    timer: Notify,
    requeuer: Requeuer,
    state: Mutex<State>,
}

/// Everything that is known of a host.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) slots: Slots,
    /// By the number of the way in which it is reached: mostly there is one.
    pub(super) views: BTreeMap<u64, View>,
    next: u64,
}

impl Host {
    pub(super) fn new(requeuer: Requeuer) -> Host {
        Host {
            images: Turn::new(()),
            filling: Arc::new(Semaphore::new(1)),
            timer: Notify::new(),
            requeuer,
            state: Mutex::default(),
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
            let before = state.slots.served(&state.views);
            let mut affected = change(&mut state);
            let State { slots, views, .. } = &mut *state;
            let turns = slots.begin_turns(views, Instant::now());
            let after = slots.served(views).into_iter().filter(|(user, _)| !before.contains_key(user));
            affected.extend(after.map(|(_, uid)| uid));
            (affected, turns)
        };
        self.timer.notify_one();
        affected.union(&turns).for_each(|uid| self.requeuer.requeue(uid));
    }

    /// Ends the turns of those who do not take the slot that is kept for them, and the time for which the host is taken to be
    /// full, for ever.
    pub(super) async fn keep_time(&self) -> Infallible {
        loop {
            let first = {
                let state = self.state();
                state.slots.queue.first_end().into_iter().chain(state.slots.full_until()).min()
            };
            match first {
                None => self.timer.notified().await,
                Some(at) => tokio::select! {
                    () = self.timer.notified() => {}
                    () = sleep_until(at) => self.update(|state| {
                        let now = Instant::now();
                        state.slots.queue.end_turns(now);
                        state.slots.try_again(now);
                        BTreeSet::new()
                    }),
                },
            }
        }
    }

    /// Says how many VMs all scale sets together may have here, and wakes those for whom a slot comes free by it.
    pub(super) fn limit(&self, ceiling: Option<u32>) {
        self.update(|state| {
            state.slots.ceiling = ceiling;
            BTreeSet::new()
        });
    }

    /// Wakes all scale sets that use the host.
    pub(super) fn requeue_all(&self) {
        self.update(|state| state.slots.users());
    }

    /// Adds a way of reaching the host. Answers its number.
    pub(super) fn add_view(&self, home: &str) -> u64 {
        let mut state = self.state();
        state.next += 1;
        let number = state.next;
        state.views.insert(number, View::new(home));
        number
    }

    /// Nobody reaches it in that way any more.
    pub(super) fn remove_view(&self, number: u64) {
        self.update(|state| {
            state.views.remove(&number);
            BTreeSet::new()
        });
    }
}

/// A place that is held until this is dropped.
#[derive(Debug)]
pub(super) struct HeldSlot {
    host: Arc<Host>,
    number: u64,
}

impl HeldSlot {
    pub(super) fn new(host: &Arc<Host>, number: u64) -> HeldSlot {
        HeldSlot { host: Arc::clone(host), number }
    }

    /// Its place on the host.
    pub(super) fn place(&self) -> u32 {
        self.host.state().slots.place(self.number)
    }

    /// The VM that it is for.
    pub(super) fn vm(&self) -> String {
        self.host.state().slots.vm(self.number)
    }

    /// Says which VM it is for from now on.
    pub(super) fn give_to(&self, vm: &str) {
        self.host.state().slots.give_to(self.number, vm);
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
