//! What the objects of the cluster tell by themselves. No IO.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::finding::{Finding, Kind};
use crate::api::condition::{READY, STALLED};
use crate::api::{RunnerPhase, RunnerScaleSet, RunnerScaleSetStatus};
use crate::controller::{LeaseState, ScaleSets};
use crate::time::{Plus, elapsed};

/// A Lease that has not been renewed for so long is nobody's. A controller renews it every few seconds; clocks may differ.
const LAPSED: Duration = Duration::from_secs(60);
/// What is to end by itself is given so long beyond its time.
const GRACE: Duration = Duration::from_secs(120);
/// A scale set may have been unready for so long.
const UNREADY: Duration = Duration::from_secs(600);
const CLUSTER: &str = "cluster";

/// Who leads, as the Leases say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Leaders {
    alive: Vec<String>,
    /// Whether any controller was ever elected.
    elected: bool,
}

impl Leaders {
    /// Those that renewed their Lease lately.
    pub(super) fn of(leases: &[LeaseState], now: Timestamp) -> Leaders {
        let fresh = |lease: &&LeaseState| lease.renewed_at.is_some_and(|at| at.plus(LAPSED) > now);
        let alive = leases.iter().filter(fresh).filter_map(|lease| lease.holder.clone()).collect();
        Leaders { alive, elected: !leases.is_empty() }
    }
}

/// Lists what is wrong with the controller and with each scale set. Without Leases nothing is known of controllers.
pub(super) fn findings(sets: &ScaleSets, leases: Option<&[LeaseState]>, now: Timestamp) -> Vec<Finding> {
    let leaders = Leaders::of(leases.unwrap_or_default(), now);
    let mut found: Vec<Finding> =
        leases.and_then(|leases| no_controller(leases, &leaders)).into_iter().collect();
    found.extend(sets.unreadable.iter().map(|(name, why)| {
        let remedy = "apply the CRD and the controller of one version, and correct the object";
        Finding::new(Kind::Unreadable, (CLUSTER, name), why, remedy)
    }));
    for object in &sets.objects {
        let name = name_of(object);
        let nothing = RunnerScaleSetStatus::default();
        let status = object.status.as_ref().unwrap_or(&nothing);
        found.extend(stuck_deletion(object, &name, &leaders, now));
        found.extend(stalled(status, &name));
        found.extend(unready(status, &name, now));
        found.extend(stuck_starts(object, status, &name, now));
        found.extend(dead_session(status, &name, &leaders));
    }
    found
}

/// `namespace/name`.
pub(super) fn name_of(object: &RunnerScaleSet) -> String {
    let (namespace, name) = (object.metadata.namespace.as_deref(), object.metadata.name.as_deref());
    format!("{}/{}", namespace.unwrap_or_default(), name.unwrap_or_default())
}

fn no_controller(leases: &[LeaseState], leaders: &Leaders) -> Option<Finding> {
    const REMEDY: &str =
        "start the controller, and look at its log: kubectl -n paddock-system logs deploy/paddock";
    if !leaders.alive.is_empty() {
        return None;
    }
    let Some(lease) = leases.iter().max_by_key(|lease| lease.renewed_at) else {
        let message = "there is no Lease: no controller runs, unless one does with --leader-elect=false";
        return Some(Finding::new(Kind::NoController, (CLUSTER, "paddock"), message, REMEDY));
    };
    let subject = format!("{}/paddock", lease.namespace);
    let message = match (&lease.holder, lease.renewed_at) {
        (Some(holder), Some(at)) => format!("the Lease of {holder} was renewed last at {at:.0}"),
        (Some(holder), None) => format!("the Lease of {holder} was never renewed"),
        (None, _) => "the Lease was given back, and no controller has taken it".to_owned(),
    };
    Some(Finding::new(Kind::NoController, (CLUSTER, &subject), message, REMEDY))
}

