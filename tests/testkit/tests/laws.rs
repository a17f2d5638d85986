//! The laws of the scale-set service that clients stumble over.

#![allow(clippy::expect_used)]

mod support;

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use support::{PATIENCE, Wire, exception, github};
use testkit::github::{DEFAULT_TOKEN, Endpoint, Hold, JobResult, JobSpec, JobStatus, Model};

fn job() -> JobSpec {
    JobSpec::new("acme/app", ["fleet"])
}

#[tokio::test]
async fn the_capacity_of_each_poll_gates_assignment() {
    let github = github().start().await.expect("started");
    let wire = Wire::connect(&github, "acme").await;
    let set = wire.scale_set("fleet").await;
    github.queue_jobs(3, &job());
    let queue = wire.open(set, "me").await;
    assert_eq!(queue.opened["statistics"]["totalAvailableJobs"], 3);
    assert_eq!(queue.opened["statistics"]["totalAssignedJobs"], 0);

    assert_eq!(queue.try_poll(0, 0).await, (202, Value::Null));
    let first = queue.receive(1).await;
    assert_eq!(first.kinds(), ["JobAssigned"]);
    assert_eq!((first.id, &first.entries[0]["runnerRequestId"]), (100_000_001, &json!(0)));
    assert_eq!(first.statistics["totalAssignedJobs"], 1);
    assert_eq!(queue.try_poll(first.id, 1).await.0, 202, "the one place is taken");
    assert_eq!(queue.receive(3).await.kinds(), ["JobAssigned", "JobAssigned"]);

    let jit = wire.mint(set, "r").await;
    let runner = github.connect_runner(&jit).expect("connected");
    runner.next_job(PATIENCE).await.expect("registered").expect("a job");
    assert_eq!(queue.receive(0).await.kinds(), ["JobStarted"]);
    github.queue_job(job());
    assert_eq!(queue.try_poll(0, 3).await.0, 202, "a running job takes a place too");
    runner.finish(JobResult::Succeeded).expect("finished");
    assert_eq!(queue.receive(3).await.kinds(), ["JobCompleted", "JobAssigned"]);
}

#[tokio::test]
async fn a_held_poll_is_answered_when_a_job_is_queued() {
    let github = github().long_poll(PATIENCE).start().await.expect("started");
    let wire = Wire::connect(&github, "acme").await;
    let queue = wire.open(wire.scale_set("fleet").await, "me").await;
    let poll = tokio::spawn(async move { queue.poll(0, 1).await.kinds() == ["JobAssigned"] });
    github.wait_until(PATIENCE, |s| s.requests().polls_held() == 1).await.expect("held");
    github.queue_job(job());
    assert!(poll.await.expect("joined"));
}

#[tokio::test]
async fn a_batch_holds_at_most_fifty() {
    let github = github().start().await.expect("started");
    let wire = Wire::connect(&github, "acme").await;
    let queue = wire.open(wire.scale_set("fleet").await, "me").await;
    github.queue_jobs(120, &job());
    let mut sizes = Vec::new();
    for _ in 0..3 {
        sizes.push(queue.receive(200).await.entries.len());
    }
    assert_eq!(sizes, [50, 50, 20]);
}

#[tokio::test]
async fn what_was_not_deleted_is_replayed_to_the_next_session() {
    let github = github().start().await.expect("started");
    let wire = Wire::connect(&github, "acme").await;
    let set = wire.scale_set("fleet").await;
    let queue = wire.open(set, "first").await;
    github.queue_job(job());
    let kept = queue.poll(0, 1).await;
    github.queue_job(job());
    let deleted = queue.poll(kept.id, 2).await;
    assert_eq!(deleted.id, kept.id + 1, "the cursor has passed the first one");
    assert_eq!(queue.acknowledge(deleted.id).await, 204);
    assert_eq!(queue.acknowledge(deleted.id).await, 404);
    assert_eq!(wire.close(set, &queue.id).await.0, 204);
    assert_eq!(queue.try_poll(0, 2).await.0, 404, "the old session is over");

    let next = wire.open(set, "second").await;
    assert_eq!(next.opened["statistics"]["totalAssignedJobs"], 2);
    let replayed = next.receive(2).await;
    assert_eq!((replayed.id, replayed.entries), (kept.id, kept.entries));
    assert_eq!(next.try_poll(0, 2).await.0, 202);
}

