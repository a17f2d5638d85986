//! The definition of `RunnerScaleSet` in a real API server: what it refuses, fills in, and serves.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use axum::http::Request;
use harness::api_server::{client, in_namespace};
use harness::merged;
use kube::api::{Patch, PatchParams, PostParams, ValidationDirective};
use kube::core::{CustomResourceExt, Status};
use kube::{Api, Client};
use paddock::api::{BackendType, RunnerScaleSet, RunnerScaleSetStatus, validate};
use paddock::convert::{Source, convert};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;

/// The least that is accepted, with changes merged in.
fn manifest(changes: Value) -> Value {
    let least = json!({
        "apiVersion": "paddock.dev/v1alpha1",
        "kind": "RunnerScaleSet",
        "metadata": {"name": "linux"},
        "spec": {
            "github": {"url": "https://github.com/acme", "credentialsSecretRef": {"name": "github"}},
            "backends": [{"name": "rack", "docker": {}}],
        },
    });
    merged(least, changes)
}

fn spec(spec: Value) -> Value {
    manifest(json!({"spec": spec}))
}

fn backend(backend: Value) -> Value {
    spec(json!({"backends": [merged(json!({"name": "one"}), backend)]}))
}

/// A rule: the field that its refusal is about, words of its message, what it accepts and what it refuses.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Refusal {
    field: String,
    says: String,
    valid: Value,
    invalid: Value,
}

/// The refusals for one part of the manifest: the part's path, the refusals, and how to put a value there.
fn refusals(part: &str) -> (&'static str, Vec<Refusal>, fn(Value) -> Value) {
    let table = include_str!("support/refusals.yaml");
    let refusals =
        serde_saphyr::from_str::<HashMap<String, Vec<Refusal>>>(table).unwrap().remove(part).unwrap();
    let (path, wrap): (_, fn(Value) -> Value) = match part {
        "spec" => ("spec", spec),
        "github" => ("spec.github", |part| spec(json!({"github": part}))),
        "schedule" => ("spec.schedules[0]", |part| {
            let office = json!({"name": "office", "start": "0 8 * * 1-5", "end": "0 19 * * 1-5"});
            spec(json!({"schedules": [merged(office, part)]}))
        }),
        "backend" => ("spec.backends[0]", backend),
        "docker" => ("spec.backends[0].docker", |part| backend(json!({"docker": part}))),
        "dockerHost" => ("spec.backends[0].docker.hosts[0]", |part| {
            let host = merged(json!({"name": "one", "endpoint": "unix:///a.sock"}), part);
            backend(json!({"docker": {"hosts": [host]}}))
        }),
        "tart" => {
            ("spec.backends[0].tart", |part| backend(json!({"tart": merged(json!({"image": "i"}), part)})))
        }
        "tartHost" => ("spec.backends[0].tart.hosts[0]", |part| {
            let host = merged(json!({"name": "one", "endpoint": "local"}), part);
            backend(json!({"tart": {"image": "i", "hosts": [host]}}))
        }),
        "ecs" => ("spec.backends[0].ecs", |part| {
            let ecs = json!({"region": "eu-west-1", "cluster": "runners", "taskDefinition": "runner:7"});
            backend(json!({"ecs": merged(ecs, part)}))
        }),
        "fargate" => ("spec.backends[0].ecs.managedTaskDefinition", |part| {
            backend(json!({"ecs": {"region": "eu-west-1", "cluster": "runners", "launchType": "FARGATE",
                "subnets": ["subnet-1"], "managedTaskDefinition": part}}))
        }),
        other => panic!("nothing is called {other}"),
    };
    (path, refusals, wrap)
}

/// Creates as `kubectl apply` does, refusing unknown fields, but without storing anything; what would be stored.
async fn try_create(client: &Client, manifest: &Value) -> Result<Value, Box<Status>> {
    let uri =
        "/apis/paddock.dev/v1alpha1/namespaces/default/runnerscalesets?dryRun=All&fieldValidation=Strict";
    let request = Request::post(uri).header("Content-Type", "application/json");
    match client.request(request.body(manifest.to_string().into()).unwrap()).await {
        Ok(stored) => Ok(stored),
        Err(kube::Error::Api(status)) => Err(status),
        Err(error) => panic!("{error}"),
    }
}

