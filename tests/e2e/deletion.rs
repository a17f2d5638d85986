//! A scale set is deleted: jobs finish, nothing is left, and it ends whatever state GitHub is in.

use std::time::Duration;

use harness::{Lab, Manifest, PATIENCE, condition, github, is, lab, signal};
use jiff::Timestamp;
use serde_json::json;
use testkit::github::{Endpoint, Fault, JobResult, JobSpec, JobStatus, SimGithub};

/// A scale set with one busy and two idle runners; gives the busy one's name.
async fn one_busy_two_idle(lab: &Lab, github: &SimGithub, drain: &str) -> String {
    let manifest = Manifest::sample(&github.config_url("acme"))
        .spec(json!({"minRunners": 2, "timeouts": {"drain": drain}}));
    lab.apply(&manifest).await;
    lab.until_phases("linux", (0, 2, 0)).await;
    let job = github.queue_job(JobSpec::new("acme/app", ["linux"]));
    lab.until_phases("linux", (0, 2, 1)).await;
    github.look(|s| s.job(job).unwrap().runner.clone().unwrap().name)
}

#[tokio::test]
async fn the_busy_runner_finishes_and_nothing_remains() {
    lab("deleted", async |lab| {
        let github = github(lab).await;
        let _controller = lab.start();
        let busy = one_busy_two_idle(lab, &github, "2h").await;

        lab.delete("linux").await;
        lab.timeline
            .until("the idle runners are gone", |events| {
                events.iter().filter(|e| e.action == "destroy").count() == 2
            })
            .await;
        let left = lab.containers().await;
        assert_eq!(left.keys().collect::<Vec<_>>(), [&busy]);
        let set = lab.until_is("linux", "Ready", "False", Some("Draining")).await;
        assert!(is(&set, "Reconciling", "True", Some("Draining")));
        // What it waits for can be read though its controller may go.
        let finalizer = &set.metadata.finalizers.as_ref().unwrap()[0];
        let said = [condition(&set, "Ready").unwrap().message.clone(), lab.event("linux", "Draining").await];
        assert!(said.iter().all(|said| said.contains(finalizer)), "{said:?}");
        lab.until_phases("linux", (0, 0, 1)).await;

        let job = github.look(|s| s.jobs().next().unwrap().id);
        github.finish_job(job, JobResult::Succeeded).unwrap();
        lab.until_gone("linux", PATIENCE).await;
        assert_eq!(lab.containers().await.len(), 0);
        let (runners, sets) = github.look(|s| (s.runners().count(), s.scale_sets().count()));
        assert_eq!((runners, sets), (0, 0));
        lab.event("linux", "Deleted").await;
    })
    .await;
}

/// GitHub refused to let go of it, and is asked again only after half a minute.
#[tokio::test]
async fn nothing_waits_once_a_runner_has_ended_whose_removal_github_refused() {
    lab("deleted-refused", async |lab| {
        let github = github(lab).await;
        let _controller = lab.start();
        lab.apply(&Manifest::sample(&github.config_url("acme"))).await;
        let job = github.queue_job(JobSpec::new("acme/app", ["linux"]));
        lab.until_phases("linux", (0, 0, 1)).await;
        lab.delete("linux").await;
        let refused = |r: &testkit::github::Request| r.status == Some(400);
        let asked =
            github.wait_until(PATIENCE, |s| s.requests().to(Endpoint::RemoveRunner).any(refused)).await;
        asked.expect("it is asked whether the runner is busy");
        github.finish_job(job, JobResult::Succeeded).unwrap();
        lab.until_gone("linux", Duration::from_secs(15)).await;
        assert_eq!(lab.containers().await.len(), 0);
    })
    .await;
}