#[tokio::test]
async fn an_unclaimed_assignment_is_made_three_times() {
    let github = github().unclaimed_after(Duration::from_millis(20)).start().await.expect("started");
    let wire = Wire::connect(&github, "acme").await;
    let queue = wire.open(wire.scale_set("fleet").await, "me").await;
    let id = github.queue_job(job());
    let mut seen = Vec::new();
    while seen.len() < 6 {
        for entry in queue.receive(1).await.entries {
            assert!(entry["messageType"] == "JobAssigned" || entry["result"] == "canceled");
            assert_eq!(entry["jobId"], github.look(|s| s.job(id).map(|j| json!(j.uuid))).expect("the job"));
            seen.push(entry["messageType"].clone());
        }
    }
    let one = ["JobAssigned", "JobCompleted"];
    assert_eq!(seen, [one, one, one].concat());
    let job = github.look(|s| s.job(id).cloned()).expect("the job");
    assert_eq!((job.status, job.attempts, job.result), (JobStatus::Completed, 3, Some(JobResult::Canceled)));
    assert_eq!(github.statistics("fleet").expect("the set").total_assigned_jobs, 0);
}

#[tokio::test]
async fn ghes_offers_jobs_and_waits_for_the_client() {
    let github = github().model(Model::Ghes).start().await.expect("started");
    let wire = Wire::connect(&github, "acme").await;
    let set = wire.scale_set("fleet").await;
    let queue = wire.open(set, "me").await;
    let path = format!("runtime/runnerscalesets/{set}/acquirablejobs");
    assert_eq!(wire.call(Method::GET, &path, Value::Null).await, (204, Value::Null));
    let ids = github.queue_jobs(2, &job());
    let offers = queue.receive(10).await;
    assert_eq!((offers.id, offers.kinds()), (1, vec!["JobAvailable"; 2]));
    assert_eq!(offers.entries[0]["runnerRequestId"], ids[0]);
    let (_, open) = wire.call(Method::GET, &path, Value::Null).await;
    assert_eq!((&open["count"], &open["value"][1]["runnerRequestId"]), (&json!(2), &json!(ids[1])));

    assert_eq!(wire.acquire(set, &wire.admin, &ids).await.0, 401, "it takes the queue token");
    let granted = json!({ "count": 1, "value": [ids[0]] });
    assert_eq!(wire.acquire(set, &queue.token, &[ids[0], 999]).await, (200, granted.clone()));
    assert_eq!(wire.acquire(set, &queue.token, &[ids[0]]).await, (200, granted), "twice does no harm");
    let assigned = queue.receive(10).await;
    assert_eq!(
        (assigned.kinds(), &assigned.statistics["totalAssignedJobs"]),
        (vec!["JobAssigned"], &json!(1))
    );
}

#[tokio::test]
async fn the_broker_has_no_acquirejobs() {
    let github = github().start().await.expect("started");
    let wire = Wire::connect(&github, "acme").await;
    let set = wire.scale_set("fleet").await;
    let queue = wire.open(set, "me").await;
    assert_eq!(wire.acquire(set, &queue.token, &[0]).await.0, 404);
}

#[tokio::test]
async fn a_session_left_behind_can_be_deleted_by_whoever_knows_its_id() {
    let github = github().start().await.expect("started");
    let wire = Wire::connect(&github, "acme").await;
    let set = wire.scale_set("fleet").await;
    let left = github.occupy_session("fleet", "pod-0").expect("occupied");
    let (status, body) = wire.try_open(set, "pod-1").await;
    assert_eq!((status, exception(&body)), (409, "RunnerScaleSetSessionConflictException"));
    assert_eq!(body["message"], "The runner scale set fleet already has an active session for owner pod-0.");

    let other = Wire::connect(&github, "acme").await;
    assert_eq!(other.close(set, &left).await.0, 204);
    let (status, body) = other.close(set, &left).await;
    assert_eq!((status, exception(&body)), (400, "RunnerScaleSetSessionExpiredException"));
    other.open(set, "pod-1").await;
}

