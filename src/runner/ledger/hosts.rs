//! What the ledger is told of hosts: how many runners they had, which of them drain, and what they are called.

use jiff::Timestamp;

use super::Ledger;
use crate::runner::{HostCount, Registration, Runner};

impl Ledger {
    /// Takes over how many runners the status of the object says are on each host: it does not name them all, and those that
    /// it names are known already. The others count until the host has been listed.
    pub fn restore_counts(&mut self, counts: impl IntoIterator<Item = HostCount>) {
        let unnamed = |count: HostCount| {
            let here = |r: &&Runner| r.occupies() && r.backend == count.backend && r.host == count.host;
            let named = self.runners.values().filter(here).count();
            let runners = count.runners.saturating_sub(u32::try_from(named).unwrap_or(u32::MAX));
            HostCount { runners, ..count }
        };
        self.unseen.restore(counts.into_iter().map(unnamed));
    }

    /// Counts the runners that an earlier controller had and did not name: those on the hosts that are `wanted`, by backend
    /// and name.
    pub fn unseen(&self, wanted: impl Fn(&str, &str) -> bool) -> u32 {
        self.unseen.count(wanted)
    }

    /// Marks the runners on hosts that drain, by backend and name, and unmarks all others.
    pub fn mark_draining(&mut self, drains: impl Fn(&str, &str) -> bool) {
        for runner in self.runners.values_mut() {
            runner.leaving.draining = drains(&runner.backend, &runner.host);
        }
    }

    /// Marks the runners on hosts that are lost, by backend and name, and unmarks all others. Those that no job can be on any
    /// more are forgotten: whatever is left of them is seen when their host is.
    pub fn mark_lost(&mut self, lost: &[(String, String)], now: Timestamp) {
        let is_lost = |runner: &Runner| {
            lost.iter().any(|(backend, host)| runner.backend == *backend && runner.host == *host)
        };
        self.runners.values_mut().for_each(|runner| runner.leaving.host_lost = is_lost(runner));
        for (backend, host) in lost {
            self.give_up(backend, host, now);
        }
    }

    /// Calls a host of a backend otherwise from now on.
    pub fn rename_host(&mut self, backend: &str, from: &str, to: &str) {
        let there = |runner: &&mut Runner| runner.backend == backend && runner.host == from;
        self.runners.values_mut().filter(there).for_each(|runner| to.clone_into(&mut runner.host));
        self.unseen.rename_host(backend, from, to);
    }

    /// Gives up the runners of a host that does not come back, as far as they have ended or have no registration, so that no
    /// job can be on them. Answers their names.
    pub fn give_up(&mut self, backend: &str, host: &str, now: Timestamp) -> Vec<String> {
        self.unseen.forget(backend, host);
        let over = |runner: &&Runner| {
            let there = runner.backend == backend && runner.host == host;
            let over = !runner.occupies() || runner.registration == Registration::Absent;
            there && over && runner.operation.is_none()
        };
        let names: Vec<String> =
            self.runners.values().filter(over).map(|runner| runner.name.clone()).collect();
        names.iter().for_each(|name| self.retire(name, now));
        names
    }
}
