//! A client that we did not write goes through the whole life of a scale set against the simulated GitHub: the crate
//! `scaleset`, in both assignment models and with both kinds of credentials.

#![allow(clippy::expect_used)]

use std::time::Duration;

use scaleset::{
    Client, Credentials, ExposeSecret, JitRunnerSetting, MessageId, MessageSession, RetryPolicy,
    RunnerGroupId, RunnerScaleSetSpec, ScaleSetMessage,
};
use testkit::github::{
    DEFAULT_TOKEN, Endpoint, JobResult, JobSpec, JobStatus, Model, SimGithub, SimRunner, app_private_key,
};

/// Long enough for a busy machine; nothing here waits for it to pass.
const PATIENCE: Duration = Duration::from_secs(30);

async fn start(model: Model) -> SimGithub {
    let builder = SimGithub::builder().model(model).long_poll(Duration::from_secs(5)).runner_group("gpu");
    // The crate tells no length of an empty body. It usually speaks HTTP/2, where none is asked for.
    let builder = builder.length_optional();
    builder.start().await.expect("it starts")
}

fn client(github: &SimGithub, path: &str, credentials: Credentials) -> Client {
    let quick = RetryPolicy::default().max_retries(0);
    let builder = Client::builder(github.config_url(path), credentials).allow_http(true).retry_policy(quick);
    builder.build().expect("a client")
}

fn token() -> Credentials {
    Credentials::personal_access_token(DEFAULT_TOKEN).expect("a token")
}

/// Polls until a message comes, and acknowledges it.
async fn receive(session: &MessageSession, last: &mut Option<MessageId>, capacity: u32) -> ScaleSetMessage {
    loop {
        let message = session.get_message(*last, capacity).await.expect("a poll");
        if let Some(message) = message {
            session.delete_message(message.id).await.expect("an acknowledgement");
            *last = Some(message.id);
            return message;
        }
    }
}

async fn runner(github: &SimGithub, client: &Client, set: scaleset::ScaleSetId, name: &str) -> SimRunner {
    let jit =
        client.generate_jit_config(set, &JitRunnerSetting::new(name)).await.expect("a JIT configuration");
    let encoded = jit.encoded_jit_config.expose_secret();
    assert!((4_000..6_000).contains(&encoded.len()), "a true JIT configuration has about 4.4 KB");
    github.connect_runner(encoded).expect("the runner connects")
}

