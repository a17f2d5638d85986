//! What GitHub's message queue does wrong: no runner is lost, none is started twice, the demand is met.

use std::time::Duration;

use harness::{Controller, Lab, Manifest, PATIENCE, github, lab, phases};
use serde_json::json;
use testkit::github::{Endpoint, Fault, JobResult, JobSpec, JobStatus, SimGithub, State};

/// A fault, by name, and how it is brought about.
type Trouble = (&'static str, fn(&SimGithub));

const TROUBLES: [Trouble; 11] = [
    ("nothing at all", |_| {}),
    ("a message is repeated", |github| {
        github.repeat_last_batch("linux").unwrap();
    }),
    ("a field is null", |github| {
        let fields = ["jobDisplayName", "requestLabels", "ownerName"];
        github.inject(Fault::null_fields(Endpoint::Poll, fields).times(3));
    }),
    ("the statistics are null", |github| {
        github.inject(Fault::null_fields(Endpoint::Poll, ["statistics"]).times(1));
    }),
    ("the statistics are all zero", |github| {
        github.zero_statistics("linux", 1).unwrap();
    }),
    ("an empty 200", |github| github.inject(Fault::empty(Endpoint::Poll).times(1))),
    ("a 202", |github| {
        github.inject(Fault::answer(Endpoint::Poll, 202, "").times(1));
    }),
    ("the answer is lost", |github| {
        github.inject(Fault::new(Endpoint::Poll, testkit::github::Effect::LoseAnswer).times(1));
    }),
    ("the token expires in mid-poll", |github| {
        github.expire_queue_token("linux").unwrap();
    }),
    ("the session expires", |github| {
        github.expire_session("linux").unwrap();
    }),
    ("the session vanishes", |github| {
        github.drop_session("linux").unwrap();
    }),
];

#[tokio::test]
async fn no_trouble_of_the_queue_loses_a_runner_or_starts_one_twice() {
    lab("queue", async |lab| {
        let github = github(lab).await;
        let _controller = lab.start();
        let record = lab.record("linux");
        lab.apply(&Manifest::sample(&github.config_url("acme"))).await;
        lab.until_is("linux", "Listening", "True", None).await;
        for (done, (trouble, bring_about)) in TROUBLES.into_iter().enumerate() {
            bring_about(&github);
            let job = JobSpec::new("acme/app", ["linux"]).lasting(Duration::from_millis(200));
            let job = github.queue_job(job);
            github
                .wait_until(PATIENCE, |s| s.job(job).unwrap().status == JobStatus::Completed)
                .await
                .unwrap_or_else(|waited| panic!("{trouble}: {waited}"));
            lab.timeline
                .until(trouble, |events| events.iter().filter(|e| e.action == "destroy").count() == done + 1)
                .await;
            assert_eq!(lab.timeline.count("create"), done + 1, "{trouble}");
        }
        let all_well = |s: &testkit::github::State| {
            s.jobs().all(|j| j.attempts == 1 && j.result == Some(JobResult::Succeeded))
        };
        assert!(github.look(all_well));
        lab.until_phases("linux", (0, 0, 0)).await;
        lab.until_is("linux", "Ready", "True", None).await;
        record.assert_consistent(0, 10);
    })
    .await;
}

/// A scale set with one idle runner, and the controller that keeps it.
async fn with_a_spare(lab: &Lab) -> (SimGithub, Controller) {
    let github = github(lab).await;
    let controller = lab.start();
    let manifest = Manifest::sample(&github.config_url("acme")).spec(json!({"minRunners": 1}));
    lab.apply(&manifest).await;
    lab.until_phases("linux", (0, 1, 0)).await;
    (github, controller)
}

/// The idle runner takes a job and is done with it, whether the controller hears of that or not.
async fn give_the_spare_a_short_job(github: &SimGithub) {
    let job = github.queue_job(JobSpec::new("acme/app", ["linux"]).lasting(Duration::ZERO));
    github.assign_jobs("linux", 1).unwrap();
    github.wait_until(PATIENCE, |s| s.job(job).unwrap().status == JobStatus::Completed).await.unwrap();
}

#[tokio::test]
async fn a_job_that_is_heard_of_late_is_no_failure() {
    lab("late-news", async |lab| {
        let (github, controller) = with_a_spare(lab).await;
        github.inject(Fault::answer(Endpoint::Poll, 202, "").times(1));
        github.inject(Fault::status(Endpoint::Poll, 503));
        let deaf =
            |s: &State| s.requests().to(Endpoint::Poll).next_back().is_some_and(|r| r.status == Some(503));
        github.wait_until(PATIENCE, deaf).await.unwrap();
        give_the_spare_a_short_job(&github).await;
        // No message tells of the runner's end: its registration is looked for, and a job has taken that along.
        github.wait_until(PATIENCE, |s| s.requests().to(Endpoint::GetRunner).count() > 0).await.unwrap();
        github.clear_faults_at(Endpoint::Poll);
        github.wait_until(PATIENCE, |s| s.scale_set("linux").unwrap().undelivered() == 0).await.unwrap();
        let set = lab.until_phases("linux", (0, 1, 0)).await;
        assert_eq!(set.status.unwrap().recent_failures, []);
        assert!(!controller.log().contains("runner failed"));
    })
    .await;
}

#[tokio::test]
async fn a_life_told_backwards_and_twice_changes_nothing() {
    lab("backwards", async |lab| {
        let (github, controller) = with_a_spare(lab).await;
        // One poll ends, the next is held back: meanwhile the spare takes a job and is done with it.
        github.inject(Fault::answer(Endpoint::Poll, 202, "").times(1));
        github.inject(Fault::delay(Endpoint::Poll, Duration::from_secs(4)).times(1));
        github
            .wait_until(PATIENCE, |s| {
                let mut polls = s.requests().to(Endpoint::Poll).rev();
                polls.next().is_some_and(|r| r.held) && polls.next().is_some_and(|r| r.status == Some(202))
            })
            .await
            .unwrap();
        github.reverse_next_batch("linux").unwrap();
        give_the_spare_a_short_job(&github).await;
        assert_eq!(github.look(|s| s.scale_set("linux").unwrap().undelivered()), 1);
        github.wait_until(PATIENCE, |s| s.scale_set("linux").unwrap().undelivered() == 0).await.unwrap();
        lab.until("linux", "the spare is replaced", |set| phases(set) == (0, 1, 0)).await;
        let log = controller.log();
        let heard = |what: &str| log.find(&format!("event={what}")).unwrap();
        assert!(heard("Completed") < heard("Started") && heard("Started") < heard("Assigned"));

        let job = github.queue_job(JobSpec::new("acme/app", ["linux"]));
        lab.until_phases("linux", (0, 1, 1)).await;
        github.repeat_last_batch("linux").unwrap();
        github.wait_until(PATIENCE, |s| s.scale_set("linux").unwrap().undelivered() == 0).await.unwrap();
        github.finish_job(job, JobResult::Succeeded).unwrap();
        lab.until_phases("linux", (0, 1, 0)).await;
        let more = lab
            .timeline
            .is_so_within(Duration::from_secs(3), |events| {
                events.iter().filter(|e| e.action == "create").count() > 3
            })
            .await;
        assert!(!more, "a spare, its replacement, and one for the second job");
    })
    .await;
}

/// More jobs than one message tells of, by GitHub's own measure.
const MANY: usize = 60;

#[tokio::test]
async fn demand_is_what_github_counts_and_not_what_a_message_tells_of() {
    lab("truncated", async |lab| {
        let github = github(lab).await;
        let _controller = lab.start();
        let manifest = Manifest::sample(&github.config_url("acme")).spec(json!({"maxRunners": 6}));
        lab.apply(&manifest).await;
        lab.until_is("linux", "Ready", "True", None).await;
        let record = lab.record("linux");
        let until_assigned = async |jobs: i32| {
            lab.until("linux", &format!("{jobs} jobs are assigned"), |set| {
                let status = set.status.as_ref().unwrap();
                status.demand.as_ref().is_some_and(|d| d.assigned_jobs == jobs) && status.desired_runners == 6
            })
            .await;
        };

        // The second message comes only after the controller has waited for the first to be acknowledged.
        github.limit_batch("linux", 2).unwrap();
        github.inject(Fault::hang(Endpoint::Acknowledge, PATIENCE));
        let jobs = github.queue_jobs(6, &JobSpec::new("acme/app", ["linux"]));
        github.wait_until(PATIENCE, |s| s.jobs_in(JobStatus::Running) == 6).await.unwrap();
        until_assigned(6).await;
        github.clear_faults();
        for status in record.statuses() {
            let assigned = status.demand.map(|d| d.assigned_jobs);
            assert!(matches!(assigned, None | Some(0 | 6)), "{assigned:?}");
        }

        github.limit_batch("linux", 50).unwrap();
        github.queue_jobs(MANY, &JobSpec::new("acme/app", ["linux"]).lasting(Duration::ZERO));
        github.assign_jobs("linux", 6 + MANY).unwrap();
        until_assigned(66).await;
        for job in jobs {
            github.finish_job(job, JobResult::Succeeded).unwrap();
        }
        github.wait_until(PATIENCE * 3, |s| s.jobs_in(JobStatus::Completed) == 6 + MANY).await.unwrap();
        lab.until_phases("linux", (0, 0, 0)).await;
        assert_eq!(lab.timeline.count("create"), 6 + MANY);
        record.assert_consistent(0, 6);
    })
    .await;
}

#[tokio::test]
async fn a_runner_that_took_a_job_unheard_of_is_not_removed_as_surplus() {
    lab("unheard", async |lab| {
        let github = github(lab).await;
        let _controller = lab.start();
        let manifest = Manifest::sample(&github.config_url("acme"))
            .spec(json!({"minRunners": 1, "scaleDown": {"delay": "0s"}}));
        lab.apply(&manifest).await;
        lab.until_phases("linux", (0, 1, 0)).await;

        // GitHub has no news for the controller, while the spare takes a job.
        github.inject(Fault::answer(Endpoint::Poll, 202, ""));
        let job = github.queue_job(JobSpec::new("acme/app", ["linux"]));
        github.assign_jobs("linux", 1).unwrap();
        github.wait_until(PATIENCE, |s| s.job(job).unwrap().status == JobStatus::Running).await.unwrap();
        let containers = lab.containers().await;
        lab.until_phases("linux", (0, 1, 0)).await;
        lab.scale("linux", 0).await;
        let set = lab.until_phases("linux", (0, 0, 1)).await;
        assert_eq!(set.status.unwrap().desired_runners, 0, "nothing was heard of the job");
        let removals: Vec<_> = github.requests(Endpoint::RemoveRunner).iter().map(|r| r.status).collect();
        assert_eq!(removals, [Some(400)], "GitHub refused");

        github.clear_faults();
        github.wait_until(PATIENCE, |s| s.scale_set("linux").unwrap().undelivered() == 0).await.unwrap();
        lab.until("linux", "the job is heard of", |set| {
            let runners = &set.status.as_ref().unwrap().runners;
            phases(set) == (0, 0, 1) && runners[0].job.is_some()
        })
        .await;
        assert_eq!(lab.containers().await, containers);
        assert_eq!(lab.timeline.count("die"), 0);
        github.finish_job(job, JobResult::Succeeded).unwrap();
        lab.until_phases("linux", (0, 0, 0)).await;
        assert_eq!(github.look(|s| s.job(job).unwrap().result), Some(JobResult::Succeeded));
        assert_eq!(lab.timeline.count("create"), 1);
        assert_eq!(github.requests(Endpoint::RemoveRunner).len(), 1);
    })
    .await;
}

/// For so long a stranger holds the session here; the way out is the same after a minute.
const CONFLICT: Duration = Duration::from_secs(8);

#[tokio::test]
async fn a_stranger_s_session_is_named_and_waited_out() {
    lab("conflict", async |lab| {
        let github = github(lab).await;
        let _controller = lab.start();
        lab.apply(&Manifest::sample(&github.config_url("acme"))).await;
        lab.until_is("linux", "Ready", "True", None).await;
        let first = github.queue_job(JobSpec::new("acme/app", ["linux"]));
        lab.until_phases("linux", (0, 0, 1)).await;

        github.drop_session("linux").unwrap();
        github.occupy_session("linux", "a-stranger").unwrap();
        let set = lab.until_is("linux", "Listening", "False", Some("SessionConflict")).await;
        let message = &harness::condition(&set, "Listening").unwrap().message;
        assert!(message.contains("a-stranger"), "{message}");
        let second = github.queue_job(JobSpec::new("acme/app", ["linux"]).lasting(Duration::ZERO));
        let disturbed =
            lab.timeline.is_so_within(CONFLICT, |events| events.iter().any(|e| e.action == "die")).await;
        assert!(!disturbed, "the busy runner stays");

        github.expire_session("linux").unwrap();
        github.wait_until(PATIENCE, |s| s.job(second).unwrap().status == JobStatus::Completed).await.unwrap();
        lab.until_is("linux", "Listening", "True", None).await;
        github.finish_job(first, JobResult::Succeeded).unwrap();
        lab.until_phases("linux", (0, 0, 0)).await;
        assert_eq!(lab.timeline.count("create"), 2);
    })
    .await;
}