fn apply() -> PatchParams {
    PatchParams { field_validation: Some(ValidationDirective::Strict), ..PatchParams::apply("tests") }
}

fn assert_refused(status: &Status, field: &str, says: &str) {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let ours = causes.filter(|cause| cause.field == field && cause.message.contains(says));
    assert_eq!((status.is_invalid(), ours.count()), (true, 1), "{field}, {says}: {status:?}");
}

/// What judges without an API server names the same field in the same words.
fn assert_refused_offline(manifest: &Value, field: &str, says: &str) {
    let found = validate(manifest).expect_err(field);
    let ours = found.iter().filter(|invalid| invalid.field == field && invalid.message.contains(says));
    assert_eq!(ours.count(), 1, "{field}, {says}: {found:?}");
}

async fn refuses(part: &str) {
    let client = client().await;
    let (path, refusals, wrap) = refusals(part);
    for Refusal { field, says, valid, invalid } in refusals {
        let field = format!("{path}.{field}");
        let field = field.trim_end_matches('.');
        if let Err(status) = try_create(&client, &wrap(valid.clone())).await {
            panic!("{field}, {says}: the valid one is refused: {}", status.message);
        }
        validate(&wrap(valid)).unwrap_or_else(|found| panic!("{field}, {says}: refused offline: {found:?}"));
        match try_create(&client, &wrap(invalid.clone())).await {
            Ok(_) => panic!("{field}, {says}: the invalid one is admitted"),
            Err(status) => assert_refused(&status, field, &says),
        }
        assert_refused_offline(&wrap(invalid), field, &says);
    }
}

#[tokio::test]
async fn refuses_a_wrong_spec() {
    refuses("spec").await;
}

#[tokio::test]
async fn refuses_a_wrong_github() {
    refuses("github").await;
}

#[tokio::test]
async fn refuses_a_wrong_schedule() {
    refuses("schedule").await;
}

#[tokio::test]
async fn refuses_a_wrong_backend() {
    refuses("backend").await;
}

#[tokio::test]
async fn refuses_a_wrong_docker() {
    refuses("docker").await;
    refuses("dockerHost").await;
}

#[tokio::test]
async fn refuses_a_wrong_tart() {
    refuses("tart").await;
    refuses("tartHost").await;
}

#[tokio::test]
async fn takes_every_sample() {
    let client = client().await;
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/samples");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let manifests: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        let scale_sets: Vec<_> = manifests.iter().filter(|m| m["kind"] == "RunnerScaleSet").collect();
        assert!(!scale_sets.is_empty(), "{}", path.display());
        for manifest in scale_sets {
            if let Err(status) = try_create(&client, manifest).await {
                panic!("{}: {status:?}", path.display());
            }
        }
    }
}

#[tokio::test]
async fn takes_what_is_converted() {
    let client = client().await;
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/convert");
    // What ecs-arc has from its environment: without it the manifests have words to be replaced, which apply too.
    let environment = |variable: &str| (variable == "GITHUB_ORG").then(|| "acme".to_owned());
    for (source, sample, sets) in [
        (Source::Runscaler, "runscaler.toml", 4),
        (Source::Runscaler, "runscaler-single.toml", 1),
        (Source::EcsArc, "ecs-arc.toml", 6),
        (Source::EcsArc, "ecs-arc-matrix.toml", 51),
        (Source::Arc, "arc.yaml", 2),
        (Source::Arc, "arc-values.yaml", 1),
    ] {
        let text = std::fs::read_to_string(format!("{folder}/{sample}")).unwrap();
        let converted = convert(source, &text, environment).unwrap();
        let manifests: Vec<Value> = serde_saphyr::from_multiple(&converted).unwrap();
        assert_eq!(manifests.len(), sets, "{sample}");
        for mut manifest in manifests {
            // The API server of the tests has no namespace of the samples.
            manifest["metadata"].as_object_mut().unwrap().remove("namespace");
            let name = manifest["metadata"]["name"].as_str().unwrap().to_owned();
            if let Err(status) = try_create(&client, &manifest).await {
                panic!("{sample}, {name}: {status:?}");
            }
            let params = PatchParams { dry_run: true, ..apply() };
            let sets: Api<RunnerScaleSet> = Api::default_namespaced(client.clone());
            let applied = sets.patch(&name, &params, &Patch::Apply(&manifest)).await.unwrap();
            assert_eq!(
                applied.spec,
                typed(&manifest).spec,
                "{sample}, {name}: the defaults left out are filled in"
            );
        }
    }
}

