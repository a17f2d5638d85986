//! Whether each assigned job has a runner, or why one waits.

use super::placement::{Placement, ceiling, version_rejected};
use super::{Action, BackendView, Bounds, Counts, Input, StartGate, capacity};
use crate::api::{Explanation, Reason};
use crate::runner::{Availability, HostState};

/// The answer to "why does my job wait?".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DemandStatus {
    /// Whether no assigned job waits for a runner that could not be placed; none when the demand is not known.
    pub met: Option<bool>,
    /// Why.
    pub explanation: Explanation,
}

impl DemandStatus {
    fn unmet(explanation: Explanation) -> DemandStatus {
        DemandStatus { met: Some(false), explanation }
    }
}

pub(super) fn status(
    input: &Input<'_>,
    bounds: &Bounds,
    assigned: Option<u32>,
    counts: &Counts,
    placement: &Placement,
) -> DemandStatus {
    let Some(assigned) = assigned else {
        let explanation = match &input.start_gate {
            StartGate::Closed(explanation) => explanation.clone(),
            StartGate::Open => Explanation::new(Reason::NoReading, "GitHub has not told the demand yet"),
        };
        return DemandStatus { met: None, explanation };
    };
    let waiting = assigned.saturating_sub(placed(input, counts, placement));
    if let (0, Some(since)) = (waiting, input.ledger.demand().phantom_since(input.now)) {
        let message = format!(
            "idle runners leave assigned jobs alone since {since:.0}; they are recycled one at a time"
        );
        return DemandStatus::unmet(Explanation::new(Reason::PhantomDemand, message));
    }
    if waiting == 0 && left_at_github(input) > 0 {
        let Explanation { reason, message } = explain(input, bounds, counts, placement);
        let message = format!("{} offered jobs are left at GitHub: {message}", left_at_github(input));
        return DemandStatus::unmet(Explanation { reason, message });
    }
    if waiting == 0 {
        let explanation = Explanation::new(Reason::AsExpected, "");
        return DemandStatus { met: Some(true), explanation };
    }
    let Explanation { reason, message } = explain(input, bounds, counts, placement);
    let message = format!("{waiting} of {assigned} assigned jobs wait: {message}");
    DemandStatus::unmet(Explanation { reason, message })
}

/// How many jobs GitHub offers that are not asked for, as no runner could be started for them.
fn left_at_github(input: &Input<'_>) -> u32 {
    let offered = input.ledger.demand().latest().map_or(0, |(statistics, _)| statistics.available);
    if input.policy.stands_down() || capacity::can_start(input) { 0 } else { offered }
}

/// Why there are fewer runners than `minRunners`, unless it is said elsewhere.
pub(super) fn short(
    input: &Input<'_>,
    bounds: &Bounds,
    counts: &Counts,
    placement: &Placement,
) -> Option<Explanation> {
    // What still takes a slot makes room for another: that is no want.
    let there = if failing(input) { counts.up } else { counts.occupying + placement.placed };
    let lacking = bounds.min.min(bounds.max).saturating_sub(there);
    let open = input.start_gate == StartGate::Open && !input.policy.stands_down();
    if lacking == 0 || !open || version_rejected(input) {
        return None;
    }
    let Explanation { reason, message } = explain(input, bounds, counts, placement);
    let message = format!("{lacking} of minRunners {} are missing: {message}", bounds.min);
    Some(Explanation { reason, message })
}

/// What the hosts say, where each of all backends refuses to work until something is changed.
pub(super) fn refused(input: &Input<'_>) -> Option<Explanation> {
    let said = said_where_all_are(input, &Availability::Refused)?;
    Some(Explanation::new(Reason::BackendRefused, said))
}

/// What keeps one from the hosts, where none of any backend answers and a runner may be wanted.
pub(super) fn unreachable(input: &Input<'_>, bounds: &Bounds) -> Option<Explanation> {
    let said = said_where_all_are(input, &Availability::Unreachable)?;
    let may_start = input.start_gate == StartGate::Open && !input.policy.stands_down() && bounds.max > 0;
    may_start.then(|| Explanation::new(Reason::HostUnreachable, format!("no host answers: {said}")))
}

fn said_where_all_are(input: &Input<'_>, availability: &Availability) -> Option<String> {
    let hosts = || input.backends.iter().flat_map(|b| b.hosts.iter().map(move |h| (b, h)));
    let all = hosts().count() > 0 && hosts().all(|(_, h)| h.availability == *availability);
    all.then(|| hosts().map(|(b, h)| said_by(b, h)).collect::<Vec<_>>().join("; "))
}

