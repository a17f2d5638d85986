//! What becomes of starts that find no room, too many at once, and on Spot.

use std::time::Instant;

use paddock::api::{Explanation, Reason};
use paddock::backend::{Availability, Error};
use paddock::runner::runner_name;
use serde_json::json;
use testkit::ecs::{Fault, Operation, Status, StopCode, reason as failure};

use crate::stage::{CLUSTER, PATIENCE, Stage, ended, host, ready, running, start, start_named};

#[tokio::test]
async fn without_room_the_cluster_is_left_alone_for_a_while() {
    let stage = Stage::new().await;
    let backend = stage.backend("set", json!({})).await;
    ready(&*backend).await;
    stage.ecs.inject(Fault::failures(Operation::RunTask, failure::MEMORY).times(1));
    let Err(Error::NoCapacity(why)) = start(&*backend).await else { panic!("there is no room") };
    assert_eq!(why, Explanation::new(Reason::NoCapacity, failure::MEMORY));
    let left_alone = host(&*backend);
    let Availability::BackOff { until, reason } = left_alone.availability else { panic!("{left_alone:?}") };
    let wait = until.duration_since(jiff::Timestamp::now()).as_secs();
    assert!((10..=15).contains(&wait), "{wait}");
    assert_eq!(reason, Reason::NoCapacity);
    assert!(left_alone.message.contains("RESOURCE:MEMORY; the next try is at 2"), "{}", left_alone.message);
    assert!(backend.reserve(CLUSTER).is_none());
}

#[tokio::test]
async fn each_documented_failure_is_told_in_its_own_words() {
    let stage = Stage::new().await;
    for (number, word) in failure::ALL.into_iter().enumerate() {
        let backend = stage.backend(&format!("set-{number}"), json!({})).await;
        ready(&*backend).await;
        stage.ecs.inject(Fault::failures(Operation::RunTask, word).times(1));
        let error = start(&*backend).await.unwrap_err();
        let permanent = [failure::ATTRIBUTE, failure::LOCATION, failure::INACTIVE].contains(&word);
        assert_eq!(matches!(error, Error::Refused(_)), permanent, "{word}: {error:?}");
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[tokio::test]
async fn a_provider_without_room_is_passed_over_in_the_same_start() {
    let stage = Stage::new().await;
    stage.ecs.set_fargate_room(CLUSTER, "FARGATE_SPOT", Some(0)).unwrap();
    let providers = json!([{"name": "FARGATE_SPOT", "weight": 1}, {"name": "FARGATE", "weight": 0}]);
    let changes = json!({"launchType": null, "capacityProviders": providers});
    let backend = stage.backend("set", changes).await;
    let instance = start(&*backend).await.unwrap();
    let provider = stage.ecs.look(|s| s.task(&instance.id).unwrap().provider.clone());
    assert_eq!(provider.as_deref(), Some("FARGATE"));
    start(&*backend).await.unwrap();
    assert_eq!(stage.ecs.requests(Operation::RunTask).len(), 3, "Spot is left alone for a while");
}

#[tokio::test]
async fn base_and_weights_hold_over_all_tasks_of_a_backend() {
    let stage = Stage::new().await;
    let providers =
        json!([{"name": "FARGATE_SPOT", "weight": 3}, {"name": "FARGATE", "weight": 1, "base": 2}]);
    let backend = stage.backend("set", json!({"launchType": null, "capacityProviders": providers})).await;
    ready(&*backend).await;
    let names: Vec<String> = (0..10).map(|_| runner_name("linux")).collect();
    futures::future::join_all(names.iter().map(|name| start_named(&*backend, name)))
        .await
        .into_iter()
        .for_each(|started| {
            started.unwrap();
        });
    let on_spot = stage.tasks().iter().filter(|task| task.is_spot()).count();
    assert_eq!((on_spot, stage.tasks().len()), (6, 10));
}

#[tokio::test]
async fn the_next_start_after_an_interruption_is_not_on_spot() {
    let stage = Stage::new().await;
    let providers = json!([{"name": "FARGATE_SPOT", "weight": 10}, {"name": "FARGATE", "weight": 1}]);
    let backend = stage.backend("set", json!({"launchType": null, "capacityProviders": providers})).await;
    let instance = start(&*backend).await.unwrap();
    running(&*backend, &instance.id).await;
    assert!(stage.tasks()[0].is_spot());
    stage.ecs.interrupt_spot(&instance.id).unwrap();
    let cause = ended(&*backend, &instance.id).await.cause.unwrap();
    assert_eq!((cause.why.reason, cause.blameless, cause.rerun), (Reason::SpotInterruption, true, false));
    let replacement = start(&*backend).await.unwrap();
    let next = start(&*backend).await.unwrap();
    let on_spot = |id: &str| stage.ecs.look(|s| s.task(id).unwrap().is_spot());
    assert!(!on_spot(&replacement.id) && on_spot(&next.id), "one interruption, one replacement");
}

#[tokio::test]
async fn only_an_interruption_is_to_be_run_again_and_only_where_the_block_asks_for_it() {
    let stage = Stage::new().await;
    let block = json!({"launchType": null, "capacityProviders": [{"name": "FARGATE_SPOT", "weight": 1}], "rerunInterrupted": true});
    let backend = stage.backend("set", block).await;
    let (interrupted, lost) = (start(&*backend).await.unwrap(), start(&*backend).await.unwrap());
    running(&*backend, &interrupted.id).await;
    running(&*backend, &lost.id).await;
    stage.ecs.interrupt_spot(&interrupted.id).unwrap();
    stage.ecs.stop_task_as(&lost.id, Some(StopCode::InfrastructureHealth), "a machine is ill").unwrap();
    assert!(ended(&*backend, &interrupted.id).await.cause.unwrap().rerun);
    assert!(!ended(&*backend, &lost.id).await.cause.unwrap().rerun);
}

/// The account's documented limits: a burst of 100, then 20 a second. That the controller's own bucket takes no longer than they
/// do is shown in virtual time (`src/backend/ecs/bucket.rs`); here the service, whose bucket runs in real time, agrees.
#[tokio::test]
async fn two_hundred_at_once_are_asked_for_as_fast_as_the_account_allows() {
    let stage = Stage::new().await;
    let backend = stage.backend("set", json!({})).await;
    ready(&*backend).await;
    let begun = Instant::now();
    let names: Vec<String> = (0..200).map(|_| runner_name("linux")).collect();
    let started = futures::future::join_all(names.iter().map(|name| start_named(&*backend, name))).await;
    let took = begun.elapsed();
    started.into_iter().for_each(|started| drop(started.unwrap()));
    let refused = stage.ecs.look(|s| s.requests().refused_with("ThrottlingException"));
    println!("200 tasks in {took:?}, {refused} throttled");
    assert!(refused <= 10, "{refused} calls too many");
    assert_eq!(stage.tasks().len(), 200);
}

#[tokio::test]
async fn what_is_throttled_is_asked_for_again_and_nobody_hears_of_it() {
    let stage = Stage::new().await;
    let backend = stage.backend("set", json!({})).await;
    ready(&*backend).await;
    stage.ecs.inject(Fault::throttled(Operation::RunTask).times(1));
    stage.ecs.inject(Fault::throttled_by_ec2(Operation::RunTask).times(1));
    stage.ecs.inject(Fault::server_error(Operation::RunTask).times(1));
    start(&*backend).await.unwrap();
    stage.ecs.wait_until(PATIENCE, |s| s.tasks_in(Status::Running) == 1).await.unwrap();
    assert_eq!(stage.ecs.requests(Operation::RunTask).len(), 4);
}
