//! The service's JSON: what is read of each answer, and what requests carry.

use jiff::Timestamp;
use serde::de::MapAccess;
use serde_json::{Value, json};

use super::fields::{Field, Object, Opaque, Read, Words, object, value};
use super::{AcquirableJob, Error, ListedRunner, RunnerReference, ScaleSet};
use crate::runner::{Job, JobEvent, JobOutcome, Statistics};
use crate::time::past;

/// The kind of label that a scale set's are.
const LABEL_TYPE: &str = "System";

/// Decodes a body. `what` names it in the error, which quotes nothing of it.
pub(super) fn decode<T: Field>(body: &[u8], what: &str) -> Result<T, Error> {
    if body.is_empty() {
        return Err(Error::BadReply(format!("{what} came with an empty body")));
    }
    match serde_json::from_slice::<Read<T>>(body) {
        Ok(Read(value)) => Ok(value),
        Err(error) if error.is_data() => Err(Error::BadReply(format!("{what} has an unknown form"))),
        Err(_) => Err(Error::BadReply(format!("{what} is not JSON"))),
    }
}

/// Decodes `{"count": n, "value": […]}`. Without a value it is empty, unless it counts some.
pub(super) fn list<T: Field>(body: &[u8], what: &str) -> Result<Vec<T>, Error> {
    let list: List<T> = decode(body, what)?;
    match list.value {
        Some(items) => Ok(items),
        None if list.count == 0 => Ok(Vec::new()),
        None => Err(Error::BadReply(format!("{what} counts {} and has none", list.count))),
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

#[derive(Default)]
struct Exception {
    type_name: String,
    message: Words,
}

object!(Exception { "typename" => type_name, "message" => message });

/// Reads an error body: the service's exception, REST's message, or plain text.
pub(super) fn fault(body: &[u8]) -> Fault {
    if let Ok(Read(Exception { type_name, message })) = serde_json::from_slice(body) {
        // The name may be qualified on both sides: `Namespace.Name, Assembly`.
        let name = type_name.split(',').next().unwrap_or_default();
        let name = name.rsplit('.').next().unwrap_or_default().trim().to_owned();
        return Fault { name, message: message.0 };
    }
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    let message = if text.starts_with(['{', '[', '"']) { String::new() } else { text.to_owned() };
    Fault { name: String::new(), message }
}

#[derive(Debug)]
struct List<T> {
    count: i64,
    value: Option<Vec<T>>,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        List { count: 0, value: None }
    }
}

impl<T: Field> Object for List<T> {
    fn take<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error> {
        match key {
            "count" => self.count = value(map)?,
            "value" => self.value = value(map)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// An answer that carries a token: App token, registration token, admin connection.
#[derive(Default)]
pub(super) struct Token {
    pub token: Opaque,
    /// The admin connection's service URL.
    pub url: Opaque,
}

object!(Token { "token" => token, "url" => url });

#[derive(Debug, Default)]
pub(super) struct Group {
    pub id: i64,
    pub name: String,
}

object!(Group { "id" => id, "name" => name });

#[derive(Debug, Default)]
pub(super) struct WireScaleSet {
    pub id: i64,
    pub name: String,
    pub group: i64,
    pub labels: Vec<Label>,
    pub setting: RunnerSetting,
}

object!(WireScaleSet {
    "id" => id,
    "name" => name,
    "runnergroupid" => group,
    "labels" => labels,
    "runnersetting" => setting,
});

#[derive(Debug, Default)]
pub(super) struct Label {
    pub name: String,
}

object!(Label { "name" => name });

#[derive(Debug, Default)]
pub(super) struct RunnerSetting {
    pub disable_update: Option<bool>,
}

object!(RunnerSetting { "disableupdate" => disable_update });

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
        Ok(ScaleSet { id: wire.id, labels: wire.labels(), name: wire.name, created: false })
    }
}

/// A page of REST's list of runners.
#[derive(Default)]
pub(super) struct WireRunnerPage {
    pub runners: Vec<WireListedRunner>,
}

object!(WireRunnerPage { "runners" => runners });

#[derive(Default)]
pub(super) struct WireListedRunner {
    id: i64,
    name: String,
    status: String,
    busy: bool,
}

object!(WireListedRunner { "id" => id, "name" => name, "status" => status, "busy" => busy });

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

#[derive(Default)]
pub(super) struct WireSession {
    pub id: String,
    pub queue_url: Opaque,
    pub queue_token: Opaque,
    pub statistics: Option<WireStatistics>,
}

object!(WireSession {
    "sessionid" => id,
    "messagequeueurl" => queue_url,
    "messagequeueaccesstoken" => queue_token,
    "statistics" => statistics,
});

#[derive(Debug, Default)]
pub(super) struct WireStatistics {
    available: i64,
    acquired: i64,
    assigned: i64,
    running: i64,
    registered_runners: i64,
    busy_runners: i64,
    idle_runners: i64,
}

object!(WireStatistics {
    "totalavailablejobs" => available,
    "totalacquiredjobs" => acquired,
    "totalassignedjobs" => assigned,
    "totalrunningjobs" => running,
    "totalregisteredrunners" => registered_runners,
    "totalbusyrunners" => busy_runners,
    "totalidlerunners" => idle_runners,
});

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

#[derive(Default)]
pub(super) struct Jit {
    pub runner: WireRunner,
    pub encoded: Opaque,
}

object!(Jit { "runner" => runner, "encodedjitconfig" => encoded });

#[derive(Debug, Default)]
pub(super) struct WireRunner {
    pub id: i64,
    pub name: String,
    pub scale_set_id: i64,
}

object!(WireRunner { "id" => id, "name" => name, "runnerscalesetid" => scale_set_id });

impl From<WireRunner> for RunnerReference {
    fn from(wire: WireRunner) -> Self {
        RunnerReference { id: wire.id, name: wire.name, scale_set_id: wire.scale_set_id }
    }
}

/// A job in a message, or one that is offered.
#[derive(Default)]
pub(super) struct WireJob {
    kind: String,
    request_id: i64,
    id: String,
    owner: String,
    repository: String,
    run_id: i64,
    workflow_ref: Words,
    display_name: String,
    event_name: String,
    queued_at: String,
    scale_set_assigned_at: String,
    runner_assigned_at: String,
    finished_at: String,
    result: String,
    runner_id: i64,
    runner_name: String,
}

object!(WireJob {
    "messagetype" => kind,
    "runnerrequestid" => request_id,
    "jobid" => id,
    "ownername" => owner,
    "repositoryname" => repository,
    "workflowrunid" => run_id,
    "jobworkflowref" => workflow_ref,
    "jobdisplayname" => display_name,
    "eventname" => event_name,
    "queuetime" => queued_at,
    "scalesetassigntime" => scale_set_assigned_at,
    "runnerassigntime" => runner_assigned_at,
    "finishtime" => finished_at,
    "result" => result,
    "runnerid" => runner_id,
    "runnername" => runner_name,
});

impl WireJob {
    fn repository(&self) -> String {
        if self.owner.is_empty() || self.repository.contains('/') {
            return self.repository.clone();
        }
        format!("{}/{}", self.owner, self.repository)
    }

    /// GitHub Enterprise Server sent no `jobId` before the middle of 2025: there the request's id names the job.
    fn id(&self) -> String {
        if self.id.is_empty() && self.request_id > 0 { self.request_id.to_string() } else { self.id.clone() }
    }

    fn job(&self) -> Job {
        Job {
            id: self.id(),
            repository: self.repository(),
            workflow_ref: self.workflow_ref.0.clone(),
            run_id: self.run_id,
            url: None,
            display_name: self.display_name.clone(),
            event_name: self.event_name.clone(),
            queued_at: time(&self.queued_at),
            scale_set_assigned_at: time(&self.scale_set_assigned_at),
            runner_assigned_at: time(&self.runner_assigned_at),
            finished_at: time(&self.finished_at),
        }
    }

    /// The event, unless its kind is unknown or it names no job.
    pub fn event(self) -> Option<JobEvent> {
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

    #[test]
    fn outcomes_are_github_words() {
        let body = |word| json!({"messageType": "JobCompleted", "jobId": "j", "result": word}).to_string();
        let event = |word| decode::<WireJob>(body(word).as_bytes(), "the job").ok().and_then(WireJob::event);
        let outcome = |word| match event(word) {
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
