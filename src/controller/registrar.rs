//! Keeps one scale set registered at GitHub and its message session open. One task per set, and nothing in it is final
//! but the end of the set.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::context::Context;
use super::message_handler::SetMessageHandler;
use super::set::ScaleSetHandle;
use crate::api::condition::reason;
use crate::github::{
    self, ClientConfig, ListenEnd, ListenTarget, ScaleSet, ScaleSetService, WantedScaleSet, listen,
};
use crate::rng;

/// The first pause after a registration that failed. Doubled each time, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(3);
/// An answer that is not there after this is told.
const TOLD_AFTER: Duration = Duration::from_secs(5);
/// The longest pause between tries to register. What GitHub refuses is asked for again only this often.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What is to be registered and listened to.
#[derive(Clone)]
pub(super) struct Target {
    /// How GitHub is reached: when this changes, the session is opened anew.
    pub client: ClientConfig,
    /// What is to be there: when this changes, it is changed in place.
    pub scale_set: WantedScaleSet,
    /// The service.
    pub service: Arc<dyn ScaleSetService>,
}

impl PartialEq for Target {
    fn eq(&self, other: &Target) -> bool {
        self.client == other.client && self.scale_set == other.scale_set
    }
}

/// What is known of the scale set at GitHub.
#[derive(Default)]
pub(super) struct Registration {
    own: Option<i64>,
    recorded: Option<i64>,
    /// Whether this process has its message session open: only then is it changed or deleted.
    pub session_open: bool,
    /// As GitHub holds it, and what is asked for; none before this process has found or created it.
    pub held: Option<(ScaleSet, WantedScaleSet)>,
    /// What is asked for was not applied to it yet: that waits for its message session.
    pub unapplied: bool,
    /// Why it is not as it should be: a condition reason, and words.
    pub error: Option<(&'static str, String)>,
}

impl Registration {
    /// What an earlier process recorded.
    pub fn recorded(own: Option<i64>) -> Registration {
        Registration { own, recorded: own, ..Registration::default() }
    }

    /// The id of the scale set that is the object's own, if it has one.
    pub fn own(&self) -> Option<i64> {
        self.own
    }

    /// Whether the scale set of that id is the object's own.
    pub fn owns(&self, id: i64) -> bool {
        self.own == Some(id)
    }

    /// Takes a scale set for the object's own: it was created for it, or its session is open.
    pub fn take(&mut self, id: i64) {
        self.own = Some(id);
    }

    /// The object has no scale set of its own any more.
    pub fn lose(&mut self) {
        *self = Registration { recorded: self.recorded, ..Registration::default() };
    }

    /// The id that status may show: one that a later process will know to be the object's own.
    pub fn shown(&self) -> Option<i64> {
        self.own.filter(|own| self.recorded == Some(*own))
    }

    /// Whether the record is not what it should be.
    pub fn is_unrecorded(&self) -> bool {
        self.own != self.recorded
    }

    /// The record was written.
    pub fn note_record(&mut self, own: Option<i64>) {
        self.recorded = own;
    }
}

/// Runs until the set ends.
pub(super) async fn run(set: Arc<ScaleSetHandle>, ctx: Arc<Context>) {
    let (targets, ended) = (set.target.subscribe(), set.ended.clone());
    Registrar { set, ctx }.run(targets, ended).await;
}

struct Registrar {
    set: Arc<ScaleSetHandle>,
    ctx: Arc<Context>,
}

type Targets = watch::Receiver<Option<Target>>;

/// A listen loop that runs.
struct Listener {
    scale_set_id: i64,
    stop: CancellationToken,
    task: JoinHandle<ListenEnd>,
}

impl Listener {
    async fn stop(self, registrar: &Registrar) {
        registrar.ctx.health.forget(&registrar.set.uid);
        self.stop.cancel();
        // The loop closes its session within a bound of its own.
        let _ = self.task.await;
        registrar.set.state().registration.session_open = false;
    }
}

impl Registrar {
    async fn run(self, mut targets: Targets, ended: CancellationToken) {
        let mut listener: Option<Listener> = None;
        let mut client: Option<ClientConfig> = None;
        loop {
            let target = targets.borrow_and_update().clone();
            if target.as_ref().map(|t| &t.client) != client.as_ref()
                && let Some(listener) = listener.take()
            {
                listener.stop(&self).await;
            }
            client = target.as_ref().map(|t| t.client.clone());
            if let Some(target) = &target {
                let Some(id) = self.register(target, &mut targets, &ended).await else {
                    if ended.is_cancelled() { break } else { continue }
                };
                if listener.as_ref().is_some_and(|l| l.scale_set_id != id)
                    && let Some(stale) = listener.take()
                {
                    stale.stop(&self).await;
                }
                if listener.is_none() {
                    listener = Some(self.listen(target, id));
                }
            }
            tokio::select! {
                biased;
                () = ended.cancelled() => break,
                // What was left as it was may be changed now.
                () = self.set.session_opened.notified() => {}
                end = wait(&mut listener) => {
                    listener = None;
                    self.set.state().registration.session_open = false;
                    self.ctx.health.forget(&self.set.uid);
                    self.ended_listening(end, &ended).await;
                }
                changed = targets.changed() => if changed.is_err() { break },
            }
        }
        if let Some(listener) = listener {
            listener.stop(&self).await;
        }
    }

