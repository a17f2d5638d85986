//! A host is taken out of the spec while runners are on it: idle ones go, busy ones finish, and nothing is left or lost.

use std::collections::BTreeMap;

use harness::{Lab, Manifest, PATIENCE, github, lab};
use paddock::api::RunnerScaleSet;
use paddock::api::status::{HostStatus, RunnerPhase};
use serde_json::json;
use testkit::github::{JobId, JobResult, JobSpec, SimGithub};

/// The engine's.
const SOCKET: &str = "unix:///var/run/docker.sock";
/// Where no engine is.
const NOWHERE: &str = "unix:///nowhere/docker.sock";
const LEFT_OUT: &str = "left out of the spec; draining";

/// A scale set of one backend, with one host.
fn on(github: &SimGithub, host: &str, endpoint: &str) -> Manifest {
    Manifest::sample(&github.config_url("acme"))
        .spec(json!({"minRunners": 1, "maxRunners": 2}))
        .docker(json!({"hosts": [{"name": host, "endpoint": endpoint}]}))
}

/// One busy runner and one idle: the job, and the busy one's name.
async fn one_busy_one_idle(lab: &Lab, github: &SimGithub) -> (JobId, String) {
    lab.apply(&on(github, "old", SOCKET)).await;
    lab.until_phases("linux", (0, 1, 0)).await;
    let job = github.queue_job(JobSpec::new("acme/app", ["linux"]));
    lab.until_phases("linux", (0, 1, 1)).await;
    (job, github.look(|s| s.job(job).unwrap().runner.clone().unwrap().name))
}

/// The hosts that status shows, by name.
fn hosts(set: &RunnerScaleSet) -> BTreeMap<String, HostStatus> {
    let backends = set.status.iter().flat_map(|status| &status.backends);
    backends.flat_map(|backend| backend.hosts.clone()).map(|host| (host.name.clone(), host)).collect()
}

/// Waits until the idle runner is gone and the busy one alone is left, on a host that is shown to drain.
async fn until_the_busy_one_is_left(lab: &Lab, busy: &str) {
    lab.until("linux", "the busy runner alone is left, on a host that drains", |set| {
        let runners = &set.status.as_ref().unwrap().runners;
        let old =
            hosts(set).remove("old").filter(|host| host.message == LEFT_OUT && host.current_runners == 1);
        old.is_some() && matches!(&runners[..], [one] if one.name == busy && one.phase == RunnerPhase::Busy)
    })
    .await;
    assert_eq!(lab.containers().await.keys().collect::<Vec<_>>(), [busy]);
}

/// The job ends well, and the host is known no longer than its runner is there.
async fn it_finishes(lab: &Lab, github: &SimGithub, job: JobId) {
    github.finish_job(job, JobResult::Succeeded).unwrap();
    let set =
        lab.until("linux", "the host is not shown any more", |set| !hosts(set).contains_key("old")).await;
    let status = set.status.unwrap();
    assert_eq!(status.recent_failures, [], "no job was lost");
    assert_eq!((status.runners.len(), lab.containers().await.len()), (0, 0));
    github.wait_until(PATIENCE, |s| s.runners().count() == 0).await.unwrap();
    assert_eq!(lab.timeline.count("create"), 2, "nothing was started where nothing may be");
}

#[tokio::test]
async fn a_host_that_is_left_out_of_the_spec_is_drained() {
    lab("left-out", async |lab| {
        let github = github(lab).await;
        let _controller = lab.start();
        let (job, busy) = one_busy_one_idle(lab, &github).await;
        lab.apply(&on(&github, "new", NOWHERE)).await;
        until_the_busy_one_is_left(lab, &busy).await;
        it_finishes(lab, &github, job).await;
    })
    .await;
}

#[tokio::test]
async fn a_host_that_is_left_out_of_the_spec_while_no_controller_runs_is_drained_too() {
    lab("left-out-restart", async |lab| {
        let github = github(lab).await;
        let first = lab.start();
        let (job, busy) = one_busy_one_idle(lab, &github).await;
        first.kill().await;
        lab.apply(&on(&github, "new", NOWHERE)).await;
        let second = lab.start();
        until_the_busy_one_is_left(lab, &busy).await;
        second.kill().await;
        let _third = lab.start();
        until_the_busy_one_is_left(lab, &busy).await;
        it_finishes(lab, &github, job).await;
    })
    .await;
}

/// Its name and its backend's are others than before.
#[tokio::test]
async fn a_host_that_is_put_back_while_it_drains_keeps_its_runner() {
    lab("put-back", async |lab| {
        let github = github(lab).await;
        let _controller = lab.start();
        let (job, busy) = one_busy_one_idle(lab, &github).await;
        lab.apply(&on(&github, "new", NOWHERE)).await;
        until_the_busy_one_is_left(lab, &busy).await;
        let mut back = on(&github, "again", SOCKET);
        back.0["spec"]["backends"][0]["name"] = json!("shelf");
        lab.apply(&back).await;
        let set = lab.until_phases("linux", (0, 1, 1)).await;
        let hosts = hosts(&set);
        assert_eq!(hosts.keys().collect::<Vec<_>>(), ["again"]);
        assert_eq!(hosts["again"].current_runners, 2);
        assert!(lab.containers().await.contains_key(&busy));
        github.finish_job(job, JobResult::Succeeded).unwrap();
        let set = lab.until_phases("linux", (0, 1, 0)).await;
        assert_eq!(set.status.unwrap().recent_failures, []);
    })
    .await;
}

/// The new host has the old one's name.
#[tokio::test]
async fn a_host_whose_endpoint_is_changed_is_drained_under_its_endpoint() {
    lab("left-out-named", async |lab| {
        let github = github(lab).await;
        let _controller = lab.start();
        let (job, busy) = one_busy_one_idle(lab, &github).await;
        lab.apply(&on(&github, "old", NOWHERE)).await;
        lab.until("linux", "the busy runner is left, on the old engine", |set| {
            let runners = &set.status.as_ref().unwrap().runners;
            matches!(&runners[..], [one] if one.name == busy && one.host.as_deref() == Some(SOCKET))
                && hosts(set).keys().eq([&"old".to_owned(), &SOCKET.to_owned()])
        })
        .await;
        github.finish_job(job, JobResult::Succeeded).unwrap();
        let drained = |set: &RunnerScaleSet| !hosts(set).contains_key(SOCKET);
        let set = lab.until("linux", "the old engine is not shown any more", drained).await;
        assert_eq!(set.status.unwrap().recent_failures, []);
        assert_eq!(lab.containers().await.len(), 0);
    })
    .await;
}
