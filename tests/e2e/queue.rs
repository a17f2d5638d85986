//! What GitHub's message queue does wrong: no runner is lost, none is started twice, the demand is met.

use std::time::Duration;

use testkit::github::{Endpoint, Fault, JobResult, JobSpec, JobStatus, SimGithub};

use crate::harness::{Manifest, PATIENCE, github, lab};

/// A fault, by name, and how it is brought about.
type Trouble = (&'static str, fn(&SimGithub));

const TROUBLES: [Trouble; 12] = [
    ("nothing at all", |_| {}),
    ("a message is repeated", |github| {
        github.repeat_last_batch("linux").unwrap();
    }),
    ("a batch is out of order", |github| {
        // While the poll is held back, a batch gathers.
        github.inject(Fault::delay(Endpoint::Poll, Duration::from_secs(2)).times(1));
        github.reverse_next_batch("linux").unwrap();
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
        let message = &crate::harness::condition(&set, "Listening").unwrap().message;
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
