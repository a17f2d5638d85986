//! The containers of one engine as its events and listings tell of them. No IO, no clock.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;

use crate::runner::{Exit, Identity, Instance, InstanceState};

/// A runner's container of any cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Container {
    /// The instance; its host is empty, as that is a backend's name for the engine.
    pub(super) instance: Instance,
    /// Its cluster.
    pub(super) cluster: String,
    /// `namespace/name` of its scale set.
    pub(super) scale_set: String,
    /// Whether its runner has a private engine beside it.
    pub(super) beside_engine: bool,
    /// Whether something in it was ended for want of memory.
    pub(super) out_of_memory: bool,
    /// How many whole listings in a row have shown it made and not started.
    pub(super) unstarted: u32,
    /// Since when listings show that it ended, and it cannot be inspected. What else is said of it is of the time before.
    pub(super) uninspected_since: Option<Timestamp>,
}

impl Container {
    /// A container as its labels describe it. None: it is no runner's, but perhaps a private engine's.
    pub(super) fn from_labels(
        id: &str,
        labels: &HashMap<String, String>,
        created_at: Timestamp,
        state: InstanceState,
    ) -> Option<Self> {
        let label = |key: &str| labels.get(key).cloned().unwrap_or_default();
        let part = labels.get(Identity::PART).map(String::as_str);
        if part == Some(Identity::ENGINE_PART) {
            return None;
        }
        Some(Container {
            cluster: labels.get(Identity::CLUSTER)?.clone(),
            scale_set: label(Identity::SCALE_SET),
            beside_engine: part == Some(Identity::RUNNER_PART),
            out_of_memory: false,
            unstarted: 0,
            uninspected_since: None,
            instance: Instance {
                id: id.to_owned(),
                runner: label(Identity::RUNNER),
                scale_set_uid: label(Identity::SCALE_SET_UID),
                backend: label(Identity::BACKEND),
                host: String::new(),
                template_hash: label(Identity::TEMPLATE_HASH),
                created_at,
                state,
            },
        })
    }

    fn end(&mut self, code: Option<i64>, at: Timestamp) {
        self.instance.state =
            InstanceState::Exited(Exit { code, out_of_memory: false, at, ..Exit::default() });
    }

    fn apply(&mut self, change: Change, at: Timestamp) {
        let ended_at = match &self.instance.state {
            InstanceState::Exited(exit) => Some(exit.at),
            _ => None,
        };
        match change {
            Change::Created => {}
            // Events from before a listing may arrive after it: a start older than the exit is no news.
            Change::Started if ended_at.is_none_or(|end| end < at) => {
                self.instance.state = InstanceState::Running;
            }
            Change::Started => {}
            Change::OutOfMemory => self.out_of_memory = true,
            Change::Died(_) | Change::Destroyed if ended_at.is_some() => {}
            Change::Died(code) => self.end(code, at),
            Change::Destroyed => self.end(None, at),
        }
        // These two events come in either order. What ended well did so despite it.
        if let InstanceState::Exited(exit) = &mut self.instance.state {
            exit.out_of_memory |= self.out_of_memory && exit.code != Some(0);
        }
    }
}

/// What an event says of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Created,
    Started,
    OutOfMemory,
    /// Its process ended, with that exit code.
    Died(Option<i64>),
    Destroyed,
}

/// All runners' containers of one engine. A listing and the events come over different connections, so each entry
/// knows when it last changed, in counts of this index: what changed after a listing was asked for outlives it.
#[derive(Debug, Default)]
pub(super) struct Index {
    containers: HashMap<String, (u64, Container)>,
    /// The ids of each scale set's containers, by the set's UID, whatever its cluster.
    by_set: HashMap<String, BTreeSet<String>>,
    /// How many containers are there for each runner's name.
    by_runner: HashMap<String, usize>,
    /// How many containers have not ended.
    live: usize,
    /// The same of each backend, by its scale set's UID and its name.
    live_by_backend: HashMap<String, HashMap<String, usize>>,
    /// What was destroyed since the last listing was asked for.
    destroyed: HashMap<String, u64>,
    version: u64,
}

impl Index {
    /// The moment, to be handed to [`Index::replace`] with a listing that is asked for after it.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// What is known of the containers.
    pub(super) fn containers(&self) -> impl Iterator<Item = &Container> {
        self.containers.values().map(|(_, container)| container)
    }

    /// The containers of one scale set, by its UID. Costs what the set has, not what the engine has.
    pub(super) fn of_set(&self, uid: &str) -> impl Iterator<Item = &Container> {
        self.by_set.get(uid).into_iter().flatten().filter_map(|id| self.get(id))
    }

    /// How many containers have not ended.
    pub(super) fn live(&self) -> usize {
        self.live
    }

