//! The calls one by one: scale sets, runner groups, runners, credentials, shared clients.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::future::join_all;
use paddock::github::{
    Client, ClientConfig, Clients, Credentials, Deadlines, Error, ScaleSet, ScaleSetService, WantedScaleSet,
};
use paddock::runner::JobEvent;
use serde_json::{Value, json};
use testkit::github::{Endpoint, Fault, JobResult, JobSpec, JobStatus, Model, app_private_key};

use crate::support::{PATIENCE, SET, client, config, connect, github, scale_set, session, wanted};

#[tokio::test]
async fn a_scale_set_is_created_once_and_then_found() {
    let github = github().start().await.unwrap();
    let client = client(&github);
    let set = scale_set(&client).await;
    assert_eq!(
        (set.name.as_str(), set.labels.as_slice()),
        (SET, ["fleet", "linux"].map(String::from).as_slice())
    );
    assert!(github.look(|s| s.scale_set(SET).unwrap().setting.disable_update));
    assert!(set.created);
    let there = ScaleSet { created: false, ..set };
    assert_eq!(client.ensure_scale_set(&wanted(), Some(there.id)).await.unwrap(), there);
    assert_eq!(client.ensure_scale_set(&wanted(), None).await.unwrap(), there, "found by its name");
    assert_eq!(client.find_scale_set(there.id).await.unwrap().as_ref(), Some(&there));
    assert_eq!(client.find_scale_set(there.id + 1).await.unwrap(), None);
    assert_eq!(github.requests(Endpoint::CreateScaleSet).len(), 1);
    assert_eq!(github.requests(Endpoint::UpdateScaleSet).len(), 0, "nothing differed");
}

#[tokio::test]
async fn only_what_differs_is_changed_in_place() {
    let github = github().start().await.unwrap();
    let client = client(&github);
    let set = scale_set(&client).await;
    let changed = WantedScaleSet {
        name: "renamed".to_owned(),
        runner_group: "GPU".to_owned(),
        labels: vec!["renamed".to_owned(), "arm".to_owned()],
    };
    let now = client.ensure_scale_set(&changed, Some(set.id)).await.unwrap();
    assert_eq!((now.id, &now.name, &now.labels), (set.id, &changed.name, &changed.labels));
    assert_eq!(github.look(|s| s.scale_set("renamed").unwrap().group_id), 2);
    assert_eq!(github.look(|s| s.scale_sets().count()), 1);
    client.ensure_scale_set(&changed, Some(set.id)).await.unwrap();
    assert_eq!(github.requests(Endpoint::UpdateScaleSet).len(), 1);
}

/// As GitHub's own client sends it: what becomes of a setting that a change leaves out is not known.
#[tokio::test]
async fn every_change_carries_the_runner_setting() {
    let github = github().start().await.unwrap();
    let client = client(&github);
    let set = scale_set(&client).await;
    for name in ["first", "second"] {
        let renamed = WantedScaleSet { name: name.to_owned(), ..wanted() };
        client.ensure_scale_set(&renamed, Some(set.id)).await.unwrap();
    }
    let changes = github.requests(Endpoint::UpdateScaleSet);
    assert_eq!(changes.len(), 2);
    for change in changes {
        let body: serde_json::Value = serde_json::from_str(&change.body).unwrap();
        assert_eq!(body["RunnerSetting"], serde_json::json!({"disableUpdate": true}), "{body}");
        assert!(body.get("labels").is_none(), "{body}");
    }
}

#[tokio::test]
async fn what_is_found_by_its_name_is_left_as_it_is() {
    let github = github().start().await.unwrap();
    let client = client(&github);
    let set = scale_set(&client).await;
    let otherwise = WantedScaleSet { labels: vec![SET.to_owned(), "arm".to_owned()], ..wanted() };
    let found = client.ensure_scale_set(&otherwise, None).await.unwrap();
    assert_eq!((found.id, found.created, &found.labels), (set.id, false, &set.labels));
    // Nor is it changed in the place of one's own that is gone.
    let found = client.ensure_scale_set(&otherwise, Some(set.id + 1)).await.unwrap();
    assert_eq!((found.id, found.created, &found.labels), (set.id, false, &set.labels));
    assert_eq!(github.requests(Endpoint::UpdateScaleSet).len(), 0);
}

