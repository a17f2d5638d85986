//! What a plan must hold to, situation by situation, and for any situation.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::api::{RunnerScaleSet, RunnerScaleSetSpec};
use crate::runner::{
    Availability, Exit, HostState, Instance, InstanceState, Job, JobEvent, Ledger, Observation, Operation,
    PersistedRunner, Phase, Statistics,
};

mod draining;

const TEMPLATE: &str = "t1";

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_000_000 + second)
}

/// One scale set with one host of 20 slots, whose scenario is moved by hand.
pub(super) struct Scenario {
    pub policy: Policy,
    pub ledger: Ledger,
    pub backends: Vec<BackendView>,
    pub start_gate: StartGate,
    pub now: i64,
    next_name: usize,
}

impl Scenario {
    pub fn new(spec: serde_json::Value) -> Scenario {
        let mut full = serde_json::json!({
            "github": {"url": "https://github.com/acme", "credentialsSecretRef": {"name": "github"}},
            "backends": [{"name": "rack", "docker": {}}],
        });
        full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let spec: RunnerScaleSetSpec = serde_json::from_value(full).unwrap();
        Scenario {
            policy: Policy::from_spec(&RunnerScaleSet::new("linux", spec).spec).unwrap(),
            ledger: Ledger::new(),
            backends: vec![backend("rack", &[("rack-1", 20)])],
            start_gate: StartGate::Open,
            now: 0,
            next_name: 0,
        }
    }

    /// With one job, which the first runner has, and the spares that the spec asks for.
    pub fn at_work(spec: serde_json::Value) -> Scenario {
        let mut scenario = Scenario::new(spec);
        scenario.assigned(1);
        scenario.step();
        scenario.up();
        scenario.busy("linux-001", "job");
        scenario
    }

    pub fn assigned(&mut self, assigned: u32) {
        let registered_runners = u32::try_from(self.names(Runner::serves).len()).unwrap();
        self.ledger.count(Statistics { assigned, registered_runners, ..Statistics::default() }, at(self.now));
    }

    pub fn offered(&mut self, available: u32) {
        self.ledger.count(Statistics { available, ..Statistics::default() }, at(self.now));
    }

    pub fn plan(&self) -> Plan {
        let mut backends = self.backends.clone();
        set_aside(&mut backends, self.ledger.failures(), at(self.now));
        plan(&Input {
            policy: &self.policy,
            ledger: &self.ledger,
            backends: &backends,
            start_gate: self.start_gate.clone(),
            now: at(self.now),
        })
    }

    /// So much time passes, by all clocks, and the controller looks on.
    fn wait(&mut self, seconds: u32) {
        self.ledger.time_passed(Duration::ZERO);
        self.ledger.time_passed(Duration::from_secs(seconds.into()));
        self.now += i64::from(seconds);
    }

    /// Plans, and begins what the plan says.
    pub fn step(&mut self) -> Plan {
        let plan = self.plan();
        self.ledger.mark_surplus(&plan.surplus, at(self.now));
        for action in &plan.actions {
            match action {
                Action::Start { backend, host } => {
                    self.next_name += 1;
                    let name = format!("linux-{:03}", self.next_name);
                    let hash = &self.backends.iter().find(|b| b.name == *backend).unwrap().template_hash;
                    self.ledger.begin_start(Runner::pending(&name, backend, host, hash, at(self.now)));
                    self.ledger.host_ready(&name, at(self.now));
                    self.backend_host(backend, host).free_slots -= 1;
                }
                Action::Remove { runner, why } => {
                    if *why == Removal::NeverConnected {
                        self.ledger.begin_recycling(at(self.now));
                    }
                    self.ledger.begin_removal(runner);
                }
                Action::Collect { runner } => self.ledger.retire(runner, at(self.now)),
                Action::Prepare { .. } => {}
            }
        }
        plan
    }

    fn backend_host(&mut self, backend: &str, host: &str) -> &mut HostState {
        let backend = self.backends.iter_mut().find(|b| b.name == backend).unwrap();
        backend.hosts.iter_mut().find(|h| h.name == host).unwrap()
    }

