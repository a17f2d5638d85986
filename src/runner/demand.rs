//! What GitHub asks for, corrected by what it does not know yet.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::failure::{Failure, Failures};
use super::{Exit, Runner, Statistics};
use crate::time::Plus;

/// GitHub gives up on a runner after about 10 minutes of silence; until then it counts the dead runner's job as
/// running, and no other runner can have it.
const DEAD_RUNNER: Duration = Duration::from_secs(15 * 60);
/// A runner takes a job within seconds of both being there; GitHub assigns one anew after 5 minutes.
const PHANTOM_AFTER: Duration = Duration::from_secs(6 * 60);
/// Within this, GitHub assigns a job again that it has taken back.
const REASSIGNED: Duration = Duration::from_secs(60);
/// Within this, GitHub's messages about a runner that ended have come, if they can be heard.
const MESSAGES_ARRIVE: Duration = Duration::from_secs(10);
/// Messages that cannot be heard are waited for no longer than this.
const LONGEST_SILENCE: Duration = Duration::from_secs(5 * 60);

/// The demand of one scale set.
#[derive(Debug, Default)]
pub struct Demand {
    latest: Option<(Statistics, Timestamp)>,
    /// The last reading was contradicted by what runs, and left aside.
    doubted: bool,
    /// Jobs whose runner ended and whose completion GitHub has not told yet, by job id.
    ended: BTreeMap<String, EndedJob>,
    /// That idle runners leave assigned jobs alone.
    untaken: Option<Untaken>,
    /// Runners that ended cleanly, and whose job, if there was one, is not known yet.
    unexplained: BTreeMap<String, Unexplained>,
}

/// A job whose runner ended, and which GitHub is believed to count.
#[derive(Debug)]
struct EndedJob {
    until: Timestamp,
    /// Its runner was found ended: an earlier controller may have heard that the job is over.
    found: bool,
}

/// That idle runners leave assigned jobs alone.
#[derive(Debug)]
struct Untaken {
    since: Timestamp,
    /// Whether it is so now: GitHub takes a job back now and then, and assigns it again.
    now: bool,
    /// When it was last so.
    last: Timestamp,
    /// When the last of those runners began to be recycled.
    recycled_at: Option<Timestamp>,
}

/// A runner that ended cleanly, and whose job, if there was one, is not known yet.
#[derive(Debug)]
struct Unexplained {
    runner: Runner,
    at: Timestamp,
    /// GitHub counted more jobs than there were busy runners: one of them may have been its.
    counted: bool,
    /// When GitHub was first heard of again, late enough for the messages to be under way.
    answered_at: Option<Timestamp>,
}

impl Unexplained {
    /// When messages are not waited for any more. An earlier controller may have heard those of a runner that was found
    /// ended.
    fn settles_at(&self) -> Timestamp {
        let answered_at = if self.runner.seen.found_ended { Some(self.at) } else { self.answered_at };
        let longest = self.at.plus(LONGEST_SILENCE);
        answered_at.map_or(longest, |at| longest.min(at.plus(MESSAGES_ARRIVE)))
    }

    /// GitHub has been seen to drop idle runners after minutes, which then end cleanly: that is no failure.
    fn conclude(self, now: Timestamp, failures: &mut Failures) {
        let dropped =
            self.runner.seen.exit.as_ref().is_some_and(Exit::clean) && !self.runner.was_short_lived();
        if !self.runner.seen.found_ended && !dropped {
            failures.note(Failure::ended_without_job(&self.runner, now));
        }
    }
}

impl Demand {
    /// The last counts, and when they were read.
    pub fn latest(&self) -> Option<(Statistics, Timestamp)> {
        self.latest
    }

    /// Jobs that want a runner: those assigned, less those whose runner has ended already.
    pub fn assigned(&self) -> Option<u32> {
        let gone = self.ended.len() + self.unexplained.values().filter(|u| u.counted).count();
        self.latest.map(|(s, _)| s.assigned.saturating_sub(u32::try_from(gone).unwrap_or(u32::MAX)))
    }

    /// Since when idle runners leave assigned jobs alone, if that is long enough to be no delay any more.
    pub fn phantom_since(&self, now: Timestamp) -> Option<Timestamp> {
        self.untaken_now().map(|untaken| untaken.since).filter(|since| since.plus(PHANTOM_AFTER) <= now)
    }

    fn untaken_now(&self) -> Option<&Untaken> {
        self.untaken.as_ref().filter(|untaken| untaken.now)
    }

    /// When an idle runner is to be recycled, if it leaves assigned jobs alone for as long, and no other goes before it.
    /// The next is not before the replacement of the last has had as much time.
    pub fn recycling_due(&self, idle: &Runner) -> Option<Timestamp> {
        let untaken = self.untaken_now()?;
        Some(untaken.recycled_at.unwrap_or(untaken.since).max(idle.since).plus(PHANTOM_AFTER))
    }

