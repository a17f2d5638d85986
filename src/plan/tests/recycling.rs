//! Idle runners that leave assigned jobs alone: they are recycled one at a time.

use super::*;
use crate::runner::{Phase, Statistics};

impl Scenario {
    /// So many jobs are assigned, their runners are up, and none of them takes one.
    fn deaf(runners: u32) -> Scenario {
        let mut scenario = Scenario::new(serde_json::json!({"maxRunners": 10, "scaleDown": {"delay": "1h"}}));
        scenario.assigned(runners);
        scenario.step();
        scenario.up();
        scenario.look();
        scenario
    }

    /// Looks at the scenario as it is now, with a fresh reading of as many jobs.
    fn look(&mut self) -> Plan {
        let assigned = self.ledger.demand().latest().map_or(0, |(statistics, _)| statistics.assigned);
        self.assigned(assigned);
        self.ledger.observe(&[], at(self.now));
        self.step()
    }

    fn look_at(&mut self, second: i64) -> Plan {
        self.now = second;
        self.look()
    }
}

#[test]
fn idle_runners_that_leave_jobs_alone_are_recycled_one_at_a_time() {
    let mut scenario = Scenario::deaf(3);
    for second in (30..360).step_by(30) {
        assert_eq!(removals(&scenario.look_at(second)), [], "after {second} s");
    }
    let plan = scenario.look_at(360);
    assert_eq!(removals(&plan), [("linux-001", Removal::NeverConnected)]);
    assert_eq!(
        (plan.demand_status.met, plan.demand_status.explanation.reason),
        (Some(false), Reason::PhantomDemand)
    );
    assert!(
        plan.demand_status.explanation.message.contains("recycled one at a time"),
        "{}",
        plan.demand_status.explanation.message
    );
    // Its removal is under way, then its replacement is started and has its chance.
    let plan = scenario.look_at(361);
    assert_eq!((removals(&plan), starts(&plan)), (vec![], 1));
    scenario.ledger.retire("linux-001", at(361));
    assert_eq!(removals(&scenario.look_at(362)), []);
    scenario.now = 363;
    scenario.up();
    for second in (390..720).step_by(30) {
        assert_eq!(removals(&scenario.look_at(second)), [], "after {second} s");
    }
    assert_eq!(removals(&scenario.look_at(720)), [("linux-002", Removal::NeverConnected)]);
}

#[test]
fn a_runner_that_has_been_idle_for_less_is_left_its_time() {
    let mut scenario = Scenario::deaf(1);
    scenario.now = 100;
    scenario.assigned(2);
    scenario.step();
    scenario.up();
    assert_eq!(removals(&scenario.look_at(360)), [("linux-001", Removal::NeverConnected)]);
    scenario.ledger.retire("linux-001", at(361));
    scenario.look_at(362);
    scenario.up();
    for second in (390..720).step_by(30) {
        assert_eq!(removals(&scenario.look_at(second)), [], "after {second} s");
    }
    assert_eq!(removals(&scenario.look_at(720)), [("linux-002", Removal::NeverConnected)]);
}

/// With a long queue there is always one that has just come up, and takes a job.
#[test]
fn runners_that_have_just_come_up_and_take_jobs_do_not_speak_for_those_that_do_not() {
    let mut scenario = Scenario::deaf(3);
    for second in (30..360).step_by(30) {
        scenario.look_at(second);
        let fresh = scenario.names(|r| r.phase == Phase::Idle).pop().unwrap();
        scenario.busy(&fresh, &fresh);
        scenario.completed(&fresh, &fresh);
        scenario.exits(&fresh, 0);
        scenario.look_at(second + 1);
        scenario.up();
        if second > 30 {
            assert_eq!(removals(&scenario.look_at(second + 2)), [], "after {second} s");
        }
    }
    assert_eq!(removals(&scenario.look_at(390)), [("linux-001", Removal::NeverConnected)]);
}

