//! A host as one controller sees it, and the slots that it counts there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jiff::Timestamp;
use paddock::backend::{Requeuer, SlotQueue};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use super::hosts::{Fault, Hosts, Made};

/// A host is looked at this often, whatever changes: only two looks without it show that what a status remembers is gone.
const RELIST: Duration = Duration::from_secs(30);
/// How long a look takes where [`Fault::ListedLate`] is planted.
const LATE: Duration = Duration::from_millis(50);

/// A host that is followed for as long as a backend uses it.
pub(super) struct Followed {
    pub(super) host: Arc<SeenHost>,
    _task: AbortOnDropHandle<()>,
}

/// A host as one controller sees it.
pub(super) struct SeenHost {
    pub(super) endpoint: String,
    pub(super) cluster: String,
    pub(super) hosts: Hosts,
    requeuer: Requeuer,
    turn_began: Notify,
    view: Mutex<View>,
}

/// What is known of a host.
#[derive(Default)]
pub(super) struct View {
    pub(super) current: bool,
    pub(super) listed_at: Option<Timestamp>,
    /// By id.
    pub(super) instances: BTreeMap<String, Made>,
    users: BTreeMap<u64, User>,
    /// The slots held, by number; with the scale set's UID, and the name of the runner once there is one.
    held: BTreeMap<u64, (String, Option<String>)>,
    /// How many runners all scale sets together may have.
    ceiling: Option<u32>,
    shared_maximum: bool,
    pub(super) queue: SlotQueue,
    next: u64,
    foreign_takes_none: bool,
}

struct User {
    scale_set_uid: String,
    max_runners: Option<u32>,
}

impl Followed {
    pub(super) fn new(endpoint: &str, cluster: &str, hosts: &Hosts, requeuer: &Requeuer) -> Followed {
        let host = Arc::new(SeenHost {
            endpoint: endpoint.to_owned(),
            cluster: cluster.to_owned(),
            hosts: hosts.clone(),
            requeuer: requeuer.clone(),
            turn_began: Notify::new(),
            view: Mutex::default(),
        });
        let task = AbortOnDropHandle::new(tokio::spawn(follow(host.clone())));
        Followed { host, _task: task }
    }
}

/// Looks at each change and now and then, and ends the turns of those who do not take the slot that is kept for them.
async fn follow(host: Arc<SeenHost>) {
    let mut changed = host.hosts.follow();
    let mut relist = Instant::now() + RELIST;
    loop {
        if host.hosts.has_fault(Fault::ListedLate) && host.view().current {
            sleep(LATE).await;
        }
        host.look();
        let first_end = host.view().queue.first_end();
        tokio::select! {
            biased;
            () = changed.changed() => {}
            () = host.turn_began.notified() => {}
            () = sleep_until(relist), if first_end.is_none_or(|end| relist < end) => {
                host.look();
                host.update(|view| view.user_uids());
                relist = Instant::now() + RELIST;
            }
            () = sleep_until(first_end.unwrap_or_else(Instant::now)), if first_end.is_some() => {
                host.update(|view| {
                    view.queue.end_turns(Instant::now());
                    BTreeSet::new()
                });
            }
        }
    }
}

