//! Keeps one scale set registered at GitHub and its message session open. One task per set, and nothing in it is final
//! but the end of the set.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::event::Event;
use super::handle::ScaleSetHandle;
use super::message_handler::SetMessageHandler;
use super::registration::{Target, reason_of};
use super::shared::Shared;
use crate::api::{Explanation, Reason};
use crate::github::{self, ClientConfig, ListenEnd, ListenTarget, ScaleSet, listen};
use crate::rng;

/// The first pause after a registration that failed. Doubled each time, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(3);
/// An answer that is not there after this is told.
const TOLD_AFTER: Duration = Duration::from_secs(5);
/// The longest pause between tries to register. What GitHub refuses is asked for again only this often.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Keeps a scale set registered, and listens, until the set ends.
pub async fn keep_registered(set: Arc<ScaleSetHandle>, shared: Arc<Shared>) {
    let (targets, ended) = (set.target.subscribe(), set.ended.clone());
    Registrar { set, shared }.run(targets, ended).await;
}

struct Registrar {
    set: Arc<ScaleSetHandle>,
    shared: Arc<Shared>,
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
        registrar.shared.health.forget(&registrar.set.uid);
        self.stop.cancel();
        // The loop closes its session within a bound of its own.
        let _ = self.task.await;
        registrar.set.state().github.registration.session_open = false;
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
                    self.set.state().github.registration.session_open = false;
                    self.shared.health.forget(&self.set.uid);
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
        self.note_error(Reason::Unreachable, message);
        answer.await
    }

    /// Answers the scale set, and whether it was made what is asked for: that waits for its session, unless it is new.
    async fn find_or_create(&self, target: &Target) -> Result<(ScaleSet, bool), github::Error> {
        let (own, open) = {
            let registration = &self.set.state().github.registration;
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
        if !applied && self.shared.registry.is_an_elders_own(&self.set, scale_set.id) {
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
            let registration = &mut self.set.state().github.registration;
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
            let event = Event::registered(&target.scale_set.name, id);
            self.shared.reporter.publish(&self.set, event);
        }
        // An elder that has its name at GitHub now, or has it no more, may be in another's way, or out of it.
        self.reconsider_twins();
        self.shared.registry.requeue(&self.set.uid);
        id
    }

    fn not_registered(&self, error: &github::Error, pause: Duration) {
        warn!(%error, retry_in_seconds = pause.as_secs(), "the scale set cannot be registered");
        self.note_error(reason_of(error), error.to_string());
    }

    /// Why the set is not registered, for its conditions, and for an event when it is another reason than before.
    fn note_error(&self, reason: Reason, message: String) {
        let why = Explanation { reason, message };
        let before = self.set.state().github.registration.error.replace(why.clone());
        if before.is_none_or(|before| before.reason != reason) {
            self.shared.reporter.publish(&self.set, Event::not_registered(why));
            self.reconsider_twins();
        }
        self.shared.registry.requeue(&self.set.uid);
    }

    fn reconsider_twins(&self) {
        let claim = self.set.state().spec.claim.clone();
        self.shared.registry.reconsider(claim.as_ref(), &self.set.uid);
    }

    fn listen(&self, target: &Target, scale_set_id: i64) -> Listener {
        let stop = CancellationToken::new();
        self.shared.health.register(&self.set.uid, &self.set.identity.scale_set);
        let left_behind = {
            let state = self.set.state();
            // A session is closed below the object's own scale set alone, whatever status says of it.
            let own = state.github.registration.owns(scale_set_id);
            state.github.session.as_ref().filter(|_| own).map(|s| s.id.clone())
        };
        let owner = self.shared.owner.clone();
        let listen_target = ListenTarget { scale_set_id, owner, left_behind };
        let handler =
            Arc::new(SetMessageHandler { set: self.set.clone(), shared: self.shared.clone(), scale_set_id });
        let listening = listen(target.service.clone(), listen_target, handler, stop.clone());
        let span = tracing::Span::current();
        let task = tokio::spawn(tracing::Instrument::instrument(listening, span));
        Listener { scale_set_id, stop, task }
    }

    /// What ended the listen loop decides what is next: all but a cancellation leads to a new registration.
    async fn ended_listening(&self, end: Option<ListenEnd>, ended: &CancellationToken) {
        let error = match end {
            Some(ListenEnd::ScaleSetGone) => {
                self.set.state().github.registration.lose();
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
