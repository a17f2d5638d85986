//! The control API over HTTP, below `/_control/`: what [`super::SimGithub`] offers to tests, for the demo and scripts.
//!
//! | Call | Body | Answer |
//! | --- | --- | --- |
//! | GET `state` | | scale sets, runners, jobs, with times and statistics |
//! | GET `wait?completed=N&timeoutMs=M` | | 200 once N jobs are over, else 408 |
//! | POST `jobs?count=N` | a [`JobSpec`] | the ids |
//! | POST `jobs/{id}/start?runner=R`, `…/finish?result=R`, `…/cancel` | | |
//! | DELETE `runners/{name}` | | |
//! | POST, DELETE `faults` | a [`Fault`] | |
//! | GET `requests?endpoint=E` | | counts by endpoint, and the requests |
//! | PUT `tokens` | the personal access tokens to accept from now on, a list | |
//! | POST `expire-admin-tokens`, `expire-installation-tokens` | | |
//! | POST `scalesets/{name}/expire-queue-token`, `…/expire-session`, `…/drop-session`, `…/vanish`, `…/zero-statistics?times=N`, `…/repeat`, `…/reverse`, `…/limit-batch?most=N` | | |

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::Inner;
use super::fault::Fault;
use super::requests::Request;
use super::route::{Endpoint, Route};
use super::server::Call;
use super::state::{ControlError, JobResult, JobSpec, JobStatus, State};
use super::wire::{Answer, Refusal};

/// The longest that `wait` waits when it is not told.
const WAIT: u64 = 60_000;

impl From<ControlError> for Refusal {
    fn from(error: ControlError) -> Self {
        let status = match error {
            ControlError::NoSuchJob(_)
            | ControlError::NoSuchRunner(_)
            | ControlError::NoSuchScaleSet(_)
            | ControlError::NoSession(_) => StatusCode::NOT_FOUND,
            ControlError::WrongState(_) => StatusCode::CONFLICT,
        };
        Self::rest(status, error.to_string())
    }
}

pub(super) async fn handle(inner: &Arc<Inner>, call: &Call) -> Result<Answer, Refusal> {
    let Route::Control(path) = &call.route else {
        return Err(unknown());
    };
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    if path == ["wait"] {
        return wait(inner, call).await;
    }
    let mut state = inner.lock();
    match (call.method.clone(), path.as_slice()) {
        (Method::GET, ["state"]) => return Ok(Answer::ok(&overview(&state))),
        (Method::GET, ["requests"]) => return requests(&state, call),
        (Method::POST, ["jobs"]) => return queue(&mut state, call),
        (Method::POST, ["jobs", id, verb]) => job(&mut state, call, id, verb)?,
        (Method::DELETE, ["runners", name]) => {
            let id = state.runner(name).map(|r| r.id);
            state.forget_runner(id.ok_or_else(|| ControlError::NoSuchRunner((*name).to_owned()))?);
        }
        (Method::POST, ["faults"]) => {
            let fault: Fault = call.json()?;
            state.faults.push(fault);
            for set in state.scale_sets() {
                set.touch();
            }
        }
        (Method::DELETE, ["faults"]) => state.faults.clear(),
        (Method::PUT, ["tokens"]) => state.tokens.replace_personal(call.json()?),
        (Method::POST, ["expire-installation-tokens"]) => state.tokens.expire_installation(),
        (Method::POST, ["expire-admin-tokens"]) => state.tokens.expire_admin(),
        (Method::POST, ["scalesets", name, verb]) => scale_set(&mut state, call, name, verb)?,
        _ => return Err(unknown()),
    }
    Ok(Answer::empty(StatusCode::NO_CONTENT))
}

fn unknown() -> Refusal {
    Refusal::rest(StatusCode::NOT_FOUND, "no such control call")
}

fn overview(state: &State) -> Value {
    let sets = state.scale_sets().map(|set| {
        let mut value = json!(set);
        value["statistics"] = json!(state.count(set));
        value["undelivered"] = json!(set.undelivered());
        value
    });
    json!({
        "scaleSets": sets.collect::<Vec<_>>(),
        "runners": state.runners().collect::<Vec<_>>(),
        "jobs": state.jobs().collect::<Vec<_>>(),
        "pollsHeld": state.requests.polls_held(),
    })
}

fn requests(state: &State, call: &Call) -> Result<Answer, Refusal> {
    let wanted: Option<Endpoint> = match call.query("endpoint") {
        Some(name) => {
            Some(serde_json::from_value(json!(name)).map_err(|e| Refusal::bad_request(e.to_string()))?)
        }
        None => None,
    };
    let found: Vec<&Request> =
        state.requests.iter().filter(|r| wanted.is_none_or(|wanted| r.endpoint == wanted)).collect();
    let mut counts: BTreeMap<Endpoint, usize> = BTreeMap::new();
    for request in state.requests.iter() {
        *counts.entry(request.endpoint).or_default() += 1;
    }
    Ok(Answer::ok(&json!({ "counts": counts, "requests": found })))
}

fn queue(state: &mut State, call: &Call) -> Result<Answer, Refusal> {
    let spec: JobSpec = call.json()?;
    let count = call.number("count").unwrap_or(1);
    let ids: Vec<i64> = (0..count).map(|_| state.queue_job(spec.clone())).collect();
    Ok(Answer::json(StatusCode::CREATED, &json!({ "ids": ids })))
}

fn job(state: &mut State, call: &Call, id: &str, verb: &str) -> Result<(), Refusal> {
    let id = id.parse().map_err(|_| unknown())?;
    match verb {
        "start" => state.start_job(id, call.query("runner").unwrap_or_default())?,
        "cancel" => state.cancel_job(id)?,
        "finish" => {
            let result = call.query("result").unwrap_or("succeeded");
            let result: JobResult =
                serde_json::from_value(json!(result)).map_err(|e| Refusal::bad_request(e.to_string()))?;
            state.finish_job(id, result)?;
        }
        _ => return Err(unknown()),
    }
    Ok(())
}

fn scale_set(state: &mut State, call: &Call, name: &str, verb: &str) -> Result<(), Refusal> {
    let count = |name, default| call.number(name).and_then(|n| u32::try_from(n).ok()).unwrap_or(default);
    match verb {
        "expire-queue-token" => state.expire_queue_token(name)?,
        "expire-session" => state.expire_session(name)?,
        "drop-session" => state.drop_session(name)?,
        "vanish" => state.vanish_scale_set(name)?,
        "zero-statistics" => state.zero_statistics(name, count("times", 1))?,
        "repeat" => state.repeat_last_batch(name)?,
        "reverse" => state.reverse_next_batch(name)?,
        "limit-batch" => state.limit_batch(name, usize::try_from(count("most", 50)).unwrap_or(50))?,
        _ => return Err(unknown()),
    }
    Ok(())
}

async fn wait(inner: &Arc<Inner>, call: &Call) -> Result<Answer, Refusal> {
    let number = |name| call.number(name).and_then(|n| u64::try_from(n).ok());
    let completed = usize::try_from(number("completed").unwrap_or(1)).unwrap_or(usize::MAX);
    let deadline = Instant::now() + Duration::from_millis(number("timeoutMs").unwrap_or(WAIT));
    let mut changes = inner.lock().changes();
    loop {
        changes.borrow_and_update();
        if inner.lock().jobs_in(JobStatus::Completed) >= completed {
            return Ok(Answer::ok(&overview(&inner.lock())));
        }
        if timeout_at(deadline, changes.changed()).await.is_err() {
            return Err(Refusal::rest(StatusCode::REQUEST_TIMEOUT, "not so many jobs are over yet"));
        }
    }
}
