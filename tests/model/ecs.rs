//! ECS clusters as hosts: they are late to show what was started there and late to forget what has ended, and all that is
//! known of them comes from looks that are far apart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use paddock::api::{Explanation, Reason};
use paddock::backend::Error;
use paddock::runner::{Cause, Exit, Instance, InstanceState};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::github::Presence;
use crate::history::Starts;
use crate::hosts::{Container, Hold, SimBackend};
use crate::life::{self, Life};
use crate::sim::{Sim, State, between};
use crate::{process, rules};

/// What a listing may hide, and how long a task must be missing before it is believed to be gone.
pub const SETTLES: Duration = Duration::from_secs(300);
/// A task is shown this long after its start at the latest.
const SHOWN: u64 = 270_000;
/// What has ended is shown for so long.
const FORGOTTEN: Duration = Duration::from_secs(3600);
/// What was refused is tried again after this.
pub const REFUSED: Duration = Duration::from_secs(900);
/// The pause between two looks, while a task is on its way and otherwise.
const MOVING: Duration = Duration::from_secs(10);
const RESTING: Duration = Duration::from_secs(30);
/// A removal waits so long for the end of its task.
const STOPS: Duration = Duration::from_secs(180);

/// What a controller keeps of a cluster beside the tasks that it was shown.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Since when it looks.
    since: Option<Timestamp>,
    /// Since when a task is in no listing.
    missing: BTreeMap<String, Timestamp>,
    /// Told to stop.
    stopping: BTreeSet<String>,
    /// Ended, and cleared away.
    cleared: BTreeSet<String>,
}

impl Known {
    /// Whether the absence of a task that was never shown means anything.
    pub fn settled(&self, now: Timestamp) -> bool {
        self.since.is_some_and(|since| between(since, now) >= SETTLES)
    }

    /// What a listing may hide.
    pub fn hides(&self, now: Timestamp) -> Duration {
        if self.settled(now) { SETTLES } else { Duration::MAX }
    }
}

impl State {
    /// What has ended is no task any more, and is shown on.
    pub fn put_aside(&mut self, host: usize, id: &str) {
        let host = &mut self.hosts[host];
        if let Some(ended) = host.instances.remove(id) {
            host.ended.insert(id.to_owned(), ended);
        }
    }

    /// The machine of a busy runner is taken away, and its job with it.
    pub fn interrupt(&mut self, pick: usize) {
        let busy = |i: &Container| {
            let registration = self.github.registrations.get(&i.registration);
            registration.is_some_and(|runner| runner.state == Presence::Busy)
        };
        let busy: Vec<(usize, String)> = self
            .instances()
            .filter(|(_, i)| i.ours() && i.live() && busy(i))
            .map(|(host, i)| (host, i.shown.id.clone()))
            .collect();
        let Some((host, id)) = busy.get(pick % busy.len().max(1)) else { return };
        let why = Explanation::new(Reason::SpotInterruption, "Your Spot Task was interrupted.");
        let cause = Some(Cause { why, blameless: true, rerun: false });
        self.end_with(*host, id, Exit { cause, leaves_nothing: true, ..Exit::default() });
    }

    /// What runs on a host now is in no listing for a while; what was just in none stays: ECS is never that late.
    pub fn mislay(&mut self, host: usize, until: Timestamp) {
        let now = self.now;
        let views = self.lives.iter().filter(|life| life.alive).map(|life| &life.views[host]);
        let missing: BTreeSet<&String> = views.flat_map(|view| view.ecs.missing.keys()).collect();
        for (id, task) in &mut self.hosts[host].instances {
            let shown = task.hidden_until.is_none_or(|until| until + 2 * RESTING < now);
            if shown && !missing.contains(id) {
                task.hidden_until = Some(until);
            }
        }
    }
}

/// How many runners of a set a controller has to take for alive whose tasks have ended: that is shown late, and of what status
/// remembers nothing at all may be shown yet.
pub fn shown_on(state: &State, life: usize, set: usize) -> usize {
    let memory = &state.lives[life];
    let ended = state.hosts.iter().flat_map(|host| host.ended.values());
    let of_set = ended.filter(|i| i.ours() && i.set == set);
    let taken_for_alive = |i: &&Container| {
        let shown = memory.views.iter().find_map(|view| view.instances.get(&i.shown.id));
        let unsettled = memory.views.iter().any(|view| !view.ecs.settled(state.now));
        shown.map_or(unsettled && memory.remembered[set].contains(&i.shown.runner), Container::live)
    };
    of_set.filter(taken_for_alive).count()
}

