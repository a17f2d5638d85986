//! Scale sets: their records, their one session, their message queue.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;
use uuid::Uuid;

use super::{ControlError, Job, JobId, RunnerId, State};
use crate::github::auth::random;
use crate::github::builder::Model;
use crate::github::route::Scope;
use crate::github::wire::{self, Kind, Label, Refusal, RunnerSetting, ScaleSetBody};

/// A scale set's number.
pub type ScaleSetId = i64;

/// The most job messages that one batch carries.
const BATCH: usize = 50;

/// A scale set as GitHub keeps it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ScaleSet {
    /// Its number.
    pub id: ScaleSetId,
    /// Its name, unique in its scope and runner group.
    pub name: String,
    /// The enterprise, organisation or repository that it belongs to.
    pub scope: Scope,
    /// Its runner group.
    pub group_id: i64,
    /// What `runs-on` may name, beside its own name.
    pub labels: Vec<Label>,
    /// The runner setting it was created with.
    pub setting: RunnerSetting,
    /// When it was created.
    pub created_at: Timestamp,
    /// The session that is open.
    pub session: Option<Session>,
    /// How many sessions were ever opened.
    pub sessions_opened: u32,
    /// Jobs that match and are not assigned yet, the oldest first.
    pub waiting: VecDeque<JobId>,
    /// Jobs assigned that no runner has taken, the oldest first.
    pub assigned: VecDeque<JobId>,
    /// Jobs that run.
    pub running: BTreeSet<JobId>,
    /// Its registered runners.
    pub runners: BTreeSet<RunnerId>,
    /// Batches delivered or ready to be, and not deleted.
    #[serde(skip)]
    queue: VecDeque<Message>,
    /// Job messages that no batch holds yet.
    #[serde(skip)]
    pending: VecDeque<Value>,
    #[serde(skip)]
    last_message_id: i64,
    /// The latest batch delivered, for repeats.
    #[serde(skip)]
    last_delivered: Vec<Value>,
    #[serde(skip)]
    pub(super) quirks: Quirks,
    #[serde(skip)]
    changed: watch::Sender<()>,
}

/// Misbehaviour asked for by a test.
#[derive(Debug, Default)]
pub(super) struct Quirks {
    zero_statistics: u32,
    reverse_next_batch: bool,
    batch_limit: Option<usize>,
}

/// An open session.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// Its id, a UUID.
    pub id: String,
    /// The owner name that its opener gave.
    pub owner: String,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// The capacity header of the latest poll.
    pub capacity: Option<i64>,
    /// When the latest poll began.
    pub polled_at: Option<Timestamp>,
    /// The service has let it lapse: polls and refreshes are answered `RunnerScaleSetSessionExpiredException`.
    pub expired: bool,
    #[serde(skip)]
    pub(in crate::github) token: String,
    #[serde(skip)]
    token_expired: bool,
}

impl Session {
    fn is_unused_for(&self, lapse: Duration) -> bool {
        self.polled_at.unwrap_or(self.opened_at) + lapse < Timestamp::now()
    }
}

#[derive(Debug, Clone)]
struct Message {
    id: i64,
    entries: Vec<Value>,
}

/// The numbers that the service sends with sessions and messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Statistics {
    /// Offered or waiting, not assigned.
    pub total_available_jobs: usize,
    /// Always 0: what is acquired is assigned at once.
    pub total_acquired_jobs: usize,
    /// Assigned, waiting for a runner or running.
    pub total_assigned_jobs: usize,
    /// Running.
    pub total_running_jobs: usize,
    /// Registered runners.
    pub total_registered_runners: usize,
    /// Runners with a job.
    pub total_busy_runners: usize,
    /// Runners that are online and have no job.
    pub total_idle_runners: usize,
}

impl ScaleSet {
    /// How many batches are neither deleted nor skipped, plus one if messages wait to be batched.
    pub fn undelivered(&self) -> usize {
        self.queue.len() + usize::from(!self.pending.is_empty())
    }

    pub(in crate::github) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Wakes the polls of this set.
    pub(in crate::github) fn touch(&self) {
        self.changed.send_replace(());
    }