    pub fn names(&self, wanted: impl Fn(&Runner) -> bool) -> Vec<String> {
        self.ledger.runners().filter(|r| wanted(r)).map(|r| r.name.clone()).collect()
    }

    pub fn show(&mut self, name: &str, state: InstanceState) {
        let runner = self.ledger.runner(name).unwrap();
        let instance = Instance {
            id: format!("id-{name}"),
            runner: name.to_owned(),
            scale_set_uid: "uid".to_owned(),
            backend: runner.backend.clone(),
            host: runner.host.clone(),
            template_hash: runner.template_hash.clone(),
            created_at: runner.created_at,
            state,
        };
        if runner.operation == Some(Operation::Starting) {
            self.ledger.start_succeeded(&instance, at(self.now));
        } else {
            let observation = Observation {
                backend: instance.backend.clone(),
                host: instance.host.clone(),
                listed_at: None,
                instances: vec![instance],
            };
            self.ledger.observe(&[observation], at(self.now));
        }
    }

    /// All that are starting are up.
    pub fn up(&mut self) {
        for name in self.names(|r| r.phase == Phase::Pending) {
            self.show(&name, InstanceState::Running);
        }
    }

    fn job(&self, id: &str) -> Job {
        Job { id: id.to_owned(), ..Job::default() }
    }

    pub fn busy(&mut self, name: &str, job: &str) {
        let event = JobEvent::Started { job: self.job(job), runner_name: name.to_owned(), runner_id: 1 };
        assert!(self.ledger.apply(&event, at(self.now)));
    }

    pub fn completed(&mut self, name: &str, job: &str) {
        let outcome = crate::runner::JobOutcome::Succeeded;
        let event = JobEvent::Completed { job: self.job(job), runner_name: name.to_owned(), outcome };
        self.ledger.apply(&event, at(self.now));
    }

    pub fn exits(&mut self, name: &str, code: i64) {
        let exit = Exit { code: Some(code), out_of_memory: false, at: at(self.now) };
        self.show(name, InstanceState::Exited(exit));
    }
}

pub(super) fn backend(name: &str, hosts: &[(&str, u32)]) -> BackendView {
    let host = |(name, free_slots): &(&str, u32)| HostState {
        name: (*name).to_owned(),
        availability: Availability::Ready,
        free_slots: *free_slots,
        failures: 0,
        message: String::new(),
    };
    BackendView {
        name: name.to_owned(),
        max_runners: None,
        template_hash: TEMPLATE.to_owned(),
        hosts: hosts.iter().map(host).collect(),
    }
}

pub(super) fn starts(plan: &Plan) -> usize {
    plan.actions.iter().filter(|a| matches!(a, Action::Start { .. })).count()
}

pub(super) fn removals(plan: &Plan) -> Vec<(&str, Removal)> {
    let removal = |a: &'_ Action| match a {
        Action::Remove { why, .. } => Some(*why),
        _ => None,
    };
    let names = plan.actions.iter().filter_map(|a| match a {
        Action::Remove { runner, .. } => Some(runner.as_str()),
        _ => None,
    });
    names.zip(plan.actions.iter().filter_map(removal)).collect()
}

/// A busy runner, as a status tells of it.
fn remembered(name: &str, job: &str) -> PersistedRunner {
    PersistedRunner {
        name: name.to_owned(),
        backend: "rack".to_owned(),
        host: "rack-1".to_owned(),
        instance_id: Some(format!("id-{name}")),
        phase: Phase::Busy,
        since: at(0),
        job: Some(Job { id: job.to_owned(), ..Job::default() }),
    }
}

