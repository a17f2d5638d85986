//! The slots of one host: who uses it, how many VMs it runs, the places held for VMs to come, and who waits for one. No IO.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::view::View;
use crate::backend::SlotQueue;
use crate::time::Plus;

/// How long a host that refused to run one more VM is taken to be full: a stranger's VM that is in no list takes the slot.
const FULL: Duration = Duration::from_secs(60);

/// The users of a host and the places that they hold.
#[derive(Debug, Default)]
pub(super) struct Slots {
    users: HashMap<u64, User>,
    held: HashMap<u64, Held>,
    /// Which users wait for a slot.
    pub(super) queue: SlotQueue,
    full_until: Option<Instant>,
    next: u64,
}

#[derive(Debug)]
struct User {
    scale_set_uid: String,
    max_vms: Option<u32>,
}

/// A place that is held for a VM, whether or not it is there already.
#[derive(Debug, Clone)]
struct Held {
    home: String,
    vm: String,
    place: u32,
}

impl Slots {
    /// A backend of a scale set uses the host from now on, with what it states of the host's slots. Answers its number.
    pub(super) fn join(&mut self, scale_set_uid: &str, max_vms: Option<u32>) -> u64 {
        let number = self.number();
        self.users.insert(number, User { scale_set_uid: scale_set_uid.to_owned(), max_vms });
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

    /// Holds a place for a VM, the first that no other has. Answers the number of the hold.
    pub(super) fn hold(&mut self, home: &str, vm: &str, views: &BTreeMap<u64, View>) -> u64 {
        let known = views.values().flat_map(|view| view.index.vms());
        let kept: Vec<(&str, u32)> = known
            .filter_map(|vm| vm.record.as_ref().map(|record| (vm.name.as_str(), record.place)))
            .collect();
        let mut taken: BTreeSet<u32> = self.held.values().map(|held| held.place).collect();
        let own = kept.iter().find(|(name, _)| *name == vm).map(|(_, place)| *place);
        taken.extend(kept.iter().map(|(_, place)| *place));
        let place = own.or_else(|| (0..=u32::MAX).find(|place| !taken.contains(place))).unwrap_or_default();
        let number = self.number();
        self.held.insert(number, Held { home: home.to_owned(), vm: vm.to_owned(), place });
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

    /// How many VMs the host runs: the smallest number that any user states.
    pub(super) fn limit(&self) -> u32 {
        self.users.values().filter_map(|user| user.max_vms).min().unwrap_or(0)
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

    /// Places free for a user: not kept for others that wait longer.
    pub(super) fn free_for(&self, user: u64, views: &BTreeMap<u64, View>) -> u32 {
        self.queue.free_for(user, self.free(views))
    }

    /// The users for whom a place is free, and their scale sets' UIDs.
    pub(super) fn served(&self, views: &BTreeMap<u64, View>) -> HashMap<u64, String> {
        let free = self.free(views);
        let served = self.users.iter().filter(|(number, _)| self.queue.free_for(**number, free) > 0);
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
