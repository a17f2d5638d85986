//! The ways in which a scale set can differ: GitHub's model, its credentials, its runners, changes of its spec.

use std::time::Duration;

use harness::{Lab, Manifest, PATIENCE, github, is, lab, phases};
use serde_json::json;
use testkit::github::{
    DEFAULT_TOKEN, Endpoint, JobResult, JobSpec, JobStatus, Model, SimGithub, app_private_key,
};

/// Runs jobs to their end, each with a container of its own.
async fn run_jobs(lab: &Lab, github: &SimGithub, count: usize) {
    let created = lab.timeline.count("create");
    let job = JobSpec::new("acme/app", ["linux"]).lasting(Duration::from_millis(300));
    let jobs = github.queue_jobs(count, &job);
    github
        .wait_until(PATIENCE, |s| jobs.iter().all(|job| s.job(*job).unwrap().status == JobStatus::Completed))
        .await
        .unwrap();
    let succeeded = |s: &testkit::github::State| {
        let mut jobs = jobs.iter().map(|job| s.job(*job).unwrap());
        jobs.all(|j| j.result == Some(JobResult::Succeeded) && j.attempts == 1)
    };
    assert!(github.look(succeeded));
    lab.until_phases("linux", (0, 0, 0)).await;
    assert_eq!(lab.timeline.count("create") - created, count);
}

#[tokio::test]
async fn enterprise_server_offers_jobs_and_they_are_acquired() {
    lab("ghes", async |lab| {
        lab.secret("github", [("github_token", DEFAULT_TOKEN)]).await;
        let github = SimGithub::builder().model(Model::Ghes).byte_order_mark().drop_extra_labels();
        let github = github.start().await.unwrap();
        // Queued before there is a scale set, and more than may run at once.
        let early = github.queue_job(JobSpec::new("acme/app", ["linux"]).lasting(Duration::ZERO));
        let _controller = lab.start();
        let record = lab.record("linux");
        let manifest = Manifest::sample(&github.config_url("acme/app"))
            .spec(json!({"maxRunners": 2, "labels": ["x64"]}));
        lab.apply(&manifest).await;
        let set = lab.until_is("linux", "Registered", "False", Some("LabelsDropped")).await;
        let message = &harness::condition(&set, "Registered").unwrap().message;
        assert!(message.contains("x64"), "{message}");
        lab.until_is("linux", "Ready", "True", None).await;
        github.wait_until(PATIENCE, |s| s.job(early).unwrap().status == JobStatus::Completed).await.unwrap();
        run_jobs(lab, &github, 4).await;
        record.assert_consistent(0, 2);
    })
    .await;
}

/// The data of a Secret for a GitHub App.
async fn app_secret(lab: &Lab, id: &str, installation: &str) {
    let data = [
        ("github_app_id", id),
        ("github_app_installation_id", installation),
        ("github_app_private_key", app_private_key()),
    ];
    lab.secret("github", data).await;
}

#[tokio::test]
async fn an_app_s_credentials_are_changed_while_jobs_run() {
    lab("app", async |lab| {
        let github = SimGithub::builder()
            .app("4711", 77, app_private_key())
            .unwrap()
            .app("4712", 78, app_private_key())
            .unwrap()
            .start()
            .await
            .unwrap();
        app_secret(lab, "4711", "77").await;
        let _controller = lab.start();
        lab.apply(&Manifest::sample(&github.config_url("acme"))).await;
        lab.until_is("linux", "Ready", "True", None).await;
        let job = github.queue_job(JobSpec::new("acme/app", ["linux"]));
        lab.until_phases("linux", (0, 0, 1)).await;

        app_secret(lab, "4712", "78").await;
        github
            .wait_until(PATIENCE, |s| {
                s.requests()
                    .to(Endpoint::AccessToken)
                    .any(|r| r.path.contains("/78/") && r.status == Some(201))
            })
            .await
            .unwrap();
        lab.until_is("linux", "Ready", "True", None).await;
        github.finish_job(job, JobResult::Succeeded).unwrap();
        lab.until_phases("linux", (0, 0, 0)).await;
        run_jobs(lab, &github, 1).await;
        assert_eq!(lab.timeline.count("create"), 2);
    })
    .await;
}

