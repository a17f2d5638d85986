//! Runners, counted the ways that a decision needs.

use crate::runner::{Ledger, Phase};

/// Runners, counted the ways a decision needs.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Those that take a slot.
    pub occupying: u32,
    /// Those that can be counted on for demand.
    pub serving: u32,
    /// Of these, the ones with a job.
    pub busy: u32,
    /// Of these, the ones that are up.
    pub up: u32,
}

impl Counts {
    pub fn of(ledger: &Ledger) -> Counts {
        let mut counts = Counts::default();
        for runner in ledger.runners() {
            counts.occupying += u32::from(runner.occupies());
            counts.serving += u32::from(runner.serves());
            counts.busy += u32::from(runner.serves() && runner.phase == Phase::Busy);
            counts.up += u32::from(runner.serves() && runner.phase != Phase::Pending);
        }
        // What they do is not known; until it is, they count as any runner that only a status tells of.
        let unseen = ledger.unseen(|_, _| true);
        for count in [&mut counts.occupying, &mut counts.serving, &mut counts.up] {
            *count = count.saturating_add(unseen);
        }
        counts
    }

    /// Leaves out busy runners beyond GitHub's job count: they have finished, as an earlier controller may have heard, and are
    /// not capacity.
    pub fn without_finished(self, assigned: Option<u32>) -> Counts {
        let over = assigned.map_or(0, |assigned| self.busy.saturating_sub(assigned));
        Counts { serving: self.serving - over, busy: self.busy - over, up: self.up - over, ..self }
    }
}
