//! What failed, and how long starts are held back for it.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;

use super::{Exit, Runner};
use crate::api::{Explanation, Reason};
use crate::time::Plus;

/// How many failures status shows.
const SHOWN: usize = 5;
/// How many are kept, so that each can be told.
const KEPT: usize = 200;
/// The first failure is answered at once; from the second in a row on, starts wait: this, doubled each time.
const FIRST_DELAY: Duration = Duration::from_secs(5);
/// No wait is longer.
const LONGEST_DELAY: Duration = Duration::from_secs(300);
/// A failure that is this old is no part of a row.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(1800);
/// So many failures within the window count as a row, whatever went well between them.
const BUDGET: usize = 3;
/// The window of the budget.
const WINDOW: Duration = Duration::from_secs(600);
/// The exit code of a runner that GitHub refused as too old (`ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE`).
const VERSION_REJECTED: i64 = 7;

/// One failure, as status shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The runner.
    pub runner: String,
    /// The backend.
    pub backend: String,
    /// The host.
    pub host: String,
    /// A CamelCase word.
    pub reason: Reason,
    /// What happened.
    pub message: String,
    /// The exit code, where there is one.
    pub exit_code: Option<i64>,
    /// When.
    pub at: Timestamp,
    /// Whether the next start waits for it.
    holds_back: bool,
    /// Whether GitHub is to blame, and not the host.
    by_github: bool,
    /// The template that failed.
    template_hash: String,
    /// Whether the message has what the runner printed last.
    has_log: bool,
}

impl Failure {
    fn new(runner: &Runner, reason: Reason, message: String, at: Timestamp) -> Failure {
        Failure {
            runner: runner.name.clone(),
            backend: runner.backend.clone(),
            host: runner.host.clone(),
            reason,
            message,
            exit_code: runner.seen.exit.as_ref().and_then(|e| e.code),
            at,
            holds_back: true,
            by_github: false,
            template_hash: runner.template_hash.clone(),
            has_log: false,
        }
    }

    fn add_log(&mut self, log: &str) {
        if !std::mem::replace(&mut self.has_log, true) {
            self.message = format!("{}; it printed last: {log}", self.message);
        }
    }

    pub(super) fn start(runner: &Runner, reason: Reason, message: &str, at: Timestamp) -> Failure {
        // A place that was full is no worse for it: it says itself when it may be tried again.
        let holds_back = reason != Reason::NoCapacity;
        Failure { holds_back, ..Failure::new(runner, reason, message.to_owned(), at) }
    }

    pub(super) fn registration(runner: &Runner, reason: Reason, message: &str, at: Timestamp) -> Failure {
        Failure { by_github: true, ..Failure::start(runner, reason, message, at) }
    }

    pub(super) fn never_connected(runner: &Runner, at: Timestamp) -> Failure {
        let message =
            format!("it was idle since {:.0}, and none of the jobs that waited came to it", runner.since);
        Failure::start(runner, Reason::NeverConnected, &message, at)
    }

    pub(super) fn job_lost(runner: &Runner, at: Timestamp) -> Failure {
        let how = match &runner.seen.exit {
            Some(exit) => describe(exit),
            None => "its instance is gone".to_owned(),
        };
        let job = runner.work.job.as_ref().map_or("its job", |j| j.display_name.as_str());
        let log = log_of(runner.seen.exit.as_ref());
        let message = format!("{how} while `{job}` was running{}{log}", page_of(runner));
        let cause = runner.seen.exit.as_ref().and_then(|exit| exit.cause.as_ref());
        let why = cause.map_or(Reason::JobLost, |cause| cause.why.reason);
        Failure { holds_back: false, ..Failure::new(runner, why, message, at) }
    }

    pub(super) fn job_timed_out(runner: &Runner, at: Timestamp) -> Failure {
        let job = runner.work.job.as_ref().map_or("its job", |j| j.display_name.as_str());
        let message = format!("`{job}` ran longer than timeouts.job{}", page_of(runner));
        Failure { holds_back: false, ..Failure::new(runner, Reason::JobTimeout, message, at) }
    }

