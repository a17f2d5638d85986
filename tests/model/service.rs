//! GitHub as one controller reaches it: every call takes time, may fail in all ways, and may do its work although nobody
//! hears of it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use paddock::github::{
    AcquirableJob, Error, JitRunner, ListedRunner, Message, RunnerReference, ScaleSet, ScaleSetService,
    Session, WantedScaleSet,
};
use paddock::runner::{JitConfiguration, JobEvent, Statistics};
use rand::RngExt;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};

use crate::github::{LAPSE, Presence, Registration};
use crate::history::Weather;
use crate::life::Life;
use crate::rules;
use crate::sim::{State, between};

/// The deadlines of the real client.
const CONTROL: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_secs(120);
/// How long a poll waits for a message.
const LONG_POLL: Duration = Duration::from_secs(50);

/// GitHub as one controller reaches it.
pub struct Service {
    pub life: Arc<Life>,
}

/// How a call goes.
enum Course {
    Well,
    /// It does nothing.
    Fails(Error),
    /// It does what it should, and nobody is told.
    AnswerLost,
    /// It does nothing, and no answer comes.
    Hangs,
}

/// A message in few words.
fn brief(message: &Message) -> String {
    let event = |event: &JobEvent| match event {
        JobEvent::Available { job, .. } => format!("{} available", job.id),
        JobEvent::Assigned { job } => format!("{} assigned", job.id),
        JobEvent::Started { job, runner_name, .. } => format!("{} started on {runner_name}", job.id),
        JobEvent::Completed { job, runner_name, outcome } => {
            format!("{} {outcome:?} on {runner_name}", job.id)
        }
    };
    let events: Vec<String> = message.events.iter().map(event).collect();
    let Statistics { assigned, running, .. } = message.statistics.unwrap_or_default();
    format!("message {}: {assigned} assigned, {running} running: {}", message.id, events.join(", "))
}

fn silence() -> Error {
    Error::Transient("no answer within the deadline".into())
}

impl State {
    fn github_course(&mut self, poll: bool) -> Course {
        let weather = self.github.weather;
        match weather {
            Weather::Fine => Course::Well,
            Weather::Down if self.chance(30) => Course::Hangs,
            Weather::Down => Course::Fails(Error::Transient("503".into())),
            Weather::Patchy => match self.rng.random_range(0..10) {
                0..=5 => Course::Well,
                6 => Course::AnswerLost,
                7 => Course::Hangs,
                _ => Course::Fails(self.fault(poll)),
            },
        }
    }

    fn fault(&mut self, poll: bool) -> Error {
        let last = if poll { 9 } else { 5 };
        match self.rng.random_range(0..=last) {
            0 | 1 => Error::Transient("502".into()),
            2 => Error::BadReply("{".into()),
            3 => Error::RateLimited { retry_after: self.millis(500, 90_000) },
            4 => Error::AuthRejected("401".into()),
            5 => Error::Forbidden("403".into()),
            6 => Error::TokenExpired,
            7 => Error::SessionLost("404".into()),
            8 => Error::ScaleSetGone,
            _ => Error::SessionConflict { owner: None },
        }
    }
}

