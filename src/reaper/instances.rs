//! Instances that carry this cluster's identity and belong to no scale set that is known.

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
    /// One look at all instances of this cluster; answers those of which it should now be asked, live, whether their
    /// scale set is gone. `known` are the UIDs of the scale sets that are there.
    pub fn look(&mut self, all: Vec<Stray>, known: &HashSet<String>, now: Timestamp) -> Vec<Stray> {
        let key = |stray: &Stray| (stray.endpoint.clone(), stray.instance.id.clone());
        let strays: Vec<Stray> =
            all.into_iter().filter(|stray| !known.contains(&stray.instance.scale_set_uid)).collect();
        let ripe: HashSet<_> = self.0.look(strays.iter().map(key), now).into_iter().collect();
        strays.into_iter().filter(|stray| ripe.contains(&key(stray))).collect()
    }
}
