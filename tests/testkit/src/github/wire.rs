//! The shapes on the wire: exact names, exact nesting.

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::state::{Job, Runner, RunnerGroup, ScaleSet, Session, Statistics};

/// Go's zero time, which the service sends for "not yet".
const UNSET_TIME: &str = "0001-01-01T00:00:00Z";

/// An answer ready to be sent.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(status: StatusCode, body: &Value) -> Self {
        Self { status, headers: HeaderMap::new(), body: body.to_string().into_bytes() }
    }

    pub fn ok(body: &Value) -> Self {
        Self::json(StatusCode::OK, body)
    }

    pub fn empty(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), body: Vec::new() }
    }

    /// What the front of GitHub says to a request that does not tell the length of its body.
    pub fn length_required() -> Self {
        let body = "<html><head><title>411 Length Required</title></head><body><h1>Length Required</h1></body></html>";
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
        Self { status: StatusCode::LENGTH_REQUIRED, headers, body: body.into() }
    }
}

/// A request that GitHub turns down: the status, the exception that names the reason (service calls only), the message.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub status: StatusCode,
    pub exception: Option<&'static str>,
    pub message: String,
}

impl Refusal {
    /// In the form of the REST API: a message alone.
    pub fn rest(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, exception: None, message: message.into() }
    }

    /// In the form of the scale-set service: an exception.
    pub fn service(status: StatusCode, exception: &'static str, message: impl Into<String>) -> Self {
        Self { status, exception: Some(exception), message: message.into() }
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::service(StatusCode::BAD_REQUEST, "InvalidArgumentException", message)
    }

    pub fn unauthorized() -> Self {
        Self::service(StatusCode::UNAUTHORIZED, "VssUnauthorizedException", "The token is not valid.")
    }

    pub fn no_such_scale_set(id: i64) -> Self {
        let message = format!("No runner scale set found with identifier {id}.");
        Self::service(StatusCode::NOT_FOUND, "RunnerScaleSetNotFoundException", message)
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        let body = match refusal.exception {
            Some(name) => exception(name, &refusal.message),
            None => json!({
                "message": refusal.message,
                "documentation_url": "https://docs.github.com/rest",
                "status": refusal.status.as_u16().to_string(),
            }),
        };
        Self::json(refusal.status, &body)
    }
}

/// The body of a service error. `typeName` carries the assembly after a comma, as logs of ARC show
/// (`GitHub.Actions.Runtime.WebApi.RunnerScaleSetNotFoundException, GitHub.Actions.Runtime.WebApi`).
pub(super) fn exception(name: &str, message: &str) -> Value {
    let assembly = if name.starts_with("RunnerScaleSet") {
        "GitHub.Actions.Runtime.WebApi"
    } else if name.starts_with("Vss") {
        "GitHub.Services.Common"
    } else {
        "GitHub.DistributedTask.WebApi"
    };
    json!({
        "$id": "1",
        "innerException": null,
        "message": message,
        "typeName": format!("{assembly}.{name}, {assembly}"),
        "typeKey": name,
        "errorCode": 0,
        "eventId": 3000,
    })
}

pub(super) fn list(items: Vec<Value>) -> Value {
    json!({ "count": items.len(), "value": items })
}

/// A label as clients send it and get it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// What a workflow's `runs-on` names.
    pub name: String,
    /// `System` or `User`.
    #[serde(rename = "type", default)]
    pub kind: String,
}

/// What a client sends to create or change a scale set.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ScaleSetBody {
    pub name: Option<String>,
    pub runner_group_id: Option<i64>,
    pub labels: Option<Vec<Label>>,
    #[serde(rename = "RunnerSetting", alias = "runnerSetting")]
    pub runner_setting: Option<RunnerSetting>,
}

/// The runner setting of a scale set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RunnerSetting {
    /// Runners of the set do not update themselves.
    pub disable_update: bool,
}