impl Service {
    async fn call<T: Send + 'static>(
        &self,
        what: &'static str,
        effect: impl FnOnce(&mut State, usize) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.life.living().await;
        // The queue has a token of its own, and no part in the limit of the credential.
        let limited = !matches!(what, "acknowledge" | "acquire");
        if limited {
            self.life.limit.check()?;
        }
        let (course, there, back) = {
            let mut state = self.life.sim.state();
            self.life.count_call(&mut state);
            (state.github_course(false), state.millis(1, 60), state.millis(1, 60))
        };
        let (sender, answered) = oneshot::channel();
        let (sim, number) = (self.life.sim.clone(), self.life.number);
        tokio::spawn(async move {
            tokio::time::sleep(there).await;
            let answer = match course {
                Course::Fails(ref error) => Err(error.clone()),
                Course::Hangs => return tokio::time::sleep(CONTROL).await,
                Course::Well | Course::AnswerLost => {
                    let answer = effect(&mut sim.state(), number);
                    sim.github.tell();
                    answer
                }
            };
            if matches!(course, Course::AnswerLost) {
                forget_told(&mut sim.state(), number, what);
                return tokio::time::sleep(CONTROL).await;
            }
            tokio::time::sleep(back).await;
            let _ = sender.send(answer);
        });
        let answer = timeout(CONTROL, answered).await;
        self.life.living().await;
        match answer {
            Ok(Ok(answer)) if limited => self.life.limit.noted(answer),
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(silence()),
        }
    }

    /// One look for a message.
    fn look(&self, session: &Session, last: i64, capacity: u32) -> Result<Option<Message>, Error> {
        let mut state = self.life.sim.state();
        let now = state.now;
        let set = state.github.set_of(session.scale_set_id)?;
        let open = state.github.sets[set].session.as_mut().filter(|open| open.id == session.id);
        let Some(open) = open else { return Err(Error::SessionLost("another session is open".into())) };
        if open.expired || open.token.to_string() != session.queue_token {
            return Err(Error::TokenExpired);
        }
        open.seen = now;
        state.github.sets[set].capacity = capacity;
        state.assign(set);
        let Some((message, honest)) = state.next_message(set, last) else { return Ok(None) };
        state.note(|| format!("set {set} hears {}", brief(&message)));
        if let Some(statistics) = message.statistics {
            told(&mut state, self.life.number, set, statistics, honest);
        }
        Ok(Some(message))
    }
}

/// An answer is lost: what a controller was told is not sure any more.
fn forget_told(state: &mut State, life: usize, what: &str) {
    state.lives[life].told.fill(None);
    state.note(|| format!("GitHub's answer to {what} is lost"));
}

/// Notes what a controller was told.
fn told(state: &mut State, life: usize, set: usize, statistics: Statistics, honest: bool) {
    let now = state.now;
    let told = &mut state.lives[life].told[set];
    if honest && told.is_none_or(|(assigned, _)| assigned != statistics.assigned) {
        *told = Some((statistics.assigned, now));
    }
    if !honest {
        state.watch.jobs.denied[set] = Some(now);
    }
}

fn session(state: &mut State, life: usize, set: usize) -> Session {
    let (statistics, honest) = state.reading(set);
    told(state, life, set, statistics, honest);
    let scale_set = &state.github.sets[set];
    let open = scale_set.session.as_ref().expect("it was opened");
    Session {
        id: open.id.clone(),
        scale_set_id: scale_set.id.unwrap_or_default(),
        owner: open.owner.clone(),
        queue_url: String::new(),
        queue_token: open.token.to_string(),
        statistics: Some(statistics),
    }
}

#[async_trait]
impl ScaleSetService for Service {
    async fn ensure_scale_set(&self, wanted: &WantedScaleSet, own: Option<i64>) -> Result<ScaleSet, Error> {
        let wanted = wanted.clone();
        self.call("ensure_scale_set", move |state, _| {
            let by_id = own.and_then(|id| state.github.set_of(id).ok());
            let set = by_id.or_else(|| state.github.sets.iter().position(|set| set.name == wanted.name));
            let set = set.ok_or_else(|| Error::BadReply("no such name".into()))?;
            let created = state.github.sets[set].id.is_none();
            if created {
                let id = i64::try_from(state.number()).expect("few");
                state.github.sets[set].id = Some(id);
                state.note(|| format!("set {set} is registered at GitHub as {id}"));
                state.assign(set);
            }
            let scale_set = &mut state.github.sets[set];
            if created || by_id.is_some() {
                scale_set.labels.clone_from(&wanted.labels);
            }
            let (id, labels) = (scale_set.id.unwrap_or_default(), scale_set.labels.clone());
            Ok(ScaleSet { id, name: wanted.name, labels, created })
        })
        .await
    }

    async fn find_scale_set(&self, id: i64) -> Result<Option<ScaleSet>, Error> {
        self.call("find_scale_set", move |state, _| {
            let Ok(set) = state.github.set_of(id) else { return Ok(None) };
            let set = &state.github.sets[set];
            Ok(Some(ScaleSet { id, name: set.name.clone(), labels: set.labels.clone(), created: false }))
        })
        .await
    }

