//! The fake's hosts, as the suite wants them.

use std::cell::Cell;
use std::sync::Arc;

use conformance::fake::{FakeProvider, Fault, Hosts};
use conformance::{BACKEND, Block, HostUse, Stage};
use paddock::api;
use paddock::backend::{Provider, Requeuer};
use paddock::runner::Instance;
use serde_json::json;
use tokio::runtime::{Builder, Runtime};

/// The cluster of every stage: each has hosts of its own.
pub const CLUSTER: &str = "conformance";
/// The host's name.
pub const HOST: &str = "local";
/// The host's one endpoint.
pub const ENDPOINT: &str = "fake://rack-1";

thread_local! {
    /// What is planted in the stages that this thread sets up.
    pub static PLANTED: Cell<Option<Fault>> = const { Cell::new(None) };
}

pub struct FakeStage {
    pub hosts: Hosts,
}

impl Stage for FakeStage {
    /// A clock that skips what nobody waits for: what is not so at the deadline is known at once.
    fn runtime() -> Runtime {
        Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
    }

    async fn set_up(_: HostUse) -> Self {
        let hosts = Hosts::new();
        PLANTED.get().into_iter().for_each(|fault| hosts.plant(fault));
        FakeStage { hosts }
    }

    fn cluster(&self) -> &str {
        CLUSTER
    }

    fn provider(&self, requeuer: Requeuer) -> Arc<dyn Provider> {
        Arc::new(FakeProvider::new(&self.hosts, CLUSTER, requeuer))
    }

    fn backend(&self, block: &Block) -> api::Backend {
        let endpoint = if block.respelled { "fake://RACK-1" } else { ENDPOINT };
        let mut host = json!({"name": HOST, "endpoint": endpoint});
        if let Some(max_runners) = block.max_runners {
            host["maxRunners"] = max_runners.into();
        }
        let image = if block.changed { "runner:2" } else { "runner:1" };
        serde_json::from_value(json!({"name": BACKEND, "docker": {"image": image, "hosts": [host]}})).unwrap()
    }

    async fn end(&mut self, instance: &Instance, code: u8) {
        self.hosts.end(&instance.id, code.into());
    }

    async fn add_foreign(&mut self) -> String {
        self.hosts.add_foreign(ENDPOINT)
    }

    async fn has(&mut self, instance_id: &str) -> bool {
        self.hosts.has(instance_id)
    }

    async fn fall_silent(&mut self) {
        self.hosts.fall_silent(ENDPOINT);
    }

    async fn answer_again(&mut self) {
        self.hosts.answer_again(ENDPOINT);
    }
}
