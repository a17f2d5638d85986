//! The listen loop: one task per scale set that owns its message session. Nothing in it is fatal but what only a
//! change elsewhere can mend, and that it reports to whoever started it.
//!
//! The order that loses nothing: a message goes to the handler (the ledger), then its offered jobs are acquired, then
//! it is acknowledged. A crash in between brings it back, and the ledger knows what it has seen. What could not be
//! acquired or acknowledged is tried again before each poll and never holds the next message up. No more is acquired
//! than the set can have in hand; the rest stays offered until there is room.

mod message_handler;
mod pace;
mod session_cursor;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

pub use message_handler::{ListenEnd, ListenState, ListenTarget, MessageHandler, SessionRecord};

use super::{Error, Message, ScaleSetService, Session};
use crate::runner::{JobEvent, Statistics};
use crate::time::Plus;
use pace::{Pace, jitter};
use session_cursor::SessionCursor;

/// How many tries a conflict with our own session gets before it counts as foreign.
const OWN_CONFLICTS: u32 = 5;
/// A poll that fails this often in a row ends the session; a new one is opened in its place.
const POLL_TRIES: u32 = 2;
/// So many refusals in a row are believed: there are single ones while GitHub has an outage.
const REFUSALS: u32 = 3;
/// An answer that comes sooner and brings nothing new is not a long poll; the next one waits.
const HASTY: Duration = Duration::from_millis(100);
/// So many answers in a row may come at once; each further poll waits for as long as such an answer took at most.
const HASTY_FREELY: u32 = 3;
/// A first fault that took no longer is not told.
const UNNOTICED: Duration = Duration::from_secs(10);
/// A state that lasts is told again so often: nobody has to guess whether the loop still lives.
const TOLD_AGAIN: Duration = Duration::from_secs(60);
/// How long acquiring, and acknowledging, may hold up the next poll.
const SETTLE: Duration = Duration::from_secs(5);
/// How long the handler may take to write the session down.
const PERSIST: Duration = Duration::from_secs(5);
/// How long the end waits for the session to be closed.
const CLOSE: Duration = Duration::from_secs(4);

/// Listens until told to stop, or until only a change elsewhere can help.
pub async fn listen(
    service: Arc<dyn ScaleSetService>,
    set: ListenTarget,
    handler: Arc<dyn MessageHandler>,
    cancel: CancellationToken,
) -> ListenEnd {
    Listener::new(service, set, handler, cancel, Pace::default()).listen().await
}

struct Listener {
    service: Arc<dyn ScaleSetService>,
    set: ListenTarget,
    handler: Arc<dyn MessageHandler>,
    cancel: CancellationToken,
    pace: Pace,
    /// The session that was opened last: cleared before the next is opened, closed at the end.
    last: Option<Session>,
    failures: ListenFailures,
    /// Answers in a row, of whatever kind and session, that came at once.
    hasty: u32,
}

/// What has gone wrong since the last poll that succeeded.
#[derive(Default)]
struct ListenFailures {
    since: Option<Timestamp>,
    length: u32,
    refusals: u32,
    conflicts: u32,
    /// The scale set was not there on a first look.
    gone: bool,
}

/// What becomes of the session after an answer.
#[derive(PartialEq, Eq)]
enum Next {
    Poll,
    Reopen,
}

impl Listener {
    fn new(
        service: Arc<dyn ScaleSetService>,
        set: ListenTarget,
        handler: Arc<dyn MessageHandler>,
        cancel: CancellationToken,
        pace: Pace,
    ) -> Self {
        Listener {
            service,
            set,
            handler,
            cancel,
            pace,
            last: None,
            failures: ListenFailures::default(),
            hasty: 0,
        }
    }

    async fn listen(mut self) -> ListenEnd {
        let Err(end) = self.run().await;
        if end == ListenEnd::Cancelled {
            self.close().await;
        }
        end
    }

    async fn run(&mut self) -> Result<Infallible, ListenEnd> {
        loop {
            let session = self.open().await?;
            let statistics = session.statistics;
            let mut cursor = SessionCursor::new(session);
            self.look_for_offers(&mut cursor, statistics).await?;
            self.serve(cursor).await?;
        }
    }

