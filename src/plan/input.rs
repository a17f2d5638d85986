//! All that a decision is made from.

use jiff::Timestamp;

use super::policy::Policy;
use crate::api::Explanation;
use crate::runner::{HostState, Ledger, Runner};

/// All that a decision is made from.
#[derive(Debug)]
pub struct Input<'a> {
    /// What the object asks for.
    pub policy: &'a Policy,
    /// What is known of runners and demand.
    pub ledger: &'a Ledger,
    /// The backends, in the order in which they are filled.
    pub backends: &'a [BackendView],
    /// Whether runners may be started: there is a registration to start them for, and all hosts have had the time to
    /// show what runs on them already.
    pub start_gate: StartGate,
    /// The time.
    pub now: Timestamp,
}

/// Whether runners may be started at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartGate {
    /// Yes.
    Open,
    /// No, for this reason (CamelCase) and in these words.
    Closed(Explanation),
}

/// A backend, as a decision sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendView {
    /// Its name.
    pub name: String,
    /// Its own ceiling.
    pub max_runners: Option<u32>,
    /// Hash of its template.
    pub template_hash: String,
    /// Its hosts.
    pub hosts: Vec<HostState>,
}

/// Whether a runner's template is not its backend's current one, or its backend is not in the spec any more.
pub fn is_outdated(runner: &Runner, backends: &[BackendView]) -> bool {
    !runner.template_hash.is_empty()
        && backends.iter().all(|b| b.name != runner.backend || b.template_hash != runner.template_hash)
}
