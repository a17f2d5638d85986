//! `paddock doctor` finds what is planted, names what helps, and removes no more than orphans.

use harness::{Lab, Manifest, PATIENCE, github, lab, merged};
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client};
use paddock::api::RunnerScaleSet;
use serde_json::{Value, json};
use testkit::github::{JobResult, JobSpec, JobStatus};

use super::{ecs, of_ecs, paddock};

/// A day that is long gone.
const LONG_AGO: &str = "2020-01-01T00:00:00.000000Z";

async fn doctor(lab: &Lab, arguments: &[&str], input: &str) -> (Option<i32>, Vec<Value>) {
    let lease = format!("--lease-namespace={}", lab.namespace);
    let arguments = [&["doctor", &lease], arguments].concat();
    let (code, printed) = paddock(lab, &arguments, input).await;
    let findings = printed["findings"].as_array().unwrap().clone();
    assert_eq!(code, Some(i32::from(!findings.is_empty())), "{findings:#?}");
    for finding in &findings {
        let texts = ["kind", "where", "subject", "message", "remedy"];
        assert!(texts.iter().all(|field| !finding[field].as_str().unwrap().is_empty()), "{finding:#?}");
        assert!(finding["fixable"].is_boolean() && finding.as_object().unwrap().len() == 6);
    }
    (code, findings)
}

fn of_kind<'a>(findings: &'a [Value], kind: &str) -> Vec<&'a Value> {
    findings.iter().filter(|finding| finding["kind"] == kind).collect()
}

/// As if nobody had renewed the Lease for years.
async fn lapse(lab: &Lab) {
    let kind = GroupVersionKind::gvk("coordination.k8s.io", "v1", "Lease");
    let leases: Api<DynamicObject> =
        Api::namespaced_with(Client::clone(&lab.client), &lab.namespace, &ApiResource::from_gvk(&kind));
    let renewed = Patch::Merge(json!({"spec": {"renewTime": LONG_AGO}}));
    leases.patch("paddock", &PatchParams::default(), &renewed).await.unwrap();
}

fn condition_is(set: &RunnerScaleSet, type_: &str) -> bool {
    harness::is(set, type_, "True", None)
}

