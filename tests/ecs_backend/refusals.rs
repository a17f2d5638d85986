//! What only a person can change: told with what to change, and not tried again and again.

use std::time::Duration;

use paddock::backend::{Availability, Error, Provider};
use serde_json::{Value, json};
use testkit::ecs::{Credential, Operation};

use crate::stage::{Stage, ecs, host, ready, resolve, start, until};

/// How a start with these changes is refused.
async fn refused(stage: &Stage, changes: Value) -> String {
    let backend = stage.backend("set", changes).await;
    let Err(Error::Refused(why)) = start(&*backend).await else { panic!("it is refused") };
    let state = host(&*backend);
    assert_eq!(state.availability, Availability::Refused);
    assert!(state.message.starts_with(&why), "{}", state.message);
    assert!(backend.reserve(crate::stage::CLUSTER).is_none());
    why
}

#[tokio::test]
async fn what_a_start_lacks_is_named() {
    let stage = Stage::on(ecs().subnet("subnet-1")).await;
    let why = refused(&stage, json!({"subnets": ["subnet-2"]})).await;
    assert!(why.contains("subnet-2") && why.contains("correct ecs.subnets"), "{why}");
    let existing = |name: &str| json!({"managedTaskDefinition": null, "taskDefinition": name});
    let why = refused(&stage, existing("nowhere")).await;
    assert!(why.contains("correct ecs.taskDefinition"), "{why}");
    let why = refused(&stage, json!({"platformVersion": "9.9.9"})).await;
    assert!(why.contains("correct ecs.platformVersion"), "{why}");
    let before = stage.ecs.requests(Operation::RunTask).len();
    stage.ecs.deny(Operation::RunTask);
    let why = refused(&stage, json!({})).await;
    assert!(why.contains("ecs:RunTask") && why.contains("grant"), "{why}");
    assert_eq!(stage.ecs.requests(Operation::RunTask).len(), before + 1, "once");
}

#[tokio::test]
async fn a_cluster_that_cannot_be_looked_at_says_why_and_is_well_when_that_is_mended() {
    let stage = Stage::new().await;
    let told = async |changes: Value, expected: &str| {
        let backend = stage.backend("set", changes).await;
        let refused = || Some(host(&*backend)).filter(|state| state.availability == Availability::Refused);
        let state = until("it is refused", refused).await;
        assert!(state.message.contains(expected), "{}", state.message);
    };
    told(json!({"cluster": "nowhere"}), "ecs.cluster").await;
    told(json!({"credentialsSecretRef": {"name": "unknown"}}), "correct the credentials").await;
    stage.ecs.deny(Operation::ListTasks);
    told(json!({}), "ecs:ListTasks").await;
    stage.ecs.allow(Operation::ListTasks);
    ready(&*stage.backend("set", json!({})).await).await;
}

#[tokio::test]
async fn an_environment_that_is_too_large_is_refused_before_ecs_is_asked() {
    let stage = Stage::new().await;
    let env = json!([{"name": "LARGE", "valueFrom": {"secretKeyRef": {"name": "app", "key": "large"}}}]);
    let why = refused(&stage, json!({"managedTaskDefinition": {"env": env}})).await;
    assert!(why.contains("characters as JSON") && why.contains("8192") && !why.contains("planted"), "{why}");
    assert!(stage.ecs.requests(Operation::RunTask).is_empty());
}

#[tokio::test]
async fn a_session_token_goes_with_its_keys() {
    let temporary =
        Credential::new(testkit::ecs::DEFAULT_ACCESS_KEY).with_session_token("planted-secret-token");
    let stage = Stage::on(ecs().credential(temporary)).await;
    let backend = stage.backend("set", json!({"credentialsSecretRef": {"name": "temporary"}})).await;
    start(&*backend).await.unwrap();
    let without = stage.backend("set", json!({})).await;
    until("it is refused", || (host(&*without).availability == Availability::Refused).then_some(())).await;
}

#[tokio::test]
async fn what_only_aws_would_refuse_is_refused_when_the_block_is_read() {
    let stage = Stage::new().await;
    let arn = "arn:aws:ecs:us-east-1:123456789012:cluster/runners";
    for (changes, reason, says) in [
        (json!({"tags": {"a!": "b"}}), "InvalidSpec", "ecs.tags"),
        (json!({"cluster": arn}), "InvalidSpec", "us-east-1"),
        (json!({"credentialsSecretRef": {"name": "nothing"}}), "SecretMissing", "credentialsSecretRef"),
    ] {
        let error = resolve(&stage.provider, &stage.spec(changes)).await.err().unwrap();
        let paddock::backend::ResolveError::Unusable(told) = error else { panic!("{error}") };
        assert!(told.reason.as_str() == reason && told.message.contains(says), "{told:?}");
    }
}

#[tokio::test]
async fn without_its_secret_a_backend_shows_nothing_and_believes_nothing() {
    let stage = Stage::new().await;
    let offline = stage.provider.resolve_offline(&stage.spec(json!({}))).unwrap();
    let backend = offline.open("aws", &["aws".to_owned()], &crate::stage::identity("set"));
    assert_eq!(host(&*backend).availability, Availability::Unreachable);
    let listing = backend.instances().remove(0);
    assert!(!listing.current && listing.listed_at.is_none());
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(stage.ecs.requests(Operation::ListTasks).is_empty());
}
