//! The controller dies or is stopped, at any moment, and another one takes over.

use std::time::Duration;

use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{CreateContainerOptions, StartContainerOptions};
use harness::{Controller, IMAGE, Lab, Manifest, PATIENCE, eventually, github, lab, phases};
use paddock::api::status::RunnerPhase;
use paddock::runner::Identity;
use serde_json::json;
use testkit::github::{Endpoint, Fault, JobResult, JobSpec, JobStatus, SimGithub};

/// A controller that starts hears of new jobs within this, whatever the one before left behind.
const LISTENING_WITHIN: Duration = Duration::from_secs(20);
/// A controller that is asked to stop is gone within this.
const STOPPED_WITHIN: Duration = Duration::from_secs(10);

/// From the start of the controller's process to its first poll.
async fn time_to_listen(github: &SimGithub, controller: &Controller) -> Duration {
    let polled_at = github.wait_for(PATIENCE, |s| {
        let mut polls = s.requests().to(Endpoint::Poll);
        polls.find(|r| r.at > controller.started_at).map(|r| r.at)
    });
    let polled_at = polled_at.await.unwrap();
    let took = polled_at.duration_since(controller.started_at).unsigned_abs();
    println!("listening after {took:?}");
    took
}

/// The session that the status names.
async fn session(lab: &Lab) -> Option<String> {
    let status = lab.get("linux").await.status.unwrap();
    status.session.map(|session| session.id)
}

