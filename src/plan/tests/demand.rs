//! How many runners are wanted, and which of GitHub's counts are believed.

use super::*;

#[test]
fn wanted_is_the_smaller_of_max_and_min_plus_assigned() {
    for (min, max, assigned, wanted) in
        [(0, 10, 5, 5), (2, 10, 0, 2), (2, 10, 5, 7), (2, 4, 5, 4), (0, 0, 5, 0)]
    {
        let mut scenario = Scenario::new(serde_json::json!({"minRunners": min, "maxRunners": max}));
        scenario.assigned(assigned);
        let plan = scenario.step();
        assert_eq!(
            (plan.desired, starts(&plan)),
            (wanted, wanted as usize),
            "min {min} max {max} assigned {assigned}"
        );
        assert_eq!(starts(&scenario.step()), 0, "what is starting counts");
        assert_eq!(plan.capacity, max.min(20));
    }
}

#[test]
fn two_scale_ups_add_only_the_difference() {
    let mut scenario = Scenario::new(serde_json::json!({"maxRunners": 10}));
    scenario.assigned(3);
    scenario.step();
    scenario.assigned(5);
    assert_eq!(starts(&scenario.step()), 2);
}

#[test]
fn a_job_takes_a_spare_and_a_spare_replaces_it() {
    let mut scenario = Scenario::new(serde_json::json!({"minRunners": 2}));
    scenario.assigned(0);
    scenario.step();
    scenario.up();
    scenario.assigned(1);
    scenario.busy("linux-001", "job");
    assert_eq!(starts(&scenario.step()), 1);
    scenario.up();
    scenario.completed("linux-001", "job");
    scenario.assigned(0);
    let plan = scenario.step();
    assert_eq!((starts(&plan), plan.surplus.len()), (0, 0), "the one that finishes is no surplus");
    scenario.exits("linux-001", 0);
    let plan = scenario.step();
    assert_eq!(plan.actions, [Action::Collect { runner: "linux-001".into() }]);
    assert_eq!(scenario.ledger.failures().noted(), 0);
}

#[test]
fn the_last_thousand_jobs_are_remembered_and_no_more() {
    let mut scenario = Scenario::new(serde_json::json!({}));
    let mut news = |job: i32| {
        let job = scenario.job(&job.to_string());
        let started = JobEvent::Started { job, runner_name: "linux-001".to_owned(), runner_id: 1 };
        scenario.ledger.apply(&started, at(0))
    };
    assert!((0..2_001).all(&mut news));
    assert!(!(1_000..2_001).any(&mut news), "repeats");
    assert!(news(0), "forgotten");
}

#[test]
fn one_false_reading_scales_nothing_down() {
    let mut scenario = Scenario::new(serde_json::json!({}));
    scenario.assigned(3);
    scenario.step();
    scenario.up();
    scenario.now = 1000;
    scenario.assigned(0);
    assert!(removals(&scenario.step()).is_empty());
    scenario.now = 1001;
    scenario.assigned(3);
    assert!(scenario.step().surplus.is_empty());
    scenario.now = 1059;
    scenario.assigned(0);
    assert!(removals(&scenario.step()).is_empty());
}

#[test]
fn nothing_but_zeros_is_believed_only_the_second_time_while_runners_are_at_work() {
    let mut scenario = Scenario::new(serde_json::json!({"scaleDown": {"delay": "10s"}}));
    scenario.assigned(2);
    scenario.step();
    scenario.up();
    let nothing = Statistics::default();
    scenario.now = 1000;
    scenario.ledger.count(nothing, at(1000));
    assert!(scenario.step().surplus.is_empty());
    scenario.now = 2000;
    assert!(scenario.step().surplus.is_empty());
    scenario.ledger.count(nothing, at(2000));
    assert_eq!(scenario.step().surplus.len(), 2);
}

#[test]
fn without_a_reading_nothing_is_surplus() {
    let mut scenario = Scenario::new(serde_json::json!({"minRunners": 1}));
    scenario.step();
    scenario.up();
    scenario.policy = Scenario::new(serde_json::json!({"minRunners": 0})).policy;
    assert!(scenario.step().surplus.is_empty());
}

#[test]
fn demand_that_idle_runners_leave_alone_is_flagged_and_not_chased() {
    let mut scenario = Scenario::new(serde_json::json!({"maxRunners": 10}));
    scenario.assigned(2);
    scenario.step();
    scenario.up();
    for minute in 0..10 {
        scenario.now = minute * 60;
        scenario.assigned(2);
        scenario.ledger.observe(&[], at(scenario.now));
        let plan = scenario.plan();
        assert_eq!(starts(&plan), 0);
        let reason = if minute < 6 { Reason::AsExpected } else { Reason::PhantomDemand };
        assert_eq!(plan.demand_status.explanation.reason, reason, "after {minute} minutes");
    }
    scenario.busy("linux-001", "a");
    scenario.busy("linux-002", "b");
    scenario.ledger.observe(&[], at(scenario.now));
    assert_eq!(scenario.step().demand_status.met, Some(true));
}

#[test]
fn a_drop_in_demand_touches_no_runner_that_is_starting() {
    let mut scenario = Scenario::new(serde_json::json!({"maxRunners": 10}));
    scenario.assigned(3);
    scenario.step();
    scenario.assigned(1);
    for second in [0, 30, 120] {
        scenario.now = second;
        let plan = scenario.step();
        assert_eq!((starts(&plan), removals(&plan)), (0, vec![]), "after {second} s");
    }
    scenario.up();
    assert!(removals(&scenario.step()).is_empty(), "it is surplus only from now on");
    scenario.now = 180;
    assert_eq!(removals(&scenario.step()).len(), 2);
}
