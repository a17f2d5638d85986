//! The VMs of one Mac as its listings tell of them, and as is known first hand. No IO, no clock.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use tokio::time::Instant;

use super::record::Record;
use crate::runner::{Exit, Instance, InstanceState};

/// A VM on a Mac.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Vm {
    pub(super) name: String,
    /// Whose it is; none of a stranger's.
    pub(super) record: Option<Record>,
    /// The runner that it has; none of one that is held ready.
    pub(super) runner: Option<String>,
    /// The runner was started in it.
    pub(super) started: bool,
    /// How its runner ended.
    pub(super) exit: Option<Exit>,
    /// It runs.
    pub(super) running: bool,
    /// When it was first seen not to run any more.
    pub(super) down_since: Option<Timestamp>,
    /// How many listings in a row have shown it with a runner that was not started.
    pub(super) unstarted: u32,
}

impl Vm {
    /// Whether it is of a cluster, and has no runner.
    pub(super) fn is_spare_of(&self, cluster: &str) -> bool {
        self.runner.is_none() && self.record.as_ref().is_some_and(|record| record.cluster == cluster)
    }

    /// The instance that a runner of a cluster has; its host is empty, as that is a backend's name for the Mac.
    pub(super) fn instance(&self, cluster: &str) -> Option<Instance> {
        let record = self.record.as_ref().filter(|record| record.cluster == cluster)?;
        let state = match (&self.exit, self.running, self.started) {
            (Some(exit), ..) => InstanceState::Exited(exit.clone()),
            (None, false, _) => {
                let at = self.down_since.unwrap_or_default().max(record.created_at);
                InstanceState::Exited(Exit { code: None, out_of_memory: false, at, ..Exit::default() })
            }
            (None, true, true) => InstanceState::Running,
            (None, true, false) => InstanceState::Starting,
        };
        Some(Instance {
            id: self.name.clone(),
            runner: self.runner.clone()?,
            scale_set_uid: record.scale_set_uid.clone(),
            backend: record.backend.clone(),
            host: String::new(),
            template_hash: record.template_hash.clone(),
            created_at: record.created_at,
            state,
        })
    }

    fn owner(&self) -> Option<String> {
        self.record.as_ref().map(|record| record.scale_set_uid.clone())
    }
}

/// All VMs of one Mac that are anyone's concern: ours, and strangers' that run. Each knows when it last changed first hand: a
/// listing that was asked for before that says nothing of it.
#[derive(Debug, Default)]
pub(super) struct Index {
    vms: BTreeMap<String, (Instant, Vm)>,
    removed: HashMap<String, Instant>,
}

impl Index {
    pub(super) fn vms(&self) -> impl Iterator<Item = &Vm> {
        self.vms.values().map(|(_, vm)| vm)
    }

    pub(super) fn get(&self, name: &str) -> Option<&Vm> {
        self.vms.get(name).map(|(_, vm)| vm)
    }

    /// The names of those that run, whosever they are.
    pub(super) fn running(&self) -> impl Iterator<Item = &str> {
        self.vms().filter(|vm| vm.running).map(|vm| vm.name.as_str())
    }

    /// Takes over what is known of a VM first hand.
    pub(super) fn put(&mut self, vm: Vm, now: Instant) -> Option<String> {
        let owner = vm.owner();
        self.removed.remove(&vm.name);
        self.vms.insert(vm.name.clone(), (now, vm));
        owner
    }

    /// A VM is no more. Answers its scale set, if it was known.
    pub(super) fn forget(&mut self, name: &str, now: Instant) -> Option<String> {
        self.removed.insert(name.to_owned(), now);
        self.vms.remove(name).and_then(|(_, vm)| vm.owner())
    }

