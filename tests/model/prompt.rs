//! What must come about in time, when nothing stands in its way: wanted runners, and the end of what has ended.

use std::time::Duration;

use paddock::runner::InstanceState;

use crate::hosts::Container;
use crate::sim::{State, between};
use crate::{left_out, rules};

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
    let Some(object) = state.cluster.objects[set].clone() else { return };
    let Some(memory) = state.lives.iter().rev().find(|life| life.alive && life.leads && !life.stopping)
    else {
        return;
    };
    let (demand, serving, since) = state.watch.calm[set];
    let told = memory.told[set].filter(|(told, _)| *told == state.github.count(set).assigned);
    let Some((_, told)) = told else { return };
    let undisturbed = [since, told, memory.began, state.watch.fine, state.watch.edited[set]];
    if (demand, serving) != rules::balance(state, set)
        || undisturbed.iter().any(|at| between(*at, now) <= STARTED)
    {
        return;
    }
    let max = rules::ceiling(&object);
    let wanted = max.min(object.spec.min_runners.unsigned_abs() + demand);
    let live: Vec<(usize, &Container)> = state.live(set).collect();
    let room = object.spec.backends.iter().any(|backend| {
        let here = live.iter().filter(|(_, i)| i.shown.backend == backend.name).count();
        let free = |host: usize| {
            let host = &state.hosts[host];
            !host.refused && host.slots.is_none_or(|slots| host.live().count() < slots as usize)
        };
        backend.max_runners.is_none_or(|max| here < max.unsigned_abs() as usize)
            && left_out::hosts(backend).any(free)
    });
    if serving < wanted && live.len() < max as usize && room {
        state
            .violate(0, format!("set {set} has {serving} runners, {wanted} are wanted, and none is started"));
    }
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
        i.ours() && i.set == set && named && seen && removes && exit.at + REMOVED < now
    };
    let left = state.instances().find(over).map(|(host, i)| (host, i.shown.runner.clone()));
    if let Some((host, name)) = left {
        state.violate(
            4,
            format!("{name} has ended, and is still on host {host} {} s later", REMOVED.as_secs()),
        );
    }
}