    async fn delete_scale_set(&self, id: i64) -> Result<(), Error> {
        self.call("delete_scale_set", move |state, life| {
            let Ok(set) = state.github.set_of(id) else { return Ok(()) };
            if state.github.registrations.values().any(|r| r.set == set && r.state == Presence::Busy) {
                return Err(Error::RunnerBusy);
            }
            rules::scale_set_goes(state, life, set);
            state.forget_scale_set(set);
            Ok(())
        })
        .await
    }

    async fn open_session(&self, id: i64, owner: &str, left_behind: Option<&str>) -> Result<Session, Error> {
        let (owner, left_behind) = (owner.to_owned(), left_behind.map(str::to_owned));
        self.call("open_session", move |state, life| {
            let set = state.github.set_of(id)?;
            let (now, number) = (state.now, state.number());
            let scale_set = &mut state.github.sets[set];
            if let Some(open) = &scale_set.session {
                let lapsed = between(open.seen, now) > LAPSE;
                if !lapsed && left_behind.as_ref() != Some(&open.id) {
                    return Err(Error::SessionConflict { owner: Some(open.owner.clone()) });
                }
            }
            let id = format!("session-{number}");
            scale_set.session =
                Some(crate::github::Session { id: id.clone(), owner, seen: now, token: 1, expired: false });
            state.note(|| format!("set {set} has {id} now"));
            Ok(session(state, life, set))
        })
        .await
    }

    async fn refresh(&self, session: &Session) -> Result<Session, Error> {
        let (id, scale_set) = (session.id.clone(), session.scale_set_id);
        self.call("refresh", move |state, life| {
            let set = state.github.set_of(scale_set)?;
            let now = state.now;
            let open = state.github.sets[set].session.as_mut().filter(|open| open.id == id);
            let open = open.ok_or_else(|| Error::SessionLost("not in redis".into()))?;
            open.token += 1;
            open.expired = false;
            open.seen = now;
            Ok(self::session(state, life, set))
        })
        .await
    }

    async fn poll(&self, session: &Session, last: i64, capacity: u32) -> Result<Option<Message>, Error> {
        self.life.living().await;
        let (course, there) = {
            let mut state = self.life.sim.state();
            self.life.count_call(&mut state);
            (state.github_course(true), state.millis(1, 60))
        };
        tokio::time::sleep(there).await;
        let mut changed = self.life.sim.github.follow();
        let deadline = Instant::now() + LONG_POLL;
        let answer = loop {
            self.life.living().await;
            match &course {
                Course::Fails(error) => break Err(error.clone()),
                Course::Hangs => {
                    tokio::time::sleep(POLL).await;
                    break Err(silence());
                }
                Course::Well | Course::AnswerLost => {}
            }
            match self.look(session, last, capacity) {
                Ok(None) => {}
                Ok(Some(_)) if matches!(course, Course::AnswerLost) => {
                    self.life.sim.state().lives[self.life.number].told.fill(None);
                    tokio::time::sleep(POLL).await;
                    break Err(silence());
                }
                answer => break answer,
            }
            tokio::select! {
                biased;
                () = sleep_until(deadline) => break Ok(None),
                () = changed.changed() => {}
            }
        };
        self.life.living().await;
        answer
    }

    async fn acknowledge(&self, session: &Session, message_id: i64) -> Result<(), Error> {
        let (id, scale_set) = (session.id.clone(), session.scale_set_id);
        self.call("acknowledge", move |state, _| {
            let set = state.github.set_of(scale_set)?;
            if state.github.sets[set].session.as_ref().is_none_or(|open| open.id != id) {
                return Err(Error::SessionLost("another session is open".into()));
            }
            state.delete_message(set, message_id);
            Ok(())
        })
        .await
    }

