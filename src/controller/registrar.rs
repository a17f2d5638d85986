//! Keeps one scale set registered at GitHub and its message session open. One task per set, and nothing in it is final
//! but the end of the set.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::audience::SetAudience;
use super::context::Context;
use super::set::Set;
use crate::api::condition::reason;
use crate::chance;
use crate::github::{
    self, ClientConfig, ListenEnd, ListenTarget, ScaleSet, ScaleSetService, WantedScaleSet, listen,
};

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
    /// Its id: of this process's own registration, or of an earlier one.
    pub id: Option<i64>,
    /// As GitHub holds it, and what was asked for; none before it is registered by this process.
    pub held: Option<(ScaleSet, WantedScaleSet)>,
    /// Why it is not as it should be: a condition reason, and words.
    pub error: Option<(&'static str, String)>,
}

impl Registration {
    /// One that an earlier process made, if any.
    pub fn known(id: Option<i64>) -> Registration {
        Registration { id, ..Registration::default() }
    }
}

/// Runs until the set ends.
pub(super) async fn run(set: Arc<Set>, ctx: Arc<Context>) {
    let (targets, ended) = (set.target.subscribe(), set.ended.clone());
    Registrar { set, ctx }.run(targets, ended).await;
}

struct Registrar {
    set: Arc<Set>,
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
                end = wait(&mut listener) => {
                    listener = None;
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
        let known = self.set.state().registration.id;
        let mut pauses = ExponentialBuilder::default()
            .with_min_delay(FIRST_PAUSE)
            .with_max_delay(LONGEST_PAUSE)
            .with_jitter()
            .with_jitter_seed(chance::seed())
            .without_max_times()
            .build();
        loop {
            let answer = tokio::select! {
                biased;
                answer = self.ensure(target, known) => answer,
                _ = targets.changed() => return None,
                () = ended.cancelled() => return None,
            };
            let error = match answer {
                Ok(scale_set) => return Some(self.registered(scale_set, target)),
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
    async fn ensure(&self, target: &Target, known: Option<i64>) -> Result<ScaleSet, github::Error> {
        let mut answer = std::pin::pin!(target.service.ensure_scale_set(&target.scale_set, known));
        if let Ok(answer) = tokio::time::timeout(TOLD_AFTER, &mut answer).await {
            return answer;
        }
        let message = format!("no answer for {} s", TOLD_AFTER.as_secs());
        self.note_error(reason::UNREACHABLE, message);
        answer.await
    }

    fn registered(&self, scale_set: ScaleSet, target: &Target) -> i64 {
        let id = scale_set.id;
        info!(scale_set_id = id, name = scale_set.name, "registered at GitHub");
        let news = {
            let mut state = self.set.state();
            let news = state.registration.id != Some(id);
            state.registration =
                Registration { id: Some(id), held: Some((scale_set, target.scale_set.clone())), error: None };
            news
        };
        if news {
            let note = format!("scale set `{}` is registered at GitHub with id {id}", target.scale_set.name);
            self.ctx.events.normal(&self.set.reference, "Registered", "Register", note);
        }
        self.ctx.sets.wake(&self.set.uid);
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
        }
        self.ctx.sets.wake(&self.set.uid);
    }

    fn listen(&self, target: &Target, scale_set_id: i64) -> Listener {
        let stop = CancellationToken::new();
        self.ctx.health.register(&self.set.uid, &self.set.identity.scale_set);
        let listen_target = ListenTarget {
            scale_set_id,
            owner: self.ctx.owner.clone(),
            left_behind: self.set.state().session.as_ref().map(|s| s.id.clone()),
        };
        let audience = Arc::new(SetAudience { set: self.set.clone(), ctx: self.ctx.clone() });
        let listening = listen(target.service.clone(), listen_target, audience, stop.clone());
        let span = tracing::Span::current();
        let task = tokio::spawn(tracing::Instrument::instrument(listening, span));
        Listener { scale_set_id, stop, task }
    }

    /// What ended the listen loop decides what is next: all but a cancellation leads to a new registration.
    async fn ended_listening(&self, end: Option<ListenEnd>, ended: &CancellationToken) {
        let error = match end {
            Some(ListenEnd::ScaleSetGone) => {
                self.set.state().registration = Registration::default();
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