    /// A workflow's `runs-on` matches when the set has all the labels; its name counts as one.
    fn serves(&self, labels: &[String]) -> bool {
        labels.iter().all(|wanted| {
            self.name.eq_ignore_ascii_case(wanted)
                || self.labels.iter().any(|label| label.name.eq_ignore_ascii_case(wanted))
        })
    }

    /// Gathers the messages that wait into batches.
    fn batch(&mut self) {
        while !self.pending.is_empty() {
            let limit = self.quirks.batch_limit.unwrap_or(BATCH).min(self.pending.len());
            let mut entries: Vec<Value> = self.pending.drain(..limit).collect();
            if std::mem::take(&mut self.quirks.reverse_next_batch) {
                entries.reverse();
            }
            self.last_message_id += 1;
            self.queue.push_back(Message { id: self.last_message_id, entries });
        }
    }
}

/// The records.
impl State {
    pub(in crate::github) fn create_scale_set(
        &mut self,
        scope: &Scope,
        body: ScaleSetBody,
    ) -> Result<ScaleSetId, Refusal> {
        let name = body.name.filter(|n| !n.trim().is_empty());
        let name = name.ok_or_else(|| Refusal::bad_request("A runner scale set needs a name."))?;
        let group_id = body.runner_group_id.unwrap_or(1);
        self.check_group(group_id)?;
        self.check_name(scope, group_id, &name, None)?;
        let mut labels = self.accept_labels(body.labels.unwrap_or_default())?;
        if labels.is_empty() {
            labels.push(Label { name: name.clone(), kind: "System".to_owned() });
        }
        let id = self.next_id();
        let set = ScaleSet {
            id,
            name,
            scope: scope.clone(),
            group_id,
            labels,
            setting: body.runner_setting.unwrap_or_default(),
            created_at: Timestamp::now(),
            session: None,
            sessions_opened: 0,
            waiting: VecDeque::new(),
            assigned: VecDeque::new(),
            running: BTreeSet::new(),
            runners: BTreeSet::new(),
            queue: VecDeque::new(),
            pending: VecDeque::new(),
            last_message_id: self.config.message_id_base(),
            last_delivered: Vec::new(),
            quirks: Quirks::default(),
            changed: watch::Sender::new(()),
        };
        self.sets.insert(id, set);
        self.offer_unmatched();
        self.touch();
        Ok(id)
    }

    pub(in crate::github) fn update_scale_set(
        &mut self,
        scope: &Scope,
        id: ScaleSetId,
        body: ScaleSetBody,
    ) -> Result<(), Refusal> {
        let set = self.owned(scope, id)?;
        let group_id = body.runner_group_id.unwrap_or(set.group_id);
        let name = body.name.filter(|n| !n.is_empty()).unwrap_or_else(|| set.name.clone());
        self.check_group(group_id)?;
        self.check_name(scope, group_id, &name, Some(id))?;
        let labels = body.labels.map(|labels| self.accept_labels(labels)).transpose()?;
        if let Some(set) = self.sets.get_mut(&id) {
            set.name = name;
            set.group_id = group_id;
            set.labels = labels.unwrap_or_else(|| set.labels.clone());
            set.setting = body.runner_setting.unwrap_or(set.setting);
        }
        self.offer_unmatched();
        self.touch();
        Ok(())
    }

    /// Refused while a job runs; waiting jobs return to GitHub's queue and runners without a job go with the set.
    pub(in crate::github) fn delete_scale_set(
        &mut self,
        scope: &Scope,
        id: ScaleSetId,
    ) -> Result<(), Refusal> {
        let set = self.owned(scope, id)?;
        if !set.running.is_empty() {
            let message = format!("Runner scale set {:?} has running jobs.", set.name);
            return Err(Refusal::service(
                StatusCode::BAD_REQUEST,
                "TaskAgentJobStillRunningException",
                message,
            ));
        }
        self.remove_scale_set(id);
        Ok(())
    }

    /// Takes the set away whatever it is doing. A runner with a job keeps it.
    pub(in crate::github) fn remove_scale_set(&mut self, id: ScaleSetId) {
        let Some(set) = self.sets.remove(&id) else { return };
        for runner in set.runners {
            if self.runners.get(&runner).is_some_and(|r| r.job.is_none()) {
                self.forget_runner(runner);
            }
        }
        for job in set.assigned.into_iter().chain(set.waiting) {
            self.release(job);
        }
        self.touch();
    }

