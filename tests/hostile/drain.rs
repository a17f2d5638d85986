//! What was permitted and is not any more is drained as on suspension, and taken back when it is permitted again.

use std::time::Duration;

use harness::{Lab, Manifest, PATIENCE, PERMISSIVE, github, is, lab};
use kube::api::{Patch, PatchParams};
use serde_json::json;
use testkit::github::{Endpoint, JobResult, JobSpec, JobStatus, SimGithub};
use tokio::net::UnixListener;

/// What a policy must not refuse for the tests to reach their GitHub, and no more: not the network of their runners.
const NO_NETWORK: &str = "{rules: [{insecureHttp: true}], hosts: []}";
/// Not even GitHub.
const NOTHING: &str = "{rules: [], hosts: []}";

/// A scale set that keeps one spare.
fn sample(github: &SimGithub) -> Manifest {
    Manifest::sample(&github.config_url("acme")).spec(json!({"minRunners": 1, "maxRunners": 3}))
}

async fn refused(lab: &Lab) {
    lab.until_is("linux", "Stalled", "True", Some("NotPermitted")).await;
}

async fn runs_a_job(github: &SimGithub) {
    let job = github.queue_job(JobSpec::new("acme/app", ["linux"]).lasting(Duration::ZERO));
    github.wait_until(PATIENCE, |s| s.job(job).unwrap().status == JobStatus::Completed).await.unwrap();
}

