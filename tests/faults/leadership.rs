//! Two controllers, of which one leads: it is killed, frozen, stopped.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use harness::{Controller, Lab, PATIENCE, eventually, github, lab, signal};
use jiff::Timestamp;
use serde_json::json;
use testkit::github::{JobResult, JobSpec, JobStatus, SimGithub};

use crate::account::{Witness, assert_timeline, settle};
use crate::load::{Chance, manifest, short_or_long};
use crate::proxy::{Proxy, Weather};

const FIRST: &str = "paddock-first";
const SECOND: &str = "paddock-second";
/// The standby acts within this after the leader died.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(20);
/// The standby acts within this after the leader gave the Lease back.
const HANDED_OVER_WITHIN: Duration = Duration::from_secs(4);
/// A leader has found out within this that a call about its Lease has no answer, or has stopped leading.
const HUNG_WITHIN: Duration = Duration::from_secs(20);
/// Nobody leads by a Lease that was not renewed for so long.
const LEASE_GOOD_FOR: Duration = Duration::from_secs(15);
/// An ex-leader that finds out ends within this.
const ENDED_WITHIN: Duration = Duration::from_secs(10);

/// A leader with two busy runners and an idle one, and a standby.
async fn pair(lab: &Lab, github: &SimGithub) -> (Controller, Controller) {
    lab.permit_leader_election().await;
    let first = lab.start_candidate(FIRST);
    lab.apply(&manifest(&github.config_url("acme")).spec(json!({"minRunners": 1}))).await;
    lab.until_is("linux", "Ready", "True", None).await;
    let second = lab.start_candidate(SECOND);
    eventually("the second stands by", PATIENCE, async || second.log().contains("standing by").then_some(()))
        .await;
    assert_eq!(second.get("/readyz").await.0, 200, "a standby is ready");
    github.queue_jobs(2, &JobSpec::new("acme/app", ["linux"]));
    lab.until_phases("linux", (0, 1, 2)).await;
    assert_eq!(owner(github).as_deref(), Some(FIRST));
    (first, second)
}

/// Whose message session is open.
fn owner(github: &SimGithub) -> Option<String> {
    github.look(|s| s.scale_set("linux")?.session.as_ref().map(|session| session.owner.clone()))
}

/// Waits until the second one polls.
async fn second_acts(github: &SimGithub, within: Duration) {
    let polls = |s: &testkit::github::State| {
        let session = s.scale_set("linux").and_then(|set| set.session.as_ref());
        session.is_some_and(|s| s.owner == SECOND && s.polled_at.is_some())
    };
    github.wait_until(within, polls).await.unwrap();
}

/// Ends the jobs that have no end of their own, lets further ones run, and settles.
async fn finish(lab: &Lab, github: &SimGithub, witness: &Witness, chance: &mut Chance) {
    let running: Vec<_> = github.look(|s| {
        s.jobs().filter(|j| j.status == JobStatus::Running && j.duration_ms.is_none()).map(|j| j.id).collect()
    });
    for job in running {
        github.finish_job(job, JobResult::Succeeded).unwrap();
    }
    chance.queue_jobs(github, 4);
    github.wait_until(PATIENCE, |s| s.jobs().all(|j| j.status == JobStatus::Completed)).await.unwrap();
    lab.apply(&manifest(&github.config_url("acme")).spec(json!({"minRunners": 0}))).await;
    let failed = settle(lab, github, witness, &[&lab.docker], 0).await;
    assert!(failed.is_empty(), "lost: {failed:?}");
    assert_timeline(lab, github);
}

#[tokio::test]
async fn a_leader_that_dies_is_followed_by_the_standby() {
    lab("leader-killed", async |lab| {
        let github = github(lab).await;
        let (witness, mut chance) = (Witness::of(&github), Chance::of("leader-killed"));
        let (first, _second) = pair(lab, &github).await;
        let containers = lab.containers().await;

        first.kill().await;
        let killed_at = Instant::now();
        second_acts(&github, TAKEN_OVER_WITHIN).await;
        println!("the standby acts after {:?}", killed_at.elapsed());
        lab.until("linux", "the three are shown under the new session", |set| {
            let status = set.status.as_ref().unwrap();
            status.session.as_ref().is_some_and(|s| s.owner == SECOND)
                && (status.idle_runners, status.busy_runners) == (1, 2)
        })
        .await;
        assert_eq!(lab.containers().await, containers, "they were adopted");
        finish(lab, &github, &witness, &mut chance).await;
    })
    .await;
}

