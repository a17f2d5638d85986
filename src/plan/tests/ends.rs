//! Runners that end, and what their end means.

use super::*;

#[test]
fn an_exit_that_comes_before_its_message_starts_no_spare() {
    let mut scenario = Scenario::at_work(serde_json::json!({}));
    scenario.exits("linux-001", 0);
    assert_eq!(starts(&scenario.step()), 0, "GitHub still counts the job");
    scenario.completed("linux-001", "job");
    scenario.assigned(0);
    assert_eq!(starts(&scenario.step()), 0);
}

#[test]
fn a_job_over_before_it_was_heard_of_is_no_failure() {
    let mut scenario = Scenario::new(serde_json::json!({}));
    scenario.assigned(1);
    scenario.step();
    scenario.up();
    scenario.exits("linux-001", 0);
    assert_eq!(starts(&scenario.step()), 0);
    scenario.busy("linux-001", "job");
    scenario.completed("linux-001", "job");
    scenario.assigned(0);
    scenario.now = 30;
    scenario.ledger.observe(&[], at(scenario.now));
    assert_eq!((starts(&scenario.step()), scenario.ledger.failures().noted()), (0, 0));
}

#[test]
fn a_clean_exit_without_a_job_is_a_failure_once_no_message_explains_it() {
    // When GitHub is heard of, and when messages are given up then.
    for (answers, settled) in [(&[5, 12, 15][..], 22), (&[290], 300), (&[], 300)] {
        let mut scenario = Scenario::new(serde_json::json!({"minRunners": 1}));
        scenario.assigned(1);
        scenario.step();
        scenario.up();
        scenario.exits("linux-001", 0);
        for second in 1..=settled {
            assert_eq!(last_failure(&scenario), None, "second {second}, heard of at {answers:?}");
            scenario.now = second;
            if answers.contains(&second) {
                scenario.ledger.answered(at(second));
            }
            scenario.ledger.observe(&[], at(second));
        }
        assert_eq!(last_failure(&scenario), Some(Reason::EndedWithoutJob));
    }
}

#[test]
fn a_clean_exit_that_left_its_registration_behind_is_a_failure_at_once() {
    let mut scenario = Scenario::new(serde_json::json!({}));
    scenario.assigned(1);
    scenario.step();
    scenario.up();
    scenario.ledger.was_registered("linux-001", at(0));
    assert_eq!(last_failure(&scenario), None, "it has not ended");
    scenario.exits("linux-001", 0);
    scenario.ledger.was_registered("linux-001", at(10));
    assert_eq!(last_failure(&scenario), Some(Reason::EndedWithoutJob));
}

#[test]
fn a_job_that_is_heard_of_after_its_runner_is_gone_ends_the_row_of_failures() {
    for started in [true, false] {
        let mut scenario = Scenario::new(serde_json::json!({"minRunners": 1}));
        scenario.assigned(0);
        scenario.step();
        scenario.up();
        scenario.exits("linux-001", 0);
        scenario.step();
        assert!(scenario.ledger.runner("linux-001").is_none(), "it is collected");
        scenario.now = 300;
        scenario.ledger.observe(&[], at(scenario.now));
        assert!(scenario.ledger.failures().on_host("rack", "rack-1", at(scenario.now)).is_some());
        if started {
            scenario.busy("linux-001", "job");
        } else {
            scenario.completed("linux-001", "job");
        }
        assert_eq!(scenario.ledger.failures().on_host("rack", "rack-1", at(scenario.now)), None);
    }
}

/// As Docker shows what a power cut (255), a crash (139, 134) or it does not know what (none) ended.
#[test]
fn a_busy_runner_that_does_not_end_cleanly_has_lost_its_job() {
    for code in [Some(255), Some(139), Some(134), Some(1), Some(7), Some(137), None] {
        let mut scenario = Scenario::at_work(serde_json::json!({}));
        let exit = Exit { code, out_of_memory: false, at: at(0), ..Exit::default() };
        scenario.show("linux-001", InstanceState::Exited(exit));
        assert_eq!(last_failure(&scenario), Some(Reason::JobLost), "{code:?}");
        for second in [11, 600] {
            scenario.now = second;
            scenario.ledger.observe(&[], at(scenario.now));
            assert_eq!(
                starts(&scenario.step()),
                0,
                "{code:?}: GitHub counts the job, and no runner can have it"
            );
        }
        let rejected = scenario.ledger.failures().rejected_template();
        assert_eq!(rejected.is_some(), code == Some(7), "the runner's version is refused");
    }
}

