//! For how many runners a slot is wanted on each host that could start them, were one free.

use super::placement::{Placement, ceiling, held_back};
use super::{Action, BackendView, Input, StartGate};
use crate::runner::{Availability, HostState};

/// Runners for which a slot is wanted on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The backend.
    pub backend: String,
    /// The host.
    pub host: String,
    /// How many; none on a host that could not start any.
    pub runners: u32,
}

/// Counts the runners that have no place, and those for jobs that GitHub holds back for want of capacity: at most
/// `headroom` in all, beyond those that are placed now. A set that has room for no job at all hears of none: one slot is wanted
/// to ask with, lest those that have jobs take each slot that comes free.
pub(super) fn waiting(
    input: &Input<'_>,
    placement: &Placement,
    headroom: u32,
    capacity: u32,
) -> Vec<Waiting> {
    let held_back_jobs = input.ledger.demand().latest().map_or(0, |(statistics, _)| statistics.available);
    let closed = input.start_gate != StartGate::Open || held_back(input) || input.policy.stands_down();
    let known = placement.unplaced.saturating_add(held_back_jobs);
    let wanted = match closed {
        true => 0,
        false => known.max(u32::from(capacity == 0)).min(headroom),
    };
    let on = |backend: &BackendView, most: u32, host: &HostState| {
        let runners = if host.availability == Availability::Ready { wanted.min(most) } else { 0 };
        Waiting { backend: backend.name.clone(), host: host.name.clone(), runners }
    };
    let of = |backend: &'_ BackendView| {
        let begun = |a: &&Action| matches!(a, Action::Start { backend: name, .. } if *name == backend.name);
        let begun = u32::try_from(placement.actions.iter().filter(begun).count()).unwrap_or(u32::MAX);
        let most = ceiling(backend, input.ledger).saturating_sub(begun);
        backend.hosts.iter().map(|host| on(backend, most, host)).collect::<Vec<_>>()
    };
    input.backends.iter().flat_map(of).collect()
}
