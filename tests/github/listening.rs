//! The listen loop through good days and bad ones.

use std::sync::Arc;

use paddock::github::{ListenEnd, ListenState, ScaleSetService};
use paddock::runner::JobEvent;
use testkit::github::{
    DEFAULT_TOKEN, Effect, Endpoint, Fault, JobResult, JobSpec, JobStatus, Model, SimGithub, State,
};

use crate::support::{
    Heard, Listening, PATIENCE, SET, client, connect, github, listening, scale_set, sessions,
};

fn job() -> JobSpec {
    JobSpec::new("acme/app", [SET])
}

fn assigned(event: &JobEvent) -> Option<String> {
    match event {
        JobEvent::Assigned { job } => Some(job.id.clone()),
        _ => None,
    }
}

fn completed(event: &JobEvent) -> Option<()> {
    matches!(event, JobEvent::Completed { .. }).then_some(())
}

async fn acknowledged(github: &SimGithub) {
    github.wait_until(PATIENCE, |s| s.scale_set(SET).unwrap().undelivered() == 0).await.unwrap();
}

#[tokio::test]
async fn a_job_is_heard_of_from_its_assignment_to_its_end() {
    for model in [Model::Broker, Model::Ghes] {
        let github = github().model(model).start().await.unwrap();
        let (client, set, listening) = listening(&github, 3).await;
        github.queue_job(job());
        listening.ear.event(1, assigned).await;
        let runner = connect(&github, &client.mint_jit(set.id, "fleet-a").await.unwrap());
        assert!(runner.next_job(PATIENCE).await.unwrap().is_some());
        runner.finish(JobResult::Succeeded).unwrap();
        listening.ear.event(1, completed).await;
        acknowledged(&github).await;
        let ear = Arc::clone(&listening.ear);
        assert_eq!(listening.stop().await, ListenEnd::Cancelled);
        assert!(matches!(ear.heard().last(), Some(Heard::Closed)));
        assert!(github.look(|s| s.scale_set(SET).unwrap().session.is_none()));
    }
}

/// GitHub Enterprise Server before the middle of 2025.
#[tokio::test]
async fn jobs_without_ids_are_heard_of_by_their_request() {
    let github = github().model(Model::Ghes).without_job_ids().start().await.unwrap();
    let (client, set, listening) = listening(&github, 3).await;
    let id = github.queue_job(job()).to_string();
    assert_eq!(listening.ear.event(1, assigned).await, id);
    let runner = connect(&github, &client.mint_jit(set.id, "fleet-a").await.unwrap());
    assert!(runner.next_job(PATIENCE).await.unwrap().is_some());
    let started = |event: &JobEvent| match event {
        JobEvent::Started { job, runner_name, .. } => Some((job.id.clone(), runner_name.clone())),
        _ => None,
    };
    assert_eq!(listening.ear.event(1, started).await, (id.clone(), "fleet-a".to_owned()));
    runner.finish(JobResult::Succeeded).unwrap();
    listening.ear.event(1, completed).await;
    listening.stop().await;
}

#[tokio::test]
async fn statistics_are_told_before_the_first_poll() {
    let github = github().start().await.unwrap();
    let client = Arc::new(client(&github));
    let set = scale_set(&client).await;
    // A job that is assigned since before: seen though no poll comes back.
    let earlier = client.open_session(set.id, "earlier", None).await.unwrap();
    github.queue_job(job());
    client.poll(&earlier, 0, 1).await.unwrap().unwrap();
    client.close(&earlier).await.unwrap();
    github.inject(Fault::hang(Endpoint::Poll, PATIENCE * 10));
    let listening = Listening::start(client, set.id, None, 3);
    let (opened, counted) = listening
        .ear
        .until(|heard| {
            let opened = heard.iter().position(|h| matches!(h, Heard::Opened(_)))?;
            let counted = heard.iter().position(|h| matches!(h, Heard::Statistics(s) if s.assigned == 1))?;
            Some((opened, counted))
        })
        .await;
    assert!(opened < counted, "written down first");
    listening.stop().await;
}