#[test]
fn a_job_that_is_taken_ends_the_suspicion() {
    let mut scenario = Scenario::deaf(3);
    scenario.look_at(359);
    scenario.busy("linux-002", "a");
    assert_eq!(removals(&scenario.look_at(360)), []);
    assert_eq!(removals(&scenario.look_at(600)), []);
}

/// GitHub takes a job back after five minutes and assigns it again a moment later.
#[test]
fn a_job_that_github_assigns_again_does_not_end_the_suspicion() {
    let mut scenario = Scenario::deaf(1);
    scenario.look_at(300);
    scenario.assigned(0);
    scenario.look_at(302);
    scenario.assigned(1);
    scenario.look_at(305);
    assert_eq!(removals(&scenario.look_at(360)), [("linux-001", Removal::NeverConnected)]);

    let mut scenario = Scenario::deaf(1);
    scenario.assigned(0);
    scenario.look_at(10);
    scenario.look_at(70);
    scenario.assigned(1);
    assert_eq!(removals(&scenario.look_at(360)), [], "for a minute no job waited");
}

#[test]
fn nobody_is_recycled_once_no_job_waits() {
    let mut scenario = Scenario::deaf(1);
    scenario.look_at(350);
    scenario.assigned(0);
    scenario.look_at(351);
    let plan = scenario.look_at(370);
    assert_eq!((removals(&plan), plan.demand_status.met), (vec![], Some(true)));
}

#[test]
fn what_github_said_long_ago_makes_no_runner_suspect() {
    let mut scenario = Scenario::deaf(1);
    scenario.now = 361;
    scenario.ledger.observe(&[], at(361));
    assert_eq!(removals(&scenario.step()), []);
}

#[test]
fn a_runner_that_is_recycled_and_has_a_job_stays() {
    let mut scenario = Scenario::deaf(1);
    scenario.look_at(359);
    assert_eq!(removals(&scenario.look_at(360)), [("linux-001", Removal::NeverConnected)]);
    scenario.ledger.found_busy("linux-001", at(361));
    assert_eq!(removals(&scenario.look_at(1000)), []);
    assert_eq!(scenario.names(|r| r.phase == Phase::Busy), ["linux-001"]);
}

#[test]
fn the_replacement_is_started_on_another_host_where_there_is_one() {
    let mut scenario = Scenario::new(serde_json::json!({"maxRunners": 10}));
    scenario.backends = vec![super::tests::backend("rack", &[("deaf", 20), ("well", 5)])];
    scenario.assigned(1);
    scenario.step();
    scenario.up();
    scenario.look_at(0);
    scenario.look_at(359);
    assert_eq!(removals(&scenario.look_at(360)), [("linux-001", Removal::NeverConnected)]);
    scenario.ledger.never_connected("linux-001", at(361));
    let failure = scenario.ledger.failures().recent().next().unwrap().clone();
    assert_eq!((failure.reason, failure.host.as_str()), (Reason::NeverConnected, "deaf"));
    let plan = scenario.look_at(361);
    assert!(
        plan.actions.contains(&Action::Start { backend: "rack".into(), host: "well".into() }),
        "{plan:?}"
    );
}

/// GitHub counts the job of a runner that has died as running for ten minutes.
#[test]
fn a_job_whose_runner_has_died_hides_no_runner_that_leaves_jobs_alone() {
    let mut scenario = Scenario::deaf(2);
    scenario.busy("linux-001", "job");
    scenario.exits("linux-001", 137);
    for second in (30..=420).step_by(30) {
        scenario.now = second;
        let counted = Statistics { assigned: 2, running: 1, ..Statistics::default() };
        scenario.ledger.count(counted, at(second));
        let plan = scenario.step();
        if !removals(&plan).is_empty() {
            assert_eq!((second, removals(&plan)), (360, vec![("linux-002", Removal::NeverConnected)]));
            return;
        }
        scenario.ledger.observe(&[], at(second));
    }
    panic!("nobody is recycled");
}
