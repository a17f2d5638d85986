//! The suite that every kind of capacity passes, over real engines: on this machine, and behind a real sshd.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bollard::query_parameters::{KillContainerOptionsBuilder, LogsOptionsBuilder};
use conformance::{BACKEND, Block, HostUse, PRINTED, Secrets, Stage};
use futures::StreamExt;
use harness::sshd::Sshd;
use paddock::api;
use paddock::backend::docker::DockerProvider;
use paddock::backend::{Provider, Requeuer};
use paddock::runner::{Identity, Instance};
use serde_json::json;
use tokio::time::timeout;

use crate::parts::{Engine, Folder};
use crate::stage::{self, HOST, IMAGE, PATIENCE};

/// The signals that end a runner, and the codes that it ends with.
const ENDS: [(&str, u8); 2] = [("USR1", 0), ("TERM", 7)];

/// Runs until one of the signals comes. It prints once it heeds them.
fn script() -> String {
    let traps = ENDS.map(|(signal, code)| format!("trap 'exit {code}' {signal}; ")).concat();
    format!("{traps}echo {PRINTED}; while :; do sleep 0.05; done")
}

/// An engine: the machine's, or one of the test's own.
struct DockerStage {
    stage: stage::Stage,
    /// Another cluster on the same engine.
    other: stage::Stage,
    /// The folder of the engine's socket, by another way.
    link: Folder,
    engine: Option<Engine>,
}

impl Stage for DockerStage {
    async fn set_up(host: HostUse) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let name = format!("suite-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let (engine, stage) = match host {
            HostUse::Shared => (None, stage::Stage::new(&name).await),
            HostUse::Own => {
                let engine = Engine::start(&name).await;
                let stage = stage::Stage::at(&name, engine.endpoint()).await;
                (Some(engine), stage)
            }
        };
        let other = stage::Stage::at(&format!("{name}-other"), &stage.endpoint).await;
        let link = Folder::new(&format!("{name}-link"));
        let socket = Path::new(stage.endpoint.trim_start_matches("unix://"));
        symlink(socket.parent().unwrap(), link.path().join("run")).unwrap();
        DockerStage { stage, other, link, engine }
    }

    fn cluster(&self) -> &str {
        &self.stage.cluster
    }

    fn provider(&self, requeuer: Requeuer) -> Arc<dyn Provider> {
        Arc::new(DockerProvider::new(&self.stage.cluster, requeuer))
    }

    fn backend(&self, block: &Block) -> api::Backend {
        let socket = Path::new(self.stage.endpoint.trim_start_matches("unix://"));
        let by_link = self.link.path().join("run").join(socket.file_name().unwrap());
        let socket = if block.respelled { &by_link } else { socket };
        let mut host = json!({"name": HOST, "endpoint": format!("unix://{}", socket.display())});
        if let Some(max_runners) = block.max_runners {
            host["maxRunners"] = max_runners.into();
        }
        let docker = json!({
            "image": IMAGE,
            "command": ["/bin/sh", "-c", script()],
            "env": [{"name": "CHANGED", "value": block.changed.to_string()}],
            "network": "none",
            "housekeeping": {"diskGuard": {"enabled": false}},
            "hosts": [host],
        });
        serde_json::from_value(json!({"name": BACKEND, "docker": docker})).unwrap()
    }

    async fn end(&mut self, instance: &Instance, code: u8) {
        let (signal, _) = ENDS.into_iter().find(|(_, ends)| *ends == code).expect("a signal for the code");
        let docker = &self.stage.docker;
        let options = LogsOptionsBuilder::new().stdout(true).follow(true).build();
        let mut printed = docker.logs(&instance.id, Some(options));
        let line = timeout(PATIENCE, printed.next()).await.expect("it is up").unwrap().unwrap();
        assert!(line.to_string().contains(PRINTED), "{line}");
        let options = KillContainerOptionsBuilder::new().signal(signal).build();
        docker.kill_container(&instance.id, Some(options)).await.unwrap();
    }

    async fn add_foreign(&mut self) -> String {
        let cluster = &self.other.cluster;
        self.other.foreign(&format!("{cluster}-runner"), &[(Identity::CLUSTER, cluster)]).await
    }

    async fn has(&mut self, instance_id: &str) -> bool {
        self.stage.exists(instance_id).await
    }

    async fn fall_silent(&mut self) {
        self.engine.as_mut().expect("an engine of the test's own").down();
    }

    async fn answer_again(&mut self) {
        self.engine.as_mut().expect("an engine of the test's own").up().await;
    }
}

conformance::suite!(DockerStage);

/// The same engines, each on a host with sshd.
struct SshStage {
    here: DockerStage,
    sshd: Sshd,
}

impl Stage for SshStage {
    async fn set_up(host: HostUse) -> Self {
        let here = DockerStage::set_up(host).await;
        let socket = Path::new(here.stage.endpoint.trim_start_matches("unix://"));
        let sshd = Sshd::before(&here.stage.cluster, socket).await;
        SshStage { here, sshd }
    }

    fn cluster(&self) -> &str {
        self.here.cluster()
    }

    fn provider(&self, requeuer: Requeuer) -> Arc<dyn Provider> {
        self.here.provider(requeuer)
    }

    fn backend(&self, block: &Block) -> api::Backend {
        let mut backend = self.here.backend(block);
        let host = &mut backend.docker.as_mut().unwrap().hosts[0];
        let address = if block.respelled { "[127.0.0.1]" } else { "127.0.0.1" };
        host.endpoint = self.sshd.endpoint("root").replace("127.0.0.1", address);
        host.ssh_secret_ref = Some(api::SecretRef { name: "host".to_owned() });
        backend
    }

    fn secrets(&self) -> Secrets {
        let key = |key, value| (("host", key), value);
        Secrets::from([
            key("ssh-privatekey", self.sshd.private_key()),
            key("known_hosts", self.sshd.known_hosts()),
        ])
    }

    async fn end(&mut self, instance: &Instance, code: u8) {
        self.here.end(instance, code).await;
    }

    async fn add_foreign(&mut self) -> String {
        self.here.add_foreign().await
    }

    async fn has(&mut self, instance_id: &str) -> bool {
        self.here.has(instance_id).await
    }

    async fn fall_silent(&mut self) {
        self.sshd.kill().await;
    }

    async fn answer_again(&mut self) {
        self.sshd.restart().await;
    }
}

mod over_ssh {
    use super::SshStage;

    conformance::suite!(SshStage);
}
