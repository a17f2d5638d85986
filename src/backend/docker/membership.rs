//! A backend's use of an engine, and of its slots.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::time::Instant;

use super::engine::Engine;
use super::host::{HeldSlot, State};
use super::slots::User;
use super::view::View;

/// A backend's use of an engine, with what it states of the engine's slots, until this is dropped.
#[derive(Debug)]
pub(super) struct Membership {
    engine: Arc<Engine>,
    user: u64,
}

impl Membership {
    /// Counts a backend among the engine's users.
    pub(super) fn new(engine: &Arc<Engine>, user: User) -> Membership {
        let user = engine.host.state().slots.join(user);
        Membership { engine: Arc::clone(engine), user }
    }

    /// Takes a slot. None while there is none, or none that is not kept for another, or while the engine is not seen, as
    /// then nobody knows.
    pub(super) fn reserve(&self) -> Option<HeldSlot> {
        let mut held = None;
        // Slots may be kept for others from now on, or not any more.
        self.engine.host.update(|state| {
            let seen = self.engine.view_of(state).is_some_and(View::is_up);
            if seen && self.free(state) > 0 {
                held = Some(state.slots.reserve(self.user));
            }
            BTreeSet::new()
        });
        held.map(|number| HeldSlot::new(&self.engine.host, number))
    }

    /// Says for how many runners a slot is wanted and not there.
    pub(super) fn wait(&self, runners: u32) {
        let host = &self.engine.host;
        let (known, runners) = {
            let State { slots, views } = &*host.state();
            (slots.queue.runners_of(self.user), slots.to_wait_for(self.user, runners, views))
        };
        if known != runners {
            host.update(|state| {
                state.slots.queue.wait(self.user, runners, Instant::now());
                BTreeSet::new()
            });
        }
    }

    /// Slots that there are for this use of the engine.
    pub(super) fn all(&self, state: &State) -> u32 {
        state.slots.all_for(self.user)
    }

    /// Those of them that are free.
    pub(super) fn free(&self, state: &State) -> u32 {
        state.slots.free_for(self.user, &state.views)
    }

    /// Says which backends of the scale set share a host with this one.
    pub(super) fn set_siblings(&self, siblings: &[String]) {
        self.engine.host.state().slots.set_siblings(self.user, siblings);
    }

    /// Why no slot is free, in words.
    pub(super) fn full(&self, state: &State) -> String {
        let State { slots, views } = state;
        if slots.left_of_own(self.user, views) == 0 {
            let most = slots.own_maximum(self.user).unwrap_or_default();
            return format!("hosts[].maxRunners gives this backend {most} slots here, and all are taken");
        }
        if slots.free(views) > 0 {
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
        self.engine.host.update(|state| {
            state.slots.leave(self.user);
            BTreeSet::new()
        });
    }
}
