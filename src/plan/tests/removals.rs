//! Runners that are removed, and those that are not.

use super::*;

#[test]
fn surplus_idle_runners_are_kept_for_the_delay_and_go_oldest_first() {
    let mut scenario = Scenario::new(serde_json::json!({"maxRunners": 10}));
    scenario.assigned(2);
    scenario.step();
    scenario.now = 5;
    scenario.assigned(3);
    scenario.step();
    scenario.up();
    scenario.now = 10;
    scenario.assigned(1);
    let plan = scenario.step();
    assert_eq!((removals(&plan), plan.requeue_at), (vec![], Some(at(70))));
    scenario.now = 69;
    assert!(removals(&scenario.step()).is_empty());
    scenario.now = 70;
    assert_eq!(
        removals(&scenario.step()),
        [("linux-001", Removal::Surplus), ("linux-002", Removal::Surplus)]
    );
}

#[test]
fn surplus_leaves_the_last_backend_first() {
    let mut scenario = Scenario::new(serde_json::json!({"maxRunners": 10}));
    scenario.backends = vec![backend("rack", &[("a", 2)]), backend("cloud", &[("c", 9)])];
    scenario.assigned(3);
    scenario.step();
    scenario.up();
    scenario.assigned(1);
    let in_rack = |name: &String| scenario.ledger.runner(name).is_some_and(|r| r.backend == "rack");
    let surplus = scenario.plan().surplus;
    assert_eq!(surplus.iter().map(in_rack).collect::<Vec<_>>(), [false, true], "{surplus:?}");
}

/// An earlier controller's status names it, and its host is away: it may be long gone.
#[test]
fn no_idle_runner_is_surplus_on_account_of_one_that_no_host_shows() {
    let mut scenario = Scenario::new(serde_json::json!({"minRunners": 1, "scaleDown": {"delay": "10s"}}));
    scenario.step();
    scenario.up();
    scenario.ledger.restore([PersistedRunner { phase: Phase::Idle, ..remembered("linux-gone", "1") }], at(0));
    scenario.wait(60);
    scenario.assigned(0);
    assert!(scenario.step().surplus.is_empty());
    scenario.wait(60);
    assert!(removals(&scenario.step()).is_empty());
}

#[test]
fn timeouts_take_whom_they_should() {
    let spec = serde_json::json!({"minRunners": 2, "timeouts": {"idle": "10m", "job": "1h", "start": "2m"}});
    let mut scenario = Scenario::new(spec);
    scenario.assigned(0);
    scenario.step();
    scenario.up();
    scenario.busy("linux-001", "job");
    scenario.wait(600);
    assert_eq!(removals(&scenario.step()), [("linux-002", Removal::IdleTimeout)]);
    scenario.wait(3000);
    assert!(removals(&scenario.step()).contains(&("linux-001", Removal::JobTimeout)));
}

#[test]
fn a_clock_that_is_set_forward_stops_no_job() {
    const DAY: i64 = 24 * 3600;
    let mut scenario = Scenario::at_work(serde_json::json!({"timeouts": {"job": "1h"}}));
    scenario.wait(1800);
    scenario.now += DAY;
    let plan = scenario.step();
    assert!(removals(&plan).is_empty());
    assert_eq!(plan.requeue_at, Some(at(scenario.now + 1800)), "what is left of the hour");
    scenario.wait(1799);
    assert!(removals(&scenario.step()).is_empty());
    scenario.wait(1);
    assert_eq!(removals(&scenario.step()), [("linux-001", Removal::JobTimeout)]);
}

#[test]
fn a_busy_runner_is_never_surplus_outdated_or_over_its_lifetime() {
    let spec = serde_json::json!({"timeouts": {"lifetime": "1h", "job": "0s"}});
    let mut scenario = Scenario::at_work(spec);
    scenario.assigned(0);
    scenario.backends[0].template_hash = "t2".into();
    scenario.now = 100_000;
    assert!(removals(&scenario.step()).is_empty());
}

#[test]
fn suspended_idle_runners_go_and_busy_ones_stay() {
    let mut scenario = Scenario::at_work(serde_json::json!({"minRunners": 2}));
    scenario.policy.suspend = true;
    let plan = scenario.step();
    assert_eq!(removals(&plan), [("linux-002", Removal::Suspended), ("linux-003", Removal::Suspended)]);
    assert_eq!((plan.capacity, plan.desired, plan.demand_status.met), (1, 0, Some(true)));
}

#[test]
fn a_deleted_set_waits_for_its_busy_runners_until_the_drain_is_over() {
    let mut scenario = Scenario::at_work(serde_json::json!({"minRunners": 1}));
    scenario.policy.drain_until = Some(at(100));
    let plan = scenario.step();
    assert!(plan.actions.iter().all(|a| !matches!(a, Action::Remove { why, .. } if why.forced())));
    scenario.ledger.found_busy("linux-001", at(0));
    scenario.now = 10;
    assert!(removals(&scenario.step()).is_empty(), "a refused removal is not asked for again at once");
    scenario.now = 100;
    assert!(removals(&scenario.step()).contains(&("linux-001", Removal::DrainExpired)));
}