#[tokio::test]
async fn a_leader_that_was_frozen_does_nothing_once_another_leads() {
    lab("leader-frozen", async |lab| {
        let github = github(lab).await;
        let (witness, mut chance) = (Witness::of(&github), Chance::of("leader-frozen"));
        let (mut first, _second) = pair(lab, &github).await;

        signal(first.pid(), "STOP").await;
        let frozen_at = Instant::now();
        second_acts(&github, TAKEN_OVER_WITHIN).await;
        // What the frozen one would want to mend as soon as it can: a runner too few, and jobs without one.
        let idle = github.look(|s| s.runners().find(|r| r.job.is_none()).unwrap().name.clone());
        lab.kill_container(&lab.containers().await[&idle]).await;
        chance.queue_jobs(&github, 4);
        github.wait_until(PATIENCE, |s| s.jobs_in(JobStatus::Completed) == 4).await.unwrap();
        lab.until_phases("linux", (0, 1, 2)).await;
        let left = short_or_long(Duration::ZERO, Duration::from_secs(60)).saturating_sub(frozen_at.elapsed());
        tokio::time::sleep(left).await;

        let (log, events) = (first.log().len(), lab.timeline.events().len());
        let session = github.look(|s| s.scale_set("linux").unwrap().session.as_ref().unwrap().id.clone());
        let thawed_at = Timestamp::now();
        signal(first.pid(), "CONT").await;
        let thawed = Instant::now();
        let status = first.ended().await;
        assert!(!status.success(), "it says that it lost the Lease");
        assert!(thawed.elapsed() < ENDED_WITHIN, "it ended after {:?}", thawed.elapsed());
        // All is still but for the second one's poll: whatever else GitHub or the engine saw was the ex-leader's doing.
        let strange: BTreeSet<String> = github.look(|s| {
            let since = s.requests().iter().filter(|r| r.at >= thawed_at);
            let strange = since.filter(|r| !r.query.as_deref().unwrap_or_default().contains(&session));
            strange
                .filter(|r| !r.path.starts_with("/_runner"))
                .map(|r| format!("{} {}", r.method, r.path))
                .collect()
        });
        assert!(strange.is_empty(), "asked of GitHub by an ex-leader: {strange:?}\n{}", &first.log()[log..]);
        let done = &lab.timeline.events()[events..];
        assert!(done.is_empty(), "done by an ex-leader: {done:?}\n{}", &first.log()[log..]);
        let after = first.log()[log..].to_owned();
        for deed in ["runner placed", "runner started", "runner removed", "message session opened"] {
            assert!(!after.contains(deed), "{deed}:\n{after}");
        }
        assert_eq!(owner(&github).as_deref(), Some(SECOND));
        assert_eq!(github.look(|s| s.scale_set("linux").unwrap().sessions_opened), 2);
        finish(lab, &github, &witness, &mut chance).await;
    })
    .await;
}

#[tokio::test]
async fn a_leader_that_stops_hands_over_at_once() {
    lab("leader-stopped", async |lab| {
        let github = github(lab).await;
        let (witness, mut chance) = (Witness::of(&github), Chance::of("leader-stopped"));
        let (first, _second) = pair(lab, &github).await;
        chance.queue_jobs(&github, 4);
        let (status, took) = first.terminate().await;
        assert!(status.success(), "{status}");
        let ended = Instant::now();
        second_acts(&github, HANDED_OVER_WITHIN).await;
        println!("stopped in {took:?}; the standby acts {:?} later", ended.elapsed());
        github.wait_until(PATIENCE, |s| s.jobs_in(JobStatus::Completed) == 4).await.unwrap();
        finish(lab, &github, &witness, &mut chance).await;
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_hangs_costs_no_leadership() {
    lab("leader-hung", async |lab| {
        let github = github(lab).await;
        lab.permit_leader_election().await;
        let proxy = Proxy::before(lab.server_address()).await;
        lab.lead_through(proxy.address());
        let leader = lab.start_candidate(FIRST);
        lab.apply(&manifest(&github.config_url("acme"))).await;
        lab.until_is("linux", "Ready", "True", None).await;
        for hung in 1..=3 {
            // Whatever else hangs before the Lease is of no matter here.
            eventually("a call about the Lease hangs", HUNG_WITHIN, async || {
                if proxy.weather() == Weather::Fair {
                    proxy.set(Weather::HangingOne);
                }
                let log = leader.log();
                assert!(!log.contains("leadership is lost"), "{log}");
                (log.matches("the Lease cannot be renewed").count() >= hung).then_some(())
            })
            .await;
            proxy.set(Weather::Fair);
            let after = Timestamp::now();
            eventually("it is renewed by another connection", LEASE_GOOD_FOR, async || {
                let lease =
                    lab.kubectl(&["get", "lease", "paddock", "-o", "jsonpath={.spec.renewTime}"]).await;
                (lease.parse::<Timestamp>().unwrap() > after).then_some(())
            })
            .await;
        }
        assert_eq!(github.look(|s| s.scale_set("linux").unwrap().sessions_opened), 1);
    })
    .await;
}
