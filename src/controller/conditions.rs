//! The conditions, from what is known.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::api::condition::{self, reason};
use crate::github::{ListenState, WantedScaleSet};
use crate::plan::{DemandStatus, Plan};
use crate::scale_set::{Registration, ScaleSetState};

/// What is wanted, and what is so.
pub(super) struct Facts<'a> {
    pub state: &'a ScaleSetState,
    /// What should be registered.
    pub wanted: Option<&'a WantedScaleSet>,
    /// The object's generation.
    pub generation: Option<i64>,
    /// The object is being deleted.
    pub deleting: bool,
    /// Idle runners of an old template.
    pub outdated: usize,
    pub plan: Option<&'a Plan>,
    pub now: Timestamp,
}

/// True, False or Unknown, and why.
struct Finding {
    holds: Option<bool>,
    reason: &'static str,
    message: String,
}

impl Finding {
    fn new(holds: bool, reason: &'static str, message: impl Into<String>) -> Finding {
        Finding { holds: Some(holds), reason, message: message.into() }
    }

    fn well() -> Finding {
        Finding::new(true, reason::AS_EXPECTED, "")
    }
}

/// All conditions, each with the time since when it holds.
pub(super) fn conditions(facts: &Facts<'_>) -> Vec<Condition> {
    let listening = listening(facts.state.listening.as_ref());
    let registered = registered(&facts.state.registration, facts.wanted, &listening);
    let stalled = stalled(facts);
    let reconciling = reconciling(facts, &registered);
    let ready = ready(facts, &registered, &listening, &stalled);
    let demand = demand(facts.plan.map(|p| &p.demand_status));
    [
        (condition::READY, ready),
        (condition::RECONCILING, reconciling),
        (condition::STALLED, stalled),
        (condition::REGISTERED, registered),
        (condition::LISTENING, listening),
        (condition::DEMAND_MET, demand),
    ]
    .into_iter()
    .map(|(type_, finding)| stamp(facts, type_, finding))
    .collect()
}

/// Keeps the time of a condition whose status is as it was.
fn stamp(facts: &Facts<'_>, type_: &str, finding: Finding) -> Condition {
    let status = match finding.holds {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let before = facts.state.conditions.iter().find(|c| c.type_ == type_ && c.status == status);
    let since = before.map_or_else(|| whole_seconds(facts.now), |c| c.last_transition_time.clone());
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: finding.reason.to_owned(),
        message: finding.message,
        observed_generation: facts.generation,
        last_transition_time: since,
    }
}

fn registered(registration: &Registration, wanted: Option<&WantedScaleSet>, listening: &Finding) -> Finding {
    if let Some((reason, message)) = &registration.error {
        return Finding::new(false, reason, message.as_str());
    }
    let Some((held, asked)) = &registration.held else {
        return Finding::new(false, reason::NOT_REGISTERED, "not registered at GitHub yet");
    };
    if wanted.is_some_and(|wanted| wanted != asked) {
        return Finding::new(false, reason::PROGRESSING, "the change is not at GitHub yet");
    }
    let differs = held.name != asked.name || asked.labels.iter().any(|l| !held.labels.contains(l));
    if registration.unapplied && differs {
        // It is changed once its session is open; what is in the way of that is in the way of this.
        let reason = if listening.holds == Some(false) { listening.reason } else { reason::PROGRESSING };
        return Finding::new(false, reason, "it is changed at GitHub once its message session is open");
    }
    let kept = |label: &&String| held.labels.iter().any(|l| l.eq_ignore_ascii_case(label));
    let dropped: Vec<&str> = asked.labels.iter().filter(|l| !kept(l)).map(String::as_str).collect();
    if dropped.is_empty() {
        return Finding::well();
    }
    let message = format!(
        "GitHub did not keep these labels: {}; it may take none besides the name, or none after a set is created",
        dropped.join(", ")
    );
    Finding::new(false, reason::LABELS_DROPPED, message)
}

fn listening(state: Option<&ListenState>) -> Finding {
    match state {
        Some(ListenState::Polling { .. } | ListenState::PollCompleted { .. }) => Finding::well(),
        Some(ListenState::Conflict { owner, since }) => {
            let owner = owner.as_deref().unwrap_or("someone");
            let message =
                format!("a session of {owner} is open since {since:.0} or before; it is waited out");
            Finding::new(false, reason::SESSION_CONFLICT, message)
        }
        Some(ListenState::RateLimited { until }) => {
            Finding::new(false, reason::RATE_LIMITED, format!("GitHub limits the rate until {until:.0}"))
        }
        Some(ListenState::Unreachable { message, since }) => {
            Finding::new(false, reason::UNREACHABLE, format!("since {since:.0}: {message}"))
        }
        Some(ListenState::Refused { message }) => {
            Finding::new(false, reason::AUTH_REJECTED, message.as_str())
        }
        None => Finding::new(false, reason::NOT_LISTENING, "no message session is open"),
    }
}