    /// The set, if it is there and belongs to the scope of the caller's token.
    pub(in crate::github) fn owned(&self, scope: &Scope, id: ScaleSetId) -> Result<&ScaleSet, Refusal> {
        let set = self.sets.get(&id).filter(|set| set.scope == *scope);
        set.ok_or_else(|| Refusal::no_such_scale_set(id))
    }

    pub(super) fn set_mut(&mut self, id: Option<ScaleSetId>) -> Option<&mut ScaleSet> {
        self.sets.get_mut(&id?)
    }

    pub(super) fn set(&self, id: Option<ScaleSetId>) -> Option<&ScaleSet> {
        self.sets.get(&id?)
    }

    /// The set that a job goes to: the oldest that covers its repository and has its labels.
    pub(super) fn matching_set(&self, repository: &str, labels: &[String]) -> Option<ScaleSetId> {
        let mut sets = self.sets.values();
        sets.find(|set| set.scope.covers(repository) && set.serves(labels)).map(|set| set.id)
    }

    fn check_group(&self, id: i64) -> Result<(), Refusal> {
        let known = self.groups.iter().any(|group| group.id == id);
        let message = format!("No runner group found with identifier {id}.");
        let refusal = || Refusal::service(StatusCode::NOT_FOUND, "RunnerGroupNotFoundException", message);
        if known { Ok(()) } else { Err(refusal()) }
    }

    fn check_name(
        &self,
        scope: &Scope,
        group: i64,
        name: &str,
        own: Option<ScaleSetId>,
    ) -> Result<(), Refusal> {
        let clash = self.sets.values().any(|s| {
            s.scope == *scope && s.group_id == group && s.name.eq_ignore_ascii_case(name) && Some(s.id) != own
        });
        let message = format!("A runner scale set with name {name:?} already exists.");
        let refusal = || Refusal::service(StatusCode::BAD_REQUEST, "RunnerScaleSetExistsException", message);
        if clash { Err(refusal()) } else { Ok(()) }
    }

    fn accept_labels(&self, mut labels: Vec<Label>) -> Result<Vec<Label>, Refusal> {
        if labels.iter().any(|l| !(1..=255).contains(&l.name.chars().count())) {
            return Err(Refusal::bad_request("A label has 1 to 255 characters."));
        }
        if self.config.drop_extra_labels {
            labels.truncate(1);
        }
        Ok(labels)
    }
}

/// Sessions.
impl State {
    pub(in crate::github) fn open_session(
        &mut self,
        scope: &Scope,
        id: ScaleSetId,
        owner: &str,
    ) -> Result<(), Refusal> {
        let lapse = self.config.session_lapse;
        let set = self.owned(scope, id)?;
        let lapsed = |s: &Session| s.expired || lapse.is_some_and(|lapse| s.is_unused_for(lapse));
        if let Some(open) = set.session.as_ref().filter(|s| !lapsed(s)) {
            let message = format!(
                "The runner scale set {} already has an active session for owner {}.",
                set.name, open.owner
            );
            let name = "RunnerScaleSetSessionConflictException";
            return Err(Refusal::service(StatusCode::CONFLICT, name, message));
        }
        if let Some(set) = self.sets.get_mut(&id) {
            set.sessions_opened += 1;
            set.session = Some(Session {
                id: Uuid::new_v4().to_string(),
                owner: owner.to_owned(),
                opened_at: Timestamp::now(),
                capacity: None,
                polled_at: None,
                expired: false,
                token: random("queue_"),
                token_expired: false,
            });
            set.touch();
        }
        self.touch();
        Ok(())
    }

    /// The same session with a new token.
    pub(in crate::github) fn refresh_session(
        &mut self,
        scope: &Scope,
        id: ScaleSetId,
        session_id: &str,
    ) -> Result<(), Refusal> {
        self.owned(scope, id)?;
        let session = self.sets.get_mut(&id).and_then(|set| set.session.as_mut());
        let session = session.filter(|s| s.id == session_id && !s.expired);
        let session = session.ok_or_else(|| expired(session_id))?;
        session.token = random("queue_");
        session.token_expired = false;
        self.touch();
        Ok(())
    }