#[tokio::test]
async fn a_session_is_closed_below_its_own_scale_set_alone() {
    let github = github().start().await.unwrap();
    let client = client(&github);
    let theirs = session(&client).await;
    let mine = WantedScaleSet { name: "mine".to_owned(), labels: vec!["mine".to_owned()], ..wanted() };
    let mine = client.ensure_scale_set(&mine, None).await.unwrap();
    client.open_session(mine.id, "me", Some(&theirs.id)).await.unwrap();
    let closed = github.requests(Endpoint::CloseSession);
    assert_eq!(
        closed.iter().map(|r| (r.scale_set, r.status)).collect::<Vec<_>>(),
        [(Some(mine.id), Some(400))]
    );
    assert_eq!(github.look(|s| s.scale_set(SET).unwrap().session.as_ref().unwrap().id.clone()), theirs.id);
}

#[tokio::test]
async fn a_scale_set_that_vanished_is_registered_again() {
    let github = github().start().await.unwrap();
    let client = client(&github);
    let set = scale_set(&client).await;
    github.vanish_scale_set(SET).unwrap();
    assert!(matches!(client.mint_jit(set.id, "fleet-a").await, Err(Error::ScaleSetGone)));
    assert!(matches!(client.open_session(set.id, "tester", None).await, Err(Error::ScaleSetGone)));
    let again = client.ensure_scale_set(&wanted(), Some(set.id)).await.unwrap();
    assert_ne!(again.id, set.id);
    client.delete_scale_set(again.id).await.unwrap();
    client.delete_scale_set(again.id).await.unwrap();
    assert_eq!(github.look(|s| s.scale_sets().count()), 0);
}

#[tokio::test]
async fn a_lost_answer_creates_nothing_twice() {
    let github = github().start().await.unwrap();
    let client = client(&github);
    github.inject(Fault::new(Endpoint::CreateScaleSet, testkit::github::Effect::LoseAnswer).times(1));
    let set = scale_set(&client).await;
    assert_eq!(github.look(|s| s.scale_sets().count()), 1);
    // A session whose answer is lost is not asked for again: the first would stand in its way, unknown.
    github.inject(Fault::new(Endpoint::OpenSession, testkit::github::Effect::LoseAnswer).times(1));
    assert!(matches!(client.open_session(set.id, "tester", None).await, Err(Error::Transient(_))));
    assert_eq!(github.requests(Endpoint::OpenSession).len(), 1);
    // A runner whose answer was lost is freed and registered anew by the next try.
    github.inject(Fault::new(Endpoint::JitConfig, testkit::github::Effect::LoseAnswer).times(1));
    assert!(matches!(client.mint_jit(set.id, "fleet-a").await, Err(Error::Transient(_))));
    assert_eq!(github.requests(Endpoint::JitConfig).len(), 1);
    let lost = client.find_runner("fleet-a").await.unwrap().unwrap();
    let runner = client.mint_jit(set.id, "fleet-a").await.unwrap();
    assert_ne!(runner.id, lost.id);
    assert_eq!(github.look(|s| s.runners().count()), 1);
}

#[tokio::test]
async fn an_unknown_runner_group_is_named() {
    let github = github().start().await.unwrap();
    let missing = WantedScaleSet { runner_group: "tpu".to_owned(), ..wanted() };
    let error = client(&github).ensure_scale_set(&missing, None).await.unwrap_err();
    assert!(matches!(&error, Error::GroupNotFound(name) if name == "tpu"), "{error}");
    assert_eq!(github.look(|s| s.scale_sets().count()), 0);
}

#[tokio::test]
async fn a_repository_has_no_groups() {
    let github = github().start().await.unwrap();
    let client = Client::new(&config(&github, "acme/app"), Deadlines::default()).unwrap();
    let wanted = WantedScaleSet { runner_group: "tpu".to_owned(), ..wanted() };
    let set = client.ensure_scale_set(&wanted, None).await.unwrap();
    client.ensure_scale_set(&wanted, Some(set.id)).await.unwrap();
    assert_eq!(github.requests(Endpoint::RunnerGroups).len(), 0);
    assert_eq!(github.requests(Endpoint::UpdateScaleSet).len(), 0);
}