impl SeenHost {
    /// Returns what is known. Held for moments only.
    pub(super) fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().expect("no test panics with it")
    }

    /// Takes what the host has now for known.
    pub(super) fn look(&self) {
        let silent_is_empty = self.hosts.has_fault(Fault::SilentIsEmpty);
        let silent_is_current = self.hosts.has_fault(Fault::SilentIsCurrent);
        let ended_vanishes = self.hosts.has_fault(Fault::EndedVanishes);
        let foreign_takes_none = self.hosts.has_fault(Fault::ForeignTakesNoSlot);
        self.update(|view| {
            view.foreign_takes_none = foreign_takes_none;
            let Some(mut there) = self.hosts.list(&self.endpoint) else {
                if silent_is_empty {
                    view.instances.clear();
                }
                let was_current = view.current;
                view.current &= silent_is_current;
                return if was_current { view.user_uids() } else { BTreeSet::new() };
            };
            there.retain(|_, made| !(ended_vanishes && made.instance.state.ended()));
            let differ = |id: &&String| there.get(*id) != view.instances.get(*id);
            let changed = there.keys().chain(view.instances.keys()).filter(differ);
            let owner = |id: &String| {
                let made = there.get(id).or_else(|| view.instances.get(id))?;
                Some(made.instance.scale_set_uid.clone())
            };
            let mut affected: BTreeSet<String> = changed.filter_map(owner).collect();
            if !view.current {
                affected.extend(view.user_uids());
            }
            view.instances = there;
            view.current = true;
            view.listed_at = Some(self.hosts.world().now());
            affected
        });
    }

    /// Changes what is known, and requeues whom it concerns: the scale sets that `change` returns, those for which a slot came
    /// free where there was none, and those whose turn begins.
    fn update(&self, change: impl FnOnce(&mut View) -> BTreeSet<String>) {
        let mut view = self.view();
        let served_before = view.served();
        let mut affected = change(&mut view);
        let free = view.free();
        let turns = view.queue.begin_turns(free, Instant::now());
        if !turns.is_empty() {
            self.turn_began.notify_one();
        }
        let served = view.served().into_iter().filter(|user| !served_before.contains(user));
        let users = served.chain(turns).filter_map(|user| view.users.get(&user));
        affected.extend(users.map(|user| user.scale_set_uid.clone()));
        drop(view);
        if !self.hosts.has_fault(Fault::NoRequeue) {
            affected.iter().for_each(|uid| self.requeuer.requeue(uid));
        }
    }

    /// Says how many runners all scale sets together may have.
    pub(super) fn limit(&self, ceiling: Option<u32>) {
        let shared_maximum = self.hosts.has_fault(Fault::SharedMaximum);
        let no_ceiling = self.hosts.has_fault(Fault::NoCeiling);
        self.update(|view| {
            view.ceiling = ceiling.filter(|_| !no_ceiling);
            view.shared_maximum = shared_maximum;
            BTreeSet::new()
        });
    }

    /// Counts a backend among the users of the host.
    pub(super) fn join(self: &Arc<Self>, scale_set_uid: &str, max_runners: Option<u32>) -> Membership {
        let mut view = self.view();
        view.next += 1;
        let number = view.next;
        view.users.insert(number, User { scale_set_uid: scale_set_uid.to_owned(), max_runners });
        Membership { host: self.clone(), number }
    }
}

impl View {
    fn user_uids(&self) -> BTreeSet<String> {
        self.users.values().map(|user| user.scale_set_uid.clone()).collect()
    }

    /// Tells whether a backend of a scale set uses the host.
    pub(super) fn has_user(&self, scale_set_uid: &str) -> bool {
        self.users.values().any(|user| user.scale_set_uid == scale_set_uid)
    }

    /// Returns what the operator says, which no scale set's own maximum changes.
    fn limit(&self) -> Option<u32> {
        let stated = self.users.values().filter_map(|user| user.max_runners);
        self.ceiling.into_iter().chain(stated.filter(|_| self.shared_maximum)).min()
    }

    /// Returns what its own maximum leaves a user.
    fn left_of_own(&self, user: u64) -> u32 {
        let Some(User { scale_set_uid, max_runners: Some(max) }) = self.users.get(&user) else {
            return u32::MAX;
        };
        let live = self.instances.values().map(|made| &made.instance);
        let live = live.filter(|i| !i.state.ended() && i.scale_set_uid == *scale_set_uid).count();
        let held = self.held.values().filter(|(uid, runner)| uid == scale_set_uid && !self.is_seen(runner));
        max.saturating_sub(u32::try_from(live + held.count()).expect("few"))
    }

    fn is_seen(&self, runner: &Option<String>) -> bool {
        runner.as_ref().is_some_and(|name| self.instances.values().any(|m| m.instance.runner == *name))
    }