/// Looks at a cluster for as long as the controller lives.
pub async fn follow(life: Arc<Life>, host: usize) {
    let mut changed = life.sim.hosts[host].follow();
    life.sim.pause(1, 400).await;
    loop {
        if !life.sim.state().hosts[host].reachable {
            life::lose(&life, host);
            changed.changed().await;
            life.sim.pause(50, 15_000).await;
            continue;
        }
        look(&life, host);
        let looked_at = Instant::now();
        let spread = life.sim.state().millis(900, 1_100).as_secs_f64();
        loop {
            let pause = if is_moving(&life.sim.state(), &life, host) { MOVING } else { RESTING };
            // Something begins to move, and the next look comes sooner.
            let next = sleep_until(looked_at + pause.mul_f64(spread));
            tokio::select! {
                biased;
                () = next => break,
                () = life.suspected(host) => {}
            }
        }
    }
}

fn is_moving(state: &State, life: &Life, host: usize) -> bool {
    let view = &state.lives[life.number].views[host];
    let launching = |i: &Container| matches!(i.shown.state, InstanceState::Launching(_));
    view.instances.values().any(launching) || !view.ecs.stopping.is_empty()
}

/// One look, and what it changes: nothing that was seen is taken back, and what is missing is kept for a while.
fn look(life: &Arc<Life>, host: usize) {
    let mut state = life.sim.state();
    let now = state.now;
    let at = &mut state.hosts[host];
    at.ended.retain(|_, i| between(i.ended_at(), now) < FORGOTTEN);
    let all = at.instances.values().chain(at.ended.values());
    let shown = all.filter(|i| i.hidden_until.is_none_or(|until| until <= now));
    let shown: Vec<Container> = shown.cloned().collect();
    let view = &mut state.lives[life.number].views[host];
    let was_settled = view.ecs.settled(now);
    let mut affected = BTreeSet::new();
    let ids: BTreeSet<String> = shown.iter().map(|i| i.shown.id.clone()).collect();
    for instance in shown.into_iter().filter(|i| !view.ecs.cleared.contains(&i.shown.id)) {
        let (id, set) = (instance.shown.id.clone(), instance.set);
        let state = Some(instance.shown.state.clone());
        let before = view.instances.insert(id, instance).map(|i| i.shown.state);
        affected.extend((before != state).then_some(set));
    }
    for id in view.instances.keys().filter(|id| !ids.contains(*id)) {
        view.ecs.missing.entry(id.clone()).or_insert(now);
    }
    view.ecs.missing.retain(|id, _| !ids.contains(id));
    let gone = view.ecs.missing.iter().filter(|(_, since)| between(**since, now) >= SETTLES);
    let gone: Vec<String> = gone.map(|(id, _)| id.clone()).collect();
    for id in gone {
        view.ecs.missing.remove(&id);
        affected.extend(view.instances.remove(&id).map(|i| i.set));
    }
    let up = std::mem::replace(&mut view.up, true);
    view.connections += u64::from(!up);
    view.listed_at = Some(now);
    view.ecs.since.get_or_insert(now);
    let settles = view.ecs.settled(now) != was_settled;
    state.lives[life.number].saw(host);
    drop(state);
    if up && !settles {
        affected.into_iter().for_each(|set| life.wake(set));
    } else {
        life.requeue_all();
    }
}

/// Asks for a task. It is answered when it is asked for, and comes up by itself.
pub async fn launch(
    backend: Arc<SimBackend>,
    host: usize,
    runner: String,
    registration: i64,
    hold: Hold,
) -> Result<Instance, Error> {
    let (life, sim) = (backend.life.clone(), backend.life.sim.clone());
    let starts = sim.state().hosts[host].starts;
    match starts {
        Starts::Slow => sim.pause(20_000, 170_000).await,
        _ => sim.pause(50, 4_000).await,
    }
    let id = {
        let mut state = sim.state();
        if !state.hosts[host].reachable || !life.lives(&state) {
            return Err(Error::Unreachable("no route".into()));
        }
        match state.hosts[host].starts {
            Starts::NoCapacity => {
                let why = "Capacity is unavailable at this time.";
                return Err(Error::no_capacity(Reason::NoCapacity, why));
            }
            Starts::Refused => {
                state.hosts[host].refused = true;
                return Err(Error::Refused("no such task definition".into()));
            }
            _ => {}
        }
        format!("task-{}", state.number())
    };
    backend.create(host, &id, &runner, registration, starts, InstanceState::Launching("PROVISIONING"));
    let instance = {
        let mut state = sim.state();
        // Most are shown soon.
        let late = if state.chance(50) { SHOWN } else { 5_000 };
        let until = state.now + state.millis(0, late);
        let task = state.hosts[host].instances.get_mut(&id);
        task.map(|task| {
            task.hidden_until = Some(until);
            task.disowned = false;
            task.clone()
        })
    };
    tokio::spawn(come_up(sim.clone(), host, id.clone(), starts));
    if starts == Starts::Unanswered {
        // It is asked again, with the same token, until it is known what became of it.
        sim.pause(0, 100_000).await;
    }
    sim.pause(1, 100).await;
    let instance = instance.ok_or(Error::Gone)?;
    let mut state = sim.state();
    let memory = &mut state.lives[life.number];
    memory.seen.insert(id.clone());
    let view = &mut memory.views[host];
    if !view.ecs.cleared.contains(&id) {
        view.instances.entry(id).or_insert(instance.clone());
    }
    drop(state);
    drop(hold);
    life.suspect(host);
    Ok(instance.shown)
}