/// A deletion waits for busy runners until its drain is over, and then for hosts and GitHub alone.
fn stuck_deletion(object: &RunnerScaleSet, name: &str, leaders: &Leaders, now: Timestamp) -> Option<Finding> {
    let since = object.metadata.deletion_timestamp.as_ref()?.0;
    let status = object.status.clone().unwrap_or_default();
    let busy = status.busy_runners > 0;
    let patience = if busy { object.spec.timeouts.drain.get() } else { GRACE };
    let abandoned = leaders.elected && leaders.alive.is_empty();
    if !abandoned && elapsed(since, now) < patience.saturating_add(GRACE) {
        return None;
    }
    let runners = status.current_runners;
    let said = status.conditions.iter().filter(|c| c.status == "False" && c.type_ != READY);
    let said: Vec<String> = said.map(|c| format!("{}: {}", c.type_, c.message)).collect();
    let why = match (abandoned, said.is_empty()) {
        (true, _) => "no controller runs that would end it".to_owned(),
        (false, false) => said.join("; "),
        (false, true) => format!("{runners} runners are left"),
    };
    let remedy = "mend what is named; while a controller runs it ends by itself then. Do not remove the finalizer: what is left at \
                  GitHub and on hosts would be orphaned";
    let message = format!("it has been deleted since {since:.0}: {why}");
    Some(Finding::new(Kind::DeletionStuck, (CLUSTER, name), message, remedy))
}

fn true_or_false<'a>(status: &'a RunnerScaleSetStatus, type_: &str, value: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|condition| condition.type_ == type_ && condition.status == value)
}

fn stalled(status: &RunnerScaleSetStatus, name: &str) -> Option<Finding> {
    let Condition { reason, message, .. } = true_or_false(status, STALLED, "True")?;
    let remedy = format!("change what the message names: docs/operations.md#troubleshooting has {reason}");
    Some(Finding::new(Kind::Stalled, (CLUSTER, name), format!("{reason}: {message}"), remedy))
}

fn unready(status: &RunnerScaleSetStatus, name: &str, now: Timestamp) -> Option<Finding> {
    let Condition { reason, message, last_transition_time, .. } = true_or_false(status, READY, "False")?;
    let since = last_transition_time.0;
    // One that is stalled is told of as that.
    if true_or_false(status, STALLED, "True").is_some() || elapsed(since, now) < UNREADY {
        return None;
    }
    let remedy = format!("docs/operations.md#troubleshooting has {reason}");
    let message = format!("it has not been ready since {since:.0}: {reason}: {message}");
    Some(Finding::new(Kind::NotReady, (CLUSTER, name), message, remedy))
}

fn stuck_starts(
    object: &RunnerScaleSet,
    status: &RunnerScaleSetStatus,
    name: &str,
    now: Timestamp,
) -> Vec<Finding> {
    let timeout = |backend: &str| {
        let kind = object.spec.backends.iter().find(|known| known.name == backend)?.kind()?;
        Some(object.spec.timeouts.start_timeout(kind))
    };
    let pending = status.runners.iter().filter(|runner| runner.phase == RunnerPhase::Pending);
    let late = pending.filter_map(|runner| {
        let timeout = timeout(&runner.backend)?;
        let since = runner.since.0;
        (elapsed(since, now) > timeout.saturating_add(GRACE)).then_some((runner, since, timeout))
    });
    late.map(|(runner, since, timeout)| {
        let message = format!(
            "it has been starting since {since:.0} on host {} of {name}, and may for {} s",
            runner.host.as_deref().unwrap_or("(none yet)"),
            timeout.as_secs()
        );
        let remedy =
            "a controller that runs ends it by itself: see whether one does, and whether the host answers";
        Finding::new(Kind::StartStuck, (CLUSTER, &runner.name), message, remedy)
    })
    .collect()
}

