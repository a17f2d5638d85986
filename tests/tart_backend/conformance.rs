//! The suite that every kind of capacity passes, over Macs behind a real sshd.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use conformance::{BACKEND, Block, HostUse, PRINTED, Secrets, Stage};
use paddock::api;
use paddock::backend::tart::{Macs, TartProvider};
use paddock::backend::{Provider, Requeuer};
use paddock::runner::Instance;
use serde_json::json;
use testkit::tart::{IMAGE, Mac};

use crate::stage::{self, limits, mac, template};

/// What ends a runner, and says with which code.
const END: &str = "/Users/admin/end";

/// Runs until it is told its exit code.
fn script() -> String {
    format!("echo {PRINTED}; until [ -s {END} ]; do sleep 0.05; done; exit \"$(cat {END})\"")
}

/// A Mac of the test's own.
struct MacStage {
    mac: Mac,
    cluster: String,
}

impl Stage for MacStage {
    /// As many as Apple lets run on a Mac.
    const AT_ONCE: usize = 2;
    /// Its VM runs on.
    const ENDED_KEEPS_SLOT: bool = true;

    async fn set_up(_: HostUse) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        MacStage { mac: mac(&script()).await, cluster: format!("suite-{}-{number}", std::process::id()) }
    }

    fn cluster(&self) -> &str {
        &self.cluster
    }

    fn provider(&self, requeuer: Requeuer) -> Arc<dyn Provider> {
        Arc::new(TartProvider::of(Arc::new(Macs::new(&self.cluster, requeuer).with_limits(limits()))))
    }

    fn backend(&self, block: &Block) -> api::Backend {
        let endpoint = match block.respelled {
            false => self.mac.endpoint(),
            true => self.mac.endpoint().replace("127.0.0.1", "[127.0.0.1]"),
        };
        let host = json!({
            "name": "mac-1", "endpoint": endpoint, "sshSecretRef": {"name": "mac"},
            "maxVms": block.max_runners.unwrap_or(2), "tartHome": "",
        });
        let cpu = if block.changed { 6 } else { 4 };
        let tart = json!({"image": IMAGE, "cpu": cpu, "hosts": [host]});
        serde_json::from_value(json!({"name": BACKEND, "tart": tart})).unwrap()
    }

    fn secrets(&self) -> Secrets {
        let key = |key, value| (("mac", key), value);
        Secrets::from([
            key("ssh-privatekey", self.mac.private_key().unwrap()),
            key("known_hosts", self.mac.known_hosts().unwrap()),
        ])
    }

    async fn end(&mut self, instance: &Instance, code: u8) {
        std::fs::write(self.mac.guest_users(&instance.id).join("admin/end"), code.to_string()).unwrap();
    }

    async fn add_foreign(&mut self) -> String {
        let other = stage::Stage::new(&format!("{}-other", self.cluster));
        stage::started(&other.backend("theirs", template(&[&self.mac]))).await.id
    }

    async fn has(&mut self, instance_id: &str) -> bool {
        self.mac.vms().unwrap().iter().any(|vm| vm.name == instance_id)
    }

    async fn fall_silent(&mut self) {
        self.mac.kill_sshd().await.unwrap();
    }

    async fn answer_again(&mut self) {
        self.mac.start_sshd().await.unwrap();
    }
}

conformance::suite!(MacStage);
