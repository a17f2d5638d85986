//! Tasks without a process: their way through the states, by the clock.

use std::time::Duration;

use serde_json::json;
use testkit::ecs::{Delays, Effect, Fault, Lag, Limit, Operation, SimEcs, SimEcsBuilder, Status, StopCode};

use crate::PATIENCE;
use crate::client::Wire;

fn ecs() -> SimEcsBuilder {
    SimEcs::builder().lag(Lag::both(Duration::ZERO))
}

fn status(ecs: &SimEcs, arn: &str) -> Status {
    ecs.look(|s| s.task(arn).expect("known").status)
}

#[tokio::test]
async fn each_state_lasts_as_long_as_its_delay() {
    let seconds = Duration::from_secs;
    let delays = Delays {
        provisioning: seconds(100),
        pending: seconds(200),
        activating: seconds(300),
        deactivating: seconds(400),
        stopping: seconds(500),
        deprovisioning: seconds(600),
    };
    let ecs = ecs().delays(delays).start().await.expect("started");
    let wire = Wire::new(&ecs);
    wire.register("awsvpc").await;
    let arn = wire.run(json!({})).await;
    let mut before = Status::Provisioning;
    for (delay, next) in [(100, Status::Pending), (200, Status::Activating), (300, Status::Running)] {
        ecs.advance(seconds(delay - 50));
        assert_eq!(status(&ecs, &arn), before);
        ecs.advance(seconds(50));
        assert_eq!(status(&ecs, &arn), next);
        before = next;
    }
    ecs.exit_task(&arn, 3).expect("it is up");
    let before_its_end = wire.describe(&arn).await;
    assert_eq!(
        (&before_its_end["lastStatus"], &before_its_end["desiredStatus"]),
        (&json!("DEACTIVATING"), &json!("STOPPED"))
    );
    for (delay, next) in [(400, Status::Stopping), (500, Status::Deprovisioning), (600, Status::Stopped)] {
        ecs.advance(seconds(delay));
        assert_eq!(status(&ecs, &arn), next);
    }
    let task = wire.describe(&arn).await;
    let moment = |name: &str| task[name].as_f64().unwrap_or_else(|| panic!("no {name}: {task}"));
    assert!(
        (moment("startedAt") - moment("createdAt") - 500.0).abs() < 5.0,
        "createdAt is the time of PENDING"
    );
    assert!((moment("stoppedAt") - moment("stoppingAt") - 1500.0).abs() < 5.0);
    assert_eq!(
        (&task["stopCode"], &task["containers"][0]["exitCode"]),
        (&json!("EssentialContainerExited"), &json!(3))
    );
}

#[tokio::test]
async fn a_lost_answer_and_a_retry_with_the_same_token_give_one_task() {
    let ecs = ecs().start().await.expect("started");
    let wire = Wire::new(&ecs);
    wire.register("awsvpc").await;
    ecs.inject(Fault::new(Operation::RunTask, Effect::LoseAnswer).times(1));
    let request = json!({ "clientToken": "runner-1" });
    let lost = tokio::spawn({
        let (wire, request) = (Wire::new(&ecs), request.clone());
        async move { wire.run(request).await }
    });
    assert!(lost.await.is_err(), "no answer came");
    let arn = wire.run(request).await;
    assert_eq!(ecs.look(|s| s.tasks().map(|task| task.arn.clone()).collect::<Vec<_>>()), [arn]);
}

#[tokio::test]
async fn a_spot_task_runs_on_for_its_notice_unless_its_containers_end() {
    let ecs = ecs().delays(Delays::each(Duration::ZERO)).start().await.expect("started");
    let wire = Wire::new(&ecs);
    wire.register("awsvpc").await;
    let strategy = json!([{ "capacityProvider": "FARGATE_SPOT", "weight": 1 }]);
    let arn = wire.run(json!({ "capacityProviderStrategy": strategy })).await;
    ecs.wait_until(PATIENCE, |s| s.tasks_in(Status::Running) == 1).await.expect("it runs");
    ecs.hold(Status::Stopping);
    ecs.interrupt_spot(&arn).expect("on Spot");
    ecs.wait_until(PATIENCE, |s| s.tasks_in(Status::Stopping) == 1).await.expect("its container has ended");
    assert_eq!(wire.describe(&arn).await["stopCode"], "SpotInterruption");
    ecs.release(Status::Stopping);
    ecs.wait_until(PATIENCE, |s| s.tasks_in(Status::Stopped) == 1).await.expect("it stops");
    assert!(ecs.interrupt_spot(&arn).is_err(), "it has stopped");
    let on_demand = wire.run(json!({})).await;
    assert!(ecs.interrupt_spot(&on_demand).is_err(), "not on Spot");
}

#[tokio::test]
async fn two_hundred_tasks_at_once_meet_the_documented_limits() {
    let ecs = ecs().start().await.expect("started");
    let wire = Wire::new(&ecs);
    wire.register("awsvpc").await;
    let request = json!({
        "taskDefinition": "linux", "launchType": "FARGATE",
        "networkConfiguration": { "awsvpcConfiguration": { "subnets": ["subnet-1"] } },
    });
    let begin = tokio::time::Instant::now();
    let (mut accepted, mut throttled) = (0, 0);
    for _ in 0..200 {
        match wire.try_call("RunTask", &request).await {
            (200, _) => accepted += 1,
            (400, body) if body["__type"] == "ThrottlingException" => throttled += 1,
            other => panic!("{other:?}"),
        }
    }
    let most = 101.0 + 20.0 * begin.elapsed().as_secs_f64();
    assert!(accepted >= 100 && f64::from(accepted) <= most, "{accepted}, at most {most}");
    assert_eq!(accepted + throttled, 200);
    ecs.set_fargate_limit(Limit { burst: 1000, per_second: 1000.0 });
    ecs.set_limit(Operation::RunTask, Limit { burst: 1, per_second: 0.1 });
    assert_eq!(wire.try_call("RunTask", &request).await.0, 200);
    assert_eq!(wire.try_call("StopTask", &json!({ "task": "x" })).await.1["__type"], "ThrottlingException");
}

#[tokio::test]
async fn a_task_that_aws_stops_says_why() {
    let ecs = ecs().delays(Delays::each(Duration::ZERO)).start().await.expect("started");
    let wire = Wire::new(&ecs);
    wire.register("awsvpc").await;
    let arn = wire.run(json!({ "tags": [{ "key": "k", "value": "v" }] })).await;
    ecs.wait_until(PATIENCE, |s| s.tasks_in(Status::Running) == 1).await.expect("it runs");
    ecs.stop_task_as(&arn, Some(StopCode::InfrastructureHealth), "a machine is ill").expect("known");
    ecs.wait_until(PATIENCE, |s| s.tasks_in(Status::Stopped) == 1).await.expect("it stops");
    let task = wire.describe(&arn).await;
    assert_eq!(
        (&task["stopCode"], &task["stoppedReason"]),
        (&json!("InfrastructureHealth"), &json!("a machine is ill"))
    );
    assert_eq!(task["tags"], json!([{ "key": "k", "value": "v" }]), "only StopTask deletes them");
}

#[tokio::test]
async fn an_outage_closes_every_connection_until_it_is_over() {
    let ecs = ecs().start().await.expect("started");
    ecs.go_down();
    let wire = Wire::new(&ecs);
    let call = tokio::spawn(async move { wire.call("ListTasks", json!({})).await });
    assert!(call.await.is_err(), "the connection closes");
    ecs.clear_faults();
    assert!(Wire::new(&ecs).list(json!({})).await[0].is_empty());
}
