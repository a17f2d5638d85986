//! Hosts that a spec leaves out and takes in again, and what must hold of them: nothing is started there, and no job that
//! runs there is told as lost.

use paddock::api::Reason;
use paddock::api::{Backend, RunnerScaleSet, RunnerScaleSetSpec};

use crate::github::JobState;
use crate::history::SetSetup;
use crate::sim::State;

/// A host's name, in every backend.
pub fn name(host: usize) -> String {
    format!("host-{host}")
}

/// A host's endpoint.
pub fn endpoint(host: usize) -> String {
    format!("unix:///{host}")
}

/// The number of a host, by its name; one that drains may be called by its endpoint.
pub fn number(name: &str) -> usize {
    let number =
        ["host-", "unix:///", "fake://"].iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
    number.parse().expect("a host's number")
}

/// The hosts of a backend, by number.
pub fn hosts(backend: &Backend) -> impl Iterator<Item = usize> {
    let hosts = backend.docker.iter().flat_map(|docker| &docker.hosts);
    hosts.map(|host| number(&host.name))
}

/// Whether a spec names a host.
pub fn names(object: &RunnerScaleSet, host: usize) -> bool {
    object.spec.backends.iter().flat_map(hosts).any(|named| named == host)
}

/// Leaves a host out, and its backend if it has no other; not the last of all.
pub fn leave_out(spec: &mut RunnerScaleSetSpec, host: usize) {
    let mut backends = spec.backends.clone();
    for docker in backends.iter_mut().filter_map(|backend| backend.docker.as_mut()) {
        docker.hosts.retain(|named| named.name != name(host));
    }
    backends.retain(|backend| hosts(backend).next().is_some());
    if !backends.is_empty() {
        spec.backends = backends;
    }
}

/// Names again all hosts that there were in the beginning.
pub fn put_back(spec: &mut RunnerScaleSetSpec, setup: &SetSetup) {
    let backend = |(number, setup): (usize, &crate::history::BackendSetup)| {
        let name = format!("backend-{number}");
        let known = spec.backends.iter().find(|backend| backend.name == name);
        let mut backend = known.or(spec.backends.first()).cloned().expect("a spec has a backend");
        backend.name = name;
        backend.max_runners = setup.max.map(u32::cast_signed);
        let docker = backend.docker.as_mut().expect("all are Docker's");
        let host = docker.hosts.first().cloned().expect("a backend has a host");
        let named = |number: &usize| {
            let mut host = host.clone();
            host.name = self::name(*number);
            host.endpoint = endpoint(*number);
            host
        };
        docker.hosts = setup.hosts.iter().map(named).collect();
        backend
    };
    spec.backends = setup.backends.iter().enumerate().map(backend).collect();
}

/// A job that is told as lost does not run.
pub fn look(state: &mut State, set: usize) {
    let Some(object) = state.cluster.objects[set].clone() else { return };
    let failures = object.status.iter().flat_map(|status| &status.recent_failures);
    for lost in failures.filter(|failure| failure.reason == Reason::JobLost.as_str()) {
        let Some(registration) = state.github.registered(&lost.runner).map(|r| r.id) else { continue };
        let lives = state.live(set).any(|(_, instance)| instance.registration == registration);
        let running = JobState::Running { registration };
        if lives && state.github.sets[set].jobs.iter().any(|job| job.state == running) {
            state.violate(5, format!("the job of {} is told as lost, and runs", lost.runner));
        }
    }
}
