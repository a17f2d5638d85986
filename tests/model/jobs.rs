//! The rules about jobs that wait, and histories that are about them. Rule 13: no job is asked for that cannot be started.
//! Rule 14: no job waits for long that could be started, and no runner stands idle for long that jobs do not come to.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use paddock::backend::Availability;

use crate::github::{JobRecord, JobState, Presence};
use crate::history::Move::*;
use crate::history::{History, Kind, Move, Setup, Starts, Step, Weather};
use crate::hosts::{Container, View};
use crate::life::Memory;
use crate::planted::{Bug, planted};
use crate::play::{play, room};
use crate::regressions::{after, backend, holds, set, world};
use crate::sim::{State, between};
use crate::{ecs, rules};

/// What a controller may hope to start within this, it may ask for.
const SOON: Duration = Duration::from_secs(120);
/// What it knows is known at GitHub within this.
const TOLD: Duration = Duration::from_secs(60);
/// A job for which there is room has a runner within this ...
const STARTED: Duration = Duration::from_secs(30);
/// ... if nothing has failed for so long: a host is set aside for five minutes at the longest.
const SET_ASIDE: Duration = Duration::from_secs(360);
/// The job of a runner that died is taken for running at GitHub for 15 minutes after its end was seen, unless it is heard
/// to be over; and the end is seen once its host is back.
const MISSED: Duration = Duration::from_secs(30 * 60);
/// A runner that ends sooner after it was made may be held against its host.
const SHORT_LIFE: Duration = Duration::from_secs(90);
/// An idle runner that waiting jobs do not come to is recycled in this time, or another is. GitHub drops the jobs after 15
/// minutes.
const RECYCLED: Duration = Duration::from_secs(13 * 60);

/// What the rules remember between two looks.
pub struct Watch {
    /// Since when no host that a set may use can take a start soon, as its controller is shown.
    unable: Vec<Option<Timestamp>>,
    /// How many instances a set has or is to have, and since when.
    there: Vec<(usize, Timestamp)>,
    /// When a start or a runner last failed, on whatever host.
    pub failed: Timestamp,
    /// When a message about jobs of a set was last lost, or a part of one.
    pub lost: Vec<Option<Timestamp>>,
    /// When GitHub last said of a set that it has nothing at all.
    pub denied: Vec<Option<Timestamp>>,
    /// The runners of a set that jobs wait for in vain, and since when.
    deaf: Vec<(Vec<String>, Timestamp)>,
}

impl Watch {
    pub fn new(setup: &Setup, now: Timestamp) -> Watch {
        let sets = setup.sets.len();
        Watch {
            unable: vec![None; sets],
            there: vec![(0, now); sets],
            failed: now,
            lost: vec![None; sets],
            denied: vec![None; sets],
            deaf: vec![(Vec::new(), now); sets],
        }
    }
}

/// Instances of a set, those that are to come among them, and those that a controller must take for alive.
fn there(state: &State, set: usize) -> usize {
    let places = state.lives.iter().flat_map(|life| life.places.values());
    let mut names: BTreeSet<&str> = state.live(set).map(|(_, i)| i.shown.runner.as_str()).collect();
    for memory in state.lives.iter().filter(|life| life.alive) {
        let shown = memory.views.iter().flat_map(|view| view.instances.values());
        let live = shown.filter(|i| i.ours() && i.set == set && i.live());
        names.extend(live.map(|i| i.shown.runner.as_str()));
        // A single listing without them proves nothing, and on ECS none of the first five minutes.
        let unsettled = |view: &View| state.setup.kind == Kind::Ecs && !view.ecs.settled(state.now);
        let proves_nothing =
            |view: &View| view.listed_at.is_none() || view.listed_at == view.misled || unsettled(view);
        if memory.views.iter().any(proves_nothing) {
            names.extend(memory.remembered[set].iter().map(String::as_str));
        }
    }
    names.len() + places.filter(|p| p.set == set && !p.made).count()
}

/// Whether a controller leads, and is shown nothing but hosts that can take no start within two minutes.
fn is_unable(state: &State, set: usize) -> bool {
    let Some(memory) = state.lives.iter().find(|life| life.alive && life.leads && !life.stopping) else {
        return false;
    };
    let mut shown = memory.shown.iter().filter(|((of, ..), _)| *of == set).peekable();
    let useless = |availability: &Availability| match availability {
        Availability::Ready | Availability::Unprepared => false,
        Availability::Preparing { since } => between(*since, state.now) > SOON,
        Availability::BackOff { until, .. } => between(state.now, *until) > SOON,
        Availability::Refused | Availability::Unreachable => true,
    };
    shown.peek().is_some() && shown.all(|(_, availability)| useless(availability))
}

