//! Decisions, and nothing else: what is to be done about one scale set now, and why not more. No IO, and no clock of
//! its own.

mod action;
mod capacity;
mod counts;
mod demand_status;
mod input;
mod placement;
mod policy;
mod scale_down;
mod schedule;
mod waiting;

use jiff::Timestamp;

use crate::api::Explanation;
use crate::runner::Runner;
use counts::Counts;

pub use action::{Action, Removal};
pub use demand_status::DemandStatus;
pub use input::{BackendView, Input, StartGate, is_outdated};
pub use placement::set_aside;
pub use policy::{Bounds, Policy};
pub use schedule::Schedule;
pub use waiting::Waiting;

/// What is to be done, and why not more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// min(maxRunners, minRunners + assigned jobs), schedule applied.
    pub desired: u32,
    /// The bounds that hold now.
    pub bounds: Bounds,
    /// What to do.
    pub actions: Vec<Action>,
    /// Idle runners for which there is no demand.
    pub surplus: Vec<String>,
    /// For how many runners a slot is wanted on each host.
    pub waiting: Vec<Waiting>,
    /// How many jobs the set can have in hand: what each poll tells GitHub.
    pub capacity: u32,
    /// Whether each assigned job has a runner, or why not.
    pub demand_status: DemandStatus,
    /// Why there are fewer runners than `minRunners`, where the hosts, or what runs there, are the cause.
    pub short: Option<Explanation>,
    /// What all hosts of all backends say, where each refuses to work until something is changed.
    pub refused: Option<Explanation>,
    /// What keeps the controller from all hosts of all backends, where none answers.
    pub unreachable: Option<Explanation>,
    /// When time alone changes the decision.
    pub requeue_at: Option<Timestamp>,
}

/// Decides.
pub fn plan(input: &Input<'_>) -> Plan {
    let bounds = input.policy.bounds(input.now);
    let assigned = input.ledger.demand().assigned();
    let counts = Counts::of(input.ledger).without_finished(assigned);
    let desired = bounds.max.min(bounds.min.saturating_add(assigned.unwrap_or(0)));
    let idle_wanted = desired.saturating_sub(counts.busy);

    let scale_down = scale_down::scale_down(input, &bounds, idle_wanted, assigned.is_some());
    let wanted = desired.saturating_add(scale_down.replacements);
    let deficit = wanted.saturating_sub(counts.serving).min(bounds.max.saturating_sub(counts.occupying));
    let placement = placement::place(input, if input.policy.stands_down() { 0 } else { deficit });
    let headroom = bounds.max.saturating_sub(counts.occupying.saturating_add(placement.placed));
    let capacity = capacity::capacity(input, &bounds, &counts);
    let waiting = waiting::waiting(input, &placement, headroom, capacity.jobs);
    let demand_status = demand_status::status(input, &bounds, assigned, &counts, &placement);
    let short = demand_status::short(input, &bounds, &counts, &placement);
    let unreachable = demand_status::unreachable(input, &bounds);

    let mut requeue_at = scale_down.requeue_at;
    requeue_at.extend(placement.requeue_at);
    requeue_at.extend(bounds.until);
    requeue_at.extend(capacity.requeue_at);
    requeue_at.extend(input.ledger.demand().settles_at());
    let mut actions: Vec<Action> =
        input.ledger.runners().filter(|r| to_collect(r, input.now)).map(collect).collect();
    actions.extend(scale_down.actions);
    actions.extend(placement.actions);
    Plan {
        desired: if input.policy.stands_down() { 0 } else { desired },
        bounds,
        actions,
        surplus: scale_down.surplus,
        waiting,
        capacity: capacity.jobs,
        demand_status,
        short,
        refused: demand_status::refused(input),
        unreachable,
        requeue_at: requeue_at.into_iter().filter(|at| *at > input.now).min(),
    }
}

fn to_collect(runner: &Runner, now: Timestamp) -> bool {
    !runner.occupies() && runner.operation.is_none() && runner.leaving.retry_at.is_none_or(|at| at <= now)
}

fn collect(runner: &Runner) -> Action {
    Action::Collect { runner: runner.name.clone() }
}

#[cfg(test)]
mod tests;
