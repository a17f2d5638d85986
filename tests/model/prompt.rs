//! What must come about in time, when nothing stands in its way: wanted runners, and the end of what has ended.

use std::time::Duration;

use paddock::runner::InstanceState;

use crate::github::Presence;
use crate::history::Kind;
use crate::hosts::{Container, Place};
use crate::life::Memory;
use crate::sim::{State, between};
use crate::{ecs, left_out, rules};

/// Runners that are wanted, and for which there is room, are there after this at the latest: as long as a host is ever set
/// aside, and as long again.
const STARTED: Duration = Duration::from_secs(600);
/// A set is undisturbed when nothing went wrong for this long: what was to be tried again has been.
const UNDISTURBED: Duration = Duration::from_secs(90);
/// What ended is removed in this time.
const REMOVED: Duration = Duration::from_secs(15);

pub fn look(state: &mut State, set: usize) {
    unmet(state, set);
    lingering(state, set);
}

/// Fewer runners than are wanted, and it has been so for long.
fn unmet(state: &mut State, set: usize) {
    let now = state.now;
    let mut lacking = lacking(state, set);
    // Where a start takes a minute, one is always on its way.
    let started = |life: &Memory| life.minted[set].last().is_some_and(|at| between(*at, now) < UNDISTURBED);
    if state.setup.kind != Kind::Docker && state.lives.iter().any(started) {
        lacking = None;
    }
    let since = &mut state.watch.unmet[set];
    *since = lacking.as_ref().map(|_| since.unwrap_or(now));
    let (Some(what), Some(since)) = (lacking, *since) else { return };
    let undisturbed = [since, state.watch.steady, state.watch.edited[set]];
    if undisturbed.iter().all(|at| between(*at, now) > STARTED) {
        state.violate(0, format!("set {set} {what}, and none is started"));
    }
}

/// What a set lacks though there is room for it, as its controller has been told.
fn lacking(state: &State, set: usize) -> Option<String> {
    let object = state.cluster.objects[set].clone()?;
    let leads = |life: &Memory| life.alive && life.leads && !life.stopping;
    let leader = state.lives.iter().rposition(leads)?;
    let memory = &state.lives[leader];
    memory.told[set].filter(|(told, _)| *told == state.github.count(set).assigned)?;
    let (demand, serving) = rules::balance(state, set);
    // What an earlier controller had deregistered looks like any other until GitHub is asked about it.
    let by_another = |i: &Container| i.deregistered.is_some_and(|life| life != leader);
    let looks = state.live(set).filter(|(_, i)| by_another(i)).count();
    // What was counted on where a Mac is lost is not, unless it has a job.
    let lost = |(host, i): &&(usize, &Container)| {
        let known = state.github.registrations.get(&i.registration);
        state.is_lost(leader, *host) && known.is_none_or(|runner| runner.state != Presence::Busy)
    };
    let live: Vec<(usize, &Container)> = state.live(set).collect();
    let registered = |i: &Container| state.github.registrations.contains_key(&i.registration);
    let lost_serving = live.iter().filter(|at| lost(at) && registered(at.1)).count();
    let live: Vec<(usize, &Container)> = live.iter().filter(|at| !lost(at)).copied().collect();
    let serving = serving as usize + looks - lost_serving;
    let max = rules::ceiling(&object);
    let wanted = max.min(object.spec.min_runners.unsigned_abs() + demand);
    let coming = memory.places.values().filter(|place| place.set == set && !place.made).count();
    let room = object.spec.backends.iter().any(|backend| {
        let here = live.iter().filter(|(_, i)| i.shown.backend == backend.name).count();
        let of_backend = |place: &&Place| place.set == set && !place.made && place.backend == backend.name;
        let here = here + memory.places.values().filter(of_backend).count();
        let free = |host: usize| {
            let (lost, in_the_way) = (state.is_lost(leader, host), state.in_the_way(host, set));
            let host = &state.hosts[host];
            let taken = host.live().count() + in_the_way;
            !host.refused && !lost && host.slots.is_none_or(|slots| taken < slots as usize)
        };
        backend.max_runners.is_none_or(|max| here < max.unsigned_abs() as usize)
            && left_out::hosts(backend).any(free)
    });
    // GitHub has let go of them, and their host does not let them end: nobody can know.
    let hidden = |(host, i): &&(usize, &Container)| {
        !by_another(i) && state.hangs(*host) && !state.github.registrations.contains_key(&i.registration)
    };
    let known = serving + coming + live.iter().filter(hidden).count() + ecs::shown_on(state, leader, set);
    let missing = known < wanted as usize && live.len() + coming < max as usize;
    (missing && room).then(|| format!("has {serving} runners of {wanted} that are wanted"))
}

/// A runner that ended and that is not cleared away.
fn lingering(state: &mut State, set: usize) {
    let now = state.now;
    let Some(object) = &state.cluster.objects[set] else { return };
    if between(state.watch.fine, now) <= UNDISTURBED {
        return;
    }
    let Some(memory) = state.lives.iter().rev().find(|life| life.alive && life.leads && !life.stopping)
    else {
        return;
    };
    if between(memory.began, now) <= UNDISTURBED {
        return;
    }
    let over = |(host, i): &(usize, &Container)| {
        let InstanceState::Exited(exit) = &i.shown.state else { return false };
        let seen = memory.views[*host].misled.is_none_or(|at| between(at, now) > UNDISTURBED);
        let removes = state.hosts[*host].hangs_until.is_none_or(|until| until + UNDISTURBED < now);
        // Where the spec leaves a host out it may have been given up, and is looked at again after a while.
        let named = left_out::names(object, *host);
        // Its start may still be under way, or its answer may have come only now.
        let held = memory.places.values().any(|place| place.runner.as_ref() == Some(&i.shown.runner));
        let ours = i.ours() && i.set == set && !held && !i.disowned;
        let since = i.answered_at.map_or(exit.at, |at| at.max(exit.at));
        ours && named && seen && removes && since + REMOVED < now
    };
    let left = state.instances().find(over).map(|(host, i)| (host, i.shown.runner.clone()));
    if let Some((host, name)) = left {
        state.violate(
            4,
            format!("{name} has ended, and is still on host {host} {} s later", REMOVED.as_secs()),
        );
    }
}