/// Looks at a set as time passes.
pub fn look(state: &mut State, set: usize) {
    let now = state.now;
    if state.github.weather != Weather::Fine {
        // GitHub goes by the last poll that it has heard.
        state.watch.jobs.denied[set] = Some(now);
    }
    let unable = is_unable(state, set);
    let since = state.watch.jobs.unable[set];
    state.watch.jobs.unable[set] = unable.then(|| since.unwrap_or(now));
    let count = there(state, set);
    if state.watch.jobs.there[set].0 != count {
        state.watch.jobs.there[set] = (count, now);
    }
    unstarted(state, set);
    unheard(state, set);
}

/// GitHub assigns a job.
pub fn assigned(state: &mut State, set: usize, job: &str) {
    let now = state.now;
    let has = there(state, set);
    let (before, since) = state.watch.jobs.there[set];
    let known = state.watch.jobs.unable[set].is_some_and(|at| between(at, now) > TOLD);
    let denied = state.watch.jobs.denied[set].is_some_and(|at| between(at, now) <= TOLD);
    let in_hand = state.github.count(set).assigned as usize;
    if known
        && !denied
        && is_unable(state, set)
        && has == before
        && between(since, now) > TOLD
        && in_hand > has
    {
        state.violate(
            13,
            format!("{job} is asked for by set {set}, which has {has} runners and can start none"),
        );
    }
}

/// A job waits, and there is room for a runner.
fn unstarted(state: &mut State, set: usize) {
    let now = state.now;
    let leads = |life: &Memory| life.alive && life.leads && !life.stopping;
    let Some(leader) = state.lives.iter().position(leads) else { return };
    let memory = &state.lives[leader];
    let Some(object) = &state.cluster.objects[set] else { return };
    let told = memory.told[set].filter(|(told, _)| *told == state.github.count(set).assigned);
    let (demand, serving, since) = state.watch.calm[set];
    let lately = |at: Timestamp, limit: Duration| between(at, now) <= limit;
    let set_aside = if state.setup.kind == Kind::Ecs { SET_ASIDE.max(ecs::REFUSED) } else { SET_ASIDE };
    let disturbed = [memory.began, state.watch.fine, state.watch.edited[set], state.watch.jobs.failed];
    if told.is_none_or(|(_, at)| lately(at, STARTED))
        || state.watch.jobs.lost[set].is_some_and(|at| lately(at, MISSED))
        || lately(since, STARTED)
        || disturbed.iter().any(|at| lately(*at, set_aside))
        || state.hosts.iter().any(|host| host.pulls_until.is_some_and(|until| until > now))
        || (demand, serving) != rules::balance(state, set)
    {
        return;
    }
    let max = rules::ceiling(object) as usize;
    // One whose host is being made ready for it is on its way, however long that takes.
    let coming = memory.places.values().filter(|place| place.set == set && !place.made).count();
    let coming = coming + ecs::shown_on(state, leader, set);
    let live = state.live(set).count() + coming;
    let lacks = demand as usize > serving as usize + coming;
    if lacks && live < max && live < room(state, set) {
        state.violate(14, format!("{demand} jobs of set {set} have {serving} runners, and there is room"));
    }
}