/// The steps of a task on its way up, whoever still lives.
async fn come_up(sim: Arc<Sim>, host: usize, id: String, starts: Starts) {
    for next in [InstanceState::Launching("PENDING"), InstanceState::Running] {
        if starts == Starts::Stuck && next == InstanceState::Running {
            return;
        }
        sim.pause(1_000, 25_000).await;
        let mut state = sim.state();
        let Some(task) = state.hosts[host].instances.get_mut(&id) else { return };
        task.shown.state = next;
        drop(state);
        sim.hosts[host].tell();
    }
    process::run(sim, host, id, starts).await;
}

/// Whose removal it is: that decides what the rules ask of it.
pub enum Whose {
    Set(usize),
    Nobodys,
}

/// Has a task stop, waits until that is seen, and clears it away.
pub async fn remove(life: &Arc<Life>, whose: Whose, host: usize, id: &str) -> Result<(), Error> {
    let wait = life.sim.state().millis(1, 3_000);
    sleep(wait).await;
    life.living().await;
    stop(life, &whose, host, id)?;
    let ended = timeout(STOPS, async {
        loop {
            {
                let state = life.sim.state();
                let known = state.lives[life.number].views[host].instances.get(id);
                if known.is_none_or(|known| !known.live()) {
                    return;
                }
            }
            sleep(Duration::from_secs(1)).await;
        }
    });
    let ended = ended.await;
    life.living().await;
    let mut state = life.sim.state();
    let view = &mut state.lives[life.number].views[host];
    view.ecs.stopping.remove(id);
    ended.map_err(|_| Error::Unreachable("it has not stopped yet".into()))?;
    view.instances.remove(id);
    view.ecs.missing.remove(id);
    view.ecs.cleared.insert(id.to_owned());
    Ok(())
}

fn stop(life: &Arc<Life>, whose: &Whose, host: usize, id: &str) -> Result<(), Error> {
    let mut state = life.sim.state();
    life.count_call(&mut state);
    let (now, number) = (state.now, life.number);
    let view = &state.lives[number].views[host];
    let known = view.instances.get(id);
    if known.is_some_and(|known| !known.live()) || view.ecs.stopping.contains(id) {
        return Ok(());
    }
    if !state.hosts[host].reachable || state.hangs(host) {
        return Err(Error::Unreachable("no answer".into()));
    }
    let Some(task) = state.hosts[host].instances.get(id).cloned() else {
        // It has ended, which is still to be shown; one that was never shown may be to come.
        let ended = known.is_some() || state.hosts[host].ended.contains_key(id);
        return match () {
            () if ended => Ok(()),
            () if view.ecs.settled(now) => Err(Error::Gone),
            () => Err(Error::Unreachable("it is not shown, or not yet".into())),
        };
    };
    match whose {
        Whose::Set(set) => rules::instance_goes(&mut state, number, *set, &task),
        Whose::Nobodys => rules::orphan_goes(&mut state, &task),
    }
    state.note(|| format!("controller {number} stops {} ({:?})", task.shown.runner, task.shown.state));
    let memory = &mut state.lives[number];
    memory.views[host].instances.entry(id.to_owned()).or_insert(task);
    memory.views[host].ecs.stopping.insert(id.to_owned());
    drop(state);
    life.suspect(host);
    let (sim, id) = (life.sim.clone(), id.to_owned());
    tokio::spawn(async move {
        sim.pause(500, 40_000).await;
        sim.state().end_instance(host, &id, 143, false);
        sim.hosts[host].tell();
        sim.github.tell();
    });
    Ok(())
}
