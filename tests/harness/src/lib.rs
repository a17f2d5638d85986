//! What the tests on real parts share.
//!
//! A [`Lab`] is what each test of the program gets for itself: a namespace in which the controller has the rights of
//! `deploy/` and no more, an identity on the Docker engine, and a folder. All of it is gone afterwards, also when the test
//! panics. [`api_server`] is for tests of the API alone, [`gateways`] stand before GitHub, and [`stage`] is what
//! `tests/with-controller` has brought up.

// A test that cannot go on fails where it stands.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod api_server;
mod authority;
mod controller;
mod docker;
pub mod door;
pub mod engine;
pub mod gateways;
mod macs;
mod manifest;
mod objects;
pub mod sshd;
pub mod stage;
pub mod stand_ins;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bollard::Docker;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{Patch, PatchParams, PostParams};
use kube::config::Kubeconfig;
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use testkit::github::{DEFAULT_TOKEN, SimGithub};
use tokio::process::Command;
use tokio::sync::Mutex;

pub use authority::{Authority, Certified};
pub use controller::{Controller, signal};
pub use docker::{Event, Timeline};
pub use engine::Engine;
pub use manifest::{IMAGE, Manifest, merged};
pub use objects::{Record, condition, is, phases};
pub use testkit::wait::{eventually, found, found_blocking, found_every};

/// How long anything may take on a busy machine that has no deadline of its own.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The file with the policy, in the test's folder.
const POLICY: &str = "policy.yaml";

/// Brings the loopback device up and passes connections on; `make image` put it there.
const BUSYBOX: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.cache/debian/busybox-static/bin/busybox");

/// The root of the repository.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// The policy that a lab's controllers have unless the test gives them another.
pub const PERMISSIVE: &str = include_str!("../../support/permissive.yaml");

/// What a test has for itself.
pub struct Lab {
    /// The administrator's client.
    pub client: Client,
    /// The namespace.
    pub namespace: String,
    /// What marks this test's containers.
    pub cluster: String,
    /// The Docker engine.
    pub docker: Docker,
    /// What happens to this test's containers.
    pub timeline: Timeline,
    /// A token of the controller's ServiceAccount.
    pub token: String,
    admin: PathBuf,
    folder: PathBuf,
}

/// Runs a test in a lab of its own. The word is part of the lab's identity: one for each test.
pub async fn lab(word: &str, test: impl AsyncFnOnce(&Lab)) {
    api_server::in_namespace(async |client, namespace| {
        let lab = Lab::set_up(client, api_server::kubeconfig(), namespace, word).await;
        test(&lab).await;
    })
    .await;
}

/// A simulated GitHub whose token the lab's Secret `github` holds.
pub async fn github(lab: &Lab) -> SimGithub {
    lab.secret("github", [("github_token", DEFAULT_TOKEN)]).await;
    SimGithub::builder().small_jit().start().await.unwrap()
}

/// The same, on an API server that serves this test alone.
pub async fn lab_on_own_server(word: &str, test: impl AsyncFnOnce(&Lab)) {
    let run = std::env::var_os("PADDOCK_TEST_DIR").expect("run `make test`");
    let server = Server(PathBuf::from(run).join(word));
    let up = Command::new(format!("{ROOT}/tests/cluster/up")).arg(&server.0).stdout(Stdio::null()).status();
    assert!(up.await.unwrap().success());
    let admin = server.0.join("kubeconfig");
    let client = api_server::client_of(&admin).await;
    api_server::install_crd(&client).await;
    api_server::in_namespace_of(client, async |client, namespace| {
        let lab = Lab::set_up(client, admin.clone(), namespace, word).await;
        test(&lab).await;
    })
    .await;
}

/// An API server in this folder; it ends with this.
struct Server(PathBuf);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::process::Command::new(format!("{ROOT}/tests/cluster/down")).arg(&self.0).output();
    }
}

impl Lab {
    /// Lets controllers agree in this namespace on which of them leads, by the Role of `deploy/`.
    pub async fn permit_leader_election(&self) {
        let rbac = include_str!("../../../deploy/rbac-leader.yaml");
        let (role, binding) = rbac.split_once("\n---\n").unwrap();
        let (mut role, mut binding): (Role, RoleBinding) = (read(role), read(binding));
        role.metadata.namespace = Some(self.namespace.clone());
        binding.metadata.namespace = Some(self.namespace.clone());
        apply(Api::namespaced(self.client.clone(), &self.namespace), &role).await;
        apply(Api::namespaced(self.client.clone(), &self.namespace), &binding).await;
    }

