//! ListTasks and DescribeTasks: what they show, and how late.

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::fault::{Effect, reason};
use super::page::{self, Page};
use super::refusal::{own, reported};
use super::state::{Cluster, State, Task};
use super::wire::{Refusal, failure, read};

const MOST_DESCRIBED: usize = 100;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListTasks {
    cluster: Option<String>,
    container_instance: Option<String>,
    family: Option<String>,
    next_token: Option<String>,
    max_results: Option<i64>,
    started_by: Option<String>,
    service_name: Option<String>,
    desired_status: Option<String>,
    launch_type: Option<String>,
}

impl ListTasks {
    /// A filter beside `startedBy`, which it excludes.
    fn other_filter(&self, started_by_alone: bool) -> Option<&'static str> {
        let filters = [
            ("containerInstance", self.container_instance.is_some()),
            ("family", self.family.is_some()),
            ("serviceName", self.service_name.is_some()),
            ("launchType", self.launch_type.is_some()),
            ("desiredStatus", started_by_alone && self.desired_status.is_some()),
        ];
        filters.into_iter().find(|(_, given)| *given).map(|(name, _)| name)
    }

    fn matches(&self, task: &Task) -> bool {
        let instance = |asked: &String| {
            task.instance.as_deref().is_some_and(|arn| arn == asked || arn.ends_with(&format!("/{asked}")))
        };
        self.container_instance.as_ref().is_none_or(instance)
            && self.family.as_ref().is_none_or(|family| task.definition.family == *family)
            && self.launch_type.as_ref().is_none_or(|name| task.launch_type.name() == name)
            && self.started_by.as_ref().is_none_or(|by| task.started_by.as_ref() == Some(by))
    }
}

/// Lists ARNs in no order of time: by id, which is random.
pub(super) fn list_tasks(state: &State, body: &Value) -> Result<Value, Refusal> {
    let request: ListTasks = read(body)?;
    let cluster = state.active_cluster(request.cluster.as_deref())?;
    if request.service_name.is_some() {
        return Err(Refusal::new("ServiceNotFoundException", "Service not found."));
    }
    if request.started_by.is_some()
        && let Some(filter) = request.other_filter(state.config.started_by_alone)
    {
        return Err(own::started_by_with(filter));
    }
    let stopped = match request.desired_status.as_deref() {
        None | Some("RUNNING") => Some(false),
        Some("STOPPED") => Some(true),
        Some("PENDING") => None,
        Some(_) => return Err(own::malformed("desiredStatus")),
    };
    let now = state.clock.now();
    let shown = state.tasks.values().filter(|task| {
        task.cluster == cluster.name && stopped == state.listed_as_stopped(task, now) && request.matches(task)
    });
    let arns: Vec<String> = shown.filter(|_| stopped.is_some()).map(|task| task.arn.clone()).collect();
    let filter = filter_of(body);
    let page = Page::read(request.max_results, request.next_token.as_deref(), &filter)?;
    Ok(page.cut(arns, state.config.page_size, "taskArns"))
}

/// What a page's token is bound to: the request without the token and the page's size.
fn filter_of(body: &Value) -> String {
    let mut filter = body.clone();
    if let Some(members) = filter.as_object_mut() {
        members.remove("nextToken");
        members.remove("maxResults");
    }
    page::fingerprint(&filter.to_string())
}

impl State {
    /// Whether ListTasks takes the task for one to be stopped; none: it does not know the task yet.
    fn listed_as_stopped(&self, task: &Task, now: Instant) -> Option<bool> {
        let seen = |at: Instant| at + self.lag.list <= now;
        seen(task.times.accepted).then(|| task.times.stopping.is_some_and(seen))
    }

    /// The task of this id or ARN, if DescribeTasks knows it yet.
    pub(super) fn known_task(&self, name: &str) -> Option<&Task> {
        let now = self.clock.now();
        self.task(name).filter(|task| task.times.accepted + self.lag.describe <= now)
    }

    /// The same within a cluster; an ARN of another cluster is refused.
    pub(super) fn task_of_cluster(&self, cluster: &Cluster, name: &str) -> Result<Option<&Task>, Refusal> {
        if let Some((_, rest)) = name.split_once(":task/")
            && let Some((named, _)) = rest.split_once('/')
            && named != cluster.name
        {
            return Err(reported::other_cluster(named, &cluster.name));
        }
        Ok(self.known_task(name).filter(|task| task.cluster == cluster.name))
    }

    /// The cluster that a request names, by name or ARN; an INACTIVE one is refused.
    pub(super) fn active_cluster(&self, name: Option<&str>) -> Result<&Cluster, Refusal> {
        let cluster =
            self.named_cluster(name.unwrap_or("default")).ok_or_else(reported::cluster_not_found)?;
        if cluster.active { Ok(cluster) } else { Err(reported::cluster_inactive()) }
    }

    /// The cluster of this name or ARN.
    pub(super) fn named_cluster(&self, name: &str) -> Option<&Cluster> {
        if name.starts_with("arn:") {
            return self.clusters.values().find(|cluster| cluster.arn == name);
        }
        self.clusters.get(name)
    }
}

#[derive(Deserialize)]
struct DescribeTasks {
    cluster: Option<String>,
    tasks: Vec<String>,
    #[serde(default)]
    include: Vec<String>,
}

/// Describes tasks; those that are not known, or not yet, are MISSING.
pub(super) fn describe_tasks(state: &State, body: &Value, effect: Option<&Effect>) -> Result<Value, Refusal> {
    let request: DescribeTasks = read(body)?;
    let cluster = state.active_cluster(request.cluster.as_deref())?;
    if request.tasks.is_empty() {
        return Err(reported::no_tasks_named());
    }
    if request.tasks.len() > MOST_DESCRIBED {
        return Err(own::too_many("tasks", MOST_DESCRIBED));
    }
    let with_tags = request.include.iter().any(|field| field == "TAGS");
    let (mut tasks, mut failures) = (Vec::new(), Vec::new());
    let mut names = request.tasks.iter();
    if let Some(Effect::Failures { reason, detail, count }) = effect {
        let denied = names.by_ref().take(count.unwrap_or(usize::MAX));
        failures
            .extend(denied.map(|name| failure(Some(&task_arn(cluster, name)), reason, detail.as_deref())));
    }
    for name in names {
        match state.task_of_cluster(cluster, name)? {
            Some(task) => tasks.push(state.view_task(task, with_tags)),
            None => failures.push(failure(Some(&task_arn(cluster, name)), reason::MISSING, None)),
        }
    }
    Ok(json!({ "tasks": tasks, "failures": failures }))
}

/// The ARN that a task of this name has.
fn task_arn(cluster: &Cluster, name: &str) -> String {
    if name.starts_with("arn:") {
        return name.to_owned();
    }
    format!("{}/{name}", cluster.arn.replacen(":cluster/", ":task/", 1))
}