    /// Opens a session, however long it takes.
    async fn open(&mut self) -> Result<Session, ListenEnd> {
        loop {
            match self.try_open().await? {
                Ok(session) => {
                    self.opened(&session).await?;
                    return Ok(session);
                }
                Err(error) => self.endure(error, true).await?,
            }
        }
    }

    async fn try_open(&mut self) -> Result<Result<Session, Error>, ListenEnd> {
        let service = Arc::clone(&self.service);
        let (id, owner, left_behind) = (self.set.scale_set_id, self.set.owner.clone(), self.left_behind());
        let mut opening =
            Box::pin(async move { service.open_session(id, &owner, left_behind.as_deref()).await });
        tokio::select! {
            biased;
            opened = &mut opening => Ok(opened),
            () = self.cancel.cancelled() => {
                // GitHub may have opened it already: dropped now, it would stand in the way of the next one.
                if let Ok(Ok(session)) = timeout(CLOSE, opening).await {
                    self.last = Some(session);
                }
                Err(ListenEnd::Cancelled)
            }
        }
    }

    /// The session to clear before the next is opened: our own last one, or an earlier controller's.
    fn left_behind(&self) -> Option<String> {
        self.last.as_ref().map(|session| session.id.clone()).or_else(|| self.set.left_behind.clone())
    }

    /// Has the session written down and tells what it brought, before the first poll.
    async fn opened(&mut self, session: &Session) -> Result<(), ListenEnd> {
        tracing::info!(scale_set_id = session.scale_set_id, session = session.id, "message session opened");
        self.last = Some(session.clone());
        self.failures.conflicts = 0;
        self.failures.gone = false;
        let since = Timestamp::now();
        let record = SessionRecord { id: session.id.clone(), owner: session.owner.clone(), since };
        let handler = Arc::clone(&self.handler);
        let written = self.unless_cancelled(timeout(PERSIST, handler.session_opened(&record))).await?;
        if written.is_err() {
            tracing::warn!(
                session = session.id,
                "the session could not be written down in time; polling without"
            );
        }
        self.handler.state(ListenState::Polling { since });
        if let Some(statistics) = session.statistics {
            self.handler.statistics(statistics);
        }
        Ok(())
    }

    /// Polls until the session is lost.
    async fn serve(&mut self, mut cursor: SessionCursor) -> Result<(), ListenEnd> {
        let mut capacity = self.handler.capacity();
        let mut next = Next::Poll;
        while next == Next::Poll {
            if self.hasty > HASTY_FREELY {
                self.pause(HASTY).await?;
            }
            let advertised = *capacity.borrow_and_update();
            self.settle(&mut cursor, advertised).await?;
            let begun = Instant::now();
            let answer = tokio::select! {
            biased;
                answer = self.service.poll(&cursor.session, cursor.last_message_id, advertised) => answer,
                // A dropped poll loses nothing: what it would have brought is not acknowledged.
                () = differs_from(&mut capacity, advertised) => {
                    if cursor.alive.elapsed() >= self.pace.sign_of_life {
                        next = self.renew(&mut cursor).await?;
                    }
                    continue;
                }
                () = self.cancel.cancelled() => return Err(ListenEnd::Cancelled),
            };
            self.hasty = if begun.elapsed() < HASTY { self.hasty.saturating_add(1) } else { 0 };
            next = match answer {
                Ok(message) => self.received(&mut cursor, message, begun).await?,
                Err(Error::TokenExpired) if self.failures.length < POLL_TRIES => {
                    self.token_expired(&mut cursor).await?
                }
                Err(error) => self.poll_failed(error, begun).await?,
            };
        }
        Ok(())
    }

    /// A poll came back.
    async fn received(
        &mut self,
        cursor: &mut SessionCursor,
        message: Option<Message>,
        begun: Instant,
    ) -> Result<Next, ListenEnd> {
        self.failures = ListenFailures::default();
        cursor.alive = Instant::now();
        self.handler.state(ListenState::PollCompleted { at: Timestamp::now() });
        let new = message.as_ref().is_some_and(|m| m.id > cursor.last_message_id);
        let miscounted = message.as_ref().is_some_and(miscounted);
        if let Some(message) = message {
            self.handler.message(&message);
            cursor.take(&message);
            self.look_for_offers(cursor, message.statistics).await?;
        }
        if new || begun.elapsed() >= HASTY {
            cursor.hasty = 0;
        } else {
            cursor.hasty += 1;
            self.pause(self.pace.back_off(cursor.hasty)).await?;
        }
        if miscounted || cursor.counted.elapsed() >= self.pace.stale_statistics {
            return self.renew(cursor).await;
        }
        Ok(Next::Poll)
    }

