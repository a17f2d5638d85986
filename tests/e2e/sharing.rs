//! Scale sets that share a host of few slots: none starves.

use std::time::Duration;

use harness::{Engine, Manifest, PATIENCE, PERMISSIVE, github, lab};
use serde_json::json;
use testkit::github::{Job, JobId, JobSpec, JobStatus, SimGithub, State};

/// What the operator lets all sets together have on the host.
const SLOTS: i32 = 4;
/// The sets that want a slot now and then.
const MODEST: [&str; 3] = ["one", "two", "three"];
/// How often each of them has a job.
const ROUNDS: usize = 4;
/// Each job takes so long.
const JOB: Duration = Duration::from_secs(1);
/// The greedy set has so many jobs: more than are done while the others have theirs.
const BACKLOG: usize = 400;

fn job(set: &str) -> JobSpec {
    JobSpec::new("acme/app", [set]).lasting(JOB)
}

/// How long a job waited for its runner.
async fn waited(github: &SimGithub, id: JobId) -> Duration {
    let over = |s: &State| s.job(id).unwrap().status == JobStatus::Completed;
    github.wait_until(PATIENCE * 3, over).await.unwrap();
    let (queued, started) = github.look(|s| {
        let job = s.job(id).unwrap();
        (job.queued_at, job.started_at.unwrap())
    });
    started.duration_since(queued).try_into().unwrap_or_default()
}

#[tokio::test]
async fn a_greedy_set_keeps_no_modest_one_from_its_jobs() {
    lab("sharing", async |lab| {
        let github = github(lab).await;
        let engine = Engine::start("sharing", github.address()).await;
        let ceiling = json!([{"endpoint": engine.endpoint(), "maxRunners": SLOTS}]);
        lab.policy(&PERMISSIVE.replace("hosts: []", &format!("hosts: {ceiling}")));
        let _controller = lab.start();
        let hosts = json!({"hosts": [{"name": "shared", "endpoint": engine.endpoint()}]});
        let set = |name: &str| {
            Manifest::sample(&github.config_url("acme"))
                .named(name)
                .spec(json!({"minRunners": 0, "maxRunners": 20}))
                .docker(hosts.clone())
        };
        lab.apply(&set("greedy")).await;
        lab.until_is("greedy", "Ready", "True", None).await;
        github.queue_jobs(BACKLOG, &job("greedy"));
        lab.until("greedy", "it has all slots", |set| {
            set.status.as_ref().is_some_and(|status| status.busy_runners == SLOTS)
        })
        .await;
        for name in MODEST {
            lab.apply(&set(name)).await;
            lab.until_is(name, "Ready", "True", None).await;
        }

        let served = MODEST.map(async |name| {
            let mut waits = Vec::new();
            for _ in 0..ROUNDS {
                waits.push(waited(&github, github.queue_job(job(name))).await);
            }
            waits
        });
        let waits = futures::future::join_all(served).await.concat();
        let waits_still = |job: &&Job| job.labels == ["greedy"] && job.status != JobStatus::Completed;
        let left = github.look(|s| s.jobs().filter(waits_still).count());
        assert!(left > SLOTS as usize, "the others had their turn only once the greedy set was done");
        println!("the worst wait of {} jobs of modest sets: {:?}", waits.len(), waits.iter().max());
    })
    .await;
}
