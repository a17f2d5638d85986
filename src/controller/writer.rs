//! Writes to the object of one scale set. Its status as a whole, when it changed, and at most once a second; and the record of the
//! scale set at GitHub that is its own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::http::HeaderValue;
use axum::http::header::ACCEPT;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{PartialObjectMeta, Patch, PatchParams, Request};
use kube::core::response::reason;
use serde_json::json;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::answer::{api_message, is_unserved, with_timeout};
use super::lease::Leadership;
use super::record;
use super::turns::Turns;
use crate::api::{RunnerScaleSet, RunnerScaleSetStatus};
use crate::scale_set::ScaleSetHandle;
use crate::telemetry::Metrics;
use crate::time::Plus;

/// Who owns the status, in `metadata.managedFields`.
pub(super) const FIELD_MANAGER: &str = "paddock";
/// Changes that come together are written together.
const GATHER: Duration = Duration::from_millis(400);
/// Never two writes within this.
const INTERVAL: Duration = Duration::from_secs(1);
/// While changes go on, writes become rarer, down to one in this.
const BUSY_INTERVAL: Duration = Duration::from_secs(2);
/// Writes that are further apart are not in a row.
const QUIET: Duration = BUSY_INTERVAL.saturating_mul(2);
/// So many writes in a row are at the shorter interval.
const QUICK_WRITES: u32 = 3;
/// After a write that failed.
const PAUSE: Duration = Duration::from_secs(3);
/// Asks for the metadata of an object alone, as kube does for `Api::patch_metadata`.
const METADATA_ALONE: HeaderValue =
    HeaderValue::from_static("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1");

/// Writes to the object of one scale set, while this process leads.
pub(super) struct Writer {
    api: Api<RunnerScaleSet>,
    turns: Turns,
    name: String,
    wanted: watch::Sender<Option<RunnerScaleSetStatus>>,
    written: Mutex<Written>,
    /// One record of ownership is written at a time.
    recording: Mutex<()>,
    metrics: Metrics,
    leadership: Leadership,
    over: AtomicBool,
}

struct Written {
    status: RunnerScaleSetStatus,
    at: Instant,
    in_a_row: u32,
}

impl Writer {
    /// Writes what differs from `current`, the object's status as it is.
    pub fn new(
        api: Api<RunnerScaleSet>,
        turns: Turns,
        name: &str,
        current: RunnerScaleSetStatus,
        metrics: Metrics,
        leadership: Leadership,
    ) -> Writer {
        let written = Mutex::new(Written { status: current, at: long_ago(), in_a_row: 0 });
        let (wanted, over) = (watch::Sender::new(None), AtomicBool::new(false));
        Writer {
            api,
            turns,
            name: name.to_owned(),
            wanted,
            written,
            recording: Mutex::default(),
            metrics,
            leadership,
            over,
        }
    }

    /// Whether the record of what is the set's own is not what it should be, and nobody is writing it.
    pub fn record_is_due(&self, set: &ScaleSetHandle) -> bool {
        set.state().github.registration.is_unrecorded() && self.recording.try_lock().is_ok()
    }

    /// Records with the object which scale set is its own, unless it is recorded so already.
    ///
    /// # Errors
    /// Those of the API server; what was not recorded is due again.
    pub async fn record_ownership(&self, set: &ScaleSetHandle) -> Result<(), kube::Error> {
        let _alone = self.recording.lock().await;
        let _turn = self.turns.wait().await;
        let own = {
            let state = set.state();
            if !state.github.registration.is_unrecorded() || !self.leadership.is_held() {
                return Ok(());
            }
            state.github.registration.own()
        };
        let patch = Patch::Merge(record::record(&set.uid, own));
        with_timeout(self.api.patch_metadata(&self.name, &PatchParams::default(), &patch)).await?;
        set.state().github.registration.note_record(own);
        Ok(())
    }

    /// Has a status written soon.
    pub fn write(&self, status: RunnerScaleSetStatus) {
        self.wanted.send_replace(Some(status));
    }

