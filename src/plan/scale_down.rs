//! Which runners go: those over a timeout, those that jobs do not come to, those without demand, those of an old template.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::time::Duration;

use jiff::Timestamp;

use super::{Action, Bounds, Input, Removal, placement};
use crate::runner::{Operation, Phase, Registration, Runner};
use crate::time::Plus;

/// A runner may go on for so long after its job: it cleans up, and GitHub has been seen to call a job over that ran on.
const GRACE: Duration = Duration::from_secs(5 * 60);

/// Which runners go.
#[derive(Debug, Default)]
pub(super) struct ScaleDown {
    /// Removals.
    pub actions: Vec<Action>,
    /// The names of the runners that they remove.
    going: HashSet<String>,
    /// Idle runners without demand.
    pub surplus: Vec<String>,
    /// Runners to start beyond demand, so that an outdated one can go after its replacement is up.
    pub replacements: u32,
    /// When further ones are due, or may be tried again.
    pub requeue_at: Vec<Timestamp>,
}

impl ScaleDown {
    fn remove(&mut self, runner: &Runner, why: Removal) {
        self.going.insert(runner.name.clone());
        self.actions.push(Action::Remove { runner: runner.name.clone(), why });
    }

    fn requeue_at(&mut self, at: Timestamp) {
        self.requeue_at.push(at);
    }

    fn goes(&self, runner: &Runner) -> bool {
        self.going.contains(&runner.name)
    }
}

/// Decides which runners go. `idle_wanted` is how many are to be there beside the busy ones.
pub(super) fn scale_down(
    input: &Input<'_>,
    bounds: &Bounds,
    idle_wanted: u32,
    demand_known: bool,
) -> ScaleDown {
    let mut scale_down = ScaleDown::default();
    input
        .ledger
        .runners()
        .filter(|r| !r.occupies())
        .filter_map(|r| r.leaving.retry_at)
        .for_each(|at| scale_down.requeue_at(at));
    for runner in input.ledger.runners().filter(|r| r.occupies() && r.operation.is_none()) {
        match runner.leaving.retry_at {
            Some(at) if at > input.now => scale_down.requeue_at(at),
            // Once the drain is over, no other reason to go is as good.
            _ if drain_is_over(input) => {}
            _ => {
                if let Some(why) = overdue(input, runner, &mut scale_down) {
                    scale_down.remove(runner, why);
                }
            }
        }
    }
    if input.policy.stands_down() {
        stand_down(input, &mut scale_down);
    } else if demand_known || bounds.max == 0 {
        recycle_deaf(input, &mut scale_down);
        remove_surplus(input, idle_wanted, &mut scale_down);
        replace_outdated(input, bounds, idle_wanted, &mut scale_down);
    }
    scale_down
}

/// The timeout that a runner is over, if any; else notes when it will be.
fn overdue(input: &Input<'_>, runner: &Runner, scale_down: &mut ScaleDown) -> Option<Removal> {
    if runner.registration == Registration::Absent {
        return Some(Removal::Unregistered);
    }
    if runner.leaving.draining && runner.phase != Phase::Busy {
        return Some(Removal::HostRemoved);
    }
    if runner.leaving.host_lost && runner.phase != Phase::Busy {
        return Some(Removal::HostLost);
    }
    let policy = input.policy;
    let since_job = runner.work.job.as_ref().and_then(|j| j.runner_assigned_at).unwrap_or(runner.since);
    let over_since = runner.work.over_at.unwrap_or(input.now);
    // An engine that was killed while it started a container shows it so for ever: its end is not seen.
    let grace = if runner.seen.never_started { Duration::ZERO } else { GRACE };
    let limits: &[(Option<Duration>, Timestamp, Removal)] = match runner.phase {
        Phase::Pending if runner.seen.never_started => return Some(Removal::NeverStarted),
        Phase::Pending => {
            &[(Some(policy.start_timeout(&runner.backend)), runner.since, Removal::StartTimeout)]
        }
        Phase::Idle => &[
            (policy.idle_timeout, runner.since, Removal::IdleTimeout),
            (policy.lifetime, runner.created_at, Removal::Lifetime),
        ],
        Phase::Busy => &[
            (policy.job_timeout, since_job, Removal::JobTimeout),
            (runner.work.over_at.map(|_| grace), over_since, Removal::LingeringAfterJob),
        ],
        Phase::Done | Phase::Failed => &[],
    };
    for (limit, since, why) in limits {
        let Some(limit) = *limit else {
            continue;
        };
        let due = match why {
            // A job is not stopped because someone set the clock.
            Removal::JobTimeout => runner.work.busy.due(*since, limit, input.now),
            _ => since.plus(limit),
        };
        if due <= input.now {
            return Some(*why);
        }
        scale_down.requeue_at(due);
    }
    None
}

fn drain_is_over(input: &Input<'_>) -> bool {
    input.policy.drain_until.is_some_and(|until| until <= input.now)
}