    /// Registers the scale set, trying ever more slowly; none when the target changed meanwhile.
    async fn register(
        &self,
        target: &Target,
        targets: &mut Targets,
        ended: &CancellationToken,
    ) -> Option<i64> {
        let mut pauses = ExponentialBuilder::default()
            .with_min_delay(FIRST_PAUSE)
            .with_max_delay(LONGEST_PAUSE)
            .with_jitter()
            .with_jitter_seed(rng::fresh_seed())
            .without_max_times()
            .build();
        loop {
            let answer = tokio::select! {
                biased;
                answer = self.ensure(target) => answer,
                _ = targets.changed() => return None,
                () = ended.cancelled() => return None,
            };
            let error = match answer {
                Ok((scale_set, applied)) => return Some(self.registered(scale_set, applied, target)),
                Err(error) => error,
            };
            let pause = pauses.next().unwrap_or(LONGEST_PAUSE).max(error.retry_after());
            self.not_registered(&error, pause);
            tokio::select! {
                biased;
                () = tokio::time::sleep(pause) => {}
                _ = targets.changed() => return None,
                () = ended.cancelled() => return None,
            }
        }
    }

    /// One try. An answer that takes its time is told before it is there.
    async fn ensure(&self, target: &Target) -> Result<(ScaleSet, bool), github::Error> {
        let mut answer = std::pin::pin!(self.find_or_create(target));
        if let Ok(answer) = tokio::time::timeout(TOLD_AFTER, &mut answer).await {
            return answer;
        }
        let message = format!("no answer for {} s", TOLD_AFTER.as_secs());
        self.note_error(reason::UNREACHABLE, message);
        answer.await
    }

    /// Answers the scale set, and whether it was made what is asked for: that waits for its session, unless it is new.
    async fn find_or_create(&self, target: &Target) -> Result<(ScaleSet, bool), github::Error> {
        let (own, open) = {
            let registration = &self.set.state().registration;
            (registration.own(), registration.session_open)
        };
        if let Some(own) = own.filter(|_| !open)
            && let Some(found) = target.service.find_scale_set(own).await?
        {
            return Ok((found, false));
        }
        let own = own.filter(|_| open);
        let scale_set = target.service.ensure_scale_set(&target.scale_set, own).await?;
        let applied = scale_set.created || own == Some(scale_set.id);
        if !applied && self.ctx.sets.is_an_elders_own(&self.set, scale_set.id) {
            let text =
                format!("scale set {} is that of an older RunnerScaleSet of this cluster", scale_set.id);
            return Err(github::Error::NameTaken(text));
        }
        Ok((scale_set, applied))
    }

    fn registered(&self, scale_set: ScaleSet, applied: bool, target: &Target) -> i64 {
        let id = scale_set.id;
        info!(scale_set_id = id, name = scale_set.name, created = scale_set.created, "registered at GitHub");
        let news = {
            let registration = &mut self.set.state().registration;
            let news = registration.held.as_ref().is_none_or(|(held, _)| held.id != id);
            if registration.own().is_some_and(|own| own != id) {
                registration.lose();
            }
            if scale_set.created {
                registration.take(id);
            }
            // One that was found and applied before stays so when it is merely looked at again.
            let as_before = registration.held.as_ref().is_some_and(|(held, asked)| {
                (&held.name, &held.labels, asked) == (&scale_set.name, &scale_set.labels, &target.scale_set)
            });
            registration.unapplied = !applied && (registration.unapplied || !as_before);
            registration.held = Some((scale_set, target.scale_set.clone()));
            registration.error = None;
            news
        };
        if news {
            let note = format!("scale set `{}` is registered at GitHub with id {id}", target.scale_set.name);
            self.ctx.events.normal(&self.set.reference, "Registered", "Register", note);
        }
        // An elder that has its name at GitHub now, or has it no more, may be in another's way, or out of it.
        self.reconsider_twins();
        self.ctx.sets.requeue(&self.set.uid);
        id
    }

