//! Macs as hosts: a VM takes a minute to boot and is there before its runner is; people take slots by hand, seen or unseen;
//! a Mac that restarts has nothing running; and one that is silent for three minutes is not counted on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use paddock::api::Reason;
use paddock::backend::Error;
use paddock::runner::Exit;
use tokio::time::sleep;

use crate::history::{Fate, Kind, Move, Starts};
use crate::hosts::{self, Container, SimBackend};
use crate::jobs::only_the_bug_breaks;
use crate::life::Life;
use crate::planted::Bug;
use crate::regressions::{after, backend, set, world};
use crate::rules;
use crate::sim::{State, between};

/// No VM boots for longer.
pub const BOOTS: Duration = Duration::from_secs(400);
/// A host that is silent for so long is lost.
const SILENCE: Duration = Duration::from_secs(180);
/// A host that refused to run one more VM is taken to be full for so long.
const FULL: Duration = Duration::from_secs(60);
/// The names of VMs that somebody started by hand begin so.
const STRANGER: &str = "stranger-";
/// A removal that failed is tried again after this.
const RETRY: Duration = Duration::from_secs(10);

/// A VM that has no runner yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spare {
    pub set: usize,
    pub backend: String,
    pub template_hash: String,
    pub up: bool,
    /// The controller that takes it away.
    pub going: Option<usize>,
}

/// What is true of a Mac beside its instances.
#[derive(Debug, Default)]
pub struct Truth {
    /// VMs without runners, by the number of the place that they were made in.
    pub spares: BTreeMap<u64, Spare>,
    /// VMs of another user of the Mac: they take slots, and are in no list.
    pub unseen: u32,
}

/// What a controller keeps of a Mac beside the instances.
#[derive(Debug, Clone, Default)]
pub struct Known {
    pub spares: BTreeMap<u64, Spare>,
    full_until: Option<Timestamp>,
    /// Since when it has not answered.
    pub down_since: Option<Timestamp>,
}

impl Known {
    /// Whether nothing is counted on there.
    pub fn is_lost(&self, now: Timestamp) -> bool {
        self.down_since.is_some_and(|since| between(since, now) >= SILENCE)
    }

    pub fn is_full(&self, now: Timestamp) -> bool {
        self.full_until.is_some_and(|until| until > now)
    }
}

/// The name of the VM that was made in a place.
pub fn vm(number: u64) -> String {
    format!("vm-{number}")
}

/// The number of the place that a VM was made in.
pub fn number(vm: &str) -> Option<u64> {
    vm.strip_prefix("vm-")?.parse().ok()
}

impl State {
    /// How many slots of a Mac are free in truth.
    fn free_on(&self, host: usize) -> u32 {
        let host = &self.hosts[host];
        let taken = host.live().count() + host.mac.spares.len();
        host.slots.unwrap_or(u32::MAX).saturating_sub(u32::try_from(taken).expect("few") + host.mac.unseen)
    }

    /// Somebody starts VMs by hand, as many as there is room for. Returns how to end them.
    pub fn take_by_hand(&mut self, host: usize, slots: u32, seen: bool) -> impl FnOnce(&mut State) + use<> {
        let slots = slots.min(self.free_on(host));
        let mut ids = Vec::new();
        for _ in 0..slots {
            let id = format!("{STRANGER}{}", self.number());
            if seen {
                let stranger = Container::foreign(&id, self.now);
                self.hosts[host].instances.insert(id.clone(), stranger);
                ids.push(id);
            }
        }
        let unseen = if seen { 0 } else { slots };
        self.hosts[host].mac.unseen += unseen;
        move |state: &mut State| {
            let host = &mut state.hosts[host];
            ids.iter().for_each(|id| drop(host.instances.remove(id)));
            host.mac.unseen = host.mac.unseen.saturating_sub(unseen);
        }
    }

    /// Nobody has anything started by hand any more.
    pub fn give_back_by_hand(&mut self) {
        for host in &mut self.hosts {
            host.mac.unseen = 0;
            host.instances.retain(|id, _| !id.starts_with(STRANGER));
        }
    }

    /// Nothing on a Mac runs any more, whosever it was.
    pub fn restart(&mut self, host: usize) {
        let (ours, foreign): (Vec<String>, Vec<String>) = {
            let instances = self.hosts[host].instances.values();
            let (ours, foreign): (Vec<_>, Vec<_>) = instances.partition(|i| i.ours());
            let id = |i: &&Container| i.shown.id.clone();
            (ours.iter().map(id).collect(), foreign.iter().map(id).collect())
        };
        ours.iter().for_each(|id| self.end_with(host, id, Exit::default()));
        let host = &mut self.hosts[host];
        foreign.iter().for_each(|id| drop(host.instances.remove(id)));
        host.mac = Truth::default();
    }

