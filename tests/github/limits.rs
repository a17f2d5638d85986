//! Rate limits: what GitHub tells one call holds for all that use the credential.

use std::time::Duration;

use paddock::github::{
    ClientConfig, Clients, Credentials, Deadlines, Error, ScaleSetService, WantedScaleSet,
};
use testkit::github::{Effect, Endpoint, Fault, JobSpec, SimGithub};

use crate::support::{PATIENCE, SET, client, config, github, session, wanted};

fn limited<T>(answer: Result<T, Error>, least: Duration) -> bool {
    matches!(answer, Err(Error::RateLimited { retry_after }) if retry_after >= least)
}

fn asked(github: &SimGithub) -> usize {
    github.look(|s| s.requests().total())
}

#[tokio::test]
async fn a_limit_that_one_call_is_told_holds_for_every_set_of_the_credential_minting_included() {
    let github = github().token("ghp_one").token("ghp_other").start().await.unwrap();
    let clients = Clients::new(Deadlines::default());
    let of = |token: &str| {
        let credentials = Credentials::Token(token.to_owned());
        clients.get(&ClientConfig { credentials, ..config(&github, "acme") }).unwrap()
    };
    let (first, second) = (of("ghp_one"), of("ghp_one"));
    let ours = first.ensure_scale_set(&wanted(), None).await.unwrap();
    let others = WantedScaleSet { name: "other".into(), labels: vec!["other".into()], ..wanted() };
    let theirs = second.ensure_scale_set(&others, None).await.unwrap();
    let session = first.open_session(ours.id, "tester", None).await.unwrap();
    github.inject(Fault::too_many_requests(Endpoint::JitConfig, Duration::from_secs(60)).times(1));
    assert_eq!(second.limited_for(), None);
    assert!(limited(first.mint_jit(ours.id, "fleet-a").await, Duration::from_secs(59)));

    let before = asked(&github);
    let least = Duration::from_secs(50);
    assert!(limited(second.mint_jit(theirs.id, "other-a").await, least));
    assert!(limited(second.find_runner("other-a").await, least));
    assert!(limited(second.remove_runner(1).await, least));
    assert!(limited(second.list_runners().await, least));
    assert!(limited(second.ensure_scale_set(&others, Some(theirs.id)).await, least));
    assert!(limited(first.refresh(&session).await, least));
    assert!(second.limited_for().unwrap() > least);
    assert_eq!(asked(&github), before, "GitHub is left alone");

    // An open session's queue has a token of its own, and another credential has a limit of its own.
    github.queue_job(JobSpec::new("acme/app", [SET]));
    let message = first.poll(&session, 0, 1).await.unwrap().unwrap();
    first.acknowledge(&session, message.id).await.unwrap();
    of("ghp_other").mint_jit(ours.id, "fleet-b").await.unwrap();
}

#[tokio::test]
async fn a_limit_at_the_first_hops_holds_for_what_comes_after() {
    let github = github().start().await.unwrap();
    let client = client(&github);
    github.inject(Fault::primary_rate_limit(Endpoint::RegistrationToken, Duration::from_secs(60)).times(1));
    assert!(limited(client.find_runner("a").await, Duration::from_secs(50)));
    assert!(limited(client.list_runners().await, Duration::from_secs(50)));
    assert_eq!(asked(&github), 1);
}

#[tokio::test]
async fn a_limit_passes() {
    let github = github().start().await.unwrap();
    let client = client(&github);
    let set = client.ensure_scale_set(&wanted(), None).await.unwrap();
    github.inject(Fault::too_many_requests(Endpoint::JitConfig, Duration::from_secs(1)).times(1));
    let told = client.mint_jit(set.id, "fleet-a").await;
    let Err(Error::RateLimited { retry_after }) = told else { panic!("{told:?}") };
    tokio::time::sleep(retry_after).await;
    client.mint_jit(set.id, "fleet-a").await.unwrap();
}

#[tokio::test]
async fn a_service_that_says_when_to_come_again_is_left_alone_until_then() {
    let github = github().start().await.unwrap();
    let client = client(&github);
    let session = session(&client).await;
    github.inject(Fault::unavailable(Endpoint::Poll, Duration::from_secs(70)).times(1));
    assert!(limited(client.poll(&session, 0, 1).await, Duration::from_secs(70)));
    assert_eq!(client.limited_for(), None, "the queue speaks for itself");
    github.inject(Fault::unavailable(Endpoint::GetRunner, Duration::from_secs(70)).times(1));
    assert!(limited(client.find_runner("a").await, Duration::from_secs(69)));
    assert_eq!(github.requests(Endpoint::GetRunner).len(), 1, "asked again in spite of it");
    // One that does not is asked again within the call.
    let other = crate::support::client(&github);
    github.inject(Fault::new(Endpoint::GetRunner, Effect::Refuse).times(1));
    github.inject(Fault::status(Endpoint::GetRunner, 503).times(1));
    let found = tokio::time::timeout(PATIENCE, other.find_runner("a")).await.unwrap();
    assert!(found.unwrap().is_none());
}