    pub(super) fn ended_without_job(runner: &Runner, at: Timestamp) -> Failure {
        let Some(exit) = &runner.seen.exit else {
            let message = "its instance is gone".to_owned();
            return Failure { holds_back: false, ..Failure::new(runner, Reason::Vanished, message, at) };
        };
        let why = match exit {
            Exit { out_of_memory: true, .. } => Reason::OutOfMemory,
            Exit { cause: Some(cause), .. } => cause.why.reason,
            Exit { code: Some(VERSION_REJECTED), .. } => Reason::RunnerVersionRejected,
            exit if exit.killed() => Reason::Killed,
            _ => Reason::EndedWithoutJob,
        };
        let message = format!("{} before it had a job{}", describe(exit), log_of(Some(exit)));
        // What was killed from outside, or was well for a while, says nothing against the host or the template: it is
        // replaced at once.
        let blameless = exit.killed() || exit.cause.as_ref().is_some_and(|cause| cause.blameless);
        let holds_back = !blameless && runner.was_short_lived();
        Failure { holds_back, ..Failure::new(runner, why, message, at) }
    }
}

fn describe(exit: &Exit) -> String {
    match exit {
        Exit { out_of_memory: true, .. } => "it ran out of memory".to_owned(),
        Exit { cause: Some(cause), code: Some(code), .. } => {
            format!("{} (exit code {code})", cause.why.message)
        }
        Exit { cause: Some(cause), .. } => cause.why.message.clone(),
        Exit { code: Some(code), .. } => format!("it ended with exit code {code}"),
        Exit { code: None, .. } => "it ended".to_owned(),
    }
}

/// Where its job is to be seen, in brackets.
fn page_of(runner: &Runner) -> String {
    let page = runner.work.job.as_ref().and_then(|job| job.url.as_ref());
    page.map_or_else(String::new, |page| format!(" ({page})"))
}

/// Where what it printed is to be read, unless that would say nothing of its end.
fn log_of(exit: Option<&Exit>) -> String {
    let told = exit.filter(|exit| !exit.cause.as_ref().is_some_and(|cause| cause.blameless));
    told.and_then(|exit| exit.log.as_ref()).map(|log| format!("; its log: {log}")).unwrap_or_default()
}

/// Whose fault a failed start is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Blame {
    /// The host's, or that of what runs there: that host is left alone for a while.
    Host(String, String),
    /// GitHub's: nothing is started for a while.
    GitHub,
}

/// Failed starts in a row, or in a short time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FailureStreak {
    /// How many in a row.
    pub length: u32,
    /// When the first of them was.
    pub since: Timestamp,
    /// When the last of them was.
    last_at: Timestamp,
    /// Not before this is it tried again.
    pub retry_at: Option<Timestamp>,
    /// What the last one was.
    pub last: Option<Explanation>,
    /// When those within the window were.
    lately: Vec<Timestamp>,
}

impl FailureStreak {
    /// Starts that were made together and fail together count once.
    fn add(&mut self, failure: &Failure) {
        if self.retry_at.is_some_and(|retry_at| failure.at < retry_at) {
            return;
        }
        if self.length == 0 || self.is_forgotten(failure.at) {
            *self = FailureStreak {
                since: failure.at,
                lately: std::mem::take(&mut self.lately),
                ..FailureStreak::default()
            };
        }
        self.length += 1;
        self.last_at = failure.at;
        self.lately.retain(|at| at.plus(WINDOW) > failure.at);
        // One that was away is tried as soon as it is back.
        let away = failure.reason == Reason::HostUnreachable;
        if !away && self.lately.last().is_none_or(|at| at.plus(FIRST_DELAY) <= failure.at) {
            self.lately.push(failure.at);
        }
        let lately = if self.is_over_budget() { self.lately.len() } else { 0 };
        let counted = self.length.max(u32::try_from(lately).unwrap_or(u32::MAX));
        self.retry_at = delay(counted).map(|delay| failure.at.plus(delay));
        self.last = Some(Explanation::new(failure.reason, failure.message.as_str()));
    }

    /// A runner came to a job: the row is over, but not what the budget holds back.
    fn succeeded(&mut self) {
        self.length = 0;
        self.retry_at = self.retry_at.filter(|_| self.is_over_budget());
    }

    fn is_over_budget(&self) -> bool {
        self.lately.len() >= BUDGET
    }

    fn is_forgotten(&self, now: Timestamp) -> bool {
        self.last_at.plus(FORGOTTEN_AFTER) < now
    }

    fn holds(&self, now: Timestamp) -> bool {
        (self.length > 0 && !self.is_forgotten(now)) || self.retry_at.is_some_and(|at| at > now)
    }

