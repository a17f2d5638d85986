//! `paddock top`: scale sets, hosts and runners side by side, as the statuses of the objects tell of them. No IO.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde::Serialize;

use crate::api::condition::{DEMAND_MET, READY, STALLED};
use crate::api::status::{HostStatus, RunnerStatus};
use crate::api::{RunnerPhase, RunnerScaleSet, RunnerScaleSetStatus};
use crate::terminal::{self, Row};

/// What is shown.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Top {
    /// By namespace and name.
    pub scale_sets: Vec<ScaleSetLine>,
    /// By endpoint, however many scale sets name it.
    pub hosts: Vec<HostLine>,
    /// By scale set, the busy ones first.
    pub runners: Vec<RunnerLine>,
}

/// A scale set.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ScaleSetLine {
    /// `namespace/name`.
    pub name: String,
    /// Whether it listens, and no job waits for a place.
    pub well: bool,
    /// Jobs that are assigned to it, running ones among them.
    pub assigned_jobs: i32,
    /// How many runners there should be.
    pub desired: i32,
    /// Runners that are coming up.
    pub pending: i32,
    /// Runners that wait for a job.
    pub idle: i32,
    /// Runners that have one.
    pub busy: i32,
    /// The most that the spec admits, by the schedule that is open or not.
    pub max: i32,
    /// What is wrong, in words.
    pub message: String,
}

/// A host.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HostLine {
    /// Where it is reached; its name where the status does not say.
    pub endpoint: String,
    /// Whether each scale set that names it can start a runner there.
    pub ready: bool,
    /// Runners of all scale sets on it.
    pub runners: i32,
    /// How many more it takes, by the scale set that may have most; none where it has no limit.
    pub free_slots: Option<i32>,
    /// Why it is not ready or takes no more, in words.
    pub message: String,
}

/// A runner.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RunnerLine {
    /// `namespace/name` of its scale set.
    pub scale_set: String,
    /// Its name.
    pub name: String,
    /// What it does.
    pub phase: RunnerPhase,
    /// Since when.
    pub since: Timestamp,
    /// `backend/host`.
    pub place: String,
    /// The repository and name of its job.
    pub job: Option<String>,
    /// The page of the workflow run.
    pub url: Option<String>,
}

impl Top {
    /// Gathers what the statuses of these objects tell.
    pub fn of(objects: &[RunnerScaleSet]) -> Top {
        let mut top = Top::default();
        let mut hosts: BTreeMap<String, HostLine> = BTreeMap::new();
        for object in objects {
            let part = |part: &Option<String>| part.clone().unwrap_or_default();
            let name = format!("{}/{}", part(&object.metadata.namespace), part(&object.metadata.name));
            let nothing = RunnerScaleSetStatus::default();
            let status = object.status.as_ref().unwrap_or(&nothing);
            top.scale_sets.push(scale_set(&name, object.spec.max_runners, status));
            status.backends.iter().flat_map(|backend| &backend.hosts).for_each(|host| add(&mut hosts, host));
            top.runners.extend(status.runners.iter().map(|told| runner(&name, told)));
        }
        top.hosts = hosts.into_values().collect();
        top.scale_sets.sort_by(|a, b| a.name.cmp(&b.name));
        let busy_first = |line: &RunnerLine| line.phase != RunnerPhase::Busy;
        top.runners.sort_by(|a, b| {
            (&a.scale_set, busy_first(a), a.since, &a.name).cmp(&(
                &b.scale_set,
                busy_first(b),
                b.since,
                &b.name,
            ))
        });
        top
    }

    /// Draws a table for each of the three, as far as there is something to show.
    pub fn drawn(&self, now: Timestamp) -> String {
        let sets = ["", "SCALE SET", "JOBS", "DESIRED", "PENDING", "IDLE", "BUSY", "MAX", "MESSAGE"];
        let hosts = ["", "HOST", "RUNNERS", "FREE", "MESSAGE"];
        let runners = ["", "RUNNER", "SCALE SET", "PHASE", "FOR", "PLACE", "JOB"];
        let tables: [(&[&str], Vec<Row>); 3] = [
            (&sets, self.scale_sets.iter().map(ScaleSetLine::row).collect()),
            (&hosts, self.hosts.iter().map(HostLine::row).collect()),
            (&runners, self.runners.iter().map(|line| line.row(now)).collect()),
        ];
        let drawn = tables.iter().filter(|(_, rows)| !rows.is_empty());
        let drawn: Vec<String> = drawn.map(|(heading, rows)| terminal::table(heading, rows)).collect();
        if drawn.is_empty() { "there is no scale set\n".to_owned() } else { drawn.join("\n") }
    }
}