/// Suspended, not permitted or being deleted: idle runners go at once, busy ones when the drain is over.
fn stand_down(input: &Input<'_>, scale_down: &mut ScaleDown) {
    let expired = drain_is_over(input);
    if let Some(until) = input.policy.drain_until.filter(|until| *until > input.now) {
        scale_down.requeue_at(until);
    }
    let why = match (input.policy.drain_until, expired) {
        (Some(_), true) => Removal::DrainExpired,
        (Some(_), false) => Removal::Deleted,
        (None, _) if input.policy.refused.is_some() => Removal::NotPermitted,
        (None, _) => Removal::Suspended,
    };
    // What waits for its host to be ready may be given up at any time: there is nothing of it yet.
    let free = |r: &&Runner| matches!(r.operation, None | Some(Operation::Preparing));
    for runner in input.ledger.runners().filter(|r| r.occupies()).filter(free) {
        let ready = runner.leaving.retry_at.is_none_or(|at| at <= input.now);
        // While an object is deleted nobody listens any more: asking for the removal of a busy runner tells whether it still is.
        let asked = runner.phase != Phase::Busy || input.policy.drain_until.is_some();
        if ready && asked && !scale_down.goes(runner) {
            scale_down.remove(runner, why);
        }
    }
}

/// Of idle runners that leave assigned jobs alone, and have done so for minutes, the oldest goes.
fn recycle_deaf(input: &Input<'_>, scale_down: &mut ScaleDown) {
    let ready = |r: &&Runner| r.operation.is_none() && r.leaving.retry_at.is_none_or(|at| at <= input.now);
    let idle = input.ledger.runners().filter(|r| r.serves() && r.phase == Phase::Idle && !scale_down.goes(r));
    let due = |r: &'_ Runner| Some((input.ledger.demand().recycling_due(r)?, r.since, r.name.clone()));
    let Some((at, _, name)) = idle.filter(ready).filter_map(due).min() else { return };
    match input.ledger.runner(&name).filter(|_| at <= input.now) {
        Some(oldest) => scale_down.remove(oldest, Removal::NeverConnected),
        None => scale_down.requeue_at(at),
    }
}

/// Idle runners without demand go after the delay: those of the last backend first, and of one backend the oldest first. None
/// goes on account of one that no host shows.
fn remove_surplus(input: &Input<'_>, idle_wanted: u32, scale_down: &mut ScaleDown) {
    let waits = |r: &&Runner| r.serves() && r.phase != Phase::Busy && !r.is_hidden() && !scale_down.goes(r);
    let waiting: Vec<&Runner> = input.ledger.runners().filter(waits).collect();
    let surplus = waiting.len().saturating_sub(idle_wanted as usize);
    if surplus == 0 {
        return;
    }
    let mut idle: Vec<&Runner> =
        waiting.into_iter().filter(|r| r.phase == Phase::Idle && r.operation.is_none()).collect();
    let place = |r: &Runner| input.backends.iter().position(|b| b.name == r.backend).unwrap_or(usize::MAX);
    idle.sort_by(|a, b| place(b).cmp(&place(a)).then_with(|| by_age(a, b)));
    for runner in idle.into_iter().take(surplus) {
        scale_down.surplus.push(runner.name.clone());
        let due = runner.leaving.surplus_since.unwrap_or(input.now).plus(input.policy.scale_down_delay);
        if due > input.now {
            scale_down.requeue_at(due);
        } else if runner.leaving.retry_at.is_none_or(|at| at <= input.now) {
            scale_down.remove(runner, Removal::Surplus);
        }
    }
}

/// Idle runners of an old template go as far as the budget and their replacements allow.
fn replace_outdated(input: &Input<'_>, bounds: &Bounds, idle_wanted: u32, scale_down: &mut ScaleDown) {
    let idle: Vec<&Runner> = input
        .ledger
        .runners()
        .filter(|r| r.serves() && r.phase == Phase::Idle && !scale_down.goes(r))
        .collect();
    let mut outdated: Vec<&Runner> = idle
        .iter()
        .copied()
        .filter(|r| r.operation.is_none() && super::is_outdated(r, input.backends))
        .collect();
    if outdated.is_empty() {
        return;
    }
    outdated.sort_by(by_age);
    let budget = input.policy.max_unavailable.of(idle_wanted as usize);
    let unseen = input.ledger.unseen(|_, _| true) as usize;
    let occupying = input.ledger.runners().filter(|r| r.occupies()).count() + unseen;
    let headroom = (bounds.max as usize).saturating_sub(occupying).min(placement::places(input) as usize);
    let pending = input.ledger.runners().filter(|r| r.serves() && r.phase == Phase::Pending).count();
    let going = |r: &&Runner| r.phase == Phase::Idle && (!r.serves() || scale_down.goes(r));
    let going = input.ledger.runners().filter(going).count();

    // Where the ceilings allow, the replacement comes first; where they do not, the budget is what may be missing.
    let surge = budget.min(outdated.len());
    let needed = match headroom + pending {
        0 => (idle.len() + going).min(idle_wanted as usize).saturating_sub(budget),
        _ => idle_wanted as usize,
    };
    let removable = idle.len().saturating_sub(needed).min(budget.saturating_sub(going));
    scale_down.replacements = u32::try_from(surge).unwrap_or(u32::MAX);
    for runner in outdated.into_iter().take(removable) {
        if runner.leaving.retry_at.is_none_or(|at| at <= input.now) {
            scale_down.remove(runner, Removal::Outdated);
        }
    }
}

/// Orders runners, the oldest first.
fn by_age(a: &&Runner, b: &&Runner) -> Ordering {
    a.created_at.cmp(&b.created_at).then_with(|| a.name.cmp(&b.name))
}
