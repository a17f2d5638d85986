//! Runners that fail: before a job they are tried again ever more slowly, under a job they are not.

use std::collections::BTreeSet;
use std::time::Duration;

use harness::{Manifest, PATIENCE, condition, github, is, lab};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use testkit::github::{DEFAULT_TOKEN, Endpoint, Fault, JobSpec, JobStatus, SimGithub};

/// The third start in a row waits at least so long, the fourth twice that.
const FIRST_PAUSE: SignedDuration = SignedDuration::from_secs(5);
/// When the next try is, is told in whole seconds.
const ROUNDING: SignedDuration = SignedDuration::from_secs(1);

#[tokio::test]
async fn a_runner_that_crashes_is_tried_ever_more_slowly_until_it_is_mended() {
    lab("crashes", async |lab| {
        let github = github(lab).await;
        let _controller = lab.start();
        let manifest = Manifest::sample(&github.config_url("acme"));
        let broken = json!({"command": ["/bin/sh", "-c", "echo no such disk >&2; exit 1"]});
        lab.apply(&manifest.clone().docker(broken)).await;
        let job = github.queue_job(JobSpec::new("acme/app", ["linux"]).lasting(Duration::ZERO));
        let set = lab
            .until("linux", "three starts in a row failed, each with what it printed", |set| {
                let failures = set.status.as_ref().map_or(&[][..], |s| &s.recent_failures);
                is(set, "DemandMet", "False", Some("StartFailures"))
                    && condition(set, "DemandMet").unwrap().message.contains("3 starts in a row failed")
                    && failures.len() == 3
                    && failures.iter().all(|f| f.message.contains("no such disk"))
            })
            .await;
        let failures = set.status.as_ref().unwrap().recent_failures.clone();
        assert!(failures.iter().all(|f| (f.reason.as_str(), f.exit_code) == ("EndedWithoutJob", Some(1))));
        let names: BTreeSet<&str> = failures.iter().map(|f| f.runner.as_str()).collect();
        assert_eq!(names.len(), 3, "each has a name of its own");

        let (starts, deaths) = (lab.timeline.all("start"), lab.timeline.all("die"));
        assert_eq!(starts.len(), 3);
        assert!(starts[2].at.duration_since(deaths[1].at) >= FIRST_PAUSE, "{starts:?} {deaths:?}");
        let message = &condition(&set, "DemandMet").unwrap().message;
        let (_, next) = message.rsplit_once("the next try is at ").expect(message);
        let next: Timestamp = next.parse().unwrap();
        assert!(next.duration_since(deaths[2].at) >= FIRST_PAUSE * 2 - ROUNDING, "{message} {deaths:?}");
        github.wait_until(PATIENCE, |s| s.runners().count() == 0).await.unwrap();

        lab.apply(&manifest).await;
        github.wait_until(PATIENCE, |s| s.job(job).unwrap().status == JobStatus::Completed).await.unwrap();
        lab.until_is("linux", "DemandMet", "True", None).await;
        lab.until_phases("linux", (0, 0, 0)).await;
        assert_eq!(lab.timeline.count("create"), 4);
    })
    .await;
}

#[tokio::test]
async fn a_start_that_fails_is_one_line_of_the_log_and_one_event() {
    lab("one-line", async |lab| {
        let github = github(lab).await;
        let controller = lab.start();
        github.inject(Fault::status(Endpoint::JitConfig, 500));
        lab.apply(&Manifest::sample(&github.config_url("acme"))).await;
        github.queue_job(JobSpec::new("acme/app", ["linux"]).lasting(Duration::ZERO));
        let set = lab
            .until("linux", "two starts failed and the demand says so", |set| {
                set.status.as_ref().is_some_and(|s| s.recent_failures.len() >= 2)
                    && is(set, "DemandMet", "False", Some("StartFailures"))
            })
            .await;
        let log = controller.log();
        let warned: Vec<&str> = log.lines().filter(|line| line.contains(" WARN ")).collect();
        for failure in &set.status.as_ref().unwrap().recent_failures {
            let lines = warned.iter().filter(|line| line.contains(&failure.runner)).count();
            assert_eq!(lines, 1, "{}: {warned:#?}", failure.runner);
        }
        lab.event("linux", "StartFailed").await;
        let warnings: Vec<_> =
            lab.events("linux").await.into_iter().filter(|e| e.type_.as_deref() == Some("Warning")).collect();
        assert_eq!(warnings.len(), 1, "{warnings:#?}");
    })
    .await;
}