    /// Counts what has not ended, of whatever cluster, and the slots held for what is not seen yet.
    pub(super) fn taken(&self) -> u32 {
        let counts = |made: &&Made| !(self.foreign_takes_none && made.cluster == "another");
        let live = self.instances.values().filter(|made| !made.instance.state.ended()).filter(counts).count();
        let held = self.held.values().filter(|(_, runner)| !self.is_seen(runner)).count();
        u32::try_from(live + held).expect("few")
    }

    /// Returns how many slots are free, where there is a limit.
    pub(super) fn free_of_limit(&self) -> Option<u32> {
        self.limit().map(|limit| limit.saturating_sub(self.taken()))
    }

    fn free(&self) -> u32 {
        self.free_of_limit().unwrap_or(u32::MAX)
    }

    /// Returns the users for whom a slot is free.
    fn served(&self) -> BTreeSet<u64> {
        let free = self.free();
        let served = |user: &u64| self.queue.free_for(*user, free).min(self.left_of_own(*user)) > 0;
        self.users.keys().copied().filter(served).collect()
    }

    /// Says why no slot is free.
    fn full(&self, user: u64) -> String {
        if self.left_of_own(user) == 0 {
            return "the scale set has its own maximum".to_owned();
        }
        if self.free() > 0 {
            return "the free slots are kept for scale sets that wait longer".to_owned();
        }
        format!("all {} slots are taken", self.limit().unwrap_or_default())
    }
}

/// A backend's use of a host, until this is dropped.
pub(super) struct Membership {
    host: Arc<SeenHost>,
    number: u64,
}

impl Membership {
    /// Returns the slots that are free for this use.
    pub(super) fn free(&self) -> u32 {
        let view = self.host.view();
        if self.host.hosts.has_fault(Fault::NoQueue) {
            return view.free();
        }
        view.queue.free_for(self.number, view.free()).min(view.left_of_own(self.number))
    }

    /// Counts the slots that there are for it.
    pub(super) fn all(&self) -> u32 {
        let view = self.host.view();
        let own = view.users.get(&self.number).and_then(|user| user.max_runners);
        view.limit().into_iter().chain(own).min().unwrap_or(u32::MAX)
    }

    /// Says why no slot is free.
    pub(super) fn full(&self) -> String {
        self.host.view().full(self.number)
    }

    /// Takes a slot.
    pub(super) fn reserve(&self) -> Option<HeldSlot> {
        let current = self.host.view().current || self.host.hosts.has_fault(Fault::StartsUnseen);
        let free = self.free() > 0 || self.host.hosts.has_fault(Fault::NoMaximum);
        if !current || !free {
            return None;
        }
        let mut number = 0;
        self.host.update(|view| {
            view.queue.took(self.number);
            view.next += 1;
            number = view.next;
            let uid = view.users[&self.number].scale_set_uid.clone();
            view.held.insert(number, (uid, None));
            BTreeSet::new()
        });
        Some(HeldSlot { host: self.host.clone(), number })
    }

    /// Says for how many runners a slot is wanted and not there.
    pub(super) fn wait(&self, runners: u32) {
        self.host.update(|view| {
            let runners = runners.min(view.left_of_own(self.number));
            view.queue.wait(self.number, runners, Instant::now());
            BTreeSet::new()
        });
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.host.update(|view| {
            view.users.remove(&self.number);
            view.queue.leave(self.number);
            BTreeSet::new()
        });
    }
}

/// A slot that is held until this is dropped, or until its runner is seen.
pub(super) struct HeldSlot {
    pub(super) host: Arc<SeenHost>,
    number: u64,
}

impl HeldSlot {
    /// Says for which runner it is.
    pub(super) fn bind(&self, runner: &str) {
        if let Some((_, held)) = self.host.view().held.get_mut(&self.number) {
            *held = Some(runner.to_owned());
        }
    }
}

impl Drop for HeldSlot {
    fn drop(&mut self) {
        if self.host.hosts.has_fault(Fault::LeakedSlot) {
            return;
        }
        self.host.update(|view| {
            view.held.remove(&self.number);
            BTreeSet::new()
        });
    }
}
