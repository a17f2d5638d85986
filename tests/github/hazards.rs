//! The hazards H1 to H10 that a client of this service meets, each handled. (H2's case-blindness is shown where the
//! JSON is read, and H10, which takes minutes, beside the listen loop.)

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use paddock::github::{Client, ClientConfig, Deadlines, Error, ListenState, ScaleSetService};
use paddock::runner::{JobEvent, JobOutcome};
use testkit::github::{Endpoint, Fault, JobResult, JobSpec};

use crate::support::{
    Heard, Listening, PATIENCE, SET, client, config, connect, github, listening, scale_set, session,
    sessions, wanted,
};

fn job() -> JobSpec {
    JobSpec::new("acme/app", [SET])
}

#[tokio::test]
async fn h1_jobs_are_told_apart_though_every_request_id_is_zero() {
    let github = github().start().await.unwrap();
    let (client, set, listening) = listening(&github, 2).await;
    let ids = github.queue_jobs(2, &job());
    let mut runners = Vec::new();
    for name in ["fleet-a", "fleet-b"] {
        let runner = connect(&github, &client.mint_jit(set.id, name).await.unwrap());
        assert!(runner.next_job(PATIENCE).await.unwrap().is_some());
        runners.push(runner);
    }
    let started = |event: &JobEvent| match event {
        JobEvent::Started { job, runner_name, .. } => Some((job.id.clone(), runner_name.clone())),
        _ => None,
    };
    let first = listening.ear.event(1, started).await;
    let second = listening.ear.event(2, started).await;
    let uuids = github.look(|s| ids.iter().map(|id| s.job(*id).unwrap().uuid.clone()).collect::<Vec<_>>());
    assert_eq!([&first.0, &second.0], [&uuids[0], &uuids[1]]);
    assert_eq!([first.1.as_str(), second.1.as_str()], ["fleet-a", "fleet-b"]);

    runners.remove(0).finish(JobResult::Succeeded).unwrap();
    let completed = |event: &JobEvent| match event {
        JobEvent::Completed { job, runner_name, outcome } => {
            Some((job.id.clone(), runner_name.clone(), *outcome))
        }
        _ => None,
    };
    let done = listening.ear.event(1, completed).await;
    assert_eq!(done, (uuids[0].clone(), "fleet-a".to_owned(), JobOutcome::Succeeded));
    listening.stop().await;
}

#[tokio::test]
async fn h2_a_null_is_an_absent_field() {
    let github = github().start().await.unwrap();
    let client = Arc::new(client(&github));
    let set = scale_set(&client).await;
    let nulls = [
        "runnerGroupName",
        "createdOn",
        "runnerJitConfigUrl",
        "statistics",
        "eventName",
        "requestLabels",
        "runnerName",
        "jobWorkflowRef",
        "finishTime",
        "totalIdleRunners",
    ];
    for endpoint in [Endpoint::GetScaleSet, Endpoint::OpenSession, Endpoint::Poll] {
        github.inject(Fault::null_fields(endpoint, nulls));
    }
    assert_eq!(client.ensure_scale_set(&wanted(), Some(set.id)).await.unwrap().labels, set.labels);
    let session = client.open_session(set.id, "tester", None).await.unwrap();
    assert!(session.statistics.is_none());
    github.queue_job(job());
    let message = client.poll(&session, 0, 1).await.unwrap().unwrap();
    assert_eq!(message.unreadable, 0);
    assert!(matches!(message.events.as_slice(), [JobEvent::Assigned { job }] if !job.id.is_empty()));
    // Without its labels the set reads as one that has none, which is mended and not an error.
    github.clear_faults();
    github.inject(Fault::null_fields(Endpoint::GetScaleSet, ["labels"]).times(1));
    client.ensure_scale_set(&wanted(), Some(set.id)).await.unwrap();
}

#[tokio::test]
async fn h3_a_lost_right_is_not_a_lost_runner() {
    let github = github().start().await.unwrap();
    github.inject(Fault::status(Endpoint::RegistrationToken, 404));
    let client = client(&github);
    let refused = |error: &Error| matches!(error, Error::AuthRejected(_));
    assert!(refused(&client.find_runner("fleet-a").await.unwrap_err()));
    assert!(refused(&client.remove_runner(1).await.unwrap_err()));
    assert!(refused(&client.delete_scale_set(1).await.unwrap_err()));
    assert!(refused(&client.mint_jit(1, "fleet-a").await.unwrap_err()));
    assert_eq!(github.requests(Endpoint::RemoveRunner).len(), 0);
}