#[tokio::test]
async fn a_running_set_is_drained_by_a_change_of_the_policy_and_taken_back_by_another() {
    lab("drained", async |lab| {
        let github = github(lab).await;
        let controller = lab.start();
        lab.apply(&sample(&github)).await;
        lab.until_phases("linux", (0, 1, 0)).await;
        let running = github.queue_job(JobSpec::new("acme/app", ["linux"]));
        lab.until_phases("linux", (0, 1, 1)).await;
        for policy in [NO_NETWORK, NOTHING] {
            lab.policy(policy);
            refused(lab).await;
            lab.until_phases("linux", (0, 0, 1)).await;
        }
        github.wait_until(PATIENCE, |s| s.runners().count() == 1).await.unwrap();
        let made = lab.timeline.count("create");
        let waiting = github.queue_job(JobSpec::new("acme/app", ["linux"]).lasting(Duration::ZERO));
        assert_eq!(
            github.look(|s| s.job(running).unwrap().status),
            JobStatus::Running,
            "it is left to finish"
        );
        github.finish_job(running, JobResult::Succeeded).unwrap();
        lab.until_phases("linux", (0, 0, 0)).await;
        // GitHub is let go of: the session is closed, and nothing more is asked.
        github.wait_until(PATIENCE, |s| s.scale_set("linux").unwrap().session.is_none()).await.unwrap();
        lab.until("linux", "it does not listen", |set| is(set, "Listening", "False", Some("NotListening")))
            .await;
        github.clear_requests();
        lab.kubectl(&["annotate", "rss", "linux", "look=again"]).await;
        let removed = controller.count(r#"paddock_runner_removals_total{reason="NotPermitted"}"#).await;
        assert!(removed >= 1, "{removed}");
        assert_eq!(lab.timeline.count("create"), made, "nothing is started meanwhile");
        assert_eq!(github.look(|s| s.requests().total()), 0);

        lab.policy(PERMISSIVE);
        lab.until_is("linux", "Ready", "True", None).await;
        github
            .wait_until(PATIENCE, |s| s.job(waiting).unwrap().status == JobStatus::Completed)
            .await
            .unwrap();
        runs_a_job(&github).await;
        assert!(github.look(|s| s.jobs().all(|j| j.result == Some(JobResult::Succeeded))));
    })
    .await;
}

#[tokio::test]
async fn a_spec_that_grows_beyond_the_policy_is_drained_too() {
    lab("grown", async |lab| {
        let github = github(lab).await;
        lab.policy("{rules: [{insecureHttp: true, networks: ['*'], endpoints: ['unix:///var/run/docker.sock']}], hosts: []}");
        let _controller = lab.start();
        lab.apply(&sample(&github)).await;
        lab.until_phases("linux", (0, 1, 0)).await;
        lab.apply(&sample(&github).docker(json!({"dockerAccess": "HostSocket"}))).await;
        refused(lab).await;
        lab.until_phases("linux", (0, 0, 0)).await;
        github.wait_until(PATIENCE, |s| s.runners().count() == 0).await.unwrap();
        lab.apply(&sample(&github)).await;
        lab.until_phases("linux", (0, 1, 0)).await;
    })
    .await;
}

#[tokio::test]
async fn a_refused_object_can_be_deleted() {
    lab("refused-deleted", async |lab| {
        let github = github(lab).await;
        lab.policy(NOTHING);
        let _controller = lab.start();
        lab.apply(&sample(&github)).await;
        refused(lab).await;
        lab.delete("linux").await;
        lab.until_gone("linux", PATIENCE).await;
        assert_eq!(github.look(|s| s.requests().total()), 0, "it was nothing, and nobody was asked");

        lab.policy(PERMISSIVE);
        lab.apply(&sample(&github)).await;
        lab.until_phases("linux", (0, 1, 0)).await;
        lab.policy(NOTHING);
        refused(lab).await;
        lab.delete("linux").await;
        lab.until_gone("linux", PATIENCE).await;
        let left = github.look(|s| (s.scale_sets().count(), s.runners().count()));
        assert_eq!((left, lab.containers().await.len()), ((0, 0), 0), "nothing of it is left");
    })
    .await;
}

#[tokio::test]
async fn what_ran_before_a_restart_is_drained_though_nothing_was_permitted_since() {
    lab("restarted", async |lab| {
        let github = github(lab).await;
        let controller = lab.start();
        lab.apply(&sample(&github)).await;
        lab.until_phases("linux", (0, 1, 0)).await;
        controller.kill().await;
        github.clear_requests();
        lab.policy(NO_NETWORK);
        let controller = lab.start();
        refused(lab).await;
        lab.until_phases("linux", (0, 0, 0)).await;
        github.wait_until(PATIENCE, |s| s.runners().count() == 0).await.unwrap();
        for call in [Endpoint::OpenSession, Endpoint::Poll, Endpoint::JitConfig] {
            assert!(github.requests(call).is_empty(), "{call:?}");
        }
        assert_eq!(lab.timeline.count("create"), 1);
        controller.kill().await;

        // Where GitHub is not permitted either, the object goes at once and says what it leaves.
        lab.policy(NOTHING);
        github.clear_requests();
        let _controller = lab.start();
        lab.delete("linux").await;
        lab.until_gone("linux", PATIENCE).await;
        assert_eq!(github.look(|s| s.requests().total()), 0);
        let note = lab.event("linux", "LeftBehind").await;
        assert!(note.contains("scale set"), "{note}");
    })
    .await;
}

#[tokio::test]
async fn a_forged_status_makes_the_controller_connect_nowhere_that_the_policy_does_not_permit() {
    lab("forged-host", async |lab| {
        let github = github(lab).await;
        lab.policy("{rules: [{insecureHttp: true, networks: ['*'], endpoints: ['unix:///var/run/docker.sock']}], hosts: []}");
        let socket = lab.folder().join("d.sock");
        let liar = UnixListener::bind(&socket).unwrap();
        lab.apply(&sample(&github)).await;
        let endpoint = format!("unix://{}", socket.display());
        let host = json!({"name": "a", "endpoint": endpoint, "ready": true, "currentRunners": 1});
        let status = json!({"status": {
            "backends": [{"name": "docker", "type": "docker", "currentRunners": 1, "hosts": [host]}],
        }});
        lab.sets().patch_status("linux", &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
        let _controller = lab.start();
        lab.until_is("linux", "Ready", "True", None).await;
        lab.until_phases("linux", (0, 1, 0)).await;
        let reached = futures::FutureExt::now_or_never(liar.accept());
        assert!(reached.is_none(), "the controller connected");
    })
    .await;
}

#[tokio::test]
async fn a_refused_set_takes_no_name_from_another() {
    lab("refused-elder", async |lab| {
        let github = github(lab).await;
        lab.policy("{rules: [{insecureHttp: true, networks: ['*'], endpoints: ['unix:///*']}], hosts: []}");
        let _controller = lab.start();
        let elder = sample(&github).named("elder").spec(json!({"scaleSetName": "linux"}));
        lab.apply(&elder.docker(json!({"dockerAccess": "HostSocket"}))).await;
        lab.until_is("elder", "Stalled", "True", Some("NotPermitted")).await;
        lab.apply(&sample(&github)).await;
        lab.until_is("linux", "Ready", "True", None).await;
        runs_a_job(&github).await;
    })
    .await;
}
