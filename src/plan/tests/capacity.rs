//! How many jobs GitHub is told the set can have in hand: what there is, and what can be started within two minutes.

use super::*;
use crate::runner::{Availability, Observation};

/// A set of up to 10 runners of which one is busy, and nothing else is there.
fn with_one_busy() -> Scenario {
    Scenario::at_work(serde_json::json!({"maxRunners": 10}))
}

/// When the next look is due, in seconds.
fn requeues_at(plan: &Plan) -> Option<i64> {
    plan.requeue_at.map(|at| at.as_second() - super::tests::at(0).as_second())
}

#[test]
fn a_set_that_can_start_none_asks_for_no_job_beyond_those_it_has() {
    type Change = fn(&mut Scenario);
    let host = |w: &mut Scenario, availability| w.backends[0].hosts[0].availability = availability;
    let cases: [(&str, Change); 7] = [
        ("the start gate is closed", |w| {
            w.start_gate = StartGate::Closed(Explanation::new(Reason::SecretMissing, "no"))
        }),
        ("the runner's version is rejected", |w| w.ledger.failures_mut().reject("t1")),
        ("the host refuses", |w| w.backends[0].hosts[0].availability = Availability::Refused),
        ("the host is away", |w| w.backends[0].hosts[0].availability = Availability::Unreachable),
        ("the host is left alone for long", |w| {
            let until = at(121);
            w.backends[0].hosts[0].availability =
                Availability::BackOff { until, reason: Reason::EngineError };
        }),
        ("the image is being pulled for long", |w| {
            w.now = 120;
            w.backends[0].hosts[0].availability = Availability::Preparing { since: at(0) };
        }),
        ("GitHub registers none for long", |w| w.minting_fails_until_held_back_for(121)),
    ];
    for (why, change) in cases {
        let mut scenario = with_one_busy();
        assert_eq!(scenario.plan().capacity, 10, "all is well");
        change(&mut scenario);
        assert_eq!(scenario.plan().capacity, 1, "{why}");
    }
    let mut scenario = with_one_busy();
    host(&mut scenario, Availability::Refused);
    scenario.backends.push(backend("cloud", &[("c", 3)]));
    assert_eq!(scenario.plan().capacity, 4, "another backend has places");
}

#[test]
fn what_can_be_started_within_two_minutes_is_asked_for_and_no_longer() {
    let mut scenario = with_one_busy();
    let preparing = Availability::Preparing { since: at(0) };
    scenario.backends[0].hosts[0].availability = preparing;
    assert_eq!((scenario.plan().capacity, requeues_at(&scenario.plan())), (10, Some(120)));
    scenario.now = 119;
    assert_eq!(scenario.plan().capacity, 10);

    let mut scenario = with_one_busy();
    scenario.backends[0].hosts[0].availability =
        Availability::BackOff { until: at(300), reason: Reason::EngineError };
    assert_eq!((scenario.plan().capacity, requeues_at(&scenario.plan())), (1, Some(180)));
    scenario.now = 180;
    assert_eq!((scenario.plan().capacity, requeues_at(&scenario.plan())), (10, Some(300)));

    let mut scenario = with_one_busy();
    scenario.minting_fails_until_held_back_for(200);
    let held_back_until = scenario.ledger.failures().at_github(at(scenario.now)).unwrap().retry_at.unwrap();
    assert_eq!(scenario.plan().capacity, 1);
    scenario.now = held_back_until.as_second() - at(0).as_second() - 120;
    assert_eq!(scenario.plan().capacity, 10);

    let mut scenario = with_one_busy();
    scenario.backends[0].hosts[0].availability = Availability::Unprepared;
    assert_eq!(scenario.plan().capacity, 10);
}

/// GitHub does not count a job that is over, and the runner that had it takes no other.
#[test]
fn a_slot_that_is_being_freed_is_asked_for_for_two_minutes() {
    let mut scenario = Scenario::at_work(serde_json::json!({"maxRunners": 1}));
    assert_eq!(scenario.plan().capacity, 1);
    scenario.completed("linux-001", "job");
    scenario.assigned(0);
    for (second, capacity) in [(0, 1), (119, 1), (120, 0)] {
        scenario.now = second;
        scenario.ledger.observe(&[], at(second));
        assert_eq!(scenario.plan().capacity, capacity, "after {second} s");
    }
    scenario.exits("linux-001", 0);
    assert_eq!(scenario.plan().capacity, 1, "it is free");

    let mut scenario = Scenario::at_work(serde_json::json!({"maxRunners": 1}));
    scenario.completed("linux-001", "job");
    scenario.assigned(0);
    scenario.backends[0].hosts[0].availability = Availability::Refused;
    assert_eq!(scenario.plan().capacity, 0, "nothing can be started in its place");
}

