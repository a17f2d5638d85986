//! The control API over HTTP, below `/_control/`: what [`super::SimEcs`] offers to tests, for the demo and scripts.
//!
//! | Call | Body | Answer |
//! | --- | --- | --- |
//! | GET `state` | | tasks with tags and history, clusters, lag |
//! | GET `wait?running=N`, `?stopped=N`, with `&timeoutMs=M` | | 200 once N tasks are in that state, else 408 |
//! | POST `tasks/{id}/exit?code=N`, `…/interrupt`, `…/forget` | | |
//! | POST `tasks/{id}/stop` | `{"code": …, "reason": …}` | |
//! | POST `hold?status=S`, `release?status=S` | | |
//! | POST `advance?ms=N` | | |
//! | PUT `lag` | `{"listMs": …, "describeMs": …}` | |
//! | POST, DELETE `faults` | a [`Fault`] | |
//! | GET `requests?operation=O` | | counts by operation and exception, and the requests |
//! | DELETE `requests` | | |
//! | POST `clusters` | a [`ClusterSpec`] | |
//! | POST `clusters/{name}/deactivate` | | |
//! | POST `clusters/{name}/instances` | an [`InstanceSpec`] | `{"arn": …}` |
//! | POST `clusters/{name}/lose` | `{"instance": …}` | |
//! | PUT `clusters/{name}/fargate` | `{"provider": …, "room": N or null}` | |
//! | POST `clusters/{name}/foreign?count=N` | | the ARNs of tasks that somebody else runs |
//! | POST `limits/{operation}` | `{"burst": N, "perSecond": X}`; `Fargate` is an operation here | |
//! | POST `deny/{operation}`, `allow/{operation}` | | |
//! | POST `credentials/expire`, `credentials/revoke?key=K`, `credentials/accept?key=K` | | |

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::Inner;
use super::auth::Credential;
use super::fault::Fault;
use super::operation::Operation;
use super::requests::Request;
use super::server::Call;
use super::state::{ClusterSpec, ControlError, InstanceSpec, Lag, State, Status, StopCode};
use super::throttle::Limit;
use super::wire::Answer;

/// The longest that `wait` waits when it is not told.
const WAIT: u64 = 60_000;

/// Why a control call is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("no such control call")]
    Unknown,
    #[error(transparent)]
    Refused(#[from] ControlError),
    #[error("{0}")]
    Body(#[from] serde_json::Error),
    #[error("not so many tasks are in that state yet")]
    TimedOut,
}

impl From<Error> for Answer {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::Refused(ControlError::WrongState(_)) => StatusCode::CONFLICT,
            Error::Unknown | Error::Refused(_) => StatusCode::NOT_FOUND,
            Error::Body(_) => StatusCode::BAD_REQUEST,
            Error::TimedOut => StatusCode::REQUEST_TIMEOUT,
        };
        Self::json(status, &json!({ "message": error.to_string() }))
    }
}

pub(super) async fn handle(inner: &Arc<Inner>, call: &Call, path: &[&str]) -> Answer {
    let done = if path == ["wait"] { wait(inner, call).await } else { control(inner, call, path) };
    match done {
        Ok(Value::Null) => Answer::empty(StatusCode::NO_CONTENT),
        Ok(body) => Answer::json(StatusCode::OK, &body),
        Err(error) => error.into(),
    }
}

fn read<T: DeserializeOwned>(call: &Call) -> Result<T, Error> {
    Ok(T::deserialize(&call.body)?)
}

/// A word of the path or the URL, as the API spells it.
fn word<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    serde_json::from_value(json!(text)).map_err(|_| Error::Unknown)
}