    /// A VM gets its runner: it is an instance from now on. Returns whether it was there.
    pub fn take_spare(&mut self, host: usize, number: u64) -> bool {
        let spare = self.hosts[host].mac.spares.remove(&number);
        tell(self, host);
        spare.is_some_and(|spare| spare.up)
    }

    /// How many slots of a Mac VMs have that no runner of a set can have: others', unseen ones, and those that are to go.
    pub fn in_the_way(&self, host: usize, set: usize) -> usize {
        let leader = self.lives.iter().rev().find(|life| life.alive && life.leads);
        let usable = |spare: &&Spare| {
            let template = leader.and_then(|life| life.templates.get(&(set, spare.backend.clone())));
            spare.set == set && spare.up && template == Some(&spare.template_hash)
        };
        let mac = &self.hosts[host].mac;
        mac.unseen as usize + mac.spares.values().filter(|spare| !usable(spare)).count()
    }

    /// Whether a Mac is silent for long, as a controller sees it.
    pub fn is_lost(&self, life: usize, host: usize) -> bool {
        self.setup.kind == Kind::Mac && self.lives[life].views[host].mac.is_lost(self.now)
    }

    /// VMs of a set's backend without runners that no place is held for, as a controller sees them; and whether each is fit to
    /// have one.
    fn spares(&self, backend: &SimBackend, host: usize) -> Vec<(u64, bool)> {
        let memory = &self.lives[backend.life.number];
        let own = |(number, spare): &(&u64, &Spare)| {
            spare.set == backend.set
                && spare.backend == backend.name
                && spare.going != Some(backend.life.number)
                && !memory.places.contains_key(number)
        };
        let spares = memory.views[host].mac.spares.iter().filter(own);
        spares
            .map(|(number, spare)| (*number, spare.up && spare.template_hash == backend.template_hash))
            .collect()
    }
}

/// Gives a place the VM that is up, if there is one.
pub fn claim(state: &mut State, backend: &SimBackend, host: usize, place: u64) -> bool {
    let fit = state.spares(backend, host).into_iter().find(|(_, fit)| *fit);
    let Some(spare) = fit.and_then(|(number, _)| state.hosts[host].mac.spares.remove(&number)) else {
        return false;
    };
    state.hosts[host].mac.spares.insert(place, spare);
    tell(state, host);
    true
}

/// How many VMs on a host are up and have no runner.
pub fn fit_on(state: &State, backend: &SimBackend, host: usize) -> u32 {
    let fit = state.spares(backend, host).into_iter().filter(|(_, fit)| *fit).count();
    u32::try_from(fit).expect("few")
}

/// How many VMs of a backend have no runner, whatever becomes of them.
pub fn left_over(state: &State, backend: &SimBackend) -> u32 {
    let views = &state.lives[backend.life.number].views;
    let spares = backend.hosts.iter().flat_map(|(_, host)| views[*host].mac.spares.values());
    let own = spares.filter(|spare| spare.set == backend.set && spare.backend == backend.name);
    u32::try_from(own.count()).expect("few")
}

/// What was done by someone who reaches the Mac is seen at once by those who do.
fn tell(state: &mut State, host: usize) {
    let spares = &state.hosts[host].mac.spares;
    for life in &mut state.lives {
        if life.views[host].up {
            life.views[host].mac.spares.clone_from(spares);
        }
    }
}

/// Boots a VM for a place, unless it has one, and waits until it is up. It is carried through, whoever waits for it.
pub async fn boot(backend: &Arc<SimBackend>, host: usize, place: u64) -> Result<(), Error> {
    let life = &backend.life;
    begin(backend, host, place)?;
    loop {
        sleep(Duration::from_secs(1)).await;
        life.living().await;
        let state = life.sim.state();
        if !state.lives[life.number].views[host].up {
            return Err(Error::Unreachable("not connected".into()));
        }
        match state.hosts[host].mac.spares.get(&place) {
            Some(spare) if spare.up => return Ok(()),
            Some(_) => {}
            None => return Err(Error::no_capacity(Reason::EngineError, "its VM does not run any more")),
        }
    }
}