    /// One of the idle runners that leave assigned jobs alone begins to be recycled.
    pub(super) fn begin_recycling(&mut self, now: Timestamp) {
        if let Some(untaken) = &mut self.untaken {
            untaken.recycled_at = Some(now);
        }
    }

    /// When time alone changes what this says.
    pub fn settles_at(&self) -> Option<Timestamp> {
        let messages = self.unexplained.values().map(Unexplained::settles_at);
        let untaken = self.untaken.as_ref().map(|untaken| untaken.since.plus(PHANTOM_AFTER));
        messages.chain(self.ended.values().map(|job| job.until)).chain(untaken).min()
    }

    /// Notes whether idle runners leave assigned jobs alone, as far as GitHub has said lately. Of what runs, an earlier
    /// controller may have heard.
    pub(super) fn compare(&mut self, idle: u32, busy: u32, now: Timestamp) {
        if self.latest.is_some_and(|(latest, _)| latest.running <= busy) {
            self.ended.retain(|_, job| !job.found);
        }
        // GitHub counts the jobs of runners that have died as running for a while: they are off the demand already.
        let dead = u32::try_from(self.ended.len()).unwrap_or(u32::MAX);
        let busy = self.latest.map_or(busy, |(latest, _)| busy.max(latest.running.saturating_sub(dead)));
        let heard_lately = self.latest.is_some_and(|(_, at)| at.plus(PHANTOM_AFTER) > now);
        let wait = self.assigned().is_some_and(|assigned| assigned > busy);
        let before = self.untaken.take().filter(|untaken| wait || untaken.last.plus(REASSIGNED) > now);
        if idle == 0 || !heard_lately {
            return;
        }
        self.untaken = match before {
            Some(untaken) if wait => Some(Untaken { now: true, last: now, ..untaken }),
            Some(untaken) => Some(Untaken { now: false, ..untaken }),
            None => wait.then_some(Untaken { since: now, now: true, last: now, recycled_at: None }),
        };
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
        let Some(job) = &runner.work.job else { return };
        let dead = !runner.seen.exit.as_ref().is_some_and(Exit::clean);
        let until = now.plus(if dead { DEAD_RUNNER } else { MESSAGES_ARRIVE });
        self.ended.insert(job.id.clone(), EndedJob { until, found: runner.seen.found_ended });
    }

    /// A runner ended cleanly, and so many others are busy. If it had a job that GitHub has told of, that is over.
    pub(super) fn ended_unexplained(&mut self, runner: &Runner, busy: u32, now: Timestamp) {
        let counted = self.assigned().is_some_and(|assigned| assigned > busy);
        let unexplained = Unexplained { runner: runner.clone(), at: now, counted, answered_at: None };
        self.unexplained.insert(runner.name.clone(), unexplained);
    }

    /// GitHub was heard of. Answers whether someone waits for what it says next.
    pub(super) fn answered(&mut self, now: Timestamp) -> bool {
        let waits = |u: &&mut Unexplained| u.answered_at.is_none() && u.at.plus(MESSAGES_ARRIVE) <= now;
        let waiting = self.unexplained.values_mut().filter(waits);
        waiting.map(|unexplained| unexplained.answered_at = Some(now)).count() > 0
    }

    /// It is certain that a runner that ended had no job.
    pub(super) fn had_no_job(&mut self, runner: &str, now: Timestamp, failures: &mut Failures) {
        if let Some(unexplained) = self.unexplained.remove(runner) {
            unexplained.conclude(now, failures);
        }
    }

    /// A runner that had been idle for a while came to a job: so will others.
    pub(super) fn idle_taken(&mut self) {
        self.untaken = None;
    }

    pub(super) fn started(&mut self, runner: &str, job_id: &str, now: Timestamp) {
        if self.unexplained.remove(runner).is_some() {
            let until = now.plus(MESSAGES_ARRIVE);
            self.ended.insert(job_id.to_owned(), EndedJob { until, found: false });
        }
    }

    pub(super) fn completed(&mut self, runner: &str, job_id: &str) {
        self.ended.remove(job_id);
        self.unexplained.remove(runner);
    }

    /// Gives up waiting for messages that should have come: a runner that ended cleanly without a job is a failure.
    pub(super) fn settle(&mut self, now: Timestamp, failures: &mut Failures) {
        self.ended.retain(|_, job| job.until > now);
        for (_, late) in self.unexplained.extract_if(.., |_, unexplained| unexplained.settles_at() <= now) {
            late.conclude(now, failures);
        }
    }
}
