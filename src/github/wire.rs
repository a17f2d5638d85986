//! The service's JSON. Names are read without regard to case and null as absent, as GitHub's own client (in Go) reads
//! them: every object is put in that form once, here, before it is decoded.

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::{AcquirableJob, Error, ListedRunner, Message, RunnerReference, ScaleSet};
use crate::runner::{Job, JobEvent, JobOutcome, Statistics};
use crate::time::past;

/// What the envelope of job messages is called.
const JOB_MESSAGES: &str = "RunnerScaleSetJobMessages";
/// The kind of label that a scale set's are.
const LABEL_TYPE: &str = "System";

/// Decodes a body. `what` names it in the error, which quotes nothing of it.
pub(super) fn decode<T: DeserializeOwned>(body: &[u8], what: &str) -> Result<T, Error> {
    if body.is_empty() {
        return Err(Error::BadReply(format!("{what} came with an empty body")));
    }
    let value = parse(body).ok_or_else(|| Error::BadReply(format!("{what} is not JSON")))?;
    serde_json::from_value(value).map_err(|_| Error::BadReply(format!("{what} has an unknown form")))
}

fn parse(body: &[u8]) -> Option<Value> {
    serde_json::from_slice(body).ok().map(tidy)
}

/// Names in lower case, nulls left out, at every depth.
fn tidy(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.to_lowercase(), tidy(value)))
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(items) => items.into_iter().filter(|item| !item.is_null()).map(tidy).collect(),
        other => other,
    }
}

/// A value that must be there.
pub(super) fn required(value: String, what: &str) -> Result<String, Error> {
    if value.is_empty() { Err(Error::BadReply(format!("{what} is empty"))) } else { Ok(value) }
}

/// What an error body says.
#[derive(Debug, Default)]
pub(super) struct Fault {
    /// The exception's bare name; empty when there is none.
    pub name: String,
    /// What it says, or a body that is not JSON.
    pub message: String,
}

/// Reads an error body: the service's exception, REST's message, or plain text.
pub(super) fn fault(body: &[u8]) -> Fault {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Wire {
        typename: String,
        message: String,
    }
    if let Some(wire) = parse(body).and_then(|value| serde_json::from_value::<Wire>(value).ok()) {
        // The name may be qualified on both sides: `Namespace.Name, Assembly`.
        let name = wire.typename.split(',').next().unwrap_or_default();
        let name = name.rsplit('.').next().unwrap_or_default().trim().to_owned();
        return Fault { name, message: wire.message };
    }
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    let message = if text.starts_with(['{', '[', '"']) { String::new() } else { text.to_owned() };
    Fault { name: String::new(), message }
}

/// `{"count": n, "value": […]}`. One without the field is no list, and not an empty one.
#[derive(Debug, Deserialize)]
pub(super) struct List<T> {
    pub value: Vec<T>,
}

