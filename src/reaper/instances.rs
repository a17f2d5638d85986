//! Instances that carry this cluster's identity and that nobody looks after: their scale set is not known, or has no backend
//! on that host.

use std::collections::HashSet;
use std::time::Duration;

use jiff::Timestamp;

use super::looks::Looks;
use crate::backend::{HostKey, OwnedInstance};

/// Nothing is taken for an orphan that was not one for so long: a cache may be behind, an object may be restored.
const AGE: Duration = Duration::from_secs(600);

/// The looks at instances of unknown scale sets.
#[derive(Debug)]
pub struct OrphanInstances(Looks<(HostKey, String)>);

impl Default for OrphanInstances {
    fn default() -> OrphanInstances {
        OrphanInstances(Looks::new(2, AGE))
    }
}

impl OrphanInstances {
    /// One look at all instances of this cluster; answers those about which something should be done now. `looked_after` says
    /// of each whether a scale set that is there has a backend on its host.
    pub fn look(
        &mut self,
        all: Vec<OwnedInstance>,
        mut looked_after: impl FnMut(&OwnedInstance) -> bool,
        now: Timestamp,
    ) -> Vec<OwnedInstance> {
        let key = |found: &OwnedInstance| (found.host.clone(), found.instance.id.clone());
        let orphans: Vec<OwnedInstance> = all.into_iter().filter(|found| !looked_after(found)).collect();
        let ripe: HashSet<_> = self.0.look(orphans.iter().map(key), now).into_iter().collect();
        orphans.into_iter().filter(|orphan| ripe.contains(&key(orphan))).collect()
    }
}