/// A status from just before a crash: the job on it was over, GitHub had been told so and had told it.
#[test]
fn a_job_that_only_a_status_remembers_is_not_taken_off_the_demand() {
    let mut scenario = Scenario::new(serde_json::json!({}));
    scenario.ledger.restore([remembered("linux-gone", "1"), remembered("linux-ended", "2")], at(0));
    scenario.assigned(2);
    scenario
        .show("linux-ended", InstanceState::Exited(Exit { code: Some(0), out_of_memory: false, at: at(0) }));
    for second in [1, 2] {
        let (backend, host) = ("rack".to_owned(), "rack-1".to_owned());
        let listing = Observation { backend, host, listed_at: Some(at(second)), instances: Vec::new() };
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
    scenario.ledger.observe(&[Observation { backend, host, listed_at: Some(at(1)), instances }], at(1));
    let runner = scenario.ledger.runner("linux-001").unwrap();
    assert_eq!((runner.backend.as_str(), runner.host.as_str()), ("shelf", "shelf-1"));
}

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

/// The reason of the last failure.
fn last_failure(scenario: &Scenario) -> Option<&'static str> {
    scenario.ledger.failures().recent().next().map(|f| f.reason)
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
        assert_eq!(last_failure(&scenario), Some("EndedWithoutJob"));
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
    assert_eq!(last_failure(&scenario), Some("EndedWithoutJob"));
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
        let exit = Exit { code, out_of_memory: false, at: at(0) };
        scenario.show("linux-001", InstanceState::Exited(exit));
        assert_eq!(last_failure(&scenario), Some("JobLost"), "{code:?}");
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
    assert_eq!(last_failure(&scenario), Some("Killed"));
    scenario.busy("linux-001", "job");
    assert_eq!(last_failure(&scenario), Some("JobLost"));
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
    assert_eq!((starts(&plan), plan.demand_status.met), (5, Some(true)), "{}", plan.demand_status.message);
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
        let row = failures.on_host("rack", "rack-1", at(scenario.now));
        assert_eq!(row.is_some(), held_back, "exit code {code} after {lived} s");
        assert_eq!(failures.noted() > 0, told, "exit code {code} after {lived} s");
    }
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
    scenario
        .ledger
        .observe(&[Observation { backend, host, listed_at: Some(at(0)), instances: vec![adopted] }], at(0));
    scenario.now = 5;
    scenario.exits("linux-old", 0);
    scenario.now = 400;
    scenario.ledger.observe(&[], at(scenario.now));
    assert_eq!(scenario.ledger.failures().noted(), 0);
}

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
    assert_eq!((removals(&plan), plan.wake_at), (vec![], Some(at(70))));
    scenario.now = 69;
    assert!(removals(&scenario.step()).is_empty());
    scenario.now = 70;
    assert_eq!(
        removals(&scenario.step()),
        [("linux-001", Removal::Surplus), ("linux-002", Removal::Surplus)]
    );
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
    assert_eq!(plan.wake_at, Some(at(scenario.now + 1800)), "what is left of the hour");
    scenario.wait(1799);
    assert!(removals(&scenario.step()).is_empty());
    scenario.wait(1);
    assert_eq!(removals(&scenario.step()), [("linux-001", Removal::JobTimeout)]);
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

#[test]
fn backends_are_filled_in_order_and_hosts_evenly() {
    let mut scenario = Scenario::new(serde_json::json!({"maxRunners": 20}));
    scenario.backends = vec![backend("rack", &[("a", 2), ("b", 3)]), backend("cloud", &[("c", 100)])];
    scenario.backends[0].max_runners = Some(4);
    scenario.assigned(6);
    let plan = scenario.step();
    let mut places = BTreeMap::new();
    for action in &plan.actions {
        if let Action::Start { host, .. } = action {
            *places.entry(host.as_str()).or_insert(0) += 1;
        }
    }
    assert_eq!(places, BTreeMap::from([("a", 2), ("b", 2), ("c", 2)]));
}

