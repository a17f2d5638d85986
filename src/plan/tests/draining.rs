//! Runners that are on their way out and still take a slot, and what is not known to be gone.

use super::*;
use crate::runner::HostCount;

/// An engine that hangs: GitHub let go of the runner, and its instance could not be removed.
#[test]
fn a_runner_without_a_registration_is_replaced_and_its_removal_tried_until_it_is_gone() {
    let mut scenario = Scenario::new(serde_json::json!({"minRunners": 1, "maxRunners": 2}));
    scenario.assigned(0);
    scenario.step();
    scenario.up();
    scenario.ledger.begin_removal("linux-001");
    scenario.ledger.deregistered("linux-001");
    scenario.ledger.removal_failed("linux-001", at(10));
    assert_eq!(starts(&scenario.step()), 1, "it is no spare any more");
    assert_eq!(starts(&scenario.step()), 0, "it takes its slot still");
    for second in [10, 20, 30] {
        scenario.now = second;
        assert_eq!(removals(&scenario.step()), [("linux-001", Removal::Unregistered)]);
        assert_eq!(removals(&scenario.step()), [], "one try at a time");
        scenario.ledger.removal_failed("linux-001", at(second + 10));
        assert_eq!(scenario.plan().requeue_at, Some(at(second + 10)));
    }
}

/// A Mac that has not answered for minutes: whatever is idle there takes no job that is counted on it.
#[test]
fn idle_runners_of_a_lost_host_are_replaced_elsewhere_and_busy_ones_are_not() {
    let mut scenario = Scenario::at_work(serde_json::json!({"minRunners": 1, "maxRunners": 2}));
    scenario.assigned(1);
    let lost = |scenario: &Scenario| -> Vec<(String, String)> {
        scenario.ledger.runners().map(|r| (r.backend.clone(), r.host.clone())).collect()
    };
    let everywhere = lost(&scenario);
    scenario.ledger.mark_lost(&everywhere, at(2));
    assert_eq!(removals(&scenario.step()), [("linux-002", Removal::HostLost)], "the busy one stays");
    scenario.ledger.deregistered("linux-002");
    scenario.ledger.removal_failed("linux-002", at(10));
    scenario.ledger.mark_lost(&everywhere, at(3));
    assert!(scenario.ledger.runner("linux-002").is_none(), "it takes no slot of the set's");
    assert_eq!(starts(&scenario.step()), 1, "another takes its place");
    scenario.ledger.mark_lost(&[], at(4));
    assert!(scenario.ledger.runners().all(|runner| !runner.leaving.host_lost));
}

/// A controller that begins after one that had 5 runners on a host, and named 2 of them.
fn after_a_restart(spec: serde_json::Value) -> Scenario {
    let mut scenario = Scenario::new(spec);
    let named = ["linux-a", "linux-b"].map(|name| remembered(name, name));
    scenario.ledger.restore(named, at(0));
    let (backend, host) = ("rack".to_owned(), "rack-1".to_owned());
    scenario.ledger.restore_counts([HostCount { backend, host, runners: 5 }]);
    scenario.backends = vec![super::backend("rack", &[("rack-1", 0), ("rack-2", 20)])];
    scenario
}

fn listing(host: &str, listed_at: Option<i64>) -> Observation {
    let (backend, host, listed_at) = ("rack".to_owned(), host.to_owned(), listed_at.map(at));
    Observation { backend, host, listed_at, hides: Duration::ZERO, instances: Vec::new() }
}

#[test]
fn a_host_that_was_not_listed_yet_has_as_many_runners_as_status_said() {
    for (spec, may_start) in [
        (serde_json::json!({"maxRunners": 6}), 1),
        (serde_json::json!({"maxRunners": 20}), 3),
        (
            serde_json::json!({"maxRunners": 20, "backends": [{"name": "rack", "maxRunners": 7, "docker": {}}]}),
            2,
        ),
    ] {
        let mut scenario = after_a_restart(spec.clone());
        scenario.backends[0].max_runners = spec["backends"][0]["maxRunners"].as_u64().map(|max| max as u32);
        scenario.assigned(8);
        scenario.ledger.observe(&[listing("rack-1", None), listing("rack-2", Some(1))], at(1));
        assert_eq!(starts(&scenario.step()), may_start, "{spec}");
    }
}

#[test]
fn what_status_counted_on_a_host_is_forgotten_when_the_host_is_listed() {
    let mut scenario = after_a_restart(serde_json::json!({"maxRunners": 6}));
    scenario.assigned(8);
    scenario.ledger.observe(&[listing("rack-1", Some(1)), listing("rack-2", None)], at(1));
    assert_eq!(starts(&scenario.step()), 4, "two are named, and not gone before the second look");
}

/// A host is taken out of the spec, with one busy runner on it and one idle.
#[test]
fn on_a_host_that_the_spec_left_out_idle_runners_go_at_once_and_busy_ones_finish_and_count() {
    let mut scenario = Scenario::at_work(serde_json::json!({"minRunners": 1, "maxRunners": 3}));
    scenario.ledger.mark_draining(|backend, host| (backend, host) == ("rack", "rack-1"));
    scenario.backends = vec![super::backend("shelf", &[("shelf-1", 20)])];
    let plan = scenario.step();
    assert_eq!(removals(&plan), [("linux-002", Removal::HostRemoved)]);
    assert_eq!(starts(&plan), 0, "the idle one serves until GitHub lets go of it");
    assert_eq!(starts(&scenario.step()), 1, "two take their slots still, and three may be there");
    scenario.ledger.retire("linux-002", at(0));
    scenario.ledger.mark_draining(|backend, host| (backend, host) == ("rack", "rack-1"));
    scenario.assigned(3);
    assert_eq!(starts(&scenario.step()), 1, "the busy one counts");
    assert_eq!(removals(&scenario.step()), []);
    scenario.completed("linux-001", "job");
    scenario.exits("linux-001", 0);
    assert!(scenario.step().actions.contains(&Action::Collect { runner: "linux-001".into() }));
    assert_eq!(scenario.ledger.failures().noted(), 0, "no job was lost");
}

/// GitHub refuses to let go of it: a job has just come to it.
#[test]
fn on_a_host_that_the_spec_left_out_a_runner_that_github_says_is_busy_stays() {
    let mut scenario = Scenario::new(serde_json::json!({"minRunners": 1}));
    scenario.assigned(0);
    scenario.step();
    scenario.up();
    scenario.ledger.mark_draining(|_, _| true);
    assert_eq!(removals(&scenario.step()), [("linux-001", Removal::HostRemoved)]);
    scenario.ledger.found_busy("linux-001", at(0));
    scenario.now = 60;
    assert_eq!(removals(&scenario.step()), []);
}
