//! The scale-set service: `_apis` and the message queue.

use std::sync::Arc;

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Inner;
use super::builder::Model;
use super::fault::Effect;
use super::route::{Endpoint, Route, Scope};
use super::server::{Call, Work};
use super::state::{ScaleSetId, State, Statistics};
use super::wire::{self, Answer, Refusal};

/// The calls that carry an admin token, and `acquirejobs`, which carries the queue token.
pub(super) fn handle(inner: &Inner, call: &Call) -> Result<Answer, Refusal> {
    if call.query("api-version").is_none() {
        return Err(Refusal::bad_request("The api-version is missing."));
    }
    let mut state = inner.lock();
    if let Route::AcquireJobs(id) = call.route {
        return acquire(&mut state, call, id);
    }
    let scope = state.tokens.check_admin(call.bearer())?;
    match &call.route {
        Route::RunnerGroups => Ok(runner_groups(&state, call)),
        Route::ScaleSets if call.endpoint == Endpoint::GetScaleSet => {
            Ok(list_scale_sets(&mut state, call, &scope))
        }
        Route::ScaleSets => {
            let id = state.create_scale_set(&scope, call.json()?)?;
            scale_set(&mut state, &scope, id)
        }
        Route::ScaleSet(id) => one_scale_set(&mut state, call, &scope, *id),
        Route::JitConfig(id) => mint(inner, &mut state, call, &scope, *id),
        Route::AcquirableJobs(id) => acquirable(&state, &scope, *id),
        Route::Runners => Ok(find_runners(&state, call, &scope)),
        Route::Runner(id) if call.endpoint == Endpoint::GetRunner => {
            Ok(Answer::ok(&wire::runner(state.runner_of(&scope, *id)?)))
        }
        Route::Runner(id) => {
            state.remove_runner(&scope, *id)?;
            Ok(Answer::empty(StatusCode::NO_CONTENT))
        }
        Route::Sessions(id) => {
            #[derive(Deserialize)]
            #[serde(rename_all = "camelCase")]
            struct Body {
                owner_name: String,
            }
            let body: Body = call.json()?;
            state.open_session(&scope, *id, &body.owner_name)?;
            session(&mut state, *id)
        }
        Route::Session(id, session_id) if call.endpoint == Endpoint::RefreshSession => {
            state.refresh_session(&scope, *id, session_id)?;
            session(&mut state, *id)
        }
        Route::Session(id, session_id) => {
            state.close_session(&scope, *id, session_id)?;
            Ok(Answer::empty(StatusCode::NO_CONTENT))
        }
        _ => Err(Refusal::rest(StatusCode::NOT_FOUND, "Not Found")),
    }
}

fn runner_groups(state: &State, call: &Call) -> Answer {
    let wanted = call.query("groupName");
    let groups =
        state.groups().iter().filter(|g| wanted.is_none_or(|name| g.name.eq_ignore_ascii_case(name)));
    let size = |group: i64| -> usize {
        state.scale_sets().filter(|set| set.group_id == group).map(|set| set.runners.len()).sum()
    };
    Answer::ok(&wire::list(groups.map(|g| wire::runner_group(g, size(g.id))).collect()))
}

fn list_scale_sets(state: &mut State, call: &Call, scope: &Scope) -> Answer {
    let (group, name) = (call.number("runnerGroupId"), call.query("name"));
    let found: Vec<ScaleSetId> = state
        .scale_sets()
        .filter(|s| s.scope == *scope)
        .filter(|s| group.is_none_or(|id| s.group_id == id))
        .filter(|s| name.is_none_or(|name| s.name.eq_ignore_ascii_case(name)))
        .map(|s| s.id)
        .collect();
    Answer::ok(&wire::list(found.into_iter().map(|id| fresh_scale_set_value(state, id)).collect()))
}

fn one_scale_set(state: &mut State, call: &Call, scope: &Scope, id: ScaleSetId) -> Result<Answer, Refusal> {
    match call.endpoint {
        Endpoint::UpdateScaleSet => state.update_scale_set(scope, id, call.json()?)?,
        Endpoint::DeleteScaleSet => {
            state.delete_scale_set(scope, id)?;
            return Ok(Answer::empty(StatusCode::NO_CONTENT));
        }
        _ => {}
    }
    scale_set(state, scope, id)
}

fn scale_set(state: &mut State, scope: &Scope, id: ScaleSetId) -> Result<Answer, Refusal> {
    state.owned(scope, id)?;
    Ok(Answer::ok(&fresh_scale_set_value(state, id)))
}

fn fresh_scale_set_value(state: &mut State, id: ScaleSetId) -> Value {
    let statistics = state.report(id);
    scale_set_value(state, id, statistics)
}

fn scale_set_value(state: &State, id: ScaleSetId, statistics: Statistics) -> Value {
    let Some(set) = state.scale_set_by_id(id) else {
        return Value::Null;
    };
    let group = state.groups().iter().find(|g| g.id == set.group_id).map_or("", |g| g.name.as_str());
    let base = format!("{}{}", state.base_url, state.config.service_prefix());
    wire::scale_set(set, group, &base, statistics)
}

