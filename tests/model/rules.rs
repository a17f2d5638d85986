//! The rules of the design, as they show in the world: in what is done to it, and in what it is after every step. They
//! know what a controller can know, and nothing of what it believes.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use paddock::api::RunnerScaleSet;
use paddock::backend::Availability;
use paddock::runner::{InstanceState, Phase};

use crate::github::{JobRecord, JobState, Presence, Registration};
use crate::history::{Kind, Setup, Starts, Weather};
use crate::hosts::{Container, Host, Place};
use crate::jobs;
use crate::sim::{State, between};
use crate::{ecs, left_out, mac, prompt};

/// What was decided before a change may be done this much after it.
const SETTLED: Duration = Duration::from_secs(60);
/// What is overdue by this much is a fault.
const OVERDUE: Duration = Duration::from_secs(180);
/// A deletion may take this much longer than the drain: two minutes that a new controller watches it for itself, and a try
/// that begins after them.
const DELETION: Duration = Duration::from_secs(150);
/// After so much more, what cannot be removed is left behind.
const GIVEN_UP: Duration = Duration::from_secs(300);
/// No scale set of a few runners registers so many in a minute.
const MOST_MINTED: usize = 120;

/// A set that waits for a slot is not passed over so often in a row.
const MOST_PASSED_OVER: u32 = 6;

/// A rule of the design is broken. 0: the world does not converge.
#[derive(Debug, Clone)]
pub struct Violation {
    pub rule: u8,
    pub what: String,
    /// In seconds since the beginning.
    pub at: f64,
}

/// What the rules remember between two looks.
pub struct Watch {
    /// Since when all is well but GitHub, and since when all is well but for hosts that hang.
    fair: Timestamp,
    pub fine: Timestamp,
    /// The same, and Macs that are lost to their controller matter no more: others do their work.
    pub steady: Timestamp,
    /// Since when one controller leads and the API server answers it.
    led: Timestamp,
    /// Since when demand and runners of each set are as they are.
    /// Since when each set lacks runners for which there is room.
    pub unmet: Vec<Option<Timestamp>>,
    pub calm: Vec<(u32, u32, Timestamp)>,
    /// What the rules about waiting jobs remember.
    pub jobs: jobs::Watch,
    /// When a start of each set was last under way.
    starting: Vec<Timestamp>,
    /// How many runners each set ever registered.
    pub minted: Vec<u32>,
    /// When a set's spec last changed.
    pub edited: Vec<Timestamp>,
    /// When the drain of a deleted set is over.
    drained: Vec<Option<Timestamp>>,
    /// The id of its scale set that an object last showed.
    pub shown_id: Vec<Option<i64>>,
    /// Whether the drain was over when a set's object went.
    pub gone: Vec<Option<bool>>,
}

impl Watch {
    pub fn new(setup: &Setup, now: Timestamp) -> Watch {
        let sets = setup.sets.len();
        Watch {
            fair: now,
            fine: now,
            steady: now,
            led: now,
            calm: vec![(0, 0, now); sets],
            unmet: vec![None; sets],
            jobs: jobs::Watch::new(setup, now),
            starting: vec![now; sets],
            minted: vec![0; sets],
            edited: vec![now; sets],
            drained: vec![None; sets],
            shown_id: vec![None; sets],
            gone: vec![None; sets],
        }
    }
}

fn deleting_since(object: &RunnerScaleSet) -> Option<Timestamp> {
    object.metadata.deletion_timestamp.as_ref().map(|t| t.0)
}

/// When busy runners of a deleted object are not waited for any more.
fn drained_at(object: &RunnerScaleSet) -> Option<Timestamp> {
    deleting_since(object).map(|at| at + object.spec.timeouts.drain.get())
}

/// How many runners a set may have.
pub fn ceiling(object: &RunnerScaleSet) -> u32 {
    if object.spec.suspend || deleting_since(object).is_some() {
        0
    } else {
        object.spec.max_runners.unsigned_abs()
    }
}

