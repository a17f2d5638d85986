//! What the controller may do by the chart: all that it does, and nothing else.

use std::fs;

use harness::{Lab, Manifest, PATIENCE, api_server, github, lab};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};
use testkit::github::{JobSpec, JobStatus};

use crate::helm;

/// The manifests of these kinds.
const RIGHTS: [&str; 5] = ["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"];

/// The account and the roles of a release, not applied.
pub async fn rendered(release: &str, namespace: &str, values: &Value) -> Vec<Value> {
    let objects = helm::objects(release, namespace, values).await;
    objects.into_iter().filter(|object| RIGHTS.contains(&object["kind"].as_str().unwrap())).collect()
}

pub async fn apply(rights: &[Value]) {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": rights}).to_string();
    helm::kubectl(&api_server::kubeconfig(), &["apply", "--filename", "-"], &list).await.unwrap();
}

async fn apply_rights(release: &str, namespace: &str, values: &Value) -> Vec<Value> {
    let rights = rendered(release, namespace, values).await;
    apply(&rights).await;
    rights
}

pub async fn remove(rights: Vec<Value>) {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": rights}).to_string();
    helm::kubectl(&api_server::kubeconfig(), &["delete", "--filename", "-"], &list).await.unwrap();
}

/// The manifests of a file in `deploy/`.
fn deployed(file: &str) -> Vec<Value> {
    let text = fs::read_to_string(format!("{}/deploy/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    text.split("\n---\n").map(|manifest| serde_saphyr::from_str(manifest).unwrap()).collect()
}

/// There are two ways to install, and one set of rights.
#[tokio::test]
async fn the_rights_and_the_resources_are_those_of_the_plain_manifests() {
    let everywhere = helm::objects("paddock", "paddock", &json!({})).await;
    let somewhere =
        helm::objects("paddock", "paddock", &json!({"watchNamespaces": ["ci"], "clusterId": "prod"})).await;
    for (objects, kind, name, file) in [
        (&everywhere, "ClusterRole", "paddock", "rbac.yaml"),
        (&everywhere, "Role", "paddock-leader", "rbac-leader.yaml"),
        (&somewhere, "Role", "paddock", "rbac-namespaced.yaml"),
        (&somewhere, "Role", "paddock-leader", "rbac-leader.yaml"),
    ] {
        assert_eq!(helm::find(objects, kind, name)["rules"], deployed(file)[0]["rules"], "{kind} {name}");
    }
    let plain = &deployed("deployment.yaml")[0]["spec"]["template"]["spec"];
    let pod = &helm::find(&everywhere, "Deployment", "paddock")["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"], plain["securityContext"]);
    for part in [
        "resources",
        "securityContext",
        "startupProbe",
        "livenessProbe",
        "readinessProbe",
        "ports",
        "volumeMounts",
    ] {
        assert_eq!(pod["containers"][0][part], plain["containers"][0][part], "{part}");
    }
}

/// What the account of the release may do in a namespace, a line for each verb, beyond what everyone may.
async fn permitted(account: &str, namespace: &str) -> Vec<String> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": namespace},
    });
    let arguments = [
        "create",
        "--raw",
        "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
        "--filename",
        "-",
        "--as",
        account,
    ];
    let answer = helm::kubectl(&api_server::kubeconfig(), &arguments, &review.to_string()).await.unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let words = |rule: &Value, field: &str| -> Vec<String> {
        let list = rule[field].as_array().cloned().unwrap_or_default();
        list.iter().map(|word| word.as_str().unwrap().to_owned()).collect()
    };
    let mut found = Vec::new();
    for rule in answer["status"]["resourceRules"].as_array().unwrap() {
        let names = words(rule, "resourceNames").join(",");
        for group in words(rule, "apiGroups") {
            for resource in words(rule, "resources") {
                let verbs = words(rule, "verbs");
                found.extend(
                    verbs.iter().map(|verb| format!("{verb} {resource}.{group} {names}").trim().to_owned()),
                );
            }
        }
    }
    found.retain(|right| {
        !right.contains(".authentication.k8s.io") && !right.contains(".authorization.k8s.io")
    });
    found.sort();
    found
}

