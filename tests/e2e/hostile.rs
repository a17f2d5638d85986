//! Objects, statuses and messages that nobody would write in good faith: each costs itself alone.

use std::fs;
use std::time::Duration;

use harness::{Controller, Lab, Manifest, PATIENCE, eventually, github, lab, lab_on_own_server};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use testkit::github::{DEFAULT_TOKEN, Endpoint, Fault, JobSpec, JobStatus, SimGithub};

/// A time that can be read, and to which nothing can be added.
const END_OF_TIME: &str = "9999-12-30T21:59:59Z";
/// A time that the API server takes, and that jiff cannot hold.
const BEYOND: &str = "9999-12-31T23:59:59Z";

/// Another scale set of the same GitHub.
fn other(github: &SimGithub) -> Manifest {
    Manifest::sample(&github.config_url("acme")).named("other")
}

/// Queues a job for a scale set, which runs to its end.
async fn runs_a_job(github: &SimGithub, name: &str) {
    let job = github.queue_job(JobSpec::new("acme/app", [name]).lasting(Duration::ZERO));
    github.wait_until(PATIENCE, |s| s.job(job).unwrap().status == JobStatus::Completed).await.unwrap();
}

/// It has not ended and begun anew, and says that it is well.
async fn lives(controller: &Controller) {
    assert!(!controller.log().contains("panicked"), "{}", controller.log());
    assert_eq!(controller.get("/healthz").await.0, 200);
}