#[tokio::test]
async fn a_session_left_behind_is_cleared_and_its_messages_come_again() {
    let github = github().start().await.unwrap();
    let (client, set, first) = listening(&github, 3).await;
    github.inject(Fault::status(Endpoint::Acknowledge, 503));
    github.queue_job(job());
    let seen = first.ear.event(1, assigned).await;
    let left = first.ear.opened(1).await;
    let refused = |s: &State| s.requests().to(Endpoint::Acknowledge).any(|r| r.status == Some(503));
    github.wait_until(PATIENCE, refused).await.unwrap();
    first.kill();
    github.clear_faults();
    github.clear_requests();
    let second = Listening::start(client, set.id, Some(&left.id), 3);
    assert_ne!(second.ear.opened(1).await.id, left.id);
    assert_eq!(github.requests(Endpoint::OpenSession).len(), 1, "no conflict was met");
    assert_eq!(second.ear.event(1, assigned).await, seen, "not acknowledged, so not lost");
    second.stop().await;
}

#[tokio::test]
async fn a_session_that_was_forgotten_clears_within_seconds_of_its_end() {
    let github = github().start().await.unwrap();
    let (client, set, first) = listening(&github, 3).await;
    // Its id was never written down, but it has our name.
    first.kill();
    let second = Listening::start(client, set.id, None, 3);
    let owner = second.ear.state(|s| match s {
        ListenState::Conflict { owner, .. } => owner.clone(),
        _ => None,
    });
    assert_eq!(owner.await, "tester");
    github.expire_session(SET).unwrap();
    second.ear.opened(1).await;
    second.stop().await;
}

#[tokio::test]
async fn capacity_that_rises_or_falls_is_told_at_once() {
    let github = github().long_poll(PATIENCE * 2).start().await.unwrap();
    let (_, _, listening) = listening(&github, 0).await;
    github.queue_jobs(2, &job());
    github.wait_until(PATIENCE, |s| s.requests().polls_held() > 0).await.unwrap();
    // The poll that is held says 0, and would be held for a minute: nothing but a new one releases the jobs.
    listening.ear.capacity.send_replace(1);
    listening.ear.event(1, assigned).await;
    github
        .wait_until(PATIENCE, |s| s.scale_set(SET).unwrap().session.as_ref().unwrap().capacity == Some(1))
        .await
        .unwrap();
    listening.ear.capacity.send_replace(2);
    listening.ear.event(2, assigned).await;
    acknowledged(&github).await;
    github.wait_until(PATIENCE, |s| s.requests().polls_held() > 0).await.unwrap();
    // Nothing happens at GitHub, and the poll that is held says 2.
    listening.ear.capacity.send_replace(0);
    github
        .wait_until(PATIENCE, |s| s.scale_set(SET).unwrap().session.as_ref().unwrap().capacity == Some(0))
        .await
        .unwrap();
    listening.stop().await;
}

#[tokio::test]
async fn the_end_of_a_token_is_no_event() {
    let github = github().long_poll(PATIENCE * 2).start().await.unwrap();
    let (_, _, listening) = listening(&github, 5).await;
    for number in 1..=3 {
        github.wait_until(PATIENCE, |s| s.requests().polls_held() > 0).await.unwrap();
        // 401 in mid-poll, and the admin token gone as well.
        github.expire_admin_tokens();
        github.expire_queue_token(SET).unwrap();
        github.queue_job(job());
        listening.ear.event(number, assigned).await;
    }
    let heard = listening.ear.heard();
    assert_eq!(sessions(&heard).count(), 1, "the session went on");
    let trouble = |h: &Heard| matches!(h, Heard::State(s) if !matches!(s, ListenState::Polling { .. } | ListenState::PollCompleted { .. }));
    assert!(!heard.iter().any(trouble), "{heard:#?}");
    listening.stop().await;
}

#[tokio::test]
async fn odd_answers_are_survived_in_place() {
    let github = github().start().await.unwrap();
    let (_, _, listening) = listening(&github, 50).await;
    let faults = [
        Fault::empty(Endpoint::Poll),
        Fault::malformed(Endpoint::Poll),
        Fault::status(Endpoint::Poll, 202),
        Fault::status(Endpoint::Poll, 502),
        Fault::new(Endpoint::Poll, Effect::Refuse),
        Fault::new(Endpoint::Poll, Effect::CutAnswer),
        Fault::new(Endpoint::Poll, Effect::LoseAnswer),
    ];
    for (number, fault) in faults.into_iter().enumerate() {
        github.inject(fault.times(1));
        github.queue_job(job());
        listening.ear.event(number + 1, assigned).await;
    }
    acknowledged(&github).await;
    assert_eq!(sessions(&listening.ear.heard()).count(), 1);
    listening.stop().await;
}

