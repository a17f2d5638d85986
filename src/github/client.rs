//! The thin client: [`ScaleSetService`] over HTTP.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{ACCEPT, HeaderValue};
use reqwest::{Method, Request, StatusCode, Url};
use serde_json::{Value, json};

use super::auth::Auth;
use super::call::{Call, Caller, persist, within};
use super::classify::CallKind;
use super::message::message;
use super::network::Pools;
use super::transport::{self, Reply};
use super::url::{ConfigUrl, below};
use super::wire::{self, Group, Jit, WireJob, WireRunner, WireScaleSet, WireSession};
use super::{
    AcquirableJob, Credentials, Deadlines, Error, JitRunner, ListedRunner, Message, Network, RunnerReference,
    ScaleSet, ScaleSetService, Session, WantedScaleSet,
};
use crate::runner::{JitConfiguration, JobEvent};

/// What a new session's id is in the request; the service gives the real one.
const NO_SESSION: &str = "00000000-0000-0000-0000-000000000000";
/// The group that every organisation has.
const DEFAULT_GROUP: (i64, &str) = (1, "default");
/// The runner's work folder, below its home: GitHub's default.
const WORK_FOLDER: &str = "_work";
/// A larger JIT configuration does not fit into an ECS task override (8,192 characters in all). About 4.5 KiB is usual.
const MAX_JIT: usize = 8192;
/// All that a client is made of; two sets for which it is equal share one client.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientConfig {
    /// The organisation, repository or enterprise: `https://github.com/acme`.
    pub url: String,
    /// Permits `http://`, though never for github.com or GHE.com.
    pub allow_insecure: bool,
    /// What is shown to GitHub.
    pub credentials: Credentials,
    /// How GitHub is reached.
    pub network: Network,
}

/// A client of the scale-set service at one URL with one credential. Cheap to share, made to be shared.
pub struct Client {
    config: ConfigUrl,
    caller: Caller,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("url", &self.config.as_str()).finish_non_exhaustive()
    }
}

impl Client {
    /// Builds it; no request is made yet.
    ///
    /// # Errors
    /// [`Error::Config`] for a URL, key, proxy or CA bundle that cannot be used.
    pub fn new(config: &ClientConfig, deadlines: Deadlines) -> Result<Self, Error> {
        let url = ConfigUrl::parse(&config.url, config.allow_insecure)?;
        let pools = Pools::new(&config.network)?;
        let attempt = deadlines.control / 3;
        let auth = Auth::new(pools.control.clone(), url.clone(), config.credentials.clone(), attempt)?;
        Ok(Client { config: url, caller: Caller { pools, auth, deadlines } })
    }

    /// Answers the scale set of the wanted name in its group, if there is one. Nothing is created or changed.
    ///
    /// # Errors
    /// As [`ScaleSetService::ensure_scale_set`].
    pub async fn look_up(&self, wanted: &WantedScaleSet) -> Result<Option<ScaleSet>, Error> {
        within(self.caller.deadlines.control, async {
            let group = self.group_id(&wanted.runner_group).await?;
            self.scale_set_named(&wanted.name, group).await?.map(ScaleSet::try_from).transpose()
        })
        .await
    }

    /// A request to the message queue, with the queue's own token.
    /// No message says where its jobs are to be seen.
    fn with_links(&self, mut message: Message) -> Message {
        for job in message.events.iter_mut().map(JobEvent::job_mut) {
            job.url = self.config.run_page(&job.repository, job.run_id);
        }
        message
    }

    fn queue_request(&self, method: Method, session: &Session, url: Url) -> Result<Request, Error> {
        let authorization = ("Bearer", session.queue_token.as_str());
        transport::request(method, url, authorization, ("listener", session.scale_set_id))
    }