#[tokio::test]
async fn a_killed_controller_is_followed_by_one_that_knows_its_runners() {
    lab("killed", async |lab| {
        let github = github(lab).await;
        let first = lab.start();
        let manifest = Manifest::sample(&github.config_url("acme")).spec(json!({"minRunners": 2}));
        lab.apply(&manifest).await;
        lab.until_phases("linux", (0, 2, 0)).await;
        let jobs = github.queue_jobs(3, &JobSpec::new("acme/app", ["linux"]));
        lab.until_phases("linux", (0, 2, 3)).await;
        let containers = lab.containers().await;
        let runners = |job| github.look(|s| s.job(job).unwrap().runner.clone());
        let assigned: Vec<_> = jobs.iter().map(|job| runners(*job)).collect();
        let abandoned = session(lab).await;

        first.kill().await;
        tokio::time::sleep(Duration::from_secs(5)).await; // the outage
        let second = lab.start();
        let took = time_to_listen(&github, &second).await;
        assert!(took <= LISTENING_WITHIN, "listening after {took:?}");
        lab.until("linux", "the new controller shows the five", |set| {
            let session = set.status.as_ref().and_then(|s| s.session.as_ref());
            session.is_some_and(|s| Some(&s.id) != abandoned.as_ref()) && phases(set) == (0, 2, 3)
        })
        .await;
        assert_eq!(lab.containers().await, containers);

        for job in &jobs {
            github.finish_job(*job, JobResult::Succeeded).unwrap();
        }
        lab.until_phases("linux", (0, 2, 0)).await;
        assert_eq!(lab.timeline.count("create"), 5, "nothing was started twice");
        for (job, runner) in jobs.into_iter().zip(assigned) {
            let (attempts, now) = github.look(|s| {
                let job = s.job(job).unwrap();
                (job.attempts, job.runner.clone())
            });
            assert_eq!((attempts, now), (1, runner));
        }
        let job = github.queue_job(JobSpec::new("acme/app", ["linux"]).lasting(Duration::ZERO));
        github.wait_until(PATIENCE, |s| s.job(job).unwrap().status == JobStatus::Completed).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_controller_killed_amid_a_burst_is_followed_by_one_that_meets_the_demand() {
    lab("burst-killed", async |lab| {
        let github = github(lab).await;
        let first = lab.start();
        // What was made and not started when the controller died is given up after this.
        let manifest = Manifest::sample(&github.config_url("acme"))
            .spec(json!({"maxRunners": 6, "timeouts": {"start": "5s"}, "scaleDown": {"delay": "1s"}}));
        lab.apply(&manifest).await;
        lab.until_is("linux", "Ready", "True", None).await;
        let record = lab.record("linux");
        github.queue_jobs(6, &JobSpec::new("acme/app", ["linux"]).lasting(Duration::from_secs(1)));
        lab.timeline
            .until("the first containers are made", |events| {
                events.iter().filter(|e| e.action == "create").count() >= 2
            })
            .await;
        first.kill().await;
        let _second = lab.start();
        github.wait_until(PATIENCE, |s| s.jobs_in(JobStatus::Completed) == 6).await.unwrap();
        assert!(github.look(|s| s.jobs().all(|j| j.result == Some(JobResult::Succeeded))));
        // What the first controller showed last may be this already.
        let none = async || lab.containers().await.is_empty().then_some(());
        eventually("no container is left", PATIENCE, none).await;
        lab.until_phases("linux", (0, 0, 0)).await;
        record.assert_consistent(0, 6);
    })
    .await;
}

#[tokio::test]
async fn a_stopped_controller_closes_its_session_and_leaves_its_runners() {
    lab("stopped", async |lab| {
        let github = github(lab).await;
        let first = lab.start();
        let manifest = Manifest::sample(&github.config_url("acme")).spec(json!({"minRunners": 1}));
        lab.apply(&manifest).await;
        lab.until_phases("linux", (0, 1, 0)).await;
        let job = github.queue_job(JobSpec::new("acme/app", ["linux"]));
        lab.until_phases("linux", (0, 1, 1)).await;
        let containers = lab.containers().await;

        let (status, took) = first.terminate().await;
        assert!(status.success(), "{status}");
        assert!(took <= STOPPED_WITHIN, "gone after {took:?}");
        assert!(github.look(|s| s.scale_set("linux").unwrap().session.is_none()));
        assert_eq!(session(lab).await, None, "nothing is left to be cleared");
        assert_eq!(lab.containers().await, containers);

        github.finish_job(job, JobResult::Succeeded).unwrap();
        let second = lab.start();
        let took = time_to_listen(&github, &second).await;
        assert!(took <= LISTENING_WITHIN, "listening after {took:?}");
        lab.until_phases("linux", (0, 1, 0)).await;
        lab.timeline
            .until("the container that ended meanwhile is gone", |events| {
                events.iter().any(|e| e.action == "destroy")
            })
            .await;
        assert_eq!(lab.timeline.count("create"), 2);
    })
    .await;
}

#[tokio::test]
async fn what_was_made_and_not_started_is_left_alone_if_github_says_that_it_has_a_job() {
    lab("late-start", async |lab| {
        let github = github(lab).await;
        github.create_scale_set("acme", "linux").unwrap();
        let job = github.queue_job(JobSpec::new("acme/app", ["linux"]));
        // The controller before asked for this start, and its engine has not come to it yet. GitHub has heard of it, and
        // its word for that does not come through.
        github.inject(Fault::status(Endpoint::Poll, 503));
        let jit = github.mint_jit("linux", "linux-late0001").unwrap();
        github.assign_jobs("linux", 1).unwrap();
        github.start_job(job, "linux-late0001").unwrap();
        let manifest =
            Manifest::sample(&github.config_url("acme")).spec(json!({"scaleDown": {"delay": "1s"}}));
        lab.apply(&manifest).await;
        let uid = lab.get("linux").await.metadata.uid.unwrap();
        let container = made(lab, "linux-late0001", &uid, &jit).await;

        let _controller = lab.start();
        github
            .wait_until(PATIENCE, |s| s.requests().to(Endpoint::RemoveRunner).any(|r| r.status == Some(400)))
            .await
            .unwrap();
        assert!(lab.containers().await.contains_key("linux-late0001"), "GitHub refused");
        github.clear_faults_at(Endpoint::Poll);
        lab.docker.start_container(&container, None::<StartContainerOptions>).await.unwrap();
        lab.until("linux", "it is taken for what it is", |set| {
            let status = set.status.as_ref().unwrap();
            status.runners.iter().any(|r| r.name == "linux-late0001" && r.phase != RunnerPhase::Failed)
        })
        .await;
        github.wait_until(PATIENCE, |s| s.runners().any(|r| r.connected)).await.unwrap();
        github.finish_job(job, JobResult::Succeeded).unwrap();
        lab.until_phases("linux", (0, 0, 0)).await;
        let ends = lab.timeline.all("die");
        let end = ends.iter().find(|e| e.runner == "linux-late0001").unwrap();
        assert_eq!(end.exit_code, Some(0), "it came to its own end");
    })
    .await;
}

/// A runner's container that nobody has started yet; gives its id.
async fn made(lab: &Lab, runner: &str, uid: &str, jit: &str) -> String {
    let scale_set = format!("{}/linux", lab.namespace);
    let labels = [
        (Identity::CLUSTER, lab.cluster.as_str()),
        (Identity::SCALE_SET_UID, uid),
        (Identity::SCALE_SET, &scale_set),
        (Identity::RUNNER, runner),
        (Identity::BACKEND, "docker"),
        (Identity::TEMPLATE_HASH, "of-an-earlier-template"),
    ];
    let body = ContainerCreateBody {
        image: Some(IMAGE.to_owned()),
        env: Some(vec![format!("ACTIONS_RUNNER_INPUT_JITCONFIG={jit}")]),
        labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
        host_config: Some(HostConfig { network_mode: Some("host".to_owned()), ..HostConfig::default() }),
        ..ContainerCreateBody::default()
    };
    lab.docker.create_container(None::<CreateContainerOptions>, body).await.unwrap().id
}
