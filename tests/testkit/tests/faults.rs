//! Faults do what they say, where they say, as often as they say.

#![allow(clippy::expect_used)]

mod support;

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use support::{PATIENCE, Wire, exception, github};
use testkit::github::{Effect, Endpoint, Fault, JobSpec, SimGithub, app_private_key};
use testkit::wait::eventually;

const GROUPS: &str = "runtime/runnergroups/";

async fn connected() -> (SimGithub, Wire, i64) {
    let github = github().start().await.expect("started");
    let wire = Wire::connect(&github, "acme").await;
    let set = wire.scale_set("fleet").await;
    (github, wire, set)
}

#[tokio::test]
async fn statuses_bodies_and_exceptions_as_often_as_asked() {
    let (github, wire, _) = connected().await;
    github.inject(Fault::status(Endpoint::RunnerGroups, 503).times(2));
    github.inject(Fault::exception(Endpoint::RunnerGroups, 404, "RunnerScaleSetNotFoundException").times(1));
    github.inject(Fault::answer(Endpoint::RunnerGroups, 418, "{}").times(1));
    let mut seen = Vec::new();
    for _ in 0..5 {
        let (status, body) = wire.call(Method::GET, GROUPS, Value::Null).await;
        seen.push((status, exception(&body).to_owned()));
    }
    let plain = |status| (status, String::new());
    let named = (404, "RunnerScaleSetNotFoundException".to_owned());
    assert_eq!(seen, [plain(503), plain(503), named, plain(418), plain(200)]);
    assert_eq!(github.requests(Endpoint::RunnerGroups).len(), 5);
}

#[tokio::test]
async fn empty_malformed_and_null() {
    let (github, wire, set) = connected().await;
    let queue = wire.open(set, "me").await;
    github.queue_job(JobSpec::new("acme/app", ["fleet"]));
    github.inject(Fault::empty(Endpoint::Poll).times(1));
    github.inject(Fault::malformed(Endpoint::Poll).times(1));
    github.inject(Fault::null_fields(Endpoint::Poll, ["statistics", "jobDisplayName"]).times(1));
    assert_eq!(queue.try_poll(0, 1).await, (200, Value::Null));
    let malformed = queue.poll_request(0, 1).send().await.expect("sent").text().await.expect("a body");
    assert!(serde_json::from_str::<Value>(&malformed).is_err() && malformed.starts_with('{'));
    let nulls = queue.poll(0, 1).await;
    assert_eq!((nulls.statistics, &nulls.entries[0]["jobDisplayName"]), (Value::Null, &Value::Null));
    assert_eq!(queue.poll(0, 1).await.statistics["totalAssignedJobs"], 1, "nothing was lost");
}

#[tokio::test]
async fn a_fault_strikes_a_poll_that_is_held() {
    let github = github().long_poll(PATIENCE).start().await.expect("started");
    let wire = Wire::connect(&github, "acme").await;
    let queue = wire.open(wire.scale_set("fleet").await, "me").await;
    let poll = tokio::spawn(async move { queue.try_poll(0, 1).await.0 });
    github.wait_until(PATIENCE, |s| s.requests().polls_held() == 1).await.expect("held");
    github.inject(Fault::status(Endpoint::Poll, 500).for_scale_set("other"));
    github.inject(Fault::status(Endpoint::Poll, 502).for_scale_set("fleet"));
    assert_eq!(poll.await.expect("joined"), 502);
}

#[tokio::test]
async fn rate_limits_carry_their_headers() {
    let (github, wire, _) = connected().await;
    let ten = Duration::from_secs(10);
    github.inject(Fault::too_many_requests(Endpoint::RunnerGroups, ten).times(1));
    github.inject(Fault::primary_rate_limit(Endpoint::RunnerGroups, ten).times(1));
    github.inject(Fault::secondary_rate_limit(Endpoint::RunnerGroups, ten).times(1));
    let ask = async || wire.request(Method::GET, GROUPS).send().await.expect("sent");
    let first = ask().await;
    assert_eq!(
        (first.status().as_u16(), &first.headers()["retry-after"].to_str().expect("text")),
        (429, &"10")
    );
    let second = ask().await;
    assert_eq!(second.status().as_u16(), 403);
    assert_eq!(second.headers()["x-ratelimit-remaining"], "0");
    assert!(second.headers().contains_key("x-ratelimit-reset"));
    let third = ask().await;
    assert_eq!(third.headers()["retry-after"], "10");
    assert!(third.text().await.expect("a body").contains("secondary rate"));
}

#[tokio::test]
async fn an_answer_that_is_lost_was_acted_on() {
    let (github, wire, set) = connected().await;
    github.inject(Fault::new(Endpoint::JitConfig, Effect::LoseAnswer).times(1));
    let path = format!("runtime/runnerscalesets/{set}/generatejitconfig");
    let lost = wire.request(Method::POST, &path).json(&json!({ "name": "r", "workFolder": "" })).send().await;
    assert!(lost.is_err(), "not a byte came back");
    let (status, body) = wire.try_mint(set, "r").await;
    assert_eq!((status, exception(&body)), (409, "TaskAgentExistsException"));
}