    async fn group_id(&self, name: &str) -> Result<i64, Error> {
        if self.config.is_repository() || name.eq_ignore_ascii_case(DEFAULT_GROUP.1) {
            return Ok(DEFAULT_GROUP.0);
        }
        let query = [("groupName", name)];
        let reply = self
            .caller
            .call(Call::new(Method::GET, CallKind::Group, &["runtime", "runnergroups", ""]).query(&query))
            .await?;
        let groups: Vec<Group> = wire::list(&reply.body, "the list of runner groups")?;
        let group = groups.into_iter().find(|g| g.name.eq_ignore_ascii_case(name) && g.id > 0);
        group.map(|g| g.id).ok_or_else(|| Error::GroupNotFound(name.to_owned()))
    }

    /// The scale set of that id, if it still exists.
    async fn scale_set(&self, id: i64) -> Result<Option<WireScaleSet>, Error> {
        match self.caller.call(Call::of_set(Method::GET, CallKind::ScaleSet, id, &[])).await {
            Ok(reply) => wire::decode(&reply.body, "the scale set").map(Some),
            Err(Error::ScaleSetGone) => Ok(None),
            Err(e) => Err(e),
        }
    }

    async fn scale_set_named(&self, name: &str, group: i64) -> Result<Option<WireScaleSet>, Error> {
        let group = group.to_string();
        let query = [("runnerGroupId", group.as_str()), ("name", name)];
        let reply = self
            .caller
            .call(Call::new(Method::GET, CallKind::ScaleSet, &["runtime", "runnerscalesets"]).query(&query))
            .await?;
        let sets: Vec<WireScaleSet> = wire::list(&reply.body, "the list of scale sets")?;
        Ok(sets.into_iter().find(|s| s.name.eq_ignore_ascii_case(name)))
    }

    /// Creates it. A name that is taken is looked up once more: the answer to an earlier try may have been lost.
    async fn create(&self, wanted: &WantedScaleSet, group: i64) -> Result<ScaleSet, Error> {
        let body = json!({
            "name": wanted.name,
            "runnerGroupId": group,
            "labels": wire::labels(&wanted.labels),
            "RunnerSetting": wire::runner_setting(),
        });
        let call = Call::new(Method::POST, CallKind::ScaleSet, &["runtime", "runnerscalesets"]);
        match self.caller.call(call.body(body)).await {
            Ok(reply) => {
                let created: WireScaleSet = wire::decode(&reply.body, "the new scale set")?;
                Ok(ScaleSet { created: true, ..created.try_into()? })
            }
            Err(Error::NameTaken(text)) => {
                self.scale_set_named(&wanted.name, group).await?.ok_or(Error::NameTaken(text))?.try_into()
            }
            Err(e) => Err(e),
        }
    }

    /// Changes in place what differs, and answers what GitHub then holds.
    async fn change(
        &self,
        found: WireScaleSet,
        wanted: &WantedScaleSet,
        group: i64,
    ) -> Result<ScaleSet, Error> {
        if found.id <= 0 {
            return found.try_into();
        }
        let group = (!self.config.is_repository()).then_some(group);
        let Some(patch) = changes(&found, wanted, group) else {
            return found.try_into();
        };
        let call = Call::of_set(Method::PATCH, CallKind::ScaleSet, found.id, &[]);
        self.caller.call(call.body(patch)).await?;
        self.scale_set(found.id).await?.ok_or(Error::ScaleSetGone)?.try_into()
    }

    /// Deletes a session by its id, which needs no more than that: whoever knows it can.
    async fn delete_session(&self, scale_set_id: i64, session: &str) -> Result<(), Error> {
        let call = Call::of_set(Method::DELETE, CallKind::Session, scale_set_id, &["sessions", session]);
        match self.caller.call_once(call).await {
            Ok(_) | Err(Error::SessionLost(_) | Error::ScaleSetGone) => Ok(()),
            Err(e) => Err(e),
        }
    }

    fn session(&self, reply: &Reply, scale_set_id: i64, owner: &str) -> Result<Session, Error> {
        let wire: WireSession = wire::decode(&reply.body, "the session")?;
        let queue_url = wire::required(wire.queue_url.0, "the session's queue URL")?;
        self.config.trusts(&queue_url)?;
        Ok(Session {
            id: wire::required(wire.id, "the session's id")?,
            scale_set_id,
            owner: owner.to_owned(),
            queue_url,
            queue_token: wire::required(wire.queue_token.0, "the session's queue token")?,
            statistics: wire.statistics.map(Into::into),
        })
    }