fn session(state: &mut State, id: ScaleSetId) -> Result<Answer, Refusal> {
    let statistics = state.report(id);
    let set_value = scale_set_value(state, id, statistics);
    let set = state.scale_set_by_id(id).ok_or_else(|| Refusal::no_such_scale_set(id))?;
    let session = set.session.as_ref().ok_or_else(|| Refusal::no_such_scale_set(id))?;
    let queue_url = match state.config.model {
        // The broker knows the session by its token.
        Model::Broker => format!("{}/scalesets/{id}/message", state.base_url),
        Model::Ghes => format!("{}/scalesets/{id}/message?sessionId={}", state.base_url, session.id),
    };
    Ok(Answer::ok(&wire::session(session, set_value, &queue_url, statistics)))
}

fn mint(
    inner: &Inner,
    state: &mut State,
    call: &Call,
    scope: &Scope,
    id: ScaleSetId,
) -> Result<Answer, Refusal> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Body {
        name: String,
        #[serde(default)]
        work_folder: Option<String>,
    }
    let body: Body = call.json()?;
    let work_folder = body.work_folder.filter(|folder| !folder.is_empty());
    let (runner, encoded) =
        inner.mint_jit(state, scope, id, &body.name, work_folder.as_deref().unwrap_or("_work"))?;
    let runner = wire::runner(state.runner_of(scope, runner)?);
    Ok(Answer::ok(&json!({ "runner": runner, "encodedJITConfig": encoded })))
}

fn find_runners(state: &State, call: &Call, scope: &Scope) -> Answer {
    let wanted = call.query("agentName");
    let found = state
        .runners()
        .filter(|r| r.scope == *scope)
        .filter(|r| wanted.is_none_or(|name| r.name.eq_ignore_ascii_case(name)));
    Answer::ok(&wire::list(found.map(wire::runner).collect()))
}

fn acquirable(state: &State, scope: &Scope, id: ScaleSetId) -> Result<Answer, Refusal> {
    let set = state.owned(scope, id)?;
    if state.config.model == Model::Broker || set.waiting.is_empty() {
        return Ok(Answer::empty(StatusCode::NO_CONTENT));
    }
    let jobs = set.waiting.iter().filter_map(|job| state.job(*job));
    let acquire_url = format!(
        "{}{}/_apis/runtime/runnerscalesets/{id}/acquirejobs",
        state.base_url,
        state.config.service_prefix()
    );
    let offered = jobs.map(|job| {
        wire::job_message(wire::Kind::Available, job, job.id, state.job_id_on_the_wire(job), &acquire_url)
    });
    Ok(Answer::ok(&wire::list(offered.collect())))
}

/// The broker has no such route.
fn acquire(state: &mut State, call: &Call, id: ScaleSetId) -> Result<Answer, Refusal> {
    if state.config.model == Model::Broker {
        return Err(Refusal::rest(StatusCode::NOT_FOUND, "Not Found"));
    }
    state.check_queue(id, None, call.bearer())?;
    let ids: Vec<i64> = call.json()?;
    let granted = state.acquire(id, &ids);
    Ok(Answer::ok(&wire::list(granted.into_iter().map(Value::from).collect())))
}

/// The long poll. It is held until there is a message, the session ends, a fault strikes, or its time is up.
pub(super) async fn poll(inner: &Arc<Inner>, call: &Call) -> Result<Work, Refusal> {
    let Route::Queue(id) = call.route else {
        return Err(Refusal::rest(StatusCode::NOT_FOUND, "Not Found"));
    };
    let last_message_id = call.number("lastMessageId").unwrap_or(0);
    let capacity = call.capacity().unwrap_or(0);
    let deadline = Instant::now() + inner.config.long_poll;
    let mut changes = {
        let mut state = inner.lock();
        let changes = state.check_queue(id, session_id(inner, call)?, call.bearer())?.changes();
        state.note_poll(id, capacity);
        changes
    };
    loop {
        // Read before looking, so that a change after the look is not missed.
        changes.borrow_and_update();
        if let Some(effect) = inner.take_fault(call, Effect::is_instead) {
            return Ok(Work::Fault(effect));
        }
        {
            let mut state = inner.lock();
            state.check_queue(id, session_id(inner, call)?, call.bearer())?;
            if let Some(message) = state.next_message(id, last_message_id, capacity) {
                return Ok(Work::Answer(Answer::ok(&message)));
            }
        }
        // An error says that the scale set is gone; the next look finds that out.
        if tokio::time::timeout_at(deadline, changes.changed()).await.is_err() {
            return Ok(Work::Answer(Answer::empty(StatusCode::ACCEPTED)));
        }
    }
}

pub(super) fn acknowledge(inner: &Inner, call: &Call) -> Result<Answer, Refusal> {
    let Route::Message(id, message_id) = call.route else {
        return Err(Refusal::rest(StatusCode::NOT_FOUND, "Not Found"));
    };
    let mut state = inner.lock();
    state.check_queue(id, session_id(inner, call)?, call.bearer())?;
    if state.acknowledge(id, message_id) {
        Ok(Answer::empty(StatusCode::NO_CONTENT))
    } else {
        Err(Refusal::service(
            StatusCode::NOT_FOUND,
            "MessageNotFoundException",
            "The message does not exist.",
        ))
    }
}

/// The queue URL of GHES has a query of its own, and a client has to keep it.
fn session_id<'a>(inner: &Inner, call: &'a Call) -> Result<Option<&'a str>, Refusal> {
    if inner.config.model == Model::Broker {
        return Ok(None);
    }
    let id = call.query("sessionId");
    id.map(Some).ok_or_else(|| Refusal::bad_request("The queue URL has lost its sessionId."))
}
