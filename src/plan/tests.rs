//! What a plan must hold to, situation by situation, and for any situation.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::api::{Reason, RunnerScaleSet, RunnerScaleSetSpec};
use crate::runner::{
    Availability, Exit, HostState, Instance, InstanceState, Job, JobEvent, Ledger, Observation, Operation,
    PersistedRunner, Phase, Statistics,
};

mod capacity;
mod demand;
mod draining;
mod ends;
mod persisted;
mod placement;
mod random;
mod recycling;
mod removals;
mod rollout;
mod schedule;
mod starts;

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
                hides: Duration::ZERO,
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
        let exit = Exit { code: Some(code), out_of_memory: false, at: at(self.now), ..Exit::default() };
        self.show(name, InstanceState::Exited(exit));
    }
}

pub(super) fn backend(name: &str, hosts: &[(&str, u32)]) -> BackendView {
    let host = |(name, slots): &(&str, u32)| HostState {
        name: (*name).to_owned(),
        availability: Availability::Ready,
        slots: *slots,
        free_slots: *slots,
        warm: 0,
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

/// The reason of the last failure.
fn last_failure(scenario: &Scenario) -> Option<Reason> {
    scenario.ledger.failures().recent().next().map(|f| f.reason)
}
