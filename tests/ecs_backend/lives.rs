//! Single runners: how they start, what they get, how they end, and what is left of them.

use std::time::Duration;

use paddock::api::Reason;
use paddock::backend::{Error, Provider};
use paddock::runner::{Identity, InstanceState};
use serde_json::json;
use testkit::ecs::{Fault, InstanceSpec, Operation, Status, StopCode};

use crate::stage::{
    CLUSTER, PATIENCE, SECRET, Stage, ended, instances, jit, log, ready, running, shown, start, start_named,
    until,
};

#[tokio::test]
async fn one_life() {
    let stage = Stage::new().await;
    let backend = stage.backend("set", json!({})).await;
    stage.ecs.hold(Status::Provisioning);
    let instance = start(&*backend).await.unwrap();
    assert_eq!(instance.state, InstanceState::Launching("PROVISIONING"), "it is on its way");
    assert_eq!((instance.host.as_str(), instance.backend.as_str()), (CLUSTER, "aws"));
    assert_eq!(instance.template_hash, backend.template_hash());
    stage.ecs.hold(Status::Pending);
    stage.ecs.release(Status::Provisioning);
    until("the next step", || {
        (shown(&*backend, &instance.id)?.state == InstanceState::Launching("PENDING")).then_some(())
    })
    .await;
    stage.ecs.release(Status::Pending);
    running(&*backend, &instance.id).await;

    let woken = stage.woken("set");
    stage.ecs.exit_task(&instance.id, 7).unwrap();
    let exit = ended(&*backend, &instance.id).await;
    assert_eq!((exit.code, exit.out_of_memory, exit.cause), (Some(7), false, None));
    assert!(
        exit.log.unwrap().contains("$252Frunners/log-events/paddock$252Frunner$252F"),
        "where its output is"
    );
    assert!(stage.woken("set") > woken, "an exit wakes its scale set");
    stage.ecs.wait_until(PATIENCE, |s| s.tasks_in(Status::Stopped) == 1).await.unwrap();
    backend.remove(CLUSTER, &instance.id).await.unwrap();
    assert!(stage.ecs.requests(Operation::StopTask).is_empty(), "it had ended by itself");
    let looks = stage.ecs.requests(Operation::ListTasks).len();
    until("ECS is looked at again", || {
        (stage.ecs.requests(Operation::ListTasks).len() > looks + 4).then_some(())
    })
    .await;
    assert!(instances(&*backend).is_empty(), "although ECS shows it for an hour");
}

