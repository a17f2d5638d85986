//! What takes time: starting a runner, and removing one. Each runs as a task of its own and tells the ledger how it went.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info, info_span, warn};

use super::handle::ScaleSetHandle;
use super::registration;
use super::rerun;
use super::shared::Shared;
use crate::api::Reason;
use crate::backend::{self, Backend, NewRunner, Reservation};
use crate::github::{self, RunnerReference, ScaleSetService};
use crate::plan::Removal;
use crate::rng;
use crate::runner::{Registration, Runner};
use crate::telemetry::StartPhase;
use crate::time::Plus;

/// A removal that did not work is tried again after this ...
const REMOVAL_RETRY: Duration = Duration::from_secs(10);
/// ... and, when GitHub is to be left alone, no longer than after this: the end of a drain does not wait for GitHub.
const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// In this time a host is listed twice: a runner that it does not show by then is gone.
const TWO_LOOKS: Duration = Duration::from_secs(90);
/// The registration of a runner that is gone is asked for again only this often: GitHub may hold on to it for a while.
const DEREGISTRATION_RETRY: Duration = Duration::from_secs(30);
/// How long GitHub's messages about a runner that ended may take; only then is its registration looked for.
const MESSAGES_ARRIVE: Duration = Duration::from_secs(10);
/// A removal that waits its turn among others of the set for longer than this is tried again.
const TURN: Duration = Duration::from_secs(5);
/// Before a removal that happens whatever GitHub says, GitHub is asked for no longer than this; and once more after it.
/// Both, a call that was under way at the end of the drain (30 s) and the scale set's own end have a minute together.
const LAST_WORD: Duration = Duration::from_secs(5);
/// The registration of a runner that ended is given up to GitHub's own housekeeping after this.
const GIVEN_UP: Duration = Duration::from_secs(15 * 60);

/// Something to be done.
pub enum Task {
    /// Register and start a runner that the ledger has as starting.
    Start {
        name: String,
        reservation: Box<dyn Reservation>,
        /// The start is given up while the host is not ready yet.
        abandoned: CancellationToken,
        backend: Arc<dyn Backend>,
        service: Arc<dyn ScaleSetService>,
        scale_set_id: i64,
        deadline: Duration,
    },
    /// Deregister and remove a runner that the ledger has as being removed; `why` is none for one that has ended.
    Remove {
        runner: Box<Runner>,
        why: Option<Removal>,
        unexplained: bool,
        backend: Arc<dyn Backend>,
        service: Option<Arc<dyn ScaleSetService>>,
    },
    /// Ask GitHub for a workflow run that the ledger has as being asked for.
    Rerun { repository: String, run_id: i64, service: Arc<dyn ScaleSetService> },
}

impl Task {
    /// Does it, and wakes the set; and all whom GitHub's rate limit concerns, if that was met.
    pub async fn run(self, set: &ScaleSetHandle, shared: &Shared) {
        let limited = match self {
            Task::Start { name, reservation, abandoned, backend, service, scale_set_id, deadline } => {
                let span = info_span!("start", scale_set = set.identity.scale_set, runner = name);
                let began = Instant::now();
                let starter = Starter {
                    set,
                    shared,
                    name: &name,
                    backend: &*backend,
                    service: &*service,
                    scale_set_id,
                };
                let outcome = starter.run(reservation, &abandoned, deadline).instrument(span).await;
                shared.metrics.runner_start(backend.kind().as_str(), outcome.as_str());
                if outcome == Outcome::Started {
                    shared.metrics.start_latency(StartPhase::PlacedToStarted, began.elapsed());
                }
                outcome == Outcome::NotStarted(Reason::RateLimited)
            }
            Task::Remove { runner, why, unexplained, backend, service } => {
                let span = info_span!("remove", scale_set = set.identity.scale_set, runner = runner.name);
                let removal = Remover {
                    set,
                    shared,
                    runner: &runner,
                    why,
                    unexplained,
                    backend: &*backend,
                    service: service.as_deref(),
                };
                removal.run().instrument(span).await;
                service.is_some_and(|service| service.limited_for().is_some())
            }
            Task::Rerun { repository, run_id, service } => {
                rerun::ask(set, shared, (&repository, run_id), &*service).await;
                service.limited_for().is_some()
            }
        };
        shared.registry.requeue(&set.uid);
        if limited {
            shared.registry.requeue_limited();
        }
    }
}

/// How a start went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Started,
    /// It was not wanted any more.
    Abandoned,
    NotStarted(Reason),
}

impl Outcome {
    /// The word in the metrics.
    fn as_str(self) -> &'static str {
        match self {
            Outcome::Started => "started",
            Outcome::Abandoned => "abandoned",
            Outcome::NotStarted(reason) => reason.as_str(),
        }
    }
}