#[test]
fn a_runner_that_is_being_removed_for_long_is_no_capacity() {
    let mut scenario = Scenario::new(serde_json::json!({"minRunners": 2, "maxRunners": 2}));
    scenario.assigned(0);
    scenario.step();
    scenario.up();
    scenario.ledger.begin_removal("linux-001");
    for (second, capacity) in [(0, 2), (119, 2), (120, 1)] {
        scenario.now = second;
        scenario.ledger.observe(&[], at(second));
        assert_eq!(scenario.plan().capacity, capacity, "after {second} s");
    }
    scenario.ledger.retire("linux-001", at(scenario.now));
    assert_eq!(scenario.plan().capacity, 2);
}

#[test]
fn busy_runners_whose_jobs_github_does_not_count_are_no_capacity() {
    let mut scenario = Scenario::at_work(serde_json::json!({"maxRunners": 1}));
    scenario.assigned(0);
    assert_eq!(scenario.plan().capacity, 0);
}

/// Nobody's job is assigned, and still it is to be said why those that are offered are left.
#[test]
fn offered_jobs_that_are_left_at_github_have_a_reason() {
    let mut scenario = Scenario::new(serde_json::json!({}));
    scenario.offered(3);
    assert_eq!(scenario.plan().demand_status.met, Some(true), "they can be had");
    scenario.backends[0].hosts[0].availability = Availability::Unreachable;
    scenario.backends[0].hosts[0].message = "no route".to_owned();
    let demand_status = scenario.plan().demand_status;
    let said = "3 offered jobs are left at GitHub: rack/rack-1: no route";
    assert_eq!(
        (demand_status.met, demand_status.explanation.reason, demand_status.explanation.message.as_str()),
        (Some(false), Reason::HostUnreachable, said)
    );
}

impl Scenario {
    /// Registrations fail until GitHub is left alone for so many seconds at least.
    fn minting_fails_until_held_back_for(&mut self, seconds: i64) {
        for number in 0.. {
            let held_back_until =
                self.ledger.failures().at_github(at(self.now)).and_then(|streak| streak.retry_at);
            if held_back_until.is_some_and(|until| until >= at(self.now + seconds)) {
                return;
            }
            self.now = held_back_until.map_or(self.now, |until| until.as_second() - at(0).as_second());
            let name = format!("unregistered-{number}");
            self.ledger.begin_start(Runner::pending(&name, "rack", "rack-1", "t1", at(self.now)));
            self.ledger.registration_failed(&name, Reason::Unreachable, "503", at(self.now));
        }
    }
}

#[test]
fn a_runner_that_its_host_did_not_show_before_it_went_silent_is_not_asked_for() {
    let mut scenario = Scenario::new(serde_json::json!({"minRunners": 1, "maxRunners": 10}));
    scenario.assigned(0);
    scenario.step();
    scenario.up();
    let (backend, host) = ("rack".to_owned(), "rack-1".to_owned());
    let mut look =
        Observation { backend, host, listed_at: Some(at(10)), hides: Duration::ZERO, instances: Vec::new() };
    scenario.ledger.observe(std::slice::from_ref(&look), at(10));
    scenario.backends[0].hosts[0].availability = Availability::Unreachable;
    for now in [10, 15] {
        let plan = scenario.plan();
        assert_eq!((plan.capacity, plan.actions.len()), (0, 0), "it keeps its slot");
        look.listed_at = None;
        scenario.ledger.observe(std::slice::from_ref(&look), at(now));
    }
}

/// GitHub tells of no job while it is told that there is room for none.
#[test]
fn a_set_without_room_for_any_job_wants_a_slot_to_ask_for_one_with() {
    let mut scenario = Scenario::new(serde_json::json!({"maxRunners": 10}));
    let wanted = |scenario: &Scenario| (scenario.plan().capacity, scenario.plan().waiting[0].runners);
    scenario.assigned(0);
    assert_eq!(wanted(&scenario), (10, 0));
    scenario.backends[0].hosts[0].free_slots = 0;
    assert_eq!(wanted(&scenario), (0, 1));
    scenario.policy.suspend = true;
    assert_eq!(wanted(&scenario), (0, 0));
    let mut none = Scenario::new(serde_json::json!({"maxRunners": 0}));
    none.assigned(0);
    assert_eq!(wanted(&none), (0, 0));
}
