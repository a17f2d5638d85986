//! What becomes of the starts that the controller has begun.

use jiff::Timestamp;

use super::{Ledger, UNLISTED_SETTLES};
use crate::api::Reason;
use crate::runner::failure::Failure;
use crate::runner::{Instance, Operation, Phase, Registration, Runner};
use crate::time::Plus;

impl Ledger {
    /// A runner is asked for: from now on it takes a slot.
    pub fn begin_start(&mut self, mut runner: Runner) {
        runner.operation = Some(Operation::Preparing);
        self.runners.insert(runner.name.clone(), runner);
    }

    /// Its host is ready for it: it is registered and started now, and `timeouts.start` counts from here. Answers false if
    /// it is not wanted any more.
    pub fn host_ready(&mut self, name: &str, now: Timestamp) -> bool {
        let preparing = |runner: &&mut Runner| runner.operation == Some(Operation::Preparing);
        let Some(runner) = self.runners.get_mut(name).filter(preparing) else { return false };
        runner.operation = Some(Operation::Starting);
        runner.since = now;
        true
    }

    /// Its host could not be made ready, for the reason given: nothing of it is anywhere, not even a registration.
    pub fn host_not_ready(&mut self, name: &str, reason: Reason, message: &str, now: Timestamp) {
        self.deregistered(name);
        self.start_failed(name, reason, message, now);
    }

    /// GitHub registered it.
    pub fn registered(&mut self, name: &str, runner_id: i64) {
        if let Some(runner) = self.runners.get_mut(name) {
            runner.registration = Registration::Present(runner_id);
        }
    }

    /// GitHub's list lacks it. Answers whether that is to be believed: the first time it is not.
    pub fn unlisted(&mut self, name: &str, now: Timestamp) -> bool {
        let Some(runner) = self.runners.get_mut(name) else { return true };
        runner.unlisted_since.get_or_insert(now).plus(UNLISTED_SETTLES) <= now
    }

    /// Its instance is up.
    pub fn start_succeeded(&mut self, instance: &Instance, now: Timestamp) {
        let Some(runner) = self.runners.get_mut(&instance.runner) else {
            return;
        };
        runner.operation = None;
        runner.observe(instance, now);
        if runner.seen.exit.is_some() && runner.occupies() {
            self.end(&instance.runner, now);
        }
    }

    /// It was not up in time, and its start is still under way: a failure, and no capacity, but it keeps its slot. Not so
    /// one that its host has shown to be up: of its start nothing but the answer is missing.
    pub fn start_given_up(&mut self, name: &str, message: &str, now: Timestamp) {
        if self.runners.get(name).is_none_or(|r| r.phase != Phase::Pending) {
            return;
        }
        self.start_timed_out(name, message, now);
        self.begin_removal(name);
    }

    /// Its start failed, for the reason given; nothing of it is left on the backend. Answers whether that is noted as its
    /// failure: one that was given up has another.
    pub fn start_failed(&mut self, name: &str, reason: Reason, message: &str, now: Timestamp) -> bool {
        let Some(runner) = self.runners.get_mut(name) else {
            return false;
        };
        let given_up = runner.operation.take() == Some(Operation::Removing);
        runner.enter(Phase::Failed, now);
        if !given_up {
            let failure = Failure::start(runner, reason, message, now);
            self.failures.note(failure);
        }
        !given_up
    }

    /// Forgets a runner whose registration was not even tried, and which another will take the place of later.
    pub fn start_put_off(&mut self, name: &str) {
        self.runners.remove(name);
    }

    /// GitHub did not register it, for the reason given: there is no instance of it.
    pub fn registration_failed(&mut self, name: &str, reason: Reason, message: &str, now: Timestamp) {
        let Some(runner) = self.runners.get_mut(name) else { return };
        runner.operation = None;
        runner.enter(Phase::Failed, now);
        let failure = Failure::registration(runner, reason, message, now);
        self.failures.note(failure);
    }

    /// It was not up in time: a failed start, although something of it may be left to remove. Said once, however often its
    /// removal is tried.
    pub fn start_timed_out(&mut self, name: &str, message: &str, now: Timestamp) {
        let Some(runner) = self.runners.get(name).filter(|r| r.leaving.retry_at.is_none()) else {
            return;
        };
        let failure = Failure::start(runner, Reason::StartTimeout, message, now);
        self.failures.note(failure);
    }
}