async fn whole_life(github: &SimGithub, client: &Client, model: Model) {
    let group = client.get_runner_group_by_name("gpu").await.expect("a look").expect("the group");
    let spec = RunnerScaleSetSpec::new("fleet")
        .runner_group_id(group.id)
        .labels(["linux", "x64"])
        .disable_update(true);
    let set = client.create_runner_scale_set(&spec).await.expect("created");
    assert_eq!(set.runner_group_name, "gpu");
    assert!(set.runner_setting.disable_update);
    let found = client.get_runner_scale_set_by_name(group.id, "fleet").await.expect("a look").expect("found");
    assert_eq!(found.id, set.id);
    let taken = client.create_runner_scale_set(&spec).await.expect_err("a second of the name");
    assert!(taken.to_string().contains("already exists"), "{taken}");
    assert!(
        client.get_runner_scale_set_by_name(RunnerGroupId::DEFAULT, "fleet").await.expect("a look").is_none()
    );

    let session = client.create_message_session(set.id, "first").await.expect("a session");
    let conflict = client.create_message_session(set.id, "second").await.expect_err("one session per set");
    assert!(conflict.is_conflict() && conflict.to_string().contains("for owner first"), "{conflict}");

    let job = github.queue_job(JobSpec::new("acme/app", ["linux", "x64"]));
    let mut last = None;
    let mut message = receive(&session, &mut last, 2).await;
    if model == Model::Ghes {
        let offered = message.jobs_available().next().expect("an offer").job.runner_request_id;
        assert_eq!(session.acquire_jobs(&[offered]).await.expect("acquired"), [offered]);
        message = receive(&session, &mut last, 2).await;
    }
    let assigned = message.jobs_assigned().next().expect("an assignment").job.clone();
    assert_eq!((assigned.owner_name.as_str(), assigned.repository_name.as_str()), ("acme", "app"));
    assert_eq!(assigned.runner_request_id.get() == 0, model == Model::Broker);
    assert_eq!(message.statistics.expect("statistics").total_assigned_jobs, 1);

    let busy = runner(github, client, set.id, "runner-1").await;
    let order = busy.next_job(PATIENCE).await.expect("registered").expect("a job");
    assert_eq!((order.id, order.job_id.as_str()), (job, assigned.job_id.as_str()));
    let message = receive(&session, &mut last, 2).await;
    assert_eq!(message.jobs_started().next().expect("a start").runner_name, "runner-1");
    assert_eq!(message.statistics.expect("statistics").total_busy_runners, 1);

    let known = client.get_runner_by_name("runner-1").await.expect("a look").expect("registered");
    assert!(client.remove_runner(known.id).await.expect_err("it is busy").is_job_still_running());
    assert!(client.delete_runner_scale_set(set.id).await.is_err(), "a set with a running job stays");
    let clash = client.generate_jit_config(set.id, &JitRunnerSetting::new("runner-1")).await;
    assert!(clash.expect_err("the name is taken").is_runner_exists());

    busy.finish(JobResult::Succeeded).expect("finished");
    let message = receive(&session, &mut last, 2).await;
    let completed = message.jobs_completed().next().expect("an end");
    assert_eq!((completed.result.as_str(), completed.runner_name.as_str()), ("succeeded", "runner-1"));
    assert!(client.get_runner(known.id).await.expect_err("it was ephemeral").is_runner_not_found());

    let _idle = runner(github, client, set.id, "runner-2").await;
    let idle = client.get_runner_by_name("runner-2").await.expect("a look").expect("registered");
    client.remove_runner(idle.id).await.expect("removed");
    client.remove_runner(idle.id).await.expect("removing it again does no harm");

    github.expire_queue_token("fleet").expect("a session");
    github.expire_admin_tokens();
    github.queue_job(JobSpec::new("acme/app", ["fleet"]));
    assert!(!receive(&session, &mut last, 2).await.jobs.is_empty(), "both tokens were renewed on the way");

    session.close().await.expect("closed");
    client.delete_runner_scale_set(set.id).await.expect("deleted");
    assert!(client.get_runner_scale_set_by_id(set.id).await.expect_err("gone").is_not_found());
    assert_eq!(
        github.look(|s| s.jobs_in(JobStatus::Queued)),
        1,
        "the waiting job went back to GitHub's queue"
    );
}

#[tokio::test]
async fn broker_with_a_token() {
    let github = start(Model::Broker).await;
    whole_life(&github, &client(&github, "acme", token()), Model::Broker).await;
    assert_eq!(github.requests(Endpoint::AccessToken).len(), 0);
}

#[tokio::test]
async fn ghes_with_a_token() {
    let github = start(Model::Ghes).await;
    whole_life(&github, &client(&github, "enterprises/corp", token()), Model::Ghes).await;
}

#[tokio::test]
async fn broker_with_an_app_on_a_repository() {
    let builder = SimGithub::builder().long_poll(Duration::from_secs(5)).runner_group("gpu");
    let builder = builder.app("Iv1.witness", 42, app_private_key()).expect("a key").length_optional();
    let github = builder.start().await.expect("it starts");
    let app = Credentials::github_app("Iv1.witness", 42, app_private_key()).expect("an App");
    whole_life(&github, &client(&github, "acme/app", app), Model::Broker).await;
    assert_eq!(github.requests(Endpoint::AccessToken).len(), 2, "one per admin token");

    let other = Credentials::github_app("Iv1.other", 42, app_private_key()).expect("an App");
    let refused = client(&github, "acme/app", other).get_runner_group_by_name("gpu").await;
    assert!(refused.expect_err("another issuer").is_unauthorized());
}

#[tokio::test]
async fn a_wrong_token_is_refused() {
    let github = start(Model::Broker).await;
    let wrong = Credentials::personal_access_token("ghp_wrong").expect("a token");
    let refused = client(&github, "acme", wrong).get_runner_group_by_name("Default").await;
    assert!(refused.expect_err("a wrong token").is_unauthorized());
}
