//! The controller without its watches: driven by hand, in an environment of the caller's choice. The model and other
//! tests do so.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use kube::Client;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::housekeeping::Rounds;
use super::lease::Leadership;
use super::reconcile::reconcile_timed;
use super::requeue::Requeue;
use crate::api::{Globs, OperatorPolicy, PolicyRule, RunnerScaleSet};
use crate::backend::Requeuer;
use crate::scale_set::Environment;
use crate::telemetry::Metrics;

/// One controller.
pub struct TestDriver(Arc<Context>, Mutex<Rounds>);

impl TestDriver {
    /// A controller that has just begun, with a policy that permits everything. It leads until [`TestDriver::depose`]; when
    /// `stopping` is cancelled it says farewell.
    pub fn new(
        client: Client,
        cluster: &str,
        owner: &str,
        stopping: CancellationToken,
        environment: impl FnOnce(Requeuer) -> Arc<dyn Environment>,
    ) -> TestDriver {
        let (cluster, owner) = (cluster.to_owned(), owner.to_owned());
        let ctx =
            Context::new(client, cluster, owner, Leadership::open(), everything(), stopping, environment);
        TestDriver(Arc::new(ctx), Mutex::default())
    }

    /// The namespaces and names of objects that are to be reconciled, as it becomes so. From now on it serves that
    /// namespace, or all.
    pub fn wakes(&self, namespace: Option<&str>) -> impl Stream<Item = (String, String)> + use<> {
        let (sender, receiver) = futures::channel::mpsc::unbounded();
        self.0.shared.registry.requeue_through(namespace.map(str::to_owned), sender);
        receiver.map(|object| (object.namespace, object.name))
    }

    /// Makes one of the reaper's rounds.
    pub async fn make_round(&self) {
        self.1.lock().await.make(&self.0).await;
    }

    /// What it has counted.
    pub fn metrics(&self) -> &Metrics {
        &self.0.shared.metrics
    }

    /// It does not lead any more: from now on it may not act.
    pub fn depose(&self) {
        self.0.leadership.drop_now();
    }

    /// Reconciles one object; answers when it is to be looked at again, if ever, or what went wrong.
    pub async fn reconcile(&self, object: &RunnerScaleSet) -> Result<Option<Duration>, String> {
        match reconcile_timed(object, &self.0).await {
            Ok(Requeue::After(pause)) => Ok(Some(pause)),
            Ok(Requeue::OnChange) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn everything() -> OperatorPolicy {
    let any = || Globs::new(["*"]);
    let rule = PolicyRule {
        namespaces: any(),
        github_hosts: any(),
        insecure_http: true,
        endpoints: any(),
        host_socket: true,
        privileged_sidecar: true,
        networks: any(),
        controller_aws_identity: true,
        always_pull_images: false,
        network_per_scale_set: false,
    };
    OperatorPolicy { rules: vec![rule], hosts: Vec::new() }
}