/// A controller takes a place for a runner.
pub fn place_taken(
    state: &mut State,
    life: usize,
    set: usize,
    backend: &str,
    host: usize,
    availability: &Availability,
) {
    let memory = &state.lives[life];
    if !memory.alive || !memory.leads {
        return;
    }
    let Some(object) = memory.acting[set].clone() else { return };
    // A start that failed, on a host that then shows nothing, has left nothing, as far as anyone can see.
    let misled = |host: usize| memory.views[host].misled.is_some_and(|at| between(at, state.now) < SETTLED);
    // Nothing is counted on where a Mac has been silent for long; one that may have a job has its registration.
    let counts = |host: usize, i: &Container| {
        !state.is_lost(life, host) || state.github.registrations.contains_key(&i.registration)
    };
    let knows = |(host, i): &(usize, &Container)| {
        memory.knows(set, &i.shown.id, &i.shown.runner) && !(i.disowned && misled(*host)) && counts(*host, i)
    };
    let live: Vec<&Container> = state.live(set).filter(knows).map(|(_, i)| i).collect();
    let held: Vec<&str> =
        memory.places.values().filter(|p| p.set == set && !p.made).map(|p| p.backend.as_str()).collect();
    let all = live.len() + held.len() + 1 + unnamed(state, life, set, &live);
    let here = live.iter().filter(|i| i.shown.backend == backend).count()
        + held.iter().filter(|b| **b == backend).count()
        + 1;
    let names: Vec<String> = live.iter().map(|i| i.shown.runner.clone()).collect();
    let max = ceiling(&object) as usize;
    let own = object.spec.backends.iter().find(|b| b.name == backend).and_then(|b| b.max_runners);
    let own = own.map_or(usize::MAX, |max| max.unsigned_abs() as usize);
    if all > max {
        state.violate(
            1,
            format!(
                "set {set} may have {max} runners and is to have {all}: {names:?}, {} to come",
                held.len()
            ),
        );
    } else if here > own {
        state.violate(1, format!("{backend} of set {set} may have {own} runners and is to have {here}"));
    }
    if !left_out::names(&object, host) {
        state.violate(
            8,
            format!("a runner of set {set} is started on host {host}, which its spec leaves out"),
        );
    }
    if *availability != Availability::Ready {
        state.violate(
            8,
            format!("a runner of set {set} is started on host {host}, which is {availability:?}"),
        );
    }
}

/// Runners on hosts that a controller was not shown yet, and that the status it began with counts without naming them.
fn unnamed(state: &State, life: usize, set: usize, known: &[&Container]) -> usize {
    let memory = &state.lives[life];
    let unnamed = |(host, said): (&usize, &usize)| {
        let of_host = |i: &&Container| state.hosts[*host].instances.contains_key(&i.shown.id);
        let known = known.iter().copied().filter(of_host).count();
        let there = state.live(set).filter(|(on, _)| on == host).count();
        if memory.views[*host].listed_at.is_some() { 0 } else { said.min(&there).saturating_sub(known) }
    };
    memory.said[set].iter().map(unnamed).sum()
}

/// A set takes one of `free` places on a host. Others that have jobs without runners, and wait there, must not be passed over again and
/// again.
pub fn place_taken_from_others(state: &mut State, life: usize, set: usize, host: usize, free: u32) {
    let fine = between(state.watch.fine, state.now) > SETTLED;
    let sets: Vec<usize> = (0..state.cluster.objects.len()).filter(|other| *other != set).collect();
    state.lives[life].passed_over.remove(&(host, set));
    for other in sets {
        let (demand, serving) = balance(state, other);
        let waits = fine && demand > serving && state.lives[life].waiting(other, host) >= free;
        let passed = state.lives[life].passed_over.entry((host, other)).or_default();
        *passed = if waits { *passed + 1 } else { 0 };
        if *passed == MOST_PASSED_OVER {
            state.violate(
                9,
                format!(
                    "set {other} is starved: {MOST_PASSED_OVER} runners of set {set} came on host {host}"
                ),
            );
        }
    }
}

/// A slot of a Mac is taken for a VM to come, of which so many are free as its controller sees it: what is started by hand takes
/// its slot like any other.
pub fn slot_taken(state: &mut State, host: usize, free: u32) {
    if state.setup.kind == Kind::Mac && free == 0 {
        state.violate(3, format!("a slot of host {host} is taken, and others have all"));
    }
}