    /// Ends the session, whoever opened it: the admin token and the id suffice.
    pub(in crate::github) fn close_session(
        &mut self,
        scope: &Scope,
        id: ScaleSetId,
        session_id: &str,
    ) -> Result<(), Refusal> {
        self.owned(scope, id)?;
        let set =
            self.sets.get_mut(&id).filter(|set| set.session.as_ref().is_some_and(|s| s.id == session_id));
        let set = set.ok_or_else(|| expired(session_id))?;
        let session = set.session.take();
        set.touch();
        self.touch();
        match session.filter(|s| s.expired) {
            Some(session) => Err(expired(&session.id)),
            None => Ok(()),
        }
    }

    /// Checks what a queue call brings: the session id from the queue URL and the queue token.
    pub(in crate::github) fn check_queue(
        &mut self,
        id: ScaleSetId,
        session_id: Option<&str>,
        token: Option<&str>,
    ) -> Result<&mut ScaleSet, Refusal> {
        let set = self.sets.get_mut(&id).ok_or_else(|| Refusal::no_such_scale_set(id))?;
        let session = set.session.as_ref().filter(|s| session_id.is_none_or(|wanted| wanted == s.id));
        let Some(session) = session else {
            let message = "The session does not exist.";
            return Err(Refusal::service(
                StatusCode::NOT_FOUND,
                "RunnerScaleSetSessionNotFoundException",
                message,
            ));
        };
        if session.expired {
            return Err(expired(&session.id));
        }
        if session.token_expired || token != Some(&session.token) {
            return Err(Refusal::unauthorized());
        }
        Ok(set)
    }

    /// For tests: the queue token is answered 401 until the session is refreshed.
    pub(in crate::github) fn expire_queue_token(&mut self, name: &str) -> Result<(), ControlError> {
        self.session_mut(name)?.token_expired = true;
        self.wake(name);
        Ok(())
    }

    /// For tests: the service lets the session lapse.
    pub(in crate::github) fn expire_session(&mut self, name: &str) -> Result<(), ControlError> {
        self.session_mut(name)?.expired = true;
        self.wake(name);
        Ok(())
    }

    /// For tests: the session is gone without a trace; polls are answered 404.
    pub(in crate::github) fn drop_session(&mut self, name: &str) -> Result<(), ControlError> {
        self.session_mut(name)?;
        self.named_mut(name)?.session = None;
        self.wake(name);
        Ok(())
    }

    fn session_mut(&mut self, name: &str) -> Result<&mut Session, ControlError> {
        self.named_mut(name)?.session.as_mut().ok_or_else(|| ControlError::NoSession(name.to_owned()))
    }
}

/// The message queue.
impl State {
    /// What a poll gets now: the first batch after `last_message_id`. On the broker the capacity of this very poll
    /// first lets waiting jobs through.
    pub(in crate::github) fn next_message(
        &mut self,
        id: ScaleSetId,
        last_message_id: i64,
        capacity: i64,
    ) -> Option<Value> {
        if self.config.model == Model::Broker {
            self.assign_up_to(id, usize::try_from(capacity).unwrap_or(0));
        }
        let set = self.sets.get_mut(&id)?;
        set.batch();
        let message = set.queue.iter().find(|m| m.id > last_message_id)?.clone();
        set.last_delivered.clone_from(&message.entries);
        let statistics = self.report(id);
        Some(wire::envelope(message.id, &message.entries, statistics))
    }

    /// Notes a poll's capacity header.
    pub(in crate::github) fn note_poll(&mut self, id: ScaleSetId, capacity: i64) {
        if let Some(session) = self.sets.get_mut(&id).and_then(|set| set.session.as_mut()) {
            session.capacity = Some(capacity);
            session.polled_at = Some(Timestamp::now());
            self.touch();
        }
    }

    /// Whether there was such a message.
    pub(in crate::github) fn acknowledge(&mut self, id: ScaleSetId, message_id: i64) -> bool {
        let Some(set) = self.sets.get_mut(&id) else {
            return false;
        };
        let before = set.queue.len();
        set.queue.retain(|m| m.id != message_id);
        let found = set.queue.len() < before;
        self.touch();
        found
    }