#[tokio::test]
async fn a_runner_that_ends_well_without_a_job_is_told_with_what_it_printed() {
    lab("idle-end", async |lab| {
        let github = github(lab).await;
        let _controller = lab.start();
        let broken = json!({"command": ["/bin/sh", "-c", "echo nothing to do"]});
        let manifest = Manifest::sample(&github.config_url("acme")).spec(json!({"minRunners": 1}));
        lab.apply(&manifest.docker(broken)).await;
        let set = lab
            .until("linux", "it is a failure", |set| {
                set.status.as_ref().is_some_and(|s| !s.recent_failures.is_empty())
            })
            .await;
        let failure = &set.status.as_ref().unwrap().recent_failures[0];
        assert_eq!((failure.reason.as_str(), failure.exit_code), ("EndedWithoutJob", Some(0)));
        assert!(failure.message.ends_with("it printed last: nothing to do"), "{}", failure.message);
    })
    .await;
}

#[tokio::test]
async fn a_rate_limit_is_waited_out_before_any_removal_is_asked_for_again() {
    lab("limited", async |lab| {
        let limit = Duration::from_secs(20);
        let github = github(lab).await;
        let _controller = lab.start();
        let manifest = Manifest::sample(&github.config_url("acme")).spec(json!({"minRunners": 3}));
        lab.apply(&manifest).await;
        lab.until_phases("linux", (0, 3, 0)).await;
        github.inject(Fault::too_many_requests(Endpoint::RemoveRunner, limit));
        lab.apply(&manifest.spec(json!({"minRunners": 3, "suspend": true}))).await;
        let asked = github.wait_until(PATIENCE, |s| s.requests().count(Endpoint::RemoveRunner) > 0).await;
        asked.unwrap();
        lab.until_phases("linux", (0, 3, 0)).await;
        github.clear_faults();
        lab.until_phases("linux", (0, 0, 0)).await;
        let removals = github.requests(Endpoint::RemoveRunner);
        let (refused, done): (Vec<_>, Vec<_>) = removals.iter().partition(|r| r.status == Some(429));
        assert_eq!((done.len(), refused.len() <= 3), (3, true), "{removals:?}");
        let waited = done[0].at.duration_since(refused[0].at).unsigned_abs();
        assert!(waited >= limit, "asked again after {waited:?}");
    })
    .await;
}

