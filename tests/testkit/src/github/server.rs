//! HTTP: every request is read, logged, perhaps spoilt by a fault, and dispatched.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Query, State as Shared};
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING, USER_AGENT};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

use super::fault::{self, Effect};
use super::requests;
use super::route::{Endpoint, Route};
use super::wire::{Answer, Refusal};
use super::{Inner, control, rest, runner, service};

/// The largest body that is read.
const MAX_BODY: usize = 1 << 20;
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// A request, read.
pub(super) struct Call {
    pub method: Method,
    pub route: Route,
    pub endpoint: Endpoint,
    pub query: HashMap<String, String>,
    headers: HeaderMap,
    uri: Uri,
    body: Bytes,
}

impl Call {
    async fn read(request: Request<Body>, service_prefix: &str) -> Self {
        let (parts, body) = request.into_parts();
        let route = Route::parse(parts.uri.path(), service_prefix);
        let query = Query::<HashMap<String, String>>::try_from_uri(&parts.uri);
        Self {
            endpoint: route.endpoint(&parts.method),
            method: parts.method,
            route,
            query: query.map(|q| q.0).unwrap_or_default(),
            headers: parts.headers,
            uri: parts.uri,
            body: to_bytes(body, MAX_BODY).await.unwrap_or_default(),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn authorization(&self, scheme: &str) -> Option<&str> {
        self.headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix(scheme)?.strip_prefix(' ')
    }

    pub fn bearer(&self) -> Option<&str> {
        self.authorization("Bearer")
    }

    pub fn remote_auth(&self) -> Option<&str> {
        self.authorization("RemoteAuth")
    }

    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }

    pub fn number(&self, name: &str) -> Option<i64> {
        self.query(name)?.parse().ok()
    }

    pub fn has_body(&self) -> bool {
        !self.body.is_empty()
    }

    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        serde_json::from_slice(&self.body).map_err(|e| Refusal::bad_request(e.to_string()))
    }

    /// Whether it should tell the length of its body and does not.
    fn lacks_length(&self) -> bool {
        let carries = matches!(self.method, Method::POST | Method::PATCH | Method::PUT);
        let told = [CONTENT_LENGTH, TRANSFER_ENCODING].iter().any(|name| self.headers.contains_key(name));
        carries && !told && self.endpoint != Endpoint::Runner
    }

    /// The capacity header of a poll; absent or unreadable counts as none.
    pub fn capacity(&self) -> Option<i64> {
        self.header("x-scalesetmaxcapacity")?.trim().parse().ok()
    }

    fn log_entry(&self) -> requests::Request {
        requests::Request {
            number: 0,
            at: Timestamp::now(),
            endpoint: self.endpoint,
            method: self.method.to_string(),
            path: self.uri.path().to_owned(),
            query: self.uri.query().map(str::to_owned),
            scale_set: self.route.scale_set(),
            held: true,
            status: None,
            user_agent: self.header(USER_AGENT.as_str()).map(str::to_owned),
            capacity: self.capacity(),
            body: String::from_utf8_lossy(&self.body).into_owned(),
        }
    }
}

/// What goes back over the connection.
enum Outcome {
    Answer(Answer),
    /// The connection closes after so many bytes of the body; without any, before the first byte of the head.
    Cut(Answer, usize),
}

impl Outcome {
    fn closed() -> Self {
        Self::Cut(Answer::empty(StatusCode::OK), 0)
    }
}

pub(super) async fn handle(Shared(inner): Shared<Arc<Inner>>, request: Request<Body>) -> Response {
    let outcome = tokio::select! {
        outcome = respond(&inner, request) => outcome,
        () = inner.stop.cancelled() => Outcome::closed(),
    };
    into_response(outcome)
}

async fn respond(inner: &Arc<Inner>, request: Request<Body>) -> Outcome {
    let call = Call::read(request, inner.config.service_prefix()).await;
    if call.endpoint == Endpoint::Control {
        return Outcome::Answer(control::handle(inner, &call).await.unwrap_or_else(Answer::from));
    }
    let mut logged = Logged::begin(inner, &call);
    let mut outcome = work(inner, &call).await;
    if let Outcome::Answer(answer) = &mut outcome {
        finish(answer, inner.config.byte_order_mark);
        logged.status = Some(answer.status.as_u16());
    }
    outcome
}

/// A request in the log; its end is logged when this is dropped, so also when the client has gone.
struct Logged {
    inner: Arc<Inner>,
    number: u64,
    status: Option<u16>,
}

impl Logged {
    fn begin(inner: &Arc<Inner>, call: &Call) -> Self {
        let mut state = inner.lock();
        let number = state.requests.begin(call.log_entry());
        state.touch();
        Self { inner: Arc::clone(inner), number, status: None }
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        let mut state = self.inner.lock();
        state.requests.end(self.number, self.status);
        state.touch();
    }
}