#[tokio::test]
async fn a_runner_that_github_holds_to_be_too_old_is_not_started_again() {
    lab("too-old", async |lab| {
        let github = github(lab).await;
        let controller = lab.start();
        let manifest = Manifest::sample(&github.config_url("acme")).spec(json!({"minRunners": 1}));
        let old = json!({"env": [{"name": "FAKE_RUNNER_EXIT", "value": "7"}]});
        lab.apply(&manifest.clone().docker(old)).await;
        let set = lab.until_is("linux", "Stalled", "True", Some("RunnerVersionRejected")).await;
        let failure = &set.status.as_ref().unwrap().recent_failures[0];
        assert_eq!((failure.reason.as_str(), failure.exit_code), ("RunnerVersionRejected", Some(7)));
        let again = lab
            .timeline
            .is_so_within(Duration::from_secs(3), |events| {
                events.iter().filter(|e| e.action == "create").count() > 1
            })
            .await;
        assert!(!again, "one was enough to know");
        lab.event("linux", "RunnerFailed").await;

        controller.kill().await;
        let since = jiff::Timestamp::now();
        let _controller = lab.start();
        github
            .wait_for(PATIENCE, |s| s.requests().to(Endpoint::Poll).find(|r| r.at > since).map(|_| ()))
            .await
            .unwrap();
        let again = lab
            .timeline
            .is_so_within(Duration::from_secs(3), |events| {
                events.iter().filter(|e| e.action == "create").count() > 1
            })
            .await;
        assert!(!again, "the next controller knows it too");
        let set = lab.until_is("linux", "Stalled", "True", Some("RunnerVersionRejected")).await;
        let shown = &set.status.as_ref().unwrap().recent_failures;
        assert_eq!(shown.iter().map(|f| &f.runner).collect::<Vec<_>>(), [&failure.runner]);

        lab.apply(&manifest.docker(json!({"env": []}))).await;
        lab.until_phases("linux", (0, 1, 0)).await;
        lab.until_is("linux", "Ready", "True", None).await;
    })
    .await;
}

#[tokio::test]
async fn a_suspended_set_finishes_its_jobs_and_takes_no_more() {
    lab("suspended", async |lab| {
        let github = github(lab).await;
        let controller = lab.start();
        let manifest = Manifest::sample(&github.config_url("acme")).spec(json!({"minRunners": 1}));
        lab.apply(&manifest).await;
        lab.until_phases("linux", (0, 1, 0)).await;
        let first = github.queue_job(JobSpec::new("acme/app", ["linux"]));
        lab.until_phases("linux", (0, 1, 1)).await;
        assert_eq!(controller.get("/readyz").await.0, 200);
        assert_eq!(controller.get("/healthz").await.0, 200);
        assert_metrics(&controller.get("/metrics").await.1, &lab.namespace);

        lab.apply(&manifest.clone().spec(json!({"suspend": true}))).await;
        lab.until_phases("linux", (0, 0, 1)).await;
        github
            .wait_until(PATIENCE, |s| {
                let session = s.scale_set("linux").and_then(|set| set.session.as_ref());
                session.and_then(|s| s.capacity) == Some(1)
            })
            .await
            .unwrap();
        let second = github.queue_job(JobSpec::new("acme/app", ["linux"]).lasting(Duration::ZERO));
        github.finish_job(first, JobResult::Succeeded).unwrap();
        lab.until_phases("linux", (0, 0, 0)).await;
        assert_eq!(lab.containers().await.len(), 0);
        let waits = github.look(|s| s.job(second).unwrap().status);
        assert!(matches!(waits, JobStatus::Queued | JobStatus::Assigned), "{waits:?}");

        lab.apply(&manifest.spec(json!({"suspend": false}))).await;
        github.wait_until(PATIENCE, |s| s.job(second).unwrap().status == JobStatus::Completed).await.unwrap();
        lab.until_phases("linux", (0, 1, 0)).await;
    })
    .await;
}

