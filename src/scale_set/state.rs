//! What the controller keeps in memory of one scale set and what changes. All of it can be read again: from the object, the
//! backends and GitHub.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use tokio_util::sync::CancellationToken;

use super::claim::Claim;
use super::draining::Draining;
use super::inputs::BackendInput;
use super::registration::Registration;
use crate::api::{self, Explanation, Reason, RunnerScaleSet, RunnerScaleSetStatus, condition};
use crate::backend::{Backend, HostKey, Providers};
use crate::github::{ListenState, ScaleSetService, SessionRecord, WantedScaleSet};
use crate::plan::{self, BackendView, Policy};
use crate::runner::{
    Failure, HostCount, Identity, Job, Ledger, Observation, PersistedRunner, Rerun, Runner, Watched,
};
use crate::time::Plus;

/// What was told is not told again within this.
const TOLD_FOR: Duration = Duration::from_secs(60);

/// Whether what a status names can be the id of a message session, which is a UUID: it goes into a URL.
fn is_session_id(id: &str) -> bool {
    id.len() <= 64 && id.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
}

/// What changes.
pub struct ScaleSetState {
    /// When its object was last reconciled.
    pub reconciled_at: Timestamp,
    /// The uptime at the last look.
    looked_at: Duration,
    /// Its spec, and all that this refers to.
    pub spec: SpecState,
    /// Its deletion.
    pub deletion: Deletion,
    /// Its backends, in order.
    pub backends: Vec<ConfiguredBackend>,
    /// The hosts that it left out and that still have runners.
    pub draining: Draining,
    /// The scale set at GitHub, and how that is reached.
    pub github: GitHubState,
    /// Its runners.
    pub ledger: Ledger,
    /// Gives up the starts that wait for their host to be ready, by runner.
    pub preparing: HashMap<String, CancellationToken>,
    /// Since when no host answers, as far as that is more than a moment's matter.
    pub silent_since: Option<Timestamp>,
    /// What was told of it.
    pub told: Told,
}

/// What is known of a spec.
#[derive(Default)]
pub struct SpecState {
    /// The object's generation.
    pub object_generation: Option<i64>,
    /// The generation whose inputs are in use.
    pub generation: Option<i64>,
    /// It, or a Secret or ConfigMap that it refers to, changed.
    pub changed: bool,
    /// What it refers to could not be read when it had changed: not before this is it tried again.
    pub read_again_at: Option<Timestamp>,
    /// The names of Secrets and ConfigMaps that it refers to.
    pub referred: BTreeSet<String>,
    /// Why they could not be read at the last try.
    pub unread: Option<String>,
    /// Why it cannot go on without a change.
    pub stalled: Option<Explanation>,
    /// The rules for its size, once they could be read.
    pub policy: Option<Policy>,
    /// What should be registered.
    pub wanted: Option<WantedScaleSet>,
    /// What it names at GitHub; none before it was first reconciled.
    pub claim: Option<Claim>,
    /// The generation whose runner GitHub refused as too old, as status told before this process.
    pub rejected_before: Option<i64>,
}

impl SpecState {
    /// Why the operator's policy does not permit it, if it does not.
    pub fn refusal(&self) -> Option<&Explanation> {
        self.stalled.as_ref().filter(|why| why.reason == Reason::NotPermitted)
    }
}

/// The deletion of an object.
#[derive(Default)]
pub struct Deletion {
    /// How long it was watched, once it has begun.
    pub watched: Option<Watched>,
    /// Until when busy runners are waited for; none while the object is not being deleted.
    pub until: Option<Timestamp>,
    /// Runners that went when the drain was over and whose registration GitHub may still have.
    pub abandoned: usize,
}

/// A scale set at GitHub.
pub struct GitHubState {
    /// How GitHub is reached.
    pub service: Option<Arc<dyn ScaleSetService>>,
    /// What is known of the scale set there.
    pub registration: Registration,
    /// How the message session does; none before it was first tried.
    pub listening: Option<ListenState>,
    /// The message session that is open, or was left behind.
    pub session: Option<SessionRecord>,
}

/// What was told of a scale set.
#[derive(Default)]
pub struct Told {
    /// When an event of each reason was last published: none is told twice in a row.
    pub at: HashMap<Reason, Timestamp>,
    /// Since when runners are wanted that are not placed.
    pub wanting_since: Option<Timestamp>,
    /// Failures that were reported already.
    pub failures_reported: u64,
    /// Those that status showed before this process.
    pub failures_before: Vec<api::status::Failure>,
    /// The conditions as last shown, for their times.
    pub conditions: Vec<Condition>,
}

/// A backend and its ceiling.
pub struct ConfiguredBackend {
    /// The backend.
    pub backend: Arc<dyn Backend>,
    /// What it was made from.
    pub input: BackendInput,
    /// The names of the set's backends that had a host in common with it at that time, its own among them.
    pub siblings: Vec<String>,
}

