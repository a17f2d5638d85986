//! The values: what they may be, and what comes of them.

use paddock::api::OperatorPolicy;
use serde_json::{Value, json};

use crate::helm::{self, CHART};

/// The values that the schema refuses, and the field that it names.
fn bad() -> Vec<(Value, &'static str)> {
    vec![
        (json!({"replicas": 2}), "additional properties 'replicas'"),
        (json!({"replicaCount": -1}), "'/replicaCount'"),
        (json!({"replicaCount": "two"}), "'/replicaCount'"),
        (json!({"image": {"tag": ["1"]}}), "'/image/tag'"),
        (json!({"image": {"repository": "registry.example.com/paddock:1"}}), "'/image/repository'"),
        (json!({"image": {"pullPolicy": "Sometimes"}}), "'/image/pullPolicy'"),
        (json!({"watchNamespaces": "ci"}), "'/watchNamespaces'"),
        (json!({"watchNamespaces": ["CI"]}), "'/watchNamespaces/0'"),
        (json!({"watchNamespaces": ["ci", "ci"]}), "'/watchNamespaces'"),
        (json!({"dockerSocket": {"enabled": "yes"}}), "'/dockerSocket/enabled'"),
        (json!({"dockerSocket": {"gid": -1}}), "'/dockerSocket/gid'"),
        (json!({"policy": {"rules": [{"hostsocket": true}]}}), "'/policy/rules/0'"),
        (json!({"policy": {"rules": [{"networks": "*"}]}}), "'/policy/rules/0/networks'"),
        (
            json!({"policy": {"hosts": [{"endpoint": "local", "maxRunners": -1}]}}),
            "'/policy/hosts/0/maxRunners'",
        ),
        (json!({"policy": {"hosts": [{"maxRunners": 1}]}}), "missing property 'endpoint'"),
        (json!({"crds": {"keep": "true"}}), "'/crds/keep'"),
        (json!({"serviceAccount": {"annotations": {"a": 1}}}), "'/serviceAccount/annotations/a'"),
        (json!({"metrics": {"serviceMonitor": {"interval": "often"}}}), "'/metrics/serviceMonitor/interval'"),
        (json!({"resources": {"limit": {"memory": "1Gi"}}}), "additional properties 'limit'"),
        (json!({"extraEnv": [{"value": "x"}]}), "'/extraEnv/0'"),
        (json!({"resources": {"limits": {"memory": "plenty"}}}), "'/resources/limits/memory'"),
        (json!({"extraArgs": "--log-level=debug"}), "'/extraArgs'"),
        (json!({"logFormat": "xml"}), "'/logFormat'"),
    ]
}

#[tokio::test]
async fn the_schema_refuses_what_is_no_value_and_names_the_field() {
    for (values, field) in bad() {
        let said = helm::template("paddock", "paddock", &values).await.expect_err(&values.to_string());
        assert!(said.contains("values don't meet the specifications of the schema"), "{values}: {said}");
        assert!(said.contains(field), "{values}: {said}");
    }
}

