//! RunTask and StopTask.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use super::fault::Effect;
use super::refusal::{own, reported};
use super::rules::{self, Plan, RunTask};
use super::state::{
    Cluster, Container, Need, PersistedRunner, Placement, Provider, State, Status, StopCode, StrategyItem,
    Task, TaskId, Times,
};
use super::wire::{Refusal, failure, read};

/// Runs as many tasks as asked for; those that found no place are failures.
pub(super) fn run_task(state: &mut State, body: &Value, effect: Option<&Effect>) -> Result<Value, Refusal> {
    let request: RunTask = read(body)?;
    let mut cluster = state.active_cluster(request.cluster.as_deref())?.clone();
    if let Some(answer) = replay(state, &cluster, &request, body)? {
        return Ok(answer);
    }
    let plan = rules::check(state, &cluster, &request)?;
    let now = state.clock.now();
    let mut call = Call { tasks: Vec::new(), failures: Vec::new() };
    let denied = deny_some(&plan, effect, &mut call.failures);
    let mut providers = Vec::new();
    for number in 0..plan.count - denied {
        providers.push(choose(&mut cluster, &plan.strategy, number));
    }
    admit_by_fargate(state, &plan, &providers, now)?;
    for provider in providers {
        let provider = provider.and_then(|name| cluster.provider(&name).cloned());
        place_one(state, &cluster, &request, &plan, provider, effect, &mut call)?;
    }
    state.clusters.insert(cluster.name.clone(), cluster.clone());
    let answer = json!({
        "tasks": call.tasks.iter().filter_map(|id| state.tasks.get(id)).map(|t| state.view_task(t, true)).collect::<Vec<_>>(),
        "failures": call.failures,
    });
    if let Some(token) = request.client_token {
        let remembered = PersistedRunner {
            request: without_token(body),
            tasks: call.tasks,
            failures: call.failures,
            at: now,
        };
        state.tokens.insert((cluster.name, token), remembered);
    }
    state.touch();
    Ok(answer)
}

/// What a call has come to so far.
struct Call {
    tasks: Vec<TaskId>,
    failures: Vec<Value>,
}

/// Takes the failures that a fault asks for; gives how many tasks they stand for.
fn deny_some(plan: &Plan, effect: Option<&Effect>, failures: &mut Vec<Value>) -> usize {
    let Some(Effect::Failures { reason, detail, count }) = effect else { return 0 };
    let denied = count.unwrap_or(plan.count).min(plan.count);
    failures.extend((0..denied).map(|_| failure(None, reason, detail.as_deref())));
    denied
}

/// The provider of a call's next task: the base first, then by weight.
fn choose(cluster: &mut Cluster, strategy: &[StrategyItem], number: usize) -> Option<String> {
    let number = i64::try_from(number).unwrap_or(i64::MAX);
    match strategy.iter().find(|item| item.base > number) {
        Some(base) => Some(base.capacity_provider.clone()),
        None => cluster.next_by_weight(strategy),
    }
}

fn admit_by_fargate(
    state: &mut State,
    plan: &Plan,
    providers: &[Option<String>],
    now: Instant,
) -> Result<(), Refusal> {
    if plan.launch_type != super::state::LaunchType::Fargate {
        return Ok(());
    }
    let spot = providers.iter().flatten().any(|name| name == "FARGATE_SPOT");
    if state.throttle.fargate_admits(spot, now) { Ok(()) } else { Err(reported::throttled()) }
}

fn place_one(
    state: &mut State,
    cluster: &Cluster,
    request: &RunTask,
    plan: &Plan,
    provider: Option<Provider>,
    effect: Option<&Effect>,
    call: &mut Call,
) -> Result<(), Refusal> {
    let need = Need::of(&plan.definition, plan.cpu, plan.memory);
    let (instance, waits) = match state.place(cluster, plan.launch_type, provider.as_ref(), &need)? {
        Placement::Fargate => (None, false),
        Placement::Instance(arn) => (Some(arn), false),
        Placement::Waits => (None, true),
        Placement::Failed(failures) => {
            call.failures.extend(failures);
            return Ok(());
        }
    };
    let mut task = new_task(state, cluster, request, plan);
    task.instance = instance;
    task.awaits_instance = waits;
    // Only what needs a network interface, a machine of its own, or an instance that is not there yet is provisioned.
    let provisioned = provider.is_some() || plan.subnet.is_some();
    task.provider = provider.map(|provider| provider.name);
    if let Some(Effect::FailToStart { reason }) = effect {
        task.fails_to_start = Some(reason.clone());
    }
    let (id, at) = (task.id.clone(), task.times.accepted);
    state.tasks.insert(id.clone(), task);
    state.enter(&id, if provisioned { Status::Provisioning } else { Status::Pending }, at);
    call.tasks.push(id);
    Ok(())
}