#[test]
fn each_refusal_has_its_reason() {
    type Change = fn(&mut Scenario);
    let cases: [(Change, &str); 8] = [
        (|w| w.policy.suspend = true, "Suspended"),
        (|w| w.start_gate = StartGate::Closed("AuthRejected", "no".into()), "AuthRejected"),
        (|w| w.backends[0].hosts[0].free_slots = 0, "NoCapacity"),
        (|w| w.backends[0].hosts[0].availability = Availability::Preparing { since: at(0) }, "ImagePulling"),
        (|w| w.backends[0].hosts[0].availability = Availability::Unreachable, "HostUnreachable"),
        (|w| w.backends[0].hosts[0].availability = Availability::Refused, "BackendRefused"),
        (
            |w| {
                w.backends[0].hosts[0].availability =
                    Availability::BackOff { until: at(60), reason: "ImageMissing" }
            },
            "ImageMissing",
        ),
        (|w| w.assigned(30), "AtMaxRunners"),
    ];
    for (change, reason) in cases {
        let mut scenario = Scenario::new(serde_json::json!({}));
        scenario.assigned(3);
        change(&mut scenario);
        let demand_status = scenario.step().demand_status;
        assert_eq!(
            (demand_status.met, demand_status.reason),
            (Some(false), reason),
            "{}",
            demand_status.message
        );
    }
}

#[test]
fn a_backend_at_its_ceiling_is_named() {
    let mut scenario = Scenario::new(serde_json::json!({"maxRunners": 10}));
    scenario.backends = vec![backend("rack", &[("a", 20)]), backend("cloud", &[("c", 1)])];
    scenario.backends[0].max_runners = Some(2);
    scenario.assigned(4);
    let said = "1 of 4 assigned jobs wait: maxRunners of backend rack is 2; no other host has a free slot";
    assert_eq!(scenario.plan().demand_status.message, said, "counting what begins now");
    scenario.step();
    let demand_status = scenario.plan().demand_status;
    assert_eq!((demand_status.reason, demand_status.message.as_str()), ("NoCapacity", said));
    scenario.backends[1].max_runners = Some(1);
    let said = "1 of 4 assigned jobs wait: maxRunners of backend rack is 2; maxRunners of backend cloud is 1";
    assert_eq!(scenario.plan().demand_status.message, said);
}

/// Nobody's job waits, and still it is to be said.
#[test]
fn spares_that_cannot_be_started_have_a_reason() {
    type Change = fn(&mut Scenario);
    let lacks = |reason| Availability::BackOff { until: at(60), reason };
    let cases: [(Change, Option<&str>); 6] = [
        (|w| w.backends[0].hosts[0].availability = Availability::Refused, Some("BackendRefused")),
        (
            |w| w.backends[0].hosts[0].availability = Availability::Preparing { since: at(0) },
            Some("ImagePulling"),
        ),
        (|w| w.backends[0].hosts[0].free_slots = 0, Some("NoCapacity")),
        (|w| w.policy.suspend = true, None),
        (|w| w.start_gate = StartGate::Closed("AuthRejected", "no".into()), None),
        (|_| {}, None),
    ];
    for (change, reason) in cases {
        let mut scenario = Scenario::new(serde_json::json!({"minRunners": 5}));
        scenario.assigned(0);
        change(&mut scenario);
        let plan = scenario.step();
        assert_eq!(plan.short.as_ref().map(|(reason, _)| *reason), reason, "{:?}", plan.short);
        assert_eq!(plan.refused.is_some(), reason == Some("BackendRefused"));
    }
    let mut scenario = Scenario::new(serde_json::json!({"minRunners": 5}));
    scenario.assigned(0);
    scenario.backends[0].hosts[0].availability = lacks("ImagePullFailed");
    scenario.backends[0].hosts[0].message = "no such image".to_owned();
    let message = "5 of minRunners 5 are missing: rack/rack-1: no such image".to_owned();
    assert_eq!(scenario.step().short, Some(("ImagePullFailed", message)));
    scenario.backends.push(backend("cloud", &[("c", 1)]));
    scenario.backends[0].hosts[0].availability = Availability::Refused;
    assert_eq!(scenario.step().refused, None, "one can be used");
}

