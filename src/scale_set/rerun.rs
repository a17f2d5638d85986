//! Asks GitHub to run again what lost a job with its runner.

use tracing::{info, warn};

use super::event::Event;
use super::handle::ScaleSetHandle;
use super::shared::Shared;
use crate::api::status::RerunState;
use crate::github::{Error, ScaleSetService};
use crate::runner::RerunAnswer;

/// Asks for a run that the ledger has as being asked for, and tells what came of it. That the credential lacks the right is told
/// once, while status shows it.
pub async fn ask(
    set: &ScaleSetHandle,
    shared: &Shared,
    (repository, run_id): (&str, i64),
    service: &dyn ScaleSetService,
) {
    let answer = match service.rerun_failed_jobs(repository, run_id).await {
        Ok(()) => RerunAnswer::Requested,
        Err(error @ (Error::Forbidden(_) | Error::Config(_))) => RerunAnswer::Refused(error.to_string()),
        Err(error) => RerunAnswer::Later(error.to_string(), error.retry_after()),
    };
    let mut state = set.state();
    let refused_before = state.ledger.reruns().iter().any(|run| run.state == RerunState::Refused);
    let settled = state.ledger.rerun_answered((repository, run_id), answer, shared.now());
    drop(state);
    let Some(run) = settled else { return };
    match run.state {
        RerunState::Requested => info!(repository, run_id, "lost jobs are run again"),
        _ => warn!(repository, run_id, message = run.message, "lost jobs are not run again"),
    }
    if run.state != RerunState::Refused || !refused_before {
        shared.reporter.publish(set, Event::rerun(&run));
    }
}