/// What one set is told holds for the other, which has the same credential.
#[tokio::test]
async fn a_start_that_github_s_rate_limit_refuses_is_put_off_and_no_failure() {
    lab("minting-limited", async |lab| {
        let github = github(lab).await;
        let _controller = lab.start();
        let manifest = Manifest::sample(&github.config_url("acme"));
        lab.apply(&manifest).await;
        lab.apply(&manifest.named("other")).await;
        for name in ["linux", "other"] {
            lab.until_is(name, "Ready", "True", None).await;
        }
        let limit = Duration::from_secs(15);
        github.inject(Fault::too_many_requests(Endpoint::JitConfig, limit).times(1));
        github.queue_job(JobSpec::new("acme/app", ["linux"]).lasting(Duration::ZERO));
        let refused = github.wait_for(PATIENCE, |s| {
            s.requests().to(Endpoint::JitConfig).find(|r| r.status == Some(429)).map(|r| r.at)
        });
        let refused = refused.await.unwrap();
        let set = lab.until_is("linux", "DemandMet", "False", Some("RateLimited")).await;
        let told = set.status.unwrap();
        assert!(told.recent_failures.is_empty() && told.runners.is_empty(), "{told:?}");
        // The other set cannot start a runner either: it asks for no job, which waits at GitHub until the limit passes.
        let deaf = github.wait_for(PATIENCE, |s| {
            let capacity = s.scale_set("other")?.session.as_ref()?.capacity;
            (capacity == Some(0)).then(jiff::Timestamp::now)
        });
        let after = deaf.await.unwrap().duration_since(refused).unsigned_abs();
        assert!(after < limit, "asked for jobs until {after:?} after the limit was told");
        let waiting = github.queue_job(JobSpec::new("acme/app", ["other"]).lasting(Duration::ZERO));
        let assigned = github.wait_for(PATIENCE, |s| {
            (s.job(waiting).unwrap().status != JobStatus::Queued).then(jiff::Timestamp::now)
        });
        let waited = assigned.await.unwrap().duration_since(refused).unsigned_abs();
        assert!(waited >= limit, "assigned after {waited:?}");
        github.wait_until(PATIENCE, |s| s.jobs_in(JobStatus::Completed) == 2).await.unwrap();
        let minted = github.requests(Endpoint::JitConfig);
        assert_eq!(minted.len(), 3, "one was refused: {minted:?}");
        let waited = minted[1].at.duration_since(refused).unsigned_abs();
        assert!(waited >= limit, "asked again after {waited:?}");
        for name in ["linux", "other"] {
            let set = lab.until_is(name, "DemandMet", "True", None).await;
            assert!(set.status.unwrap().recent_failures.is_empty());
        }
    })
    .await;
}

#[tokio::test]
async fn a_runner_that_dies_under_its_job_is_told_and_frees_its_slot() {
    lab("lost", async |lab| {
        lab.secret("github", [("github_token", DEFAULT_TOKEN)]).await;
        // After this, GitHub takes a runner for lost. Until then, it has the job.
        let github = SimGithub::builder().small_jit().silence(Duration::from_secs(10)).start().await.unwrap();
        let _controller = lab.start();
        let manifest = Manifest::sample(&github.config_url("acme")).spec(json!({"maxRunners": 1}));
        lab.apply(&manifest).await;
        lab.until_is("linux", "Ready", "True", None).await;
        let first = github.queue_job(JobSpec::new("acme/app", ["linux"]));
        lab.until_phases("linux", (0, 0, 1)).await;
        let second = github.queue_job(JobSpec::new("acme/app", ["linux"]).lasting(Duration::ZERO));
        github.assign_jobs("linux", 2).unwrap();
        lab.until_is("linux", "DemandMet", "False", Some("AtMaxRunners")).await;
        let lost = github.look(|s| s.job(first).unwrap().runner.clone().unwrap());

        lab.kill_container(&lab.containers().await[&lost.name]).await;
        let set = lab
            .until("linux", "the loss is told, with what was printed last", |set| {
                let failures = &set.status.as_ref().unwrap().recent_failures;
                failures.first().is_some_and(|f| f.message.contains("Running job"))
            })
            .await;
        let failure = &set.status.as_ref().unwrap().recent_failures[0];
        let told = (failure.runner.as_str(), failure.reason.as_str(), failure.exit_code);
        assert_eq!(told, (lost.name.as_str(), "JobLost", Some(137)));
        github.wait_until(PATIENCE, |s| s.job(second).unwrap().status == JobStatus::Completed).await.unwrap();
        let running = github.look(|s| s.job(first).unwrap().status);
        assert_eq!(running, JobStatus::Running, "the slot is free before GitHub knows of the loss");

        github.wait_until(PATIENCE, |s| s.runners().count() == 0).await.unwrap();
        let removals = github.requests(Endpoint::RemoveRunner);
        let of_lost = |path: &str| path.ends_with(&format!("/{}", lost.id));
        assert!(removals.iter().any(|r| of_lost(&r.path)), "its removal was asked for: {removals:?}");
        lab.until_phases("linux", (0, 0, 0)).await;
        assert_eq!(lab.containers().await.len(), 0);
        let started: Vec<String> = lab.timeline.all("start").into_iter().map(|e| e.runner).collect();
        assert!(started.len() == 2 && started[0] == lost.name && started[1] != lost.name, "{started:?}");
    })
    .await;
}