#[test]
fn spares_whose_place_a_job_has_are_not_short() {
    let mut scenario = Scenario::at_work(serde_json::json!({"minRunners": 2}));
    scenario.backends[0].hosts[0].free_slots = 0;
    scenario.up();
    scenario.busy("linux-002", "another");
    scenario.assigned(2);
    scenario.completed("linux-002", "another");
    assert_eq!(scenario.step().short, None, "it does not move with load");
}

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
            scenario.ledger.start_failed(&name, "EngineError", "no space left", at(second));
            scenario.backend_host("rack", "rack-1").free_slots += 1;
        }
        if second > 2 {
            let demand_status = scenario.plan().demand_status;
            assert_eq!(demand_status.reason, "StartFailures");
            assert!(demand_status.message.contains("no space left"), "{}", demand_status.message);
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
            scenario.ledger.start_failed(&name, "EngineError", "no space left", at(second));
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
    scenario.ledger.start_failed("linux-001", "EngineError", "no", at(0));
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
        let reason = if minute < 6 { "AsExpected" } else { "PhantomDemand" };
        assert_eq!(plan.demand_status.reason, reason, "after {minute} minutes");
    }
    scenario.busy("linux-001", "a");
    scenario.busy("linux-002", "b");
    scenario.ledger.observe(&[], at(scenario.now));
    assert_eq!(scenario.step().demand_status.met, Some(true));
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