    /// What is to be told of it.
    pub fn describe(&self, now: Timestamp) -> String {
        let next = match self.retry_at.filter(|at| *at > now) {
            Some(at) => format!("the next try is at {at:.0}"),
            None => "it is being tried again".to_owned(),
        };
        let failed = match self.lately.first() {
            Some(since) if self.lately.len() > self.length as usize => {
                format!("{} starts failed since {since:.0}", self.lately.len())
            }
            _ => format!("{} starts in a row failed since {:.0}", self.length, self.since),
        };
        let last =
            self.last.as_ref().map_or_else(String::new, |why| format!("{}: {}", why.reason, why.message));
        format!("{failed}, the last with {last}; {next}")
    }
}

/// The failures of one scale set.
#[derive(Debug, Default)]
pub struct Failures {
    recent: VecDeque<Failure>,
    streaks: HashMap<Blame, FailureStreak>,
    rejected_template: Option<String>,
    noted: u64,
    /// What runners printed last of which no failure is noted, by name.
    logs: HashMap<String, String>,
}

impl Failures {
    /// The last few, newest first.
    pub fn recent(&self) -> impl Iterator<Item = &Failure> {
        self.recent.iter().take(SHOWN)
    }

    /// Those that were noted after the first `noted`, newest first, as far as they are kept.
    pub fn since(&self, noted: u64) -> impl Iterator<Item = &Failure> {
        let fresh = usize::try_from(self.noted.saturating_sub(noted)).unwrap_or(usize::MAX);
        self.recent.iter().take(fresh)
    }

    /// How many were noted in all: tells new ones from those reported already.
    pub fn noted(&self) -> u64 {
        self.noted
    }

    /// The starts that failed in a row, or again and again, on a host, if any.
    pub fn on_host(&self, backend: &str, host: &str, now: Timestamp) -> Option<&FailureStreak> {
        self.streak(&Blame::Host(backend.to_owned(), host.to_owned()), now)
    }

    /// The starts that failed in a row, or again and again, because of GitHub, if any.
    pub fn at_github(&self, now: Timestamp) -> Option<&FailureStreak> {
        self.streak(&Blame::GitHub, now)
    }

    fn streak(&self, blame: &Blame, now: Timestamp) -> Option<&FailureStreak> {
        self.streaks.get(blame).filter(|streak| streak.holds(now))
    }

    /// The template whose runner GitHub refused as too old.
    pub fn rejected_template(&self) -> Option<&str> {
        self.rejected_template.as_deref()
    }

    /// Starts over: the spec or what it refers to was changed.
    pub fn reset(&mut self) {
        self.streaks.clear();
        self.rejected_template = None;
    }

    /// GitHub refused a runner of that template as too old.
    pub fn reject(&mut self, template_hash: &str) {
        self.rejected_template = Some(template_hash.to_owned());
    }

    /// A runner on that host came to a job.
    pub(super) fn succeeded(&mut self, backend: &str, host: &str) {
        for blame in [Blame::Host(backend.to_owned(), host.to_owned()), Blame::GitHub] {
            if let Some(streak) = self.streaks.get_mut(&blame) {
                streak.succeeded();
            }
        }
    }

    pub(super) fn note(&mut self, mut failure: Failure) {
        if failure.holds_back {
            let blame = match failure.by_github {
                true => Blame::GitHub,
                false => Blame::Host(failure.backend.clone(), failure.host.clone()),
            };
            self.streaks.entry(blame).or_default().add(&failure);
        }
        // Whether or not it had a job when it was refused.
        if failure.exit_code == Some(VERSION_REJECTED) {
            self.reject(&failure.template_hash);
        }
        if let Some(log) = self.logs.remove(&failure.runner) {
            failure.add_log(&log);
        }
        self.noted += 1;
        self.recent.push_front(failure);
        self.recent.truncate(KEPT);
    }

    /// Whether a failure of a runner is told without what the runner printed last.
    pub fn lacks_log(&self, runner: &str) -> bool {
        self.recent.iter().any(|failure| failure.runner == runner && !failure.has_log)
    }

    /// Adds to the report of a runner's failure what the runner printed last. Until one is noted it is kept for it.
    pub(super) fn add_log(&mut self, runner: &str, log: &str) {
        match self.recent.iter_mut().find(|failure| failure.runner == runner) {
            Some(failure) => failure.add_log(log),
            None => drop(self.logs.insert(runner.to_owned(), log.to_owned())),
        }
    }