    /// Nothing is written from now on: the name may be another object's.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Writes a status now; one that was to be written soon is older, and is not written any more.
    pub async fn write_now(&self, status: RunnerScaleSetStatus) -> Result<(), kube::Error> {
        self.write(status.clone());
        self.apply(&mut *self.written.lock().await, status).await
    }

    /// Writes what is wanted until the set ends.
    pub async fn run(&self, ended: CancellationToken) {
        let mut wanted = self.wanted.subscribe();
        // What was to be written before this began is no change to it, and nothing else may come for long.
        wanted.mark_changed();
        loop {
            tokio::select! {
                biased;
                changed = wanted.changed() => if changed.is_err() { return },
                () = ended.cancelled() => return,
            }
            sleep(GATHER).await;
            let next = self.written.lock().await.next();
            sleep_until(next).await;
            let mut written = self.written.lock().await;
            let Some(status) = wanted.borrow_and_update().clone() else {
                continue;
            };
            if let Err(error) = self.apply(&mut written, status).await {
                // That the definition is not there is told by who looks for it.
                if !is_unserved(&error) {
                    warn!(error = api_message(&error), "the status could not be written");
                }
                drop(written);
                wanted.mark_changed();
                sleep(PAUSE).await;
            }
        }
    }

    async fn apply(&self, written: &mut Written, status: RunnerScaleSetStatus) -> Result<(), kube::Error> {
        if same(&written.status, &status) {
            return Ok(());
        }
        let _turn = self.turns.wait().await;
        if self.over.load(Ordering::Relaxed) || !self.leadership.is_held() {
            return Ok(());
        }
        match with_timeout(self.patch_status(&status)).await {
            Ok(()) => {}
            Err(kube::Error::Api(status)) if status.reason == reason::NOT_FOUND => {
                debug!("the object is gone, its status with it");
            }
            Err(error) => return Err(error),
        }
        self.metrics.status_write();
        written.note(status);
        Ok(())
    }

    /// As `Api::patch_status`, but the object, which may have a MiB and more, does not come back with the answer: a thousand
    /// connections would keep room for it.
    ///
    /// The status is replaced and not applied: the API server keeps those who apply in the order of time, so that whoever applies
    /// an unchanged spec after this would change the object by the order alone.
    async fn patch_status(&self, status: &RunnerScaleSetStatus) -> Result<(), kube::Error> {
        let whole = json!([{"op": "add", "path": "/status", "value": status}]);
        let patch = Patch::Json::<()>(serde_json::from_value(whole).map_err(kube::Error::SerdeError)?);
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        let request = Request::new(self.api.resource_url());
        let request = request.patch_subresource("status", &self.name, &params, &patch);
        let mut request = request.map_err(kube::Error::BuildRequest)?;
        request.headers_mut().insert(ACCEPT, METADATA_ALONE);
        let client = self.api.clone().into_client();
        client.request::<PartialObjectMeta<RunnerScaleSet>>(request).await?;
        Ok(())
    }
}

impl Written {
    /// When the next write may be.
    fn next(&self) -> Instant {
        self.at.plus(if self.in_a_row < QUICK_WRITES { INTERVAL } else { BUSY_INTERVAL })
    }

    fn note(&mut self, status: RunnerScaleSetStatus) {
        let now = Instant::now();
        self.in_a_row = if now < self.at.plus(QUIET) { self.in_a_row + 1 } else { 0 };
        self.status = status;
        self.at = now;
    }
}

/// A moment after which a write may follow at once.
fn long_ago() -> Instant {
    let now = Instant::now();
    now.checked_sub(INTERVAL).unwrap_or(now)
}

/// Whether two statuses tell the same. That GitHub said the same again is no news.
fn same(a: &RunnerScaleSetStatus, b: &RunnerScaleSetStatus) -> bool {
    let timeless = |status: &RunnerScaleSetStatus| {
        let mut status = status.clone();
        if let Some(demand) = &mut status.demand {
            demand.observed_at = Time(Timestamp::UNIX_EPOCH);
        }
        status
    };
    timeless(a) == timeless(b)
}
