//! A task as a backend shows it.

use super::binding::Binding;
use super::task::{Stage, Task};
use crate::api::Reason;
use crate::runner::{Exit, Instance, InstanceState};

/// A task as an instance of a backend on a host.
pub(super) fn instance(binding: &Binding, host: &str, task: &Task) -> Instance {
    let template_hash = task.tags.as_ref().map(|tags| tags.template_hash.clone());
    Instance {
        id: task.id.clone(),
        runner: task.runner.clone(),
        scale_set_uid: task.scale_set_uid.clone(),
        backend: binding.backend.clone(),
        host: host.to_owned(),
        // One whose tags are gone is being stopped: it needs no replacement on that account.
        template_hash: template_hash.unwrap_or_else(|| binding.template_hash.clone()),
        created_at: task.created_at,
        state: match &task.stage {
            Stage::Ended(exit) => InstanceState::Exited(ended(binding, task, exit)),
            stage => stage.state(),
        },
    }
}

/// How a task ended, with what only its backend knows: where its output is, and whether its job is to be run again.
fn ended(binding: &Binding, task: &Task, exit: &Exit) -> Exit {
    let mut exit = Exit { log: binding.template.log_link(&task.id), ..exit.clone() };
    if let Some(cause) = &mut exit.cause {
        cause.rerun = binding.template.rerun_interrupted && cause.why.reason == Reason::SpotInterruption;
    }
    exit
}
