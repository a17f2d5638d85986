//! Instances that carry this cluster's identity and that nobody looks after: their scale set is not known, or has no backend
//! on that host.

use std::collections::HashSet;
use std::time::Duration;

use jiff::Timestamp;

use super::looks::Looks;
use crate::runner::Instance;

/// Nothing is taken for an orphan that was not one for so long: a cache may be behind, an object may be restored.
const AGE: Duration = Duration::from_secs(600);

/// An instance as the sweep sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stray {
    /// Where it is: the host's endpoint.
    pub endpoint: String,
    /// `namespace/name` of the scale set that it was made for.
    pub scale_set: String,
    /// The instance.
    pub instance: Instance,
}

/// The looks at instances of unknown scale sets.
#[derive(Debug)]
pub struct Strays(Looks<(String, String)>);

impl Default for Strays {
    fn default() -> Strays {
        Strays(Looks::new(2, AGE))
    }
}

impl Strays {
    /// One look at all instances of this cluster; answers those about which something should be done now. `looked_after` says
    /// of each whether a scale set that is there has a backend on its host.
    pub fn look(
        &mut self,
        all: Vec<Stray>,
        mut looked_after: impl FnMut(&Stray) -> bool,
        now: Timestamp,
    ) -> Vec<Stray> {
        let key = |stray: &Stray| (stray.endpoint.clone(), stray.instance.id.clone());
        let strays: Vec<Stray> = all.into_iter().filter(|stray| !looked_after(stray)).collect();
        let ripe: HashSet<_> = self.0.look(strays.iter().map(key), now).into_iter().collect();
        strays.into_iter().filter(|stray| ripe.contains(&key(stray))).collect()
    }
}