#[tokio::test]
async fn labels_that_github_drops_show_in_the_answer() {
    let github = github().model(Model::Ghes).drop_extra_labels().start().await.unwrap();
    assert_eq!(scale_set(&client(&github)).await.labels, [SET]);
}

#[tokio::test]
async fn a_runners_name_is_freed_only_from_our_own_stale_runner() {
    let github = github().start().await.unwrap();
    let client = client(&github);
    let set = scale_set(&client).await;
    let other = WantedScaleSet { name: "other".to_owned(), labels: vec!["other".to_owned()], ..wanted() };
    let other = client.ensure_scale_set(&other, None).await.unwrap();
    client.mint_jit(other.id, "theirs").await.unwrap();
    assert!(matches!(client.mint_jit(set.id, "theirs").await, Err(Error::RunnerExists)));
    assert_eq!(client.find_runner("THEIRS").await.unwrap().unwrap().scale_set_id, other.id);

    // A busy one is left alone.
    let session = client.open_session(set.id, "tester", None).await.unwrap();
    let busy = connect(&github, &client.mint_jit(set.id, "busy").await.unwrap());
    github.queue_job(JobSpec::new("acme/app", [SET]));
    let (message, order) = tokio::join!(client.poll(&session, 0, 1), busy.next_job(PATIENCE));
    assert!(message.unwrap().is_some() && order.unwrap().is_some());
    assert!(matches!(client.mint_jit(set.id, "busy").await, Err(Error::RunnerExists)));
    let id = client.find_runner("busy").await.unwrap().unwrap().id;
    assert!(matches!(client.remove_runner(id).await, Err(Error::RunnerBusy)));
    assert!(matches!(client.delete_scale_set(set.id).await, Err(Error::RunnerBusy)));
    busy.finish(JobResult::Succeeded).unwrap();
    client.remove_runner(id).await.unwrap();
    assert!(client.find_runner("busy").await.unwrap().is_none());
}

#[tokio::test]
async fn nobody_but_github_says_that_a_runner_is_gone() {
    let github = github().start().await.unwrap();
    let client = client(&github);
    let set = scale_set(&client).await;
    let runner = client.mint_jit(set.id, "fleet-a").await.unwrap();
    for list in ["[]", r#"{"count": 1, "value": null}"#] {
        github.inject(Fault::answer(Endpoint::GetRunner, 200, list).times(1));
        let found = client.find_runner("fleet-a").await;
        assert!(matches!(found, Err(Error::BadReply(_))), "{list}: {found:?}");
    }
    github.inject(Fault::status(Endpoint::RemoveRunner, 404));
    let removed = client.remove_runner(runner.id).await;
    assert!(matches!(removed, Err(Error::Transient(_))), "{removed:?}");
    github.clear_faults();
    github.inject(Fault::answer(Endpoint::RemoveRunner, 200, "<p>back soon</p>").times(1));
    let removed = client.remove_runner(runner.id).await;
    assert!(matches!(removed, Err(Error::BadReply(_))), "{removed:?}");
    let gone = Fault::exception(Endpoint::RemoveRunner, 404, "AgentNotFoundException");
    github.inject(gone.times(1));
    client.remove_runner(runner.id).await.unwrap();
}

#[tokio::test]
async fn a_jit_configuration_that_no_backend_can_carry_is_refused() {
    let github = github().start().await.unwrap();
    let client = client(&github);
    let set = scale_set(&client).await;
    let body = serde_json::json!({"runner": {"id": 1, "name": "a"}, "encodedJITConfig": "x".repeat(8193)});
    github.inject(Fault::answer(Endpoint::JitConfig, 200, body.to_string()).times(1));
    let error = client.mint_jit(set.id, "a").await.unwrap_err();
    assert!(matches!(&error, Error::BadReply(text) if text.contains("8193")), "{error}");
}