#[tokio::test]
async fn one_odd_answer_of_github_kills_no_busy_runner() {
    lab("deleted-odd", async |lab| {
        let github = github(lab).await;
        let first = lab.start();
        lab.apply(&Manifest::sample(&github.config_url("acme"))).await;
        let job = github.queue_job(JobSpec::new("acme/app", ["linux"]));
        lab.until_phases("linux", (0, 0, 1)).await;
        first.kill().await;

        // The next controller has to ask by which id the runner is registered.
        github.inject(Fault::answer(Endpoint::GetRunner, 200, r#"{"count": 0, "value": []}"#).times(1));
        github.inject(Fault::status(Endpoint::RemoveRunner, 404).times(1));
        github.inject(Fault::answer(Endpoint::RemoveRunner, 200, "<p>back soon</p>").times(1));
        let _second = lab.start();
        lab.delete("linux").await;
        let refused = |r: &testkit::github::Request| r.status == Some(400);
        let asked =
            github.wait_until(PATIENCE, |s| s.requests().to(Endpoint::RemoveRunner).any(refused)).await;
        asked.expect("GitHub itself is asked in the end");
        assert_eq!(lab.timeline.count("die"), 0, "the job runs on");

        github.finish_job(job, JobResult::Succeeded).unwrap();
        lab.until_gone("linux", PATIENCE).await;
        assert_eq!(lab.containers().await.len(), 0);
    })
    .await;
}

#[tokio::test]
async fn with_github_down_it_ends_at_the_deadline_and_says_what_is_left() {
    lab("deleted-down", async |lab| {
        let github = github(lab).await;
        let _controller = lab.start();
        let busy = one_busy_two_idle(lab, &github, "10s").await;
        let id = github.look(|s| s.scale_set("linux").unwrap().id);

        github.go_down();
        let deleted_at = Timestamp::now();
        lab.delete("linux").await;
        lab.until_gone("linux", PATIENCE).await;
        assert_eq!(lab.containers().await.len(), 0);
        let deaths = lab.timeline.all("die");
        let died_at = deaths.iter().find(|e| e.runner == busy).unwrap().at;
        // The deadline counts from a whole second.
        let waited = died_at.duration_since(deleted_at).unsigned_abs();
        assert!(waited >= Duration::from_secs(9), "the busy runner was given {waited:?}");
        let note = lab.event("linux", "LeftBehind").await;
        assert!(note.contains(&format!("scale set {id} at GitHub")), "{note}");
        assert!(note.contains("the registrations of 3 runners"), "{note}");
    })
    .await;
}

#[tokio::test]
async fn one_that_was_made_anew_unseen_takes_the_place_of_the_one_before() {
    lab("deleted-anew", async |lab| {
        let github = github(lab).await;
        let controller = lab.start();
        let manifest = Manifest::sample(&github.config_url("acme"));
        lab.apply(&manifest).await;
        lab.until_is("linux", "Listening", "True", None).await;

        signal(controller.pid(), "STOP").await;
        lab.delete_by_force("linux").await;
        lab.apply(&manifest).await;
        signal(controller.pid(), "CONT").await;
        lab.until_is("linux", "Listening", "True", None).await;
        assert!(!controller.log().contains("another message session is open"), "the session was handed on");
        let job = github.queue_job(JobSpec::new("acme/app", ["linux"]).lasting(Duration::ZERO));
        github.wait_until(PATIENCE, |s| s.job(job).unwrap().status == JobStatus::Completed).await.unwrap();
        lab.delete("linux").await;
        lab.until_gone("linux", PATIENCE).await;
        assert_eq!(lab.containers().await.len(), 0);
    })
    .await;
}

#[tokio::test]
async fn one_that_never_registered_goes_at_once() {
    lab("deleted-never", async |lab| {
        let github = github(lab).await;
        lab.secret("github", [("github_token", "ghp_wrong")]).await;
        let _controller = lab.start();
        lab.apply(&Manifest::sample(&github.config_url("acme"))).await;
        lab.until_is("linux", "Registered", "False", Some("AuthRejected")).await;
        lab.delete("linux").await;
        lab.until_gone("linux", Duration::from_secs(10)).await;
    })
    .await;
}

#[tokio::test]
async fn one_whose_secret_is_gone_ends_by_what_the_controller_still_knows() {
    lab("deleted-secret", async |lab| {
        let github = github(lab).await;
        let _controller = lab.start();
        one_busy_two_idle(lab, &github, "2h").await;
        lab.delete_secret("github").await;
        lab.until_is("linux", "Stalled", "True", Some("SecretMissing")).await;
        lab.delete("linux").await;
        let job = github.look(|s| s.jobs().next().unwrap().id);
        github.finish_job(job, JobResult::Succeeded).unwrap();
        lab.until_gone("linux", PATIENCE).await;
        assert_eq!(lab.containers().await.len(), 0);
        let (runners, sets) = github.look(|s| (s.runners().count(), s.scale_sets().count()));
        assert_eq!((runners, sets), (0, 0));
    })
    .await;
}

#[tokio::test]
async fn one_whose_secret_was_never_known_ends_at_the_deadline() {
    lab("deleted-blind", async |lab| {
        let github = github(lab).await;
        let first = lab.start();
        one_busy_two_idle(lab, &github, "10s").await;
        first.kill().await;
        lab.delete_secret("github").await;

        let _second = lab.start();
        lab.until_is("linux", "Stalled", "True", Some("SecretMissing")).await;
        lab.delete("linux").await;
        lab.until_gone("linux", PATIENCE).await;
        assert_eq!(lab.containers().await.len(), 0);
        assert_eq!(github.look(|s| s.jobs_in(JobStatus::Running)), 1, "GitHub was not asked");
        let note = lab.event("linux", "LeftBehind").await;
        assert!(note.contains("no credentials for GitHub"), "{note}");
    })
    .await;
}