    /// How many containers of a scale set have not ended, by backend. Costs what the set has backends.
    pub(super) fn live_of_set(&self, uid: &str) -> impl Iterator<Item = (&str, usize)> {
        self.live_by_backend.get(uid).into_iter().flatten().map(|(backend, live)| (backend.as_str(), *live))
    }

    /// Whether there is a container for a runner of that name, ended or not.
    pub(super) fn has_runner(&self, runner: &str) -> bool {
        self.by_runner.contains_key(runner)
    }

    /// What is known of one.
    pub(super) fn get(&self, id: &str) -> Option<&Container> {
        self.containers.get(id).map(|(_, container)| container)
    }

    /// Applies an event. A container that someone else destroyed is shown as ended until the next listing, so that its
    /// end is not missed. `described` is the container as the event's labels describe it, for one that is not known
    /// yet. Returns the UID of its scale set if anything changed.
    pub(super) fn apply(&mut self, described: Container, change: Change, at: Timestamp) -> Option<String> {
        let id = described.instance.id.clone();
        if self.destroyed.contains_key(&id) || (change == Change::Destroyed && self.get(&id).is_none()) {
            return None;
        }
        if change == Change::Destroyed {
            self.version += 1;
            self.destroyed.insert(id.clone(), self.version);
        }
        let before = self.get(&id).cloned();
        let mut container = before.clone().unwrap_or(described);
        container.apply(change, at);
        (before.as_ref() != Some(&container)).then(|| self.put(container))
    }

    /// A container of which it is known first hand that it was started. Returns it as it is known now: its end may
    /// have been seen already.
    pub(super) fn started(&mut self, described: Container) -> Instance {
        let mut container = self.get(&described.instance.id).cloned().unwrap_or(described);
        if container.instance.state == InstanceState::Starting {
            container.instance.state = InstanceState::Running;
            if !self.destroyed.contains_key(&container.instance.id) {
                self.put(container.clone());
            }
        }
        container.instance
    }

    /// A container that is no more. Returns the UID of its scale set if it was known.
    pub(super) fn forget(&mut self, id: &str) -> Option<String> {
        self.version += 1;
        self.destroyed.insert(id.to_owned(), self.version);
        self.take(id).map(|container| container.instance.scale_set_uid)
    }

