//! The slots of one engine: who uses it, how many runners it takes, the places held for runners to come, and who waits
//! for one. No IO.

use std::collections::{BTreeSet, HashMap};

use tokio::time::Instant;

use super::index::Index;
use crate::backend::SlotQueue;

/// The users of an engine and the places that they hold.
#[derive(Debug, Default)]
pub(super) struct Slots {
    users: HashMap<u64, User>,
    /// By number; with the name of the runner, once there is one.
    reservations: HashMap<u64, Option<String>>,
    /// Which users wait for a slot.
    pub(super) queue: SlotQueue,
    next: u64,
}

#[derive(Debug)]
struct User {
    scale_set_uid: String,
    max_runners: Option<u32>,
}

impl Slots {
    /// A backend of a scale set uses the engine from now on. What it states of the host's slots counts until it
    /// leaves. Returns its number.
    pub(super) fn join(&mut self, scale_set_uid: &str, max_runners: Option<u32>) -> u64 {
        let number = self.number();
        self.users.insert(number, User { scale_set_uid: scale_set_uid.to_owned(), max_runners });
        number
    }

    /// It uses it no more.
    pub(super) fn leave(&mut self, number: u64) {
        self.users.remove(&number);
        self.queue.leave(number);
    }

    /// The UIDs of the scale sets that use it.
    pub(super) fn users(&self) -> BTreeSet<String> {
        self.users.values().map(|user| user.scale_set_uid.clone()).collect()
    }

    /// Holds a place for a user. Returns its number.
    pub(super) fn reserve(&mut self, user: u64) -> u64 {
        self.queue.took(user);
        let number = self.number();
        self.reservations.insert(number, None);
        number
    }

    /// The place is for that runner: it counts once, held or seen.
    pub(super) fn bind(&mut self, number: u64, runner: &str) {
        self.reservations.insert(number, Some(runner.to_owned()));
    }

    /// Whether a place is held for that runner: its start is under way.
    pub(super) fn is_held_for(&self, runner: &str) -> bool {
        self.reservations.values().any(|held| held.as_deref() == Some(runner))
    }

    /// The place is held no more.
    pub(super) fn release(&mut self, number: u64) {
        self.reservations.remove(&number);
    }

    /// How many runners the engine takes: the smallest number that any user states. None: no limit.
    pub(super) fn limit(&self) -> Option<u32> {
        self.users.values().filter_map(|user| user.max_runners).min()
    }

    /// Places taken: containers that have not ended, of whatever cluster, and those held for runners not seen yet.
    pub(super) fn taken(&self, index: &Index) -> u32 {
        let unseen = |runner: &&Option<String>| runner.as_deref().is_none_or(|name| !index.has_runner(name));
        let held = self.reservations.values().filter(unseen).count();
        u32::try_from(index.live() + held).unwrap_or(u32::MAX)
    }

    /// Places free; `u32::MAX` where there is no limit.
    pub(super) fn free(&self, index: &Index) -> u32 {
        self.limit().map_or(u32::MAX, |limit| limit.saturating_sub(self.taken(index)))
    }

    /// Places free for a user: not kept for others that wait longer.
    pub(super) fn free_for(&self, user: u64, index: &Index) -> u32 {
        self.queue.free_for(user, self.free(index))
    }

    /// The users for whom a place is free, and their scale sets' UIDs.
    pub(super) fn served(&self, index: &Index) -> HashMap<u64, String> {
        let free = self.free(index);
        let served = self.users.iter().filter(|(number, _)| self.queue.free_for(**number, free) > 0);
        served.map(|(number, user)| (*number, user.scale_set_uid.clone())).collect()
    }

    /// Begins the turns of those who wait, as far as places are free. Returns the UIDs of their scale sets.
    pub(super) fn begin_turns(&mut self, index: &Index, now: Instant) -> BTreeSet<String> {
        let begun = self.queue.begin_turns(self.free(index), now);
        let uid = |number| self.users.get(&number).map(|user| user.scale_set_uid.clone());
        begun.into_iter().filter_map(uid).collect()
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}