    async fn acquire(&self, session: &Session, request_ids: &[i64]) -> Result<Vec<i64>, Error> {
        let (scale_set, ids) = (session.scale_set_id, request_ids.to_vec());
        self.call("acquire", move |state, _| {
            let set = state.github.set_of(scale_set)?;
            Ok(state.acquire(set, &ids))
        })
        .await
    }

    async fn acquirable(&self, scale_set_id: i64) -> Result<Vec<AcquirableJob>, Error> {
        self.call("acquirable", move |state, _| {
            let set = state.github.set_of(scale_set_id)?;
            let offered = state.offered(set).into_iter();
            Ok(offered
                .map(|request_id| AcquirableJob { request_id, repository: "acme/app".into() })
                .collect())
        })
        .await
    }

    async fn mint_jit(&self, scale_set_id: i64, runner_name: &str) -> Result<JitRunner, Error> {
        let name = runner_name.to_owned();
        self.call("mint_jit", move |state, life| {
            let set = state.github.set_of(scale_set_id)?;
            if state.github.registered(&name).is_some() {
                return Err(Error::RunnerExists);
            }
            let id = i64::try_from(state.number()).expect("few");
            state.note(|| format!("{name} is registered as {id}"));
            state.github.registrations.insert(
                id,
                Registration { id, name, set, state: Presence::Offline, dropped_at: None, unlisted: false },
            );
            rules::minted(state, life, set);
            Ok(JitRunner { id, configuration: JitConfiguration::new(id.to_string()) })
        })
        .await
    }

    async fn find_runner(&self, name: &str) -> Result<Option<RunnerReference>, Error> {
        let name = name.to_owned();
        self.call("find_runner", move |state, _| {
            let odd = state.github.weather == Weather::Patchy && state.chance(50);
            // Of a runner that lives: to forget one that does not is no harm that lasts, at GitHub itself.
            let lives = state.instances().any(|(_, i)| i.live() && i.shown.runner == name);
            let known = state.github.registrations.values_mut().find(|r| r.name == name);
            if let Some(registration) = known.filter(|r| odd && lives && !r.unlisted) {
                registration.unlisted = true;
                state.note(|| format!("GitHub's list lacks {name}"));
                return Ok(None);
            }
            let found = state.github.registered(&name);
            Ok(found.map(|r| RunnerReference {
                id: r.id,
                name: r.name.clone(),
                scale_set_id: state.github.sets[r.set].id.unwrap_or_default(),
            }))
        })
        .await
    }

    async fn remove_runner(&self, id: i64) -> Result<(), Error> {
        self.call("remove_runner", move |state, life| {
            let Some(registration) = state.github.registrations.get(&id).cloned() else {
                return if state.chance(50) { Ok(()) } else { Err(Error::RunnerGone) };
            };
            if registration.state == Presence::Busy {
                return Err(Error::RunnerBusy);
            }
            rules::registration_goes(state, life, &registration);
            state.github.registrations.remove(&id);
            state.note(|| format!("{} is deregistered by controller {life}", registration.name));
            Ok(())
        })
        .await
    }

    /// No host of the model wants a job to be run again.
    async fn rerun_failed_jobs(&self, _: &str, _: i64) -> Result<(), Error> {
        Err(Error::NoRerun("the model has no workflow runs".to_owned()))
    }

    async fn list_runners(&self) -> Result<Vec<ListedRunner>, Error> {
        self.call("list_runners", move |state, _| {
            let listed = |r: &Registration| ListedRunner {
                id: r.id,
                name: r.name.clone(),
                online: r.state != Presence::Offline,
                busy: r.state == Presence::Busy,
            };
            Ok(state.github.registrations.values().map(listed).collect())
        })
        .await
    }

    fn limited_for(&self) -> Option<Duration> {
        self.life.limit.left()
    }

    async fn close(&self, session: &Session) -> Result<(), Error> {
        let (id, scale_set) = (session.id.clone(), session.scale_set_id);
        self.call("close", move |state, _| {
            let Ok(set) = state.github.set_of(scale_set) else { return Ok(()) };
            let session = &mut state.github.sets[set].session;
            session.take_if(|open| open.id == id);
            Ok(())
        })
        .await
    }
}