#[tokio::test]
async fn a_status_from_the_end_of_time_stops_no_controller() {
    lab("status-times", async |lab| {
        let github = github(lab).await;
        lab.apply(&Manifest::sample(&github.config_url("acme"))).await;
        lab.apply(&other(&github)).await;
        for at in [END_OF_TIME, BEYOND] {
            let runner = |name: &str, phase: &str| {
                json!({"name": name, "phase": phase, "backend": "docker", "host": "local", "since": at})
            };
            let condition = json!({
                "type": "Ready", "status": "True", "reason": "Ready", "message": "", "lastTransitionTime": at,
            });
            let failure = json!({"runner": "x", "backend": "docker", "reason": "x", "message": "", "time": at});
            let status = json!({"status": {
                "runners": [runner("x-idle", "Idle"), runner("x-busy", "Busy"), runner("x-pending", "Pending")],
                "session": {"id": "x", "owner": "somebody", "since": at},
                "demand": {"assignedJobs": 3, "runningJobs": 0, "availableJobs": 0, "observedAt": at},
                "backends": [{"name": "docker", "type": "docker", "currentRunners": 1, "backoffUntil": at}],
                "recentFailures": [failure],
                "conditions": [condition],
            }});
            let patch = Patch::Merge(&status);
            lab.sets().patch_status("linux", &PatchParams::default(), &patch).await.unwrap();

            let controller = lab.start();
            for set in ["linux", "other"] {
                lab.until_is(set, "Ready", "True", None).await;
                runs_a_job(&github, set).await;
                lab.until_phases(set, (0, 0, 0)).await;
            }
            lives(&controller).await;
            let shown = lab.kubectl(&["get", "rss", "linux", "-o", "json"]).await;
            assert!(!shown.contains("9999-12-3"), "{at} is still there: {shown}");
            controller.terminate().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_message_from_the_end_of_time_stops_no_controller() {
    lab("message-times", async |lab| {
        lab.secret("github", [("github_token", DEFAULT_TOKEN)]).await;
        let github = SimGithub::builder().small_jit().long_poll(Duration::from_secs(1));
        let github = github.start().await.unwrap();
        let controller = lab.start();
        lab.apply(&Manifest::sample(&github.config_url("acme")).spec(json!({"minRunners": 2}))).await;
        lab.apply(&other(&github)).await;
        lab.until_phases("linux", (0, 2, 0)).await;
        lab.until_is("other", "Ready", "True", None).await;
        let names = github.look(|s| s.runners().map(|r| r.name.clone()).collect::<Vec<_>>());
        for (message, (name, at)) in names.iter().zip([END_OF_TIME, BEYOND]).enumerate() {
            let started = json!([{
                "messageType": "JobStarted", "jobId": format!("forged-{message}"), "runnerName": name,
                "queueTime": at, "scaleSetAssignTime": at, "runnerAssignTime": at, "finishTime": at,
            }]);
            let body = json!({
                "messageId": 1_000 + message, "messageType": "RunnerScaleSetJobMessages",
                "body": started.to_string(), "statistics": github.statistics("linux").unwrap(),
            });
            let poll = Fault::answer(Endpoint::Poll, 200, body.to_string()).for_scale_set("linux");
            github.inject(poll.times(1));
            let busy = i32::try_from(message + 1).unwrap();
            lab.until("linux", "the runner is busy", |set| set.status.as_ref().unwrap().busy_runners == busy)
                .await;
        }
        runs_a_job(&github, "other").await;
        lives(&controller).await;
    })
    .await;
}

/// Writes an object anew as the API server has it, its managed fields from beyond the end of time.
async fn pose(lab: &Lab, resource: &str, name: &str, path: &str) {
    let shown = lab.kubectl(&["get", resource, name, "-o", "json", "--show-managed-fields"]).await;
    let mut object: Value = serde_json::from_str(&shown).unwrap();
    object["metadata"]["managedFields"][0]["time"] = json!(BEYOND);
    object["metadata"]["annotations"]["changed"] = json!("else the API server keeps the times that it has");
    let file = lab.folder().join(format!("{resource}-{name}.json"));
    fs::write(&file, object.to_string()).unwrap();
    let path = format!("{path}/namespaces/{}/{resource}/{name}", lab.namespace);
    let stored = lab.kubectl(&["replace", "--raw", &path, "-f", file.to_str().unwrap()]).await;
    assert!(stored.contains(BEYOND), "{stored}");
}

#[tokio::test]
async fn managed_fields_from_beyond_the_end_of_time_hide_no_object() {
    const SETS: &str = "/apis/paddock.dev/v1alpha1";
    lab("managed-fields", async |lab| {
        let github = github(lab).await;
        let first = lab.start();
        lab.apply(&Manifest::sample(&github.config_url("acme"))).await;
        lab.until_is("linux", "Ready", "True", None).await;
        lab.apply(&other(&github)).await;
        lab.until_is("other", "Ready", "True", None).await;
        lab.kubectl(&["create", "configmap", "odd", "--from-literal=a=b"]).await;
        lab.permit_leader_election().await;
        lab.kubectl(&["create", "-f", &lease(lab)]).await;

        pose(lab, "runnerscalesets", "linux", SETS).await;
        pose(lab, "secrets", "github", "/api/v1").await;
        pose(lab, "configmaps", "odd", "/api/v1").await;
        // Those who watch see it, too.
        runs_a_job(&github, "linux").await;
        lab.until_phases("linux", (0, 0, 0)).await;
        lives(&first).await;
        first.kill().await;

        // It takes over a Lease whose times nobody can read, and lists what it watched before.
        let second = lab.start_candidate("paddock-e2e");
        for set in ["linux", "other"] {
            runs_a_job(&github, set).await;
            lab.until_phases(set, (0, 0, 0)).await;
            lab.until_is(set, "Ready", "True", None).await;
        }
        lives(&second).await;
        lab.delete("linux").await;
        lab.until_gone("linux", PATIENCE).await;
    })
    .await;
}

/// A file with the Lease of a controller that is gone.
fn lease(lab: &Lab) -> String {
    let beyond = BEYOND.replace('Z', ".000000Z");
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "paddock", "managedFields": [{
            "apiVersion": "coordination.k8s.io/v1", "fieldsType": "FieldsV1", "fieldsV1": {},
            "manager": "somebody", "operation": "Update", "time": BEYOND,
        }]},
        "spec": {
            "holderIdentity": "somebody", "leaseDurationSeconds": 1, "leaseTransitions": 2_147_483_647,
            "acquireTime": beyond, "renewTime": beyond,
        },
    });
    let file = lab.folder().join("lease.json");
    fs::write(&file, lease.to_string()).unwrap();
    file.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_object_that_cannot_be_read_costs_itself_alone() {
    lab_on_own_server("unreadable", async |lab| {
        let github = github(lab).await;
        // A CRD of another version than the controller's.
        let format =
            "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/runnersOmitted/format";
        let laxer = json!([{"op": "remove", "path": format}]).to_string();
        let crd = "crd/runnerscalesets.paddock.dev";
        lab.kubectl(&["patch", crd, "--type=json", "-p", &laxer]).await;
        lab.apply(&Manifest::sample(&github.config_url("acme"))).await;
        lab.apply(&other(&github)).await;
        let admin = lab.dynamic_sets();
        let patch = Patch::Merge(json!({"status": {"runnersOmitted": 3_000_000_000_u64}}));
        eventually("the laxer schema is in use", PATIENCE, async || {
            admin.patch_status("linux", &PatchParams::default(), &patch).await.ok()
        })
        .await;

        let controller = lab.start();
        lab.until_is("other", "Ready", "True", None).await;
        runs_a_job(&github, "other").await;
        lives(&controller).await;
        let note = lab.event("linux", "Unreadable").await;
        assert!(note.contains("3000000000"), "{note}");

        let patch = Patch::Merge(json!({"status": {"runnersOmitted": null}}));
        admin.patch_status("linux", &PatchParams::default(), &patch).await.unwrap();
        lab.until_is("linux", "Ready", "True", None).await;
        runs_a_job(&github, "linux").await;
    })
    .await;
}