#[tokio::test]
async fn jobs_of_the_older_model_are_acquired() {
    let github = github().model(Model::Ghes).byte_order_mark().start().await.unwrap();
    let client = client(&github);
    let session = session(&client).await;
    github.queue_job(JobSpec::new("acme/app", [SET]));
    let message = client.poll(&session, 0, 5).await.unwrap().unwrap();
    let [JobEvent::Available { request_id, job }] = message.events.as_slice() else { panic!("{message:?}") };
    assert_eq!(job.repository, "acme/app");
    let offered = client.acquirable(session.scale_set_id).await.unwrap();
    assert_eq!((offered.len(), offered[0].request_id), (1, *request_id));
    assert_eq!(offered[0].repository, "acme/app");
    assert_eq!(client.acquire(&session, &[*request_id]).await.unwrap(), [*request_id]);
    client.acknowledge(&session, message.id).await.unwrap();
    client.acknowledge(&session, message.id).await.unwrap();
    assert!(client.acquirable(session.scale_set_id).await.unwrap().is_empty());
    client.close(&session).await.unwrap();
    client.close(&session).await.unwrap();
}

#[tokio::test]
async fn acquiring_is_harmless_where_there_is_no_such_route() {
    let github = github().start().await.unwrap();
    let client = client(&github);
    let session = session(&client).await;
    for endpoint in [Endpoint::AcquireJobs, Endpoint::AcquirableJobs] {
        github.inject(Fault::status(endpoint, 404));
    }
    assert!(client.acquire(&session, &[1]).await.unwrap().is_empty());
    assert!(client.acquirable(session.scale_set_id).await.unwrap().is_empty());
}

/// Unwraps a 2048-bit RSA key: PKCS#8 puts 26 bytes before PKCS#1.
fn pkcs1(pkcs8: &str) -> String {
    let text: String = pkcs8.lines().filter(|line| !line.starts_with('-')).collect();
    let der = STANDARD.decode(text).unwrap();
    format!(
        "-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----\n",
        STANDARD.encode(&der[26..])
    )
}

#[tokio::test]
async fn an_app_is_as_good_as_a_token() {
    let key = app_private_key();
    let github = github().app("Iv1.abc", 42, key).unwrap().start().await.unwrap();
    let app = |key: &str| Credentials::App {
        app_id: "Iv1.abc".into(),
        installation_id: 42,
        private_key: key.into(),
    };
    let with = |credentials| ClientConfig { credentials, ..config(&github, "acme") };
    scale_set(&Client::new(&with(app(key)), Deadlines::default()).unwrap()).await;
    assert_eq!(github.requests(Endpoint::AccessToken).len(), 1);
    // So is the same key in PKCS#1, as GitHub hands it out; one that is none is refused before any request.
    scale_set(&Client::new(&with(app(&pkcs1(key))), Deadlines::default()).unwrap()).await;
    assert_eq!(github.requests(Endpoint::AccessToken).len(), 2);
    assert!(
        matches!(Client::new(&with(app("planted")), Deadlines::default()), Err(Error::Config(t)) if !t.contains("planted"))
    );
    let foreign =
        Credentials::App { app_id: "Iv1.other".into(), installation_id: 42, private_key: key.into() };
    let client = Client::new(&with(foreign), Deadlines::default()).unwrap();
    assert!(matches!(client.find_runner("a").await, Err(Error::AuthRejected(_))));
}

/// A token that is lost on the way opens no more than what it was fetched for.
#[tokio::test]
async fn a_token_of_an_app_is_asked_for_with_the_least_permissions() {
    let key = app_private_key();
    let github = github().app("Iv1.abc", 42, key).unwrap().start().await.unwrap();
    let app = |path| {
        let credentials =
            Credentials::App { app_id: "Iv1.abc".into(), installation_id: 42, private_key: key.into() };
        Client::new(&ClientConfig { credentials, ..config(&github, path) }, Deadlines::default()).unwrap()
    };
    app("acme").find_runner("nobody").await.unwrap();
    app("acme/app").find_runner("nobody").await.unwrap();
    // No such run: the token was good enough to be told so.
    assert!(matches!(app("acme").rerun_failed_jobs("acme/app", 1).await, Err(Error::Forbidden(_))));
    github.permit_actions(false);
    let refused = app("acme").rerun_failed_jobs("acme/app", 1).await;
    assert!(matches!(refused, Err(Error::Forbidden(text)) if text.contains("access_tokens")));
    let asked: Vec<Value> = github
        .requests(Endpoint::AccessToken)
        .iter()
        .map(|request| serde_json::from_str(&request.body).unwrap())
        .collect();
    let rerun = json!({"permissions": {"actions": "write"}, "repositories": ["app"]});
    let organization = json!({"permissions": {"organization_self_hosted_runners": "write"}});
    let repository = json!({"permissions": {"administration": "write"}});
    assert_eq!(asked, [organization, repository, rerun.clone(), rerun]);
}