#[tokio::test]
async fn h4_a_session_lost_in_any_way_is_opened_anew() {
    let github = github().start().await.unwrap();
    let (_, _, listening) = listening(&github, 5).await;
    let expired = "GitHub.DistributedTask.WebApi.RunnerScaleSetSessionExpiredException";
    let ways: [&dyn Fn(); 5] = [
        &|| github.expire_session(SET).unwrap(),
        &|| github.drop_session(SET).unwrap(),
        &|| github.inject(Fault::exception(Endpoint::Poll, 400, expired).times(1)),
        &|| github.inject(Fault::status(Endpoint::Poll, 410).times(1)),
        // The token is at its end, and the session behind it too: "doesn't exist in redis".
        &|| {
            github.inject(Fault::status(Endpoint::RefreshSession, 404).times(1));
            github.expire_queue_token(SET).unwrap();
        },
    ];
    for (number, lose) in ways.into_iter().enumerate() {
        lose();
        listening.ear.opened(number + 2).await;
        github.queue_job(job());
        listening.ear.event(number + 1, |e| matches!(e, JobEvent::Assigned { .. }).then_some(())).await;
    }
    listening.stop().await;
}

#[tokio::test]
async fn h5_polls_do_not_hold_up_other_calls() {
    // More polls than the 100 streams that one HTTP/2 connection usually has.
    const POLLS: usize = 150;
    let github = github().long_poll(PATIENCE).start().await.unwrap();
    let client = Arc::new(client(&github));
    let session = session(&client).await;
    let polls = tokio::spawn({
        let (client, session) = (Arc::clone(&client), session.clone());
        async move { join_all((0..POLLS).map(|_| client.poll(&session, 0, 1))).await }
    });
    github.wait_until(PATIENCE, |s| s.requests().polls_held() == POLLS).await.unwrap();
    assert!(client.find_runner("nobody").await.unwrap().is_none());
    assert_eq!(github.look(|s| s.requests().polls_held()), POLLS);
    polls.abort();
}

#[tokio::test]
async fn h6_a_rate_limit_is_an_answer_and_not_a_sleep() {
    let github = github().start().await.unwrap();
    let session = session(&client(&github)).await;
    let hour = Duration::from_secs(3600);
    for (endpoint, fault) in [
        (Endpoint::JitConfig, Fault::too_many_requests(Endpoint::JitConfig, hour)),
        (Endpoint::GetRunner, Fault::secondary_rate_limit(Endpoint::GetRunner, hour)),
        (Endpoint::Poll, Fault::primary_rate_limit(Endpoint::Poll, hour)),
    ] {
        // Each time another client: it remembers the limit.
        let client = client(&github);
        github.clear_requests();
        github.inject(fault);
        let error = match endpoint {
            Endpoint::JitConfig => client.mint_jit(session.scale_set_id, "fleet-a").await.unwrap_err(),
            Endpoint::GetRunner => client.find_runner("fleet-a").await.unwrap_err(),
            _ => client.poll(&session, 0, 1).await.unwrap_err(),
        };
        let Error::RateLimited { retry_after } = error else { panic!("{error:?}") };
        assert!(retry_after > Duration::from_secs(3590) && retry_after <= hour, "{retry_after:?}");
        assert_eq!(github.requests(endpoint).len(), 1, "asked again in spite of the limit");
    }
}

#[tokio::test]
async fn h6_a_silent_server_ends_every_call_at_its_deadline() {
    let github = github().start().await.unwrap();
    let deadlines = Deadlines { control: Duration::from_secs(2), poll: Duration::from_secs(1) };
    let client = Client::new(&config(&github, "acme"), deadlines).unwrap();
    let session = session(&client).await;
    let id = session.scale_set_id;
    github.inject(Fault::hang(Endpoint::Any, PATIENCE * 10));
    let wanted = wanted();
    let calls: Vec<BoxFuture<'_, Option<Error>>> = vec![
        client.ensure_scale_set(&wanted, Some(id)).map(Result::err).boxed(),
        client.delete_scale_set(id).map(Result::err).boxed(),
        client.open_session(id, "tester", Some("left")).map(Result::err).boxed(),
        client.refresh(&session).map(Result::err).boxed(),
        client.acknowledge(&session, 1).map(Result::err).boxed(),
        client.acquire(&session, &[1]).map(Result::err).boxed(),
        client.acquirable(id).map(Result::err).boxed(),
        client.mint_jit(id, "fleet-a").map(Result::err).boxed(),
        client.find_runner("fleet-a").map(Result::err).boxed(),
        client.remove_runner(1).map(Result::err).boxed(),
        client.close(&session).map(Result::err).boxed(),
        client.poll(&session, 0, 1).map(Result::err).boxed(),
    ];
    let errors = tokio::time::timeout(PATIENCE, join_all(calls)).await.expect("all end");
    assert!(errors.iter().all(|e| matches!(e, Some(Error::Transient(_)))), "{errors:?}");
    assert_eq!(github.requests(Endpoint::Poll).len(), 1, "a poll is not repeated inside the client");
}