fn dead_session(status: &RunnerScaleSetStatus, name: &str, leaders: &Leaders) -> Option<Finding> {
    let session = status.session.as_ref()?;
    if !leaders.elected || leaders.alive.contains(&session.owner) {
        return None;
    }
    let message = format!(
        "{} holds the message session {} and leads no more: GitHub gives its jobs to nobody else meanwhile",
        session.owner, session.id
    );
    let remedy = "start a controller: it closes the session and opens its own. GitHub lets it lapse after some minutes too";
    Some(Finding::new(Kind::DeadSession, (CLUSTER, name), message, remedy))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn object(metadata: serde_json::Value, status: serde_json::Value) -> RunnerScaleSet {
        let mut object: RunnerScaleSet =
            serde_saphyr::from_str(include_str!("../../tests/support/full.yaml")).unwrap();
        object.metadata = serde_json::from_value(metadata).unwrap();
        object.status = serde_json::from_value(status).unwrap();
        object
    }

    fn kinds(object: RunnerScaleSet, lease: Option<(&str, i64)>, now: i64) -> Vec<Kind> {
        let leases = lease.map(|(holder, renewed)| LeaseState {
            namespace: "paddock-system".to_owned(),
            holder: Some(holder.to_owned()),
            renewed_at: Some(at(renewed)),
        });
        let sets = ScaleSets { objects: vec![object], unreadable: Vec::new() };
        let found = findings(&sets, Some(leases.as_slice()), at(now));
        assert!(found.iter().all(|finding| !finding.remedy.is_empty() && !finding.fixable));
        found.iter().map(|finding| finding.kind).collect()
    }

    #[test]
    fn a_controller_that_renews_its_lease_is_there() {
        let well = || object(json!({"name": "a", "namespace": "ci"}), json!({}));
        assert_eq!(kinds(well(), Some(("paddock-0", 0)), 59), []);
        assert_eq!(kinds(well(), Some(("paddock-0", 0)), 61), [Kind::NoController]);
        assert_eq!(kinds(well(), None, 0), [Kind::NoController]);
    }

    #[test]
    fn a_deletion_is_stuck_after_its_drain_or_without_a_controller() {
        let deleted = |busy: i32| {
            let metadata = json!({"name": "a", "namespace": "ci", "deletionTimestamp": at(0).to_string()});
            object(metadata, json!({"busyRunners": busy, "currentRunners": busy}))
        };
        let lease = |renewed| Some(("paddock-0", renewed));
        let drain = i64::try_from(deleted(0).spec.timeouts.drain.get().as_secs()).unwrap();
        assert_eq!(kinds(deleted(0), lease(100), 100), []);
        assert_eq!(kinds(deleted(0), lease(240), 240), [Kind::DeletionStuck]);
        assert_eq!(kinds(deleted(1), lease(drain), drain), []);
        assert_eq!(kinds(deleted(1), lease(drain + 120), drain + 120), [Kind::DeletionStuck]);
        assert_eq!(kinds(deleted(1), lease(0), 90), [Kind::NoController, Kind::DeletionStuck]);
    }

    #[test]
    fn what_a_status_says_is_told_when_it_has_been_so_for_long() {
        let condition = |type_: &str, status: &str, reason: &str| json!({"type": type_, "status": status, "reason": reason, "message": "m", "lastTransitionTime": at(0).to_string()});
        let with = |status: serde_json::Value| object(json!({"name": "a", "namespace": "ci"}), status);
        let unready = || with(json!({"conditions": [condition("Ready", "False", "Unreachable")]}));
        assert_eq!(kinds(unready(), Some(("p", 599)), 599), []);
        assert_eq!(kinds(unready(), Some(("p", 600)), 600), [Kind::NotReady]);
        let stalled = with(json!({"conditions": [
            condition("Ready", "False", "SecretMissing"), condition("Stalled", "True", "SecretMissing")]}));
        assert_eq!(kinds(stalled, Some(("p", 600)), 600), [Kind::Stalled]);

        let session =
            |owner: &str| with(json!({"session": {"id": "s", "owner": owner, "since": at(0).to_string()}}));
        assert_eq!(kinds(session("p"), Some(("p", 0)), 0), []);
        assert_eq!(kinds(session("dead"), Some(("p", 0)), 0), [Kind::DeadSession]);

        let backend = with(json!({})).spec.backends[0].name.clone();
        let pending = || {
            with(
                json!({"runners": [{"name": "linux-abcd1234", "phase": "Pending", "backend": backend, "host": "h",
                "instanceId": "i", "since": at(0).to_string(), "outdated": false}]}),
            )
        };
        let late = i64::try_from(pending().spec.timeouts.start.unwrap().get().as_secs()).unwrap() + 121;
        assert_eq!(kinds(pending(), Some(("p", late)), late - 1), []);
        assert_eq!(kinds(pending(), Some(("p", late)), late), [Kind::StartStuck]);
    }
}