#[tokio::test]
async fn sessions_and_tokens_end_in_mid_poll() {
    let github = github().long_poll(PATIENCE).start().await.expect("started");
    let wire = Wire::connect(&github, "acme").await;
    let set = wire.scale_set("fleet").await;
    let held = |queue: support::Queue| tokio::spawn(async move { (queue.try_poll(0, 1).await, queue) });
    let is_held = || github.wait_until(PATIENCE, |s| s.requests().polls_held() == 1);

    let poll = held(wire.open(set, "me").await);
    is_held().await.expect("held");
    github.expire_queue_token("fleet").expect("a session");
    let ((status, _), queue) = poll.await.expect("joined");
    assert_eq!(status, 401);
    let path = format!("runtime/runnerscalesets/{set}/sessions/{}", queue.id);
    let (status, refreshed) = wire.call(Method::PATCH, &path, Value::Null).await;
    assert_eq!((status, &refreshed["sessionId"]), (200, &json!(queue.id)));
    assert_ne!(refreshed["messageQueueAccessToken"], json!(queue.token));

    let token = refreshed["messageQueueAccessToken"].as_str().expect("text").to_owned();
    let poll = held(support::Queue { token, ..queue });
    is_held().await.expect("held");
    github.expire_session("fleet").expect("a session");
    let ((status, body), _) = poll.await.expect("joined");
    assert_eq!((status, exception(&body)), (400, "RunnerScaleSetSessionExpiredException"));

    let poll = held(wire.open(set, "me again").await);
    is_held().await.expect("held");
    github.drop_session("fleet").expect("a session");
    assert_eq!(poll.await.expect("joined").0.0, 404);

    let poll = held(wire.open(set, "and again").await);
    is_held().await.expect("held");
    github.vanish_scale_set("fleet").expect("a set");
    let ((status, body), _) = poll.await.expect("joined");
    assert_eq!((status, exception(&body)), (404, "RunnerScaleSetNotFoundException"));
}

#[tokio::test]
async fn a_runner_is_offline_until_it_connects_and_gone_after_one_job() {
    let github = github().start().await.expect("started");
    let wire = Wire::connect(&github, "acme").await;
    let set = wire.scale_set("fleet").await;
    let queue = wire.open(set, "me").await;
    let counts = || {
        let s = github.statistics("fleet").expect("the set");
        (s.total_registered_runners, s.total_idle_runners, s.total_busy_runners)
    };
    let jit = wire.mint(set, "r").await;
    assert_eq!(counts(), (1, 0, 0));
    let runner = github.connect_runner(&jit).expect("connected");
    assert_eq!(counts(), (1, 1, 0));
    let id = github.queue_job(job().exit_code(3));
    queue.receive(1).await;
    let order = runner.next_job(PATIENCE).await.expect("registered").expect("a job");
    assert_eq!((order.exit_code, order.duration_ms), (3, -1));
    assert_eq!(counts(), (1, 0, 1));
    github.cancel_job(id).expect("running");
    assert_eq!(runner.hold(PATIENCE).await, Hold::Canceled);
    runner.finish(JobResult::Canceled).expect("finished");
    assert_eq!(counts(), (0, 0, 0));
    assert!(github.connect_runner(&jit).is_err(), "the configuration is used up");
}

#[tokio::test]
async fn a_silent_runner_fails_its_job() {
    let github = github().silence(Duration::from_millis(20)).start().await.expect("started");
    let wire = Wire::connect(&github, "acme").await;
    let set = wire.scale_set("fleet").await;
    let queue = wire.open(set, "me").await;
    let idle = wire.mint(set, "idle").await;
    drop(github.connect_runner(&idle).expect("connected"));
    github.wait_until(PATIENCE, |s| s.runner("idle").is_some_and(|r| !r.connected)).await.expect("offline");

    let busy = wire.mint(set, "busy").await;
    let runner = github.connect_runner(&busy).expect("connected");
    let id = github.queue_job(job());
    queue.receive(1).await;
    runner.next_job(PATIENCE).await.expect("registered").expect("a job");
    drop(runner);
    github.wait_until(PATIENCE, |s| s.runner("busy").is_none()).await.expect("removed");
    assert_eq!(github.look(|s| s.job(id).and_then(|j| j.result)), Some(JobResult::Failed));
}