    /// Takes a whole listing for the truth, except for what changed since it was asked for. Returns the UIDs of the
    /// scale sets for which anything changed.
    pub(super) fn replace(&mut self, asked_at: u64, listing: Vec<Container>) -> BTreeSet<String> {
        let mut affected = BTreeSet::new();
        let mut listed = BTreeSet::new();
        for mut container in listing {
            let id = &container.instance.id;
            listed.insert(id.clone());
            if self.destroyed.contains_key(id) {
                continue;
            }
            let starting = container.instance.state == InstanceState::Starting;
            container.unstarted = u32::from(starting);
            match self.containers.get(id) {
                Some((changed_at, _)) if *changed_at > asked_at => continue,
                Some((_, known)) => {
                    container.out_of_memory |= known.out_of_memory;
                    container.unstarted += if starting { known.unstarted } else { 0 };
                    if *known == container {
                        continue;
                    }
                }
                None => {}
            }
            affected.insert(self.put(container));
        }
        let known = self.containers.iter();
        let gone = known.filter(|(id, (changed_at, _))| *changed_at <= asked_at && !listed.contains(*id));
        for id in gone.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            affected.extend(self.take(&id).map(|container| container.instance.scale_set_uid));
        }
        self.destroyed.retain(|_, destroyed_at| *destroyed_at > asked_at);
        affected
    }

    fn put(&mut self, container: Container) -> String {
        self.take(&container.instance.id);
        self.version += 1;
        let Instance { id, runner, scale_set_uid: uid, .. } = container.instance.clone();
        if !container.instance.state.ended() {
            self.live += 1;
            let backends = self.live_by_backend.entry(uid.clone()).or_default();
            *backends.entry(container.instance.backend.clone()).or_default() += 1;
        }
        self.by_set.entry(uid.clone()).or_default().insert(id.clone());
        *self.by_runner.entry(runner).or_default() += 1;
        self.containers.insert(id, (self.version, container));
        uid
    }

    fn take(&mut self, id: &str) -> Option<Container> {
        let (_, container) = self.containers.remove(id)?;
        let instance = &container.instance;
        if !instance.state.ended() {
            self.live -= 1;
            self.ended(&instance.scale_set_uid, &instance.backend);
        }
        if let Some(ids) = self.by_set.get_mut(&instance.scale_set_uid) {
            ids.remove(id);
            if ids.is_empty() {
                self.by_set.remove(&instance.scale_set_uid);
            }
        }
        if let Some(count) = self.by_runner.get_mut(&instance.runner) {
            *count -= 1;
            if *count == 0 {
                self.by_runner.remove(&instance.runner);
            }
        }
        Some(container)
    }

    fn ended(&mut self, uid: &str, backend: &str) {
        let Some(backends) = self.live_by_backend.get_mut(uid) else { return };
        if let Some(live) = backends.get_mut(backend) {
            *live -= 1;
        }
        backends.retain(|_, live| *live > 0);
        if backends.is_empty() {
            self.live_by_backend.remove(uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn container(id: &str, state: InstanceState) -> Container {
        let labels = [
            (Identity::CLUSTER, "cluster"),
            (Identity::SCALE_SET_UID, "uid"),
            (Identity::SCALE_SET, "ns/set"),
            (Identity::RUNNER, id),
            (Identity::BACKEND, "rack"),
            (Identity::TEMPLATE_HASH, "hash"),
        ];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        Container::from_labels(id, &labels, at(0), state).unwrap()
    }

    fn exited(code: i64, second: i64) -> InstanceState {
        InstanceState::Exited(Exit {
            code: Some(code),
            out_of_memory: false,
            at: at(second),
            ..Exit::default()
        })
    }

    fn event(index: &mut Index, id: &str, change: Change, second: i64) -> Option<String> {
        index.apply(container(id, InstanceState::Starting), change, at(second))
    }

    fn state(index: &Index, id: &str) -> Option<InstanceState> {
        index.get(id).map(|container| container.instance.state.clone())
    }

    #[test]
    fn one_life() {
        let mut index = Index::default();
        assert!(event(&mut index, "a", Change::Created, 1).is_some());
        assert_eq!(state(&index, "a"), Some(InstanceState::Starting));
        assert_eq!(event(&mut index, "a", Change::Started, 2).as_deref(), Some("uid"));
        assert_eq!(event(&mut index, "a", Change::Started, 2), None);
        assert!(event(&mut index, "a", Change::Died(Some(7)), 3).is_some());
        assert_eq!(state(&index, "a"), Some(exited(7, 3)));
        event(&mut index, "a", Change::Destroyed, 4);
        assert_eq!(state(&index, "a"), Some(exited(7, 3)));
        index.replace(index.version(), Vec::new());
        assert_eq!(state(&index, "a"), None);
    }

    #[test]
    fn what_someone_else_destroys_is_seen_to_end() {
        let mut index = Index::default();
        event(&mut index, "a", Change::Started, 1);
        assert_eq!(event(&mut index, "a", Change::Destroyed, 2).as_deref(), Some("uid"));
        assert!(state(&index, "a").unwrap().ended());
        assert_eq!(event(&mut index, "a", Change::Started, 1), None);
        assert_eq!(index.forget("a").as_deref(), Some("uid"));
        assert_eq!(event(&mut index, "a", Change::Destroyed, 2), None);
        assert_eq!(state(&index, "a"), None);
    }

    #[test]
    fn want_of_memory_is_seen_on_either_side_of_the_death() {
        for changes in
            [[Change::OutOfMemory, Change::Died(Some(137))], [Change::Died(Some(137)), Change::OutOfMemory]]
        {
            let mut index = Index::default();
            event(&mut index, "a", Change::Started, 1);
            for change in changes {
                assert!(event(&mut index, "a", change, 2).is_some());
            }
            let Some(InstanceState::Exited(exit)) = state(&index, "a") else { panic!() };
            assert!(exit.out_of_memory && !exit.killed());
        }
        let mut index = Index::default();
        event(&mut index, "a", Change::OutOfMemory, 1);
        event(&mut index, "a", Change::Died(Some(0)), 2);
        assert_eq!(state(&index, "a"), Some(exited(0, 2)));
    }

    #[test]
    fn what_happens_while_a_listing_is_under_way_outlives_it() {
        let mut index = Index::default();
        for id in ["gone", "dies", "stays", "vanished"] {
            event(&mut index, id, Change::Started, 1);
        }
        let asked_at = index.version();
        let listing = ["gone", "dies", "stays"].map(|id| container(id, InstanceState::Running)).into();
        event(&mut index, "gone", Change::Destroyed, 2);
        event(&mut index, "dies", Change::Died(Some(0)), 2);
        event(&mut index, "new", Change::Created, 2);
        assert_eq!(index.replace(asked_at, listing).len(), 1);
        assert!(state(&index, "gone").unwrap().ended());
        assert_eq!(state(&index, "dies"), Some(exited(0, 2)));
        assert_eq!(state(&index, "new"), Some(InstanceState::Starting));
        assert_eq!(state(&index, "vanished"), None);
        assert_eq!(state(&index, "stays"), Some(InstanceState::Running));
    }

    #[test]
    fn only_listings_tell_that_something_was_never_started() {
        let unstarted = |index: &Index| index.get("a").unwrap().unstarted;
        let made = || vec![container("a", InstanceState::Starting)];
        let mut index = Index::default();
        // The events of the moments before are told again.
        event(&mut index, "a", Change::Created, 1);
        index.replace(0, made());
        assert_eq!(unstarted(&index), 0, "it may have been started since that listing was asked for");
        index.replace(index.version(), made());
        index.replace(index.version(), made());
        assert_eq!(unstarted(&index), 2);
        index.replace(index.version(), vec![container("a", InstanceState::Running)]);
        assert_eq!(unstarted(&index), 0);
    }

    #[test]
    fn a_start_from_before_the_exit_that_a_listing_showed_is_no_news() {
        let mut index = Index::default();
        index.replace(0, vec![container("a", exited(0, 5))]);
        assert_eq!(event(&mut index, "a", Change::Started, 4), None);
        assert_eq!(event(&mut index, "a", Change::Died(Some(0)), 5), None);
        assert_eq!(state(&index, "a"), Some(exited(0, 5)));
        event(&mut index, "a", Change::Started, 6);
        assert_eq!(state(&index, "a"), Some(InstanceState::Running), "someone started it again");
    }

    #[test]
    fn a_container_that_is_gone_does_not_return_with_its_start() {
        let mut index = Index::default();
        event(&mut index, "a", Change::Created, 1);
        event(&mut index, "a", Change::Destroyed, 2);
        assert!(index.started(container("a", InstanceState::Starting)).state.ended());
        event(&mut index, "b", Change::Died(Some(1)), 1);
        index.started(container("b", InstanceState::Starting));
        assert_eq!(state(&index, "b"), Some(exited(1, 1)));
    }

    /// The life of a container, as the engine goes through it.
    const LIFE: [Change; 4] = [Change::Created, Change::Started, Change::Died(Some(3)), Change::Destroyed];

    fn shown(steps: usize) -> Option<InstanceState> {
        match steps {
            1 => Some(InstanceState::Starting),
            2 => Some(InstanceState::Running),
            3 => Some(exited(3, 3)),
            _ => None,
        }
    }

    /// What is kept as it changes is what a count of all would give.
    fn assert_counts(index: &Index) {
        let live = index.containers().filter(|known| !known.instance.state.ended()).count();
        let mut ids: Vec<&str> = index.containers().map(|known| known.instance.id.as_str()).collect();
        let mut of_set: Vec<&str> = index.of_set("uid").map(|known| known.instance.id.as_str()).collect();
        ids.sort_unstable();
        of_set.sort_unstable();
        assert_eq!((index.live(), of_set), (live, ids));
        let known = |id: &str| index.get(id).is_some();
        assert!((0..5).map(|n| format!("c{n}")).all(|id| index.has_runner(&id) == known(&id)));
        let of_set: usize = index.live_of_set("uid").map(|(_, live)| live).sum();
        assert_eq!(of_set, index.live());
    }

    proptest! {
        /// Whenever listings are asked for and answered between the events of five lives, and however late the events
        /// arrive, in the end the index shows what the engine has.
        #[test]
        fn events_and_listings_agree_in_the_end(steps in proptest::collection::vec((0usize..5, 0u8..4), 1..80)) {
            let (mut index, mut engine, mut late) = (Index::default(), [0usize; 5], Vec::new());
            let mut asked = None;
            let name = |n: usize| format!("c{n}");
            for (n, step) in steps {
                assert_counts(&index);
                match step {
                    0 if engine[n] < LIFE.len() => {
                        late.push((n, LIFE[engine[n]], engine[n] as i64 + 1));
                        engine[n] += 1;
                    }
                    1 if !late.is_empty() => {
                        let (n, change, second) = late.remove(0);
                        event(&mut index, &name(n), change, second);
                    }
                    2 if asked.is_none() => {
                        let version = index.version();
                        let listing: Vec<_> =
                            (0..5).filter_map(|n| Some(container(&name(n), shown(engine[n])?))).collect();
                        asked = Some((version, listing));
                    }
                    _ => {
                        if let Some((version, listing)) = asked.take() {
                            index.replace(version, listing);
                        }
                    }
                }
            }
            for (n, change, second) in late {
                event(&mut index, &name(n), change, second);
            }
            let version = index.version();
            if let Some((version, listing)) = asked.take() {
                index.replace(version, listing);
            }
            let listing = engine.iter().enumerate();
            let listing = listing.filter_map(|(n, steps)| Some(container(&name(n), shown(*steps)?))).collect();
            index.replace(version, listing);
            for (n, steps) in engine.into_iter().enumerate() {
                prop_assert_eq!(state(&index, &name(n)), shown(steps), "{} at {}", n, version);
            }
        }
    }
}