/// An instance is made.
pub fn instance_comes(state: &mut State, life: usize, host: usize, set: usize) {
    let Some(slots) = state.hosts[host].slots else { return };
    let memory = &state.lives[life];
    // What a host did not show cannot be counted, nor what another controller asked for and came since.
    let late = |i: &Container| i.maker != life && between(i.shown.created_at, state.now) < SETTLED;
    let shown = |i: &&Container| memory.views[host].instances.contains_key(&i.shown.id) && !late(i);
    // Nor can what was hidden when the place was taken, however long ago.
    let misled = |misled_at: Timestamp| {
        let taken =
            |p: &Place| p.host == host && p.taken_at >= misled_at && between(misled_at, p.taken_at) < SETTLED;
        between(misled_at, state.now) < 5 * SETTLED || memory.places.values().any(taken)
    };
    if memory.views[host].misled.is_some_and(misled) {
        return;
    }
    let held = |i: &&Container| memory.places.values().any(|p| p.runner.as_ref() == Some(&i.shown.runner));
    let known = state.hosts[host].live().filter(|i| shown(i) || held(i)).count();
    if known > slots as usize {
        state.violate(
            3,
            format!("host {host} has {slots} slots and now {known} instances, one more of set {set}"),
        );
    }
}

/// A runner is registered.
pub fn minted(state: &mut State, life: usize, set: usize) {
    let now = state.now;
    state.watch.minted[set] += 1;
    let minted = &mut state.lives[life].minted[set];
    minted.push(now);
    minted.retain(|at| between(*at, now) < Duration::from_secs(60));
    if minted.len() == MOST_MINTED {
        state.violate(9, format!("set {set} registered {MOST_MINTED} runners within a minute"));
    }
}

fn instance_of(state: &State, registration: i64) -> Option<Container> {
    state.instances().map(|(_, i)| i).find(|i| i.ours() && i.registration == registration).cloned()
}

/// A registration is removed, of a runner that has no job.
pub fn registration_goes(state: &mut State, life: usize, registration: &Registration) {
    let Some(instance) = instance_of(state, registration.id).filter(Container::live) else { return };
    let told = state.github.weather == Weather::Fine;
    for host in &mut state.hosts {
        if let Some(known) = host.instances.get_mut(&instance.shown.id) {
            known.deregistered = told.then_some(life);
        }
    }
    if let Some(why) = unjustified(state, life, &instance) {
        state.violate(5, format!("{} is deregistered for no reason: {why}", instance.shown.runner));
    }
}

/// Whether there is no reason to take an idle runner away: none for a while.
fn unjustified(state: &State, life: usize, instance: &Container) -> Option<String> {
    let (set, now) = (instance.set, state.now);
    let memory = &state.lives[life];
    // As its watch shows it: the API server may be silent.
    let object = memory.handed[set].as_ref()?;
    let timeouts = &object.spec.timeouts;
    // It was asked for before it was made, and before its host was ready: on a Mac that is a VM's boot.
    let asked = match state.setup.kind {
        Kind::Mac | Kind::Fake => mac::BOOTS + SETTLED,
        Kind::Docker | Kind::Ecs => SETTLED,
    };
    let age = between(instance.shown.created_at, now) + asked;
    let over = |limit: Duration| !limit.is_zero() && age >= limit;
    let start = timeouts.start.as_ref().map_or(Duration::from_secs(300), |s| s.get());
    // That it has come up, ECS shows late.
    let shown = memory.views.iter().find_map(|view| view.instances.get(&instance.shown.id));
    let comes_up = match state.setup.kind {
        Kind::Ecs => shown.is_none_or(Container::comes_up),
        Kind::Docker | Kind::Mac | Kind::Fake => instance.comes_up(),
    };
    let never_up = comes_up && age >= start;
    let starting = instance.shown.state == InstanceState::Starting || instance.late;
    let never_started = instance.maker != life && starting;
    let aged = never_started
        || over(timeouts.idle.get())
        || over(timeouts.lifetime.get())
        || never_up
        || instance.deaf
        || instance.disowned;
    let template = memory.templates.get(&(set, instance.shown.backend.clone()));
    let on_host = |(_, i): &(usize, &Container)| i.shown.id == instance.shown.id;
    let host = state.live(set).find(on_host).map(|(host, _)| host);
    let left_out = host.is_none_or(|host| !left_out::names(object, host) || state.is_lost(life, host));
    let outdated = left_out || template != Some(&instance.shown.template_hash);
    let unwanted = ceiling(object) == 0 || outdated || instance.shown.created_at < state.watch.edited[set];
    let (demand, serving, since) = state.watch.calm[set];
    let calm = [since, memory.began, state.watch.edited[set]].iter().all(|at| between(*at, now) > SETTLED);
    let told = memory.told[set].is_some_and(|(told, since)| {
        told == state.github.count(set).assigned && between(since, now) > SETTLED
    });
    let (demand_now, serving_now) = balance(state, set);
    if aged || unwanted || !calm || !told || (demand, serving) != (demand_now, serving_now) {
        return None;
    }
    let wanted = ceiling(object).min(object.spec.min_runners.unsigned_abs() + demand);
    // What comes up for minutes is counted on like what is there.
    let slow = state.setup.kind != Kind::Docker;
    let coming = memory.places.values().filter(|place| slow && place.set == set && !place.made).count();
    (serving as usize + coming <= wanted as usize)
        .then(|| format!("{serving} serve, {wanted} are wanted, and nothing has changed"))
}