#[test]
fn a_job_that_is_heard_of_after_its_runner_was_killed_is_lost_too() {
    let mut scenario = Scenario::new(serde_json::json!({}));
    scenario.assigned(1);
    scenario.step();
    scenario.up();
    scenario.exits("linux-001", 137);
    assert_eq!(last_failure(&scenario), Some(Reason::Killed));
    scenario.busy("linux-001", "job");
    assert_eq!(last_failure(&scenario), Some(Reason::JobLost));
    assert_eq!(starts(&scenario.step()), 0, "GitHub counts the job, and no runner can have it");
    scenario.completed("linux-001", "job");
    scenario.assigned(0);
    assert_eq!(scenario.ledger.demand().assigned(), Some(0));
}

#[test]
fn a_spare_that_is_killed_is_replaced_at_once() {
    let mut scenario = Scenario::new(serde_json::json!({"minRunners": 2}));
    scenario.assigned(0);
    scenario.step();
    scenario.up();
    for round in 0..5 {
        let victim = scenario.names(|r| r.phase == Phase::Idle)[0].clone();
        scenario.exits(&victim, 137);
        assert_eq!(starts(&scenario.step()), 1, "round {round}");
        scenario.up();
    }
}

/// GitHub has been seen to remove idle runners after minutes; the runner's process then ends with 0.
#[test]
fn spares_that_github_drops_after_minutes_hold_no_burst_back() {
    let mut scenario = Scenario::new(serde_json::json!({"minRunners": 2, "maxRunners": 10}));
    scenario.assigned(0);
    for round in 0..4 {
        scenario.step();
        scenario.up();
        scenario.now += 150;
        for name in scenario.names(|r| r.phase == Phase::Idle) {
            scenario.exits(&name, 0);
        }
        scenario.step();
        scenario.up();
        scenario.ledger.answered(at(scenario.now + 10));
        scenario.now += 25;
        scenario.ledger.observe(&[], at(scenario.now));
        assert_eq!(
            scenario.ledger.failures().on_host("rack", "rack-1", at(scenario.now)),
            None,
            "round {round}"
        );
    }
    assert_eq!(scenario.ledger.failures().noted(), 0, "nothing has failed");
    scenario.assigned(5);
    let plan = scenario.step();
    assert_eq!(
        (starts(&plan), plan.demand_status.met),
        (5, Some(true)),
        "{}",
        plan.demand_status.explanation.message
    );
}

/// What ended had none of the jobs that came after it.
#[test]
fn jobs_that_come_just_after_spares_were_dropped_have_a_runner_each_and_spares_beside() {
    let mut scenario = Scenario::new(serde_json::json!({"minRunners": 2, "maxRunners": 10}));
    scenario.assigned(0);
    scenario.step();
    scenario.up();
    scenario.now = 150;
    scenario.exits("linux-001", 0);
    scenario.exits("linux-002", 0);
    scenario.assigned(5);
    assert_eq!(starts(&scenario.step()), 7);
}

#[test]
fn only_what_ends_within_a_minute_of_its_start_holds_its_host_back() {
    for (code, lived, held_back, told) in
        [(0, 59, true, true), (0, 61, false, false), (1, 59, true, true), (1, 61, false, true)]
    {
        let mut scenario = Scenario::new(serde_json::json!({"minRunners": 1}));
        scenario.assigned(0);
        scenario.step();
        scenario.now = 100;
        scenario.up();
        scenario.now += lived;
        scenario.exits("linux-001", code);
        scenario.now += 300;
        scenario.ledger.observe(&[], at(scenario.now));
        let failures = scenario.ledger.failures();
        let streak = failures.on_host("rack", "rack-1", at(scenario.now));
        assert_eq!(streak.is_some(), held_back, "exit code {code} after {lived} s");
        assert_eq!(failures.noted() > 0, told, "exit code {code} after {lived} s");
    }
}