#[tokio::test]
async fn refuses_a_wrong_ecs() {
    refuses("ecs").await;
    refuses("fargate").await;
}

#[tokio::test]
async fn refuses_a_long_name_wherever_it_comes_from() {
    let client = client().await;
    let long = |length| "a".repeat(length);
    let named = |length, spec| manifest(json!({"metadata": {"name": long(length)}, "spec": spec}));
    try_create(&client, &named(45, json!({}))).await.unwrap();
    let status = try_create(&client, &named(46, json!({}))).await.unwrap_err();
    assert!(status.message.contains("metadata.name is longer than 45 characters"), "{status:?}");
    try_create(&client, &named(46, json!({"scaleSetName": long(45)}))).await.unwrap();
    let status = try_create(&client, &spec(json!({"scaleSetName": long(46)}))).await.unwrap_err();
    assert_refused(&status, "spec.scaleSetName", "may not be more than 45");

    try_create(&client, &spec(json!({"labels": [long(255)]}))).await.unwrap();
    let status = try_create(&client, &spec(json!({"labels": [long(256)]}))).await.unwrap_err();
    assert_refused(&status, "spec.labels[0]", "may not be more than 255");
}

#[tokio::test]
async fn refuses_a_field_that_there_is_not() {
    let status = try_create(&client().await, &spec(json!({"minRuners": 1}))).await.unwrap_err();
    assert!(status.message.contains("unknown field \"spec.minRuners\""), "{status:?}");
}

