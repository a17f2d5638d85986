//! How often the API server is written to, by its own count.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::Request;
use harness::{Lab, Manifest, PATIENCE, github, lab_on_own_server};
use kube::Client;
use testkit::github::{JobSpec, JobStatus};

/// At most so many writes for one job that comes alone, from its queueing until all is still again.
const ONE_JOB: u64 = 5;
/// At most so many for fifty that come at once.
const BURST: u64 = 25;
/// After so long without a write, no more is to come.
const STILL: Duration = Duration::from_secs(4);

/// The writes so far by what was written, but for those that the API server makes for itself.
async fn writes(client: &Client) -> BTreeMap<String, u64> {
    let request = Request::get("/metrics").body(Vec::new()).unwrap();
    let metrics = client.request_text(request).await.unwrap();
    let mut writes = BTreeMap::new();
    for line in metrics.lines().filter(|l| l.starts_with("apiserver_request_total{")) {
        let label = |name: &str| {
            let (_, rest) = line.split_once(&format!("{name}=\"")).unwrap();
            rest.split('"').next().unwrap()
        };
        let own = matches!(label("resource"), "leases" | "flowschemas" | "prioritylevelconfigurations");
        if own || !matches!(label("verb"), "POST" | "PUT" | "PATCH" | "APPLY" | "DELETE") {
            continue;
        }
        let what =
            format!("{} {}/{} {}", label("verb"), label("resource"), label("subresource"), label("code"));
        let count: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let count = count as u64;
        *writes.entry(what).or_default() += count;
    }
    writes
}

/// The writes once there were none for a while.
async fn when_still(client: &Client) -> BTreeMap<String, u64> {
    let mut last = writes(client).await;
    loop {
        tokio::time::sleep(STILL).await;
        let now = writes(client).await;
        if now == last {
            return now;
        }
        last = now;
    }
}

/// What `work` has the controller write.
async fn writes_for(lab: &Lab, work: impl AsyncFnOnce()) -> BTreeMap<String, u64> {
    let before = when_still(&lab.client).await;
    work().await;
    lab.until("linux", "nothing is left", |set| {
        let status = set.status.as_ref().unwrap();
        let demand = status.demand.as_ref().unwrap();
        status.current_runners == 0 && status.runners.is_empty() && demand.assigned_jobs == 0
    })
    .await;
    let mut after = when_still(&lab.client).await;
    for (what, count) in before {
        *after.entry(what).or_default() -= count;
    }
    after.retain(|_, count| *count > 0);
    after
}

#[tokio::test]
async fn jobs_cost_few_writes() {
    lab_on_own_server("writes", async |lab| {
        let github = github(lab).await;
        let _controller = lab.start();
        lab.apply(&Manifest::sample(&github.config_url("acme"))).await;
        lab.until_is("linux", "Ready", "True", None).await;
        let run = async |count: usize, duration: Duration| {
            let job = JobSpec::new("acme/app", ["linux"]).lasting(duration);
            let done = github.look(|s| s.jobs_in(JobStatus::Completed)) + count;
            github.queue_jobs(count, &job);
            github.wait_until(2 * PATIENCE, |s| s.jobs_in(JobStatus::Completed) == done).await.unwrap();
        };
        let one = writes_for(lab, async || run(1, Duration::from_secs(5)).await).await;
        println!("one job: {one:?}");
        assert!(one.values().sum::<u64>() <= ONE_JOB, "{one:?}");
        let fifty = writes_for(lab, async || run(50, Duration::from_millis(500)).await).await;
        println!("fifty jobs: {fifty:?}");
        assert!(fifty.values().sum::<u64>() <= BURST, "{fifty:?}");
        assert_eq!(lab.timeline.count("create"), 51);
    })
    .await;
}