#[tokio::test]
async fn a_registration_may_linger_busy() {
    for linger in [PATIENCE, Duration::from_millis(10)] {
        let github = github().linger(linger).start().await.expect("started");
        let wire = Wire::connect(&github, "acme").await;
        let set = wire.scale_set("fleet").await;
        wire.mint(set, "r").await;
        let id = github.queue_job(job());
        github.assign_jobs("fleet", 1).expect("the set");
        github.start_job(id, "r").expect("assigned");
        let runner = github.look(|s| s.runner("r").map(|r| r.id)).expect("registered");
        github.finish_job(id, JobResult::Succeeded).expect("running");
        let path = format!("distributedtask/pools/0/agents/{runner}");
        if linger == PATIENCE {
            let (status, body) = wire.call(Method::DELETE, &path, Value::Null).await;
            assert_eq!((status, exception(&body)), (400, "TaskAgentJobStillRunningException"));
        } else {
            github.wait_until(PATIENCE, |s| s.runner("r").is_none()).await.expect("gone");
            let (status, body) = wire.call(Method::GET, &path, Value::Null).await;
            assert_eq!((status, exception(&body)), (404, "TaskAgentNotFoundException"));
            assert_eq!(wire.call(Method::DELETE, &path, Value::Null).await.0, 204, "what is gone is removed");
        }
    }
}

#[tokio::test]
async fn the_public_list_of_runners_comes_in_pages() {
    let github = github().start().await.expect("started");
    let wire = Wire::connect(&github, "acme").await;
    let set = wire.scale_set("fleet").await;
    for n in 0..5 {
        wire.mint(set, &format!("r{n}")).await;
    }
    let http = reqwest::Client::new();
    let page = async |page: u32| {
        let url = format!("{}/orgs/acme/actions/runners?per_page=2&page={page}", github.url());
        support::read(http.get(url).bearer_auth(DEFAULT_TOKEN).send().await.expect("sent")).await.1
    };
    let names = |page: &Value| -> Vec<String> {
        let runners = page["runners"].as_array().expect("a list").iter();
        runners.map(|r| r["name"].as_str().expect("text").to_owned()).collect()
    };
    let (first, last) = (page(1).await, page(3).await);
    assert_eq!((&first["total_count"], names(&first)), (&json!(5), vec!["r0".to_owned(), "r1".to_owned()]));
    assert_eq!(names(&last), ["r4"]);
    assert_eq!(
        (&last["runners"][0]["status"], &last["runners"][0]["busy"]),
        (&json!("offline"), &json!(false))
    );
    assert_eq!(last["runners"][0]["labels"][0]["name"], "fleet");
}

#[tokio::test]
async fn scopes_groups_and_labels() {
    let github = github().runner_group("gpu").drop_extra_labels().start().await.expect("started");
    let wire = Wire::connect(&github, "acme").await;
    let other = Wire::connect(&github, "other").await;
    let set = wire.scale_set("fleet").await;
    other.scale_set("fleet").await;
    assert_eq!(other.call(Method::GET, &format!("runtime/runnerscalesets/{set}"), Value::Null).await.0, 404);
    let create = |name: &str, group: i64| {
        let labels = json!([{ "name": name, "type": "System" }, { "name": "extra", "type": "System" }]);
        let body = json!({ "name": name, "runnerGroupId": group, "labels": labels });
        let wire = &wire;
        async move { wire.call(Method::POST, "runtime/runnerscalesets", body).await }
    };
    let (status, taken) = create("fleet", 1).await;
    assert_eq!((status, exception(&taken)), (400, "RunnerScaleSetExistsException"));
    let (status, created) = create("fleet", 2).await;
    assert_eq!((status, &created["runnerGroupName"]), (200, &json!("gpu")), "names are unique per group");
    assert_eq!(created["labels"].as_array().expect("a list").len(), 1, "extra labels are silently dropped");
    let (_, groups) = wire.call(Method::GET, "runtime/runnergroups/?groupName=nope", Value::Null).await;
    assert_eq!(groups, json!({ "count": 0, "value": [] }));
}