/// What a set with one busy and one idle runner shows.
fn assert_metrics(metrics: &str, namespace: &str) {
    let set =
        format!(r#"name="linux",namespace="{namespace}",repository="",organization="acme",enterprise="""#);
    for (name, value) in [
        ("gha_assigned_jobs", 1),
        ("gha_running_jobs", 1),
        ("gha_busy_runners", 1),
        ("gha_idle_runners", 1),
        ("gha_registered_runners", 2),
        ("gha_min_runners", 1),
        ("gha_max_runners", 10),
        ("gha_desired_runners", 2),
        ("gha_started_jobs_total", 1),
        ("gha_job_startup_duration_seconds_count", 1),
    ] {
        let line = format!("{name}{{{set}}} {value}");
        assert!(metrics.lines().any(|l| l == line), "no `{line}` in\n{metrics}");
    }
}

#[tokio::test]
async fn a_new_template_replaces_idle_runners_one_at_a_time() {
    lab("template", async |lab| {
        let github = github(lab).await;
        let _controller = lab.start();
        let manifest = Manifest::sample(&github.config_url("acme")).spec(json!({
            "minRunners": 3, "maxRunners": 4, "disruption": {"maxUnavailable": 1},
        }));
        lab.apply(&manifest).await;
        lab.until_phases("linux", (0, 3, 0)).await;
        let job = github.queue_job(JobSpec::new("acme/app", ["linux"]));
        lab.until_phases("linux", (0, 3, 1)).await;
        let busy = github.look(|s| s.job(job).unwrap().runner.clone().unwrap().name);
        let record = lab.record("linux");

        let changed = manifest.docker(json!({"env": [{"name": "GENERATION", "value": "two"}]}));
        lab.apply(&changed).await;
        lab.until("linux", "the idle runners are of the new template", |set| {
            let status = set.status.as_ref().unwrap();
            let outdated: Vec<&str> =
                status.runners.iter().filter(|r| r.outdated).map(|r| r.name.as_str()).collect();
            phases(set) == (0, 3, 1) && outdated == [busy.as_str()] && is(set, "Reconciling", "False", None)
        })
        .await;
        for (runner, container) in lab.containers().await {
            let environment = lab.environment(&container).await;
            let new = environment.contains(&"GENERATION=two".to_owned());
            assert_eq!(new, runner != busy, "{runner}");
        }
        assert_eq!(lab.timeline.count("create"), 7);
        record.assert_consistent(3, 4);
        for status in record.statuses() {
            let there = status.idle_runners + status.busy_runners;
            assert!(there >= 3, "one idle runner at a time is missing: {status:?}");
        }
        github.finish_job(job, JobResult::Succeeded).unwrap();
        lab.until_phases("linux", (0, 3, 0)).await;
    })
    .await;
}

#[tokio::test]
async fn what_dies_is_replaced_and_what_is_idle_for_too_long_is_renewed() {
    lab("renewed", async |lab| {
        let github = github(lab).await;
        let _controller = lab.start();
        let manifest = Manifest::sample(&github.config_url("acme")).spec(json!({"minRunners": 1}));
        lab.apply(&manifest).await;
        lab.until_phases("linux", (0, 1, 0)).await;
        let containers = lab.containers().await;
        lab.kill_container(containers.values().next().unwrap()).await;
        lab.timeline
            .until("another one is started", |events| {
                events.iter().filter(|e| e.action == "start").count() == 2
            })
            .await;
        lab.until_phases("linux", (0, 1, 0)).await;

        lab.apply(&manifest.spec(json!({"timeouts": {"idle": "2s"}}))).await;
        lab.timeline
            .until("the idle one is renewed", |events| {
                events.iter().filter(|e| e.action == "destroy").count() == 2
                    && events.iter().filter(|e| e.action == "start").count() >= 3
            })
            .await;
        github.wait_until(PATIENCE, |s| s.runners().count() == 1).await.unwrap();
    })
    .await;
}