#[tokio::test]
async fn refuses_another_url_later() {
    in_namespace(async |client, namespace| {
        let sets: Api<RunnerScaleSet> = Api::namespaced(client, namespace);
        sets.patch("linux", &apply(), &Patch::Apply(manifest(json!({})))).await.unwrap();
        let moved = spec(json!({"github": {"url": "https://github.com/other"}}));
        let Err(kube::Error::Api(status)) = sets.patch("linux", &apply(), &Patch::Apply(moved)).await else {
            panic!("another url is admitted");
        };
        assert!(status.message.contains("spec.github.url cannot be changed"), "{status:?}");
        sets.patch("linux", &apply(), &Patch::Apply(spec(json!({"maxRunners": 3})))).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn fills_in_the_defaults_that_the_types_have() {
    let bare = spec(json!({"timeouts": {"job": "1h"}}));
    let mut stored = stored(&bare).await;
    let backends = stored["spec"]["backends"].take();
    let mut expected = as_the_types_have_it(&bare);
    expected["backends"].take();
    assert_eq!(stored["spec"], expected);

    let spec = &stored["spec"];
    assert_eq!((&spec["minRunners"], &spec["maxRunners"]), (&json!(0), &json!(10)));
    assert_eq!(spec["timeouts"], json!({"idle": "0s", "job": "1h", "lifetime": "0s", "drain": "2h"}));
    assert_eq!(spec["scaleDown"], json!({"delay": "60s"}));
    assert_eq!(spec["disruption"], json!({"maxUnavailable": "25%"}));
    assert_eq!(backends, bare["spec"]["backends"]);
}

/// `kubectl apply` and Argo CD compare lists as they are written with lists as they are stored.
#[tokio::test]
async fn stores_the_items_of_lists_as_they_are_written_and_reads_their_defaults() {
    let bare = spec(json!({
        "schedules": [{"name": "office", "start": "0 8 * * 1-5", "end": "0 19 * * 1-5", "minRunners": 1}],
        "backends": [
            {"name": "rack", "docker": {"sharedVolume": {"mountPath": "/shared"}, "housekeeping": {"buildx": {"enabled": false}}}},
            {"name": "macs", "tart": {"image": "i"}},
            {"name": "aws", "ecs": {"region": "eu-west-1", "cluster": "c", "taskDefinition": "runner"}},
            {"name": "spot", "ecs": {"region": "eu-west-1", "cluster": "c", "managedTaskDefinition": {}, "subnets": ["subnet-1"],
                "capacityProviders": [{"name": "FARGATE_SPOT"}]}},
        ],
    }));
    let stored = stored(&bare).await;
    for list in ["schedules", "backends"] {
        assert_eq!(stored["spec"][list], bare["spec"][list]);
    }

    let read = as_the_types_have_it(&stored);
    assert_eq!(read["schedules"][0]["timeZone"], "UTC");
    assert_eq!(
        read["backends"][0]["docker"]["housekeeping"],
        json!({
            "buildx": {"enabled": false, "maxAge": "24h"},
            "images": {"enabled": true},
            "buildCache": {"enabled": true, "budget": "50Gi"},
            "diskGuard": {"enabled": true, "minFree": "10%", "targetFree": "20%"},
            "interval": "6h",
        })
    );
    assert_eq!(
        read["backends"][0]["docker"]["hosts"],
        json!([{"name": "local", "endpoint": "unix:///var/run/docker.sock"}])
    );
    assert_eq!(
        read["backends"][1]["tart"]["hosts"],
        json!([{"name": "local", "endpoint": "local", "maxVms": 2, "tartHome": ""}])
    );
    assert_eq!(
        read["backends"][3]["ecs"]["capacityProviders"],
        json!([{"name": "FARGATE_SPOT", "weight": 1, "base": 0}])
    );
}

#[tokio::test]
async fn takes_null_for_absent() {
    let mut nulls = manifest(json!({}));
    for (path, null) in [
        ("/spec", "maxRunners"),
        ("/spec", "scaleSetName"),
        ("/spec/github", "proxy"),
        ("/spec/backends/0", "tart"),
        ("/spec/backends/0", "maxRunners"),
        ("/spec/backends/0/docker", "image"),
        ("/spec/backends/0/docker", "user"),
    ] {
        nulls.pointer_mut(path).unwrap()[null] = Value::Null;
    }
    nulls["spec"]["timeouts"] = json!({"start": null, "job": null});
    nulls["spec"]["disruption"] = json!({"maxUnavailable": null});
    nulls["spec"]["backends"][0]["docker"]["resources"] = json!({"cpu": null});
    let (nulls, without) = (stored(&nulls).await, stored(&manifest(json!({}))).await);
    assert_eq!(as_the_types_have_it(&nulls), as_the_types_have_it(&without));
}

#[tokio::test]
async fn keeps_every_field_as_the_types_have_it() {
    let full = full_manifest();
    let stored = stored(&full).await;
    assert_eq!(stored["spec"], full["spec"], "the example gives every field, so there is nothing to fill in");
    assert_eq!(stored["spec"], as_the_types_have_it(&full));
}

#[tokio::test]
async fn server_side_apply_leaves_no_default_behind() {
    in_namespace(async |client, namespace| {
        let sets: Api<RunnerScaleSet> = Api::namespaced(client, namespace);
        let bare = manifest(json!({}));
        let created = sets.patch("linux", &apply(), &Patch::Apply(&bare)).await.unwrap();
        let again = sets.patch("linux", &apply(), &Patch::Apply(&bare)).await.unwrap();
        assert_eq!(created.spec, again.spec, "an empty docker stays");

        let host = json!({"name": "other", "endpoint": "unix:///other.sock"});
        let moved = spec(json!({"backends": [{"name": "rack", "docker": {"hosts": [host]}}]}));
        let moved = sets.patch("linux", &apply(), &Patch::Apply(moved)).await.unwrap();
        let hosts = &moved.spec.backends[0].docker.as_ref().unwrap().hosts;
        assert_eq!(hosts.iter().map(|host| host.name.as_str()).collect::<Vec<_>>(), ["other"]);

        let managed = json!({"region": "eu-west-1", "cluster": "c", "managedTaskDefinition": {}, "subnets": ["subnet-1"]});
        let ecs = spec(json!({"backends": [{"name": "rack", "ecs": managed}]}));
        for _ in 0..2 {
            let set = sets.patch("linux", &apply(), &Patch::Apply(&ecs)).await.unwrap();
            assert_eq!(set.spec.backends[0].kind(), Some(BackendType::Ecs));
        }
    })
    .await;
}

#[tokio::test]
async fn scales_min_runners() {
    in_namespace(async |client, namespace| {
        let sets: Api<RunnerScaleSet> = Api::namespaced(client, namespace);
        sets.create(&PostParams::default(), &typed(&manifest(json!({})))).await.unwrap();
        let status = json!({"status": {"currentRunners": 2}});
        sets.patch_status("linux", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();

        let three = Patch::Merge(json!({"spec": {"replicas": 3}}));
        sets.patch_scale("linux", &PatchParams::default(), &three).await.unwrap();
        assert_eq!(sets.get("linux").await.unwrap().spec.min_runners, 3);
        let scale = sets.get_scale("linux").await.unwrap();
        assert_eq!((scale.spec.unwrap().replicas, scale.status.unwrap().replicas), (Some(3), 2));

        let too_many = Patch::Merge(json!({"spec": {"replicas": 11}}));
        let refusal = sets.patch_scale("linux", &PatchParams::default(), &too_many).await.unwrap_err();
        assert!(refusal.to_string().contains("spec.minRunners must not be greater"), "{refusal}");
    })
    .await;
}

/// A status with everything in it, but for what is absent while all is well.
fn full_status() -> Value {
    let time = "2026-11-22T05:00:00Z";
    json!({
        "observedGeneration": 1,
        "scaleSetId": 12,
        "scaleSetName": "linux",
        "labels": ["linux", "x64"],
        "desiredRunners": 7,
        "currentRunners": 6,
        "pendingRunners": 1,
        "idleRunners": 2,
        "busyRunners": 3,
        "activeSchedule": "office",
        "session": {"id": "6f1d", "owner": "paddock-0", "since": time},
        "demand": {"assignedJobs": 5, "runningJobs": 3, "availableJobs": 0, "observedAt": time},
        "backends": [{
            "name": "rack", "type": "docker", "currentRunners": 6, "warm": 1, "message": "full", "backoffUntil": time,
            "hosts": [{"name": "rack-1", "ready": true, "currentRunners": 6, "freeSlots": 10, "message": "slow"}],
        }],
        "runners": [{
            "name": "linux-k3x9q2f7", "phase": "Busy", "backend": "rack", "host": "rack-1", "instanceId": "9f3c",
            "since": time, "outdated": false,
            "job": {"repository": "acme/app", "workflowRef": "w", "runId": 9_999_999_999_u64, "displayName": "build", "id": "j"},
        }],
        "runnersOmitted": 4,
        "recentFailures": [{
            "runner": "linux-aaaaaaaa", "backend": "rack", "host": "rack-1", "reason": "StartTimeout", "exitCode": 7,
            "message": "not up within 5m", "time": time,
        }],
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "AsExpected", "message": "", "lastTransitionTime": time,
            "observedGeneration": 1,
        }],
    })
}

/// What the controller does: force-applies the whole status, and nothing else.
async fn apply_status(sets: &Api<RunnerScaleSet>, status: &RunnerScaleSetStatus) -> RunnerScaleSet {
    let patch = json!({"apiVersion": "paddock.dev/v1alpha1", "kind": "RunnerScaleSet", "status": status});
    sets.patch_status("linux", &apply().force(), &Patch::Apply(patch)).await.unwrap()
}

#[tokio::test]
async fn serves_the_status_apart_from_the_spec() {
    in_namespace(async |client, namespace| {
        let sets: Api<RunnerScaleSet> = Api::namespaced(client, namespace);
        let mut set = typed(&manifest(json!({})));
        set.status = Some(serde_json::from_value(full_status()).unwrap());
        let created = sets.create(&PostParams::default(), &set).await.unwrap();
        assert_eq!(created.status, None, "a write to the object leaves the status alone");

        let status: RunnerScaleSetStatus = serde_json::from_value(full_status()).unwrap();
        let applied = apply_status(&sets, &status).await;
        assert_eq!(serde_json::to_value(applied.status).unwrap(), full_status());
        assert_eq!(applied.metadata.generation, Some(1), "a write to the status is no new generation");

        let less = RunnerScaleSetStatus { session: None, runners: Vec::new(), ..status };
        let applied = apply_status(&sets, &less).await;
        assert_eq!(applied.status, Some(less), "what is left out is gone");
    })
    .await;
}

#[tokio::test]
async fn prints_the_columns() {
    in_namespace(async |client, namespace| {
        let sets: Api<RunnerScaleSet> = Api::namespaced(client.clone(), namespace);
        sets.create(&PostParams::default(), &typed(&manifest(json!({})))).await.unwrap();
        apply_status(&sets, &serde_json::from_value(full_status()).unwrap()).await;

        let uri = format!("/apis/paddock.dev/v1alpha1/namespaces/{namespace}/runnerscalesets");
        let request = Request::get(uri).header("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
        let table: Value = client.request(request.body(Vec::new()).unwrap()).await.unwrap();
        let columns = table["columnDefinitions"].as_array().unwrap();
        let shown = |priority: i32| {
            let columns = columns.iter().enumerate().filter(|(_, column)| column["priority"] == priority);
            columns.map(|(i, column)| (&column["name"], &table["rows"][0]["cells"][i])).collect::<Vec<_>>()
        };
        let age = shown(0).pop().unwrap();
        assert_eq!(age.0, "Age");
        let narrow = json!([
            ["Name", "linux"],
            ["Desired", 7],
            ["Current", 6],
            ["Pending", 1],
            ["Idle", 2],
            ["Busy", 3],
            ["Ready", "True"],
            ["Age", age.1]
        ]);
        assert_eq!(json!(shown(0)), narrow);
        let wide = json!([
            ["Min", 0],
            ["Max", 10],
            ["Schedule", "office"],
            ["GitHub URL", "https://github.com/acme"]
        ]);
        assert_eq!(json!(shown(1)), wide);
    })
    .await;
}

#[test]
fn explains_every_field() {
    let crd = serde_json::to_value(RunnerScaleSet::crd()).unwrap();
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let mut fields = 0;
    for (name, field) in schema["properties"].as_object().unwrap() {
        explained(name, field, &mut fields);
    }
    assert!(fields > 150, "only {fields} fields were looked at");
}

fn explained(path: &str, schema: &Value, fields: &mut usize) {
    *fields += 1;
    let description = schema["description"].as_str().unwrap_or_default();
    assert!(description.len() > 3, "{path} has no description");
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        explained(&format!("{path}.{name}"), field, fields);
    }
    for (name, field) in schema["items"]["properties"].as_object().into_iter().flatten() {
        explained(&format!("{path}[].{name}"), field, fields);
    }
}

fn full_manifest() -> Value {
    serde_saphyr::from_str(include_str!("support/full.yaml")).unwrap()
}

fn typed(manifest: &Value) -> RunnerScaleSet {
    serde_json::from_value(manifest.clone()).unwrap()
}

fn as_the_types_have_it(manifest: &Value) -> Value {
    serde_json::to_value(typed(manifest).spec).unwrap()
}

async fn stored(manifest: &Value) -> Value {
    try_create(&client().await, manifest).await.unwrap()
}
