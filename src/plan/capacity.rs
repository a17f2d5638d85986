//! How many jobs the set can have in hand: what each poll tells GitHub, and what limits the jobs that are acquired.

use std::time::Duration;

use jiff::Timestamp;

use super::placement::{ceiling, version_rejected};
use super::{BackendView, Bounds, Counts, Input, StartGate};
use crate::runner::{Availability, HostState, Phase, Runner};
use crate::time::Plus;

/// GitHub takes an assigned job back when no runner takes it within 5 minutes, and cancels it after the third time; one
/// that is not assigned waits for a day. So a job is asked for only if its runner can be begun well within that time.
const SOON: Duration = Duration::from_secs(120);

/// How many jobs the set can have in hand.
#[derive(Debug, Default)]
pub(super) struct Capacity {
    /// Runners that serve, and those that can be started within two minutes.
    pub jobs: u32,
    /// When time alone changes that.
    pub requeue_at: Vec<Timestamp>,
}

/// Counts what there is and what can be started soon.
pub(super) fn capacity(input: &Input<'_>, bounds: &Bounds, counts: &Counts) -> Capacity {
    let mut capacity = Capacity::default();
    if input.policy.stands_down() {
        capacity.jobs = counts.busy;
        return capacity;
    }
    let (mut places, mut freed) = (0u32, 0u32);
    if starts_soon(input, &mut capacity) {
        let freeing = freeing(input, &mut capacity);
        for backend in input.backends {
            let hosts: Vec<&HostState> = backend
                .hosts
                .iter()
                .filter(|host| host_starts_soon(host, input.now, &mut capacity))
                .collect();
            let freed_here = freed_on(&freeing, backend, &hosts);
            let free = hosts.iter().fold(freed_here, |sum, host| sum.saturating_add(host.free_slots));
            let most = ceiling(backend, input.ledger).saturating_add(freed_here);
            places = places.saturating_add(free.min(most));
            freed += freed_here;
        }
    }
    let headroom = bounds.max.saturating_sub(counts.occupying.saturating_sub(freed));
    let serving = counts.serving.saturating_sub(missing(input));
    capacity.jobs = bounds.max.min(serving.saturating_add(places.min(headroom)));
    capacity
}

/// Counts runners without a job that their host, listed as a whole, has not shown: they keep their slot until it does so
/// again, which is long where the host goes silent, and no job is asked for on their account.
fn missing(input: &Input<'_>) -> u32 {
    let missing = |r: &&Runner| r.serves() && r.phase != Phase::Busy && r.seen.missing_since.is_some();
    u32::try_from(input.ledger.runners().filter(missing).count()).unwrap_or(u32::MAX)
}

/// Whether runners can be started at all within two minutes, wherever there is a place.
pub(super) fn can_start(input: &Input<'_>) -> bool {
    let mut unused = Capacity::default();
    starts_soon(input, &mut unused)
        && input.backends.iter().any(|b| b.hosts.iter().any(|h| host_starts_soon(h, input.now, &mut unused)))
}

fn starts_soon(input: &Input<'_>, capacity: &mut Capacity) -> bool {
    let held_back_until = input.ledger.failures().at_github(input.now).and_then(|streak| streak.retry_at);
    input.start_gate == StartGate::Open
        && !version_rejected(input)
        && held_back_until.is_none_or(|until| capacity.comes_soon(until, input.now))
}

/// How long a pull takes cannot be told: it is hoped for at first.
fn host_starts_soon(host: &HostState, now: Timestamp, capacity: &mut Capacity) -> bool {
    match host.availability {
        Availability::Ready | Availability::Unprepared => true,
        Availability::Preparing { since } => capacity.is_recent(since, now),
        Availability::BackOff { until, .. } => capacity.comes_soon(until, now),
        Availability::Refused | Availability::Unreachable => false,
    }
}

/// Runners whose slots are about to be free: their job is over, or they are being removed.
fn freeing<'a>(input: &Input<'a>, capacity: &mut Capacity) -> Vec<&'a Runner> {
    let leaving = input.ledger.runners().filter(|r| r.occupies() && !r.serves());
    leaving.filter(|r| r.leaving.since.is_none_or(|since| capacity.is_recent(since, input.now))).collect()
}

fn freed_on(freeing: &[&Runner], backend: &BackendView, hosts: &[&HostState]) -> u32 {
    let here = |r: &&&Runner| r.backend == backend.name && hosts.iter().any(|host| host.name == r.host);
    u32::try_from(freeing.iter().filter(here).count()).unwrap_or(u32::MAX)
}

impl Capacity {
    /// Whether a time is not more than two minutes away; else notes when it will not be.
    fn comes_soon(&mut self, at: Timestamp, now: Timestamp) -> bool {
        let soon = at <= now.plus(SOON);
        if !soon {
            self.requeue_at.extend(at.checked_sub(SOON).ok());
        }
        soon
    }

    /// Whether a time is less than two minutes ago, and notes until when.
    fn is_recent(&mut self, since: Timestamp, now: Timestamp) -> bool {
        let until = since.plus(SOON);
        self.requeue_at.push(until);
        until > now
    }
}
