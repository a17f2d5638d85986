//! A fleet at work: jobs get their runners, spares are kept, and nothing is left of what ended.

use std::time::Duration;

use harness::{Lab, Manifest, PATIENCE, github, lab};
use serde_json::json;
use testkit::github::{Endpoint, JobResult, JobSpec, JobStatus};

/// After its exit, no container stays for longer.
const CLEARED_WITHIN: Duration = Duration::from_secs(2);

#[tokio::test]
async fn the_sample_runs_five_jobs_at_once_and_leaves_nothing() {
    lab("sample", async |lab| {
        let github = github(lab).await;
        let _controller = lab.start();
        let record = lab.record("linux");
        lab.apply(&Manifest::sample(&github.config_url("acme")).spec(json!({"labels": ["x64", "large"]})))
            .await;
        let ready = lab.until_is("linux", "Ready", "True", None).await;
        let (id, labels) = github.look(|s| {
            let set = s.scale_set("linux").expect("the scale set is at GitHub");
            (set.id, set.labels.iter().map(|l| l.name.clone()).collect::<Vec<_>>())
        });
        assert_eq!(ready.status.unwrap().scale_set_id, Some(id));
        assert_eq!(labels, ["linux", "x64", "large"]);
        assert_eq!(columns(lab).await, ["linux", "0", "0", "0", "0", "0", "True"]);

        let jobs = github.queue_jobs(5, &JobSpec::new("acme/app", ["linux"]));
        github.wait_until(PATIENCE, |s| s.jobs_in(JobStatus::Running) == 5).await.unwrap();
        assert_eq!(lab.containers().await.len(), 5);
        lab.until_phases("linux", (0, 0, 5)).await;
        assert_eq!(columns(lab).await, ["linux", "5", "5", "0", "0", "5", "True"]);

        for job in jobs {
            github.finish_job(job, JobResult::Succeeded).unwrap();
        }
        lab.timeline
            .until("five containers are gone", |events| {
                events.iter().filter(|e| e.action == "destroy").count() == 5
            })
            .await;
        for (runner, stayed) in lab.timeline.between("die", "destroy") {
            assert!(stayed <= CLEARED_WITHIN, "{runner} stayed for {stayed:?}");
        }
        lab.until("linux", "nothing is wanted and nothing is left", |set| {
            let status = set.status.as_ref().unwrap();
            status.desired_runners == 0 && status.current_runners == 0 && status.runners.is_empty()
        })
        .await;
        assert_eq!(columns(lab).await, ["linux", "0", "0", "0", "0", "0", "True"]);
        assert_eq!(lab.timeline.count("create"), 5);
        assert_eq!(github.look(|s| s.runners().count()), 0);
        assert!(record.assert_consistent(0, 10) > 2);
    })
    .await;
}

/// The row that `kubectl get rss` prints, without the age.
async fn columns(lab: &Lab) -> Vec<String> {
    let table = lab.kubectl(&["get", "rss"]).await;
    let mut lines = table.lines().map(|line| line.split_whitespace().map(str::to_owned));
    let header: Vec<String> = lines.next().unwrap().collect();
    assert_eq!(header, ["NAME", "DESIRED", "CURRENT", "PENDING", "IDLE", "BUSY", "READY", "AGE"]);
    let mut row: Vec<String> = lines.next().unwrap().collect();
    row.pop();
    row
}

#[tokio::test]
async fn two_spares_are_kept_replaced_and_given_up() {
    lab("spares", async |lab| {
        let github = github(lab).await;
        let _controller = lab.start();
        let record = lab.record("linux");
        let manifest = Manifest::sample(&github.config_url("acme"))
            .spec(json!({"minRunners": 2, "maxRunners": 4, "scaleDown": {"delay": "1s"}}));
        lab.apply(&manifest).await;
        lab.until_phases("linux", (0, 2, 0)).await;
        github.wait_until(PATIENCE, |s| s.runners().filter(|r| r.connected).count() == 2).await.unwrap();
        let changed = lab
            .timeline
            .is_so_within(Duration::from_secs(3), |events| {
                events.iter().filter(|e| e.action == "create").count() > 2
                    || events.iter().any(|e| e.action == "die")
            })
            .await;
        assert!(!changed, "the spares stay, and no third comes");

        let job = github.queue_job(JobSpec::new("acme/app", ["linux"]));
        lab.until_phases("linux", (0, 2, 1)).await;
        assert_eq!(lab.containers().await.len(), 3);
        github.finish_job(job, JobResult::Succeeded).unwrap();
        lab.until_phases("linux", (0, 2, 0)).await;
        let spares = lab.containers().await;
        assert_eq!(spares.len(), 2);
        assert_eq!(lab.timeline.count("create"), 3, "the job took a spare, one replaced it");

        let ids: Vec<(String, i64)> = github.look(|s| s.runners().map(|r| (r.name.clone(), r.id)).collect());
        github.clear_requests();
        lab.scale("linux", 0).await;
        lab.timeline
            .until("all containers are gone", |events| {
                events.iter().filter(|e| e.action == "destroy").count() == 3
            })
            .await;
        assert_eq!(github.look(|s| s.runners().count()), 0);
        let deaths = lab.timeline.all("die");
        let removals = github.requests(Endpoint::RemoveRunner);
        for (name, id) in ids {
            let removal = removals.iter().find(|r| r.path.ends_with(&format!("/{id}")));
            let removal = removal.expect("its registration was removed");
            let death = deaths.iter().find(|e| e.runner == name).unwrap();
            assert!(removal.at < death.at, "{removal:?} comes before {death:?}");
        }
        lab.until_phases("linux", (0, 0, 0)).await;
        record.assert_consistent(2, 4);
    })
    .await;
}