/// An engine that was killed while it started a container shows it as made and not started for ever, although its runner
/// ran, had a job and is gone.
#[test]
fn a_runner_that_is_shown_again_after_its_job_was_over_goes() {
    for state in [InstanceState::Starting, InstanceState::Running] {
        let mut scenario = Scenario::new(serde_json::json!({}));
        scenario.assigned(1);
        assert_eq!(starts(&scenario.step()), 1);
        scenario.ledger.start_failed("linux-001", "HostUnreachable", "no answer", at(1));
        scenario.busy("linux-001", "job");
        scenario.completed("linux-001", "job");
        scenario.assigned(0);
        scenario.now = 20;
        scenario.show("linux-001", state.clone());
        let runner = scenario.ledger.runner("linux-001").unwrap();
        let over = (runner.phase, runner.job_completed_at);
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
    scenario
        .show("linux-old", InstanceState::Exited(Exit { code: Some(0), out_of_memory: false, at: at(0) }));
    scenario.now = 11;
    scenario.ledger.observe(&[], at(scenario.now));
    assert_eq!(scenario.ledger.failures().recent().count(), 0);
}

#[test]
fn a_runner_that_two_listings_do_not_show_is_gone_and_frees_its_slot() {
    let mut scenario = Scenario::new(serde_json::json!({"minRunners": 1}));
    scenario.assigned(0);
    scenario.step();
    scenario.up();
    let list = |scenario: &mut Scenario, listed_at: Option<i64>| {
        let observation = Observation {
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
    assert_eq!(last_failure(&scenario), Some("Vanished"));
    let plan = scenario.step();
    assert!(
        plan.actions.contains(&Action::Collect { runner: "linux-001".into() }),
        "its registration goes too"
    );
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
    assert_eq!((starts(&plan), plan.demand_status.reason), (0, "RunnerVersionRejected"));
    scenario.backends[0].template_hash = "t2".into();
    assert_eq!(starts(&scenario.step()), 1);
}

#[test]
fn the_last_open_window_wins() {
    let spec = serde_json::json!({"minRunners": 1, "maxRunners": 10, "schedules": [
        {"name": "always", "start": "0 0 * * *", "end": "59 23 31 12 *", "minRunners": 3},
        {"name": "epoch-noon", "start": "0 12 * * *", "end": "0 18 * * *", "timeZone": "UTC", "minRunners": 5, "maxRunners": 6},
    ]});
    let policy = Scenario::new(spec).policy;
    let noon = |hour: i8| jiff::civil::date(2026, 3, 2).at(hour, 30, 0, 0).in_tz("UTC").unwrap().timestamp();
    let bounds = |hour| {
        let bounds = policy.bounds(noon(hour));
        (bounds.min, bounds.max, bounds.schedule.unwrap())
    };
    assert_eq!(bounds(11), (3, 10, "always".to_owned()));
    assert_eq!(bounds(12), (5, 6, "epoch-noon".to_owned()));
    assert_eq!(bounds(18), (3, 10, "always".to_owned()));
}

#[test]
fn windows_keep_to_the_wall_clock_across_a_change_of_the_clocks() {
    let spec = serde_json::json!({"schedules": [
        {"name": "office", "start": "0 8 * * *", "end": "0 19 * * *", "timeZone": "Europe/Zurich", "minRunners": 5},
    ]});
    let policy = Scenario::new(spec).policy;
    // 29 March 2026 is the day on which Zurich goes from UTC+1 to UTC+2; 25 October it goes back.
    for (day, utc_hour, open) in [
        ((3, 28), 7, true),
        ((3, 28), 6, false),
        ((3, 29), 6, true),
        ((3, 29), 5, false),
        ((10, 25), 7, true),
        ((10, 25), 6, false),
    ] {
        let time = jiff::civil::date(2026, day.0, day.1).at(utc_hour, 30, 0, 0).in_tz("UTC").unwrap();
        assert_eq!(policy.bounds(time.timestamp()).schedule.is_some(), open, "{time}");
    }
}

#[test]
fn a_wrong_cron_line_or_time_zone_is_named() {
    for (start, zone, named) in [("0 8 * *", "UTC", "start"), ("0 8 * * *", "Mars/Olympus", "timeZone")] {
        let spec = serde_json::json!({
            "github": {"url": "https://github.com/acme", "credentialsSecretRef": {"name": "github"}},
            "backends": [{"name": "rack", "docker": {}}],
            "schedules": [{"name": "office", "start": start, "end": "0 19 * * *", "timeZone": zone}],
        });
        let invalid = Policy::from_spec(&serde_json::from_value(spec).unwrap()).unwrap_err();
        assert!(invalid.message.contains("office") && invalid.message.contains(named), "{invalid}");
    }
}

/// What may happen to a scale set.
#[derive(Debug, Clone)]
enum Move {
    Demand(u32),
    Up,
    JobStarts(usize),
    JobEnds(usize),
    Exits(usize, bool),
    StartFails,
    Removed,
    FoundBusy,
    Wait(i64),
    Template(bool),
    Suspend(bool),
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        4 => (0u32..12).prop_map(Move::Demand),
        4 => Just(Move::Up),
        3 => (0usize..8).prop_map(Move::JobStarts),
        3 => (0usize..8).prop_map(Move::JobEnds),
        3 => (0usize..8, any::<bool>()).prop_map(|(n, clean)| Move::Exits(n, clean)),
        1 => Just(Move::StartFails),
        3 => Just(Move::Removed),
        1 => Just(Move::FoundBusy),
        3 => (0i64..120).prop_map(Move::Wait),
        1 => any::<bool>().prop_map(Move::Template),
        1 => any::<bool>().prop_map(Move::Suspend),
    ]
}

impl Scenario {
    fn make(&mut self, a_move: &Move, job: usize) {
        let now = at(self.now);
        match a_move {
            Move::Demand(assigned) => self.assigned(*assigned),
            Move::Up => self.up(),
            Move::JobStarts(n) => {
                if let Some(name) = self.names(|r| r.phase == Phase::Idle).get(*n) {
                    self.busy(name, &format!("job-{job}"));
                }
            }
            Move::JobEnds(n) => {
                let busy: Vec<(String, String)> = self
                    .ledger
                    .runners()
                    .filter(|r| r.phase == Phase::Busy)
                    .filter_map(|r| Some((r.name.clone(), r.job.as_ref()?.id.clone())))
                    .collect();
                if let Some((name, job)) = busy.get(*n) {
                    self.completed(name, job);
                }
            }
            Move::Exits(n, clean) => {
                if let Some(name) = self.names(|r| r.occupies() && r.phase != Phase::Pending).get(*n) {
                    self.exits(name, if *clean { 0 } else { 1 });
                }
            }
            Move::StartFails => {
                for name in self.names(|r| r.operation == Some(Operation::Starting)) {
                    self.ledger.start_failed(&name, "EngineError", "no", now);
                }
            }
            Move::Removed => {
                for name in self.names(|r| r.operation == Some(Operation::Removing)) {
                    self.ledger.retire(&name, now);
                }
            }
            Move::FoundBusy => {
                for name in self.names(|r| r.operation == Some(Operation::Removing)) {
                    self.ledger.found_busy(&name, now);
                }
            }
            Move::Wait(seconds) => self.now += seconds,
            Move::Template(new) => self.backends[0].template_hash = if *new { "t2" } else { TEMPLATE }.into(),
            Move::Suspend(suspend) => self.policy.suspend = *suspend,
        }
        let taken = self.names(|r| r.occupies()).len();
        self.backends[0].hosts[0].free_slots = 20u32.saturating_sub(u32::try_from(taken).unwrap());
    }
}

#[test]
fn a_set_waits_for_slots_where_it_could_start_and_for_no_more_than_it_may_have() {
    let mut scenario = Scenario::new(serde_json::json!({"maxRunners": 6}));
    scenario.backends =
        vec![backend("rack", &[("full", 0), ("pulling", 0)]), backend("spill", &[("small", 1)])];
    scenario.backends[1].max_runners = Some(2);
    scenario.backend_host("rack", "pulling").availability = Availability::Unprepared;
    let waiting =
        |scenario: &Scenario| -> Vec<u32> { scenario.plan().waiting.iter().map(|w| w.runners).collect() };
    scenario.assigned(0);
    assert_eq!(waiting(&scenario), [0, 0, 0]);
    scenario.assigned(4);
    assert_eq!(waiting(&scenario), [3, 0, 1], "one is placed, and one more is all that its backend takes");
    scenario.step();
    assert_eq!(waiting(&scenario), [3, 0, 1]);
    // What GitHub holds back for want of capacity counts too.
    let statistics = Statistics { assigned: 4, available: 40, ..Statistics::default() };
    scenario.ledger.count(statistics, at(scenario.now));
    assert_eq!(waiting(&scenario), [5, 0, 1], "maxRunners is 6");
    let held_back =
        HostState { availability: Availability::Refused, ..scenario.backends[0].hosts[0].clone() };
    scenario.backends[0].hosts[0] = held_back;
    assert_eq!(waiting(&scenario), [0, 0, 1]);
    scenario.policy.suspend = true;
    assert_eq!(waiting(&scenario), [0, 0, 0]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_rules_hold(
        history in proptest::collection::vec(moves(), 1..120),
        min in 0i32..4,
        max in 0i32..8,
    ) {
        let mut scenario = Scenario::new(serde_json::json!({
            "minRunners": min.min(max), "maxRunners": max, "timeouts": {"idle": "5m", "job": "0s"},
        }));
        for (job, a_move) in history.iter().enumerate() {
            scenario.make(a_move, job);
            let before: BTreeMap<String, Phase> =
                scenario.ledger.runners().map(|r| (r.name.clone(), r.phase)).collect();
            let plan = scenario.step();
            let occupying = scenario.names(|r| r.occupies()).len();
            prop_assert!(occupying <= max as usize, "{occupying} runners, maxRunners {max}");
            for (name, why) in removals(&plan) {
                // One that lingers after its job is asked for at GitHub first, as every removal that is not forced.
                let may = before[name] != Phase::Busy || why == Removal::LingeringAfterJob;
                prop_assert!(may, "{name} is busy and goes: {why:?}");
            }
            prop_assert!(plan.capacity <= max as u32);
        }
        // After quiet: demand met, and nobody idle without need.
        scenario.policy.suspend = false;
        scenario.assigned(u32::try_from(scenario.names(|r| r.phase == Phase::Busy && r.job_completed_at.is_none()).len()).unwrap());
        for _ in 0..40 {
            scenario.now += 400;
            scenario.make(&Move::Removed, 0);
            scenario.ledger.observe(&[], at(scenario.now));
            scenario.step();
            scenario.make(&Move::Up, 0);
        }
        scenario.make(&Move::Removed, 0);
        scenario.step();
        let serving = scenario.names(|r| r.serves()).len();
        let desired = scenario.plan().desired as usize;
        let finishing = scenario.names(|r| r.occupies() && !r.serves()).len();
        prop_assert!(serving >= desired.min((max as usize).saturating_sub(finishing)), "{serving} of {desired}");
    }
}
