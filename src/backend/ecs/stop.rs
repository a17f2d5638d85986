//! Stopping a task, and waiting until that is seen.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::info;

use super::account::Kind;
use super::call::{CallError, failure, meaning, shortened};
use super::classify::Meaning;
use super::cluster::Cluster;
use super::task::Task;
use super::watch::describe;
use crate::backend::Error;
use crate::time::{Backoff, Plus, elapsed};

/// A container is killed two minutes after it was told to stop, at the latest; then that must be seen.
const STOPS_WITHIN: Duration = Duration::from_secs(180);
/// A call that was throttled, or met a fault of the service, is made so often at most.
const ATTEMPTS: u32 = 5;
/// Before such a call is made again.
const AGAIN: Backoff = Backoff { first: Duration::from_millis(500), last: Duration::from_secs(5) };
/// What the task shows as the reason of its end.
const REASON: &str = "removed by Paddock";

/// Removes a task of a scale set, running or not: returns once it has ended. [`Error::Gone`] when there is none, or it was
/// removed before; [`Error::Refused`] when its own environment does not say that scale set.
pub(super) async fn remove(cluster: &Cluster, scale_set_uid: &str, id: &str) -> Result<(), Error> {
    let task = find(cluster, id).await?;
    if task.scale_set_uid != scale_set_uid {
        return Err(not_own(id));
    }
    if !task.stage.has_ended() && !cluster.state().index.is_stop_asked(id) {
        stop(cluster, &task).await?;
    }
    wait(cluster, id).await?;
    cluster.update(|state| {
        state.index.clear(id, Timestamp::now());
        BTreeSet::new()
    });
    Ok(())
}

/// The task as last known; one that is not known is asked for.
async fn find(cluster: &Cluster, id: &str) -> Result<Task, Error> {
    {
        let state = cluster.state();
        if state.index.is_cleared(id) {
            return Err(Error::Gone);
        }
        if let Some(task) = state.index.get(id) {
            return Ok(task.clone());
        }
    }
    let described = describe(cluster, &[id.to_owned()]).await;
    let described = described.map_err(|error| failure(&cluster.account, &error))?;
    let Some(described) = described.first() else {
        let not_yet = || Error::Unreachable("ECS does not show the task, or not yet".to_owned());
        return Err(if cluster.state().settled { Error::Gone } else { not_yet() });
    };
    let task = Task::read(described, &cluster.started_by).ok_or_else(|| not_own(id))?;
    cluster.update(|state| {
        state.index.started(task.clone());
        BTreeSet::new()
    });
    Ok(task)
}

fn not_own(id: &str) -> Error {
    Error::Refused(format!("task {} does not belong to this scale set", shortened(id)))
}

async fn stop(cluster: &Cluster, task: &Task) -> Result<(), Error> {
    let mut attempts = 0;
    loop {
        cluster.account.admit(Kind::Modify).await;
        let client = cluster.account.client().await;
        let request = client.stop_task().cluster(&cluster.name).task(&task.id).reason(REASON);
        let error = match request.send().await.map_err(CallError::from) {
            Ok(_) => break,
            Err(error) => error,
        };
        attempts += 1;
        match meaning(&error) {
            Meaning::Gone if elapsed(task.created_at, Timestamp::now()) < cluster.timing.settles => {
                return Err(Error::Unreachable("ECS does not know the task yet".to_owned()));
            }
            Meaning::Throttled => cluster.account.throttled(Kind::Modify),
            Meaning::Transient => {}
            _ => return Err(failure(&cluster.account, &error)),
        }
        if attempts == ATTEMPTS {
            return Err(failure(&cluster.account, &error));
        }
        tokio::time::sleep(AGAIN.after(attempts)).await;
    }
    info!(runner = task.runner, task = task.id, "task is told to stop");
    cluster.update(|state| {
        state.index.stop_asked(&task.id);
        BTreeSet::new()
    });
    cluster.quicken();
    Ok(())
}

/// Waits until a task is seen to have ended, or is known no more.
async fn wait(cluster: &Cluster, id: &str) -> Result<(), Error> {
    let deadline = Instant::now().plus(STOPS_WITHIN);
    let mut changes = cluster.changes();
    loop {
        changes.borrow_and_update();
        if cluster.state().index.get(id).is_none_or(|task| task.stage.has_ended()) {
            return Ok(());
        }
        let changed = tokio::time::timeout_at(deadline, changes.changed()).await;
        if !matches!(changed, Ok(Ok(()))) {
            return Err(Error::Unreachable("the task was told to stop and has not stopped yet".to_owned()));
        }
    }
}