#[tokio::test]
async fn a_tag_is_a_text_also_where_yaml_reads_a_number() {
    for (tag, image) in [
        (json!(""), "registry.example.com/paddock:0.1.0"),
        (json!(1), "registry.example.com/paddock:1"),
        (json!(20_260_101), "registry.example.com/paddock:20260101"),
        (json!(1.5), "registry.example.com/paddock:1.5"),
        (json!("1"), "registry.example.com/paddock:1"),
        (json!("0.1.0@sha256:00"), "registry.example.com/paddock:0.1.0@sha256:00"),
    ] {
        let objects = helm::objects("paddock", "paddock", &json!({"image": {"tag": tag}})).await;
        let container =
            &helm::find(&objects, "Deployment", "paddock")["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["image"], image);
    }
}

/// The document that the controller reads.
fn policy(objects: &[Value]) -> OperatorPolicy {
    let document = &helm::find(objects, "ConfigMap", "-policy")["data"]["policy.yaml"];
    OperatorPolicy::from_yaml(document.as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn the_default_policy_is_the_controllers_and_another_takes_its_place() {
    let default = helm::objects("paddock", "paddock", &json!({})).await;
    assert_eq!(policy(&default), OperatorPolicy::default());
    for left_out in [json!({"policy": null}), json!({"policy": {"rules": null}})] {
        let objects = helm::objects("paddock", "paddock", &left_out).await;
        assert_eq!(policy(&objects), OperatorPolicy::default(), "{left_out}");
        let admission = |objects| helm::find(objects, "ValidatingAdmissionPolicy", "paddock")["spec"].clone();
        assert_eq!(admission(&objects), admission(&default), "{left_out}");
    }
    let other = json!({
        "rules": [{"namespaces": ["ci"], "hostSocket": true}],
        "hosts": [{"endpoint": "unix:///var/run/docker.sock", "maxRunners": 1_000_000}],
    });
    let objects = helm::objects("paddock", "paddock", &json!({"policy": other})).await;
    assert_eq!(policy(&objects), OperatorPolicy::from_yaml(&other.to_string()).unwrap());
}

#[tokio::test]
async fn what_is_extra_reaches_the_pod() {
    let values = json!({
        "extraArgs": ["--metrics-listen=0.0.0.0:9090"],
        "extraEnv": [{"name": "AWS_REGION", "value": "eu-west-1"}],
        "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
        "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/ssl/certs"}],
        "nodeSelector": {"paddock.dev/docker": ""},
        "tolerations": [{"key": "docker", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "resources": {"limits": {"memory": "1Gi"}, "requests": null},
        "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/paddock"}},
        "dockerSocket": {"enabled": true, "gid": 998},
        "watchNamespaces": ["ci", "lab"],
        "clusterId": "prod",
    });
    let objects = helm::objects("build", "paddock", &values).await;
    let pod = &helm::find(&objects, "Deployment", "build-paddock")["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let arguments: Vec<&str> =
        container["args"].as_array().unwrap().iter().map(|a| a.as_str().unwrap()).collect();
    let last = [
        "--watch-namespace=ci",
        "--watch-namespace=lab",
        "--cluster-id=prod",
        "--metrics-listen=0.0.0.0:9090",
    ];
    assert_eq!(arguments[arguments.len() - 4..], last);
    assert_eq!(container["env"][2], values["extraEnv"][0]);
    assert_eq!(container["resources"], json!({"limits": {"memory": "1Gi"}}));
    assert_eq!(
        container["volumeMounts"][1],
        json!({"name": "docker-socket", "mountPath": "/host/run", "readOnly": true,
            "recursiveReadOnly": "IfPossible"})
    );
    assert_eq!(container["volumeMounts"][2], values["extraVolumeMounts"][0]);
    assert_eq!(pod["volumes"][2], values["extraVolumes"][0]);
    assert_eq!(pod["securityContext"]["supplementalGroups"], json!([998]));
    for part in ["nodeSelector", "tolerations", "affinity"] {
        assert_eq!(pod[part], values[part], "{part}");
    }
    let account = helm::find(&objects, "ServiceAccount", "build-paddock");
    assert_eq!(account["metadata"]["annotations"], values["serviceAccount"]["annotations"]);
}

/// It ends for the lack of a cluster, and not with the code 2 of a usage that it does not know.
#[tokio::test]
async fn the_program_understands_what_the_pod_gives_it() {
    let values = json!({
        "watchNamespaces": ["ci", "lab"], "clusterId": "prod", "extraArgs": ["--log-level=debug", "--listen=127.0.0.1:0"],
    });
    let objects = helm::objects("paddock", "paddock", &values).await;
    let container =
        &helm::find(&objects, "Deployment", "paddock")["spec"]["template"]["spec"]["containers"][0];
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let env = container["env"].as_array().unwrap().iter().map(|v| (text(&v["name"]), text(&v["value"])));
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_paddock"))
        .args(container["args"].as_array().unwrap().iter().map(text))
        .arg("--kubeconfig=/nowhere")
        .envs(env)
        .output();
    let output = output.await.unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The paths of all values, as deep as the README tells of them.
fn paths(values: &Value, path: &str, found: &mut Vec<String>) {
    /// Maps that are free, or Kubernetes' own.
    const WHOLE: [&str; 6] = [
        "resources",
        "nodeSelector",
        "affinity",
        "serviceAccount.annotations",
        "dashboard.labels",
        "policy.rules",
    ];
    match values.as_object() {
        Some(fields) if !WHOLE.contains(&path) && !fields.is_empty() => {
            fields.iter().for_each(|(name, field)| {
                paths(field, format!("{path}.{name}").trim_start_matches('.'), found)
            });
        }
        _ => found.push(path.to_owned()),
    }
}

#[test]
fn every_value_has_its_row_in_the_readme_and_every_row_its_value() {
    let read = |file: &str| std::fs::read_to_string(format!("{CHART}/{file}")).unwrap();
    let mut found = Vec::new();
    paths(&serde_saphyr::from_str(&read("values.yaml")).unwrap(), "", &mut found);
    let readme = read("README.md");
    let rows: Vec<&str> =
        readme.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).map(|r| r.0).collect();
    found.sort();
    let mut sorted = rows.clone();
    sorted.sort_unstable();
    assert_eq!(found, sorted);
}