    pub(super) fn emit(&mut self, kind: Kind, job: JobId) {
        let Some(job) = self.jobs.get(&job) else { return };
        let job_id = self.config.job_ids.then_some(job.uuid.as_str());
        let Some(set) = job.scale_set.and_then(|id| self.sets.get_mut(&id)) else {
            return;
        };
        let request_id = if self.config.model == Model::Broker { 0 } else { job.id };
        let base = format!("{}{}", self.base_url, self.config.service_prefix());
        let acquire_url = format!("{base}/_apis/runtime/runnerscalesets/{}/acquirejobs", set.id);
        set.pending.push_back(wire::job_message(kind, job, request_id, job_id, &acquire_url));
        set.touch();
    }

    /// The `jobId` of a job's messages, where GitHub sends one.
    pub(in crate::github) fn job_id_on_the_wire<'a>(&self, job: &'a Job) -> Option<&'a str> {
        self.config.job_ids.then_some(job.uuid.as_str())
    }

    /// The statistics that go on the wire: the truth, unless told to lie.
    pub(in crate::github) fn report(&mut self, id: ScaleSetId) -> Statistics {
        let Some(set) = self.sets.get_mut(&id) else {
            return Statistics::default();
        };
        if set.quirks.zero_statistics > 0 {
            set.quirks.zero_statistics -= 1;
            return Statistics::default();
        }
        self.sets.get(&id).map(|set| self.count(set)).unwrap_or_default()
    }

    pub(in crate::github) fn count(&self, set: &ScaleSet) -> Statistics {
        let runners = || set.runners.iter().filter_map(|id| self.runners.get(id));
        Statistics {
            total_available_jobs: set.waiting.len(),
            total_acquired_jobs: 0,
            total_assigned_jobs: set.assigned.len() + set.running.len(),
            total_running_jobs: set.running.len(),
            total_registered_runners: set.runners.len(),
            total_busy_runners: runners().filter(|r| r.job.is_some()).count(),
            total_idle_runners: runners().filter(|r| r.connected && r.job.is_none()).count(),
        }
    }
}

/// Misbehaviour on request.
impl State {
    pub(in crate::github) fn zero_statistics(&mut self, name: &str, times: u32) -> Result<(), ControlError> {
        self.named_mut(name)?.quirks.zero_statistics = times;
        Ok(())
    }

    pub(in crate::github) fn reverse_next_batch(&mut self, name: &str) -> Result<(), ControlError> {
        self.named_mut(name)?.quirks.reverse_next_batch = true;
        Ok(())
    }

    pub(in crate::github) fn limit_batch(&mut self, name: &str, most: usize) -> Result<(), ControlError> {
        self.named_mut(name)?.quirks.batch_limit = Some(most.max(1));
        Ok(())
    }

    /// Sends the latest batch once more, under a new message id.
    pub(in crate::github) fn repeat_last_batch(&mut self, name: &str) -> Result<(), ControlError> {
        let set = self.named_mut(name)?;
        set.batch();
        set.pending.extend(set.last_delivered.clone());
        set.batch();
        self.wake(name);
        Ok(())
    }

    pub(in crate::github) fn vanish_scale_set(&mut self, name: &str) -> Result<(), ControlError> {
        let id = self.named_mut(name)?.id;
        self.remove_scale_set(id);
        Ok(())
    }

    fn named_mut(&mut self, name: &str) -> Result<&mut ScaleSet, ControlError> {
        let id = self.scale_set(name).map(|set| set.id);
        let set = id.and_then(|id| self.sets.get_mut(&id));
        set.ok_or_else(|| ControlError::NoSuchScaleSet(name.to_owned()))
    }

    fn wake(&self, name: &str) {
        if let Some(set) = self.scale_set(name) {
            set.touch();
        }
        self.touch();
    }
}

fn expired(session_id: &str) -> Refusal {
    let message = format!("The session identifier {session_id} is not valid.");
    Refusal::service(StatusCode::BAD_REQUEST, "RunnerScaleSetSessionExpiredException", message)
}