/// A runner is idle and reaches nobody, and jobs wait.
fn unheard(state: &mut State, set: usize) {
    let now = state.now;
    let waits = |job: &JobState| matches!(job, JobState::Queued | JobState::Offered | JobState::Assigned);
    let waiting = state.github.sets[set].jobs.iter().any(|job| waits(&job.state));
    // One that is deregistered has been recycled, as far as its host lets it be; what hangs cannot be removed.
    let keeps = |host: usize, i: &Container| {
        let registered = state.github.registrations.contains_key(&i.registration);
        i.deaf && registered && !state.hosts[host].hangs(now)
    };
    let deaf = |(host, i): (usize, &Container)| (waiting && keeps(host, i)).then(|| i.shown.runner.clone());
    let deaf: Vec<String> = state.live(set).filter_map(deaf).collect();
    // The job of a runner that died has its place at GitHub until that gives it up.
    let dead = |job: &JobRecord| job.silent.is_some() && matches!(job.state, JobState::Running { .. });
    let dead = state.github.sets[set].jobs.iter().any(dead);
    if state.watch.jobs.deaf[set].0 != deaf || dead {
        state.watch.jobs.deaf[set] = (deaf, now);
    }
    let (deaf, since) = state.watch.jobs.deaf[set].clone();
    let led = state.lives.iter().find(|life| life.alive && life.leads && !life.stopping);
    let Some(began) = led.map(|life| life.began) else { return };
    let busy = state.live(set).any(|(_, i)| is_busy(state, i));
    let since = [since, began, state.watch.fine, state.watch.edited[set]].into_iter().max();
    // ECS is late to show that it came up.
    let recycled = if state.setup.kind == Kind::Ecs { RECYCLED + ecs::SETTLES } else { RECYCLED };
    if !deaf.is_empty() && !busy && since.is_some_and(|since| between(since, now) > recycled) {
        let what = format!("jobs of set {set} wait, and {deaf:?} does not take them, and stays");
        state.violate(14, what);
    }
}

fn is_busy(state: &State, instance: &Container) -> bool {
    let known = state.github.registrations.get(&instance.registration);
    known.is_some_and(|r| r.state == Presence::Busy)
}

impl State {
    /// Notes the end of an instance that may be held against its host.
    pub fn note_end(&mut self, code: i64, made_at: Timestamp) {
        if code != 0 || between(made_at, self.now) < SHORT_LIFE {
            self.watch.jobs.failed = self.now;
        }
    }
}

/// The history breaks that rule where the bug is planted, and none where it is not.
pub fn only_the_bug_breaks(bug: Bug, rule: u8, history: (Setup, Vec<Step>)) {
    let (setup, steps) = history;
    let played = History { seed: 1, setup: setup.clone(), steps: steps.clone() };
    let violation = play(&played, &planted(bug), false).violation;
    assert_eq!(violation.as_ref().map(|v| v.rule), Some(rule), "{bug:?}: {violation:?}");
    holds(setup, steps);
}

fn queue(jobs: u32) -> Move {
    Queue { set: 0, jobs, seconds: 20, hangs: false }
}

#[test]
fn rule_13_jobs_that_come_during_a_long_pull_stay_in_the_queue() {
    for (broker, bug) in [(true, Some(Bug::AsksForAll)), (false, None)] {
        let mut setup = world(&[Some(4)], vec![set(0, 3, vec![backend(&[0], None)])]);
        setup.broker = broker;
        let steps = vec![
            after(0, HostPulls { host: 0, seconds: 1500 }),
            after(300, queue(2)),
            after(1100, queue(1)),
            after(300, Nothing),
        ];
        match bug {
            Some(bug) => only_the_bug_breaks(bug, 13, (setup, steps)),
            // Jobs are acquired there.
            None => holds(setup, steps),
        }
    }
}

#[test]
fn rule_13_jobs_that_come_while_the_only_host_refuses_stay_in_the_queue() {
    let steps = vec![
        after(5, HostStarts { host: 0, starts: Starts::Refused, seconds: 120 }),
        after(5, queue(1)),
        after(300, queue(2)),
        after(1200, Nothing),
    ];
    only_the_bug_breaks(
        Bug::AsksForAll,
        13,
        (world(&[Some(4)], vec![set(0, 3, vec![backend(&[0], None)])]), steps),
    );
}

#[test]
fn rule_14_a_burst_after_spares_were_dropped_starts_at_once() {
    let mut steps = vec![after(0, DropSpares { seconds: 3600 })];
    steps.extend((0..12).map(|_| after(300, queue(4))));
    only_the_bug_breaks(
        Bug::BlamesDrops,
        14,
        (world(&[Some(8)], vec![set(3, 8, vec![backend(&[0], None)])]), steps),
    );
}

#[test]
fn rule_14_runners_that_never_reach_github_are_recycled() {
    let steps = vec![
        after(0, HostStarts { host: 0, starts: Starts::Deaf, seconds: 120 }),
        after(150, Nothing),
        after(900, queue(3)),
        after(1500, Nothing),
        after(900, Nothing),
    ];
    only_the_bug_breaks(
        Bug::KeepsDeaf,
        14,
        (world(&[Some(4)], vec![set(2, 2, vec![backend(&[0], None)])]), steps),
    );
}