/// The work of one request, and what faults make of it.
async fn work(inner: &Arc<Inner>, call: &Call) -> Outcome {
    if inner.config.length_required && call.lacks_length() {
        return Outcome::Answer(Answer::length_required());
    }
    if let Some(effect) = inner.take_fault(call, |effect| !effect.is_after()) {
        match effect {
            Effect::Delay { ms } => tokio::time::sleep(Duration::from_millis(ms)).await,
            other => return instead(other).await,
        }
    }
    let answer = match dispatch(inner, call).await {
        Ok(Work::Answer(answer)) => answer,
        Ok(Work::Fault(effect)) => return instead(effect).await,
        Err(refusal) => Answer::from(refusal),
    };
    if answer.status != StatusCode::ACCEPTED
        && let Some(effect) = inner.take_fault(call, Effect::is_after)
    {
        return spoilt(answer, effect);
    }
    Outcome::Answer(answer)
}

/// What an endpoint comes to.
pub(super) enum Work {
    Answer(Answer),
    /// A fault struck a poll while it was held.
    Fault(Effect),
}

async fn dispatch(inner: &Arc<Inner>, call: &Call) -> Result<Work, Refusal> {
    let answer = match call.endpoint {
        Endpoint::AccessToken
        | Endpoint::RegistrationToken
        | Endpoint::RunnerRegistration
        | Endpoint::RunnerList
        | Endpoint::RerunFailedJobs => rest::handle(inner, call)?,
        Endpoint::Poll => return service::poll(inner, call).await,
        Endpoint::Acknowledge => service::acknowledge(inner, call)?,
        Endpoint::Runner => runner::handle(inner, call).await?,
        Endpoint::Any | Endpoint::Control | Endpoint::Unknown => {
            return Err(Refusal::rest(StatusCode::NOT_FOUND, "Not Found"));
        }
        _ => service::handle(inner, call)?,
    };
    Ok(Work::Answer(answer))
}

/// A fault that takes the place of the work.
async fn instead(effect: Effect) -> Outcome {
    match effect {
        Effect::Answer { status, headers, body } => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let headers = headers.iter().filter_map(|(name, value)| {
                Some((HeaderName::try_from(name).ok()?, HeaderValue::from_str(value).ok()?))
            });
            Outcome::Answer(Answer { status, headers: headers.collect(), body: body.into_bytes() })
        }
        Effect::Hang { ms } => {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            Outcome::closed()
        }
        _ => Outcome::closed(),
    }
}

/// A fault that spoils a good answer.
fn spoilt(mut answer: Answer, effect: Effect) -> Outcome {
    match effect {
        Effect::CutAnswer => {
            let half = answer.body.len().div_ceil(2);
            Outcome::Cut(answer, half)
        }
        Effect::NullFields { fields } => {
            spoil_body(&mut answer, &fields, false);
            Outcome::Answer(answer)
        }
        Effect::DropFields { fields } => {
            spoil_body(&mut answer, &fields, true);
            Outcome::Answer(answer)
        }
        _ => Outcome::closed(),
    }
}

fn spoil_body(answer: &mut Answer, fields: &[String], drop: bool) {
    if let Ok(mut value) = serde_json::from_slice::<Value>(&answer.body) {
        fault::spoil(&mut value, fields, drop);
        answer.body = value.to_string().into_bytes();
    }
}

/// The headers that every answer of GitHub carries.
fn finish(answer: &mut Answer, byte_order_mark: bool) {
    let headers = &mut answer.headers;
    if !answer.body.is_empty() {
        headers
            .entry(CONTENT_TYPE)
            .or_insert(HeaderValue::from_static("application/json; charset=utf-8; api-version=6.0-preview"));
        if byte_order_mark {
            answer.body.splice(..0, BYTE_ORDER_MARK.iter().copied());
        }
    }
    for name in ["activityid", "x-github-request-id"] {
        if let Ok(value) = HeaderValue::from_str(&Uuid::new_v4().to_string()) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

fn into_response(outcome: Outcome) -> Response {
    match outcome {
        Outcome::Answer(answer) => (answer.status, answer.headers, answer.body).into_response(),
        Outcome::Cut(answer, sent) => {
            let part = Bytes::copy_from_slice(&answer.body[..sent]);
            (answer.status, answer.headers, cut_body(part)).into_response()
        }
    }
}

/// A body that fails after `part`: the server then closes the connection. The pause before the failure lets it send what
/// there is; without a part there is no pause, and nothing is sent, not even the head.
fn cut_body(part: Bytes) -> Body {
    let sends = !part.is_empty();
    let failure = stream::once(async move {
        if sends {
            tokio::task::yield_now().await;
        }
        Err(io::Error::other("cut on request"))
    });
    let part = stream::iter(sends.then_some(Ok(part)));
    Body::from_stream(part.chain(failure))
}
