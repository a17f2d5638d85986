//! What an earlier controller left: runners that a status names, and what they did meanwhile.

use super::*;

/// A status from just before a crash: the job on it was over, GitHub had been told so and had told it.
#[test]
fn a_job_that_only_a_status_remembers_is_not_taken_off_the_demand() {
    let mut scenario = Scenario::new(serde_json::json!({}));
    scenario.ledger.restore([remembered("linux-gone", "1"), remembered("linux-ended", "2")], at(0));
    scenario.assigned(2);
    scenario.show(
        "linux-ended",
        InstanceState::Exited(Exit { code: Some(0), out_of_memory: false, at: at(0), ..Exit::default() }),
    );
    for second in [1, 2] {
        let (backend, host) = ("rack".to_owned(), "rack-1".to_owned());
        let listing = Observation {
            backend,
            host,
            listed_at: Some(at(second)),
            hides: Duration::ZERO,
            instances: Vec::new(),
        };
        scenario.ledger.observe(&[listing], at(second));
    }
    scenario.now = 15;
    scenario.ledger.observe(&[], at(scenario.now));
    let starts = scenario.step().actions.iter().filter(|a| matches!(a, Action::Start { .. })).count();
    assert_eq!(starts, 2, "GitHub's two jobs are others");
    assert_eq!(scenario.ledger.failures().recent().count(), 0, "no job was lost");
}

/// As when `hosts[].name` or `backends[].name` is edited, or a host is moved to another backend.
#[test]
fn a_runner_is_removed_where_its_backend_shows_it() {
    let mut scenario = Scenario::new(serde_json::json!({"minRunners": 1}));
    scenario.assigned(0);
    scenario.step();
    scenario.up();
    let instances = vec![Instance {
        id: "id-linux-001".to_owned(),
        runner: "linux-001".to_owned(),
        scale_set_uid: "uid".to_owned(),
        backend: "shelf".to_owned(),
        host: "shelf-1".to_owned(),
        template_hash: TEMPLATE.to_owned(),
        created_at: at(0),
        state: InstanceState::Running,
    }];
    let (backend, host) = ("shelf".to_owned(), "shelf-1".to_owned());
    scenario.ledger.observe(
        &[Observation { backend, host, listed_at: Some(at(1)), hides: Duration::ZERO, instances }],
        at(1),
    );
    let runner = scenario.ledger.runner("linux-001").unwrap();
    assert_eq!((runner.backend.as_str(), runner.host.as_str()), ("shelf", "shelf-1"));
}

/// Its time with the earlier controller counts too.
#[test]
fn a_spare_of_an_earlier_controller_that_github_drops_is_no_failure() {
    let mut scenario = Scenario::new(serde_json::json!({"minRunners": 1}));
    scenario.assigned(0);
    scenario.step();
    let adopted = Instance {
        id: "id-linux-old".to_owned(),
        runner: "linux-old".to_owned(),
        scale_set_uid: "uid".to_owned(),
        backend: "rack".to_owned(),
        host: "rack-1".to_owned(),
        template_hash: TEMPLATE.to_owned(),
        created_at: at(-300),
        state: InstanceState::Running,
    };
    let (backend, host) = ("rack".to_owned(), "rack-1".to_owned());
    scenario.ledger.observe(
        &[Observation {
            backend,
            host,
            listed_at: Some(at(0)),
            hides: Duration::ZERO,
            instances: vec![adopted],
        }],
        at(0),
    );
    scenario.now = 5;
    scenario.exits("linux-old", 0);
    scenario.now = 400;
    scenario.ledger.observe(&[], at(scenario.now));
    assert_eq!(scenario.ledger.failures().noted(), 0);
}

#[test]
fn a_restart_gives_a_job_no_more_time_than_it_takes_to_look() {
    let mut scenario = Scenario::new(serde_json::json!({"timeouts": {"job": "1h"}}));
    scenario.now = 7200;
    let remembered = |name: &str, since| PersistedRunner {
        name: name.to_owned(),
        backend: "rack".to_owned(),
        host: "rack-1".to_owned(),
        instance_id: Some(name.to_owned()),
        phase: Phase::Busy,
        since: at(since),
        job: None,
    };
    scenario.ledger.restore([remembered("linux-over", 0), remembered("linux-half", 5400)], at(scenario.now));
    assert!(removals(&scenario.step()).is_empty());
    scenario.wait(119);
    assert!(removals(&scenario.step()).is_empty());
    scenario.wait(1);
    assert_eq!(removals(&scenario.step()), [("linux-over", Removal::JobTimeout)]);
    scenario.wait(1800 - 120);
    assert_eq!(removals(&scenario.step()), [("linux-half", Removal::JobTimeout)]);
}

/// An earlier controller acknowledged the message that it started, and did not write it down.
#[test]
fn a_job_that_runs_on_a_runner_that_is_taken_for_idle_is_no_phantom() {
    let mut scenario = Scenario::new(serde_json::json!({}));
    scenario.assigned(1);
    scenario.step();
    scenario.up();
    let counted =
        |running| Statistics { assigned: 1, running, registered_runners: 1, ..Statistics::default() };
    for (running, reason) in [(1, "AsExpected"), (0, "PhantomDemand")] {
        for minute in 0..7 {
            scenario.now += minute * 60;
            scenario.ledger.count(counted(running), at(scenario.now));
            scenario.ledger.observe(&[], at(scenario.now));
        }
        assert_eq!(scenario.step().demand_status.reason, reason, "{running} run");
    }
}

#[test]
fn a_busy_runner_whose_job_github_does_not_count_any_more_costs_no_spare() {
    let mut scenario = Scenario::new(serde_json::json!({"minRunners": 1}));
    scenario.ledger.restore([remembered("linux-old", "1")], at(0));
    scenario.assigned(0);
    assert_eq!(starts(&scenario.step()), 1);
    scenario.up();
    assert!(scenario.step().surplus.is_empty());
}

#[test]
fn what_an_earlier_controller_s_runner_did_before_it_was_found_ended_is_no_failure() {
    let mut scenario = Scenario::new(serde_json::json!({}));
    let idle = PersistedRunner { phase: Phase::Idle, job: None, ..remembered("linux-old", "1") };
    scenario.ledger.restore([idle], at(0));
    scenario.show(
        "linux-old",
        InstanceState::Exited(Exit { code: Some(0), out_of_memory: false, at: at(0), ..Exit::default() }),
    );
    scenario.now = 11;
    scenario.ledger.observe(&[], at(scenario.now));
    assert_eq!(scenario.ledger.failures().recent().count(), 0);
}
