//! `paddock check --connect`: tries what manifests name, and changes nothing at GitHub.

use harness::{IMAGE, Lab, Manifest, github, lab, merged};
use serde_json::{Value, json};
use testkit::ecs::Operation;
use testkit::github::{Endpoint, SimGithub};

use super::{STRICT, ecs, of_ecs, paddock};

/// The lines about manifests.
async fn check(lab: &Lab, manifests: &[&Manifest]) -> (Option<i32>, Vec<Value>) {
    let texts: Vec<String> = manifests.iter().map(|manifest| manifest.0.to_string()).collect();
    let arguments = ["check", "--connect", "-f", "-"];
    let (code, printed) = paddock(lab, &arguments, &texts.join("\n---\n")).await;
    (code, printed["checks"].as_array().unwrap().clone())
}

fn says(lines: &[Value], ok: bool, field: &str, text: &str) -> bool {
    let is = |line: &Value| {
        line["ok"] == ok && line["field"] == field && line["message"].as_str().unwrap().contains(text)
    };
    lines.iter().any(is)
}

/// A sample of `deploy/`, pointed at a GitHub of the tests.
fn sample(text: &str, github: &SimGithub) -> Manifest {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    let scale_set = documents.into_iter().find(|document| document["kind"] == "RunnerScaleSet").unwrap();
    Manifest(scale_set).spec(json!({
        "github": {"url": github.config_url("acme"), "allowInsecure": true, "credentialsSecretRef": {"name": "github"}},
    }))
}

#[tokio::test]
async fn the_samples_are_all_green_against_the_testkit() {
    lab("check-samples", async |lab| {
        let (github, ecs) = (github(lab).await, ecs(lab).await);
        let macs = lab.macs(1, |_| {}).await;
        let docker = sample(include_str!("../../deploy/samples/docker.yaml"), &github);
        let docker = docker.docker(json!({"image": IMAGE}));
        let office = sample(include_str!("../../deploy/samples/schedules.yaml"), &github);
        let office = office.docker(json!({"image": IMAGE}));
        let app = sample(include_str!("../../deploy/samples/docker-app.yaml"), &github);
        let app = app.docker(json!({"image": IMAGE, "imagePullSecretRef": null}));
        let mut fargate = sample(include_str!("../../deploy/samples/ecs-fargate.yaml"), &github);
        let block = &mut fargate.0["spec"]["backends"][0]["ecs"];
        *block = merged(block.take(), json!({"region": ecs.region(), "endpointUrl": ecs.url()}));
        let macos = Manifest::tart(&github.config_url("acme"), &macs);
        let (code, lines) = check(lab, &[&docker, &office, &app, &fargate, &macos]).await;
        assert_eq!(code, Some(0), "{lines:#?}");

        for (field, text) in [
            ("spec.github.credentialsSecretRef", "GitHub takes the credentials"),
            ("spec.github.runnerGroup", "is there"),
            ("spec.scaleSetName", "the name macos is free"),
            ("spec.backends[docker].docker.hosts[local]", "Docker 2"),
            ("spec.backends[macs].tart.hosts[mac-1]", "Tart 2.35.0; the image is there"),
            ("spec.backends[aws].ecs.cluster", "no task definition"),
        ] {
            assert!(says(&lines, true, field, text), "{field}: {text}: {lines:#?}");
        }
        assert_eq!(github.look(|s| s.scale_sets().count()), 0, "nothing is created at GitHub");
        assert_eq!(github.requests(Endpoint::OpenSession).len(), 0);
        assert_eq!(ecs.requests(Operation::RegisterTaskDefinition).len(), 0, "nor at AWS");
        assert!(lab.sets().list(&Default::default()).await.unwrap().items.is_empty(), "nor in the cluster");
    })
    .await;
}

#[tokio::test]
async fn what_the_controller_would_fail_at_is_told_of_the_field() {
    lab("check-faults", async |lab| {
        let (github, ecs) = (github(lab).await, ecs(lab).await);
        lab.secret("wrong", [("github_token", "ghp_wrong")]).await;
        let sample = || Manifest::sample(&github.config_url("acme"));
        let lost = json!({"hosts": [{"name": "far", "endpoint": "tcp://127.0.0.1:9"}]});
        let absent = json!({"image": "paddock.test/absent:1", "pullPolicy": "Never"});
        github.create_scale_set("acme", "taken").unwrap();
        let manifests = [
            sample().named("a").spec(json!({"github": {"credentialsSecretRef": {"name": "wrong"}}})),
            sample().named("b").spec(json!({"github": {"credentialsSecretRef": {"name": "missing"}}})),
            sample().named("c").spec(json!({"github": {"runnerGroup": "nowhere"}})),
            sample().named("taken"),
            sample().named("e").docker(lost),
            sample().named("f").docker(absent),
            sample().named("g").spec(json!({"backends": [of_ecs(&ecs, json!({"cluster": "nowhere"}))]})),
            sample().named("h").spec(json!({"backends": [of_ecs(&ecs,
                json!({"managedTaskDefinition": null, "taskDefinition": "nothing:1"}))]})),
        ];
        let (code, lines) = check(lab, &manifests.each_ref()).await;
        assert_eq!(code, Some(1));
        let backend = manifests[4].0["spec"]["backends"][0]["name"].as_str().unwrap();
        let host = |host: &str| format!("spec.backends[{backend}].docker.hosts[{host}]");
        for (name, field, text) in [
            ("a", "spec.github.credentialsSecretRef".to_owned(), "rejected"),
            ("b", "spec.github.credentialsSecretRef".to_owned(), "does not exist"),
            ("c", "spec.github.runnerGroup".to_owned(), "nowhere"),
            ("taken", "spec.scaleSetName".to_owned(), "not this object's"),
            ("e", host("far"), ""),
            ("f", host("local"), "paddock.test/absent:1"),
            ("g", "spec.backends[aws].ecs.cluster".to_owned(), ""),
            ("h", "spec.backends[aws].ecs.cluster".to_owned(), "nothing:1"),
        ] {
            let object = format!("RunnerScaleSet {name}");
            let of_object: Vec<Value> =
                lines.iter().filter(|line| line["object"] == object).cloned().collect();
            assert!(says(&of_object, false, &field, text), "{name}, {field}: {of_object:#?}");
            assert_eq!(of_object.iter().filter(|line| line["ok"] == false).count(), 1, "{of_object:#?}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_the_policy_does_not_permit_is_not_connected_to() {
    lab("check-policy", async |lab| {
        let github = github(lab).await;
        let manifest = Manifest::sample(&github.config_url("acme"));
        let arguments = ["check", "--connect", "-f", "-", STRICT];
        let (code, printed) = paddock(lab, &arguments, &manifest.0.to_string()).await;
        let lines = printed["checks"].as_array().unwrap();
        assert!(
            code == Some(1) && says(lines, false, "spec.github.allowInsecure", "insecureHttp"),
            "{lines:#?}"
        );

        lab.apply(&manifest).await;
        let lease = format!("--lease-namespace={}", lab.namespace);
        let (_, printed) = paddock(lab, &["doctor", &lease, STRICT], "").await;
        let findings = printed["findings"].as_array().unwrap();
        assert!(findings.iter().any(|finding| finding["kind"] == "NotPermitted"), "{findings:#?}");
        assert_eq!(github.requests(Endpoint::RegistrationToken).len(), 0, "neither connects");
    })
    .await;
}