    async fn mint(&self, scale_set_id: i64, runner_name: &str) -> Result<JitRunner, Error> {
        let call = Call::of_set(Method::POST, CallKind::Mint, scale_set_id, &["generatejitconfig"]);
        let body = json!({"name": runner_name, "workFolder": WORK_FOLDER});
        let reply = self.caller.call_once(call.body(body)).await?;
        let jit: Jit = wire::decode(&reply.body, "the JIT configuration")?;
        let encoded = wire::required(jit.encoded.0, "the JIT configuration")?;
        if encoded.len() > MAX_JIT {
            let length = encoded.len();
            return Err(Error::BadReply(format!(
                "the JIT configuration is {length} bytes long; a runner's environment carries at most {MAX_JIT}"
            )));
        }
        if jit.runner.id <= 0 {
            return Err(Error::BadReply("the JIT configuration names no runner".into()));
        }
        Ok(JitRunner { id: jit.runner.id, configuration: JitConfiguration::new(encoded) })
    }

    /// Frees a runner name that a stale registration of the same scale set holds.
    async fn free_name(&self, scale_set_id: i64, runner_name: &str) -> Result<(), Error> {
        match self.find(runner_name).await? {
            None => Ok(()),
            Some(stale) if stale.scale_set_id == scale_set_id => match self.remove(stale.id).await {
                Err(Error::RunnerBusy) => Err(Error::RunnerExists),
                done => done,
            },
            Some(_) => Err(Error::RunnerExists),
        }
    }

    async fn find(&self, name: &str) -> Result<Option<RunnerReference>, Error> {
        let query = [("agentName", name)];
        let call = Call::new(Method::GET, CallKind::Runner, &["distributedtask", "pools", "0", "agents"])
            .query(&query);
        let runners: Vec<WireRunner> = match self.caller.call(call).await {
            Ok(reply) => wire::list(&reply.body, "the list of runners")?,
            Err(Error::RunnerGone) => return Ok(None),
            Err(e) => return Err(e),
        };
        Ok(runners.into_iter().find(|r| r.name.eq_ignore_ascii_case(name)).map(Into::into))
    }

    async fn remove(&self, id: i64) -> Result<(), Error> {
        let path = ["distributedtask", "pools", "0", "agents", &id.to_string()];
        let call = Call::new(Method::DELETE, CallKind::Runner, &path);
        match self.caller.call(call).await {
            // GitHub's own client takes no other success for one.
            Ok(reply) if reply.status != StatusCode::NO_CONTENT => Err(Error::BadReply(format!(
                "a runner's removal was answered with HTTP {}",
                reply.status.as_u16()
            ))),
            Ok(_) | Err(Error::RunnerGone) => Ok(()),
            Err(e) => Err(e),
        }
    }
}

/// What a PATCH has to say so that `found` becomes `wanted`; `None` when it is so already. `group` is `None` where there
/// are no groups.
fn changes(found: &WireScaleSet, wanted: &WantedScaleSet, group: Option<i64>) -> Option<Value> {
    let mut patch = serde_json::Map::new();
    if found.name != wanted.name {
        patch.insert("name".into(), json!(wanted.name));
    }
    if group.is_some_and(|group| found.group > 0 && found.group != group) {
        patch.insert("runnerGroupId".into(), json!(group));
    }
    if !same_labels(&found.labels(), &wanted.labels) {
        patch.insert("labels".into(), wire::labels(&wanted.labels));
    }
    if patch.is_empty() && found.setting.disable_update != Some(false) {
        return None;
    }
    // GitHub's own client sends it with every change: what GitHub makes of a change without it is not known.
    patch.insert("RunnerSetting".into(), wire::runner_setting());
    Some(patch.into())
}

