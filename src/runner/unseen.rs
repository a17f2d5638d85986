//! Runners on hosts that have not been listed since this process began. Status names a hundred runners at most, but says of
//! each host how many there were.

use std::collections::BTreeMap;

use super::Observation;

/// How many runners an earlier controller counted on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostCount {
    /// The backend.
    pub backend: String,
    /// The host.
    pub host: String,
    /// How many took a slot there.
    pub runners: u32,
}

/// How many runners of hosts that have not been listed yet nobody has named, by backend and host.
#[derive(Debug, Default)]
pub(super) struct Unseen(BTreeMap<(String, String), u32>);

impl Unseen {
    pub(super) fn restore(&mut self, counts: impl IntoIterator<Item = HostCount>) {
        self.0.extend(counts.into_iter().map(|count| ((count.backend, count.host), count.runners)));
    }

    /// Forgets the hosts that have been listed: what is there is known now. A host that nobody can ask is forgotten when
    /// all others have been listed, as its runners are.
    pub(super) fn observe(&mut self, observations: &[Observation]) {
        let all_listed = !observations.is_empty() && observations.iter().all(|o| o.listed_at.is_some());
        self.0.retain(|(backend, host), _| {
            let mut of_host = observations.iter().filter(|o| o.backend == *backend && o.host == *host);
            !of_host.next().map_or(all_listed, |o| o.listed_at.is_some())
        });
    }

    pub(super) fn rename_host(&mut self, backend: &str, from: &str, to: &str) {
        if let Some(count) = self.0.remove(&(backend.to_owned(), from.to_owned())) {
            self.0.insert((backend.to_owned(), to.to_owned()), count);
        }
    }

    pub(super) fn forget(&mut self, backend: &str, host: &str) {
        self.0.remove(&(backend.to_owned(), host.to_owned()));
    }

    /// Counts the runners on the hosts that are `wanted`, by backend and name.
    pub(super) fn count(&self, wanted: impl Fn(&str, &str) -> bool) -> u32 {
        let wanted = self.0.iter().filter(|((backend, host), _)| wanted(backend, host));
        wanted.map(|(_, runners)| *runners).fold(0, u32::saturating_add)
    }
}