#[tokio::test]
async fn the_admin_token_is_fetched_once_and_renewed_when_refused() {
    let github = github().start().await.unwrap();
    let client = client(&github);
    let all = join_all((0..50).map(|_| client.find_runner("nobody"))).await;
    assert!(all.into_iter().all(|found| found.unwrap().is_none()));
    assert_eq!(github.requests(Endpoint::RegistrationToken).len(), 1);
    github.expire_admin_tokens();
    let all = join_all((0..50).map(|_| client.find_runner("nobody"))).await;
    assert!(all.into_iter().all(|found| found.unwrap().is_none()));
    assert_eq!(github.requests(Endpoint::RegistrationToken).len(), 2);
    // A fresh token that is refused as well means the credential.
    github.inject(Fault::status(Endpoint::GetRunner, 401));
    github.clear_requests();
    assert!(matches!(client.find_runner("nobody").await, Err(Error::AuthRejected(_))));
    assert_eq!(github.requests(Endpoint::GetRunner).len(), 2);
}

#[tokio::test]
async fn a_registration_token_that_is_too_fresh_gets_five_tries_over_half_the_deadline() {
    let github = github().refuse_fresh_tokens(4).start().await.unwrap();
    // A tenth of the usual deadlines: 1.5 s, where it would be 15.
    let deadlines = Deadlines { control: Duration::from_secs(3), ..Deadlines::default() };
    let client = Client::new(&config(&github, "acme"), deadlines).unwrap();
    let begun = std::time::Instant::now();
    scale_set(&client).await;
    assert!(begun.elapsed() >= Duration::from_millis(1500), "{:?}", begun.elapsed());
    assert_eq!(github.requests(Endpoint::RegistrationToken).len(), 1);
    assert_eq!(github.requests(Endpoint::RunnerRegistration).len(), 5);
}

#[tokio::test]
async fn faults_that_pass_get_another_try_and_the_rest_does_not() {
    let github = github().start().await.unwrap();
    let client = client(&github);
    let set = scale_set(&client).await;
    github.inject(Fault::status(Endpoint::GetRunner, 503).times(1));
    github.inject(Fault::new(Endpoint::GetRunner, testkit::github::Effect::CutAnswer).times(1));
    assert!(client.find_runner("nobody").await.unwrap().is_none());
    github.clear_requests();
    github.inject(Fault::status(Endpoint::GetRunner, 403).times(1));
    assert!(matches!(client.find_runner("nobody").await, Err(Error::Forbidden(_))));
    github.inject(Fault::redirect(Endpoint::GetScaleSet, "https://ghes.corp/renamed").times(1));
    let moved = client.ensure_scale_set(&wanted(), Some(set.id)).await.unwrap_err();
    assert!(matches!(&moved, Error::Config(text) if text.contains("https://ghes.corp/renamed")), "{moved}");
    assert_eq!(github.requests(Endpoint::GetRunner).len(), 1);
    assert_eq!(github.requests(Endpoint::GetScaleSet).len(), 1);
}