/// Jobs that want a runner, and runners that can be counted on.
pub fn balance(state: &State, set: usize) -> (u32, u32) {
    let lives = |registration: i64| state.live(set).any(|(_, i)| i.registration == registration);
    let wants = |state: &JobState| match state {
        JobState::Assigned => true,
        JobState::Running { registration } => lives(*registration),
        _ => false,
    };
    let demand = state.github.sets[set].jobs.iter().filter(|job| wants(&job.state)).count();
    let serves = |i: &Container| state.github.registrations.contains_key(&i.registration);
    let serving = state.live(set).filter(|(_, i)| serves(i)).count();
    (u32::try_from(demand).expect("few"), u32::try_from(serving).expect("few"))
}

/// An instance is removed.
pub fn instance_goes(state: &mut State, life: usize, set: usize, instance: &Container) {
    let name = &instance.shown.runner;
    if !instance.ours() || instance.set != set {
        return state.violate(7, format!("{name} is none of set {set}'s, and is removed"));
    }
    if !instance.live() {
        return;
    }
    let Some(registration) = state.github.registrations.get(&instance.registration) else { return };
    let memory = &state.lives[life];
    let object = memory.acting[set].as_ref();
    let running = JobState::Running { registration: instance.registration };
    let job = state.github.sets[set].jobs.iter().find(|job| job.state == running);
    let busy_since = job.map_or(instance.shown.created_at, |job| job.since);
    let slack = SignedDuration::from_secs(1);
    let forced = object.is_some_and(|object| {
        drained_at(object).is_some_and(|at| at <= state.now + slack)
            || busy_since + object.spec.timeouts.job.get() <= state.now + slack
    });
    if forced {
        return;
    }
    let rule = if memory.stopping || !memory.leads { 6 } else { 2 };
    let what = match registration.state {
        Presence::Busy => "is removed while its job runs",
        Presence::Idle | Presence::Offline => "is removed while GitHub may still give it a job",
    };
    state.violate(rule, format!("{name} {what}"));
}

/// An instance is removed as nobody's.
pub fn orphan_goes(state: &mut State, instance: &Container) {
    let name = &instance.shown.runner;
    if !instance.ours() {
        return state.violate(7, format!("{name} is none of ours, and is removed"));
    }
    if state.cluster.objects[instance.set].is_some() {
        state.violate(7, format!("{name} is removed as nobody's, and set {} is there", instance.set));
    }
}

/// A controller asks for the removal of what it takes for nobody's.
pub fn orphan_asked(state: &mut State, life: usize, runner: &str) {
    if !state.lives[life].leads {
        state.violate(6, format!("{runner} is removed by controller {life}, which does not lead"));
    }
}

/// A scale set is deleted at GitHub.
pub fn scale_set_goes(state: &mut State, life: usize, set: usize) {
    let deleting = state.cluster.objects[set].as_ref().is_none_or(|object| deleting_since(object).is_some());
    if !deleting {
        state.violate(
            6,
            format!("the scale set of set {set} is deleted by controller {life}, and its object is not"),
        );
    }
}

/// Looks at the world as time passes.
pub fn look(state: &mut State) {
    let now = state.now;
    let number = state.lives.iter().position(|life| life.alive && life.leads && !life.stopping);
    let leader = number.map(|leader| &state.lives[leader]);
    let began = leader.map_or(now, |life| life.began);
    let leader = leader.is_some();
    state.watch.led = match state.cluster.weather {
        Weather::Fine => state.watch.led.max(began),
        _ => now,
    };
    let hosts = state.hosts.iter().all(|host| host.reachable && host.starts == Starts::Well);
    let ill = !leader || !hosts || state.cluster.weather != Weather::Fine || state.cluster.hides_secrets;
    // A host that hangs holds up nothing but its own ends.
    if ill || state.hosts.iter().any(|host| host.hangs(now)) {
        state.watch.fair = now;
    }
    if ill || state.github.weather != Weather::Fine {
        state.watch.fine = now;
    }
    let lost = |host: usize| number.is_some_and(|leader| state.is_lost(leader, host));
    let away = |(at, host): (usize, &Host)| !(lost(at) || host.reachable && host.starts == Starts::Well);
    let hosts = !state.hosts.iter().enumerate().any(away);
    if !leader || !hosts || [state.github.weather, state.cluster.weather] != [Weather::Fine; 2] {
        state.watch.steady = now;
    }
    for set in 0..state.cluster.objects.len() {
        let (demand, serving) = balance(state, set);
        let calm = &mut state.watch.calm[set];
        if (calm.0, calm.1) != (demand, serving) {
            *calm = (demand, serving, now);
        }
        note_gone(state, set);
        overdue(state, set);
        left_out::look(state, set);
        prompt::look(state, set);
        jobs::look(state, set);
    }
}