#[tokio::test]
async fn an_outage_is_told_and_healed() {
    let github = github().start().await.unwrap();
    let (_, _, listening) = listening(&github, 5).await;
    github.go_down();
    let message = listening.ear.state(|s| match s {
        ListenState::Unreachable { message, .. } => Some(message.clone()),
        _ => None,
    });
    assert!(!message.await.is_empty());
    github.queue_job(job());
    github.clear_faults();
    listening.ear.opened(2).await;
    listening.ear.event(1, assigned).await;
    listening.stop().await;
}

#[tokio::test]
async fn a_hanging_acknowledgement_does_not_make_the_loop_deaf() {
    let github = github().start().await.unwrap();
    let (_, _, listening) = listening(&github, 5).await;
    github.inject(Fault::hang(Endpoint::Acknowledge, PATIENCE * 10));
    for number in 1..=2 {
        github.queue_job(job());
        listening.ear.event(number, assigned).await;
    }
    listening.stop().await;
}

#[tokio::test]
async fn offers_that_could_not_be_acquired_are_tried_again() {
    let github = github().model(Model::Ghes).start().await.unwrap();
    let (_, _, listening) = listening(&github, 5).await;
    github.inject(Fault::status(Endpoint::AcquireJobs, 400).times(1));
    github.queue_job(job());
    listening.ear.event(1, assigned).await;
    listening.stop().await;
}

/// What is not acquired may be offered for a day; what is acquired and not run soon is cancelled.
#[tokio::test]
async fn no_more_offers_are_acquired_than_the_set_can_have_in_hand() {
    let github = github().model(Model::Ghes).long_poll(PATIENCE * 2).start().await.unwrap();
    let (_, _, listening) = listening(&github, 0).await;
    let ids = github.queue_jobs(5, &job());
    // Once everything is heard, acquired and acknowledged, a poll is held.
    let at_rest = async |acquired| {
        acknowledged(&github).await;
        github.wait_until(PATIENCE, |s| s.requests().polls_held() > 0).await.unwrap();
        assert_eq!(github.look(|s| s.jobs_in(JobStatus::Assigned)), acquired);
    };
    listening.ear.event(5, |e| matches!(e, JobEvent::Available { .. }).then_some(())).await;
    at_rest(0).await;
    assert_eq!(github.requests(Endpoint::AcquireJobs).len(), 0);
    listening.ear.capacity.send_replace(2);
    listening.ear.event(2, assigned).await;
    at_rest(2).await;
    listening.ear.capacity.send_replace(3);
    listening.ear.event(3, assigned).await;
    at_rest(3).await;
    // One of them is over: there is room for another.
    github.cancel_job(ids[0]).unwrap();
    listening.ear.event(4, assigned).await;
    at_rest(3).await;
    listening.stop().await;
}

#[tokio::test]
async fn a_count_of_nothing_at_all_acquires_no_more_than_can_be_had() {
    let github = github().model(Model::Ghes).long_poll(PATIENCE * 2).start().await.unwrap();
    let (_, _, listening) = listening(&github, 1).await;
    github.queue_job(job());
    listening.ear.event(1, assigned).await;
    acknowledged(&github).await;
    github.zero_statistics(SET, 1).unwrap();
    github.queue_job(job());
    listening.ear.event(2, |e| matches!(e, JobEvent::Available { .. }).then_some(())).await;
    acknowledged(&github).await;
    github.wait_until(PATIENCE, |s| s.requests().polls_held() > 0).await.unwrap();
    assert_eq!(github.look(|s| s.jobs_in(JobStatus::Assigned)), 1);
    listening.stop().await;
}

#[tokio::test]
async fn offers_whose_message_is_gone_are_found_at_the_start() {
    let github = github().model(Model::Ghes).start().await.unwrap();
    let client = Arc::new(client(&github));
    let set = scale_set(&client).await;
    let earlier = client.open_session(set.id, "earlier", None).await.unwrap();
    github.queue_job(job());
    let message = client.poll(&earlier, 0, 1).await.unwrap().unwrap();
    client.acknowledge(&earlier, message.id).await.unwrap();
    client.close(&earlier).await.unwrap();
    let listening = Listening::start(client, set.id, None, 5);
    listening.ear.event(1, assigned).await;
    listening.stop().await;
}

