//! The conditions, from what is known.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::api::{Explanation, FINALIZER, Reason, condition};
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
    why: Explanation,
}

impl Finding {
    fn new(holds: bool, reason: Reason, message: impl Into<String>) -> Finding {
        Finding { holds: Some(holds), why: Explanation::new(reason, message) }
    }

    fn holding(why: &Explanation) -> Finding {
        Finding { holds: Some(true), why: why.clone() }
    }

    fn well() -> Finding {
        Finding::new(true, Reason::AsExpected, "")
    }
}

/// All conditions, each with the time since when it holds.
pub(super) fn conditions(facts: &Facts<'_>) -> Vec<Condition> {
    let listening = listening(facts.state.github.listening.as_ref());
    let registered = registered(&facts.state.github.registration, facts.wanted, &listening);
    let stalled = stalled(facts);
    let reconciling = reconciling(facts, &registered, &stalled);
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
    let before = facts.state.told.conditions.iter().find(|c| c.type_ == type_ && c.status == status);
    let since = before.map_or_else(|| whole_seconds(facts.now), |c| c.last_transition_time.clone());
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: finding.why.reason.to_string(),
        message: finding.why.message,
        observed_generation: facts.generation,
        last_transition_time: since,
    }
}

fn registered(registration: &Registration, wanted: Option<&WantedScaleSet>, listening: &Finding) -> Finding {
    if let Some(why) = &registration.error {
        return Finding { holds: Some(false), why: why.clone() };
    }
    let Some((held, asked)) = &registration.held else {
        return Finding::new(false, Reason::NotRegistered, "not registered at GitHub yet");
    };
    if wanted.is_some_and(|wanted| wanted != asked) {
        return Finding::new(false, Reason::Progressing, "the change is not at GitHub yet");
    }
    let differs = held.name != asked.name || asked.labels.iter().any(|l| !held.labels.contains(l));
    if registration.unapplied && differs {
        // It is changed once its session is open; what is in the way of that is in the way of this.
        let reason = if listening.holds == Some(false) { listening.why.reason } else { Reason::Progressing };
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
    Finding::new(false, Reason::LabelsDropped, message)
}

fn listening(state: Option<&ListenState>) -> Finding {
    match state {
        Some(ListenState::Polling { .. } | ListenState::PollCompleted { .. }) => Finding::well(),
        Some(ListenState::Conflict { owner, since }) => {
            let owner = owner.as_deref().unwrap_or("someone");
            let message =
                format!("a session of {owner} is open since {since:.0} or before; it is waited out");
            Finding::new(false, Reason::SessionConflict, message)
        }
        Some(ListenState::RateLimited { until }) => {
            Finding::new(false, Reason::RateLimited, format!("GitHub limits the rate until {until:.0}"))
        }
        Some(ListenState::Unreachable { message, since }) => {
            Finding::new(false, Reason::Unreachable, format!("since {since:.0}: {message}"))
        }
        Some(ListenState::Refused { message }) => Finding::new(false, Reason::AuthRejected, message.as_str()),
        None => Finding::new(false, Reason::NotListening, "no message session is open"),
    }
}

fn stalled(facts: &Facts<'_>) -> Finding {
    if let Some(why) = &facts.state.spec.stalled {
        return Finding::holding(why);
    }
    // What only a person can change. GitHub is asked again all the same, now and then.
    if let Some(why) = &facts.state.github.registration.error
        && needs_a_change(why.reason)
    {
        return Finding::holding(why);
    }
    // Spares are not started either, so it is so with no job waiting too.
    let rejected = facts.state.ledger.failures().rejected_template();
    if rejected.is_some_and(|hash| facts.state.backends.iter().any(|b| b.backend.template_hash() == hash)) {
        let message =
            "GitHub refuses this version of the runner; no runner is started until the spec changes";
        return Finding::new(true, Reason::RunnerVersionRejected, message);
    }
    if let Some(why) = facts.plan.and_then(|plan| plan.refused.as_ref()) {
        return Finding::holding(why);
    }
    Finding::new(false, Reason::AsExpected, "")
}

/// Whether GitHub goes on refusing until a person changes something.
fn needs_a_change(reason: Reason) -> bool {
    use Reason::{AuthRejected, Forbidden, GroupNotFound, InvalidSpec, NameTaken};
    matches!(reason, AuthRejected | Forbidden | GroupNotFound | NameTaken | InvalidSpec)
}

/// False while the set is stalled: kstatus takes what is both for one that goes on, and would wait for it.
fn reconciling(facts: &Facts<'_>, registered: &Finding, stalled: &Finding) -> Finding {
    if let Some(until) = facts.state.deletion.until {
        return Finding::new(true, Reason::Draining, draining(facts, until));
    }
    let current = facts.state.spec.generation == facts.generation;
    if current && stalled.holds == Some(true) {
        return Finding { holds: Some(false), why: stalled.why.clone() };
    }
    if let Some(why) = &facts.state.spec.unread {
        let message = format!("what the spec refers to could not be read; it is tried again: {why}");
        return Finding::new(true, Reason::Progressing, message);
    }
    if !current {
        return Finding::new(true, Reason::Progressing, "the latest spec is being applied");
    }
    if registered.holds != Some(true) && registered.why.reason != Reason::LabelsDropped {
        return Finding::new(true, Reason::Progressing, "the set is being registered at GitHub");
    }
    if facts.outdated > 0 {
        let message = format!("{} idle runners of an earlier template are being replaced", facts.outdated);
        return Finding::new(true, Reason::Progressing, message);
    }
    if let Some(why) = facts.plan.and_then(|plan| plan.unreachable.as_ref().or(plan.short.as_ref())) {
        return Finding::holding(why);
    }
    Finding::new(false, Reason::AsExpected, "")
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
        return Finding { holds: Some(false), why: stalled.why.clone() };
    }
    if facts.deleting {
        let message = format!(
            "the set is being deleted: its controller removes its runners, the scale set at GitHub and then the finalizer {FINALIZER}; \
             without a controller it stays"
        );
        return Finding::new(false, Reason::Draining, message);
    }
    if facts.state.spec.generation != facts.generation {
        return Finding::new(false, Reason::Progressing, "the latest spec is not applied yet");
    }
    // Fewer labels than asked for make no set useless: its name is always one.
    for part in [registered, listening] {
        if part.holds != Some(true) && part.why.reason != Reason::LabelsDropped {
            return Finding { holds: Some(false), why: part.why.clone() };
        }
    }
    // It listens, and may start nothing: what is in the way must not be looked for elsewhere.
    facts.plan.and_then(|plan| plan.unreachable.as_ref()).map_or_else(Finding::well, Finding::holding)
}

fn demand(demand_status: Option<&DemandStatus>) -> Finding {
    match demand_status {
        Some(DemandStatus { met: Some(true), .. }) => Finding::well(),
        Some(demand_status) => Finding { holds: demand_status.met, why: demand_status.explanation.clone() },
        None => {
            let why = Explanation::new(Reason::NotListening, "the demand is not known yet");
            Finding { holds: None, why }
        }
    }
}

/// Kubernetes keeps whole seconds: a finer time would look like a change each time.
pub(super) fn whole_seconds(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}
