//! The seams, silent while this process does not lead: what it would change is another controller's to change.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::api::BackendType;
use crate::backend::{self, Backend, Examination, HostNews, HostState, Listing, NewRunner, Reservation};
use crate::github::{
    self, AcquirableJob, JitRunner, ListedRunner, Message, RunnerReference, ScaleSet, ScaleSetService,
    Session, WantedScaleSet,
};
use crate::runner::Instance;

/// Tells whether this process may act at this moment.
pub type LeadershipCheck = Arc<dyn Fn() -> bool + Send + Sync>;

/// This process does not lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this controller does not lead")]
pub struct NotLeading;

impl From<NotLeading> for github::Error {
    fn from(not_leading: NotLeading) -> github::Error {
        github::Error::Transient(not_leading.to_string())
    }
}

impl From<NotLeading> for backend::Error {
    fn from(not_leading: NotLeading) -> backend::Error {
        backend::Error::Unreachable(not_leading.to_string())
    }
}

/// Checks whether this process may act at this moment.
///
/// # Errors
/// [`NotLeading`] when it may not.
pub fn check(leads: &LeadershipCheck) -> Result<(), NotLeading> {
    if leads() { Ok(()) } else { Err(NotLeading) }
}

/// Passes calls on while this process leads.
pub struct LeaderOnly<T: ?Sized> {
    inner: Arc<T>,
    leads: LeadershipCheck,
}

impl<T: ?Sized> LeaderOnly<T> {
    /// Asks `leads` before each call of `inner`.
    pub fn new(inner: Arc<T>, leads: LeadershipCheck) -> LeaderOnly<T> {
        LeaderOnly { inner, leads }
    }

    fn leading(&self) -> Result<&T, NotLeading> {
        check(&self.leads).map(|()| &*self.inner)
    }
}

impl<T: ?Sized> fmt::Debug for LeaderOnly<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaderOnly").finish_non_exhaustive()
    }
}

#[async_trait]
impl ScaleSetService for LeaderOnly<dyn ScaleSetService> {
    async fn ensure_scale_set(
        &self,
        wanted: &WantedScaleSet,
        own: Option<i64>,
    ) -> Result<ScaleSet, github::Error> {
        self.leading()?.ensure_scale_set(wanted, own).await
    }

    async fn find_scale_set(&self, id: i64) -> Result<Option<ScaleSet>, github::Error> {
        self.leading()?.find_scale_set(id).await
    }

    async fn delete_scale_set(&self, id: i64) -> Result<(), github::Error> {
        self.leading()?.delete_scale_set(id).await
    }

    async fn open_session(
        &self,
        scale_set_id: i64,
        owner: &str,
        left_behind: Option<&str>,
    ) -> Result<Session, github::Error> {
        self.leading()?.open_session(scale_set_id, owner, left_behind).await
    }

    async fn refresh(&self, session: &Session) -> Result<Session, github::Error> {
        self.leading()?.refresh(session).await
    }

    async fn poll(
        &self,
        session: &Session,
        last_message_id: i64,
        capacity: u32,
    ) -> Result<Option<Message>, github::Error> {
        self.leading()?.poll(session, last_message_id, capacity).await
    }

    async fn acknowledge(&self, session: &Session, message_id: i64) -> Result<(), github::Error> {
        self.leading()?.acknowledge(session, message_id).await
    }

    async fn acquire(&self, session: &Session, request_ids: &[i64]) -> Result<Vec<i64>, github::Error> {
        self.leading()?.acquire(session, request_ids).await
    }

    async fn acquirable(&self, scale_set_id: i64) -> Result<Vec<AcquirableJob>, github::Error> {
        self.leading()?.acquirable(scale_set_id).await
    }

    async fn mint_jit(&self, scale_set_id: i64, runner_name: &str) -> Result<JitRunner, github::Error> {
        self.leading()?.mint_jit(scale_set_id, runner_name).await
    }

    async fn find_runner(&self, name: &str) -> Result<Option<RunnerReference>, github::Error> {
        self.leading()?.find_runner(name).await
    }

    async fn list_runners(&self) -> Result<Vec<ListedRunner>, github::Error> {
        self.leading()?.list_runners().await
    }

    async fn remove_runner(&self, id: i64) -> Result<(), github::Error> {
        self.leading()?.remove_runner(id).await
    }

    async fn rerun_failed_jobs(&self, repository: &str, run_id: i64) -> Result<(), github::Error> {
        self.leading()?.rerun_failed_jobs(repository, run_id).await
    }

    async fn close(&self, session: &Session) -> Result<(), github::Error> {
        self.leading()?.close(session).await
    }

    fn limited_for(&self) -> Option<Duration> {
        self.inner.limited_for()
    }
}

#[async_trait]
impl Backend for LeaderOnly<dyn Backend> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn kind(&self) -> BackendType {
        self.inner.kind()
    }

    fn template_hash(&self) -> &str {
        self.inner.template_hash()
    }

    fn hosts(&self) -> Vec<HostState> {
        self.inner.hosts()
    }

    fn instances(&self) -> Vec<Listing> {
        self.inner.instances()
    }

    fn prepare(&self, host: &str) {
        if let Ok(backend) = self.leading() {
            backend.prepare(host);
        }
    }

    fn wait_for_slots(&self, host: &str, runners: u32) {
        self.inner.wait_for_slots(host, runners);
    }

    fn reserve(&self, host: &str) -> Option<Box<dyn Reservation>> {
        let reservation = self.leading().ok()?.reserve(host)?;
        Some(Box::new(LeaderOnlyReservation { reservation, leads: self.leads.clone() }))
    }

    fn keep_warm(&self, wanted: bool) {
        if let Ok(backend) = self.leading() {
            backend.keep_warm(wanted);
        }
    }

    fn warm(&self) -> Option<u32> {
        self.inner.warm()
    }

    fn lost_hosts(&self) -> Vec<String> {
        self.inner.lost_hosts()
    }

    fn left_over(&self) -> u32 {
        self.inner.left_over()
    }

    fn take_news(&self) -> Vec<HostNews> {
        self.inner.take_news()
    }

    async fn discard_shared(&self) -> Vec<String> {
        match self.leading() {
            Ok(backend) => backend.discard_shared().await,
            Err(error) => vec![error.to_string()],
        }
    }

    async fn remove(&self, host: &str, instance_id: &str) -> Result<(), backend::Error> {
        self.leading()?.remove(host, instance_id).await
    }

    async fn log_tail(&self, host: &str, instance_id: &str) -> Result<String, backend::Error> {
        self.inner.log_tail(host, instance_id).await
    }

    async fn examine(&self, host: &str) -> Result<Examination, backend::Error> {
        self.inner.examine(host).await
    }
}

struct LeaderOnlyReservation {
    reservation: Box<dyn Reservation>,
    leads: LeadershipCheck,
}

#[async_trait]
impl Reservation for LeaderOnlyReservation {
    fn host(&self) -> &str {
        self.reservation.host()
    }

    async fn ready(&mut self) -> Result<(), backend::Error> {
        check(&self.leads)?;
        self.reservation.ready().await
    }

    async fn start(self: Box<Self>, runner: &NewRunner<'_>) -> Result<Instance, backend::Error> {
        check(&self.leads)?;
        self.reservation.start(runner).await
    }
}