fn begin(backend: &Arc<SimBackend>, host: usize, place: u64) -> Result<(), Error> {
    let life = &backend.life;
    let mut state = life.sim.state();
    if !state.hosts[host].reachable {
        return Err(Error::Unreachable("no route".into()));
    }
    if state.hosts[host].mac.spares.contains_key(&place) {
        return Ok(());
    }
    if state.free_on(host) == 0 {
        let until = state.now + FULL;
        state.lives[life.number].views[host].mac.full_until = Some(until);
        drop(state);
        let life = life.clone();
        tokio::spawn(async move {
            sleep(FULL).await;
            life.change_slots(host);
        });
        return Err(Error::no_capacity(Reason::HostFull, "the number of VMs exceeds the system limit"));
    }
    let SimBackend { set, name, template_hash, .. } = &**backend;
    let (set, backend, template_hash) = (*set, name.clone(), template_hash.clone());
    let spare = Spare { set, backend, template_hash, up: false, going: None };
    state.hosts[host].mac.spares.insert(place, spare);
    tell(&mut state, host);
    state.note(|| format!("{} boots on host {host} for set {set}", vm(place)));
    let boots = match state.hosts[host].starts {
        Starts::Slow => state.millis(60_000, 400_000),
        _ => state.millis(30_000, 150_000),
    };
    drop(state);
    let sim = life.sim.clone();
    tokio::spawn(async move {
        sleep(boots).await;
        let mut state = sim.state();
        if let Some(spare) = state.hosts[host].mac.spares.get_mut(&place) {
            spare.up = true;
            tell(&mut state, host);
        }
        drop(state);
        sim.hosts[host].tell();
    });
    Ok(())
}

/// Brings the VMs without runners to the number that is wanted.
pub fn keep_warm(backend: &Arc<SimBackend>, wanted: u32) {
    let life = &backend.life;
    let mut there = 0;
    let mut going = Vec::new();
    let mut room = None;
    {
        let state = life.sim.state();
        for (_, host) in &backend.hosts {
            let view = &state.lives[life.number].views[*host];
            let booting = |number: &u64| view.mac.spares.get(number).is_some_and(|spare| !spare.up);
            if !view.up {
                continue;
            }
            for (number, fit) in state.spares(backend, *host) {
                if (fit || booting(&number)) && there < wanted {
                    there += 1;
                } else if !booting(&number) {
                    going.push((*host, number));
                }
            }
            let waits = state.lives[life.number].waiting(backend.set, *host) > 0;
            if backend.is_ready(&state, *host) && !waits && backend.free(&state, *host) > 0 {
                room = room.or(Some(*host));
            }
        }
    }
    for (host, number) in going {
        take_away(life, host, number);
    }
    if let Some(host) = room.filter(|_| there < wanted) {
        let number = {
            let mut state = life.sim.state();
            let free = hosts::free(&state, life.number, host);
            rules::place_taken_from_others(&mut state, life.number, backend.set, host, free);
            state.lives[life.number].queues[host].took(backend.user());
            state.number()
        };
        let _ = begin(backend, host, number);
        life.change_slots(host);
    }
}

/// Removes a VM without a runner, in the background.
fn take_away(life: &Arc<Life>, host: usize, number: u64) {
    mark(&mut life.sim.state(), host, number, Some(life.number));
    let life = life.clone();
    tokio::spawn(async move {
        life.sim.pause(500, 5_000).await;
        life.living().await;
        if remove(&mut life.sim.state(), host, number).is_err() {
            sleep(RETRY).await;
            mark(&mut life.sim.state(), host, number, None);
        }
        life.sim.hosts[host].tell();
        life.change_slots(host);
        life.requeue_all();
    });
}

fn mark(state: &mut State, host: usize, number: u64, going: Option<usize>) {
    if let Some(spare) = state.hosts[host].mac.spares.get_mut(&number) {
        spare.going = going;
    }
    tell(state, host);
}

/// Removes a VM without a runner.
pub fn remove(state: &mut State, host: usize, number: u64) -> Result<(), Error> {
    if !state.hosts[host].reachable || state.hangs(host) {
        return Err(Error::Unreachable("no answer".into()));
    }
    state.hosts[host].mac.spares.remove(&number).ok_or(Error::Gone)?;
    tell(state, host);
    Ok(())
}

#[test]
fn rule_0_a_silent_mac_that_is_counted_on_for_ever() {
    let spares = set(2, 2, vec![backend(&[0], None), backend(&[1], None)]);
    let mut setup = world(&[Some(2), Some(2)], vec![spares]);
    setup.kind = Kind::Mac;
    let steps = vec![
        after(5, Move::Queue { set: 0, jobs: 1, seconds: 5, hangs: false }),
        after(300, Move::HostAway { host: 0, seconds: 1500, fate: Fate::Kept }),
        after(1400, Move::Nothing),
    ];
    only_the_bug_breaks(Bug::CountsLost, 0, (setup, steps));
}
