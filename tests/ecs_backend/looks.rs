//! How a cluster is looked at: what that costs, and what is believed of what it shows and does not show.

use std::time::Duration;

use paddock::backend::ecs::EcsProvider;
use paddock::backend::{Backend, Error, Provider};
use paddock::runner::{InstanceState, runner_name};
use serde_json::json;
use testkit::ecs::{Lag, Operation, Status};

use crate::stage::{
    CLUSTER, PATIENCE, QUICK, Stage, ecs, ended, host, identity, instances, ready, resolve, running, shown,
    start, start_named, until,
};

#[tokio::test]
async fn three_sets_of_one_cluster_are_seen_by_one_look() {
    let stage = Stage::on(ecs().without_throttling()).await;
    stage.ecs.run_foreign_tasks(CLUSTER, 400).unwrap();
    let mut backends = Vec::new();
    for (set, tasks) in [("a", 100), ("b", 100), ("c", 50)] {
        let backend = stage.backend(set, json!({})).await;
        ready(&*backend).await;
        let names: Vec<String> = (0..tasks).map(|_| runner_name("linux")).collect();
        for started in futures::future::join_all(names.iter().map(|name| start_named(&*backend, name))).await
        {
            started.unwrap();
        }
        backends.push((backend, tasks));
    }
    stage.ecs.wait_until(PATIENCE, |s| s.tasks_in(Status::Running) == 650).await.unwrap();
    until("all are seen to run", || {
        let all = backends.iter().all(|(backend, tasks)| {
            let shown = instances(&**backend);
            assert_eq!(shown.len(), *tasks, "never more and never fewer");
            shown.iter().all(|instance| instance.state == InstanceState::Running)
        });
        all.then_some(())
    })
    .await;
    // Two looks at rest, the first of which may have begun before.
    stage.ecs.clear_requests();
    let listings = || stage.ecs.requests(Operation::ListTasks);
    let stopped = || listings().iter().filter(|r| r.body["desiredStatus"] == "STOPPED").count();
    until("two looks were made", || (stopped() >= 3).then_some(())).await;
    let first = listings().iter().position(|r| r.body["desiredStatus"] == "STOPPED").unwrap();
    let requests =
        stage.ecs.look(|s| s.requests().iter().map(|r| (r.number, r.operation)).collect::<Vec<_>>());
    let begin = listings()[first].number;
    let end = listings().iter().filter(|r| r.body["desiredStatus"] == "STOPPED").nth(1).unwrap().number;
    let of_one =
        |operation| requests.iter().filter(|(n, o)| *n > begin && *n <= end && *o == operation).count();
    assert_eq!(
        (of_one(Operation::ListTasks), of_one(Operation::DescribeTasks)),
        (4, 3),
        "3 pages and 1, 250 tasks"
    );
    let usage = stage.provider.hosts();
    assert_eq!((usage.len(), usage[0].taken, usage[0].free), (1, 250, None));
}

