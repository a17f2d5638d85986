//! Tells of scale sets at work in their objects, and in events about them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use kube::{Api, Client};
use tracing::warn;

use super::answer::api_message;
use super::events::Events;
use super::lease::Leadership;
use super::status;
use super::turns::Turns;
use super::writer::Writer;
use crate::api::RunnerScaleSetStatus;
use crate::scale_set::{Environment, Event, Reporter, ScaleSetHandle};
use crate::telemetry::Metrics;

/// Writes to the API server.
pub(super) struct ApiReporter {
    client: Client,
    turns: Turns,
    events: Events,
    environment: Arc<dyn Environment>,
    metrics: Metrics,
    leadership: Leadership,
    /// By UID of the set.
    writers: Mutex<HashMap<String, Arc<Writer>>>,
}

impl ApiReporter {
    /// Writes as `owner`, in turn, while `leadership` is held.
    pub fn new(
        client: Client,
        turns: Turns,
        owner: &str,
        environment: Arc<dyn Environment>,
        metrics: Metrics,
        leadership: Leadership,
    ) -> ApiReporter {
        let events = Events::new(client.clone(), owner.to_owned());
        ApiReporter { client, turns, events, environment, metrics, leadership, writers: Mutex::default() }
    }

    /// Kubernetes events.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// Makes what writes to the object of a set, whose status is `current`.
    pub fn load(&self, set: &ScaleSetHandle, current: RunnerScaleSetStatus) -> Arc<Writer> {
        let api = Api::namespaced(self.client.clone(), &set.object.namespace);
        let (turns, metrics, leadership) =
            (self.turns.clone(), self.metrics.clone(), self.leadership.clone());
        let writer = Arc::new(Writer::new(api, turns, &set.object.name, current, metrics, leadership));
        self.writers().insert(set.uid.clone(), writer.clone());
        writer
    }

    /// What writes to the object of a set; none for one that was forgotten.
    pub fn writer(&self, set: &ScaleSetHandle) -> Option<Arc<Writer>> {
        self.writers().get(&set.uid).cloned()
    }

    /// Writes to the object of a set no more: its name may be another object's.
    pub fn forget(&self, set: &ScaleSetHandle) {
        if let Some(writer) = self.writers().remove(&set.uid) {
            writer.end();
        }
    }

    fn writers(&self) -> MutexGuard<'_, HashMap<String, Arc<Writer>>> {
        self.writers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Reporter for ApiReporter {
    fn publish(&self, set: &ScaleSetHandle, event: Event) {
        self.events.publish(Events::about(set), event);
    }

    async fn session_changed(&self, set: &ScaleSetHandle) {
        let Some(writer) = self.writer(set) else { return };
        if let Err(error) = writer.record_ownership(set).await {
            warn!(
                error = api_message(&error),
                "that the scale set is this object's own could not be recorded"
            );
        }
        let status = status::current(set, self.environment.now());
        if let Err(error) = writer.write_now(status).await {
            warn!(error = api_message(&error), "the session could not be written down");
        }
    }
}