#[tokio::test]
async fn a_client_is_shared_while_it_is_used() {
    let github = github().start().await.unwrap();
    let clients = Clients::new(Deadlines::default());
    let org = config(&github, "acme");
    let other_token = ClientConfig { credentials: Credentials::Token("planted".into()), ..org.clone() };
    let first = clients.get(&org).unwrap();
    assert!(Arc::ptr_eq(&first, &clients.get(&org.clone()).unwrap()));
    assert!(!Arc::ptr_eq(&first, &clients.get(&other_token).unwrap()));
    assert!(!Arc::ptr_eq(&first, &clients.get(&config(&github, "acme/app")).unwrap()));
    assert!(!format!("{clients:?}{other_token:?}").contains("planted"));
    let weak = Arc::downgrade(&first);
    drop(first);
    assert!(weak.upgrade().is_none(), "an unused client goes away");
    let insecure = ClientConfig { allow_insecure: false, ..org };
    assert!(matches!(clients.get(&insecure), Err(Error::Config(_))));
}

#[tokio::test]
async fn every_request_says_who_asks() {
    let github = github().start().await.unwrap();
    let client = client(&github);
    let session = session(&client).await;
    let poll = tokio::time::timeout(Duration::from_secs(5), client.poll(&session, 0, 7)).await;
    assert!(poll.unwrap().unwrap().is_none());
    let agents =
        github.look(|s| s.requests().iter().map(|r| (r.endpoint, r.user_agent.clone())).collect::<Vec<_>>());
    for (endpoint, agent) in agents {
        let agent: serde_json::Value = serde_json::from_str(&agent.unwrap()).unwrap();
        assert_eq!(agent["system"], "paddock", "{endpoint:?}");
        if endpoint == Endpoint::Poll {
            assert_eq!(
                (&agent["scale_set_id"], &agent["subsystem"]),
                (&session.scale_set_id.into(), &"listener".into())
            );
        }
    }
    assert_eq!(github.requests(Endpoint::Poll)[0].capacity, Some(7));
}

/// The status 403 says three things: which, only the words tell.
#[tokio::test]
async fn a_run_is_run_again_once_it_is_over_and_where_the_credential_may() {
    let github = github().start().await.unwrap();
    let client = client(&github);
    let set = scale_set(&client).await;
    let spec = |name: &str| JobSpec { name: name.to_owned(), ..JobSpec::new("acme/app", [SET]).of_run(7) };
    let [failed, passes] = ["a", "b"].map(|name| github.queue_job(spec(name)));
    github.assign_jobs(SET, 2).unwrap();
    for (job, runner) in [(failed, "fleet-a"), (passes, "fleet-b")] {
        client.mint_jit(set.id, runner).await.unwrap();
        github.start_job(job, runner).unwrap();
    }
    github.finish_job(failed, JobResult::Failed).unwrap();
    let goes_on = client.rerun_failed_jobs("acme/app", 7).await;
    assert!(matches!(&goes_on, Err(Error::NoRerun(why)) if why.contains("HTTP 403")), "{goes_on:?}");
    github.finish_job(passes, JobResult::Succeeded).unwrap();
    github.permit_actions(false);
    let denied = client.rerun_failed_jobs("acme/app", 7).await;
    assert!(matches!(&denied, Err(Error::Forbidden(why)) if why.contains("HTTP 403")), "{denied:?}");
    github.permit_actions(true);
    client.rerun_failed_jobs("acme/app", 7).await.unwrap();
    let queued =
        github.look(|s| s.jobs().filter(|j| j.status != JobStatus::Completed).cloned().collect::<Vec<_>>());
    assert_eq!(queued.iter().map(|job| (job.name.as_str(), job.run)).collect::<Vec<_>>(), [("a", 7)]);
    let again = client.rerun_failed_jobs("acme/app", 7).await;
    assert!(matches!(again, Err(Error::NoRerun(_))), "its next attempt goes on: {again:?}");
    let unknown = client.rerun_failed_jobs("acme/app", 8).await;
    assert!(matches!(unknown, Err(Error::Forbidden(_))), "{unknown:?}");
    let asked = github.requests(Endpoint::RerunFailedJobs).len();
    for odd in ["acme", "acme/../orgs", "acme/..", "/app", ""] {
        assert!(matches!(client.rerun_failed_jobs(odd, 7).await, Err(Error::Config(_))), "{odd}");
    }
    assert_eq!(
        github.requests(Endpoint::RerunFailedJobs).len(),
        asked,
        "nothing is asked of what is no repository"
    );
}