/// Where GitHub assigns by itself it counts what waits as available, and lists none of it.
#[tokio::test]
async fn a_queue_that_github_assigns_by_itself_is_not_looked_through_at_each_message() {
    let github = github().start().await.unwrap();
    let (_, _, listening) = listening(&github, 1).await;
    github.queue_jobs(6, &job());
    for number in 1..=5 {
        github.assign_jobs(SET, number).unwrap();
        listening.ear.event(number, assigned).await;
    }
    listening.stop().await;
    assert!(github.requests(Endpoint::AcquirableJobs).len() < 5);
}

#[tokio::test]
async fn a_rate_limit_is_told_with_its_end() {
    let github = github().start().await.unwrap();
    let (_, _, listening) = listening(&github, 5).await;
    github.inject(Fault::too_many_requests(Endpoint::Poll, std::time::Duration::from_secs(1)).times(1));
    let until = listening.ear.state(|s| match s {
        ListenState::RateLimited { until } => Some(*until),
        _ => None,
    });
    assert!(until.await > jiff::Timestamp::now());
    github.queue_job(job());
    listening.ear.event(1, assigned).await;
    assert_eq!(sessions(&listening.ear.heard()).count(), 1, "a rate limit costs no session");
    listening.stop().await;
}

#[tokio::test]
async fn a_scale_set_that_vanished_ends_the_loop_after_a_second_look() {
    let github = github().start().await.unwrap();
    let (_, _, listening) = listening(&github, 5).await;
    github.vanish_scale_set(SET).unwrap();
    assert_eq!(listening.end().await, ListenEnd::ScaleSetGone);
    // One such answer alone is not believed.
    let (_, _, again) = crate::support::listening(&github, 5).await;
    github.inject(Fault::exception(Endpoint::Poll, 404, "RunnerScaleSetNotFoundException").times(1));
    again.ear.opened(2).await;
    assert_eq!(again.stop().await, ListenEnd::Cancelled);
}

#[tokio::test]
async fn a_revoked_credential_ends_the_loop_after_a_few_tries() {
    let github = github().start().await.unwrap();
    let (_, _, listening) = listening(&github, 5).await;
    github.replace_tokens(["ghp_another"]);
    github.expire_admin_tokens();
    github.drop_session(SET).unwrap();
    let ear = Arc::clone(&listening.ear);
    let end = listening.end().await;
    assert!(matches!(&end, ListenEnd::AuthRejected(text) if !text.contains(DEFAULT_TOKEN)), "{end:?}");
    ear.state(|s| matches!(s, ListenState::Refused { .. }).then_some(())).await;
    assert!(github.requests(Endpoint::RegistrationToken).len() <= 5);
}

#[tokio::test]
async fn the_loop_stops_at_once_whatever_it_waits_for() {
    let github = github().start().await.unwrap();
    // In a back-off, with GitHub down.
    let (_, _, down) = listening(&github, 5).await;
    github.go_down();
    down.ear.state(|s| matches!(s, ListenState::Unreachable { .. }).then_some(())).await;
    assert_eq!(down.stop().await, ListenEnd::Cancelled);
    github.clear_faults();
    github.drop_session(SET).unwrap();
    // In a conflict.
    github.occupy_session(SET, "another").unwrap();
    let client = Arc::new(client(&github));
    let set = scale_set(&client).await;
    let conflict = Listening::start(Arc::clone(&client) as Arc<dyn ScaleSetService>, set.id, None, 5);
    conflict.ear.state(|s| matches!(s, ListenState::Conflict { .. }).then_some(())).await;
    assert_eq!(conflict.stop().await, ListenEnd::Cancelled);
    github.drop_session(SET).unwrap();
    // While the session is being opened: the one that comes of it does not stay behind.
    github.inject(Fault::delay(Endpoint::OpenSession, std::time::Duration::from_millis(500)).times(1));
    github.clear_requests();
    let opening = Listening::start(client, set.id, None, 5);
    github.wait_until(PATIENCE, |s| s.requests().count(Endpoint::OpenSession) == 1).await.unwrap();
    assert_eq!(opening.stop().await, ListenEnd::Cancelled);
    assert!(github.look(|s| s.scale_set(SET).unwrap().session.is_none()));
}
