//! Starts that fail.

use super::*;

#[test]
fn failing_starts_are_retried_ever_more_slowly_and_said_so() {
    let mut scenario = Scenario::new(serde_json::json!({}));
    scenario.assigned(1);
    let mut tries = 0;
    for second in 0..600 {
        scenario.now = second;
        let plan = scenario.step();
        tries += starts(&plan);
        for name in scenario.names(|r| r.operation == Some(Operation::Starting)) {
            scenario.ledger.start_failed(&name, Reason::EngineError, "no space left", at(second));
            scenario.backend_host("rack", "rack-1").free_slots += 1;
        }
        if second > 2 {
            let demand_status = scenario.plan().demand_status;
            assert_eq!(demand_status.explanation.reason, Reason::StartFailures);
            assert!(
                demand_status.explanation.message.contains("no space left"),
                "{}",
                demand_status.explanation.message
            );
        }
    }
    assert!((5..=10).contains(&tries), "{tries} tries in 10 minutes");
}

#[test]
fn a_host_that_refuses_every_start_is_set_aside_and_the_others_take_the_demand_at_once() {
    let mut scenario = Scenario::new(serde_json::json!({"maxRunners": 20}));
    scenario.backends = vec![backend("rack", &[("bad", 20), ("good", 10)])];
    scenario.assigned(3);
    let mut tries = 0;
    for second in 0..600 {
        scenario.now = second;
        scenario.step();
        for name in scenario.names(|r| r.operation == Some(Operation::Starting) && r.host == "bad") {
            scenario.ledger.start_failed(&name, Reason::EngineError, "no space left", at(second));
            scenario.backend_host("rack", "bad").free_slots += 1;
            tries += 1;
        }
        scenario.up();
        assert!(second < 1 || scenario.plan().demand_status.met == Some(true), "the good host has it all");
    }
    assert!(tries <= 3, "{tries} tries on the bad host while the good one has room");
}

#[test]
fn a_host_that_failed_once_is_as_good_as_others_after_half_an_hour() {
    let mut scenario = Scenario::new(serde_json::json!({"maxRunners": 20}));
    scenario.backends = vec![backend("rack", &[("a", 10), ("b", 5)])];
    scenario.assigned(1);
    scenario.step();
    scenario.ledger.start_failed("linux-001", Reason::EngineError, "no", at(0));
    scenario.backend_host("rack", "a").free_slots += 1;
    let next = |scenario: &Scenario| match &scenario.plan().actions[..] {
        [.., Action::Start { host, .. }] => host.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(next(&scenario), "b");
    scenario.now = 1801;
    assert_eq!(next(&scenario), "a");
    let plan = scenario.step();
    assert_eq!(
        (starts(&plan), plan.demand_status.met),
        (1, Some(true)),
        "a start of now fails for no old reason"
    );
}

#[test]
fn a_runner_that_is_not_up_in_time_is_removed_and_counted() {
    let mut scenario = Scenario::new(serde_json::json!({"timeouts": {"start": "2m"}}));
    scenario.assigned(1);
    scenario.step();
    let starting = Instance {
        id: "id".to_owned(),
        runner: "linux-001".to_owned(),
        scale_set_uid: "uid".to_owned(),
        backend: "rack".to_owned(),
        host: "rack-1".to_owned(),
        template_hash: TEMPLATE.to_owned(),
        created_at: at(0),
        state: InstanceState::Starting,
    };
    scenario.ledger.start_succeeded(&starting, at(0));
    scenario.now = 119;
    assert!(removals(&scenario.step()).is_empty());
    scenario.now = 120;
    assert_eq!(removals(&scenario.step()), [("linux-001", Removal::StartTimeout)]);
}

#[test]
fn a_runner_that_is_up_is_no_failed_start_though_the_answer_does_not_come() {
    let mut scenario = Scenario::new(serde_json::json!({"minRunners": 2}));
    scenario.assigned(0);
    assert_eq!(starts(&scenario.step()), 2);
    scenario.show("linux-001", InstanceState::Running);
    for name in ["linux-001", "linux-002"] {
        scenario.ledger.start_given_up(name, "it was not up in time", at(60));
    }
    scenario.now = 60;
    assert_eq!(starts(&scenario.step()), 1, "for the one that nobody has seen");
    let failures: Vec<&str> = scenario.ledger.failures().recent().map(|f| f.runner.as_str()).collect();
    assert_eq!(failures, ["linux-002"]);
}

#[test]
fn runners_that_crash_before_a_job_are_replaced_ever_more_slowly() {
    let mut scenario = Scenario::new(serde_json::json!({"minRunners": 1}));
    scenario.assigned(0);
    let mut tries = 0;
    for second in 0..600 {
        scenario.now = second;
        tries += starts(&scenario.step());
        scenario.up();
        for name in scenario.names(|r| r.phase == Phase::Idle) {
            scenario.exits(&name, 1);
        }
    }
    assert!((5..=10).contains(&tries), "{tries} tries in 10 minutes");
}

#[test]
fn a_rejected_runner_version_stops_starts_until_the_template_changes() {
    let mut scenario = Scenario::new(serde_json::json!({}));
    scenario.assigned(1);
    scenario.step();
    scenario.up();
    scenario.exits("linux-001", 7);
    scenario.now = 10_000;
    let plan = scenario.step();
    assert_eq!((starts(&plan), plan.demand_status.explanation.reason), (0, Reason::RunnerVersionRejected));
    scenario.backends[0].template_hash = "t2".into();
    assert_eq!(starts(&scenario.step()), 1);
}