impl ScaleSetState {
    /// Begins with what the object's status tells of the time before this process, and the scale set at GitHub that is
    /// recorded as its own.
    pub fn restored(
        status: RunnerScaleSetStatus,
        providers: &Providers,
        own: Option<i64>,
        now: Timestamp,
        uptime: Duration,
    ) -> ScaleSetState {
        let mut ledger = Ledger::new();
        ledger.restore(status.runners.into_iter().map(persisted), now);
        ledger.restore_counts(status.backends.iter().flat_map(counts));
        ledger.restore_reruns(status.reruns.into_iter().map(rerun));
        let rejected = |c: &&Condition| {
            c.type_ == condition::STALLED
                && c.status == "True"
                && c.reason == Reason::RunnerVersionRejected.as_str()
        };
        let rejected_before = status.conditions.iter().find(rejected).and_then(|c| c.observed_generation);
        let left_behind = status.session.filter(|s| is_session_id(&s.id)).map(|s| SessionRecord {
            id: s.id,
            owner: s.owner,
            since: s.since.0,
        });
        ScaleSetState {
            reconciled_at: now,
            looked_at: uptime,
            spec: SpecState { rejected_before, ..SpecState::default() },
            deletion: Deletion::default(),
            backends: Vec::new(),
            draining: Draining::persisted(&status.backends, providers, now),
            github: GitHubState {
                service: None,
                registration: Registration::recorded(own),
                listening: None,
                session: left_behind,
            },
            ledger,
            preparing: HashMap::new(),
            silent_since: None,
            told: Told {
                failures_before: status.recent_failures,
                conditions: status.conditions,
                ..Told::default()
            },
        }
    }

    /// Notes how much time has passed since the last look, which no change of the wall clock makes longer.
    pub fn time_passed(&mut self, uptime: Duration) {
        let passed = uptime.saturating_sub(std::mem::replace(&mut self.looked_at, uptime));
        self.ledger.time_passed(passed);
        if let Some(draining) = &mut self.deletion.watched {
            draining.pass(passed);
        }
    }

    /// Begins to watch the object's deletion. If it was deleted before it was first looked at, nobody saw when.
    pub fn watch_drain(&mut self, object: &RunnerScaleSet, now: Timestamp) {
        if let Some(deleted_at) = &object.metadata.deletion_timestamp {
            let seen = self.spec.object_generation.is_some();
            let begun = if seen { Watched::default() } else { Watched::begun_before(deleted_at.0, now) };
            self.deletion.watched.get_or_insert(begun);
        }
    }

    /// Until when a deleted object's busy runners are waited for.
    pub fn drain_deadline(&self, object: &RunnerScaleSet, now: Timestamp) -> Option<Timestamp> {
        let deleted_at = object.metadata.deletion_timestamp.as_ref()?.0;
        Some(self.deletion.watched.as_ref()?.due(deleted_at, object.spec.timeouts.drain.get(), now))
    }

    /// Whether there are runners, or hosts are still to show some that status tells of.
    pub fn has_runners(&self) -> bool {
        self.ledger.runners().next().is_some() || self.ledger.unseen(|_, _| true) > 0
    }

    /// Why the spec as it is now is not known wholly yet: what it refers to could not be read.
    pub fn behind(&self) -> Option<&str> {
        self.spec.unread.as_deref().filter(|_| self.spec.generation != self.spec.object_generation)
    }

    /// Makes the backends, keeping those that are as they were, and drains the hosts that are left out; answers whether a
    /// template changed. The first time there is nothing that could have changed.
    pub fn place(
        &mut self,
        inputs: Vec<BackendInput>,
        providers: &Providers,
        owner: &Identity,
        now: Timestamp,
    ) -> bool {
        let hashes = |backends: &[ConfiguredBackend]| -> Vec<String> {
            backends.iter().map(|b| b.backend.template_hash().to_owned()).collect()
        };
        let before = hashes(&self.backends);
        let siblings = |of: &BackendInput| -> Vec<String> {
            let hosts: HashSet<&HostKey> = of.host_keys().collect();
            let shares =
                |b: &&BackendInput| b.name == of.name || b.host_keys().any(|key| hosts.contains(key));
            inputs.iter().filter(shares).map(|b| b.name.clone()).collect()
        };
        let place = |input: &BackendInput| {
            let siblings = siblings(input);
            let same = |configured: &&ConfiguredBackend| {
                configured.siblings == siblings && configured.input.makes_the_same(input)
            };
            let kept = self.backends.iter().find(same);
            let open = || providers.open(&*input.resolved, &input.name, &siblings, owner);
            let backend = kept.map_or_else(open, |configured| configured.backend.clone());
            ConfiguredBackend { backend, input: input.clone(), siblings }
        };
        let configured = inputs.iter().map(place).collect();
        let left = std::mem::replace(&mut self.backends, configured);
        // Whoever uses an engine keeps it known: `left` is dropped after its hosts were taken over.
        let named_before = left.iter().map(|configured| configured.input.clone()).collect();
        self.update_draining(named_before, providers, owner, now);
        !before.is_empty() && before != hashes(&self.backends)
    }

