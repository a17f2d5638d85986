//! The task that looks at one ECS cluster: two paged listings and as few descriptions as will do, again and again.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_ecs::types::{DesiredStatus, Task as Described, TaskField};
use jiff::Timestamp;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::account::Kind;
use super::call::{CallError, failure, meaning};
use super::classify::Meaning;
use super::cluster::{Cluster, Link, Swept};
use super::task::{Task, id_of};
use crate::backend::Error;
use crate::rng;
use crate::time::{Backoff, Plus};

/// How long to wait before a cluster that did not answer is looked at again.
const RETRY: Backoff = Backoff { first: Duration::from_secs(1), last: Duration::from_secs(60) };
/// What only a person can change is looked for this often.
const REFUSED: Duration = Duration::from_secs(60);
/// A call that was throttled, or met a fault of the service, is made so often at most.
const ATTEMPTS: u32 = 5;
/// Before such a call is made again.
const AGAIN: Backoff = Backoff { first: Duration::from_millis(500), last: Duration::from_secs(5) };
/// Tasks of one description.
const BATCH: usize = 100;

/// Looks at the cluster for ever.
pub(super) async fn watch(cluster: Arc<Cluster>) -> Infallible {
    let mut failures = 0;
    // Documentation and practice differ on it: it is tried, and left out where it is refused.
    let mut both_filters = true;
    loop {
        let asked_at = Timestamp::now();
        match sweep(&cluster, &mut both_filters).await {
            Ok(swept) => {
                failures = 0;
                if cluster.state().link != Link::Up {
                    info!(cluster = cluster.name, tasks = swept.shown.len(), "ECS cluster answers");
                }
                cluster.swept(swept, asked_at);
                pause(&cluster).await;
            }
            Err(error) => {
                failures += 1;
                let (link, pause) = match failure(&cluster.account, &error) {
                    Error::Refused(why) => (Link::Refused(why), REFUSED),
                    other => (Link::Down(other.to_string()), RETRY.after(failures)),
                };
                if cluster.lost(link) {
                    warn!(cluster = cluster.name, %error, "ECS cluster does not answer; its tasks stay as last known");
                }
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// Waits until the next look: sooner while something moves, or begins to.
async fn pause(cluster: &Cluster) {
    let looked_at = Instant::now();
    let spread = 0.9 + 0.2 * rng::unit();
    loop {
        let timing = cluster.timing;
        let pause = if cluster.state().index.is_moving() { timing.moving } else { timing.resting };
        tokio::select! {
            () = sleep_until(looked_at.plus(pause.mul_f64(spread))) => return,
            () = cluster.quickened() => {}
        }
    }
}

/// One look. What it costs follows from the tasks of this Kubernetes cluster, not from its scale sets.
async fn sweep(cluster: &Cluster, both_filters: &mut bool) -> Result<Swept, CallError> {
    let running = match list(cluster, both_filters.then_some(DesiredStatus::Running)).await {
        Err(CallError::Answered { code, message }) if *both_filters && refuses_filters(&code, &message) => {
            info!(
                cluster = cluster.name,
                message, "ECS lists by startedBy alone: stopped tasks are described by their ids"
            );
            *both_filters = false;
            list(cluster, None).await?
        }
        answer => answer?,
    };
    let stopped =
        if *both_filters { list(cluster, Some(DesiredStatus::Stopped)).await? } else { HashSet::new() };
    let wanted = {
        let state = cluster.state();
        let unsettled = stopped.iter().filter(|id| !state.index.is_settled(id));
        // One that is in neither list may be new to ECS, or have stopped where only those that run are listed.
        let live = state.index.live_ids().map(str::to_owned);
        running.iter().chain(unsettled).cloned().chain(live).collect::<HashSet<String>>()
    };
    let described = describe(cluster, &Vec::from_iter(wanted)).await?;
    let described: Vec<Task> =
        described.iter().filter_map(|task| Task::read(task, &cluster.started_by)).collect();
    let mut shown: HashSet<String> = running.into_iter().chain(stopped).collect();
    shown.extend(described.iter().map(|task| task.id.clone()));
    debug!(
        cluster = cluster.name,
        shown = shown.len(),
        described = described.len(),
        "looked at an ECS cluster"
    );
    Ok(Swept { described, shown })
}

fn refuses_filters(code: &str, message: &str) -> bool {
    code == "InvalidParameterException" && message.contains("startedBy")
}

/// The ids of our tasks with that desired status; without one, of those that are to run.
async fn list(cluster: &Cluster, desired: Option<DesiredStatus>) -> Result<HashSet<String>, CallError> {
    let mut ids = HashSet::new();
    let mut next_token = None;
    loop {
        let page = read(cluster, || async {
            let client = cluster.account.client().await;
            let request = client.list_tasks().cluster(&cluster.name).started_by(&cluster.started_by);
            let request = request.set_desired_status(desired.clone()).set_next_token(next_token.clone());
            Ok(request.send().await?)
        })
        .await?;
        ids.extend(page.task_arns().iter().map(|arn| id_of(arn).to_owned()));
        match page.next_token {
            Some(token) if !token.is_empty() => next_token = Some(token),
            _ => return Ok(ids),
        }
    }
}

/// Describes tasks by their ids, whoever started them. Those that ECS does not know, or not yet, are left out.
pub(super) async fn describe(cluster: &Cluster, ids: &[String]) -> Result<Vec<Described>, CallError> {
    let mut described = Vec::new();
    for batch in ids.chunks(BATCH) {
        let answer = read(cluster, || async {
            let client = cluster.account.client().await;
            let request = client.describe_tasks().cluster(&cluster.name).include(TaskField::Tags);
            Ok(request.set_tasks(Some(batch.to_vec())).send().await?)
        })
        .await?;
        described.extend(answer.tasks.unwrap_or_default());
    }
    Ok(described)
}

/// Makes a call that changes nothing, and makes it again where that may help.
async fn read<T, F>(cluster: &Cluster, call: impl Fn() -> F) -> Result<T, CallError>
where
    F: Future<Output = Result<T, CallError>>,
{
    let mut attempts = 0;
    loop {
        cluster.account.admit(Kind::Read).await;
        let error = match call().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        attempts += 1;
        let meaning = meaning(&error);
        if meaning == Meaning::Throttled {
            cluster.account.throttled(Kind::Read);
        }
        if attempts == ATTEMPTS || !matches!(meaning, Meaning::Throttled | Meaning::Transient) {
            return Err(error);
        }
        tokio::time::sleep(AGAIN.after(attempts)).await;
    }
}