pub(super) fn scale_set(set: &ScaleSet, group: &str, base: &str, statistics: Statistics) -> Value {
    json!({
        "id": set.id,
        "name": set.name,
        "runnerGroupId": set.group_id,
        "runnerGroupName": group,
        "labels": set.labels,
        "RunnerSetting": set.setting,
        "createdOn": set.created_at,
        "runnerJitConfigUrl": format!("{base}/_apis/runtime/runnerscalesets/{}/generatejitconfig", set.id),
        "getAcquirableJobsUrl": format!("{base}/_apis/runtime/runnerscalesets/{}/acquirablejobs", set.id),
        "acquireJobsUrl": format!("{base}/_apis/runtime/runnerscalesets/{}/acquirejobs", set.id),
        "enabled": true,
        "statistics": statistics,
    })
}

pub(super) fn session(session: &Session, set: Value, queue_url: &str, statistics: Statistics) -> Value {
    json!({
        "sessionId": session.id,
        "ownerName": session.owner,
        "runnerScaleSet": set,
        "messageQueueUrl": queue_url,
        "messageQueueAccessToken": session.token,
        "statistics": statistics,
    })
}

pub(super) fn runner_group(group: &RunnerGroup, size: usize) -> Value {
    json!({ "id": group.id, "name": group.name, "size": size, "isDefaultGroup": group.id == 1 })
}

/// A runner as the service shows it: no word of what it does.
pub(super) fn runner(runner: &Runner) -> Value {
    json!({
        "id": runner.id,
        "name": runner.name,
        "runnerScaleSetId": runner.scale_set,
        "enabled": true,
        "status": runner.status(),
        "version": "2.331.0",
        "provisioningState": "Provisioned",
        "createdOn": runner.created_at,
    })
}

/// A runner in the public REST list.
pub(super) fn rest_runner(runner: &Runner, labels: &[Label]) -> Value {
    let labels: Vec<Value> = labels.iter().map(|l| json!({ "name": l.name, "type": "read-only" })).collect();
    json!({
        "id": runner.id,
        "name": runner.name,
        "os": if runner.connected { "Linux" } else { "unknown" },
        "status": runner.status(),
        "busy": runner.job.is_some(),
        "ephemeral": true,
        "labels": labels,
    })
}

/// The kinds of job message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Available,
    Assigned,
    Started,
    Completed,
}

/// One entry of a message body. `request_id` is 0 on the broker; `job_id` is none where GitHub sent no `jobId` yet.
pub(super) fn job_message(
    kind: Kind,
    job: &Job,
    request_id: i64,
    job_id: Option<&str>,
    acquire_url: &str,
) -> Value {
    let (owner, repository) = job.repository.split_once('/').unwrap_or((&job.repository, ""));
    let mut entry = json!({
        "messageType": match kind {
            Kind::Available => "JobAvailable",
            Kind::Assigned => "JobAssigned",
            Kind::Started => "JobStarted",
            Kind::Completed => "JobCompleted",
        },
        "runnerRequestId": request_id,
        "ownerName": owner,
        "repositoryName": repository,
        "workflowRunId": job.run,
        "jobWorkflowRef": format!("{}/.github/workflows/ci.yml@refs/heads/main", job.repository),
        "jobDisplayName": job.name,
        "eventName": "push",
        "requestLabels": job.labels,
        "queueTime": time(Some(job.queued_at)),
        "scaleSetAssignTime": time(job.assigned_at),
        "runnerAssignTime": time(job.started_at),
        "finishTime": time(job.finished_at),
    });
    if let Some(id) = job_id {
        entry["jobId"] = json!(id);
    }
    if kind == Kind::Available {
        entry["acquireJobUrl"] = json!(acquire_url);
    }
    if matches!(kind, Kind::Started | Kind::Completed) {
        entry["runnerId"] = json!(job.runner.as_ref().map_or(0, |r| r.id));
        entry["runnerName"] = json!(job.runner.as_ref().map_or("", |r| r.name.as_str()));
    }
    if kind == Kind::Completed {
        entry["result"] = json!(job.result);
    }
    entry
}

pub(super) fn envelope(message_id: i64, entries: &[Value], statistics: Statistics) -> Value {
    json!({
        "messageId": message_id,
        "messageType": "RunnerScaleSetJobMessages",
        "body": Value::from(entries.to_vec()).to_string(),
        "statistics": statistics,
    })
}

fn time(at: Option<Timestamp>) -> Value {
    at.map_or_else(|| json!(UNSET_TIME), |t| json!(t))
}
