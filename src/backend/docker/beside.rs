//! What a listing shows of private engines: which of them run, and what is left of one that has no runner. No IO.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;

use super::index::Container;
use crate::api::{Explanation, Reason};
use crate::runner::{Cause, Exit, Identity, InstanceState};

/// No container's name and no id begins with it.
const LEFT_OF: char = '_';

/// Whose private engine: a cluster and a runner.
type Owner = (String, String);

/// Private engines, as one look at containers, networks and volumes shows them.
#[derive(Debug, Default)]
pub(super) struct PrivateEngines {
    running: BTreeSet<Owner>,
    /// What carries the labels of one, and these labels.
    parts: BTreeMap<Owner, HashMap<String, String>>,
}

impl PrivateEngines {
    /// Adds a container, network or volume with those labels, if it is of a private engine. `runs`: it is the engine itself,
    /// and runs.
    pub(super) fn add(&mut self, labels: &HashMap<String, String>, runs: bool) {
        let label = |key: &str| labels.get(key).cloned();
        if label(Identity::PART).as_deref() != Some(Identity::ENGINE_PART) {
            return;
        }
        let (Some(cluster), Some(runner)) = (label(Identity::CLUSTER), label(Identity::RUNNER)) else {
            return;
        };
        let owner = (cluster, runner);
        if runs {
            self.running.insert(owner.clone());
        }
        self.parts.insert(owner, labels.clone());
    }

    /// How a runner ended that runs on, and whose private engine does not: its network went with that, and no job can use it.
    pub(super) fn end_without_engine(&self, container: &Container, now: Timestamp) -> Option<InstanceState> {
        let runs = container.instance.state == InstanceState::Running;
        let lost = runs && container.beside_engine && !self.running.contains(&owner(container));
        let message = "its private Docker engine ended before it";
        lost.then(|| {
            let why = Explanation::new(Reason::SidecarFailed, message);
            let cause = Some(Cause { why, blameless: false, rerun: false });
            InstanceState::Exited(Exit { at: now, cause, ..Exit::default() })
        })
    }

    /// What is left of private engines without a runner's container, each as the container of its runner that was never
    /// started: whoever looks after that scale set removes it by its id.
    pub(super) fn left_without(mut self, containers: &[Container], now: Timestamp) -> Vec<Container> {
        for container in containers {
            self.parts.remove(&owner(container));
        }
        let left = self.parts.into_iter().filter_map(|((_, runner), mut labels)| {
            labels.insert(Identity::PART.to_owned(), Identity::RUNNER_PART.to_owned());
            Container::from_labels(&format!("{LEFT_OF}{runner}"), &labels, now, InstanceState::Starting)
        });
        left.collect()
    }
}

fn owner(container: &Container) -> Owner {
    (container.cluster.clone(), container.instance.runner.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(runner: &str, part: &str) -> HashMap<String, String> {
        let labels = [
            (Identity::CLUSTER, "c"),
            (Identity::SCALE_SET_UID, "uid"),
            (Identity::RUNNER, runner),
            (Identity::PART, part),
        ];
        labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
    }

    fn runner(name: &str, state: InstanceState) -> Container {
        let labels = labels(name, Identity::RUNNER_PART);
        Container::from_labels(name, &labels, Timestamp::UNIX_EPOCH, state).unwrap()
    }

    fn seen(parts: &[(&str, bool)]) -> PrivateEngines {
        let mut seen = PrivateEngines::default();
        parts.iter().for_each(|(name, runs)| seen.add(&labels(name, Identity::ENGINE_PART), *runs));
        seen
    }

    #[test]
    fn a_runner_ends_with_its_private_engine_and_with_no_other() {
        let engines = seen(&[("a", true), ("b", false)]);
        let ended = |name: &str, state: InstanceState| {
            engines.end_without_engine(&runner(name, state), Timestamp::UNIX_EPOCH).is_some()
        };
        let running = || InstanceState::Running;
        assert_eq!(
            [ended("a", running()), ended("b", running()), ended("c", running())],
            [false, true, true]
        );
        let exited = InstanceState::Exited(Exit { code: Some(0), ..Exit::default() });
        assert!(!ended("b", exited), "how a runner ended by itself is not changed by what its engine did");
        let mut without = runner("d", InstanceState::Running);
        without.beside_engine = false;
        assert_eq!(engines.end_without_engine(&without, Timestamp::UNIX_EPOCH), None, "it never had one");
    }

    #[test]
    fn what_has_no_runner_is_left_and_is_one_thing_however_many_parts_it_has() {
        let engines = seen(&[("a", true), ("b", true), ("b", false), ("b", false)]);
        let left = engines.left_without(&[runner("a", InstanceState::Running)], Timestamp::UNIX_EPOCH);
        let shown: Vec<_> =
            left.iter().map(|c| (c.instance.id.as_str(), c.instance.runner.as_str())).collect();
        assert_eq!(shown, [("_b", "b")]);
        assert!(left[0].beside_engine && left[0].instance.state == InstanceState::Starting);
    }
}
