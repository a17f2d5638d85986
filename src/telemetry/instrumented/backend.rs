//! A backend, measured.

use async_trait::async_trait;
use tokio::time::Instant;

use super::Instrumented;
use crate::api::BackendType;
use crate::backend::{Backend, Error, Examination, HostNews, HostState, Listing, NewRunner, Reservation};
use crate::runner::Instance;
use crate::telemetry::Metrics;

#[async_trait]
impl Backend for Instrumented<dyn Backend> {
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
        self.inner.prepare(host);
    }

    fn wait_for_slots(&self, host: &str, runners: u32) {
        self.inner.wait_for_slots(host, runners);
    }

    fn reserve(&self, host: &str) -> Option<Box<dyn Reservation>> {
        let reservation = self.inner.reserve(host)?;
        Some(Box::new(InstrumentedReservation { reservation, calls: self.calls() }))
    }

    fn keep_warm(&self, wanted: bool) {
        self.inner.keep_warm(wanted);
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
        self.inner.discard_shared().await
    }

    async fn remove(&self, host: &str, instance_id: &str) -> Result<(), Error> {
        let began = Instant::now();
        self.calls().ended("remove", began, self.inner.remove(host, instance_id).await)
    }

    async fn log_tail(&self, host: &str, instance_id: &str) -> Result<String, Error> {
        let began = Instant::now();
        self.calls().ended("log_tail", began, self.inner.log_tail(host, instance_id).await)
    }

    async fn examine(&self, host: &str) -> Result<Examination, Error> {
        let began = Instant::now();
        self.calls().ended("examine", began, self.inner.examine(host).await)
    }
}

impl Instrumented<dyn Backend> {
    fn calls(&self) -> Calls {
        Calls { kind: self.inner.kind().as_str(), metrics: self.metrics.clone() }
    }
}

/// Counts the calls of one kind of backend.
struct Calls {
    kind: &'static str,
    metrics: Metrics,
}

impl Calls {
    fn ended<T>(&self, call: &'static str, began: Instant, result: Result<T, Error>) -> Result<T, Error> {
        let outcome = match &result {
            Ok(_) => "ok",
            Err(Error::NoCapacity(_)) => "no_capacity",
            Err(Error::Gone) => "gone",
            Err(Error::Refused(_)) => "refused",
            Err(Error::Unreachable(_)) => "unreachable",
        };
        self.metrics.backend_request(self.kind, call, outcome, began.elapsed());
        result
    }
}

struct InstrumentedReservation {
    reservation: Box<dyn Reservation>,
    calls: Calls,
}

#[async_trait]
impl Reservation for InstrumentedReservation {
    fn host(&self) -> &str {
        self.reservation.host()
    }

    async fn ready(&mut self) -> Result<(), Error> {
        let began = Instant::now();
        self.calls.ended("ready", began, self.reservation.ready().await)
    }

    async fn start(self: Box<Self>, runner: &NewRunner<'_>) -> Result<Instance, Error> {
        let InstrumentedReservation { reservation, calls } = *self;
        let began = Instant::now();
        calls.ended("start", began, reservation.start(runner).await)
    }
}
