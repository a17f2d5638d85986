//! What becomes of the removals that the controller has begun, and what leads to them.

use std::collections::HashSet;

use jiff::Timestamp;

use super::{BUSY_RETRY, Ledger, Retired};
use crate::runner::failure::Failure;
use crate::runner::{Operation, Phase, Registration, Runner};
use crate::time::Plus;

impl Ledger {
    /// What a runner that failed, or may have, printed last.
    pub fn add_log(&mut self, name: &str, log: &str) {
        self.failures.add_log(name, log);
    }

    /// Its removal begins.
    pub fn begin_removal(&mut self, name: &str) {
        if let Some(runner) = self.runners.get_mut(name) {
            runner.operation = Some(Operation::Removing);
            runner.leaving.retry_at = None;
        }
    }

    /// Its job runs for too long, and is stopped with it. Said once, too.
    pub fn job_timed_out(&mut self, name: &str, now: Timestamp) {
        let Some(runner) = self.runners.get(name).filter(|r| r.leaving.retry_at.is_none()) else {
            return;
        };
        let failure = Failure::job_timed_out(runner, now);
        self.failures.note(failure);
    }

    /// An idle runner begins to be recycled, because jobs that wait do not come to it. The next is not before the
    /// replacement of this one has had its chance.
    pub fn begin_recycling(&mut self, now: Timestamp) {
        self.demand.begin_recycling(now);
    }

    /// It was idle while jobs waited, and GitHub let go of it: a failure of its host, so that its replacement is started
    /// on another, if there is one.
    pub fn never_connected(&mut self, name: &str, now: Timestamp) {
        if let Some(runner) = self.runners.get(name) {
            let failure = Failure::never_connected(runner, now);
            self.failures.note(failure);
        }
    }

    /// GitHub does not know it any more.
    pub fn deregistered(&mut self, name: &str) {
        if let Some(runner) = self.runners.get_mut(name) {
            runner.registration = Registration::Absent;
        }
    }

    /// GitHub still had the registration of it, which goes with a runner's job: if it has ended, it never had one.
    pub fn was_registered(&mut self, name: &str, now: Timestamp) {
        self.demand.had_no_job(name, now, &mut self.failures);
    }

    /// GitHub answered that a job runs on it: it is busy, whatever else was believed. If GitHub has also said that the job
    /// is over it counts it no more, and neither do we; it is asked about again after a while.
    pub fn found_busy(&mut self, name: &str, now: Timestamp) {
        if let Some(runner) = self.runners.get_mut(name) {
            runner.operation = None;
            if !runner.occupies() {
                // It ended while the answer was under way.
                return;
            }
            runner.leaving.retry_at = Some(now.plus(BUSY_RETRY));
            runner.work.over_at = runner.work.over_at.map(|_| now);
            runner.enter(Phase::Busy, now);
        }
    }

    /// Its removal did not work: it stays, and is tried again after a while.
    pub fn removal_failed(&mut self, name: &str, retry_at: Timestamp) {
        if let Some(runner) = self.runners.get_mut(name) {
            runner.operation = None;
            runner.leaving.retry_at = Some(retry_at);
        }
    }

    /// Nothing of it is left: no instance, no registration.
    pub fn retire(&mut self, name: &str, now: Timestamp) {
        self.failures.forget_log(name);
        if let Some(Runner { name, backend, host, .. }) = self.runners.remove(name) {
            self.retired.insert(name, Retired { at: now, backend, host });
        }
    }

    /// Marks the runners for which there is no demand, and unmarks all others.
    pub fn mark_surplus(&mut self, names: &[String], now: Timestamp) {
        let names: HashSet<&str> = names.iter().map(String::as_str).collect();
        for runner in self.runners.values_mut() {
            if names.contains(runner.name.as_str()) {
                runner.leaving.surplus_since.get_or_insert(now);
            } else {
                runner.leaving.surplus_since = None;
            }
        }
    }
}