#[tokio::test]
async fn jobs_outlive_their_scale_set() {
    let github = github().start().await.expect("started");
    let wire = Wire::connect(&github, "acme").await;
    let set = wire.scale_set("fleet").await;
    let id = github.queue_job(job());
    wire.open(set, "me").await.receive(1).await;
    wire.mint(set, "offline").await;
    assert_eq!(
        wire.call(Method::DELETE, &format!("runtime/runnerscalesets/{set}"), Value::Null).await.0,
        204
    );
    assert_eq!(github.look(|s| (s.runners().count(), s.job(id).and_then(|j| j.scale_set))), (0, None));
    let queue = wire.open(wire.scale_set("fleet").await, "me").await;
    assert_eq!(queue.receive(1).await.kinds(), ["JobAssigned"], "the next set of the name gets it");
}

#[tokio::test]
async fn three_hundred_polls_and_a_thousand_jobs() {
    let github = github().long_poll(PATIENCE).small_jit().start().await.expect("started");
    let wire = std::sync::Arc::new(Wire::connect(&github, "acme").await);
    let mut polls = tokio::task::JoinSet::new();
    for n in 0..300 {
        let wire = std::sync::Arc::clone(&wire);
        polls.spawn(async move {
            let set = wire.scale_set(&format!("set-{n}")).await;
            let queue = wire.open(set, "me").await;
            let mut jobs = 0;
            while jobs < if n < 100 { 4 } else { 3 } {
                jobs += queue.receive(10).await.entries.len();
            }
            jobs
        });
    }
    github.wait_until(PATIENCE, |s| s.requests().polls_held() == 300).await.expect("all held");
    for n in 0..1000 {
        github.queue_job(JobSpec::new("acme/app", [format!("set-{}", n % 300)]));
    }
    let jobs: usize = polls.join_all().await.into_iter().sum();
    assert_eq!((jobs, github.requests(Endpoint::OpenSession).len()), (1000, 300));
}

/// GitHub's front answers 411 to what does not tell the length of its body, even if there is none.
#[tokio::test]
async fn a_post_or_patch_without_a_length_is_refused() {
    let github = github().start().await.expect("started");
    let wire = Wire::connect(&github, "acme").await;
    let set = wire.scale_set("fleet").await;
    let queue = wire.open(set, "me").await;
    let path = format!("runtime/runnerscalesets/{set}/sessions/{}", queue.id);
    let refused = wire.request(Method::PATCH, &path).send().await.expect("sent");
    assert_eq!(
        (refused.status().as_u16(), refused.headers()["content-type"].as_bytes()),
        (411, &b"text/html"[..])
    );
    let url = format!("{}/orgs/acme/actions/runners/registration-token", github.url());
    let refused = reqwest::Client::new().post(url).bearer_auth(DEFAULT_TOKEN).send().await.expect("sent");
    assert_eq!(refused.status().as_u16(), 411);
    assert_eq!(wire.call(Method::PATCH, &path, Value::Null).await.0, 200);
}

#[tokio::test]
async fn ghes_may_send_no_job_ids() {
    let github = github().model(Model::Ghes).without_job_ids().start().await.expect("started");
    let wire = Wire::connect(&github, "acme").await;
    let set = wire.scale_set("fleet").await;
    let queue = wire.open(set, "me").await;
    let id = github.queue_job(job());
    let offer = queue.receive(1).await;
    assert_eq!((offer.entries[0].get("jobId"), &offer.entries[0]["runnerRequestId"]), (None, &json!(id)));
}

#[tokio::test]
async fn a_fresh_registration_token_is_refused_for_a_while() {
    let github = github().refuse_fresh_tokens(2).start().await.expect("started");
    let http = reqwest::Client::new();
    let url = format!("{}/orgs/acme/actions/runners/registration-token", github.url());
    let made =
        http.post(url).bearer_auth(DEFAULT_TOKEN).header("Content-Length", 0).send().await.expect("sent");
    let (_, token) = support::read(made).await;
    for expected in [403, 401, 200] {
        let request = http
            .post(format!("{}/actions/runner-registration", github.url()))
            .header("Authorization", format!("RemoteAuth {}", token["token"].as_str().expect("a token")))
            .json(&json!({ "url": github.config_url("acme"), "runner_event": "register" }));
        assert_eq!(request.send().await.expect("sent").status().as_u16(), expected);
    }
}