#[tokio::test]
async fn h7_what_must_not_be_empty_is_a_bad_reply() {
    let github = github().start().await.unwrap();
    let client = client(&github);
    let set = scale_set(&client).await;
    let bad = |error: Option<Error>, what: &str| {
        assert!(matches!(error, Some(Error::BadReply(_))), "{what}: {error:?}")
    };
    for field in ["sessionId", "messageQueueUrl", "messageQueueAccessToken"] {
        github.inject(Fault::null_fields(Endpoint::OpenSession, [field]).times(1));
        bad(client.open_session(set.id, "tester", None).await.err(), field);
        // One that can be named is not left in the way of the next.
        assert_eq!(github.drop_session(SET).is_ok(), field == "sessionId", "{field}");
    }
    for field in ["encodedJITConfig", "runner"] {
        github.inject(Fault::drop_fields(Endpoint::JitConfig, [field]).times(1));
        bad(client.mint_jit(set.id, &format!("fleet-{field}")).await.err(), field);
    }
    let session = client.open_session(set.id, "tester", None).await.unwrap();
    for fault in [Fault::empty(Endpoint::Poll), Fault::malformed(Endpoint::Poll)] {
        github.inject(fault.times(1));
        bad(client.poll(&session, 0, 1).await.err(), "poll");
    }
    for field in ["url", "token"] {
        github.expire_admin_tokens();
        github.inject(Fault::null_fields(Endpoint::RunnerRegistration, [field]).times(1));
        bad(client.find_runner("x").await.err(), field);
    }
}

#[tokio::test]
async fn h8_a_conflict_is_named_and_waited_out() {
    let github = github().start().await.unwrap();
    let client = Arc::new(client(&github));
    let set = scale_set(&client).await;
    github.occupy_session(SET, "another-controller").unwrap();
    let service = Arc::clone(&client) as Arc<dyn ScaleSetService>;
    let listening = Listening::start(service, set.id, Some("long-gone"), 1);
    let owner = listening.ear.state(|s| match s {
        ListenState::Conflict { owner, .. } => owner.clone(),
        _ => None,
    });
    assert_eq!(owner.await, "another-controller");
    github.drop_session(SET).unwrap();
    listening.ear.opened(1).await;
    listening.stop().await;
}

#[tokio::test]
async fn h8_a_message_that_cannot_be_read_or_acknowledged_does_not_block_the_next() {
    let github = github().start().await.unwrap();
    let (_, _, listening) = listening(&github, 5).await;
    github.inject(Fault::status(Endpoint::Acknowledge, 400));
    let body =
        r#"{"messageId": 1, "messageType": "RunnerScaleSetJobMessages", "body": "[{\"messageType\": 7}]"}"#;
    github.inject(Fault::answer(Endpoint::Poll, 200, body).times(1));
    listening
        .ear
        .until(|heard| {
            heard.iter().any(|h| matches!(h, Heard::Message(m) if m.unreadable == 1)).then_some(())
        })
        .await;
    for number in 1..=3 {
        github.queue_job(job());
        listening.ear.event(number, |e| matches!(e, JobEvent::Assigned { .. }).then_some(())).await;
    }
    // Once it works again, what is owed is paid.
    github.clear_faults();
    github.queue_job(job());
    github.wait_until(PATIENCE, |s| s.scale_set(SET).unwrap().undelivered() == 0).await.unwrap();
    assert_eq!(sessions(&listening.ear.heard()).count(), 1);
    listening.stop().await;
}

#[tokio::test]
async fn h9_one_tls_provider_serves_github_and_kubernetes() {
    let config = ClientConfig {
        url: "https://github.com/acme".to_owned(),
        allow_insecure: false,
        ..config(&github().start().await.unwrap(), "acme")
    };
    Client::new(&config, Deadlines::default()).unwrap();
    let cluster = kube::Config::new("https://127.0.0.1:1".parse().unwrap());
    kube::Client::try_from(cluster).unwrap();
}