#[tokio::test]
async fn a_task_that_ecs_shows_late_is_neither_forgotten_nor_believed_gone() {
    let stage = Stage::on(ecs().lag(Lag::both(Duration::from_secs(2)))).await;
    let backend = stage.backend("set", json!({})).await;
    let instance = start(&*backend).await.unwrap();
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        assert!(shown(&*backend, &instance.id).is_some(), "after {:?}", begun.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    running(&*backend, &instance.id).await;
}

#[tokio::test]
async fn a_new_controller_says_how_long_ecs_may_hide_what_was_made_and_adopts_it_when_it_is_shown() {
    let stage = Stage::on(ecs().lag(Lag::both(Duration::from_secs(1)))).await;
    let backend = stage.backend("set", json!({})).await;
    let instance = start(&*backend).await.unwrap();
    let second = stage.fresh_provider();
    let second = stage.backend_of(&second, "set", json!({})).await;
    ready(&*second).await;
    let listing = second.instances().remove(0);
    assert_eq!((listing.current, listing.hides, listing.instances.len()), (true, Duration::MAX, 0));
    assert!(
        matches!(second.remove(CLUSTER, &instance.id).await, Err(Error::Unreachable(_))),
        "it may be there"
    );
    let adopted = until("it is adopted", || shown(&*second, &instance.id)).await;
    assert_eq!(adopted.runner, instance.runner);
    assert_eq!(stage.tasks().len(), 1);
    let hides = || second.instances().remove(0).hides;
    until("it has looked for long", || (hides() == QUICK.settles).then_some(())).await;
}

#[tokio::test]
async fn a_task_that_ecs_forgot_is_gone_once_that_is_certain() {
    let stage = Stage::new().await;
    let backend = stage.backend("set", json!({})).await;
    let instance = start(&*backend).await.unwrap();
    running(&*backend, &instance.id).await;
    stage.ecs.forget_task(&instance.id).unwrap();
    let begun = std::time::Instant::now();
    until("it is gone", || shown(&*backend, &instance.id).is_none().then_some(())).await;
    assert!(begun.elapsed() >= QUICK.settles, "MISSING is not gone: {:?}", begun.elapsed());
}

/// The documentation of ListTasks reads as if `startedBy` had to be the only filter.
#[tokio::test]
async fn where_only_running_tasks_are_listed_ends_are_seen_all_the_same() {
    let stage = Stage::on(ecs().started_by_alone()).await;
    let backend = stage.backend("set", json!({})).await;
    let instance = start(&*backend).await.unwrap();
    running(&*backend, &instance.id).await;
    stage.ecs.exit_task(&instance.id, 0).unwrap();
    assert_eq!(ended(&*backend, &instance.id).await.code, Some(0));
}

#[tokio::test]
async fn an_outage_leaves_tasks_as_last_known() {
    let stage = Stage::new().await;
    let backend = stage.backend("set", json!({})).await;
    let instance = start(&*backend).await.unwrap();
    running(&*backend, &instance.id).await;
    stage.ecs.go_down();
    until("it is noticed", || (!backend.instances()[0].current).then_some(())).await;
    until("starts are held back", || backend.reserve(CLUSTER).is_none().then_some(())).await;
    assert!(shown(&*backend, &instance.id).is_some() && !host(&*backend).message.is_empty());
    stage.ecs.clear_faults();
    ready(&*backend).await;
    assert!(shown(&*backend, &instance.id).is_some());
}

#[tokio::test]
async fn pages_that_are_short_are_read_to_the_end() {
    let stage = Stage::on(ecs().page_size(2)).await;
    let backend = stage.backend("set", json!({})).await;
    ready(&*backend).await;
    for _ in 0..5 {
        start(&*backend).await.unwrap();
    }
    let second = stage.fresh_provider();
    let second = stage.backend_of(&second, "set", json!({})).await;
    until("all are adopted", || (instances(&*second).len() == 5).then_some(())).await;
}

#[tokio::test]
async fn two_backends_of_a_set_in_one_cluster_have_each_their_own_tasks() {
    let stage = Stage::new().await;
    let open = async |provider: &EcsProvider, name: &str| {
        let resolved = resolve(provider, &stage.spec(json!({}))).await.unwrap();
        resolved.open(name, &["aws".to_owned(), "more".to_owned()], &identity("set"))
    };
    let (first, second) = (open(&stage.provider, "aws").await, open(&stage.provider, "more").await);
    let (a, b) = (start(&*first).await.unwrap(), start(&*second).await.unwrap());
    let ids =
        |backend: &dyn Backend| instances(backend).into_iter().map(|i| (i.id, i.backend)).collect::<Vec<_>>();
    assert_eq!(ids(&*first), [(a.id, "aws".to_owned())]);
    assert_eq!(ids(&*second), [(b.id.clone(), "more".to_owned())]);
    // What a backend started that the spec does not have any more is the first's of those that are left.
    let left = stage.backend_of(&stage.fresh_provider(), "set", json!({})).await;
    until("it is taken over", || ids(&*left).contains(&(b.id.clone(), "aws".to_owned())).then_some(())).await;
    assert_eq!(ids(&*left).len(), 2);
}
