//! The slots of one engine: who uses it, how many runners it takes, the places held for runners to come, and who waits
//! for one. No IO.
//!
//! The operator says what all of them together may have there. What a spec states limits its own backend alone: nobody takes
//! a slot from another by a small number.

use std::collections::{BTreeSet, HashMap};

use tokio::time::Instant;

use super::view::Views;
use crate::backend::{SlotQueue, speaks_for};

/// The users of an engine and the places that they hold.
#[derive(Debug, Default)]
pub(super) struct Slots {
    users: HashMap<u64, User>,
    reservations: HashMap<u64, Held>,
    /// How many runners the engine takes; none: no limit.
    pub(super) ceiling: Option<u32>,
    /// Which users wait for a slot.
    pub(super) queue: SlotQueue,
    next: u64,
}

/// A backend of a scale set.
#[derive(Debug, Clone)]
pub(super) struct User {
    pub(super) scale_set_uid: String,
    /// Its name in the scale set.
    pub(super) backend: String,
    /// The scale set's backends that share a host with it.
    pub(super) siblings: Vec<String>,
    /// How many runners of it the engine may have; none: no limit.
    pub(super) max_runners: Option<u32>,
}

/// A place that is held.
#[derive(Debug)]
struct Held {
    scale_set_uid: String,
    backend: String,
    /// Whose it is, once there is one.
    runner: Option<String>,
}

impl User {
    fn owns(&self, scale_set_uid: &str, backend: &str) -> bool {
        self.scale_set_uid == scale_set_uid && speaks_for(&self.backend, &self.siblings, backend)
    }
}

impl Held {
    /// Whether its runner is not seen yet: one that is counts by itself.
    fn is_unseen(&self, views: &Views) -> bool {
        self.runner.as_deref().is_none_or(|name| !views.has_runner(name))
    }
}

impl Slots {
    /// A backend of a scale set uses the engine from now on, until it leaves. Returns its number.
    pub(super) fn join(&mut self, user: User) -> u64 {
        let number = self.number();
        self.users.insert(number, user);
        number
    }

    /// Says which backends share a host with a user.
    pub(super) fn set_siblings(&mut self, number: u64, siblings: &[String]) {
        if let Some(user) = self.users.get_mut(&number) {
            siblings.clone_into(&mut user.siblings);
        }
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
        let owner = self.users.get(&user).map(|user| (user.scale_set_uid.clone(), user.backend.clone()));
        let (scale_set_uid, backend) = owner.unwrap_or_default();
        self.reservations.insert(number, Held { scale_set_uid, backend, runner: None });
        number
    }

    /// The place is for that runner: it counts once, held or seen.
    pub(super) fn bind(&mut self, number: u64, runner: &str) {
        if let Some(held) = self.reservations.get_mut(&number) {
            held.runner = Some(runner.to_owned());
        }
    }

    /// Whether a place is held for that runner: its start is under way.
    pub(super) fn is_held_for(&self, runner: &str) -> bool {
        self.reservations.values().any(|held| held.runner.as_deref() == Some(runner))
    }

    /// Whether a start is under way.
    pub(super) fn any_held(&self) -> bool {
        !self.reservations.is_empty()
    }

    /// The place is held no more.
    pub(super) fn release(&mut self, number: u64) {
        self.reservations.remove(&number);
    }

    /// Places taken: containers that have not ended, of whatever cluster, and those held for runners not seen yet.
    pub(super) fn taken(&self, views: &Views) -> u32 {
        let held = self.reservations.values().filter(|held| held.is_unseen(views)).count();
        u32::try_from(views.live() + held).unwrap_or(u32::MAX)
    }

    /// Places free; `u32::MAX` where there is no limit.
    pub(super) fn free(&self, views: &Views) -> u32 {
        self.ceiling.map_or(u32::MAX, |ceiling| ceiling.saturating_sub(self.taken(views)))
    }

    /// Places that a user's own maximum leaves it; `u32::MAX` where it states none. Costs what the scale set has.
    pub(super) fn left_of_own(&self, user: u64, views: &Views) -> u32 {
        let Some((user, max)) = self.users.get(&user).and_then(|user| Some((user, user.max_runners?))) else {
            return u32::MAX;
        };
        let uid = &user.scale_set_uid;
        let own = views.live_of_set(uid, |backend| user.owns(uid, backend));
        let held = self.reservations.values();
        let held = held.filter(|h| user.owns(&h.scale_set_uid, &h.backend) && h.is_unseen(views));
        max.saturating_sub(u32::try_from(own + held.count()).unwrap_or(u32::MAX))
    }

    /// The number that a user states for itself.
    pub(super) fn own_maximum(&self, user: u64) -> Option<u32> {
        self.users.get(&user).and_then(|user| user.max_runners)
    }

    /// Places that there are for a user; `u32::MAX` where there is no limit.
    pub(super) fn all_for(&self, user: u64) -> u32 {
        self.ceiling.into_iter().chain(self.own_maximum(user)).min().unwrap_or(u32::MAX)
    }

    /// Places free for a user: within its own maximum, and not kept for others that wait longer.
    pub(super) fn free_for(&self, user: u64, views: &Views) -> u32 {
        self.free_of(user, self.free(views), views)
    }

    fn free_of(&self, user: u64, free: u32, views: &Views) -> u32 {
        match self.queue.free_for(user, free) {
            0 => 0,
            free => free.min(self.left_of_own(user, views)),
        }
    }

    /// For how many runners a user waits for others to leave, if it wants so many: no slot is kept for what its own maximum
    /// does not let it have.
    pub(super) fn to_wait_for(&self, user: u64, runners: u32, views: &Views) -> u32 {
        if runners == 0 { 0 } else { runners.min(self.left_of_own(user, views)) }
    }

    /// The users for whom a place is free, and their scale sets' UIDs.
    pub(super) fn served(&self, views: &Views) -> HashMap<u64, String> {
        let free = self.free(views);
        let served = self.users.iter().filter(|(number, _)| self.free_of(**number, free, views) > 0);
        served.map(|(number, user)| (*number, user.scale_set_uid.clone())).collect()
    }

    /// Begins the turns of those who wait, as far as places are free. Returns the UIDs of their scale sets.
    pub(super) fn begin_turns(&mut self, views: &Views, now: Instant) -> BTreeSet<String> {
        let begun = self.queue.begin_turns(self.free(views), now);
        let uid = |number| self.users.get(&number).map(|user| user.scale_set_uid.clone());
        begun.into_iter().filter_map(uid).collect()
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}