/// Why a host takes no runner, in words; in ours where it has none.
fn said_by(backend: &BackendView, host: &HostState) -> String {
    let message = match (host.message.as_str(), &host.availability) {
        ("", Availability::Unprepared | Availability::Preparing { .. }) => "it is made ready for the runner",
        ("", Availability::BackOff { .. }) => "it is left alone for a while",
        ("", Availability::Unreachable) => "it does not answer",
        ("", Availability::Refused) => "it refuses the runner",
        (message, _) => message,
    };
    format!("{}/{}: {message}", backend.name, host.name)
}

/// How many runners are there or come. While starts fail, a start that is under way is a hope and no runner.
fn placed(input: &Input<'_>, counts: &Counts, placement: &Placement) -> u32 {
    if failing(input) { counts.up } else { counts.serving + placement.placed }
}

fn explain(input: &Input<'_>, bounds: &Bounds, counts: &Counts, placement: &Placement) -> Explanation {
    if let Some(why) = &input.policy.refused {
        return why.clone();
    }
    if input.policy.stands_down() {
        return Explanation::new(Reason::Suspended, "the set takes no new jobs");
    }
    if let StartGate::Closed(explanation) = &input.start_gate {
        return explanation.clone();
    }
    if version_rejected(input) {
        let message =
            "GitHub refuses this version of the runner; no runner is started until the spec changes";
        return Explanation::new(Reason::RunnerVersionRejected, message);
    }
    if let Some(streak) = input.ledger.failures().at_github(input.now) {
        return Explanation::new(Reason::StartFailures, streak.describe(input.now));
    }
    if failing(input) {
        return start_failures(input);
    }
    if counts.occupying + placement.placed >= bounds.max {
        return Explanation::new(Reason::AtMaxRunners, format!("maxRunners is {}", bounds.max));
    }
    let all = input.backends.iter().map(|backend| of_backend(input, backend, placement));
    let (reasons, said): (Vec<(u8, Reason)>, Vec<String>) = all.unzip();
    let reason = reasons.into_iter().min_by_key(|(rank, _)| *rank).map(|(_, reason)| reason);
    Explanation::new(reason.unwrap_or(Reason::NoCapacity), said.join("; "))
}

/// Why a backend takes no more: its own ceiling, else what its hosts say, what passes by itself before what needs a hand. The
/// lower the number beside the reason, the sooner that backend may take another.
fn of_backend(input: &Input<'_>, backend: &BackendView, placement: &Placement) -> ((u8, Reason), String) {
    let begun = |a: &&Action| matches!(a, Action::Start { backend: name, .. } if *name == backend.name);
    let left = ceiling(backend, input.ledger) as usize;
    if let Some(max) = backend.max_runners.filter(|_| placement.actions.iter().filter(begun).count() >= left)
    {
        return ((4, Reason::NoCapacity), format!("maxRunners of backend {} is {max}", backend.name));
    }
    let rank = |host: &HostState| match &host.availability {
        Availability::Preparing { .. } | Availability::Unprepared => Some((0, Reason::ImagePulling)),
        Availability::BackOff { reason, .. } => Some((1, *reason)),
        Availability::Unreachable => Some((2, Reason::HostUnreachable)),
        Availability::Refused => Some((3, Reason::BackendRefused)),
        Availability::Ready => None,
    };
    let of_hosts = backend.hosts.iter().filter_map(|host| Some((rank(host)?, host)));
    match of_hosts.min_by_key(|((rank, _), _)| *rank) {
        Some((rank, host)) => (rank, said_by(backend, host)),
        None if input.backends.len() == 1 => ((4, Reason::NoCapacity), "no host has a free slot".to_owned()),
        None => ((4, Reason::NoCapacity), format!("no host of backend {} has a free slot", backend.name)),
    }
}

/// Whether starts fail wherever they can be made.
fn failing(input: &Input<'_>) -> bool {
    let failures = input.ledger.failures();
    let hosts = || input.backends.iter().flat_map(|b| b.hosts.iter().map(move |h| (b, h)));
    failures.at_github(input.now).is_some()
        || (hosts().any(|(b, h)| failures.on_host(&b.name, &h.name, input.now).is_some())
            && hosts().all(|(b, h)| {
                h.availability != Availability::Ready
                    || failures.on_host(&b.name, &h.name, input.now).is_some()
            }))
}

fn start_failures(input: &Input<'_>) -> Explanation {
    let failures = input.ledger.failures();
    let streak = |(backend, host): (&str, &str)| {
        failures
            .on_host(backend, host, input.now)
            .map(|streak| format!("{backend}/{host}: {}", streak.describe(input.now)))
    };
    let hosts =
        input.backends.iter().flat_map(|b| b.hosts.iter().map(move |h| (b.name.as_str(), h.name.as_str())));
    Explanation::new(Reason::StartFailures, hosts.filter_map(streak).collect::<Vec<_>>().join("; "))
}
