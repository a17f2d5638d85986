//! One scale set over all three kinds of capacity: what one backend cannot take goes to the next.

use std::collections::BTreeMap;

use paddock::api::RunnerScaleSet;
use serde_json::json;
use testkit::ecs::{Fault, Operation, SimEcs, reason};
use testkit::github::{Job, JobId, JobResult, JobSpec, JobStatus, SimGithub};
use testkit::tart::Mac;

use crate::ecs::{account, backend};
use harness::{Lab, Manifest, PATIENCE, condition, github, is, lab};

/// How many runners each backend has, in the order of the spec.
fn spread(set: &RunnerScaleSet) -> Vec<i32> {
    set.status.iter().flat_map(|status| &status.backends).map(|backend| backend.current_runners).collect()
}

/// How many slots are free on the host of a backend.
fn free_slots(set: &RunnerScaleSet, backend: usize) -> Option<i32> {
    set.status.as_ref()?.backends[backend].hosts[0].free_slots
}

/// Docker with two slots, then a Mac with two, then ECS.
fn manifest(github: &SimGithub, macs: &[Mac], ecs: &SimEcs) -> Manifest {
    let url = github.config_url("acme");
    let mut manifest = Manifest::sample(&url)
        .spec(json!({"minRunners": 0, "maxRunners": 12, "scaleDown": {"delay": "1s"}}))
        .docker(
            json!({"hosts": [{"name": "local", "endpoint": "unix:///var/run/docker.sock", "maxRunners": 2}]}),
        );
    let mac = &Manifest::tart(&url, macs).0["spec"]["backends"][0];
    let mut backends = vec![manifest.0["spec"]["backends"][0].clone(), mac.clone()];
    backends.push(backend("aws", "runners", ecs, json!({})));
    manifest.0["spec"]["backends"] = json!(backends);
    manifest
}

/// Has the controller serve that scale set, on hosts that all answer.
async fn serve(lab: &Lab, github: &SimGithub, macs: &[Mac], ecs: &SimEcs) {
    lab.apply(&manifest(github, macs, ecs)).await;
    lab.until("linux", "all hosts answer", |set| {
        let backends = || set.status.iter().flat_map(|status| &status.backends);
        backends().count() == 3 && backends().all(|b| b.hosts[0].ready) && is(set, "Ready", "True", None)
    })
    .await;
}

async fn running(github: &SimGithub, jobs: usize) {
    github.wait_until(PATIENCE * 2, |s| s.jobs_in(JobStatus::Running) == jobs).await.unwrap();
}

/// The jobs that run, by the backend of their runners.
fn by_backend(set: &RunnerScaleSet, github: &SimGithub) -> BTreeMap<String, Vec<JobId>> {
    let mut found: BTreeMap<String, Vec<JobId>> = BTreeMap::new();
    for runner in &set.status.as_ref().unwrap().runners {
        let has = |job: &&Job| job.runner.as_ref().is_some_and(|r| r.name == runner.name);
        let job = github.look(|s| s.jobs().find(has).map(|job| job.id));
        found.entry(runner.backend.clone()).or_default().extend(job);
    }
    found
}

#[tokio::test]
async fn ten_jobs_fill_docker_then_the_mac_then_ecs_and_new_demand_goes_to_the_first_with_room() {
    lab("spillover", async |lab| {
        let (github, macs, ecs) = (github(lab).await, lab.macs(1, |_| {}).await, account(lab).await);
        let _controller = lab.start();
        serve(lab, &github, &macs, &ecs).await;
        let job = JobSpec::new("acme/app", ["linux"]);
        github.queue_jobs(10, &job);
        running(&github, 10).await;
        let set = lab.until("linux", "2, 2 and 6", |set| spread(set) == [2, 2, 6]).await;
        assert!(is(&set, "DemandMet", "True", None));

        let by_backend = by_backend(&set, &github);
        for job in &by_backend["docker"] {
            github.finish_job(*job, JobResult::Succeeded).unwrap();
        }
        // A runner whose job is over keeps its slot until its container has ended.
        lab.until("linux", "the first has room", |set| {
            spread(set) == [0, 2, 6] && free_slots(set, 0) == Some(2)
        })
        .await;
        github.queue_jobs(2, &job);
        running(&github, 10).await;
        lab.until("linux", "it takes what is new", |set| spread(set) == [2, 2, 6]).await;
        assert_eq!(ecs.look(|s| s.tasks().count()), 6, "ECS was asked for six tasks in all");
    })
    .await;
}

#[tokio::test]
async fn surplus_spares_leave_the_last_backend_first() {
    lab("spill-surplus", async |lab| {
        let (github, macs, ecs) = (github(lab).await, lab.macs(1, |_| {}).await, account(lab).await);
        let _controller = lab.start();
        serve(lab, &github, &macs, &ecs).await;
        for (replicas, expected) in [(5, [2, 2, 1]), (3, [2, 1, 0]), (1, [1, 0, 0])] {
            lab.scale("linux", replicas).await;
            lab.until("linux", &format!("{expected:?}"), |set| {
                spread(set) == expected && set.status.as_ref().unwrap().idle_runners == replicas
            })
            .await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_no_backend_takes_waits_and_status_says_why_for_each() {
    lab("spill-waits", async |lab| {
        let (github, macs, ecs) = (github(lab).await, lab.macs(1, |_| {}).await, account(lab).await);
        let _controller = lab.start();
        serve(lab, &github, &macs, &ecs).await;
        ecs.inject(Fault::failures(Operation::RunTask, reason::MEMORY));
        github.queue_jobs(7, &JobSpec::new("acme/app", ["linux"]));
        running(&github, 4).await;
        let set = lab
            .until("linux", "three wait", |set| {
                spread(set) == [2, 2, 0] && is(set, "DemandMet", "False", Some("NoCapacity"))
            })
            .await;
        let said = &condition(&set, "DemandMet").unwrap().message;
        for part in [
            "3 of 7",
            "no host of backend docker",
            "no host of backend macs",
            "aws/runners",
            "RESOURCE:MEMORY",
            "the next try is at 2",
        ] {
            assert!(said.contains(part), "{part:?} is not in: {said}");
        }
        let aws = &set.status.unwrap().backends[2];
        assert!(aws.backoff_until.is_some() && aws.message.contains("RESOURCE:MEMORY"), "{aws:?}");

        ecs.clear_faults();
        running(&github, 7).await;
        lab.until("linux", "they have runners", |set| {
            spread(set) == [2, 2, 3] && is(set, "DemandMet", "True", None)
        })
        .await;
    })
    .await;
}