/// In a namespace that is served.
const SERVED: [&str; 13] = [
    "create events.events.k8s.io",
    "get configmaps.",
    "get runnerscalesets.paddock.dev",
    "get secrets.",
    "list configmaps.",
    "list runnerscalesets.paddock.dev",
    "list secrets.",
    "patch events.events.k8s.io",
    "patch runnerscalesets.paddock.dev",
    "patch runnerscalesets/status.paddock.dev",
    "watch configmaps.",
    "watch runnerscalesets.paddock.dev",
    "watch secrets.",
];
/// In the controller's own.
const HOME: [&str; 3] = [
    "create leases.coordination.k8s.io",
    "get leases.coordination.k8s.io paddock",
    "update leases.coordination.k8s.io paddock",
];
/// Where the identity of the cluster is read.
const IDENTITY: [&str; 1] = ["get namespaces. kube-system"];

fn together(parts: &[&[&str]]) -> Vec<String> {
    let mut all: Vec<String> =
        parts.iter().flat_map(|part| part.iter().map(|right| (*right).to_owned())).collect();
    all.sort();
    all
}

#[tokio::test]
async fn the_account_may_do_what_the_controller_does_and_nothing_else() {
    api_server::in_namespace(async |_, home| {
        api_server::in_namespace(async |_, served| {
            for (values, expected) in [
                (
                    json!({}),
                    [
                        (home, together(&[&SERVED, &IDENTITY, &HOME])),
                        (served, together(&[&SERVED, &IDENTITY])),
                        ("kube-system", together(&[&SERVED, &IDENTITY])),
                    ],
                ),
                (
                    json!({"watchNamespaces": [served]}),
                    [
                        (home, together(&[&HOME])),
                        (served, together(&[&SERVED])),
                        ("kube-system", together(&[&IDENTITY])),
                    ],
                ),
                (
                    json!({"watchNamespaces": [served], "clusterId": "prod"}),
                    [
                        (home, together(&[&HOME])),
                        (served, together(&[&SERVED])),
                        ("kube-system", together(&[])),
                    ],
                ),
            ] {
                let rights = apply_rights(home, home, &values).await;
                let account = format!("system:serviceaccount:{home}:{home}-paddock");
                for (namespace, expected) in expected {
                    assert_eq!(permitted(&account, namespace).await, expected, "{values} in {namespace}");
                }
                remove(rights).await;
            }
        })
        .await;
    })
    .await;
}

/// Has the lab's controllers run as the account of a release of the chart in the lab's namespace, which serves that alone.
async fn become_the_charts_account(lab: &Lab) {
    let values = json!({"watchNamespaces": [lab.namespace], "clusterId": lab.cluster});
    apply_rights("paddock", &lab.namespace, &values).await;
    run_as(lab, "paddock").await;
}

/// Has the lab's controllers run as an account of the lab's namespace.
pub async fn run_as(lab: &Lab, account: &str) {
    let accounts: Api<ServiceAccount> = Api::namespaced(lab.client.clone(), &lab.namespace);
    let request = TokenRequest::default();
    let answer = accounts.create_token_request(account, &PostParams::default(), &request).await.unwrap();
    let kubeconfig = lab.folder().join("kubeconfig");
    let text = fs::read_to_string(&kubeconfig).unwrap();
    fs::write(kubeconfig, text.replace(&lab.token, &answer.status.unwrap().token)).unwrap();
}

/// With the policy that the chart has.
#[tokio::test]
async fn a_scale_set_lives_its_whole_life_by_the_charts_rights() {
    lab("chart-rights", async |lab| {
        let github = github(lab).await;
        become_the_charts_account(lab).await;
        let controller = lab.start_candidate("paddock-0");
        lab.apply(&Manifest::sample(&github.config_url("acme"))).await;
        lab.until_is("linux", "Ready", "True", None).await;
        let job = github.queue_job(JobSpec::new("acme/app", ["linux"]).lasting(std::time::Duration::ZERO));
        github.wait_until(PATIENCE, |s| s.job(job).unwrap().status == JobStatus::Completed).await.unwrap();
        lab.delete("linux").await;
        lab.until_gone("linux", PATIENCE).await;
        assert!(lab.event("linux", "Registered").await.contains("linux"));
        let log = controller.log();
        assert!(!log.to_lowercase().contains("forbidden"), "{log}");
        controller.terminate().await;
    })
    .await;
}
