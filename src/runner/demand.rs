//! What GitHub asks for, corrected by what it does not know yet.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::failure::{Failure, Failures};
use super::{Exit, Runner, Statistics};

/// GitHub gives up on a runner after about 10 minutes of silence; until then it counts the dead runner's job as
/// running, and no other runner can have it.
const DEAD_RUNNER: Duration = Duration::from_secs(15 * 60);
/// A runner takes a job within seconds of both being there; GitHub assigns one anew after 5 minutes.
const PHANTOM_AFTER: Duration = Duration::from_secs(6 * 60);
/// Within this, GitHub's messages about a runner that ended have come.
const MESSAGES_ARRIVE: Duration = Duration::from_secs(10);

/// The demand of one scale set.
#[derive(Debug, Default)]
pub struct Demand {
    latest: Option<(Statistics, Timestamp)>,
    /// The last reading was contradicted by what runs, and left aside.
    doubted: bool,
    /// Jobs whose runner ended and whose completion GitHub has not told yet, by job id: for how long that is believed.
    ended: BTreeMap<String, Timestamp>,
    /// Since when idle runners leave assigned jobs alone.
    untaken_since: Option<Timestamp>,
    /// Runners that ended cleanly, and whose job, if there was one, is not known yet.
    unexplained: BTreeMap<String, (Runner, Timestamp)>,
}

impl Demand {
    /// The last counts, and when they were read.
    pub fn latest(&self) -> Option<(Statistics, Timestamp)> {
        self.latest
    }

    /// Jobs that want a runner: those assigned, less those whose runner has ended already.
    pub fn assigned(&self) -> Option<u32> {
        let gone = self.ended.len() + self.unexplained.len();
        self.latest.map(|(s, _)| s.assigned.saturating_sub(u32::try_from(gone).unwrap_or(u32::MAX)))
    }

    /// Since when idle runners leave assigned jobs alone, if that is long enough to be no delay any more.
    pub fn phantom_since(&self, now: Timestamp) -> Option<Timestamp> {
        self.untaken_since.filter(|since| *since + PHANTOM_AFTER <= now)
    }

    /// When time alone changes what this says.
    pub fn settles_at(&self) -> Option<Timestamp> {
        let messages = self.unexplained.values().map(|(_, at)| *at + MESSAGES_ARRIVE);
        let untaken = self.untaken_since.map(|since| since + PHANTOM_AFTER);
        messages.chain(self.ended.values().copied()).chain(untaken).min()
    }

    /// Notes whether idle runners leave assigned jobs alone.
    pub(super) fn compare(&mut self, idle: u32, busy: u32, now: Timestamp) {
        if idle > 0 && self.assigned().is_some_and(|assigned| assigned > busy) {
            self.untaken_since.get_or_insert(now);
        } else {
            self.untaken_since = None;
        }
    }

    /// Takes over a reading. One that is contradicted by what runs is believed when the next is contradicted too.
    pub(super) fn count(&mut self, statistics: Statistics, contradicted: bool, now: Timestamp) {
        self.doubted = contradicted && !self.doubted;
        if !self.doubted {
            self.latest = Some((statistics, now));
        }
    }

    /// A runner that ended cleanly reported its job's end before its own: GitHub's counts lag behind for a moment only,
    /// and an earlier controller may have heard of it already.
    pub(super) fn ended_with_job(&mut self, runner: &Runner, now: Timestamp) {
        let Some(job) = &runner.job else { return };
        let dead = !runner.exit.as_ref().is_some_and(Exit::clean);
        self.ended.insert(job.id.clone(), now + if dead { DEAD_RUNNER } else { MESSAGES_ARRIVE });
    }

    pub(super) fn ended_unexplained(&mut self, runner: &Runner, now: Timestamp) {
        self.unexplained.insert(runner.name.clone(), (runner.clone(), now));
    }

    pub(super) fn started(&mut self, runner: &str, job_id: &str, now: Timestamp) {
        if self.unexplained.remove(runner).is_some() {
            self.ended.insert(job_id.to_owned(), now + MESSAGES_ARRIVE);
        }
    }

    pub(super) fn completed(&mut self, runner: &str, job_id: &str) {
        self.ended.remove(job_id);
        self.unexplained.remove(runner);
    }

    /// Gives up waiting for messages that should have come: a runner that ended cleanly without a job is a failure. An
    /// earlier controller may have heard those of one that was found ended.
    pub(super) fn settle(&mut self, now: Timestamp, failures: &mut Failures) {
        self.ended.retain(|_, until| *until > now);
        let (late, waiting) = std::mem::take(&mut self.unexplained)
            .into_iter()
            .partition(|(_, (_, at))| *at + MESSAGES_ARRIVE <= now);
        self.unexplained = waiting;
        for (runner, _) in BTreeMap::into_values(late).filter(|(runner, _)| !runner.found_ended) {
            failures.note(Failure::ended_without_job(&runner, now));
        }
    }
}