    /// The usual end of a token's life. But a fresh token that is refused again is a failure like another.
    async fn token_expired(&mut self, cursor: &mut SessionCursor) -> Result<Next, ListenEnd> {
        if self.failures.length > 0 {
            self.pause(self.pace.back_off(self.failures.length)).await?;
        }
        self.failures.length += 1;
        self.renew(cursor).await
    }

    /// A new token for the same session, and current statistics with it.
    async fn renew(&mut self, cursor: &mut SessionCursor) -> Result<Next, ListenEnd> {
        let (service, begun) = (Arc::clone(&self.service), Instant::now());
        match self.unless_cancelled(service.refresh(&cursor.session)).await? {
            Ok(session) if session.id == cursor.session.id => {
                tracing::debug!(session = session.id, "message session refreshed");
                self.last = Some(session.clone());
                self.handler.state(ListenState::Polling { since: Timestamp::now() });
                if let Some(statistics) = session.statistics {
                    self.handler.statistics(statistics);
                }
                let statistics = session.statistics;
                cursor.renewed(session);
                self.look_for_offers(cursor, statistics).await?;
                Ok(Next::Poll)
            }
            Ok(session) => {
                self.opened(&session).await?;
                cursor.renewed(session);
                Ok(Next::Poll)
            }
            Err(error) => self.poll_failed(error, begun).await,
        }
    }

    /// A poll or a refresh failed that was begun then.
    async fn poll_failed(&mut self, error: Error, begun: Instant) -> Result<Next, ListenEnd> {
        let lost =
            matches!(error, Error::SessionLost(_) | Error::ScaleSetGone | Error::SessionConflict { .. });
        if lost && self.failures.length == 0 {
            tracing::info!(scale_set_id = self.set.scale_set_id, %error, "message session lost; opening another");
            self.failures.length += 1;
            self.failures.gone = matches!(error, Error::ScaleSetGone);
            return Ok(Next::Reopen);
        }
        // One fault that may pass is not worth a word, unless it took long enough to be missed.
        let passing = matches!(error, Error::Transient(_) | Error::BadReply(_))
            && self.failures.length == 0
            && begun.elapsed() < UNNOTICED;
        self.endure(error, !passing).await?;
        Ok(if lost || self.failures.length >= POLL_TRIES { Next::Reopen } else { Next::Poll })
    }

    /// Takes a failure: tells it, and waits as long as it asks for. An error when waiting would not help.
    async fn endure(&mut self, error: Error, told: bool) -> Result<(), ListenEnd> {
        tracing::warn!(scale_set_id = self.set.scale_set_id, %error, "listening fails");
        let (state, wait) = self.classify(error)?;
        let until = Instant::now().plus(wait);
        while Instant::now() < until {
            if told {
                self.handler.state(state.clone());
            }
            let left = until.saturating_duration_since(Instant::now());
            self.pause(left.min(TOLD_AGAIN)).await?;
        }
        Ok(())
    }

    /// What a failure means for the handler, and how long to wait after it.
    fn classify(&mut self, error: Error) -> Result<(ListenState, Duration), ListenEnd> {
        let now = Timestamp::now();
        let since = *self.failures.since.get_or_insert(now);
        let was_gone = std::mem::replace(&mut self.failures.gone, matches!(error, Error::ScaleSetGone));
        Ok(match error {
            Error::ScaleSetGone if was_gone => return Err(ListenEnd::ScaleSetGone),
            Error::AuthRejected(message) if self.failures.refused() => {
                return Err(ListenEnd::AuthRejected(message));
            }
            Error::Forbidden(message) if self.failures.refused() => {
                return Err(ListenEnd::Forbidden(message));
            }
            Error::AuthRejected(message) | Error::Forbidden(message) => {
                (ListenState::Refused { message }, self.failed())
            }
            Error::SessionConflict { owner } => {
                let wait = self.conflict_wait(owner.as_deref());
                (ListenState::Conflict { owner, since }, wait)
            }
            Error::RateLimited { .. } => {
                let wait = jitter(error.retry_after().max(self.pace.first_wait), 0.1);
                (ListenState::RateLimited { until: now.plus(wait) }, wait)
            }
            error => (ListenState::Unreachable { message: error.to_string(), since }, self.failed()),
        })
    }