#[tokio::test]
async fn connections_close_before_and_in_the_middle_of_an_answer() {
    let (github, wire, _) = connected().await;
    github.inject(Fault::new(Endpoint::RunnerGroups, Effect::Refuse).times(1));
    assert!(wire.request(Method::GET, GROUPS).send().await.is_err());
    github.inject(Fault::new(Endpoint::RunnerGroups, Effect::CutAnswer).times(1));
    let cut = wire.request(Method::GET, GROUPS).send().await.expect("the head comes");
    assert_eq!(cut.status().as_u16(), 200);
    assert!(cut.bytes().await.is_err(), "the body ends too soon");
    assert_eq!(wire.call(Method::GET, GROUPS, Value::Null).await.0, 200);
}

#[tokio::test]
async fn hangs_and_delays() {
    let (github, wire, _) = connected().await;
    github.inject(Fault::hang(Endpoint::RunnerGroups, PATIENCE).times(1));
    let hanging = wire.request(Method::GET, GROUPS).timeout(Duration::from_millis(50)).send().await;
    assert!(hanging.expect_err("no answer").is_timeout());
    github.inject(Fault::delay(Endpoint::RunnerGroups, Duration::from_millis(50)).times(1));
    let began = Instant::now();
    assert_eq!(wire.call(Method::GET, GROUPS, Value::Null).await.0, 200);
    assert!(began.elapsed() >= Duration::from_millis(50));
}

#[tokio::test]
async fn an_outage_ends_held_polls_and_passes() {
    let github = github().long_poll(PATIENCE).start().await.expect("started");
    let wire = Wire::connect(&github, "acme").await;
    let queue = wire.open(wire.scale_set("fleet").await, "me").await;
    let request = queue.poll_request(0, 1);
    let poll = tokio::spawn(async move { request.send().await.is_err() });
    github.wait_until(PATIENCE, |s| s.requests().polls_held() == 1).await.expect("held");
    github.go_down();
    assert!(poll.await.expect("joined"));
    assert!(wire.request(Method::GET, GROUPS).send().await.is_err());
    github.clear_faults();
    assert_eq!(wire.call(Method::GET, GROUPS, Value::Null).await.0, 200);
}

#[tokio::test]
async fn statistics_lie_batches_repeat_turn_round_and_split() {
    let (github, wire, set) = connected().await;
    let queue = wire.open(set, "me").await;
    github.zero_statistics("fleet", 1).expect("the set");
    github.reverse_next_batch("fleet").expect("the set");
    let ids = github.queue_jobs(2, &JobSpec::new("acme/app", ["fleet"]));
    let uuids =
        github.look(|s| ids.iter().map(|id| json!(s.job(*id).expect("a job").uuid)).collect::<Vec<_>>());
    let lying = queue.receive(2).await;
    assert_eq!(lying.statistics["totalAssignedJobs"], 0);
    assert_eq!([&lying.entries[0]["jobId"], &lying.entries[1]["jobId"]], [&uuids[1], &uuids[0]]);
    github.repeat_last_batch("fleet").expect("the set");
    let again = queue.receive(2).await;
    assert_eq!((again.id, again.entries), (lying.id + 1, lying.entries));
    assert_eq!(again.statistics["totalAssignedJobs"], 2);
    github.limit_batch("fleet", 1).expect("the set");
    github.queue_jobs(2, &JobSpec::new("acme/app", ["fleet"]));
    assert_eq!((queue.receive(4).await.entries.len(), queue.receive(4).await.entries.len()), (1, 1));
}

#[tokio::test]
async fn admin_tokens_live_as_long_as_their_exp_says() {
    let github = github().admin_token_ttl(Duration::from_secs(1)).start().await.expect("started");
    let wire = Wire::connect(&github, "acme").await;
    eventually("the token expires", PATIENCE, async || {
        (wire.call(Method::GET, GROUPS, Value::Null).await.0 == 401).then_some(())
    })
    .await;
    assert_eq!(Wire::connect(&github, "acme").await.call(Method::GET, GROUPS, Value::Null).await.0, 200);
}

#[tokio::test]
async fn a_byte_order_mark_precedes_every_body_on_request() {
    let github = github().byte_order_mark().start().await.expect("started");
    let url = format!("{}/api/v3/orgs/acme/actions/runners/registration-token", github.url());
    let request = reqwest::Client::new()
        .post(url)
        .bearer_auth(testkit::github::DEFAULT_TOKEN)
        .header("Content-Length", 0);
    let body = request.send().await.expect("sent").bytes().await.expect("a body");
    assert!(body.starts_with(b"\xEF\xBB\xBF{"));
}

#[tokio::test]
async fn an_app_key_that_is_none_is_refused_at_once() {
    assert!(github().app("1", 2, "no key").is_err());
    assert!(github().app("1", 2, app_private_key()).is_ok());
}

#[tokio::test]
async fn requests_tell_who_asked_what() {
    let (github, wire, set) = connected().await;
    github.clear_requests();
    let queue = wire.open(set, "me").await;
    queue.poll_request(0, 7).header("User-Agent", "a test").send().await.expect("sent");
    let polls = github.requests(Endpoint::Poll);
    assert_eq!((polls[0].user_agent.as_deref(), polls[0].capacity), (Some("a test"), Some(7)));
    assert_eq!((polls[0].status, polls[0].scale_set), (Some(202), Some(set)));
    assert_eq!(github.look(|s| s.requests().total()), 2);
}
