//! One scale set whose surroundings are moved by the lines of a scenario.

use std::time::Duration;

use jiff::Timestamp;
use paddock::api::{Explanation, Reason, RunnerScaleSet, RunnerScaleSetSpec};
use paddock::plan::{self, Action, BackendView, Input, Plan, Policy, StartGate};
use paddock::runner::{
    Availability, Exit, HostState, Instance, InstanceState, Job, JobEvent, JobOutcome, Ledger, Observation,
    Operation, Phase, Runner, Statistics,
};
use serde_json::{Value, json};

/// The scale set, and the second that it is.
pub struct Scene {
    spec: Value,
    drain_until: Option<Timestamp>,
    ledger: Ledger,
    backends: Vec<BackendView>,
    start_gate: StartGate,
    now: Timestamp,
    named: usize,
}

impl Default for Scene {
    fn default() -> Self {
        Scene {
            spec: json!({
                "github": {"url": "https://github.com/acme", "credentialsSecretRef": {"name": "github"}},
                "backends": [{"name": "rack", "docker": {}}],
            }),
            drain_until: None,
            ledger: Ledger::new(),
            backends: Vec::new(),
            start_gate: StartGate::Open,
            now: "2026-01-05T08:00:00Z".parse().unwrap(),
            named: 0,
        }
    }
}