/// Labels are a set, and GitHub matches them without regard to case.
fn same_labels(a: &[String], b: &[String]) -> bool {
    let sorted = |labels: &[String]| {
        let mut labels: Vec<_> = labels.iter().map(|l| l.to_lowercase()).collect();
        labels.sort();
        labels.dedup();
        labels
    };
    sorted(a) == sorted(b)
}

#[async_trait]
impl ScaleSetService for Client {
    async fn ensure_scale_set(&self, wanted: &WantedScaleSet, own: Option<i64>) -> Result<ScaleSet, Error> {
        within(self.caller.deadlines.control, async {
            let group = self.group_id(&wanted.runner_group).await?;
            if let Some(id) = own
                && let Some(found) = self.scale_set(id).await?
            {
                return self.change(found, wanted, group).await;
            }
            match self.scale_set_named(&wanted.name, group).await? {
                Some(found) => found.try_into(),
                None => self.create(wanted, group).await,
            }
        })
        .await
    }

    async fn find_scale_set(&self, id: i64) -> Result<Option<ScaleSet>, Error> {
        let found = within(self.caller.deadlines.control, self.scale_set(id)).await?;
        found.map(TryInto::try_into).transpose()
    }

    async fn delete_scale_set(&self, id: i64) -> Result<(), Error> {
        let call = Call::of_set(Method::DELETE, CallKind::DeleteScaleSet, id, &[]);
        match within(self.caller.deadlines.control, self.caller.call(call)).await {
            Ok(_) | Err(Error::ScaleSetGone) => Ok(()),
            Err(e) => Err(e),
        }
    }

    async fn open_session(
        &self,
        scale_set_id: i64,
        owner: &str,
        left_behind: Option<&str>,
    ) -> Result<Session, Error> {
        within(self.caller.deadlines.control, async {
            if let Some(id) = left_behind {
                // Bounded by itself, and no reason to stop: if the session still stands, opening says so.
                let cleared = within(self.caller.deadlines.control / 3, self.delete_session(scale_set_id, id)).await;
                if let Err(error) = cleared {
                    tracing::warn!(scale_set_id, session = id, %error, "the session left behind could not be deleted");
                }
            }
            let call = Call::of_set(Method::POST, CallKind::OpenSession, scale_set_id, &["sessions"]);
            let body = json!({"sessionId": NO_SESSION, "ownerName": owner});
            let reply = self.caller.call_once(call.body(body)).await?;
            let session = self.session(&reply, scale_set_id, owner);
            if session.is_err()
                && let Some(id) = wire::decode::<WireSession>(&reply.body, "the session").ok().map(|wire| wire.id)
                && !id.is_empty()
            {
                // It is open, of no use, and would be in the way of the next.
                let _ = self.delete_session(scale_set_id, &id).await;
            }
            session
        })
        .await
    }

    async fn refresh(&self, session: &Session) -> Result<Session, Error> {
        let path = ["sessions", &session.id];
        let call = Call::of_set(Method::PATCH, CallKind::Session, session.scale_set_id, &path);
        let reply = within(self.caller.deadlines.control, self.caller.call(call)).await?;
        self.session(&reply, session.scale_set_id, &session.owner)
    }

    async fn poll(
        &self,
        session: &Session,
        last_message_id: i64,
        capacity: u32,
    ) -> Result<Option<Message>, Error> {
        let mut url = self.config.trusts(&session.queue_url)?;
        if last_message_id > 0 {
            url.query_pairs_mut().append_pair("lastMessageId", &last_message_id.to_string());
        }
        let mut request = self.queue_request(Method::GET, session, url)?;
        let accept = HeaderValue::from_static("application/json; api-version=6.0-preview");
        request.headers_mut().insert(ACCEPT, accept);
        request.headers_mut().insert("X-ScaleSetMaxCapacity", HeaderValue::from(capacity));
        let asked = "GET of the message queue".to_owned();
        let reply =
            transport::send(&self.caller.pools.polls, request, asked, self.caller.deadlines.poll).await?;
        let reply = reply.success(CallKind::Queue)?;
        match reply.status {
            StatusCode::ACCEPTED | StatusCode::NO_CONTENT => Ok(None),
            _ => message(&reply.body).map(|message| Some(self.with_links(message))),
        }
    }

