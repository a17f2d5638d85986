//! The suite that every kind of capacity passes, over the simulated ECS.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use conformance::{BACKEND, Block, HostUse, Secrets, Stage};
use paddock::api;
use paddock::backend::ecs::EcsProvider;
use paddock::backend::{Provider, Requeuer};
use paddock::runner::Instance;
use serde_json::json;
use testkit::ecs::{DEFAULT_ACCESS_KEY, DEFAULT_SECRET_KEY};

use crate::stage::{self, CLUSTER, QUICK};

/// An account of the test's own.
struct TaskStage {
    stage: stage::Stage,
    cluster: String,
}

impl Stage for TaskStage {
    /// `ecs://<region>/<cluster>`, whether the spec has the cluster's name or its ARN.
    const SPELLS_ENDPOINTS: bool = false;

    async fn set_up(_: HostUse) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let cluster = format!("suite-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        TaskStage { stage: stage::Stage::new().await, cluster }
    }

    fn cluster(&self) -> &str {
        &self.cluster
    }

    fn provider(&self, requeuer: Requeuer) -> Arc<dyn Provider> {
        Arc::new(EcsProvider::with_timing(&self.cluster, requeuer, QUICK))
    }

    /// A cluster has no maximum of runners.
    fn backend(&self, block: &Block) -> api::Backend {
        let region = self.stage.ecs.region();
        let arn = format!("arn:aws:ecs:{region}:123456789012:cluster/{CLUSTER}");
        let cluster = if block.respelled { &arn } else { CLUSTER };
        let env = [json!({"name": "CHANGED", "value": block.changed.to_string()})];
        let spec = self.stage.spec(json!({"cluster": cluster, "managedTaskDefinition": {"env": env}}));
        api::Backend { name: BACKEND.to_owned(), ..spec }
    }

    fn secrets(&self) -> Secrets {
        let key = |key, value: &str| (("aws", key), value.to_owned());
        Secrets::from([
            key("aws_access_key_id", DEFAULT_ACCESS_KEY),
            key("aws_secret_access_key", DEFAULT_SECRET_KEY),
            key("aws_session_token", ""),
        ])
    }

    async fn end(&mut self, instance: &Instance, code: u8) {
        self.stage.ecs.exit_task(&instance.id, code.into()).unwrap();
    }

    async fn add_foreign(&mut self) -> String {
        let arns = self.stage.ecs.run_foreign_tasks(CLUSTER, 1).unwrap();
        arns[0].rsplit('/').next().unwrap().to_owned()
    }

    /// ECS shows a task for an hour after its end, and nothing of it can be removed.
    async fn has(&mut self, instance_id: &str) -> bool {
        let tasks = self.stage.tasks();
        let task = tasks.iter().find(|task| task.id == instance_id);
        task.is_some_and(|task| !task.containers.iter().any(|container| container.ended))
    }

    async fn fall_silent(&mut self) {
        self.stage.ecs.go_down();
    }

    async fn answer_again(&mut self) {
        self.stage.ecs.clear_faults();
    }
}

// No `slots`: a cluster has none, and what the account has room for is learned by trying. No `logs`: ECS keeps no output, and
// where CloudWatch keeps it is told with the end.
conformance::suite!(TaskStage: lives, ownership, spec, outages);