impl Scene {
    /// Takes one line; a `look` answers what is decided, anything else nothing.
    ///
    /// | Line | Happens |
    /// |---|---|
    /// | `spec {minRunners: 1}` | the spec has these fields, whatever it had before |
    /// | `backend rack rack-1=4 rack-2=4` | a further backend: its hosts and their slots |
    /// | `ceiling rack 3`, `template rack t2` | the backend's `maxRunners`, its template |
    /// | `host rack/rack-1 unreachable` | also `ready`, `pulling`, `refused`, `backoff 30s ImagePullFailed` |
    /// | `closed RateLimited`, `open` | starts are not permitted, or are |
    /// | `deleted 2h` | the object is being deleted, with this drain |
    /// | `after 90s` | time goes by |
    /// | `assigned 3` | GitHub counts so many assigned jobs |
    /// | `up linux-1`, `up all` | the instance runs |
    /// | `busy linux-1 build`, `completed linux-1 build` | GitHub tells of a job |
    /// | `exits linux-1 0` | the instance ended with that code |
    /// | `fails linux-1 EngineError` | the start failed |
    /// | `refused linux-1` | GitHub answered a removal with: a job runs |
    /// | `removed linux-1` | the instance is gone, and the registration |
    /// | `look` | what is decided now is begun |
    ///
    /// Lines that begin with `#`, and empty ones, say nothing. Runners are `linux-1`, `linux-2`, … as they are asked for.
    pub fn event(&mut self, line: &str) -> Vec<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [] => {}
            [word, ..] if word.starts_with('#') => {}
            ["spec", ..] => self.merge(&line["spec".len()..]),
            ["backend", name, ref hosts @ ..] => self.add_backend(name, hosts),
            ["ceiling", name, max] => self.backend(name).max_runners = Some(max.parse().unwrap()),
            ["template", name, hash] => self.backend(name).template_hash = hash.to_owned(),
            ["host", at, ref state @ ..] => self.set_host(at, state),
            ["closed", reason] => {
                self.start_gate =
                    StartGate::Closed(Explanation::new(known(reason), format!("it is {reason}")))
            }
            ["open"] => self.start_gate = StartGate::Open,
            ["deleted", drain] => self.drain_until = Some(self.now + duration(drain)),
            ["after", time] => {
                self.now += duration(time);
                self.ledger.time_passed(duration(time));
            }
            ["assigned", jobs] => {
                let assigned = jobs.parse().unwrap();
                self.ledger.count(Statistics { assigned, ..Statistics::default() }, self.now);
            }
            ["up", "all"] => {
                let pending: Vec<String> = self
                    .ledger
                    .runners()
                    .filter(|r| r.phase == Phase::Pending)
                    .map(|r| r.name.clone())
                    .collect();
                pending.iter().for_each(|name| self.show(name, InstanceState::Running));
            }
            ["up", name] => self.show(name, InstanceState::Running),
            ["busy", name, job] => {
                self.apply(JobEvent::Started { job: job_of(job), runner_name: name.to_owned(), runner_id: 1 })
            }
            ["completed", name, job] => self.apply(JobEvent::Completed {
                job: job_of(job),
                runner_name: name.to_owned(),
                outcome: JobOutcome::Succeeded,
            }),
            ["exits", name, code] => {
                let exit = Exit {
                    code: Some(code.parse().unwrap()),
                    out_of_memory: false,
                    at: self.now,
                    ..Exit::default()
                };
                self.show(name, InstanceState::Exited(exit));
            }
            ["fails", name, reason] => {
                self.ledger.start_failed(name, known(reason), "it said no", self.now);
            }
            ["refused", name] => self.ledger.found_busy(name, self.now),
            ["removed", name] => self.ledger.retire(name, self.now),
            ["look"] => return self.look(),
            _ => panic!("not an event: {line}"),
        }
        Vec::new()
    }

    fn merge(&mut self, fields: &str) {
        let fields: Value = serde_saphyr::from_str(fields.trim()).unwrap();
        self.spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    }

    fn add_backend(&mut self, name: &str, hosts: &[&str]) {
        let host = |host: &&str| {
            let (name, slots) = host.split_once('=').unwrap();
            HostState {
                name: name.to_owned(),
                availability: Availability::Ready,
                slots: slots.parse().unwrap(),
                free_slots: slots.parse().unwrap(),
                warm: 0,
                failures: 0,
                message: String::new(),
            }
        };
        self.backends.push(BackendView {
            name: name.to_owned(),
            max_runners: None,
            template_hash: "t1".to_owned(),
            hosts: hosts.iter().map(host).collect(),
        });
    }

    fn backend(&mut self, name: &str) -> &mut BackendView {
        self.backends.iter_mut().find(|backend| backend.name == name).unwrap()
    }

    fn set_host(&mut self, at: &str, state: &[&str]) {
        let now = self.now;
        let (backend, name) = at.split_once('/').unwrap();
        let host = self.backend(backend).hosts.iter_mut().find(|host| host.name == name).unwrap();
        host.availability = match *state {
            ["ready"] => Availability::Ready,
            ["pulling"] => Availability::Preparing { since: now },
            ["unreachable"] => Availability::Unreachable,
            ["refused"] => Availability::Refused,
            ["backoff", time, reason] => {
                Availability::BackOff { until: now + duration(time), reason: known(reason) }
            }
            _ => panic!("not a host's state: {state:?}"),
        };
        host.message = state.join(" ");
    }

    fn show(&mut self, name: &str, state: InstanceState) {
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
            return self.ledger.start_succeeded(&instance, self.now);
        }
        let (backend, host) = (instance.backend.clone(), instance.host.clone());
        self.ledger.observe(
            &[Observation {
                backend,
                host,
                listed_at: None,
                hides: Duration::ZERO,
                instances: vec![instance],
            }],
            self.now,
        );
    }

    fn apply(&mut self, event: JobEvent) {
        self.ledger.apply(&event, self.now);
    }

    /// The backends, less the slots that the set's own runners take.
    fn views(&self) -> Vec<BackendView> {
        let mut views = self.backends.clone();
        for runner in self.ledger.runners().filter(|r| r.occupies()) {
            let host = views
                .iter_mut()
                .filter(|b| b.name == runner.backend)
                .flat_map(|b| &mut b.hosts)
                .find(|h| h.name == runner.host);
            if let Some(host) = host {
                host.free_slots = host.free_slots.saturating_sub(1);
            }
        }
        plan::set_aside(&mut views, self.ledger.failures(), self.now);
        views
    }

    fn look(&mut self) -> Vec<String> {
        let spec: RunnerScaleSetSpec = serde_json::from_value(self.spec.clone()).unwrap();
        let mut policy = Policy::from_spec(&RunnerScaleSet::new("linux", spec).spec).unwrap();
        policy.drain_until = self.drain_until;
        self.ledger.observe(&[], self.now);
        let backends = self.views();
        let start_gate = self.start_gate.clone();
        let plan = plan::plan(&Input {
            policy: &policy,
            ledger: &self.ledger,
            backends: &backends,
            start_gate,
            now: self.now,
        });
        self.ledger.mark_surplus(&plan.surplus, self.now);
        let mut decided = vec![format!("desired {}, capacity {}", plan.desired, plan.capacity)];
        decided.extend(plan.actions.iter().map(|action| self.begin(action)));
        decided.extend(self.told(&plan));
        decided
    }

    fn begin(&mut self, action: &Action) -> String {
        match action {
            Action::Prepare { backend, host } => format!("prepare {backend}/{host}"),
            Action::Start { backend, host } => {
                self.named += 1;
                let name = format!("linux-{}", self.named);
                let hash = self.backend(backend).template_hash.clone();
                self.ledger.begin_start(Runner::pending(&name, backend, host, &hash, self.now));
                self.ledger.host_ready(&name, self.now);
                format!("start {name} on {backend}/{host}")
            }
            Action::Remove { runner, why } => {
                self.ledger.begin_removal(runner);
                format!("remove {runner}: {}", why.as_str())
            }
            Action::Collect { runner } => {
                self.ledger.retire(runner, self.now);
                format!("collect {runner}")
            }
        }
    }

    /// What is said of a decision, and when the next is due.
    fn told(&self, plan: &Plan) -> Vec<String> {
        let demand_status = &plan.demand_status;
        let mut told = match demand_status.met {
            Some(true) => Vec::new(),
            met => vec![format!(
                "DemandMet={} {}: {}",
                met.map_or("Unknown", |_| "False"),
                demand_status.explanation.reason,
                demand_status.explanation.message
            )],
        };
        told.extend(plan.short.as_ref().map(|why| format!("{}: {}", why.reason, why.message)));
        told.extend(plan.refused.as_ref().map(|why| format!("refused: {}", why.message)));
        told.extend(
            plan.requeue_at.map(|at| format!("next look in {} s", at.duration_since(self.now).as_secs())),
        );
        told
    }
}

fn job_of(id: &str) -> Job {
    Job { id: id.to_owned(), display_name: id.to_owned(), ..Job::default() }
}

/// `90s`, `5m`, `2h`.
fn duration(text: &str) -> Duration {
    text.parse::<paddock::api::Duration>().unwrap().get()
}

/// A reason by its word.
fn known(word: &str) -> Reason {
    let found = Reason::ALL.iter().copied().find(|reason| reason.as_str() == word);
    found.unwrap_or_else(|| panic!("not a reason: {word}"))
}