/// An answer that carries a token: App token, registration token, admin connection.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Token {
    pub token: String,
    /// The admin connection's service URL.
    pub url: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Group {
    pub id: i64,
    pub name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WireScaleSet {
    pub id: i64,
    pub name: String,
    #[serde(rename = "runnergroupid")]
    pub group: i64,
    pub labels: Vec<Label>,
    #[serde(rename = "runnersetting")]
    pub setting: RunnerSetting,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Label {
    pub name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RunnerSetting {
    #[serde(rename = "disableupdate")]
    pub disable_update: Option<bool>,
}

impl WireScaleSet {
    /// The labels' names.
    pub fn labels(&self) -> Vec<String> {
        self.labels.iter().map(|l| l.name.clone()).collect()
    }
}

impl TryFrom<WireScaleSet> for ScaleSet {
    type Error = Error;

    fn try_from(wire: WireScaleSet) -> Result<Self, Error> {
        if wire.id <= 0 {
            return Err(Error::BadReply("the scale set has no id".into()));
        }
        Ok(ScaleSet { id: wire.id, labels: wire.labels(), name: wire.name })
    }
}

/// A page of REST's list of runners.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct WireRunnerPage {
    pub runners: Vec<WireListedRunner>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct WireListedRunner {
    id: i64,
    name: String,
    status: String,
    busy: bool,
}

impl From<WireListedRunner> for ListedRunner {
    fn from(wire: WireListedRunner) -> Self {
        ListedRunner { id: wire.id, name: wire.name, online: wire.status == "online", busy: wire.busy }
    }
}

/// The labels as a request carries them.
pub(super) fn labels(names: &[String]) -> Value {
    names.iter().map(|name| json!({"name": name, "type": LABEL_TYPE})).collect()
}

/// What a scale set tells its runners: an ephemeral runner must not update itself instead of taking its job.
pub(super) fn runner_setting() -> Value {
    json!({"disableUpdate": true})
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct WireSession {
    #[serde(rename = "sessionid")]
    pub id: String,
    #[serde(rename = "messagequeueurl")]
    pub queue_url: String,
    #[serde(rename = "messagequeueaccesstoken")]
    pub queue_token: String,
    pub statistics: Option<WireStatistics>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WireStatistics {
    #[serde(rename = "totalavailablejobs")]
    available: i64,
    #[serde(rename = "totalacquiredjobs")]
    acquired: i64,
    #[serde(rename = "totalassignedjobs")]
    assigned: i64,
    #[serde(rename = "totalrunningjobs")]
    running: i64,
    #[serde(rename = "totalregisteredrunners")]
    registered_runners: i64,
    #[serde(rename = "totalbusyrunners")]
    busy_runners: i64,
    #[serde(rename = "totalidlerunners")]
    idle_runners: i64,
}

impl From<WireStatistics> for Statistics {
    fn from(wire: WireStatistics) -> Self {
        let count = |n: i64| u32::try_from(n.max(0)).unwrap_or(u32::MAX);
        Statistics {
            available: count(wire.available),
            acquired: count(wire.acquired),
            assigned: count(wire.assigned),
            running: count(wire.running),
            registered_runners: count(wire.registered_runners),
            busy_runners: count(wire.busy_runners),
            idle_runners: count(wire.idle_runners),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Jit {
    pub runner: WireRunner,
    #[serde(rename = "encodedjitconfig")]
    pub encoded: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WireRunner {
    pub id: i64,
    pub name: String,
    #[serde(rename = "runnerscalesetid")]
    pub scale_set_id: i64,
}

impl From<WireRunner> for RunnerReference {
    fn from(wire: WireRunner) -> Self {
        RunnerReference { id: wire.id, name: wire.name, scale_set_id: wire.scale_set_id }
    }
}

/// A job in a message, or one that is offered.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct WireJob {
    #[serde(rename = "messagetype")]
    kind: String,
    #[serde(rename = "runnerrequestid")]
    request_id: i64,
    #[serde(rename = "jobid")]
    id: String,
    #[serde(rename = "ownername")]
    owner: String,
    #[serde(rename = "repositoryname")]
    repository: String,
    #[serde(rename = "workflowrunid")]
    run_id: i64,
    #[serde(rename = "jobworkflowref")]
    workflow_ref: String,
    #[serde(rename = "jobdisplayname")]
    display_name: String,
    #[serde(rename = "eventname")]
    event_name: String,
    #[serde(rename = "queuetime")]
    queued_at: String,
    #[serde(rename = "scalesetassigntime")]
    scale_set_assigned_at: String,
    #[serde(rename = "runnerassigntime")]
    runner_assigned_at: String,
    #[serde(rename = "finishtime")]
    finished_at: String,
    result: String,
    #[serde(rename = "runnerid")]
    runner_id: i64,
    #[serde(rename = "runnername")]
    runner_name: String,
}

impl WireJob {
    fn repository(&self) -> String {
        if self.owner.is_empty() || self.repository.contains('/') {
            return self.repository.clone();
        }
        format!("{}/{}", self.owner, self.repository)
    }

    fn job(&self) -> Job {
        Job {
            id: self.id.clone(),
            repository: self.repository(),
            workflow_ref: self.workflow_ref.clone(),
            run_id: self.run_id,
            display_name: self.display_name.clone(),
            event_name: self.event_name.clone(),
            queued_at: time(&self.queued_at),
            scale_set_assigned_at: time(&self.scale_set_assigned_at),
            runner_assigned_at: time(&self.runner_assigned_at),
            finished_at: time(&self.finished_at),
        }
    }

    /// The event, unless its kind is unknown or it names no job.
    fn event(self) -> Option<JobEvent> {
        let job = self.job();
        if job.id.is_empty() && self.kind != "JobAvailable" {
            return None;
        }
        match self.kind.as_str() {
            "JobAvailable" => Some(JobEvent::Available { job, request_id: self.request_id }),
            "JobAssigned" => Some(JobEvent::Assigned { job }),
            "JobStarted" => {
                Some(JobEvent::Started { job, runner_name: self.runner_name, runner_id: self.runner_id })
            }
            "JobCompleted" => Some(JobEvent::Completed {
                job,
                runner_name: self.runner_name,
                outcome: outcome(&self.result),
            }),
            _ => None,
        }
    }
}

impl From<WireJob> for AcquirableJob {
    fn from(wire: WireJob) -> Self {
        AcquirableJob { request_id: wire.request_id, repository: wire.repository() }
    }
}

/// A moment of the past; `None` for year 1, with which the service says "not yet", and for what cannot be read.
fn time(text: &str) -> Option<Timestamp> {
    text.parse().ok().filter(|t: &Timestamp| t.as_second() > 0).map(past)
}

fn outcome(result: &str) -> JobOutcome {
    match result.to_lowercase().as_str() {
        "succeeded" => JobOutcome::Succeeded,
        "failed" => JobOutcome::Failed,
        "canceled" => JobOutcome::Canceled,
        _ => JobOutcome::Other,
    }
}

/// Reads a message. What cannot be read inside it is counted and passed over: refusing the message would bring it back
/// for ever, and its statistics say what to scale to.
pub(super) fn message(body: &[u8]) -> Result<Message, Error> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Envelope {
        #[serde(rename = "messageid")]
        id: i64,
        #[serde(rename = "messagetype")]
        kind: String,
        body: Value,
        statistics: Option<WireStatistics>,
    }
    let envelope: Envelope = decode(body, "the message")?;
    if envelope.id <= 0 {
        return Err(Error::BadReply("the message has no id".into()));
    }
    let entries = if envelope.kind == JOB_MESSAGES { entries(envelope.body) } else { None };
    let (events, unreadable) = entries.map_or((Vec::new(), 1), events);
    if unreadable > 0 {
        tracing::warn!(
            message = envelope.id,
            kind = envelope.kind,
            unreadable,
            "passed over what cannot be read"
        );
    }
    Ok(Message { id: envelope.id, statistics: envelope.statistics.map(Into::into), events, unreadable })
}

/// The envelope's body is a JSON array in a string.
fn entries(body: Value) -> Option<Vec<Value>> {
    match body {
        Value::Null => Some(Vec::new()),
        Value::String(text) if text.trim().is_empty() => Some(Vec::new()),
        Value::String(text) => serde_json::from_str(&text).ok().map(tidy).and_then(entries),
        Value::Array(entries) => Some(entries),
        _ => None,
    }
}

fn events(entries: Vec<Value>) -> (Vec<JobEvent>, usize) {
    let total = entries.len();
    let read = |entry| serde_json::from_value::<WireJob>(entry).ok().and_then(WireJob::event);
    let events: Vec<JobEvent> = entries.into_iter().filter_map(read).collect();
    let unreadable = total - events.len();
    (events, unreadable)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn no_message_tells_of_a_time_to_come() {
        for later in ["9999-12-30T21:59:59Z", "9999-12-31T23:59:59Z"] {
            assert!(time(later).is_none_or(|read| read <= Timestamp::now()), "{later}");
        }
        assert_eq!(time("2020-01-01T00:00:00Z").unwrap().as_second(), 1_577_836_800);
        assert_eq!(time("0001-01-01T00:00:00Z"), None);
    }

    fn envelope(body: &Value) -> Vec<u8> {
        json!({"MessageId": 7, "messageType": JOB_MESSAGES, "body": body.to_string(),
               "statistics": {"TotalAssignedJobs": 3, "totalRunningJobs": null, "totalIdleRunners": -1}})
        .to_string()
        .into_bytes()
    }

    #[test]
    fn h2_null_is_absent_and_names_have_no_case() {
        let body = json!([{"MESSAGETYPE": "JobStarted", "JobID": "j1", "runnerName": "r1", "RunnerId": 4,
            "ownerName": "acme", "repositoryName": "app", "requestLabels": null, "eventName": null,
            "queueTime": "2026-01-02T03:04:05.1234567Z", "finishTime": "0001-01-01T00:00:00Z"}, null]);
        let message = message(&envelope(&body)).unwrap();
        assert_eq!((message.id, message.unreadable), (7, 0));
        let statistics = message.statistics.unwrap();
        assert_eq!((statistics.assigned, statistics.running, statistics.idle_runners), (3, 0, 0));
        let [JobEvent::Started { job, runner_name, runner_id: 4 }] = message.events.as_slice() else {
            unreachable!("{:?}", message.events)
        };
        assert_eq!(
            (job.id.as_str(), job.repository.as_str(), runner_name.as_str()),
            ("j1", "acme/app", "r1")
        );
        assert!(job.queued_at.is_some() && job.finished_at.is_none());
    }

    #[test]
    fn h2_an_entry_that_cannot_be_read_does_not_hide_the_others() {
        let body = json!([{"messageType": "JobStarted", "jobId": 5}, {"messageType": "JobInvented", "jobId": "j"},
            {"messageType": "JobAssigned"}, {"messageType": "JobAssigned", "jobId": "j2"}]);
        let message = message(&envelope(&body)).unwrap();
        assert_eq!(message.unreadable, 3);
        assert!(matches!(message.events.as_slice(), [JobEvent::Assigned { job }] if job.id == "j2"));
    }

    #[test]
    fn a_message_without_readable_entries_still_counts() {
        for (kind, body, unreadable) in [
            (JOB_MESSAGES, json!("not json"), 1),
            (JOB_MESSAGES, json!(""), 0),
            (JOB_MESSAGES, Value::Null, 0),
            (JOB_MESSAGES, json!({"a": 1}), 1),
            ("SomethingNew", json!("[]"), 1),
        ] {
            let wire = json!({"messageId": 9, "messageType": kind, "body": body, "statistics": {}});
            let message = message(wire.to_string().as_bytes()).unwrap();
            assert_eq!((message.id, message.unreadable, message.events.len()), (9, unreadable, 0), "{body}");
            assert!(message.statistics.is_some());
        }
    }

    #[test]
    fn an_envelope_that_is_none_is_a_bad_reply() {
        for body in ["", "nonsense", "null", "[]", "{}", r#"{"messageId": "planted"}"#] {
            let error = message(body.as_bytes()).unwrap_err();
            assert!(matches!(&error, Error::BadReply(t) if !t.contains("planted")), "{body}: {error}");
        }
    }

    #[test]
    fn outcomes_are_github_words() {
        let outcome = |word| match serde_json::from_value(
            json!({"messagetype": "JobCompleted", "jobid": "j", "result": word}),
        )
        .ok()
        .and_then(WireJob::event)
        {
            Some(JobEvent::Completed { outcome, .. }) => outcome,
            other => unreachable!("{other:?}"),
        };
        assert_eq!(outcome("succeeded"), JobOutcome::Succeeded);
        assert_eq!(outcome("Failed"), JobOutcome::Failed);
        assert_eq!(outcome("canceled"), JobOutcome::Canceled);
        assert_eq!(outcome("abandoned"), JobOutcome::Other);
    }

    #[test]
    fn a_fault_has_its_bare_name() {
        let fault = |body: &str| super::fault(body.as_bytes());
        let body = r#"{"typeName": "GitHub.X.Y.AgentExistsException, GitHub.X.Y", "message": "m"}"#;
        assert_eq!((fault(body).name.as_str(), fault(body).message.as_str()), ("AgentExistsException", "m"));
        assert_eq!(fault("<html>").message, "<html>");
        assert_eq!(fault("").message, "");
    }
}
