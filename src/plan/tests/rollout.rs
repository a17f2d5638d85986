//! Idle runners of an old template.

use super::*;

#[test]
fn a_changed_template_replaces_idle_runners_within_the_budget() {
    let mut scenario = Scenario::new(serde_json::json!({"minRunners": 4, "maxRunners": 10}));
    scenario.assigned(0);
    scenario.step();
    scenario.up();
    scenario.backends[0].template_hash = "t2".into();
    for _ in 0..40 {
        let ready = |scenario: &Scenario| scenario.names(|r| r.serves()).len();
        scenario.step();
        assert!(ready(&scenario) >= 3, "never fewer than 3 idle or starting");
        scenario.up();
        for name in scenario.names(|r| r.operation == Some(Operation::Removing)) {
            scenario.ledger.retire(&name, at(scenario.now));
        }
        scenario.now += 1;
    }
    assert_eq!(scenario.names(|r| r.template_hash == "t2").len(), 4);
    assert_eq!(scenario.names(|r| r.template_hash == TEMPLATE).len(), 0);
}

#[test]
fn a_changed_template_is_rolled_out_at_the_ceiling_too() {
    let mut scenario = Scenario::new(serde_json::json!({"minRunners": 4, "maxRunners": 4}));
    scenario.assigned(0);
    scenario.step();
    scenario.up();
    scenario.backends[0].template_hash = "t2".into();
    for _ in 0..40 {
        scenario.step();
        assert!(scenario.names(|r| r.serves()).len() >= 3);
        assert!(scenario.names(|r| r.occupies()).len() <= 4);
        scenario.up();
        for name in scenario.names(|r| r.operation == Some(Operation::Removing)) {
            scenario.ledger.retire(&name, at(scenario.now));
        }
        scenario.now += 1;
    }
    assert_eq!(scenario.names(|r| r.template_hash == "t2").len(), 4);
}

#[test]
fn removals_under_way_are_part_of_the_budget() {
    for (budget, slots, most) in [
        (serde_json::json!(1), 16, 1),
        (serde_json::json!(2), 16, 2),
        (serde_json::json!("25%"), 16, 1),
        (serde_json::json!("50%"), 0, 2),
        (serde_json::json!(1), 0, 1),
        (serde_json::json!(2), 0, 2),
    ] {
        let max = if slots == 0 { 10 } else { 4 };
        let spec = serde_json::json!({"maxUnavailable": budget});
        let mut scenario =
            Scenario::new(serde_json::json!({"minRunners": 4, "maxRunners": max, "disruption": spec}));
        scenario.assigned(0);
        scenario.step();
        scenario.up();
        scenario.backends[0].hosts[0].free_slots = slots;
        scenario.backends[0].template_hash = "t2".into();
        let going = |scenario: &Scenario| scenario.names(|r| r.operation == Some(Operation::Removing)).len();
        for wake in 0..4 {
            scenario.now += 1;
            scenario.step();
            assert_eq!(going(&scenario), most, "maxUnavailable {budget}, {slots} slots, wake {wake}");
        }
        let gone = scenario.names(|r| r.operation == Some(Operation::Removing))[0].clone();
        scenario.ledger.retire(&gone, at(scenario.now));
        scenario.backend_host("rack", "rack-1").free_slots += 1;
        assert_eq!(starts(&scenario.step()), 1, "its place is taken");
        assert_eq!(going(&scenario), most - 1, "and is waited for");
    }
}
