//! Changes of the object that are no part of what a runner is made from: no runner is touched.

use std::collections::BTreeMap;

use harness::{Lab, Manifest, PATIENCE, github, is, lab};
use serde_json::json;
use testkit::github::{Endpoint, JobId, JobResult, JobSpec, JobStatus, SimGithub};

/// The engine's.
const SOCKET: &str = "/var/run/docker.sock";

/// Two idle runners and a busy one: the job, and all containers.
async fn two_idle_and_one_busy(
    lab: &Lab,
    github: &SimGithub,
    manifest: &Manifest,
) -> (JobId, BTreeMap<String, String>) {
    lab.apply(manifest).await;
    lab.until_phases("linux", (0, 2, 0)).await;
    let job = github.queue_job(JobSpec::new("acme/app", ["linux"]));
    lab.until_phases("linux", (0, 2, 1)).await;
    (job, lab.containers().await)
}

/// Waits until the latest spec is applied as a whole.
async fn until_applied(lab: &Lab) {
    let generation = lab.get("linux").await.metadata.generation;
    lab.until("linux", "the latest spec is applied", |set| {
        let observed = set.status.as_ref().and_then(|s| s.observed_generation);
        observed >= generation && is(set, "Ready", "True", None) && is(set, "Reconciling", "False", None)
    })
    .await;
}

#[tokio::test]
async fn a_new_name_and_group_are_changed_in_place_and_touch_no_runner() {
    lab("renamed", async |lab| {
        let github = github(lab).await;
        github.add_runner_group("elite");
        let _controller = lab.start();
        let manifest = Manifest::sample(&github.config_url("acme")).spec(json!({"minRunners": 2}));
        let (job, containers) = two_idle_and_one_busy(lab, &github, &manifest).await;
        let id = github.look(|s| s.scale_set("linux").unwrap().id);

        let renamed = manifest.spec(json!({"scaleSetName": "heavy", "github": {"runnerGroup": "elite"}}));
        lab.apply(&renamed).await;
        until_applied(lab).await;
        let status = lab.get("linux").await.status.unwrap();
        assert_eq!((status.scale_set_id, status.scale_set_name.as_deref()), (Some(id), Some("heavy")));
        let sets: Vec<_> =
            github.look(|s| s.scale_sets().map(|set| (set.id, set.name.clone(), set.group_id)).collect());
        assert_eq!(sets, [(id, "heavy".to_owned(), 2)]);
        assert_eq!(lab.containers().await, containers);

        let under_new_name = github.queue_job(JobSpec::new("acme/app", ["heavy"]));
        github
            .wait_until(PATIENCE, |s| s.job(under_new_name).unwrap().status == JobStatus::Running)
            .await
            .unwrap();
        let runner = github.look(|s| s.job(under_new_name).unwrap().runner.clone().unwrap().name);
        assert!(containers.contains_key(&runner), "{runner} was there before");
        lab.until_phases("linux", (0, 2, 2)).await;
        let now = lab.containers().await;
        assert!(containers.iter().all(|(name, id)| now.get(name) == Some(id)), "{now:?}");
        let new: Vec<&String> = now.keys().filter(|name| !containers.contains_key(*name)).collect();
        assert!(matches!(new[..], [name] if name.starts_with("heavy-")), "{new:?}");
        assert_eq!(lab.timeline.count("die"), 0);
        for job in [job, under_new_name] {
            github.finish_job(job, JobResult::Succeeded).unwrap();
        }
        lab.until_phases("linux", (0, 2, 0)).await;
    })
    .await;
}

#[tokio::test]
async fn what_is_no_part_of_a_runner_restarts_none() {
    lab("untouched", async |lab| {
        let github = github(lab).await;
        let _controller = lab.start();
        let manifest = Manifest::sample(&github.config_url("acme")).spec(json!({"minRunners": 2}));
        let (job, containers) = two_idle_and_one_busy(lab, &github, &manifest).await;
        github.clear_requests();

        let generation = lab.get("linux").await.metadata.generation;
        lab.apply(&manifest).await;
        assert_eq!(lab.get("linux").await.metadata.generation, generation);
        let mut annotated = manifest.clone();
        annotated.0["metadata"]["labels"] = json!({"team": "tools"});
        annotated.0["metadata"]["annotations"] = json!({"example.com/note": "ours"});
        lab.apply(&annotated).await;
        // What came before is seen by whoever has seen this.
        lab.apply(&annotated.spec(json!({"maxRunners": 7}))).await;
        until_applied(lab).await;
        assert_eq!(lab.containers().await, containers);

        lab.scale("linux", 3).await;
        lab.until_phases("linux", (0, 3, 1)).await;
        let now = lab.containers().await;
        assert!(containers.iter().all(|(name, id)| now.get(name) == Some(id)), "{now:?}");
        assert_eq!((lab.timeline.count("create"), lab.timeline.count("die")), (4, 0));
        for change in [Endpoint::CreateScaleSet, Endpoint::UpdateScaleSet, Endpoint::RemoveRunner] {
            assert_eq!(github.requests(change).len(), 0, "{change:?}");
        }
        github.finish_job(job, JobResult::Succeeded).unwrap();
        lab.until_phases("linux", (0, 3, 0)).await;
    })
    .await;
}

#[tokio::test]
async fn a_host_that_is_renamed_and_moved_to_another_backend_keeps_its_runners_and_gives_them_up() {
    lab("moved", async |lab| {
        let github = github(lab).await;
        let _controller = lab.start();
        let sample = Manifest::sample(&github.config_url("acme")).spec(json!({"minRunners": 2}));
        let docker = sample.0["spec"]["backends"][0]["docker"].clone();
        let backend = |name: &str, host: &str, socket: &str| {
            let mut docker = docker.clone();
            docker["hosts"] = json!([{"name": host, "endpoint": format!("unix://{socket}")}]);
            json!({"name": name, "docker": docker})
        };
        let on = |backends: serde_json::Value| {
            let mut manifest = sample.clone().spec(json!({"scaleDown": {"delay": "1s"}}));
            manifest.0["spec"]["backends"] = backends;
            manifest
        };
        let before = on(json!([backend("rack", "old", SOCKET)]));
        let (job, containers) = two_idle_and_one_busy(lab, &github, &before).await;

        let rack = backend("rack", "away", "/nowhere/docker.sock");
        let after = on(json!([rack, backend("shelf", "new", SOCKET)]));
        lab.apply(&after).await;
        lab.until("linux", "its runners are where they are now", |set| {
            let runners = &set.status.as_ref().unwrap().runners;
            runners.len() == 3
                && runners.iter().all(|r| (r.backend.as_str(), r.host.as_deref()) == ("shelf", Some("new")))
        })
        .await;
        until_applied(lab).await;
        assert_eq!(lab.containers().await, containers, "none was touched");

        lab.apply(&after.spec(json!({"minRunners": 0}))).await;
        lab.until_phases("linux", (0, 0, 1)).await;
        github.finish_job(job, JobResult::Succeeded).unwrap();
        lab.until("linux", "all are removed", |set| set.status.as_ref().unwrap().runners.is_empty()).await;
        assert_eq!(lab.containers().await.len(), 0);
    })
    .await;
}