/// One start.
struct Starter<'a> {
    set: &'a ScaleSetHandle,
    shared: &'a Shared,
    name: &'a str,
    backend: &'a dyn Backend,
    service: &'a dyn ScaleSetService,
    scale_set_id: i64,
}

impl Starter<'_> {
    /// Waits until the host is ready, registers the runner and starts it; answers how it went, for the metrics. `deadline`
    /// is for what comes after the host is ready.
    async fn run(
        self,
        mut reservation: Box<dyn Reservation>,
        abandoned: &CancellationToken,
        deadline: Duration,
    ) -> Outcome {
        let ready = abandoned.run_until_cancelled(reservation.ready()).await;
        if let Some(outcome) = self.not_ready(ready) {
            return outcome;
        }
        self.register_and_start(reservation, deadline).await
    }

    /// Notes in the ledger that the host is ready; or that it is not, and answers how the start went.
    fn not_ready(&self, ready: Option<Result<(), backend::Error>>) -> Option<Outcome> {
        let mut state = self.set.state();
        state.preparing.remove(self.name);
        let now = self.shared.now();
        match ready {
            Some(Ok(())) => (!state.ledger.host_ready(self.name, now)).then_some(Outcome::Abandoned),
            // No failure of anything: another host, or the next look, finds a slot.
            Some(Err(backend::Error::NoCapacity(why))) if why.reason == Reason::HostFull => {
                info!(why.message, "the host has no slot after all: the start is put off");
                state.ledger.start_put_off(self.name);
                Some(Outcome::NotStarted(why.reason))
            }
            Some(Err(error)) => {
                let (why, message) = (error.reason(), error.to_string());
                debug!(
                    reason = why.as_str(),
                    error = message,
                    "the host could not be made ready for the runner"
                );
                state.ledger.host_not_ready(self.name, why, &message, now);
                Some(Outcome::NotStarted(why))
            }
            None => {
                info!("the start is given up before the runner was registered");
                state.ledger.retire(self.name, now);
                Some(Outcome::Abandoned)
            }
        }
    }

    async fn register_and_start(self, reservation: Box<dyn Reservation>, deadline: Duration) -> Outcome {
        // The host's turn is kept until the runner is up, so that no configuration is minted long before it is needed.
        let ahead = self.set.limits.minted_ahead(self.backend.name(), reservation.host());
        let turns = async { (ahead.acquire().await, self.set.limits.minting.acquire().await) };
        let Ok((Ok(_ahead), Ok(minting))) = timeout(deadline, turns).await else {
            return self.fail(Reason::StartTimeout, "its turn to start did not come within timeouts.start");
        };
        let minted = match self.service.mint_jit(self.scale_set_id, self.name).await {
            Ok(minted) => minted,
            Err(github::Error::RunnerExists) => {
                return self.unregistered(Reason::RunnerExists, "the name is taken at GitHub");
            }
            Err(github::Error::RateLimited { .. }) => return self.put_off(),
            Err(error) => return self.unregistered(registration::reason_of(&error), &error.to_string()),
        };
        drop(minting);
        self.set.state().ledger.registered(self.name, minted.id);
        let host = reservation.host().to_owned();
        let runner = NewRunner { name: self.name, jit: &minted.configuration };
        let mut starting = std::pin::pin!(reservation.start(&runner));
        let started = match timeout(deadline, &mut starting).await {
            Ok(started) => started,
            Err(_) => {
                // The backend carries it through: until it says how that went the runner keeps its slot.
                self.give_up();
                starting.await
            }
        };
        match started {
            Ok(instance) => {
                info!(host, instance = instance.id, "runner started");
                self.set.state().ledger.start_succeeded(&instance, self.shared.now());
                Outcome::Started
            }
            Err(error) => self.fail(error.reason(), &error.to_string()),
        }
    }

    /// GitHub wants to be left alone: no failure of anything. The next look waits for the limit to pass.
    fn put_off(&self) -> Outcome {
        info!("GitHub limits the rate: the start is put off");
        self.set.state().ledger.start_put_off(self.name);
        Outcome::NotStarted(Reason::RateLimited)
    }

    fn unregistered(&self, why: Reason, message: &str) -> Outcome {
        debug!(reason = why.as_str(), error = message, "the runner could not be registered");
        self.set.state().ledger.registration_failed(self.name, why, message, self.shared.now());
        Outcome::NotStarted(why)
    }

    /// It is not waited for any more: another may take its place.
    fn give_up(&self) {
        const MESSAGE: &str = "it was not up within timeouts.start";
        debug!(reason = Reason::StartTimeout.as_str(), error = MESSAGE, "the start is not answered");
        self.set.state().ledger.start_given_up(self.name, MESSAGE, self.shared.now());
        self.shared.registry.requeue(&self.set.uid);
    }

    fn fail(&self, why: Reason, message: &str) -> Outcome {
        let now = self.shared.now();
        // Of one that was given up before, that is all that is told.
        if !self.set.state().ledger.start_failed(self.name, why, message, now) {
            warn!(reason = why.as_str(), error = message, "a start that was given up has failed");
        }
        Outcome::NotStarted(why)
    }
}