#[tokio::test]
async fn each_planted_fault_is_found_with_its_remedy_and_orphans_go_but_for_the_busy_one() {
    lab("doctor", async |lab| {
        let (github, ecs) = (github(lab).await, ecs(lab).await);
        let macs = lab.macs(1, |_| {}).await;
        lab.permit_leader_election().await;
        let url = github.config_url("acme");
        let docker = Manifest::sample(&url);

        // A scale set with a runner on each kind of host, of which one has a job.
        let tart = Manifest::tart(&url, &macs).0["spec"]["backends"][0].clone();
        let backends = [docker.0["spec"]["backends"][0].clone(), tart, of_ecs(&ecs, json!({}))];
        let backends = backends.map(|backend| merged(backend, json!({"maxRunners": 1})));
        let gone = docker.clone().named("gone").spec(json!({"maxRunners": 3, "minRunners": 2, "backends": backends}));
        let controller = lab.start_candidate("paddock-dead");
        lab.apply(&gone).await;
        lab.until_is("gone", "Ready", "True", None).await;
        let job = github.queue_job(JobSpec::new("acme/app", ["gone"]));
        github.wait_until(PATIENCE, |s| s.jobs_in(JobStatus::Running) == 1).await.unwrap();
        lab.until_phases("gone", (0, 2, 1)).await;

        // Scale sets that are in trouble while a controller is there to say so.
        lab.apply(&docker.clone().named("stays").spec(json!({"minRunners": 0}))).await;
        lab.until_is("stays", "Ready", "True", None).await;
        lab.apply(&docker.clone().named("leaving").spec(json!({"minRunners": 0}))).await;
        lab.until_is("leaving", "Ready", "True", None).await;
        let missing = json!({"github": {"credentialsSecretRef": {"name": "missing"}}});
        lab.apply(&docker.clone().named("stalled").spec(missing)).await;
        lab.until("stalled", "it is stalled", |set| condition_is(set, "Stalled")).await;
        controller.kill().await;

        // Nobody is there to see the rest.
        lapse(lab).await;
        lab.delete_by_force("gone").await;
        lab.delete("leaving").await;
        github.mint_jit("stays", "stays-abcd1234").unwrap();
        github.vanish_scale_set("leaving").unwrap();
        let pending = json!({"status": {"runners": [{"name": "stays-00000000", "phase": "Pending", "outdated": false,
            "backend": docker.0["spec"]["backends"][0]["name"], "host": "local", "since": "2020-01-01T00:00:00Z"}]}});
        lab.sets().patch_status("stays", &PatchParams::default(), &Patch::Merge(pending)).await.unwrap();
        let lost = json!({"hosts": [{"name": "far", "endpoint": "tcp://127.0.0.1:9"}]});
        lab.apply(&docker.clone().named("lost").docker(lost)).await;
        let absent = json!({"image": "paddock.test/absent:1", "pullPolicy": "Never"});
        lab.apply(&docker.clone().named("bare").docker(absent)).await;
        let cloud = of_ecs(&ecs, json!({"managedTaskDefinition": null, "taskDefinition": "nothing:1"}));
        lab.apply(&docker.clone().named("cloud").spec(json!({"backends": [cloud]}))).await;

        let host = format!("{},kind=tart,secret={}/mac-1-ssh", macs[0].endpoint(), lab.namespace);
        let (_, found) = doctor(lab, &["--host", &host], "").await;
        let name = |name: &str| format!("{}/{name}", lab.namespace);
        for (kind, subject, says, remedy) in [
            ("NoController", name("paddock"), "paddock-dead", "start the controller"),
            ("DeadSession", name("stays"), "paddock-dead", "start a controller"),
            ("Stalled", name("stalled"), "SecretMissing", "troubleshooting"),
            ("Unusable", name("stalled"), "missing", "create what it names"),
            ("DeletionStuck", name("leaving"), "no controller runs", "finalizer"),
            ("StartStuck", "stays-00000000".to_owned(), "2020", "controller"),
            ("ScaleSetGone", name("leaving"), "gone from GitHub", "makes it anew"),
            ("OrphanRegistration", "stays-abcd1234".to_owned(), "no instance", "--fix"),
            ("OrphanScaleSet", "gone".to_owned(), &name("gone"), "delete it at GitHub"),
            ("HostUnreachable", format!("{}: docker/far", name("lost")), "", "network"),
            ("ImageMissing", format!("{}: docker/local", name("bare")), "absent:1", "pull the image"),
            ("HostRefuses", format!("{}: aws/runners", name("cloud")), "nothing:1", "change"),
        ] {
            let kind = of_kind(&found, kind);
            let is = |finding: &&&Value| {
                let has = |field: &str, text: &str| finding[field].as_str().unwrap().contains(text);
                finding["subject"] == *subject && has("message", says) && has("remedy", remedy)
            };
            assert_eq!(kind.iter().filter(is).count(), 1, "{subject}: {found:#?}");
        }
        let orphans = of_kind(&found, "OrphanInstance");
        let places: Vec<&str> = orphans.iter().map(|orphan| orphan["where"].as_str().unwrap()).collect();
        for kind in ["docker unix:///", "tart ssh://", "ecs ecs://"] {
            assert_eq!(places.iter().filter(|place| place.starts_with(kind)).count(), 1, "{places:?}");
        }
        assert!(orphans.iter().all(|orphan| orphan["fixable"] == true));

        // Who is asked and says no, or nothing, keeps all; nobody who was not asked removes anything.
        let (_, kept) = doctor(lab, &["--host", &host, "--fix"], "n\nno\n").await;
        assert_eq!(of_kind(&kept, "OrphanInstance").len(), 3);
        assert!(github.look(|s| s.runner("stays-abcd1234").is_some()));

        let (_, left) = doctor(lab, &["--host", &host, "--fix", "--yes"], "").await;
        let busy = of_kind(&left, "OrphanInstance");
        assert_eq!(busy.len(), 1, "{left:#?}");
        assert!(busy[0]["message"].as_str().unwrap().contains("a job runs on it"), "{busy:#?}");
        assert_eq!(github.look(|s| s.jobs_in(JobStatus::Running)), 1, "the job goes on");
        assert!(of_kind(&left, "OrphanRegistration").is_empty() && !of_kind(&left, "Stalled").is_empty());
        assert!(github.look(|s| s.runner("stays-abcd1234").is_none()));

        github.finish_job(job, JobResult::Succeeded).unwrap();
        github.wait_until(PATIENCE, |s| s.jobs_in(JobStatus::Running) == 0).await.unwrap();
        let (_, done) = doctor(lab, &["--host", &host, "--fix", "--yes"], "").await;
        assert!(of_kind(&done, "OrphanInstance").is_empty(), "{done:#?}");
    })
    .await;
}

#[tokio::test]
async fn a_healthy_cluster_is_well_and_what_is_another_clusters_is_not_touched() {
    lab("doctor-well", async |lab| {
        let github = github(lab).await;
        lab.permit_leader_election().await;
        let _controller = lab.start_candidate("paddock-0");
        lab.apply(&Manifest::sample(&github.config_url("acme")).spec(json!({"minRunners": 1}))).await;
        lab.until_phases("linux", (0, 1, 0)).await;
        let (code, found) = doctor(lab, &["--fix", "--yes"], "").await;
        assert_eq!((code, found.len()), (Some(0), 0), "{found:#?}");

        // To another cluster, of which no namespace has a scale set, the runner is a stranger.
        let cluster =
            ["--cluster-id", "another", "--namespace", "default", "--lease-namespace", &lab.namespace];
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_paddock"));
        command.args(["doctor", "-o", "json", "--fix", "--yes", "--host", "unix:///var/run/docker.sock"]);
        command.args(cluster).arg("--kubeconfig").arg(harness::api_server::kubeconfig());
        let printed = command.output().await.unwrap().stdout;
        assert_eq!(serde_json::from_slice::<Value>(&printed).unwrap(), json!({"findings": []}));
        lab.until_phases("linux", (0, 1, 0)).await;
    })
    .await;
}