    /// Counts a failure; answers how long to wait after it.
    fn failed(&mut self) -> Duration {
        self.failures.length += 1;
        self.pace.back_off(self.failures.length)
    }

    /// A session that we know of, or that has our name, goes as soon as GitHub has understood that we deleted it.
    fn conflict_wait(&mut self, owner: Option<&str>) -> Duration {
        self.failures.conflicts += 1;
        let ours = owner == Some(&self.set.owner) || self.left_behind().is_some();
        if ours && self.failures.conflicts <= OWN_CONFLICTS {
            self.pace.own_conflict
        } else {
            jitter(self.pace.conflict, 1.0)
        }
    }

    /// Acquires what the set can have in hand, and acknowledges what is owed, as far as it goes now.
    async fn settle(&self, cursor: &mut SessionCursor, capacity: u32) -> Result<(), ListenEnd> {
        let service = self.service.as_ref();
        if !cursor.offered.is_empty() {
            let acquired = self.unless_cancelled(timeout(SETTLE, cursor.acquire(service, capacity))).await?;
            log_owed("offered jobs could not be acquired", acquired);
        }
        if !cursor.recorded.is_empty() {
            let acknowledged = self.unless_cancelled(timeout(SETTLE, cursor.acknowledge(service))).await?;
            log_owed("a message could not be acknowledged", acknowledged);
        }
        Ok(())
    }

    /// Jobs that are offered and were not heard of: their message was lost, or acknowledged by one who did not acquire
    /// them.
    async fn look_for_offers(
        &self,
        cursor: &mut SessionCursor,
        statistics: Option<Statistics>,
    ) -> Result<(), ListenEnd> {
        let looked = cursor.looked_for_offers.is_some_and(|at| at.elapsed() < self.pace.offers);
        if looked || statistics.is_none_or(|s| s.available as usize <= cursor.offered.len()) {
            return Ok(());
        }
        cursor.looked_for_offers = Some(Instant::now());
        match self.unless_cancelled(self.service.acquirable(self.set.scale_set_id)).await? {
            Ok(jobs) => cursor.offer(jobs.iter().map(|j| j.request_id).filter(|id| *id > 0)),
            Err(error) => tracing::warn!(%error, "the offered jobs could not be listed"),
        }
        Ok(())
    }

    async fn pause(&self, wait: Duration) -> Result<(), ListenEnd> {
        self.unless_cancelled(sleep(wait)).await
    }

    async fn unless_cancelled<T>(&self, work: impl Future<Output = T>) -> Result<T, ListenEnd> {
        self.cancel.run_until_cancelled(work).await.ok_or(ListenEnd::Cancelled)
    }

    async fn close(&self) {
        let Some(session) = &self.last else { return };
        match timeout(CLOSE, self.service.close(session)).await {
            Ok(Ok(())) => drop(timeout(CLOSE, self.handler.session_closed()).await),
            Ok(Err(error)) => tracing::warn!(session = session.id, %error, "the session could not be closed"),
            Err(_) => tracing::warn!(session = session.id, "the session could not be closed in time"),
        }
    }
}

/// Whether a message tells of an assigned job and does not count it: statistics are sometimes missing, or all zero.
fn miscounted(message: &Message) -> bool {
    message.statistics.is_none_or(|s| s.assigned == 0)
        && message.events.iter().any(|e| matches!(e, JobEvent::Assigned { .. }))
}

fn log_owed(what: &'static str, outcome: Result<Result<(), Error>, Elapsed>) {
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "{what}; it is tried again"),
        Err(_) => tracing::warn!("{what} in time; it is tried again"),
    }
}

impl ListenFailures {
    /// Counts a refusal; true when it is to be believed.
    fn refused(&mut self) -> bool {
        self.refusals += 1;
        self.refusals >= REFUSALS
    }
}

async fn differs_from(capacity: &mut watch::Receiver<u32>, advertised: u32) {
    // Whoever sets the capacity may be gone before the loop is told to stop: then it stays as it is.
    if capacity.wait_for(|now| *now != advertised).await.is_err() {
        std::future::pending::<()>().await;
    }
}
