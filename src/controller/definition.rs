//! The definition of RunnerScaleSet at the API server. Without it there is nothing to serve, and the watches say so late: the API
//! server lets those that are open live on for a while after it is gone.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use kube::Api;
use kube::api::ListParams;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::answer::{is_unserved, with_timeout};
use crate::api::RunnerScaleSet;
use crate::telemetry::Health;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(3);
/// What is told while it is not there.
const OBSTACLE: &str = "the definition of RunnerScaleSet is not installed: apply crds/, or upgrade the chart; until then no scale set \
                        is served, and runners that run are left alone";

/// The definition, looked for again and again: whether it is there is a part of the controller's readiness.
#[derive(Clone)]
pub(super) struct Definition {
    scale_sets: Api<RunnerScaleSet>,
    health: Health,
    returned: Arc<Notify>,
}

impl Definition {
    /// The definition, by whether these scale sets can be listed.
    pub fn new(scale_sets: Api<RunnerScaleSet>, health: Health) -> Definition {
        Definition { scale_sets, health, returned: Arc::default() }
    }

    /// Looks whether it is there, and tells of a change. One that is not there is waited for.
    ///
    /// # Errors
    /// The API server does not answer, or does not permit it: that says nothing of it.
    pub async fn look(&self) -> Result<(), kube::Error> {
        match with_timeout(self.scale_sets.list_metadata(&ListParams::default().limit(1))).await {
            Ok(_) => self.note(None),
            Err(error) if is_unserved(&error) => self.note(Some(OBSTACLE)),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Looks until the process stops.
    pub async fn follow(self, stopping: CancellationToken) {
        while stopping.run_until_cancelled(sleep(LOOK)).await.is_some() {
            let _ = self.look().await;
        }
    }

    /// Begins a watch anew whenever the definition has come back: the one before is of the definition that went.
    pub fn renewed<S: Stream, F: Fn() -> S>(&self, watch: F) -> impl Stream<Item = S::Item> + use<S, F> {
        let returned = self.returned.clone();
        stream::repeat_with(move || watch().take_until(returned.clone().notified_owned())).flatten()
    }

    fn note(&self, obstacle: Option<&'static str>) {
        match (self.health.set_obstacle(obstacle), obstacle) {
            (None, Some(why)) => error!("{why}"),
            (Some(_), None) => {
                info!("RunnerScaleSets can be listed again");
                self.returned.notify_waiters();
            }
            _ => {}
        }
    }
}