/// Notes that an object is gone, and whether it waited for its drain to be over.
pub fn note_gone(state: &mut State, set: usize) {
    match &state.cluster.objects[set] {
        Some(object) => {
            state.watch.drained[set] = drained_at(object);
            state.watch.shown_id[set] = object.status.as_ref().and_then(|s| s.scale_set_id);
        }
        None => {
            let expired = state.watch.drained[set].is_some_and(|at| at <= state.now);
            state.watch.gone[set].get_or_insert(expired);
        }
    }
}

/// The registrations of runners that status shows to be busy, and since when. What GitHub did not tell, or told a
/// controller that died before it was written down, no controller can know.
pub fn known_busy(state: &State) -> BTreeMap<i64, Timestamp> {
    let runners =
        state.cluster.objects.iter().flatten().filter_map(|o| o.status.as_ref()).flat_map(|s| &s.runners);
    let busy = runners.filter(|r| r.phase == Phase::Busy);
    busy.filter_map(|r| Some((state.github.registered(&r.name)?.id, r.since.0))).collect()
}

fn overdue(state: &mut State, set: usize) {
    let now = state.now;
    let Some(object) = state.cluster.objects[set].clone() else { return };
    // A start that is under way is waited for: what comes of it would be nobody's.
    let starting = state.lives.iter().any(|life| life.alive && life.places.values().any(|p| p.set == set));
    // So is a VM that boots, whoever wanted it: it takes up to 150 s, and is removed then.
    let boots = state.hosts.iter().any(|host| host.mac.spares.values().any(|vm| vm.set == set && !vm.up));
    // What an earlier controller started on ECS, and nobody is shown, is waited for.
    let deletion = if state.setup.kind == Kind::Ecs { DELETION + ecs::SETTLES } else { DELETION };
    let over = drained_at(&object).is_some_and(|at| at + deletion < now);
    if starting || boots {
        state.watch.starting[set] = now;
    }
    if over && [state.watch.starting[set], state.watch.fair].iter().all(|at| between(*at, now) > deletion) {
        state.violate(9, format!("set {set} is not gone {} s after its drain", deletion.as_secs()));
    }
    let given_up = deletion + GIVEN_UP;
    let over = drained_at(&object).is_some_and(|at| at + given_up < now);
    if over && between(state.watch.led, now) > given_up {
        state.violate(9, format!("set {set} is not gone {} s after its drain", given_up.as_secs()));
    }
    if between(state.watch.fine.max(state.watch.fair), now) <= OVERDUE {
        return;
    }
    let timeouts = &object.spec.timeouts;
    let start = timeouts.start.as_ref().map_or(Duration::from_secs(300), |s| s.get());
    // Each of the two steps of a task has the whole of it, and the second may be shown late.
    let start = if state.setup.kind == Kind::Ecs { 2 * start + ecs::SETTLES } else { start };
    let late = |i: &Container| i.comes_up() && i.shown.created_at + start + OVERDUE < now;
    let never_up = state.live(set).find(|(_, i)| late(i)).map(|(_, i)| i.shown.runner.clone());
    if let Some(name) = never_up {
        state.violate(9, format!("{name} never came up, and is still there"));
    }
    let long = timeouts.job.get() + OVERDUE;
    let known = known_busy(state);
    let runs = |job: &&JobRecord| {
        let JobState::Running { registration } = job.state else { return false };
        job.silent.is_none()
            && known.get(&registration).is_some_and(|since| job.since.max(*since) + long < now)
    };
    let job = state.github.sets[set].jobs.iter().find(runs).map(|job| job.id.clone());
    if let Some(job) = job {
        state.violate(9, format!("{job} runs longer than timeouts.job"));
    }
}