/// An engine that was killed while it started a container shows it as made and not started for ever, although its runner
/// ran, had a job and is gone.
#[test]
fn a_runner_that_is_shown_again_after_its_job_was_over_goes() {
    for state in [InstanceState::Starting, InstanceState::Running] {
        let mut scenario = Scenario::new(serde_json::json!({}));
        scenario.assigned(1);
        assert_eq!(starts(&scenario.step()), 1);
        scenario.ledger.start_failed("linux-001", Reason::HostUnreachable, "no answer", at(1));
        scenario.busy("linux-001", "job");
        scenario.completed("linux-001", "job");
        scenario.assigned(0);
        scenario.now = 20;
        scenario.show("linux-001", state.clone());
        let runner = scenario.ledger.runner("linux-001").unwrap();
        let over = (runner.phase, runner.work.over_at);
        assert_eq!(over, (Phase::Busy, Some(at(20))), "{state:?}");
        if state == InstanceState::Starting {
            scenario.show("linux-001", InstanceState::NeverStarted);
            assert_eq!(
                removals(&scenario.step()),
                [("linux-001", Removal::LingeringAfterJob)],
                "its end is never seen"
            );
        } else {
            scenario.now = 319;
            assert!(removals(&scenario.step()).is_empty());
            scenario.now = 320;
            assert_eq!(removals(&scenario.step()), [("linux-001", Removal::LingeringAfterJob)]);
        }
    }
}

#[test]
fn a_runner_that_is_still_there_long_after_its_job_is_asked_for() {
    let mut scenario = Scenario::at_work(serde_json::json!({}));
    scenario.completed("linux-001", "job");
    scenario.assigned(0);
    scenario.now = 299;
    assert!(removals(&scenario.step()).is_empty());
    scenario.now = 300;
    assert_eq!(removals(&scenario.step()), [("linux-001", Removal::LingeringAfterJob)]);
    assert!(!Removal::LingeringAfterJob.forced(), "GitHub may say that the job runs on");
    scenario.ledger.found_busy("linux-001", at(300));
    scenario.now = 599;
    assert!(removals(&scenario.step()).is_empty());
    scenario.now = 600;
    assert_eq!(
        removals(&scenario.step()),
        [("linux-001", Removal::LingeringAfterJob)],
        "GitHub is asked again"
    );
}

#[test]
fn a_runner_whose_job_runs_on_after_github_said_that_it_was_over_costs_no_spare() {
    let mut scenario = Scenario::at_work(serde_json::json!({"minRunners": 1}));
    scenario.completed("linux-001", "job");
    scenario.assigned(0);
    scenario.ledger.found_busy("linux-001", at(300));
    scenario.now = 301;
    assert!(scenario.step().surplus.is_empty());
}

#[test]
fn a_runner_that_two_listings_do_not_show_is_gone_and_frees_its_slot() {
    let mut scenario = Scenario::new(serde_json::json!({"minRunners": 1}));
    scenario.assigned(0);
    scenario.step();
    scenario.up();
    let list = |scenario: &mut Scenario, listed_at: Option<i64>| {
        let observation = Observation {
            hides: Duration::ZERO,
            backend: "rack".to_owned(),
            host: "rack-1".to_owned(),
            listed_at: listed_at.map(at),
            instances: Vec::new(),
        };
        scenario.ledger.observe(&[observation], at(scenario.now));
        starts(&scenario.plan())
    };
    assert_eq!(list(&mut scenario, None), 0, "a listing that failed says nothing");
    assert_eq!(list(&mut scenario, Some(10)), 0, "one look is not enough");
    assert_eq!(list(&mut scenario, Some(10)), 0, "the same look again is no second one");
    assert_eq!(list(&mut scenario, Some(40)), 1);
    assert_eq!(last_failure(&scenario), Some(Reason::Vanished));
    let plan = scenario.step();
    assert!(
        plan.actions.contains(&Action::Collect { runner: "linux-001".into() }),
        "its registration goes too"
    );
}
