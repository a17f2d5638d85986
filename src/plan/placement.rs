//! Where the next runners go: backends in order, on each the host with the largest free share.

use std::cmp::Reverse;
use std::collections::HashMap;

use jiff::Timestamp;

use super::{Action, BackendView, Input, StartGate};
use crate::api::Reason;
use crate::runner::{Availability, Failures, HostState, Ledger};

/// Where runners go, and what could not be placed.
#[derive(Debug, Default)]
pub(super) struct Placement {
    /// Starts, and what must go before them.
    pub actions: Vec<Action>,
    /// How many starts.
    pub placed: u32,
    /// How many runners are wanted and have no place.
    pub unplaced: u32,
    /// When a host may be tried again.
    pub requeue_at: Vec<Timestamp>,
}

/// Places `wanted` runners.
pub(super) fn place(input: &Input<'_>, wanted: u32) -> Placement {
    let mut placement = Placement::default();
    let closed = input.start_gate != StartGate::Open || held_back(input);
    for backend in input.backends {
        let mut room = Room::of(backend, input.ledger);
        prepare(input, backend, &mut placement);
        while !closed && placement.placed < wanted {
            let Some(host) = room.take() else { break };
            placement.actions.push(Action::Start { backend: backend.name.clone(), host });
            placement.placed += 1;
        }
    }
    placement.unplaced = wanted - placement.placed;
    placement
        .requeue_at
        .extend(input.ledger.failures().at_github(input.now).and_then(|streak| streak.retry_at));
    placement
}

/// How many runners there are places for, whether or not they can be started there now.
pub(super) fn places(input: &Input<'_>) -> u32 {
    let places = |backend: &BackendView| {
        let free = backend.hosts.iter().fold(0u32, |sum, host| sum.saturating_add(host.free_slots));
        free.min(ceiling(backend, input.ledger))
    };
    input.backends.iter().fold(0, |sum, backend| sum.saturating_add(places(backend)))
}

/// How many more runners a backend may have.
pub(super) fn ceiling(backend: &BackendView, ledger: &Ledger) -> u32 {
    let taken = ledger.runners().filter(|r| r.occupies() && r.backend == backend.name).count();
    let unseen = ledger.unseen(|name, _| name == backend.name);
    let taken = u32::try_from(taken).unwrap_or(u32::MAX).saturating_add(unseen);
    backend.max_runners.unwrap_or(u32::MAX).saturating_sub(taken)
}

/// Sets aside the hosts on which starts failed again and again, for as long as each is to be left alone.
pub fn set_aside(backends: &mut [BackendView], failures: &Failures, now: Timestamp) {
    for backend in backends {
        for host in &mut backend.hosts {
            let Some(streak) = failures.on_host(&backend.name, &host.name, now) else { continue };
            // The host's own word for the last of them does not tell how long this has gone on.
            let last = streak.last.as_ref().map(|last| last.reason);
            let told =
                matches!(host.availability, Availability::BackOff { reason, .. } if last == Some(reason));
            if told && streak.length > 0 {
                host.message = format!(
                    "{} starts in a row failed since {:.0}: {}",
                    streak.length, streak.since, host.message
                );
            }
            if host.availability != Availability::Ready {
                continue;
            }
            host.failures = streak.length;
            if let Some(until) = streak.retry_at.filter(|at| *at > now) {
                host.availability = Availability::BackOff { until, reason: Reason::StartFailures };
                host.message = streak.describe(now);
            }
        }
    }
}

/// Whether starts wait for a failure to be forgotten, or for the spec to change.
pub(super) fn held_back(input: &Input<'_>) -> bool {
    let streak = input.ledger.failures().at_github(input.now);
    streak.and_then(|streak| streak.retry_at).is_some_and(|at| at > input.now) || version_rejected(input)
}

/// Whether GitHub refused a runner of a template that is still the one to be started.
pub(super) fn version_rejected(input: &Input<'_>) -> bool {
    let rejected = input.ledger.failures().rejected_template();
    rejected.is_some_and(|hash| input.backends.iter().any(|b| b.template_hash == hash))
}

fn prepare(input: &Input<'_>, backend: &BackendView, placement: &mut Placement) {
    if input.policy.stands_down() {
        return;
    }
    for host in &backend.hosts {
        match host.availability {
            Availability::Unprepared => {}
            Availability::BackOff { until, .. } if until > input.now => {
                placement.requeue_at.push(until);
                continue;
            }
            Availability::BackOff { .. } => {}
            _ => continue,
        }
        placement.actions.push(Action::Prepare { backend: backend.name.clone(), host: host.name.clone() });
    }
}

/// The free places of one backend.
struct Room<'a> {
    ceiling: u32,
    /// The hosts that can take a start now.
    ready: Vec<Free<'a>>,
}

/// What is free on a host.
struct Free<'a> {
    host: &'a str,
    /// All slots, those that are taken too; `u32::MAX` where there is no limit.
    all: u32,
    /// `u32::MAX` where there is no limit.
    slots: u32,
    /// How many of the slots have an instance that is ready already.
    warm: u32,
    /// How many starts failed there in a row.
    failures: u32,
    /// The backend's runners there.
    runners: usize,
}

impl Free<'_> {
    /// Which share of all slots is free, in millionths.
    fn share(&self) -> u64 {
        u64::from(self.slots).saturating_mul(1_000_000) / u64::from(self.all.max(1))
    }
}

impl<'a> Room<'a> {
    fn of(backend: &'a BackendView, ledger: &Ledger) -> Room<'a> {
        let mut runners: HashMap<&str, usize> = HashMap::new();
        for runner in ledger.runners().filter(|r| r.occupies() && r.backend == backend.name) {
            *runners.entry(&runner.host).or_default() += 1;
        }
        let free = |host: &'a HostState| Free {
            host: &host.name,
            all: host.slots,
            slots: host.free_slots,
            warm: host.warm,
            failures: host.failures,
            runners: runners.get(host.name.as_str()).copied().unwrap_or_default(),
        };
        let ready = backend.hosts.iter().filter(|h| h.availability == Availability::Ready);
        Room { ceiling: ceiling(backend, ledger), ready: ready.map(free).collect() }
    }

    /// Takes a place on the host with the fewest failures and, among those, where an instance is ready already; else where the
    /// largest share of the slots is free, and of equal shares the most slots; else, as hosts without a limit are all alike,
    /// the fewest runners; else the first by name.
    fn take(&mut self) -> Option<String> {
        if self.ceiling == 0 {
            return None;
        }
        let free = self.ready.iter_mut().filter(|free| free.slots > 0);
        let best = free.max_by_key(|free| {
            let fewest = (Reverse(free.runners), Reverse(free.host));
            (Reverse(free.failures), free.warm > 0, free.share(), free.slots, fewest)
        })?;
        if best.slots < u32::MAX {
            best.slots -= 1;
        }
        best.warm = best.warm.saturating_sub(1);
        best.runners += 1;
        self.ceiling -= 1;
        Some(best.host.to_owned())
    }
}
