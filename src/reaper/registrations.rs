//! Registrations at GitHub that no instance stands for: a crash between minting and creating leaves one.

use std::collections::HashSet;
use std::time::Duration;

use jiff::Timestamp;

use super::looks::Looks;
use crate::github::ListedRunner;

/// GitHub's list is asked for no more often than this with one credential: it counts against the rate limit.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// So many lists are looked at whatever GitHub counts. It counts with its messages alone, and those may be long in coming to
/// a scale set whose earlier controller left registrations; and it takes a lost runner for online for minutes.
const FIRST_LOOKS: u32 = 4;

/// The looks at registrations of one scale set.
#[derive(Debug)]
pub struct OrphanRegistrations {
    looks: Looks<i64>,
    looked: u32,
}

impl Default for OrphanRegistrations {
    fn default() -> OrphanRegistrations {
        // Two lists are an interval apart: that is age enough.
        OrphanRegistrations { looks: Looks::new(2, Duration::ZERO), looked: 0 }
    }
}

impl OrphanRegistrations {
    /// Whether it was looked at often enough to go by GitHub's counts from now on.
    pub fn is_settled(&self) -> bool {
        self.looked >= FIRST_LOOKS
    }

    /// One look at all registrations that the credential sees; answers those that are to be removed once GitHub has
    /// confirmed that they are of this scale set. `known` are the names that the ledger speaks for.
    pub fn look(
        &mut self,
        all: &[ListedRunner],
        scale_set_name: &str,
        known: &HashSet<String>,
        now: Timestamp,
    ) -> Vec<ListedRunner> {
        let ours = |runner: &&ListedRunner| {
            !runner.online
                && !runner.busy
                && is_runner_of(&runner.name, scale_set_name)
                && !known.contains(&runner.name)
        };
        self.looked = self.looked.saturating_add(1);
        let ripe: HashSet<i64> =
            self.looks.look(all.iter().filter(ours).map(|runner| runner.id), now).into_iter().collect();
        all.iter().filter(|runner| ripe.contains(&runner.id)).cloned().collect()
    }
}

/// Whether a name is one that [`crate::runner::runner_name`] makes for that scale set.
fn is_runner_of(name: &str, scale_set_name: &str) -> bool {
    let suffix = name.strip_prefix(scale_set_name).and_then(|rest| rest.strip_prefix('-'));
    suffix.is_some_and(|s| s.len() == 8 && s.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(id: i64, name: &str, online: bool) -> ListedRunner {
        ListedRunner { id, name: name.to_owned(), online, busy: false }
    }

    #[test]
    fn only_what_is_offline_ours_unknown_and_seen_twice_is_named() {
        let all = [
            listed(1, "linux-abcd1234", false),
            listed(2, "linux-abcd1235", true),
            listed(3, "linux-known123", false),
            listed(4, "linux-gpu-abcd1236", false),
            listed(5, "someone-else", false),
        ];
        let known = HashSet::from(["linux-known123".to_owned()]);
        let mut abandoned = OrphanRegistrations::default();
        assert!(abandoned.look(&all, "linux", &known, Timestamp::UNIX_EPOCH).is_empty());
        let named = abandoned.look(&all, "linux", &known, Timestamp::UNIX_EPOCH);
        assert_eq!(named.iter().map(|r| r.id).collect::<Vec<_>>(), [1]);
    }
}
