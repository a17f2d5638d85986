//! The slots of one host: who uses it, how many VMs it runs, the places held for VMs to come, and who waits for one. No IO.
//!
//! The operator says what all of them together may have there; unsaid, it is what Apple permits. What a spec states limits its
//! own backend alone: nobody takes a slot from another by a small number, or gives himself more by a large one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::view::View;
use crate::backend::{SlotQueue, speaks_for};
use crate::time::Plus;

/// How long a host that refused to run one more VM is taken to be full: a stranger's VM that is in no list takes the slot.
const FULL: Duration = Duration::from_secs(60);

/// How many VMs with macOS Apple's licence permits on a Mac, and macOS runs.
const APPLES_LIMIT: u32 = 2;

/// The users of a host and the places that they hold.
#[derive(Debug, Default)]
pub(super) struct Slots {
    users: HashMap<u64, User>,
    held: HashMap<u64, Held>,
    /// Which users wait for a slot.
    pub(super) queue: SlotQueue,
    full_until: Option<Instant>,
    /// How many VMs the operator lets it run; none where nothing is said of it.
    pub(super) ceiling: Option<u32>,
    next: u64,
}

/// A backend of a scale set.
#[derive(Debug)]
pub(super) struct User {
    pub(super) scale_set_uid: String,
    /// Its name in the scale set.
    pub(super) backend: String,
    /// The scale set's backends that share a host with it.
    pub(super) siblings: Vec<String>,
    /// How many of its VMs the host may run; none: no limit.
    pub(super) max_vms: Option<u32>,
}

impl User {
    fn owns(&self, scale_set_uid: &str, backend: &str) -> bool {
        self.scale_set_uid == scale_set_uid && speaks_for(&self.backend, &self.siblings, backend)
    }
}

/// A place that is held for a VM, whether or not it is there already.
#[derive(Debug, Clone)]
struct Held {
    home: String,
    vm: String,
    place: u32,
    scale_set_uid: String,
    backend: String,
}

