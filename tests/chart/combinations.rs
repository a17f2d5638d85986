//! Every combination of what can be switched on and off.

use std::collections::BTreeSet;

use futures::{StreamExt, TryStreamExt, stream};
use harness::{api_server, merged};
use serde_json::{Value, json};

use crate::helm;

/// What can be on or off.
const SWITCHES: [&[&str]; 8] = [
    &["admissionPolicy", "enabled"],
    &["crds", "install"],
    &["crds", "keep"],
    &["dashboard", "enabled"],
    &["dockerSocket", "enabled"],
    &["metrics", "prometheusRule", "enabled"],
    &["metrics", "serviceMonitor", "enabled"],
    &["networkPolicy", "enabled"],
];

/// So many processes of Helm at a time.
const AT_ONCE: usize = 4;

/// The values of every combination, with and without a namespace that is watched alone.
fn combinations(namespace: &str) -> Vec<Value> {
    let mut all = vec![json!({"watchNamespaces": []}), json!({"watchNamespaces": [namespace]})];
    for path in SWITCHES {
        let switched = |on: bool| path.iter().rev().fold(json!(on), |value, key| json!({*key: value}));
        let both = |values: Value| [true, false].map(|on| merged(values.clone(), switched(on)));
        all = all.into_iter().flat_map(both).collect();
    }
    all
}

/// What of it an API server without the Prometheus operator has never heard of.
fn is_of_the_prometheus_operator(manifest: &str) -> bool {
    manifest.contains("\napiVersion: monitoring.coreos.com/v1\n")
}

#[tokio::test]
async fn the_api_server_accepts_every_combination() {
    api_server::in_namespace(async |_, namespace| {
        let rendered = stream::iter(combinations(namespace))
            .map(async |values| helm::template("paddock", namespace, &values).await)
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<_>>();
        let all = rendered.await.unwrap();
        assert_eq!(all.len(), 512);
        let most = all.iter().map(Vec::len).max();
        // Most combinations are made of the same manifests.
        let distinct: BTreeSet<String> = all.into_iter().flatten().collect();
        let (known, foreign): (Vec<_>, Vec<_>) =
            distinct.into_iter().partition(|manifest| !is_of_the_prometheus_operator(manifest));
        assert_eq!((most, foreign.len()), (Some(19), 2), "manifests of one combination, and foreign ones");
        let arguments = [
            "apply",
            "--server-side",
            "--force-conflicts",
            "--dry-run=server",
            "--validate=strict",
            "--filename",
            "-",
        ];
        let kubeconfig = api_server::kubeconfig();
        let said = helm::kubectl(&kubeconfig, &arguments, &known.join("\n---\n")).await.unwrap();
        assert_eq!(said.lines().count(), known.len(), "{said}");
    })
    .await;
}

/// As the pods come out of the Deployment, and that of `helm test`.
#[tokio::test]
async fn the_strictest_pod_security_takes_all_pods_but_those_with_the_socket() {
    api_server::in_namespace(async |_, namespace| {
        let kubeconfig = api_server::kubeconfig();
        let strict = ["label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted"];
        helm::kubectl(&kubeconfig, &strict, "").await.unwrap();
        let create = async |pod: &Value| {
            let arguments = ["create", "--dry-run=server", "--validate=strict", "--filename", "-"];
            helm::kubectl(&kubeconfig, &arguments, &pod.to_string()).await
        };
        for socket in [false, true] {
            let values = json!({"dockerSocket": {"enabled": socket}});
            let objects = helm::objects("paddock", namespace, &values).await;
            let template = &helm::find(&objects, "Deployment", "paddock")["spec"]["template"];
            let metadata = json!({"name": "paddock", "namespace": namespace});
            let pod = json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": merged(metadata, template["metadata"].clone()),
                "spec": template["spec"],
            });
            match create(&pod).await {
                Ok(_) => assert!(!socket),
                Err(said) => assert!(
                    socket
                        && said
                            .contains("(volume \"docker-socket\" uses restricted volume type \"hostPath\")"),
                    "{said}"
                ),
            }
            create(helm::find(&objects, "Pod", "paddock-test")).await.unwrap();
        }
    })
    .await;
}

/// A selector that chooses nothing is valid.
#[tokio::test]
async fn what_selects_pods_selects_the_controllers_and_no_other() {
    let all = json!({"networkPolicy": {"enabled": true}, "metrics": {"serviceMonitor": {"enabled": true}}});
    let objects = helm::objects("paddock", "paddock", &all).await;
    let deployment = helm::find(&objects, "Deployment", "paddock");
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    let test = &helm::find(&objects, "Pod", "paddock-test")["metadata"]["labels"];
    let selects = |selector: &Value, labels: &Value| {
        let selector = selector.as_object().unwrap();
        !selector.is_empty() && selector.iter().all(|(key, value)| labels[key] == *value)
    };
    let spread = &deployment["spec"]["template"]["spec"]["topologySpreadConstraints"][0];
    for selector in [
        &deployment["spec"]["selector"]["matchLabels"],
        &spread["labelSelector"]["matchLabels"],
        &helm::find(&objects, "Service", "paddock")["spec"]["selector"],
        &helm::find(&objects, "PodDisruptionBudget", "paddock")["spec"]["selector"]["matchLabels"],
        &helm::find(&objects, "NetworkPolicy", "paddock")["spec"]["podSelector"]["matchLabels"],
    ] {
        assert!(selects(selector, labels) && !selects(selector, test), "{selector}");
    }
    let from = &helm::find(&objects, "NetworkPolicy", "paddock")["spec"]["ingress"][0]["from"];
    assert!(selects(&from[1]["podSelector"]["matchLabels"], test), "{from}");
    let monitor = helm::find(&objects, "ServiceMonitor", "paddock");
    let service = helm::find(&objects, "Service", "paddock");
    assert!(selects(&monitor["spec"]["selector"]["matchLabels"], &service["metadata"]["labels"]));
    assert_eq!(monitor["spec"]["endpoints"][0]["port"], service["spec"]["ports"][0]["name"]);
    assert_eq!(deployment["spec"]["template"]["spec"]["serviceAccountName"], "paddock");
}
