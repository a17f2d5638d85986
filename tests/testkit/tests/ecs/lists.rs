//! Large clusters and late readers.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use testkit::ecs::{Delays, Lag, Operation, SimEcs, SimEcsBuilder, Status};

use crate::PATIENCE;
use crate::client::Wire;

fn ecs() -> SimEcsBuilder {
    SimEcs::builder().delays(Delays::each(Duration::ZERO)).lag(Lag::both(Duration::ZERO)).without_throttling()
}

#[tokio::test]
async fn a_sweep_of_250_tasks_among_400_foreign_ones_takes_three_pages_and_three_batches() {
    let ecs = ecs().start().await.expect("started");
    let wire = Wire::new(&ecs);
    wire.register("awsvpc").await;
    ecs.run_foreign_tasks("default", 400).expect("the cluster");
    let mut own = BTreeSet::new();
    for _ in 0..250 {
        own.insert(wire.run(json!({ "startedBy": "paddock-1" })).await);
    }
    ecs.wait_until(PATIENCE, |s| s.tasks_in(Status::Running) == 650).await.expect("all run");
    ecs.clear_requests();
    let pages = wire.list(json!({ "startedBy": "paddock-1", "desiredStatus": "RUNNING" })).await;
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [100, 100, 50]);
    assert_eq!(pages.iter().flatten().cloned().collect::<BTreeSet<_>>(), own);
    let mut described = 0;
    for page in &pages {
        let answer = wire.call("DescribeTasks", json!({ "tasks": page })).await;
        described += answer["tasks"].as_array().expect("tasks").len();
    }
    assert_eq!(described, 250);
    assert_eq!(ecs.requests(Operation::ListTasks).len() + ecs.requests(Operation::DescribeTasks).len(), 6);
    assert_eq!(wire.list(json!({})).await.iter().map(Vec::len).sum::<usize>(), 650);
}

#[tokio::test]
async fn a_page_may_be_shorter_than_asked_for() {
    let ecs = ecs().page_size(2).start().await.expect("started");
    let wire = Wire::new(&ecs);
    ecs.run_foreign_tasks("default", 5).expect("the cluster");
    let pages = wire.list(json!({ "maxResults": 100 })).await;
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1]);
}

#[tokio::test]
async fn started_by_excludes_the_desired_status_where_the_documentation_is_taken_at_its_word() {
    let ecs = ecs().started_by_alone().start().await.expect("started");
    let wire = Wire::new(&ecs);
    let (status, answer) =
        wire.try_call("ListTasks", &json!({ "startedBy": "paddock-1", "desiredStatus": "RUNNING" })).await;
    assert_eq!((status, &answer["__type"]), (400, &json!("InvalidParameterException")));
    assert_eq!(wire.list(json!({ "startedBy": "paddock-1" })).await, [Vec::<String>::new()]);
}

#[tokio::test]
async fn a_task_shows_late_and_is_forgotten_an_hour_after_its_end() {
    let ecs = ecs().lag(Lag::both(Duration::from_mins(4))).start().await.expect("started");
    let wire = Wire::new(&ecs);
    wire.register("awsvpc").await;
    let arn = wire.run(json!({ "startedBy": "paddock-1" })).await;
    ecs.wait_until(PATIENCE, |s| s.tasks_in(Status::Running) == 1).await.expect("it runs");
    let described = wire.call("DescribeTasks", json!({ "tasks": [arn] })).await;
    assert_eq!(described["failures"], json!([{ "arn": arn, "reason": "MISSING" }]));
    assert!(wire.list(json!({})).await[0].is_empty());
    ecs.advance(Duration::from_mins(5));
    assert_eq!(wire.describe(&arn).await["lastStatus"], "RUNNING");
    assert_eq!(wire.list(json!({})).await, [[arn.as_str()]]);
    ecs.exit_task(&arn, 0).expect("it is up");
    ecs.wait_until(PATIENCE, |s| s.tasks_in(Status::Stopped) == 1).await.expect("it stops");
    assert_eq!(wire.list(json!({})).await, [[arn.as_str()]], "ListTasks does not know yet");
    ecs.advance(Duration::from_mins(59));
    assert_eq!(wire.describe(&arn).await["lastStatus"], "STOPPED");
    assert_eq!(wire.list(json!({ "desiredStatus": "STOPPED" })).await, [[arn.as_str()]]);
    ecs.advance(Duration::from_mins(2));
    assert_eq!(wire.describe(&arn).await, json!(null));
    assert_eq!(ecs.look(|s| s.tasks().count()), 0);
}