impl Slots {
    /// A backend of a scale set uses the host from now on, until it leaves. Answers its number.
    pub(super) fn join(&mut self, user: User) -> u64 {
        let number = self.number();
        self.users.insert(number, user);
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

    /// Holds a place for a VM of a user, the first that no other has. Answers the number of the hold.
    pub(super) fn hold(&mut self, user: u64, home: &str, vm: &str, views: &BTreeMap<u64, View>) -> u64 {
        let known = views.values().flat_map(|view| view.index.vms());
        let kept: Vec<(&str, u32)> = known
            .filter_map(|vm| vm.record.as_ref().map(|record| (vm.name.as_str(), record.place)))
            .collect();
        let mut taken: BTreeSet<u32> = self.held.values().map(|held| held.place).collect();
        let own = kept.iter().find(|(name, _)| *name == vm).map(|(_, place)| *place);
        taken.extend(kept.iter().map(|(_, place)| *place));
        let place = own.or_else(|| (0..=u32::MAX).find(|place| !taken.contains(place))).unwrap_or_default();
        let number = self.number();
        let owner = self.users.get(&user).map(|user| (user.scale_set_uid.clone(), user.backend.clone()));
        let (scale_set_uid, backend) = owner.unwrap_or_default();
        let (home, vm) = (home.to_owned(), vm.to_owned());
        self.held.insert(number, Held { home, vm, place, scale_set_uid, backend });
        number
    }

    /// The place of a hold.
    pub(super) fn place(&self, number: u64) -> u32 {
        self.held.get(&number).map_or(0, |held| held.place)
    }

    /// The VM of a hold.
    pub(super) fn vm(&self, number: u64) -> String {
        self.held.get(&number).map(|held| held.vm.clone()).unwrap_or_default()
    }

    /// The VM that a hold is for, from now on.
    pub(super) fn give_to(&mut self, number: u64, vm: &str) {
        if let Some(held) = self.held.get_mut(&number) {
            vm.clone_into(&mut held.vm);
        }
    }

    /// Whether a place is held for a VM: something is done with it.
    pub(super) fn is_held(&self, home: &str, vm: &str) -> bool {
        self.held.values().any(|held| held.home == home && held.vm == vm)
    }

    /// The place is held no more.
    pub(super) fn release(&mut self, number: u64) {
        self.held.remove(&number);
    }

    /// A user took a slot.
    pub(super) fn took(&mut self, user: u64) {
        self.queue.took(user);
    }

    /// The host runs no more VMs for a while, whatever is known of it.
    pub(super) fn full(&mut self, now: Instant) {
        self.full_until = Some(now.plus(FULL));
    }

    /// Until when the host is taken to be full.
    pub(super) fn full_until(&self) -> Option<Instant> {
        self.full_until
    }

    /// The host may have a slot again.
    pub(super) fn try_again(&mut self, now: Instant) {
        self.full_until = self.full_until.filter(|until| *until > now);
    }

    /// How many VMs the host runs.
    pub(super) fn limit(&self) -> u32 {
        self.ceiling.unwrap_or(APPLES_LIMIT)
    }

    /// Places taken: VMs that run, whosever they are, and those held for VMs to come.
    pub(super) fn taken(&self, views: &BTreeMap<u64, View>) -> u32 {
        let running = views.values().flat_map(|view| view.index.running().map(|vm| (view.home.as_str(), vm)));
        let held = self.held.values().map(|held| (held.home.as_str(), held.vm.as_str()));
        let taken: BTreeSet<(&str, &str)> = running.chain(held).collect();
        u32::try_from(taken.len()).unwrap_or(u32::MAX)
    }

    /// Places free.
    pub(super) fn free(&self, views: &BTreeMap<u64, View>) -> u32 {
        match self.full_until {
            Some(_) => 0,
            None => self.limit().saturating_sub(self.taken(views)),
        }
    }

    /// Places that a user's own maximum leaves it: all of its VMs that run or are held count. `u32::MAX` where it states none.
    pub(super) fn left_of_own(&self, user: u64, views: &BTreeMap<u64, View>) -> u32 {
        let Some((user, max)) = self.users.get(&user).and_then(|user| Some((user, user.max_vms?))) else {
            return u32::MAX;
        };
        let vms = views.values().flat_map(|view| view.index.vms().map(|vm| (view.home.as_str(), vm)));
        let own = vms.filter_map(|(home, vm)| {
            let record = vm.record.as_ref().filter(|_| vm.running)?;
            user.owns(&record.scale_set_uid, &record.backend).then_some((home, vm.name.as_str()))
        });
        let held = self.held.values().filter(|held| user.owns(&held.scale_set_uid, &held.backend));
        let held = held.map(|held| (held.home.as_str(), held.vm.as_str()));
        let own: BTreeSet<(&str, &str)> = own.chain(held).collect();
        max.saturating_sub(u32::try_from(own.len()).unwrap_or(u32::MAX))
    }

    /// The number that a user states for itself.
    pub(super) fn own_maximum(&self, user: u64) -> Option<u32> {
        self.users.get(&user).and_then(|user| user.max_vms)
    }

    /// Places that there are for a user.
    pub(super) fn all_for(&self, user: u64) -> u32 {
        self.limit().min(self.own_maximum(user).unwrap_or(u32::MAX))
    }

    /// Places free for a user: within its own maximum, and not kept for others that wait longer.
    pub(super) fn free_for(&self, user: u64, views: &BTreeMap<u64, View>) -> u32 {
        self.free_of(user, self.free(views), views)
    }

    fn free_of(&self, user: u64, free: u32, views: &BTreeMap<u64, View>) -> u32 {
        match self.queue.free_for(user, free) {
            0 => 0,
            free => free.min(self.left_of_own(user, views)),
        }
    }

    /// For how many runners a user waits for others to leave, if it wants so many: no slot is kept for what its own maximum
    /// does not let it have.
    pub(super) fn to_wait_for(&self, user: u64, runners: u32, views: &BTreeMap<u64, View>) -> u32 {
        if runners == 0 { 0 } else { runners.min(self.left_of_own(user, views)) }
    }

    /// The users for whom a place is free, and their scale sets' UIDs.
    pub(super) fn served(&self, views: &BTreeMap<u64, View>) -> HashMap<u64, String> {
        let free = self.free(views);
        let served = self.users.iter().filter(|(number, _)| self.free_of(**number, free, views) > 0);
        served.map(|(number, user)| (*number, user.scale_set_uid.clone())).collect()
    }

    /// Begins the turns of those who wait, as far as places are free. Answers the UIDs of their scale sets.
    pub(super) fn begin_turns(&mut self, views: &BTreeMap<u64, View>, now: Instant) -> BTreeSet<String> {
        let begun = self.queue.begin_turns(self.free(views), now);
        let uid = |number| self.users.get(&number).map(|user| user.scale_set_uid.clone());
        begun.into_iter().filter_map(uid).collect()
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}
