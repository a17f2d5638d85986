//! What the controller saw, and what it makes of it. The controller alone writes this, as a whole.

use super::{BackendType, schema::kubernetes_style};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use schemars::JsonSchema;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::fmt;

/// How many runners `status.runners` lists at most; `runnersOmitted` counts the rest.
pub const MAX_LISTED_RUNNERS: usize = 100;
/// How many failures `status.recentFailures` keeps.
pub const MAX_RECENT_FAILURES: usize = 5;

/// What the controller saw.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
#[schemars(transform = kubernetes_style)]
pub struct RunnerScaleSetStatus {
    /// The generation of the spec that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// The scale set's id at GitHub.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale_set_id: Option<i64>,

    /// The scale set's name at GitHub: what runs-on names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale_set_name: Option<String>,

    /// The scale set's labels as GitHub accepted them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,

    /// How many runners there should be: the assigned jobs and minRunners, at most maxRunners, schedule applied.
    pub desired_runners: i32,

    /// How many runners there are: Pending, Idle and Busy together, and those that are on hosts which did not show them yet.
    pub current_runners: i32,

    /// Runners that have been asked for and are not up yet.
    pub pending_runners: i32,

    /// Runners that wait for a job.
    pub idle_runners: i32,

    /// Runners that have a job.
    pub busy_runners: i32,

    /// The window of spec.schedules whose bounds hold now; absent when none is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_schedule: Option<String>,

    /// The message session at GitHub. Whoever takes over closes it first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<Session>,

    /// What GitHub asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub demand: Option<Demand>,

    /// How each backend does, in the order of the spec; after them those that it left out, until their last runner is gone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub backends: Vec<BackendStatus>,

    /// The runners, newest first; at most 100.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub runners: Vec<RunnerStatus>,

    /// How many runners are not listed in runners.
    #[serde(skip_serializing_if = "is_zero")]
    pub runners_omitted: i32,

    /// The last runners that failed, newest first; at most 5.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub recent_failures: Vec<Failure>,

    /// Workflow runs that lost jobs which are to be run again, newest first; at most 50.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reruns: Vec<Rerun>,

    /// Ready, Reconciling, Stalled, Registered, Listening and DemandMet; reason and message say why.
    #[serde(deserialize_with = "conditions", skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

impl RunnerScaleSetStatus {
    /// Sets what tells of a time after `now` to `now`: whoever may write a status may write any time into it.
    pub fn not_after(mut self, now: Timestamp) -> Self {
        let sessions = self.session.iter_mut().map(|s| &mut s.since);
        let demand = self.demand.iter_mut().map(|d| &mut d.observed_at);
        let runners = self.runners.iter_mut().map(|r| &mut r.since);
        let failures = self.recent_failures.iter_mut().map(|f| &mut f.time);
        let reruns = self.reruns.iter_mut().map(|r| &mut r.since);
        let conditions = self.conditions.iter_mut().map(|c| &mut c.last_transition_time);
        for time in sessions.chain(demand).chain(runners).chain(failures).chain(reruns).chain(conditions) {
            time.0 = time.0.min(now);
        }
        self
    }
}

/// Reads a time. The API server takes times that [`Timestamp`] does not hold: each is the last one that it does.
fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
    Ok(Time(String::deserialize(deserializer)?.parse().unwrap_or(Timestamp::MAX)))
}

fn optional_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Time>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.map(|text| Time(text.parse().unwrap_or(Timestamp::MAX))))
}

/// Reads conditions, their times as [`time`] does.
fn conditions<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Condition>, D::Error> {
    let mut conditions = Vec::<Value>::deserialize(deserializer)?;
    for condition in &mut conditions {
        if let Some(told) = condition.get_mut("lastTransitionTime") {
            *told = serde_json::to_value(time(told.take()).map_err(D::Error::custom)?)
                .map_err(D::Error::custom)?;
        }
    }
    conditions.into_iter().map(|c| serde_json::from_value(c).map_err(D::Error::custom)).collect()
}

fn is_zero(count: &i32) -> bool {
    *count == 0
}

/// A message session at GitHub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// The session's id.
    pub id: String,
    /// The controller that opened it.
    pub owner: String,
    /// When it was opened.
    #[serde(deserialize_with = "time")]
    pub since: Time,
}

/// What GitHub asks for, by its own statistics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Demand {
    /// Jobs that are assigned to this scale set, running ones among them.
    pub assigned_jobs: i32,
    /// Jobs that run on a runner of this scale set.
    pub running_jobs: i32,
    /// Jobs that this scale set could take and has not.
    pub available_jobs: i32,
    /// When GitHub said so.
    #[serde(deserialize_with = "time")]
    pub observed_at: Time,
}

