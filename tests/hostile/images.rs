//! A private image that one tenant pulled, on a host that another tenant uses too.

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::{IMAGE, Lab, Manifest, PATIENCE, PERMISSIVE, condition, eventually, github, lab, phases};
use serde_json::{Value, json};
use testkit::github::SimGithub;
use tokio::process::{Child, Command};

/// A registry's program, where `make test` puts it.
const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/.cache/bin/docker-registry");
/// Who may pull, with the password and what `htpasswd -B` writes of it.
const USER: (&str, &str) = ("ci", "planted-secret>>>???");
const HTPASSWD: &str = "ci:$2b$05$h6Rildf9i8MTMlFCHo8G5.vxc8/JgqeCtwz9EBYSwfswmaMdpWR2.";

/// A registry with the runners' image, which only [`USER`] may have. It ends with this.
struct Registry {
    address: String,
    _process: Child,
}

impl Registry {
    async fn start(folder: &Path) -> Registry {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let file = |name: &str| folder.join(name);
        std::fs::write(file("htpasswd"), HTPASSWD).unwrap();
        let config = json!({
            "version": 0.1,
            "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": file("registry")}},
            "http": {"addr": address},
            "auth": {"htpasswd": {"realm": "test", "path": file("htpasswd")}},
        });
        std::fs::write(file("registry.yml"), config.to_string()).unwrap();
        let mut command = Command::new(PROGRAM);
        command.arg("serve").arg(file("registry.yml"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let process = command.spawn().expect("run `make test` once");
        eventually("the registry answers", PATIENCE, async || {
            tokio::net::TcpStream::connect(&address).await.ok()
        })
        .await;
        let registry = Registry { address, _process: process };
        std::fs::write(file("config.json"), registry.login()).unwrap();
        docker(folder, &["tag", IMAGE, &registry.image()]).await;
        docker(folder, &["push", "--quiet", &registry.image()]).await;
        docker(folder, &["rmi", &registry.image()]).await;
        registry
    }

    fn image(&self) -> String {
        format!("{}/acme/secret:1", self.address)
    }

    /// The login as a Secret has it.
    fn login(&self) -> String {
        let auth = STANDARD.encode(format!("{}:{}", USER.0, USER.1));
        json!({"auths": {self.address.as_str(): {"auth": auth}}}).to_string()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = std::process::Command::new("docker").args(["rmi", "--force", &self.image()]).output();
    }
}

async fn docker(config: &Path, args: &[&str]) {
    let done = Command::new("docker").arg("--config").arg(config).args(args).output().await.unwrap();
    assert!(done.status.success(), "docker {args:?}: {done:?}");
}

fn set(github: &SimGithub, name: &str, docker: Value) -> Manifest {
    let spec = json!({"minRunners": 1, "maxRunners": 1});
    Manifest::sample(&github.config_url("acme")).named(name).spec(spec).docker(docker)
}

/// The tenant has no login for the image, and the host has the image: nothing but the policy is in the way.
async fn until_refused(lab: &Lab, name: &str) {
    lab.until(name, "it does not get the image", |set| {
        let said = condition(set, "Reconciling");
        phases(set) == (0, 0, 0) && said.is_some_and(|c| c.reason == "ImagePullFailed")
    })
    .await;
}

#[tokio::test]
async fn a_private_image_that_one_tenant_pulled_is_not_run_for_another_without_its_login() {
    lab("private-image", async |lab| {
        let github = github(lab).await;
        let registry = Registry::start(lab.folder()).await;
        lab.secret("registry", [(".dockerconfigjson", registry.login().as_str())]).await;
        lab.policy(&PERMISSIVE.replace("hostSocket: true", "hostSocket: true\n  alwaysPullImages: true"));
        let _controller = lab.start();
        let image = registry.image();
        let owner = json!({"image": image, "imagePullSecretRef": {"name": "registry"}});
        lab.apply(&set(&github, "owner", owner)).await;
        lab.until_phases("owner", (0, 1, 0)).await;
        for (name, policy) in [("absent", "IfNotPresent"), ("never", "Never")] {
            lab.apply(&set(&github, name, json!({"image": image, "pullPolicy": policy}))).await;
            until_refused(lab, name).await;
        }
        // It is the policy that keeps them from it.
        lab.policy(PERMISSIVE);
        lab.until_phases("absent", (0, 1, 0)).await;
        lab.until_phases("never", (0, 1, 0)).await;
    })
    .await;
}
