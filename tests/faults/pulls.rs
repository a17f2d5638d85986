//! A registry that stalls while an image is pulled anew before each start.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use harness::{IMAGE, Lab, PATIENCE, eventually, github, lab};
use serde_json::json;
use testkit::github::{Endpoint, JobSpec, JobStatus, SimGithub};
use tokio::process::{Child, Command};

use crate::load::manifest;
use crate::proxy::{Proxy, Weather};

/// A registry's program, where `make test` puts it.
const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/.cache/bin/docker-registry");
/// Longer than `timeouts.start` of the tests' manifest.
const LONGER_THAN_A_START: Duration = Duration::from_secs(8);

/// A registry behind a proxy, with the runners' image. It ends with this.
struct Registry {
    proxy: Proxy,
    image: String,
    _process: Child,
}

impl Registry {
    async fn start(lab: &Lab) -> Registry {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let process = serve(lab.folder(), address);
        eventually("the registry answers", PATIENCE, async || {
            tokio::net::TcpStream::connect(address).await.ok()
        })
        .await;
        let proxy = Proxy::before(address).await;
        let image = format!("{}/runner:1", proxy.url().trim_start_matches("http://"));
        docker(&["tag", IMAGE, &image]).await;
        docker(&["push", "--quiet", &image]).await;
        Registry { proxy, image, _process: process }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = std::process::Command::new("docker").args(["rmi", &self.image]).output();
    }
}

fn serve(folder: &Path, address: SocketAddr) -> Child {
    let config = json!({
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": folder.join("registry")}},
        "http": {"addr": address.to_string()},
    });
    let file = folder.join("registry.yml");
    std::fs::write(&file, config.to_string()).unwrap();
    let mut command = Command::new(PROGRAM);
    command.arg("serve").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.kill_on_drop(true).spawn().expect("run `make test`")
}

async fn docker(args: &[&str]) {
    let done = Command::new("docker").args(args).stdout(Stdio::null()).status().await.unwrap();
    assert!(done.success(), "docker {args:?}");
}

/// How many configurations GitHub was asked for.
fn minted(github: &SimGithub) -> usize {
    github.requests(Endpoint::JitConfig).len()
}

/// A set whose image is there and is pulled before each start, and a job whose runner waits for that pull.
async fn waiting_for_the_pull(lab: &Lab, github: &SimGithub, registry: &Registry) {
    let docker = json!({"image": registry.image, "pullPolicy": "Always"});
    lab.apply(&manifest(&github.config_url("acme")).docker(docker)).await;
    lab.until("linux", "the image is there", |set| {
        let status = set.status.as_ref();
        status.is_some_and(|s| s.backends.iter().any(|b| b.hosts.iter().any(|host| host.ready)))
    })
    .await;
    registry.proxy.set(Weather::Held);
    github.queue_jobs(1, &JobSpec::new("acme/app", ["linux"]).lasting(Duration::from_secs(1)));
    lab.until_phases("linux", (1, 0, 0)).await;
}

#[tokio::test]
async fn a_runner_is_registered_once_its_image_is_pulled_and_the_pull_takes_no_time_of_its_start() {
    lab("pull-first", async |lab| {
        let github = github(lab).await;
        let registry = Registry::start(lab).await;
        let _controller = lab.start();
        waiting_for_the_pull(lab, &github, &registry).await;
        tokio::time::sleep(LONGER_THAN_A_START).await; // what must not happen in this time
        assert_eq!(minted(&github), 0, "it is registered while its image is pulled");
        lab.until_phases("linux", (1, 0, 0)).await;

        registry.proxy.set(Weather::Fair);
        github.wait_until(PATIENCE, |s| s.jobs_in(JobStatus::Completed) == 1).await.unwrap();
        assert_eq!(minted(&github), 1);
        let failures = lab.get("linux").await.status.unwrap().recent_failures;
        assert!(failures.is_empty(), "{failures:?}");
    })
    .await;
}

#[tokio::test]
async fn a_start_that_waits_for_a_pull_is_given_up_when_the_set_is_suspended() {
    lab("pull-given-up", async |lab| {
        let github = github(lab).await;
        let registry = Registry::start(lab).await;
        let _controller = lab.start();
        waiting_for_the_pull(lab, &github, &registry).await;
        let docker = json!({"image": registry.image, "pullPolicy": "Always"});
        let suspended = manifest(&github.config_url("acme")).docker(docker).spec(json!({"suspend": true}));
        lab.apply(&suspended).await;
        lab.until_phases("linux", (0, 0, 0)).await;
        lab.delete("linux").await;
        lab.until_gone("linux", PATIENCE).await;
        assert_eq!(minted(&github), 0);
        registry.proxy.set(Weather::Fair);
    })
    .await;
}