/// How a backend does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendStatus {
    /// Name of the backend.
    pub name: String,
    /// docker, tart or ecs.
    #[serde(rename = "type")]
    pub kind: BackendType,
    /// Runners of this set on it: Pending, Idle and Busy together.
    pub current_runners: i32,
    /// Virtual machines that are booted ahead of need (tart).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warm: Option<i32>,
    /// Why it takes no more runners, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Until when it is left alone after a failure that passes by itself.
    #[serde(default, deserialize_with = "optional_time", skip_serializing_if = "Option::is_none")]
    pub backoff_until: Option<Time>,
    /// How each of its hosts does, in the order of the spec; after them those that it left out, until their last runner is
    /// gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostStatus>,
}

/// How a host does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostStatus {
    /// Name of the host.
    pub name: String,
    /// Where it is reached. A host that the spec leaves out is drained by it, also after a restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Whether a runner can be started there now.
    pub ready: bool,
    /// Runners of this set on it: Pending, Idle and Busy together. Until it first answers a controller, at least as many as
    /// the controller before had there.
    pub current_runners: i32,
    /// How many more runners it takes, whichever set they are of; absent where it has no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_slots: Option<i32>,
    /// Why it is not ready or takes no more runners, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// What a runner is doing. `Pending` → `Idle` → `Busy` → `Done`; `Failed` when it ended without having done a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum RunnerPhase {
    /// Asked for, not up yet.
    Pending,
    /// Up, waits for a job.
    Idle,
    /// Has a job.
    Busy,
    /// Ended after its job.
    Done,
    /// Ended without having done a job.
    Failed,
}

impl fmt::Display for RunnerPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A runner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunnerStatus {
    /// Name of the runner, as GitHub shows it.
    pub name: String,
    /// Pending, Idle, Busy, Done or Failed.
    pub phase: RunnerPhase,
    /// Name of the backend that it runs on.
    pub backend: String,
    /// Name of the host that it runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// What the backend calls it: a container's, virtual machine's or task's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// When it came into this phase.
    #[serde(deserialize_with = "time")]
    pub since: Time,
    /// Whether the template changed since it was made.
    #[serde(default)]
    pub outdated: bool,
    /// The job that it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<Job>,
}

/// A job that a runner has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// The repository, as owner/name.
    pub repository: String,
    /// The workflow file and the ref it is taken from.
    pub workflow_ref: String,
    /// The workflow run's id.
    pub run_id: i64,
    /// The job's name as GitHub shows it.
    pub display_name: String,
    /// The job's id.
    pub id: String,
    /// The page of the workflow run, for a browser.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// A runner that failed, or was lost with its job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// Name of the runner.
    pub runner: String,
    /// Name of the backend that it was on.
    pub backend: String,
    /// Name of the host that it was on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Why, in one word, such as StartTimeout.
    pub reason: String,
    /// The exit code of the runner, if it had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Why, in words.
    pub message: String,
    /// When.
    #[serde(deserialize_with = "time")]
    pub time: Time,
}

/// A workflow run that lost jobs with their runners.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rerun {
    /// The repository, as owner/name.
    pub repository: String,
    /// The workflow run's id.
    pub run_id: i64,
    /// Waiting, Requested, Refused or GivenUp.
    pub state: RerunState,
    /// When the first of its jobs was lost.
    #[serde(deserialize_with = "time")]
    pub since: Time,
    /// What GitHub said last, where it refused.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// What came of a workflow run that lost jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RerunState {
    /// GitHub is asked again: it runs none again that goes on.
    Waiting,
    /// GitHub runs the lost jobs again.
    Requested,
    /// The credential may not.
    Refused,
    /// It was waited for six hours.
    GivenUp,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(at: &str) -> RunnerScaleSetStatus {
        let condition = json!({
            "type": "Ready", "status": "True", "reason": "Ready", "message": "", "lastTransitionTime": at,
        });
        let status = json!({
            "runners": [{"name": "x", "phase": "Idle", "backend": "docker", "since": at}],
            "session": {"id": "x", "owner": "x", "since": at},
            "demand": {"assignedJobs": 1, "runningJobs": 0, "availableJobs": 0, "observedAt": at},
            "backends": [{"name": "docker", "type": "docker", "currentRunners": 1, "backoffUntil": at}],
            "recentFailures": [{"runner": "x", "backend": "docker", "reason": "x", "message": "", "time": at}],
            "reruns": [{"repository": "a/b", "runId": 1, "state": "Waiting", "since": at}],
            "conditions": [condition],
        });
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn a_status_tells_of_no_time_to_come() {
        let (now, past) = ("2026-11-24T12:00:00Z", "2026-11-24T11:59:59Z");
        let not_after = |at: &str| {
            let mut status = told(at).not_after(now.parse().unwrap());
            status.backends.clear();
            status
        };
        let expected = |at: &str| {
            let mut status = told(at);
            status.backends.clear();
            status
        };
        assert_eq!(not_after(past), expected(past));
        for later in ["2026-11-24T12:00:01Z", "9999-12-30T21:59:59Z", "9999-12-31T23:59:59Z"] {
            assert_eq!(not_after(later), expected(now), "{later}");
        }
    }
}