fn scale_set(name: &str, max: i32, status: &RunnerScaleSetStatus) -> ScaleSetLine {
    let condition = |kind: &str| status.conditions.iter().find(|condition| condition.type_ == kind);
    let is = |kind, value| condition(kind).filter(|condition| condition.status == value);
    let wrong = is(STALLED, "True").or(is(READY, "False")).or(is(DEMAND_MET, "False"));
    let unheard_of = condition(READY).is_none().then(|| "no controller has looked at it yet".to_owned());
    ScaleSetLine {
        name: name.to_owned(),
        well: wrong.is_none() && unheard_of.is_none(),
        assigned_jobs: status.demand.as_ref().map_or(0, |demand| demand.assigned_jobs),
        desired: status.desired_runners,
        pending: status.pending_runners,
        idle: status.idle_runners,
        busy: status.busy_runners,
        max,
        message: wrong.map(said).or(unheard_of).unwrap_or_default(),
    }
}

fn said(condition: &Condition) -> String {
    match condition.message.as_str() {
        "" => condition.reason.clone(),
        message => format!("{}: {message}", condition.reason),
    }
}

/// Adds what one scale set tells of a host to what others do.
fn add(hosts: &mut BTreeMap<String, HostLine>, told: &HostStatus) {
    let endpoint = told.endpoint.clone().unwrap_or_else(|| told.name.clone());
    let line = hosts.entry(endpoint.clone()).or_insert_with(|| HostLine {
        endpoint,
        ready: true,
        runners: 0,
        free_slots: Some(0),
        message: String::new(),
    });
    line.ready &= told.ready;
    line.runners = line.runners.saturating_add(told.current_runners);
    line.free_slots = line.free_slots.zip(told.free_slots).map(|(one, other)| one.max(other));
    if line.message.is_empty() || !told.ready {
        line.message.clone_from(&told.message);
    }
}

fn runner(scale_set: &str, told: &RunnerStatus) -> RunnerLine {
    RunnerLine {
        scale_set: scale_set.to_owned(),
        name: told.name.clone(),
        phase: told.phase,
        since: told.since.0,
        place: format!("{}/{}", told.backend, told.host.as_deref().unwrap_or_default()),
        job: told.job.as_ref().map(|job| format!("{}: {}", job.repository, job.display_name)),
        url: told.job.as_ref().and_then(|job| job.url.clone()),
    }
}

impl ScaleSetLine {
    fn row(&self) -> Row {
        let counts = [self.assigned_jobs, self.desired, self.pending, self.idle, self.busy, self.max];
        let mut columns = vec![mark(self.well), self.name.clone()];
        columns.extend(counts.map(|count| count.to_string()));
        columns.push(self.message.clone());
        Row { good: self.well, columns }
    }
}

impl HostLine {
    fn row(&self) -> Row {
        let free = self.free_slots.map_or_else(|| "no limit".to_owned(), |free| free.to_string());
        let (endpoint, message) = (self.endpoint.clone(), self.message.clone());
        Row {
            good: self.ready,
            columns: vec![mark(self.ready), endpoint, self.runners.to_string(), free, message],
        }
    }
}

impl RunnerLine {
    fn row(&self, now: Timestamp) -> Row {
        let good = self.phase != RunnerPhase::Failed;
        let job =
            [self.job.as_deref(), self.url.as_deref()].into_iter().flatten().collect::<Vec<_>>().join("  ");
        let columns = [
            mark(good),
            self.name.clone(),
            self.scale_set.clone(),
            self.phase.to_string(),
            age(self.since, now),
            self.place.clone(),
            job,
        ];
        Row { good, columns: columns.into() }
    }
}

fn mark(good: bool) -> String {
    if good { "ok" } else { "!!" }.to_owned()
}