/// One removal.
struct Remover<'a> {
    set: &'a ScaleSetHandle,
    shared: &'a Shared,
    runner: &'a Runner,
    why: Option<Removal>,
    /// It ended, and no message has told what for.
    unexplained: bool,
    backend: &'a dyn Backend,
    service: Option<&'a dyn ScaleSetService>,
}

impl Remover<'_> {
    async fn run(self) {
        match self.why {
            Some(why) => self.stop(why).await,
            None => self.collect().await,
        }
    }

    /// Stops a runner: its registration first, and if a job runs on it, not at all.
    async fn stop(&self, why: Removal) {
        let asked =
            timeout(if why.forced() { LAST_WORD } else { Duration::MAX }, self.deregister(true)).await;
        match asked.unwrap_or_else(|_| Err(github::Error::Transient("no answer".into()))) {
            Ok(()) => {
                if why == Removal::NeverConnected && self.runner.registration != Registration::Absent {
                    self.set.state().ledger.never_connected(&self.runner.name, self.shared.now());
                }
            }
            Err(error) if why.forced() => {
                warn!(%error, "the runner is removed although GitHub did not agree")
            }
            Err(github::Error::RunnerBusy) => {
                info!(why = why.as_str(), "the runner has a job and stays");
                self.set.state().ledger.found_busy(&self.runner.name, self.shared.now());
                return;
            }
            Err(error) => {
                warn!(%error, "the runner's registration could not be removed: it stays");
                return self.retry_after(pause(&error, REMOVAL_RETRY));
            }
        }
        if self.runner.seen.instance_id.is_none() {
            // An earlier controller asked for it; whether there is an instance is for its host to show.
            return self.retry_after(TWO_LOOKS);
        }
        self.keep_log().await;
        if !self.remove_instance().await {
            return self.retry_after(REMOVAL_RETRY);
        }
        info!(why = why.as_str(), "runner removed");
        self.shared.metrics.removal(why.as_str());
        if why.forced() {
            // With its instance gone, GitHub may let go of it; if not, it cleans up after a runner that is silent.
            let released = timeout(LAST_WORD, self.deregister(false)).await;
            if why == Removal::DrainExpired && !matches!(released, Ok(Ok(()))) {
                self.set.state().deletion.abandoned += 1;
            }
        }
        self.retire();
    }

    /// Clears away what is left of a runner that ended: the instance at once, then the registration unless the runner
    /// took it along.
    async fn collect(&self) {
        self.keep_log().await;
        // An instance that was not seen to end may have a job, whatever became of its start.
        if self.runner.seen.exit.is_none()
            && self.runner.seen.instance_id.is_some()
            && !self.release(true).await
        {
            return;
        }
        if !self.remove_instance().await {
            return self.retry_after(REMOVAL_RETRY);
        }
        let clean = self.runner.seen.exit.as_ref().is_some_and(|exit| exit.code == Some(0));
        if clean && self.runner.work.job.is_some() {
            return self.retire();
        }
        let now = self.shared.now();
        if self.unexplained && now < self.runner.since.plus(MESSAGES_ARRIVE) {
            return self.retry_after(MESSAGES_ARRIVE);
        }
        if self.release(false).await {
            self.retire();
        }
    }

    /// Whether GitHub let go of a runner that ended. If not it is asked again after a while, but not for ever; a runner
    /// that lives after all is taken up anew when its host shows it.
    async fn release(&self, may_live: bool) -> bool {
        let Err(error) = self.deregister(may_live).await else { return true };
        if self.shared.now() > self.runner.since.plus(GIVEN_UP) {
            warn!(%error, "the registration of a runner that ended is left to GitHub");
            self.retire();
        } else {
            info!(%error, "the registration of a runner that ended cannot be removed yet");
            self.retry_after(pause(&error, DEREGISTRATION_RETRY));
        }
        false
    }

    /// Adds the last lines that a failed runner printed to the report of its failure, which is yet to come for one whose
    /// end is unexplained.
    async fn keep_log(&self) {
        let Some(id) = &self.runner.seen.instance_id else { return };
        if !self.unexplained && !self.set.state().ledger.failures().lacks_log(&self.runner.name) {
            return;
        }
        if let Ok(log) = self.backend.log_tail(&self.runner.host, id).await
            && !log.trim().is_empty()
        {
            self.set.state().ledger.add_log(&self.runner.name, log.trim());
        }
    }

    /// Asks GitHub to let go of it, in its turn.
    async fn deregister(&self, may_live: bool) -> Result<(), github::Error> {
        // What was registered may have become known since the decision.
        let known = self.set.state().ledger.runner(&self.runner.name).map(|r| r.registration);
        let known = known.unwrap_or(self.runner.registration);
        if known == Registration::Absent {
            return Ok(());
        }
        let turn = timeout(TURN, self.set.limits.deregistering.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            return Err(github::Error::Transient("too many removals are under way".into()));
        };
        let answer = self.ask_for_removal(known, may_live).await;
        if answer.is_ok() {
            self.set.state().ledger.deregistered(&self.runner.name);
        }
        answer
    }

    /// Where its instance may live, a list that lacks the runner must not be the only one to say so. One whose end is
    /// unexplained is looked for though its id is known: the removal of what is gone already is answered like any other,
    /// but what is still listed has had no job.
    async fn ask_for_removal(&self, known: Registration, may_live: bool) -> Result<(), github::Error> {
        let (service, name) = (self.service()?, &self.runner.name);
        let id = match known {
            Registration::Present(id) if !self.unexplained => id,
            _ => match service.find_runner(name).await? {
                Some(found) if !self.is_ours(known, &found) => return self.anothers(&found, may_live),
                Some(found) => {
                    let ledger = &mut self.set.state().ledger;
                    ledger.registered(name, found.id);
                    ledger.was_registered(name, self.shared.now());
                    found.id
                }
                None => {
                    let believed = self.set.state().ledger.unlisted(name, self.shared.now());
                    return if believed || !may_live {
                        Ok(())
                    } else {
                        Err(github::Error::Transient(
                            "one list lacks the runner, the next is waited for".into(),
                        ))
                    };
                }
            },
        };
        match service.remove_runner(id).await {
            Err(github::Error::RunnerGone) => Ok(()),
            answer => answer,
        }
    }

    /// Whether GitHub's own answer says that a registration is this scale set's, or it was made by this process. A name
    /// may come from a status, which anyone may have written.
    fn is_ours(&self, known: Registration, found: &RunnerReference) -> bool {
        known == Registration::Present(found.id)
            || self.set.state().github.registration.owns(found.scale_set_id)
    }

    /// A registration of the runner's name is another's, and stays. Of a runner that ended nothing is registered then; one
    /// that may live is left alone.
    fn anothers(&self, found: &RunnerReference, may_live: bool) -> Result<(), github::Error> {
        let text =
            format!("the registration of that name is of scale set {}, not of this one", found.scale_set_id);
        warn!(registration = found.id, text, "a registration is left alone");
        if may_live { Err(github::Error::Transient(text)) } else { Ok(()) }
    }

    fn service(&self) -> Result<&dyn ScaleSetService, github::Error> {
        self.service.ok_or_else(|| github::Error::Config("there are no credentials for GitHub".into()))
    }

    /// Whether nothing of the instance is left.
    async fn remove_instance(&self) -> bool {
        let Some(id) = &self.runner.seen.instance_id else {
            return true;
        };
        match self.backend.remove(&self.runner.host, id).await {
            Ok(()) | Err(backend::Error::Gone) => true,
            Err(error) => {
                warn!(%error, host = self.runner.host, "the instance could not be removed");
                false
            }
        }
    }

    fn retry_after(&self, pause: Duration) {
        let ledger = &mut self.set.state().ledger;
        // One that was to be stopped and ended meanwhile is cleared away at once.
        let ended = self.runner.occupies() && ledger.runner(&self.runner.name).is_some_and(|r| !r.occupies());
        let pause = if ended { Duration::ZERO } else { pause };
        ledger.removal_failed(&self.runner.name, self.shared.now().plus(pause));
    }

    fn retire(&self) {
        self.set.state().ledger.retire(&self.runner.name, self.shared.now());
    }
}

/// When to try again what GitHub did not agree to; not with all the others at once.
fn pause(error: &github::Error, least: Duration) -> Duration {
    error.retry_after().clamp(least, LONGEST_RETRY).mul_f64(1.0 + 0.25 * rng::unit())
}

/// Runs tasks beside each other, as the set's own.
pub fn spawn(set: &Arc<ScaleSetHandle>, shared: &Arc<Shared>, tasks: Vec<Task>) {
    for task in tasks {
        let (set, shared) = (set.clone(), shared.clone());
        set.tasks.clone().spawn(async move { task.run(&set, &shared).await });
    }
}