fn control(inner: &Arc<Inner>, call: &Call, path: &[&str]) -> Result<Value, Error> {
    let mut state = inner.lock();
    let state = &mut *state;
    let number = |name: &str| call.query(name).and_then(|text| text.parse::<u64>().ok());
    let text = |name: &str| call.query(name).unwrap_or_default();
    match (call.method.clone(), path) {
        (Method::GET, ["state"]) => return Ok(overview(state)),
        (Method::GET, ["requests"]) => return requests(state, call),
        (Method::DELETE, ["requests"]) => state.requests.clear(),
        (Method::POST, ["faults"]) => state.faults.push(read::<Fault>(call)?),
        (Method::DELETE, ["faults"]) => state.faults.clear(),
        (Method::POST, ["hold"]) => state.hold(word(&text("status"))?),
        (Method::POST, ["release"]) => state.release(word(&text("status"))?),
        (Method::POST, ["advance"]) => state.advance(Duration::from_millis(number("ms").unwrap_or(0))),
        (Method::PUT, ["lag"]) => state.lag = read::<LagBody>(call)?.into(),
        (Method::POST, ["tasks", task, verb]) => control_task(state, call, task, verb)?,
        (Method::POST, ["clusters"]) => state.add_cluster(read::<ClusterSpec>(call)?),
        (Method::POST | Method::PUT, ["clusters", name, verb]) => return cluster(state, call, name, verb),
        (Method::POST, ["limits", "Fargate"]) => state.throttle.set_fargate(read::<LimitBody>(call)?.into()),
        (Method::POST, ["limits", name]) => state.throttle.set(word(name)?, read::<LimitBody>(call)?.into()),
        (Method::POST, ["deny", operation]) => state.access.deny(word(operation)?),
        (Method::POST, ["allow", operation]) => state.access.allow(word(operation)?),
        (Method::POST, ["credentials", "expire"]) => state.access.expire_sessions(state.clock.now()),
        (Method::POST, ["credentials", "revoke"]) => {
            state.access.revoke(&text("key"));
        }
        (Method::POST, ["credentials", "accept"]) => {
            state.access.add(&state.config.account, Credential::new(text("key")));
        }
        _ => return Err(Error::Unknown),
    }
    state.touch();
    Ok(Value::Null)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LagBody {
    list_ms: u64,
    describe_ms: u64,
}

impl From<LagBody> for Lag {
    fn from(body: LagBody) -> Self {
        Self { list: Duration::from_millis(body.list_ms), describe: Duration::from_millis(body.describe_ms) }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LimitBody {
    burst: u32,
    per_second: f64,
}

impl From<LimitBody> for Limit {
    fn from(body: LimitBody) -> Self {
        Self { burst: body.burst, per_second: body.per_second }
    }
}

#[derive(Deserialize)]
struct StopBody {
    code: Option<StopCode>,
    reason: String,
}

fn control_task(state: &mut State, call: &Call, task: &str, verb: &str) -> Result<(), Error> {
    match verb {
        "exit" => {
            let code = call.query("code").and_then(|code| code.parse().ok()).unwrap_or(0);
            state.exit_task(task, code)?;
        }
        "interrupt" => state.interrupt_spot(task)?,
        "forget" => state.forget_task(task)?,
        "stop" => {
            let body: StopBody = read(call)?;
            state.stop_task_as(task, body.code, &body.reason)?;
        }
        _ => return Err(Error::Unknown),
    }
    Ok(())
}

#[derive(Deserialize)]
struct LoseBody {
    instance: String,
}

#[derive(Deserialize)]
struct RoomBody {
    provider: String,
    room: Option<usize>,
}

fn cluster(state: &mut State, call: &Call, name: &str, verb: &str) -> Result<Value, Error> {
    let answer = match verb {
        "deactivate" => {
            state.deactivate_cluster(name)?;
            Value::Null
        }
        "instances" => json!({ "arn": state.add_instance(name, read::<InstanceSpec>(call)?)? }),
        "lose" => {
            state.lose_instance(name, &read::<LoseBody>(call)?.instance)?;
            Value::Null
        }
        "fargate" => {
            let body: RoomBody = read(call)?;
            state.set_fargate_room(name, &body.provider, body.room)?;
            Value::Null
        }
        "foreign" => {
            let count = call.query("count").and_then(|count| count.parse().ok()).unwrap_or(1);
            json!({ "arns": state.run_foreign_tasks(name, count)? })
        }
        _ => return Err(Error::Unknown),
    };
    state.touch();
    Ok(answer)
}

fn overview(state: &State) -> Value {
    let tasks = state.tasks().map(|task| {
        let mut view = state.view_task(task, true);
        view["history"] = json!(task.history);
        view
    });
    json!({
        "tasks": tasks.collect::<Vec<_>>(),
        "clusters": state.clusters.values().map(|cluster| cluster.view(0, 0)).collect::<Vec<_>>(),
        "lag": { "listMs": state.lag.list.as_millis(), "describeMs": state.lag.describe.as_millis() },
    })
}

fn requests(state: &State, call: &Call) -> Result<Value, Error> {
    let wanted: Option<Operation> = call.query("operation").map(|name| word(&name)).transpose()?;
    let found: Vec<&Request> =
        state.requests.iter().filter(|r| wanted.is_none_or(|wanted| r.operation == wanted)).collect();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut exceptions: BTreeMap<&str, usize> = BTreeMap::new();
    for request in state.requests.iter() {
        *counts.entry(request.operation.to_string()).or_default() += 1;
        if let Some(exception) = &request.exception {
            *exceptions.entry(exception).or_default() += 1;
        }
    }
    Ok(json!({ "counts": counts, "exceptions": exceptions, "requests": found }))
}

async fn wait(inner: &Arc<Inner>, call: &Call) -> Result<Value, Error> {
    let number = |name: &str| call.query(name).and_then(|text| text.parse::<usize>().ok());
    let (running, stopped) = (number("running"), number("stopped"));
    let patience = call.query("timeoutMs").and_then(|text| text.parse().ok()).unwrap_or(WAIT);
    let deadline = Instant::now() + Duration::from_millis(patience);
    let reached =
        |state: &State, status, wanted: Option<usize>| wanted.is_none_or(|n| state.tasks_in(status) >= n);
    let mut changes = inner.lock().changes();
    loop {
        changes.borrow_and_update();
        {
            let state = inner.lock();
            if reached(&state, Status::Running, running) && reached(&state, Status::Stopped, stopped) {
                return Ok(overview(&state));
            }
        }
        if timeout_at(deadline, changes.changed()).await.is_err() {
            return Err(Error::TimedOut);
        }
    }
}
