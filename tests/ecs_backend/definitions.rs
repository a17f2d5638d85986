//! Managed task definitions: registered when they differ, retired when nothing uses them, and never another's.

use paddock::backend::{Availability, Error};
use paddock::runner::Identity;
use serde_json::{Value, json};
use testkit::ecs::{DefinitionStatus, InstanceSpec, Operation, Status};

use crate::stage::{CLUSTER, PATIENCE, Stage, ended, host, running, start, until};

fn image(name: &str) -> Value {
    json!({"managedTaskDefinition": {"image": name}})
}

/// The numbers of the family's active revisions.
fn active(stage: &Stage, family: &str) -> Vec<i64> {
    stage.ecs.look(|s| {
        let active =
            s.definitions().iter().filter(|d| d.family == family && d.status == DefinitionStatus::Active);
        active.map(|d| i64::from(d.revision)).collect()
    })
}

#[tokio::test]
async fn a_definition_is_registered_once_and_again_only_when_it_differs() {
    let stage = Stage::new().await;
    let backend = stage.backend("set", image("runner:1")).await;
    start(&*backend).await.unwrap();
    start(&*backend).await.unwrap();
    let restarted = stage.fresh_provider();
    start(&*stage.backend_of(&restarted, "set", image("runner:1")).await).await.unwrap();
    assert_eq!(stage.ecs.requests(Operation::RegisterTaskDefinition).len(), 1);
    let definition = stage.tasks()[0].definition.clone();
    assert_eq!((definition.family.as_str(), definition.revision), ("ci-set-aws", 1));
    assert!(
        definition
            .tags
            .iter()
            .any(|t| t.key == Identity::TEMPLATE_HASH && t.value == backend.template_hash())
    );

    let changed = stage.backend("set", image("runner:2")).await;
    assert_ne!(changed.template_hash(), backend.template_hash());
    let instance = start(&*changed).await.unwrap();
    assert_eq!(stage.ecs.look(|s| s.task(&instance.id).unwrap().definition.revision), 2);
}

#[tokio::test]
async fn an_old_revision_is_retired_when_its_last_task_is_gone() {
    let stage = Stage::new().await;
    let backend = stage.backend("set", image("runner:1")).await;
    let old = start(&*backend).await.unwrap();
    running(&*backend, &old.id).await;
    let changed = stage.backend("set", image("runner:2")).await;
    let new = start(&*changed).await.unwrap();
    running(&*changed, &new.id).await;
    assert_eq!(active(&stage, "ci-set-aws"), [1, 2], "the first is in use");
    stage.ecs.exit_task(&old.id, 0).unwrap();
    ended(&*changed, &old.id).await;
    changed.remove(CLUSTER, &old.id).await.unwrap();
    until("it is retired", || (active(&stage, "ci-set-aws") == [2]).then_some(())).await;
    stage
        .ecs
        .wait_until(PATIENCE, |s| s.task(&old.id).is_none_or(|task| task.status == Status::Stopped))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_family_of_someone_else_is_not_touched() {
    let stage = Stage::new().await;
    let first = json!({"managedTaskDefinition": {"family": "shared"}});
    start(&*stage.backend("set", first.clone()).await).await.unwrap();
    let other = stage.backend("other", first).await;
    let Err(Error::Refused(why)) = start(&*other).await else { panic!("it is another scale set's") };
    assert!(why.contains("managedTaskDefinition.family"), "{why}");
    assert_eq!(host(&*other).availability, Availability::Refused);
    assert_eq!(stage.ecs.requests(Operation::RegisterTaskDefinition).len(), 1);
    assert!(stage.ecs.requests(Operation::DeregisterTaskDefinition).is_empty());
}

/// A failed look is no absence: nothing is registered on account of it.
#[tokio::test]
async fn nothing_is_registered_where_it_cannot_be_seen_what_is_there() {
    let stage = Stage::new().await;
    stage.ecs.deny(Operation::DescribeTaskDefinition);
    let backend = stage.backend("set", image("runner:1")).await;
    let Err(Error::Refused(why)) = start(&*backend).await else { panic!("it may not look") };
    assert!(why.contains("ecs:DescribeTaskDefinition"), "{why}");
    assert!(stage.ecs.requests(Operation::RegisterTaskDefinition).is_empty());
}

#[tokio::test]
async fn a_private_engine_goes_beside_the_runner() {
    let stage = Stage::new().await;
    stage.ecs.add_instance(CLUSTER, InstanceSpec { external: true, ..InstanceSpec::default() }).unwrap();
    let changes = json!({
        "launchType": "EXTERNAL", "subnets": [], "managedTaskDefinition": {"dockerAccess": "Sidecar"},
    });
    let backend = stage.backend("set", changes).await;
    let instance = start(&*backend).await.unwrap();
    running(&*backend, &instance.id).await;
    let body = stage.ecs.look(|s| s.task(&instance.id).unwrap().definition.body.clone());
    let [runner, engine] = body["containerDefinitions"].as_array().unwrap().as_slice() else {
        panic!("{body}")
    };
    assert_eq!((&runner["name"], &engine["privileged"]), (&json!("runner"), &json!(true)));
    assert_eq!(runner["dependsOn"], json!([{"containerName": "docker", "condition": "HEALTHY"}]));
    assert_eq!(runner["mountPoints"], engine["mountPoints"]);
    assert_eq!(body["networkMode"], "bridge");
    stage.ecs.exit_task(&instance.id, 0).unwrap();
    assert_eq!(ended(&*backend, &instance.id).await.code, Some(0), "the runner's own end");
}

#[tokio::test]
async fn a_definition_that_exists_is_used_as_it_is() {
    let stage = Stage::new().await;
    let managed = stage.backend("set", json!({"managedTaskDefinition": {"family": "theirs"}})).await;
    start(&*managed).await.unwrap();
    let changes = json!({"managedTaskDefinition": null, "taskDefinition": "theirs:1"});
    let backend = stage.backend("other", changes).await;
    let instance = start(&*backend).await.unwrap();
    assert_eq!(stage.ecs.look(|s| s.task(&instance.id).unwrap().definition.family.clone()), "theirs");
    assert_eq!(stage.ecs.requests(Operation::RegisterTaskDefinition).len(), 1);
}