fn stalled(facts: &Facts<'_>) -> Finding {
    if let Some(invalid) = &facts.state.stalled {
        return Finding::new(true, invalid.reason, invalid.message.as_str());
    }
    // What only a person can change. GitHub is asked again all the same, now and then.
    if let Some((reason, message)) = &facts.state.registration.error
        && [
            reason::AUTH_REJECTED,
            reason::FORBIDDEN,
            reason::GROUP_NOT_FOUND,
            reason::NAME_TAKEN,
            reason::INVALID_SPEC,
        ]
        .contains(reason)
    {
        return Finding::new(true, reason, message.as_str());
    }
    // Spares are not started either, so it is so with no job waiting too.
    let rejected = facts.state.ledger.failures().rejected_template();
    if rejected.is_some_and(|hash| facts.state.backends.iter().any(|b| b.backend.template_hash() == hash)) {
        let message =
            "GitHub refuses this version of the runner; no runner is started until the spec changes";
        return Finding::new(true, reason::RUNNER_VERSION_REJECTED, message);
    }
    if let Some(message) = facts.plan.and_then(|plan| plan.refused.as_ref()) {
        return Finding::new(true, reason::BACKEND_REFUSED, message.as_str());
    }
    Finding::new(false, reason::AS_EXPECTED, "")
}

fn reconciling(facts: &Facts<'_>, registered: &Finding) -> Finding {
    if let Some(until) = facts.state.drain_until {
        return Finding::new(true, reason::DRAINING, draining(facts, until));
    }
    if let Some(why) = &facts.state.unread {
        let message = format!("what the spec refers to could not be read; it is tried again: {why}");
        return Finding::new(true, reason::PROGRESSING, message);
    }
    if facts.state.generation != facts.generation {
        return Finding::new(true, reason::PROGRESSING, "the latest spec is being applied");
    }
    if registered.holds != Some(true) && registered.reason != reason::LABELS_DROPPED {
        return Finding::new(true, reason::PROGRESSING, "the set is being registered at GitHub");
    }
    if facts.outdated > 0 {
        let message = format!("{} idle runners of an earlier template are being replaced", facts.outdated);
        return Finding::new(true, reason::PROGRESSING, message);
    }
    if let Some((reason, message)) = facts.plan.and_then(|plan| plan.short.as_ref()) {
        return Finding::new(true, reason, message.as_str());
    }
    Finding::new(false, reason::AS_EXPECTED, "")
}

/// What a deletion waits for.
fn draining(facts: &Facts<'_>, until: Timestamp) -> String {
    let left = facts.state.ledger.runners().filter(|r| r.occupies());
    let hosts: BTreeSet<String> = left.map(|r| format!("{}/{}", r.backend, r.host)).collect();
    let hosts = Vec::from_iter(hosts).join(", ");
    if hosts.is_empty() {
        "the set is being deleted at GitHub".to_owned()
    } else if until <= facts.now {
        format!("the drain is over; runners are being removed from {hosts}")
    } else {
        format!("busy runners finish first, until {until:.0}, on {hosts}")
    }
}

fn ready(facts: &Facts<'_>, registered: &Finding, listening: &Finding, stalled: &Finding) -> Finding {
    if stalled.holds == Some(true) {
        return Finding::new(false, stalled.reason, stalled.message.clone());
    }
    if facts.deleting {
        return Finding::new(false, reason::DRAINING, "the set is being deleted");
    }
    if facts.state.generation != facts.generation {
        return Finding::new(false, reason::PROGRESSING, "the latest spec is not applied yet");
    }
    // Fewer labels than asked for make no set useless: its name is always one.
    for part in [registered, listening] {
        if part.holds != Some(true) && part.reason != reason::LABELS_DROPPED {
            return Finding::new(false, part.reason, part.message.clone());
        }
    }
    Finding::well()
}

fn demand(demand_status: Option<&DemandStatus>) -> Finding {
    match demand_status {
        Some(DemandStatus { met: Some(true), .. }) => Finding::well(),
        Some(demand_status) => Finding {
            holds: demand_status.met,
            reason: demand_status.reason,
            message: demand_status.message.clone(),
        },
        None => {
            let message = "the demand is not known yet".to_owned();
            Finding { holds: None, reason: reason::NOT_LISTENING, message }
        }
    }
}

/// Kubernetes keeps whole seconds: a finer time would look like a change each time.
pub(super) fn whole_seconds(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}