    fn not_registered(&self, error: &github::Error, pause: Duration) {
        warn!(%error, retry_in_seconds = pause.as_secs(), "the scale set cannot be registered");
        self.note_error(reason_of(error), error.to_string());
    }

    /// Why the set is not registered, for its conditions, and for an event when it is another reason than before.
    fn note_error(&self, reason: &'static str, message: String) {
        let news = {
            let mut state = self.set.state();
            let news = state.registration.error.as_ref().is_none_or(|(r, _)| *r != reason);
            state.registration.error = Some((reason, message.clone()));
            news
        };
        if news {
            self.ctx.events.warning(&self.set.reference, reason, "Register", message);
            self.reconsider_twins();
        }
        self.ctx.sets.requeue(&self.set.uid);
    }

    fn reconsider_twins(&self) {
        let claim = self.set.state().claim.clone();
        self.ctx.sets.reconsider(claim.as_ref(), &self.set.uid);
    }

    fn listen(&self, target: &Target, scale_set_id: i64) -> Listener {
        let stop = CancellationToken::new();
        self.ctx.health.register(&self.set.uid, &self.set.identity.scale_set);
        let left_behind = {
            let state = self.set.state();
            // A session is closed below the object's own scale set alone, whatever status says of it.
            let own = state.registration.owns(scale_set_id);
            state.session.as_ref().filter(|_| own).map(|s| s.id.clone())
        };
        let owner = self.ctx.owner.clone();
        let listen_target = ListenTarget { scale_set_id, owner, left_behind };
        let handler =
            Arc::new(SetMessageHandler { set: self.set.clone(), ctx: self.ctx.clone(), scale_set_id });
        let listening = listen(target.service.clone(), listen_target, handler, stop.clone());
        let span = tracing::Span::current();
        let task = tokio::spawn(tracing::Instrument::instrument(listening, span));
        Listener { scale_set_id, stop, task }
    }

    /// What ended the listen loop decides what is next: all but a cancellation leads to a new registration.
    async fn ended_listening(&self, end: Option<ListenEnd>, ended: &CancellationToken) {
        let error = match end {
            Some(ListenEnd::ScaleSetGone) => {
                self.set.state().registration.lose();
                github::Error::ScaleSetGone
            }
            Some(ListenEnd::AuthRejected(message)) => github::Error::AuthRejected(message),
            Some(ListenEnd::Forbidden(message)) => github::Error::Forbidden(message),
            Some(ListenEnd::Cancelled) | None => return,
        };
        self.not_registered(&error, FIRST_PAUSE);
        tokio::select! {
                biased;
            () = tokio::time::sleep(FIRST_PAUSE) => {}
            () = ended.cancelled() => {}
        }
    }
}

async fn wait(listener: &mut Option<Listener>) -> Option<ListenEnd> {
    match listener {
        Some(listener) => (&mut listener.task).await.ok(),
        None => std::future::pending().await,
    }
}

/// The condition reason for an error of GitHub's.
pub(super) fn reason_of(error: &github::Error) -> &'static str {
    use github::Error;
    match error {
        Error::AuthRejected(_) => reason::AUTH_REJECTED,
        Error::Forbidden(_) => reason::FORBIDDEN,
        Error::GroupNotFound(_) => reason::GROUP_NOT_FOUND,
        Error::NameTaken(_) => reason::NAME_TAKEN,
        Error::ScaleSetGone => reason::SCALE_SET_GONE,
        Error::SessionLost(_) | Error::TokenExpired => reason::SESSION_LOST,
        Error::SessionConflict { .. } => reason::SESSION_CONFLICT,
        Error::RateLimited { .. } => reason::RATE_LIMITED,
        Error::BadReply(_) => reason::BAD_REPLY,
        Error::Config(_) => reason::INVALID_SPEC,
        Error::Transient(_) | Error::RunnerExists | Error::RunnerGone | Error::RunnerBusy => {
            reason::UNREACHABLE
        }
    }
}
