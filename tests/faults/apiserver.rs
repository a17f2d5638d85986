//! The API server and its etcd are killed and frozen under load.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use harness::{Lab, PATIENCE, github, is, lab_on_own_server, signal};
use testkit::github::{JobStatus, SimGithub};
use tokio::process::Command;

use crate::account::{Witness, assert_timeline, settle};
use crate::load::{Chance, manifest, short_or_long};

/// Jobs that are queued in each outage.
const JOBS: usize = 5;

/// Signals a part of the test's own API server.
async fn to(lab: &Lab, part: &str, name: &str) {
    let pid = fs::read_to_string(lab.server_folder().join(part).with_extension("pid")).unwrap();
    signal(pid.trim().parse().unwrap(), name).await;
}

/// Starts what has died, with the data and the port that it had.
async fn up(lab: &Lab) {
    let up = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/up");
    let up = Command::new(up).arg(lab.server_folder()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(up.await.unwrap().success());
}

/// Jobs come and go, whatever state the API server is in.
async fn jobs_run(github: &SimGithub, chance: &mut Chance) {
    chance.queue_jobs(github, JOBS);
    github.wait_until(PATIENCE, |s| s.jobs().all(|j| j.status == JobStatus::Completed)).await.unwrap();
}

/// The status comes to be what it should.
async fn converges(lab: &Lab) {
    lab.until("linux", "it is ready and empty", |set| {
        is(set, "Ready", "True", None) && set.status.as_ref().unwrap().runners.is_empty()
    })
    .await;
}

#[tokio::test]
async fn jobs_run_on_without_the_api_server() {
    lab_on_own_server("apiserver", async |lab| {
        let github = github(lab).await;
        let (witness, mut chance) = (Witness::of(&github), Chance::of("apiserver"));
        let controller = lab.start();
        lab.apply(&manifest(&github.config_url("acme"))).await;
        lab.until_is("linux", "Ready", "True", None).await;
        for _ in 0..short_or_long(1, 10) {
            for (part, killed) in
                [("kube-apiserver", true), ("etcd", true), ("kube-apiserver", false), ("etcd", false)]
            {
                println!("{part} is {}", if killed { "killed" } else { "frozen" });
                chance.queue_jobs(&github, JOBS);
                tokio::time::sleep(chance.time(0, 1000)).await;
                to(lab, part, if killed { "KILL" } else { "STOP" }).await;
                jobs_run(&github, &mut chance).await;
                if killed {
                    up(lab).await;
                } else {
                    to(lab, part, "CONT").await;
                }
                converges(lab).await;
            }
        }
        assert_eq!(github.look(|s| s.scale_set("linux").unwrap().sessions_opened), 1, "the session was kept");
        let failed = settle(lab, &github, &witness, &[&lab.docker], 0).await;
        assert!(failed.is_empty(), "lost: {failed:?}");
        assert_timeline(lab, &github);
        assert_eq!(controller.get("/healthz").await.0, 200);
    })
    .await;
}

/// A leader outlives an outage that is shorter than its Lease's deadline.
const SHORT: Duration = Duration::from_secs(3);

#[tokio::test]
async fn a_leader_keeps_leading_through_a_short_outage() {
    lab_on_own_server("apiserver-leader", async |lab| {
        let github = github(lab).await;
        let (witness, mut chance) = (Witness::of(&github), Chance::of("apiserver-leader"));
        lab.permit_leader_election().await;
        let controller = lab.start_candidate("paddock-only");
        lab.apply(&manifest(&github.config_url("acme"))).await;
        lab.until_is("linux", "Ready", "True", None).await;
        chance.queue_jobs(&github, JOBS);
        to(lab, "kube-apiserver", "STOP").await;
        tokio::time::sleep(SHORT).await; // the outage
        to(lab, "kube-apiserver", "CONT").await;
        jobs_run(&github, &mut chance).await;
        converges(lab).await;
        assert!(!controller.log().contains("leadership is lost"));
        assert_eq!(github.look(|s| s.scale_set("linux").unwrap().sessions_opened), 1);
        let failed = settle(lab, &github, &witness, &[&lab.docker], 0).await;
        assert!(failed.is_empty(), "lost: {failed:?}");
    })
    .await;
}