    /// Takes a whole listing for the truth, except for what is known first hand since it was asked for. Answers the scale
    /// sets for which anything changed.
    pub(super) fn replace(
        &mut self,
        asked_at: Instant,
        listing: Vec<Vm>,
        now: Timestamp,
    ) -> BTreeSet<String> {
        let mut affected = BTreeSet::new();
        let mut listed = BTreeSet::new();
        for mut vm in listing {
            listed.insert(vm.name.clone());
            if self.removed.contains_key(&vm.name) {
                continue;
            }
            let unstarted = vm.running && vm.runner.is_some() && !vm.started;
            vm.unstarted = u32::from(unstarted);
            vm.down_since = (!vm.running).then_some(now);
            match self.vms.get(&vm.name) {
                Some((changed_at, _)) if *changed_at > asked_at => continue,
                Some((_, known)) => {
                    vm.unstarted += if unstarted { known.unstarted } else { 0 };
                    vm.down_since = vm.down_since.and(known.down_since).or(vm.down_since);
                    // The time of an end is that of its first sight.
                    vm.exit = known.exit.clone().or(vm.exit);
                    if *known == vm {
                        continue;
                    }
                }
                None => {}
            }
            affected.extend(vm.owner());
            self.vms.insert(vm.name.clone(), (asked_at, vm));
        }
        let gone: Vec<String> = self
            .vms
            .iter()
            .filter(|(name, (changed_at, _))| *changed_at <= asked_at && !listed.contains(*name))
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            affected.extend(self.vms.remove(&name).and_then(|(_, vm)| vm.owner()));
        }
        self.removed.retain(|_, removed_at| *removed_at > asked_at);
        affected
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn vm(name: &str, runner: Option<&str>) -> Vm {
        Vm {
            name: name.to_owned(),
            record: Some(Record {
                cluster: "c".to_owned(),
                scale_set_uid: "uid".to_owned(),
                scale_set: "ns/set".to_owned(),
                backend: "macs".to_owned(),
                template_hash: "hash".to_owned(),
                digest: None,
                place: 0,
                created_at: at(1),
            }),
            runner: runner.map(str::to_owned),
            started: true,
            exit: None,
            running: true,
            down_since: None,
            unstarted: 0,
        }
    }

    fn state(index: &Index, name: &str) -> Option<InstanceState> {
        index.get(name)?.instance("c").map(|instance| instance.state)
    }

    #[test]
    fn what_is_known_first_hand_outlives_a_listing_that_was_asked_for_before() {
        let begin = Instant::now();
        let (first, second, third) = (begin, begin + Duration::from_secs(1), begin + Duration::from_secs(2));
        let mut index = Index::default();
        index.replace(first, vec![vm("gone", Some("a")), vm("stays", Some("b"))], at(1));
        index.forget("gone", second);
        index.put(vm("new", Some("c")), second);
        index.replace(first, vec![vm("gone", Some("a")), vm("stays", Some("b"))], at(2));
        assert_eq!(index.running().collect::<Vec<_>>(), ["new", "stays"]);
        let affected = index.replace(third, vec![vm("stays", Some("b"))], at(3));
        assert_eq!(index.running().collect::<Vec<_>>(), ["stays"]);
        assert_eq!(affected.len(), 1);
    }

    #[test]
    fn a_vm_that_runs_no_more_has_ended_when_that_was_first_seen() {
        let now = Instant::now();
        let mut index = Index::default();
        index.replace(now, vec![vm("a", Some("r"))], at(1));
        assert_eq!(state(&index, "a"), Some(InstanceState::Running));
        let down = Vm { running: false, ..vm("a", Some("r")) };
        for second in [10, 20] {
            assert_eq!(index.replace(now, vec![down.clone()], at(second)).len(), usize::from(second == 10));
            let exit = Exit { code: None, out_of_memory: false, at: at(10), ..Exit::default() };
            assert_eq!(state(&index, "a"), Some(InstanceState::Exited(exit)));
        }
    }

    #[test]
    fn a_runner_that_ended_has_ended_although_its_vm_runs_on_and_takes_its_place() {
        let exit = Exit { code: Some(0), out_of_memory: false, at: at(5), ..Exit::default() };
        let mut index = Index::default();
        index.replace(Instant::now(), vec![Vm { exit: Some(exit.clone()), ..vm("a", Some("r")) }], at(9));
        assert_eq!(state(&index, "a"), Some(InstanceState::Exited(exit)));
        assert_eq!(index.running().count(), 1);
    }

    #[test]
    fn listings_count_how_long_a_runner_was_not_started_and_a_spare_is_no_instance() {
        let (mut index, now) = (Index::default(), Instant::now());
        let unstarted = Vm { started: false, ..vm("a", Some("r")) };
        for looks in 1..=3 {
            index.replace(now, vec![unstarted.clone(), vm("spare", None)], at(1));
            assert_eq!(index.get("a").unwrap().unstarted, looks);
        }
        index.replace(now, vec![vm("a", Some("r")), vm("spare", None)], at(1));
        assert_eq!(index.get("a").unwrap().unstarted, 0);
        assert_eq!(state(&index, "spare"), None);
        assert!(
            index.get("spare").unwrap().is_spare_of("c") && !index.get("spare").unwrap().is_spare_of("x")
        );
    }
}
