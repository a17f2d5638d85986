//! Runners: the endpoints that `fake-runner` calls, and [`SimRunner`], which does the same inside a test.
//!
//! | Call | Answer |
//! | --- | --- |
//! | POST `/_runner/connect` | 200, or 404: the registration is gone |
//! | GET `/_runner/job` | 200 with an order; 202 when the poll's time is up; 404 |
//! | GET `/_runner/hold?ms=N` | 200 `{"state": "running" | "canceled" | "finished"}`, at once when not running, else after N ms |
//! | POST `/_runner/finish?result=R` | 200; 404 |
//!
//! Each carries the secret of the JIT configuration as bearer. An open call is the runner's connection.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use serde_json::json;
use tokio::time::Instant;

use super::Inner;
use super::server::Call;
use super::state::{Hold, JobResult, Order, RunnerId};
use super::wire::{Answer, Refusal};

pub(super) async fn handle(inner: &Arc<Inner>, call: &Call) -> Result<Answer, Refusal> {
    let secret = call.bearer().unwrap_or_default();
    let link = Link::open(inner, secret).ok_or_else(gone)?;
    let super::route::Route::RunnerSide(verb) = &call.route else {
        return Err(gone());
    };
    match verb.as_str() {
        "connect" => Ok(Answer::ok(&json!({ "runnerId": link.runner }))),
        "job" => match link.job(inner.config.long_poll).await {
            Ok(Some(order)) => Ok(Answer::ok(&json!(order))),
            Ok(None) => Ok(Answer::empty(StatusCode::ACCEPTED)),
            Err(Gone) => Err(gone()),
        },
        "hold" => {
            let asked = call.number("ms").and_then(|ms| u64::try_from(ms).ok());
            let time = asked.map_or(inner.config.long_poll, Duration::from_millis);
            let state = link.hold(time.min(inner.config.long_poll)).await;
            Ok(Answer::ok(&json!({ "state": state })))
        }
        "finish" => {
            let result = match call.query("result") {
                Some("failed") => JobResult::Failed,
                Some("canceled") => JobResult::Canceled,
                _ => JobResult::Succeeded,
            };
            link.finish(result).map_err(|Gone| gone())?;
            Ok(Answer::ok(&json!({})))
        }
        _ => Err(gone()),
    }
}

fn gone() -> Refusal {
    Refusal::rest(StatusCode::NOT_FOUND, "The runner registration has been deleted from the server.")
}

/// The registration is gone: removed, or used up by a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the runner registration has been deleted from the server")]
pub struct Gone;

/// One open connection of a runner; dropping it closes it.
struct Link {
    inner: Arc<Inner>,
    runner: RunnerId,
}

impl Link {
    fn open(inner: &Arc<Inner>, secret: &str) -> Option<Self> {
        let mut state = inner.lock();
        let runner = state.runner_by_secret(secret)?.id;
        state.link(runner);
        Some(Self { inner: Arc::clone(inner), runner })
    }

    /// Waits for a job; `None` when the time is up.
    async fn job(&self, time: Duration) -> Result<Option<Order>, Gone> {
        let deadline = Instant::now() + time;
        let mut changes = self.inner.lock().runner_changes(self.runner).ok_or(Gone)?;
        loop {
            changes.borrow_and_update();
            {
                let mut state = self.inner.lock();
                state.runner_changes(self.runner).ok_or(Gone)?;
                if let Some(order) = state.take_job(self.runner) {
                    return Ok(Some(order));
                }
            }
            if tokio::time::timeout_at(deadline, changes.changed()).await.is_err() {
                return Ok(None);
            }
        }
    }

    /// Waits while the job runs, at most for this long.
    async fn hold(&self, time: Duration) -> Hold {
        let deadline = Instant::now() + time;
        let Some(mut changes) = self.inner.lock().runner_changes(self.runner) else {
            return Hold::Finished;
        };
        loop {
            changes.borrow_and_update();
            let hold = self.inner.lock().hold(self.runner);
            if hold != Hold::Running || tokio::time::timeout_at(deadline, changes.changed()).await.is_err() {
                return hold;
            }
        }
    }

    fn finish(&self, result: JobResult) -> Result<(), Gone> {
        let mut state = self.inner.lock();
        let job = state.runners().find(|r| r.id == self.runner).and_then(|r| r.job).ok_or(Gone)?;
        state.finish_job(job, result).map_err(|_| Gone)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.inner.lock().unlink(self.runner);
    }
}

/// A connected runner inside a test. Dropping it is a lost connection.
#[must_use = "a runner that is dropped has lost its connection"]
pub struct SimRunner {
    link: Link,
}

impl std::fmt::Debug for SimRunner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SimRunner").field(&self.link.runner).finish()
    }
}

impl SimRunner {
    pub(super) fn connect(inner: &Arc<Inner>, secret: &str) -> Result<Self, Gone> {
        Link::open(inner, secret).map(|link| Self { link }).ok_or(Gone)
    }

    /// Waits for a job and takes it; `None` when the time is up.
    ///
    /// # Errors
    ///
    /// When the registration is gone.
    pub async fn next_job(&self, time: Duration) -> Result<Option<Order>, Gone> {
        self.link.job(time).await
    }

    /// Waits while the job runs, at most for this long: it returns early when the job is canceled or held to be over.
    pub async fn hold(&self, time: Duration) -> Hold {
        self.link.hold(time).await
    }

    /// Reports the end of the job.
    ///
    /// # Errors
    ///
    /// When the registration is gone, or there is no job.
    pub fn finish(self, result: JobResult) -> Result<(), Gone> {
        self.link.finish(result)
    }
}