    fn update_draining(
        &mut self,
        before: Vec<BackendInput>,
        providers: &Providers,
        owner: &Identity,
        now: Timestamp,
    ) {
        let named: Vec<BackendInput> =
            self.backends.iter().map(|configured| configured.input.clone()).collect();
        for renamed in self.draining.update(before, &named, providers, owner, now) {
            self.ledger.rename_host(&renamed.backend, &renamed.from, &renamed.to);
        }
    }

    /// Drains a host that has runners of a backend, unless the spec names it.
    pub fn drain(
        &mut self,
        backend: &str,
        HostKey { kind, endpoint }: &HostKey,
        providers: &Providers,
        owner: &Identity,
        now: Timestamp,
    ) {
        self.draining.remember(backend, (*kind, endpoint, endpoint), providers, now);
        self.update_draining(Vec::new(), providers, owner, now);
    }

    /// Whether the spec names a host, or it drains.
    pub fn has_host(&self, host: &HostKey) -> bool {
        let mut named = self.backends.iter().flat_map(|configured| configured.input.host_keys());
        named.any(|key| key == host) || self.draining.hosts().any(|key| key == host)
    }

    /// The backend of that name; else the first. A runner whose backend the spec names no more, and which no backend has
    /// shown since, has no instance to remove, but perhaps a registration.
    pub fn backend(&self, name: &str) -> Option<Arc<dyn Backend>> {
        let found = self.backends.iter().find(|b| b.backend.name() == name);
        found.or(self.backends.first()).map(|b| b.backend.clone())
    }

    /// The backend that has a runner's host, which may be one that drains; else as [`ScaleSetState::backend`].
    pub fn backend_of(&self, runner: &Runner) -> Option<Arc<dyn Backend>> {
        let draining = self.draining.backend(&runner.backend, &runner.host);
        draining.or_else(|| self.backend(&runner.backend))
    }

    /// All backends: those of the spec, and the hosts that it left out.
    pub fn all_backends(&self) -> impl Iterator<Item = &Arc<dyn Backend>> {
        self.backends.iter().map(|configured| &configured.backend).chain(self.draining.backends())
    }

    /// The backends, as a decision sees them.
    pub fn views(&self, now: Timestamp) -> Vec<BackendView> {
        let view = |configured: &ConfiguredBackend| BackendView {
            name: configured.backend.name().to_owned(),
            max_runners: configured.input.max_runners,
            template_hash: configured.backend.template_hash().to_owned(),
            hosts: configured.backend.hosts(),
        };
        let mut views: Vec<BackendView> = self.backends.iter().map(view).collect();
        plan::set_aside(&mut views, self.ledger.failures(), now);
        views
    }

    /// What the backends show.
    pub fn observations(&self) -> Vec<Observation> {
        let of = |backend: &Arc<dyn Backend>| -> Vec<Observation> {
            backend.instances().into_iter().map(|listing| listing.observed(backend.name())).collect()
        };
        self.all_backends().flat_map(of).collect()
    }

    /// The hosts on which nothing is counted any more, by backend and name.
    pub fn lost_hosts(&self) -> Vec<(String, String)> {
        let of = |backend: &Arc<dyn Backend>| {
            let name = backend.name().to_owned();
            backend.lost_hosts().into_iter().map(move |host| (name.clone(), host))
        };
        self.all_backends().flat_map(of).collect()
    }

    /// Whether it is time to tell of something; if so, it is told now.
    pub fn tell(&mut self, what: Reason, now: Timestamp) -> bool {
        let due = self.told.at.get(&what).is_none_or(|at| at.plus(TOLD_FOR) <= now);
        if due {
            self.told.at.insert(what, now);
        }
        due
    }

    /// Failures that nobody was told of yet, oldest first.
    pub fn unreported_failures(&mut self) -> Vec<Failure> {
        let failures = self.ledger.failures();
        let mut fresh: Vec<Failure> = failures.since(self.told.failures_reported).cloned().collect();
        fresh.reverse();
        self.told.failures_reported = failures.noted();
        fresh
    }
}

fn persisted(runner: crate::api::status::RunnerStatus) -> PersistedRunner {
    let job = runner.job.map(|job| Job {
        id: job.id,
        repository: job.repository,
        workflow_ref: job.workflow_ref,
        run_id: job.run_id,
        display_name: job.display_name,
        url: job.url,
        ..Job::default()
    });
    PersistedRunner {
        name: runner.name,
        backend: runner.backend,
        host: runner.host.unwrap_or_default(),
        instance_id: runner.instance_id,
        phase: runner.phase,
        since: runner.since.0,
        job,
    }
}