    /// Where the API server listens.
    pub fn server_address(&self) -> SocketAddr {
        let admin = Kubeconfig::read_from(&self.admin).unwrap();
        let server = admin.clusters[0].cluster.as_ref().unwrap().server.clone().unwrap();
        server.strip_prefix("https://").unwrap().parse().unwrap()
    }

    /// Has the controllers that start from now on reach the API server at this address.
    pub fn lead_through(&self, address: SocketAddr) {
        let kubeconfig = self.folder.join("kubeconfig");
        let direct = self.server_address().to_string();
        let text = fs::read_to_string(&kubeconfig).unwrap();
        fs::write(kubeconfig, text.replace(&direct, &address.to_string())).unwrap();
    }

    /// Gives the lab's controllers this policy, those that run too.
    pub fn policy(&self, policy: &str) {
        // At once, as a volume of a ConfigMap changes.
        let whole = self.folder.join("policy.new");
        fs::write(&whole, policy).unwrap();
        fs::rename(whole, self.folder.join(POLICY)).unwrap();
    }

    /// Where the test keeps its files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the API server is at home, if it serves this test alone.
    pub fn server_folder(&self) -> &Path {
        self.admin.parent().unwrap()
    }

    async fn set_up(client: Client, admin: PathBuf, namespace: &str, word: &str) -> Lab {
        let run = std::env::var("PADDOCK_TEST_ID").expect("run `make test`");
        let cluster = format!("{run}-{word}");
        let folder = std::env::temp_dir().join(&cluster);
        fs::create_dir(&folder).unwrap();
        let token = service_account(&client, namespace).await;
        fs::write(folder.join("kubeconfig"), kubeconfig(&admin, &token)).unwrap();
        fs::write(folder.join(POLICY), PERMISSIVE).unwrap();
        let docker = Docker::connect_with_local_defaults().unwrap().negotiate_version().await.unwrap();
        Lab {
            timeline: Timeline::follow(&docker, &cluster),
            namespace: namespace.to_owned(),
            client,
            cluster,
            docker,
            token,
            admin,
            folder,
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            controller::show_logs(&self.folder);
        }
        docker::remove_all(&self.cluster);
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Applies the manifests of `deploy/` as a person would, and gives a token of the controller's ServiceAccount.
async fn service_account(client: &Client, namespace: &str) -> String {
    /// Applies that come at once can conflict while the object is not there yet.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
    let _turn = ONE_AT_A_TIME.lock().await;
    let account: ServiceAccount = read(include_str!("../../../deploy/serviceaccount.yaml"));
    let home = account.metadata.namespace.clone().unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &home);
    let rbac = include_str!("../../../deploy/rbac-namespaced.yaml");
    let (role, binding) = rbac.split_once("\n---\n").unwrap();

    apply::<Namespace>(Api::all(client.clone()), &read(include_str!("../../../deploy/namespace.yaml"))).await;
    apply(accounts.clone(), &account).await;
    apply::<Role>(Api::namespaced(client.clone(), namespace), &read(role)).await;
    apply::<RoleBinding>(Api::namespaced(client.clone(), namespace), &read(binding)).await;

    let request = TokenRequest {
        spec: TokenRequestSpec { expiration_seconds: Some(3600), ..TokenRequestSpec::default() },
        ..TokenRequest::default()
    };
    let name = account.metadata.name.unwrap();
    let answer = accounts.create_token_request(&name, &PostParams::default(), &request).await.unwrap();
    answer.status.unwrap().token
}

fn read<K: DeserializeOwned>(manifest: &str) -> K {
    serde_saphyr::from_str(manifest).unwrap()
}

async fn apply<K>(api: Api<K>, object: &K)
where
    K: Resource + Clone + Serialize + DeserializeOwned + std::fmt::Debug,
{
    let params = PatchParams::apply("tests").force();
    let name = object.meta().name.clone().unwrap();
    api.patch(&name, &params, &Patch::Apply(object)).await.unwrap();
}

/// The administrator's kubeconfig, with this token in place of the administrator's.
fn kubeconfig(admin: &Path, token: &str) -> String {
    let admin = Kubeconfig::read_from(admin).unwrap();
    let cluster = admin.clusters[0].cluster.clone().unwrap();
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "paddock",
        "clusters": [{"name": "test", "cluster": {
            "server": cluster.server, "certificate-authority": cluster.certificate_authority,
        }}],
        "users": [{"name": "paddock", "user": {"token": token}}],
        "contexts": [{"name": "paddock", "context": {"cluster": "test", "user": "paddock"}}],
    });
    config.to_string()
}