/// How long ago that was, like 1h 2m 3s.
fn age(since: Timestamp, now: Timestamp) -> String {
    let passed = now.duration_since(since).max(SignedDuration::ZERO);
    format!("{:#}", SignedDuration::from_secs(passed.as_secs()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(name: &str, status: serde_json::Value) -> RunnerScaleSet {
        serde_json::from_value(json!({
            "apiVersion": "paddock.dev/v1alpha1", "kind": "RunnerScaleSet",
            "metadata": {"name": name, "namespace": "ci"},
            "spec": {
                "github": {"url": "https://github.com/acme", "credentialsSecretRef": {"name": "github"}},
                "maxRunners": 10, "backends": [{"name": "rack", "docker": {}}],
            },
            "status": status,
        }))
        .unwrap()
    }

    fn condition(kind: &str, status: &str, reason: &str, message: &str) -> serde_json::Value {
        json!({"type": kind, "status": status, "reason": reason, "message": message,
               "lastTransitionTime": "2026-11-01T00:00:00Z"})
    }

    fn host(endpoint: &str, ready: bool, runners: i32, free: Option<i32>) -> serde_json::Value {
        json!({"name": "a", "endpoint": endpoint, "ready": ready, "currentRunners": runners, "freeSlots": free,
               "message": if ready { "" } else { "no answer" }})
    }

    fn two() -> Top {
        let runner = json!({"name": "linux-1", "phase": "Busy", "backend": "rack", "host": "a", "since": "2026-11-01T00:00:00Z",
            "job": {"repository": "acme/app", "workflowRef": "w", "runId": 9, "displayName": "build", "id": "1",
                    "url": "https://github.com/acme/app/actions/runs/9"}});
        let idle = json!({"name": "linux-0", "phase": "Idle", "backend": "rack", "host": "a", "since": "2026-11-01T01:00:00Z"});
        let counts = |busy: i32| {
            json!({"desiredRunners": 2, "currentRunners": 2, "pendingRunners": 0, "idleRunners": 1, "busyRunners": busy,
            "demand": {"assignedJobs": busy, "runningJobs": busy, "availableJobs": 0, "observedAt": "2026-11-01T00:00:00Z"}})
        };
        let with = |counts: serde_json::Value, more: serde_json::Value| {
            let mut whole = counts;
            whole.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            whole
        };
        Top::of(&[
            set(
                "linux",
                with(
                    counts(1),
                    json!({
                        "runners": [idle, runner], "conditions": [condition("Ready", "True", "AsExpected", "")],
                        "backends": [{"name": "rack", "type": "docker", "currentRunners": 2, "hosts": [host("tcp://a", true, 2, Some(3))]}],
                    }),
                ),
            ),
            set(
                "another",
                with(
                    counts(0),
                    json!({
                        "conditions": [condition("Ready", "True", "AsExpected", ""), condition("DemandMet", "False", "NoCapacity", "1 waits")],
                        "backends": [{"name": "rack", "type": "docker", "currentRunners": 1, "hosts": [host("tcp://a", false, 1, Some(5))]}],
                    }),
                ),
            ),
        ])
    }

    #[test]
    fn a_host_is_one_line_whoever_names_it_and_what_is_wrong_is_said() {
        let top = two();
        let [host] = &top.hosts[..] else { panic!("{:?}", top.hosts) };
        assert_eq!(
            (host.ready, host.runners, host.free_slots, host.message.as_str()),
            (false, 3, Some(5), "no answer")
        );
        let sets: Vec<(&str, bool, &str)> =
            top.scale_sets.iter().map(|set| (set.name.as_str(), set.well, set.message.as_str())).collect();
        assert_eq!(sets, [("ci/another", false, "NoCapacity: 1 waits"), ("ci/linux", true, "")]);
    }

    #[test]
    fn the_tables_show_each_job_with_its_page() {
        let drawn = two().drawn("2026-11-01T01:02:03Z".parse().unwrap());
        let line = |part: &str| {
            drawn.lines().find(|line| line.contains(part)).unwrap().split_whitespace().collect::<Vec<_>>()
        };
        assert_eq!(
            line("linux-1")[1..],
            [
                "linux-1",
                "ci/linux",
                "Busy",
                "1h",
                "2m",
                "3s",
                "rack/a",
                "acme/app:",
                "build",
                "https://github.com/acme/app/actions/runs/9"
            ]
        );
        assert_eq!(line("ci/another")[..8], ["!!", "ci/another", "0", "2", "0", "1", "0", "10"]);
        assert!(drawn.find("linux-1").unwrap() < drawn.find("linux-0").unwrap(), "the busy ones first");
        assert_eq!(Top::default().drawn(Timestamp::UNIX_EPOCH), "there is no scale set\n");
    }

    #[test]
    fn what_nobody_has_looked_at_is_told() {
        let set = set("new", serde_json::Value::Null);
        let top = Top::of(&[set]);
        assert!(!top.scale_sets[0].well && top.scale_sets[0].message.contains("no controller"));
    }
}
