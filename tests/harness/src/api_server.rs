//! What the tests against a real API server share: a client, the installed definition, and a namespace for each test.

use futures::FutureExt;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, Config, CustomResourceExt, Resource, core::NamespaceResourceScope};
use paddock::api::RunnerScaleSet;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::{
    env,
    fmt::Debug,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::sync::OnceCell;

/// How long anything that the API server does by itself may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// Installs the definition once in a process. Several may do it on one server: what is there already is not changed.
static CRD: OnceCell<()> = OnceCell::const_new();

/// The kubeconfig of the administrator of the API server that all tests share.
pub fn kubeconfig() -> PathBuf {
    env::var_os("PADDOCK_TEST_KUBECONFIG").expect("run `make test`").into()
}

/// A client of the API server that all tests share, as its administrator, with the definition of `RunnerScaleSet`
/// installed.
pub async fn client() -> Client {
    let client = client_of(&kubeconfig()).await;
    CRD.get_or_init(|| install_crd(&client)).await;
    client
}

/// A client of any API server.
pub async fn client_of(kubeconfig: &Path) -> Client {
    // Fails when another test of this process came first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    paddock::controller::client(config).unwrap()
}

/// Installs the definition of `RunnerScaleSet`.
pub async fn install_crd(client: &Client) {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let crd = RunnerScaleSet::crd();
    let name = RunnerScaleSet::crd_name();
    crds.patch(name, &PatchParams::apply("tests").force(), &Patch::Apply(crd)).await.unwrap();
    let established = await_condition(crds, name, conditions::is_crd_established());
    tokio::time::timeout(DEADLINE, established).await.expect("the definition is not established").unwrap();
}

/// Runs a test in a namespace of its own and removes it with all in it, also when the test panics.
pub async fn in_namespace(test: impl AsyncFnOnce(Client, &str)) {
    in_namespace_of(client().await, test).await;
}

/// The same, on any API server.
pub async fn in_namespace_of(client: Client, test: impl AsyncFnOnce(Client, &str)) {
    let namespace = serde_json::from_value(json!({"metadata": {"generateName": "test-"}})).unwrap();
    let created =
        Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
    let name = created.metadata.name.unwrap();
    let outcome = AssertUnwindSafe(test(client.clone(), &name)).catch_unwind().await;
    remove_namespace(&client, &name).await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// Does what the controller manager would, as the server runs without one: empties the namespace and finalizes it.
async fn remove_namespace(client: &Client, name: &str) {
    delete_all::<RunnerScaleSet>(client, name).await;
    delete_all::<Secret>(client, name).await;
    delete_all::<ConfigMap>(client, name).await;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces.delete(name, &DeleteParams::default()).await.unwrap();
    let mut namespace = namespaces.get(name).await.unwrap();
    namespace.spec = None;
    namespaces.replace_subresource("finalize", name, &PostParams::default(), &namespace).await.unwrap();
}

async fn delete_all<K>(client: &Client, namespace: &str)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    api.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
}