fn new_task(state: &State, cluster: &Cluster, request: &RunTask, plan: &Plan) -> Task {
    let id = Uuid::new_v4().simple().to_string();
    let prefix = cluster.arn.replacen(":cluster/", ":task/", 1);
    let container_prefix = cluster.arn.replacen(":cluster/", ":container/", 1);
    let containers = plan.definition.containers().map(|definition| Container {
        name: text(definition, "name"),
        arn: format!("{container_prefix}/{id}/{}", Uuid::new_v4()),
        image: text(definition, "image"),
        essential: definition["essential"].as_bool().unwrap_or(true),
        environment: environment(definition, &request.overrides),
        started: false,
        ended: false,
        exit_code: None,
        reason: None,
        has_process: false,
    });
    Task {
        arn: format!("{prefix}/{id}"),
        cluster: cluster.name.clone(),
        definition: plan.definition.clone(),
        launch_type: plan.launch_type,
        provider: None,
        instance: None,
        started_by: request.started_by.clone(),
        group: request.group.clone().unwrap_or_else(|| format!("family:{}", plan.definition.family)),
        overrides: request.overrides.clone(),
        tags: plan.tags.clone(),
        cpu: plan.cpu,
        memory: plan.memory,
        subnet: plan.subnet.clone(),
        platform_version: plan.platform_version.clone(),
        status: Status::Provisioning,
        stop_wanted: false,
        stop_code: None,
        stopped_reason: None,
        version: 0,
        containers: containers.collect(),
        times: Times::new(state.clock.now()),
        history: Vec::new(),
        awaits_instance: false,
        fails_to_start: None,
        due: None,
        kill_due: None,
        id,
    }
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_default().to_owned()
}

/// A container's environment: the definition's, then the override's.
fn environment(definition: &Value, overrides: &Value) -> BTreeMap<String, String> {
    let all = overrides["containerOverrides"].as_array().into_iter().flatten();
    let own = all.filter(|container| container["name"] == definition["name"]);
    let sources = std::iter::once(definition).chain(own);
    let pairs = sources.flat_map(|source| source["environment"].as_array().into_iter().flatten());
    pairs.map(|pair| (text(pair, "name"), text(pair, "value"))).collect()
}

/// The answer to a call whose client token is remembered; refused when the call is another one.
fn replay(
    state: &mut State,
    cluster: &Cluster,
    request: &RunTask,
    body: &Value,
) -> Result<Option<Value>, Refusal> {
    let Some(token) = request.client_token.clone() else { return Ok(None) };
    let (now, memory) = (state.clock.now(), state.config.token_memory);
    let key = (cluster.name.clone(), token);
    let tasks = &state.tasks;
    // A token lives for 24 h, or for an hour more than its tasks: so long as one of them is not forgotten.
    let lives = |remembered: &PersistedRunner| {
        let known = remembered.tasks.is_empty() || remembered.tasks.iter().any(|id| tasks.contains_key(id));
        known && now.saturating_duration_since(remembered.at) < memory
    };
    if !state.tokens.get(&key).is_some_and(lives) {
        state.tokens.remove(&key);
        return Ok(None);
    }
    let Some(remembered) = state.tokens.get(&key) else { return Ok(None) };
    let known = remembered.tasks.iter().filter_map(|id| tasks.get(id));
    if remembered.request != without_token(body) {
        return Err(own::conflict(known.map(|task| task.arn.clone()).collect()));
    }
    let views = known.map(|task| {
        if task.status == Status::Stopped {
            json!({ "taskArn": task.arn, "lastStatus": "STOPPED", "desiredStatus": "STOPPED" })
        } else {
            state.view_task(task, true)
        }
    });
    Ok(Some(json!({ "tasks": views.collect::<Vec<_>>(), "failures": remembered.failures })))
}

fn without_token(body: &Value) -> Value {
    let mut body = body.clone();
    if let Some(members) = body.as_object_mut() {
        members.remove("clientToken");
    }
    body
}

#[derive(Deserialize)]
struct StopTask {
    cluster: Option<String>,
    task: String,
    reason: Option<String>,
}

/// Stops a task and deletes its tags; one that stops already is left as it is.
pub(super) fn stop_task(state: &mut State, body: &Value) -> Result<Value, Refusal> {
    let request: StopTask = read(body)?;
    let cluster = state.active_cluster(request.cluster.as_deref())?.clone();
    let id = state.task_of_cluster(&cluster, &request.task)?.ok_or_else(reported::task_not_found)?.id.clone();
    let now = state.clock.now();
    let reason = request.reason.unwrap_or_else(|| "Task stopped by user".to_owned());
    state.begin_stop(&id, Some(StopCode::UserInitiated), &reason, now);
    if let Some(task) = state.tasks.get_mut(&id) {
        task.tags.clear();
    }
    let task = state.tasks.get(&id).ok_or_else(reported::task_not_found)?;
    Ok(json!({ "task": state.view_task(task, false) }))
}