#[tokio::test]
async fn a_runner_gets_what_the_block_says_and_nothing_else() {
    let stage = Stage::new().await;
    let env = json!([
        {"name": "PLAIN", "value": "1"},
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "app", "key": "token"}}},
    ]);
    let backend = stage
        .backend(
            "set",
            json!({
                "managedTaskDefinition": {"image": "runner:1", "env": env}, "tags": {"team": "ci"},
                "platformVersion": "1.4.0", "securityGroups": ["sg-1"], "assignPublicIp": true,
            }),
        )
        .await;
    let instance = start(&*backend).await.unwrap();
    let task = stage.tasks().remove(0);
    let mut env: Vec<_> =
        task.containers[0].environment.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    env.sort_unstable();
    let jit = jit();
    let mut expected = [
        ("ACTIONS_RUNNER_INPUT_JITCONFIG", jit.expose()),
        ("ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE", "1"),
        ("PADDOCK_RUNNER", &instance.runner),
        ("PADDOCK_SCALE_SET_UID", "set"),
        ("PLAIN", "1"),
        ("TOKEN", "planted-secret-env"),
    ];
    expected.sort_unstable();
    assert_eq!(env, expected);
    assert_eq!(task.started_by.as_deref(), Some("paddock-cluster-1"));
    for (key, value) in [
        (Identity::CLUSTER, "cluster-1"),
        (Identity::SCALE_SET_UID, "set"),
        (Identity::SCALE_SET, "ci/set"),
        (Identity::RUNNER, &instance.runner),
        (Identity::BACKEND, "aws"),
        (Identity::TEMPLATE_HASH, backend.template_hash()),
        ("team", "ci"),
    ] {
        assert!(task.tags.iter().any(|tag| tag.key == key && tag.value == value), "{key} in {:?}", task.tags);
    }
    assert_eq!(task.platform_version.as_deref(), Some("1.4.0"));
    let request = stage.ecs.requests(Operation::RunTask).remove(0).body;
    let network = &request["networkConfiguration"]["awsvpcConfiguration"];
    assert_eq!(
        *network,
        json!({"subnets": ["subnet-1"], "securityGroups": ["sg-1"], "assignPublicIp": "ENABLED"})
    );
    let definition = task.definition.body.to_string();
    assert!(!definition.contains(SECRET), "a task definition is kept for ever: {definition}");
    assert!(definition.contains(r#""name":"PLAIN","value":"1""#));
}

#[tokio::test]
async fn a_task_that_is_removed_is_told_to_stop_and_waited_for() {
    let stage = Stage::new().await;
    let backend = stage.backend("set", json!({})).await;
    let instance = start(&*backend).await.unwrap();
    running(&*backend, &instance.id).await;
    let other = stage.backend("other", json!({})).await;
    assert!(matches!(other.remove(CLUSTER, &instance.id).await, Err(Error::Refused(_))), "it is not its own");
    backend.remove(CLUSTER, &instance.id).await.unwrap();
    assert!(stage.tasks()[0].containers.iter().all(|container| container.ended));
    assert!(stage.tasks()[0].tags.is_empty(), "StopTask deletes tags");
    assert_eq!(stage.ecs.requests(Operation::StopTask).len(), 1);
    assert!(instances(&*backend).is_empty());
}

/// StopTask deletes tags: a controller that begins then knows whose the task is all the same.
#[tokio::test]
async fn a_task_without_tags_is_still_its_scale_sets() {
    let stage = Stage::new().await;
    let backend = stage.backend("set", json!({})).await;
    let instance = start(&*backend).await.unwrap();
    running(&*backend, &instance.id).await;
    stage.ecs.hold(Status::Deactivating);
    let removal = backend.remove(CLUSTER, &instance.id);
    let adopted = async {
        stage.ecs.wait_until(PATIENCE, |s| s.tasks_in(Status::Deactivating) == 1).await.unwrap();
        let second = stage.fresh_provider();
        let backend = stage.backend_of(&second, "set", json!({})).await;
        let seen = until("it is shown", || shown(&*backend, &instance.id)).await;
        assert_eq!((seen.runner, seen.state), (instance.runner.clone(), InstanceState::Running));
        stage.ecs.release(Status::Deactivating);
    };
    let (removed, ()) = tokio::join!(removal, adopted);
    removed.unwrap();
}

#[tokio::test]
async fn a_lost_answer_gives_one_task_and_not_two() {
    let stage = Stage::new().await;
    let backend = stage.backend("set", json!({})).await;
    ready(&*backend).await;
    for effect in [testkit::ecs::Effect::LoseAnswer, testkit::ecs::Effect::CutAnswer] {
        stage.ecs.inject(Fault::new(Operation::RunTask, effect).times(1));
    }
    let instance = start(&*backend).await.unwrap();
    assert_eq!(stage.tasks().len(), 1);
    assert_eq!(stage.tasks()[0].id, instance.id);
    let tokens = stage.ecs.requests(Operation::RunTask).into_iter().map(|r| r.body["clientToken"].clone());
    let tokens: Vec<_> = tokens.collect();
    assert!(
        tokens.len() > 1
            && tokens.iter().all(|token| *token == tokens[0] && token.as_str().unwrap().len() <= 64)
    );
}

#[tokio::test]
async fn a_task_that_fails_to_start_says_why() {
    let stage = Stage::new().await;
    let backend = stage.backend("set", json!({})).await;
    ready(&*backend).await;
    stage
        .ecs
        .inject(Fault::fail_to_start("CannotPullContainerError: pull image manifest: not found").times(1));
    let instance = start(&*backend).await.unwrap();
    let exit = ended(&*backend, &instance.id).await;
    let cause = exit.cause.unwrap();
    assert_eq!((cause.why.reason, exit.code, cause.blameless), (Reason::ImagePullFailed, None, false));
    assert!(cause.why.message.contains("CannotPullContainerError"), "{}", cause.why.message);
}

#[tokio::test]
async fn a_machine_that_is_lost_is_no_fault_of_the_runner() {
    let stage = Stage::new().await;
    let machine = stage.ecs.add_instance(CLUSTER, InstanceSpec::default()).unwrap();
    let backend = stage.backend("set", json!({"launchType": "EC2"})).await;
    let instance = start(&*backend).await.unwrap();
    running(&*backend, &instance.id).await;
    stage.ecs.lose_instance(CLUSTER, &machine).unwrap();
    let cause = ended(&*backend, &instance.id).await.cause.unwrap();
    assert_eq!((cause.why.reason, cause.blameless), (Reason::HostLost, true));

    stage.ecs.add_instance(CLUSTER, InstanceSpec::default()).unwrap();
    let instance = start(&*backend).await.unwrap();
    running(&*backend, &instance.id).await;
    stage.ecs.stop_task_as(&instance.id, Some(StopCode::InfrastructureHealth), "a machine is ill").unwrap();
    assert_eq!(ended(&*backend, &instance.id).await.cause.unwrap().why.reason, Reason::HostLost);
}

#[tokio::test]
async fn a_task_outside_the_specs_reach_is_seen_and_removed_by_whoever_looks_after_all() {
    let stage = Stage::new().await;
    stage.ecs.run_foreign_tasks(CLUSTER, 3).unwrap();
    let backend = stage.backend("set", json!({})).await;
    let instance = start(&*backend).await.unwrap();
    running(&*backend, &instance.id).await;
    let owned = stage.provider.instances();
    assert_eq!(owned.len(), 1, "others' tasks are none of ours");
    assert_eq!(
        (owned[0].scale_set.as_str(), owned[0].host.endpoint.as_str()),
        ("ci/set", "ecs://eu-west-1/default")
    );
    stage.provider.remove_orphan(&owned[0]).await.unwrap();
    until("it is gone", || stage.provider.instances().is_empty().then_some(())).await;
    assert_eq!(stage.ecs.requests(Operation::StopTask).len(), 1);
}

#[tokio::test]
async fn nothing_secret_is_logged_or_told() {
    let stage = Stage::new().await;
    let env = json!([{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "app", "key": "token"}}}]);
    let backend = stage.backend("set", json!({"managedTaskDefinition": {"env": env}})).await;
    ready(&*backend).await;
    let told =
        format!("it quotes {SECRET}-jit and planted-secret-env\nx-amz-security-token:planted-secret-token");
    stage.ecs.inject(Fault::exception(Operation::RunTask, "InvalidParameterException", &told).times(1));
    let error = start_named(&*backend, "linux-1").await.unwrap_err().to_string();
    assert!(error.contains("it quotes … and …") && !error.contains(SECRET), "{error}");
    let unknown = stage.backend("set", json!({"credentialsSecretRef": {"name": "unknown"}})).await;
    until("the keys are refused", || {
        let told = crate::stage::host(&*unknown).message;
        assert!(!told.contains("planted"), "{told}");
        told.contains("credentials").then_some(())
    })
    .await;
    tokio::time::timeout(Duration::from_secs(1), start(&*unknown)).await.unwrap_err();
    let log = log();
    assert!(log.contains("ECS cluster answers") && !log.contains("planted-"), "nothing secret is logged");
    assert!(
        !log.contains(testkit::ecs::DEFAULT_SECRET_KEY)
            && !format!("{backend:?}", backend = backend.name()).contains(SECRET)
    );
}