    /// No failure of that runner is noted any more.
    pub(super) fn forget_log(&mut self, runner: &str) {
        self.logs.remove(runner);
    }
}

/// How long starts wait after so many failures in a row.
fn delay(in_a_row: u32) -> Option<Duration> {
    let doublings = in_a_row.checked_sub(2)?;
    Some(FIRST_DELAY.saturating_mul(2u32.saturating_pow(doublings)).min(LONGEST_DELAY))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn start_failure(second: i64) -> Failure {
        let runner = Runner::pending("r", "b", "h", "t", at(second));
        Failure::start(&runner, Reason::EngineError, "no", at(second))
    }

    fn retry_at(failures: &Failures) -> Option<Timestamp> {
        failures.on_host("b", "h", at(0)).unwrap().retry_at
    }

    #[test]
    fn the_first_failure_is_free_and_each_further_one_waits_longer() {
        let mut failures = Failures::default();
        failures.note(start_failure(0));
        assert_eq!(retry_at(&failures), None);
        let mut now = 0;
        let mut waits = Vec::new();
        for _ in 0..9 {
            failures.note(start_failure(now));
            let retry_at = retry_at(&failures).unwrap();
            waits.push(retry_at.as_second() - now);
            now = retry_at.as_second();
        }
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
        assert!(failures.on_host("b", "other", at(now)).is_none() && failures.at_github(at(now)).is_none());
        failures.succeeded("b", "h");
        assert!(failures.on_host("b", "h", at(now)).is_none());
    }

    /// An engine that is restarted again and again.
    #[test]
    fn a_host_that_was_away_is_tried_as_soon_as_it_is_back() {
        let mut failures = Failures::default();
        for second in (0..300).step_by(15) {
            failures.note(Failure { reason: Reason::HostUnreachable, ..start_failure(second) });
            failures.succeeded("b", "h");
            assert_eq!(failures.on_host("b", "h", at(second)), None, "second {second}");
        }
    }

    #[test]
    fn half_an_hour_ends_a_row() {
        let mut failures = Failures::default();
        failures.note(start_failure(0));
        failures.note(Failure { by_github: true, ..start_failure(0) });
        let told = |at| failures.on_host("b", "h", at).is_some() && failures.at_github(at).is_some();
        let silent = |at| failures.on_host("b", "h", at).is_none() && failures.at_github(at).is_none();
        assert!(told(at(1800)) && silent(at(1801)));
    }

    /// A host on which every second start fails.
    #[test]
    fn three_failures_in_ten_minutes_hold_back_though_others_went_well() {
        let mut failures = Failures::default();
        for (second, retry_at) in [(0, None), (100, None), (200, Some(210)), (300, Some(320)), (2000, None)] {
            failures.note(start_failure(second));
            let now = at(second);
            failures.succeeded("b", "h");
            let streak = failures.on_host("b", "h", now);
            assert_eq!(streak.and_then(|streak| streak.retry_at), retry_at.map(at), "second {second}");
            if let Some(streak) = streak {
                assert!(streak.describe(now).contains("starts failed since 1970-01-01T00:00:00Z"));
            }
            assert_eq!(failures.on_host("b", "h", at(second + 60)), None);
        }
    }

    #[test]
    fn what_a_runner_printed_last_is_told_once_however_late_its_failure_is() {
        let told = |failures: &Failures| failures.recent().map(|f| f.message.clone()).collect::<Vec<_>>();
        let mut failures = Failures::default();
        failures.add_log("r", "full disk");
        failures.note(start_failure(0));
        failures.add_log("r", "full disk");
        assert_eq!(told(&failures), ["no; it printed last: full disk"]);

        let mut failures = Failures::default();
        failures.note(start_failure(0));
        assert!(failures.lacks_log("r"));
        (0..3).for_each(|_| failures.add_log("r", "full disk"));
        assert_eq!(told(&failures), ["no; it printed last: full disk"]);
        assert!(!failures.lacks_log("r"));

        let mut failures = Failures::default();
        failures.add_log("r", "all is well");
        failures.forget_log("r");
        failures.note(start_failure(0));
        assert_eq!(told(&failures), ["no"]);
    }

    #[test]
    fn failures_of_one_wave_count_once() {
        let mut failures = Failures::default();
        (0..30).for_each(|_| failures.note(start_failure(0)));
        assert_eq!(retry_at(&failures), Some(at(5)));
        assert_eq!((failures.recent().count(), failures.since(1).count()), (SHOWN, 29));
    }
}
