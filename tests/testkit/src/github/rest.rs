//! The REST hops: GitHub's public API.

use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Inner;
use super::auth::{Access, Permission};
use super::route::{Route, Scope};
use super::server::Call;
use super::state::RerunRefusal;
use super::wire::{self, Answer, Refusal};

/// Registration and installation tokens say that they live for an hour.
const HOUR: jiff::SignedDuration = jiff::SignedDuration::from_hours(1);

pub(super) fn handle(inner: &Inner, call: &Call) -> Result<Answer, Refusal> {
    match &call.route {
        Route::AccessToken(installation) => {
            let unreadable = |_| Refusal::rest(StatusCode::BAD_REQUEST, "Problems parsing JSON");
            let access = match call.has_body() {
                true => call.json().map_err(unreadable)?,
                false => Access::default(),
            };
            let token = inner.lock().tokens.open_installation(*installation, call.bearer(), access)?;
            Ok(token_answer(&token))
        }
        Route::RegistrationToken(scope) => {
            let token = inner.lock().tokens.open_registration(call.bearer(), scope)?;
            Ok(token_answer(&token))
        }
        Route::RunnerRegistration => register(inner, call),
        Route::RunnerList(scope) => list_runners(inner, call, scope),
        Route::RerunFailedJobs(repository, run) => rerun_failed_jobs(inner, call, repository, *run),
        _ => Err(Refusal::rest(StatusCode::NOT_FOUND, "Not Found")),
    }
}

fn token_answer(token: &str) -> Answer {
    let body = json!({ "token": token, "expires_at": Timestamp::now() + HOUR });
    Answer::json(StatusCode::CREATED, &body)
}

/// The second hop: where the service is, and the admin token for it.
fn register(inner: &Inner, call: &Call) -> Result<Answer, Refusal> {
    #[derive(Deserialize)]
    struct Body {
        url: String,
        runner_event: String,
    }
    let unprocessable = |message: &str| Refusal::rest(StatusCode::UNPROCESSABLE_ENTITY, message);
    let body: Body = call.json().map_err(|e| unprocessable(&e.message))?;
    let scope = Scope::from_url(&body.url).ok_or_else(|| unprocessable("url is not a configuration URL"))?;
    if body.runner_event != "register" {
        return Err(unprocessable("runner_event must be register"));
    }
    let token = inner.lock().tokens.open_admin(call.remote_auth(), &scope)?;
    let url = format!("{}{}/", inner.public_url, inner.config.service_prefix());
    Ok(Answer::ok(&json!({ "url": url, "token": token, "use_v2_flow": false })))
}

/// What lacks the right `actions: write` and what cannot be run again (now) is refused with one status.
fn rerun_failed_jobs(inner: &Inner, call: &Call, repository: &str, run: i64) -> Result<Answer, Refusal> {
    let mut state = inner.lock();
    state.tokens.check_rest(call.bearer(), Some(Permission::Actions))?;
    let refused = |message| Refusal::rest(StatusCode::FORBIDDEN, message);
    state.rerun_failed_jobs(repository, run).map_err(|why| match why {
        RerunRefusal::NoSuchRun => Refusal::rest(StatusCode::NOT_FOUND, "Not Found"),
        RerunRefusal::Running => refused("This workflow is already running"),
        RerunRefusal::NothingFailed => refused("This workflow run cannot be retried"),
    })?;
    Ok(Answer::json(StatusCode::CREATED, &json!({})))
}

fn list_runners(inner: &Inner, call: &Call, scope: &Scope) -> Result<Answer, Refusal> {
    let state = inner.lock();
    state.tokens.check_rest(call.bearer(), Permission::of_runners(scope))?;
    let size = |value: Option<i64>, or| value.and_then(|n| usize::try_from(n).ok()).unwrap_or(or);
    let per_page = size(call.number("per_page"), 30).clamp(1, 100);
    let page = size(call.number("page"), 1).max(1);
    let all: Vec<_> = state.runners().filter(|r| r.scope == *scope).collect();
    let runners: Vec<Value> = all
        .iter()
        .skip((page - 1) * per_page)
        .take(per_page)
        .map(|runner| {
            let set = state.scale_set_by_id(runner.scale_set);
            wire::rest_runner(runner, set.map(|set| set.labels.as_slice()).unwrap_or_default())
        })
        .collect();
    Ok(Answer::ok(&json!({ "total_count": all.len(), "runners": runners })))
}