    async fn acknowledge(&self, session: &Session, message_id: i64) -> Result<(), Error> {
        let url = below(&self.config.trusts(&session.queue_url)?, &[&message_id.to_string()]);
        let attempt = || async {
            let request = self.queue_request(Method::DELETE, session, url.clone())?;
            let asked = "DELETE of a message".to_owned();
            let reply = transport::send(
                &self.caller.pools.control,
                request,
                asked,
                self.caller.deadlines.control / 3,
            )
            .await?;
            match reply.status {
                StatusCode::NOT_FOUND => Ok(()),
                _ => reply.success(CallKind::Queue).map(drop),
            }
        };
        within(self.caller.deadlines.control, persist(attempt)).await
    }

    async fn acquire(&self, session: &Session, request_ids: &[i64]) -> Result<Vec<i64>, Error> {
        let call = Call::of_set(Method::POST, CallKind::Queue, session.scale_set_id, &["acquirejobs"]);
        let call = call.body(json!(request_ids));
        let attempt = || async {
            let service = &self.caller.auth.admin().await?.service;
            let reply = self
                .caller
                .send(service, &session.queue_token, &call, self.caller.deadlines.control / 3)
                .await?;
            match reply.status {
                // The broker of github.com assigns jobs by itself and has no such route.
                StatusCode::NOT_FOUND => Ok(Vec::new()),
                _ => {
                    let reply = reply.success(call.kind)?;
                    wire::list(&reply.body, "the list of acquired jobs")
                }
            }
        };
        within(self.caller.deadlines.control, persist(attempt)).await
    }

    async fn acquirable(&self, scale_set_id: i64) -> Result<Vec<AcquirableJob>, Error> {
        let call = Call::of_set(Method::GET, CallKind::ScaleSet, scale_set_id, &["acquirablejobs"]);
        match within(self.caller.deadlines.control, self.caller.call(call)).await {
            Ok(reply) if reply.status == StatusCode::NO_CONTENT => Ok(Vec::new()),
            Ok(reply) => {
                let jobs: Vec<WireJob> = wire::list(&reply.body, "the list of offered jobs")?;
                Ok(jobs.into_iter().map(Into::into).collect())
            }
            // No such route, as with `acquire`; whether the set is gone shows elsewhere.
            Err(Error::ScaleSetGone) => Ok(Vec::new()),
            Err(e) => Err(e),
        }
    }

    async fn mint_jit(&self, scale_set_id: i64, runner_name: &str) -> Result<JitRunner, Error> {
        within(self.caller.deadlines.control, async {
            match self.mint(scale_set_id, runner_name).await {
                Err(Error::RunnerExists) => {
                    self.free_name(scale_set_id, runner_name).await?;
                    self.mint(scale_set_id, runner_name).await
                }
                minted => minted,
            }
        })
        .await
    }

    async fn find_runner(&self, name: &str) -> Result<Option<RunnerReference>, Error> {
        within(self.caller.deadlines.control, self.find(name)).await
    }

    async fn list_runners(&self) -> Result<Vec<ListedRunner>, Error> {
        let listing = within(self.caller.deadlines.control, self.caller.auth.list_runners()).await?;
        Ok(listing.into_iter().map(Into::into).collect())
    }

    async fn rerun_failed_jobs(&self, repository: &str, run_id: i64) -> Result<(), Error> {
        within(self.caller.deadlines.control, self.caller.auth.rerun_failed_jobs(repository, run_id)).await
    }

    async fn remove_runner(&self, id: i64) -> Result<(), Error> {
        within(self.caller.deadlines.control, self.remove(id)).await
    }

    fn limited_for(&self) -> Option<Duration> {
        self.caller.auth.limit().left()
    }

    async fn close(&self, session: &Session) -> Result<(), Error> {
        within(self.caller.deadlines.control, self.delete_session(session.scale_set_id, &session.id)).await
    }
}