fn rerun(told: api::status::Rerun) -> Rerun {
    let mut run = Rerun::waiting(told.repository, told.run_id, told.since.0);
    (run.state, run.message) = (told.state, told.message);
    run
}

/// How many runners a status says are on each host of a backend.
fn counts(backend: &api::status::BackendStatus) -> impl Iterator<Item = HostCount> {
    let count = |host: &api::status::HostStatus| HostCount {
        backend: backend.name.clone(),
        host: host.name.clone(),
        runners: host.current_runners.max(0).unsigned_abs(),
    };
    backend.hosts.iter().map(count)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// A scale set with a drain of one hour that was deleted at the second 0.
    fn deleted() -> RunnerScaleSet {
        let object = json!({
            "apiVersion": "paddock.dev/v1alpha1", "kind": "RunnerScaleSet",
            "metadata": {"name": "linux", "deletionTimestamp": at(0), "generation": 1},
            "spec": {
                "github": {"url": "https://github.com/acme", "credentialsSecretRef": {"name": "github"}},
                "backends": [{"name": "rack", "docker": {}}],
                "timeouts": {"drain": "1h"},
            },
        });
        serde_json::from_value(object).unwrap()
    }

    /// Looks at it; answers until when it drains.
    fn look(state: &mut ScaleSetState, now: i64, uptime: Duration) -> i64 {
        let object = deleted();
        state.watch_drain(&object, at(now));
        state.time_passed(uptime);
        state.spec.object_generation = object.metadata.generation;
        state.drain_deadline(&object, at(now)).unwrap().as_second()
    }

    #[test]
    fn a_clock_that_is_set_forward_ends_no_drain() {
        let mut state = ScaleSetState::restored(
            RunnerScaleSetStatus::default(),
            &Providers::new(Vec::new()),
            None,
            at(-60),
            Duration::ZERO,
        );
        state.spec.object_generation = Some(1);
        assert_eq!(look(&mut state, 0, HOUR), 3600);
        assert_eq!(look(&mut state, 100_000, HOUR + HOUR / 4), 100_000 + 2700, "what is left of the hour");
        assert_eq!(look(&mut state, 102_700, HOUR + HOUR), 3600, "it is over");
    }

    #[test]
    fn a_drain_that_was_over_before_a_restart_is_watched_for_two_minutes() {
        let mut state = ScaleSetState::restored(
            RunnerScaleSetStatus::default(),
            &Providers::new(Vec::new()),
            None,
            at(7200),
            Duration::ZERO,
        );
        assert_eq!(look(&mut state, 7200, Duration::ZERO), 7320);
        assert_eq!(look(&mut state, 7200, Duration::ZERO), 7320);
        assert_eq!(look(&mut state, 7320, Duration::from_secs(120)), 3600, "it is over");
    }

    #[test]
    fn fuzz_a_status_of_any_kind_is_a_memory_and_no_more() {
        let status = json!({
            "session": {"id": "6f1d0c1e-0000-4000-8000-000000000000", "owner": "paddock-0", "since": "2026-01-01T00:00:00Z"},
            "desiredRunners": 7, "currentRunners": 6, "runnersOmitted": 3,
            "backends": [{"name": "rack", "type": "docker", "currentRunners": 6,
                "hosts": [{"name": "rack-1", "ready": true, "currentRunners": 6, "freeSlots": 10,
                    "endpoint": "unix:///var/run/docker.sock"}]}],
            "runners": [{"name": "linux-k3x9q2f7", "phase": "Busy", "backend": "rack", "host": "rack-1",
                "since": "2026-01-01T00:00:00Z", "job": {"repository": "acme/app", "runId": 99, "id": "1"}}],
            "recentFailures": [{"runner": "linux-a", "backend": "rack", "host": "rack-1", "reason": "StartTimeout",
                "message": "no", "time": "2026-01-01T00:00:00Z"}],
            "conditions": [{"type": "Stalled", "status": "True", "reason": "RunnerVersionRejected", "message": "",
                "observedGeneration": 2, "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        });
        let mut read = 0;
        testkit::fuzz::each_json(&[status], |value| {
            let Ok(status) = serde_json::from_value::<RunnerScaleSetStatus>(value) else { return };
            read += 1;
            let providers = Providers::new(Vec::new());
            let mut state = ScaleSetState::restored(status, &providers, None, at(0), Duration::ZERO);
            state.time_passed(HOUR);
            state.ledger.observe(&state.observations(), at(3600));
            assert!(state.github.session.is_none_or(|session| is_session_id(&session.id)));
        });
        assert!(read > 10, "{read}");
    }
}
