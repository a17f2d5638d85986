//! HTTP: every request is read, logged, authorized, perhaps throttled or spoilt by a fault, and dispatched.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Query, State as Shared};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use axum::http::{HeaderMap, HeaderName, Method, Request, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use super::auth::Signature;
use super::fault::{self, Effect};
use super::operation::Operation;
use super::refusal::reported;
use super::wire::{AWS_JSON, Answer, Refusal};
use super::{Inner, clusters, control, definitions, look, requests, run, sts, tags};

/// The largest body that is read.
const MAX_BODY: usize = 1 << 20;
const CONTROL: &str = "/_control/";

/// A request, read.
pub(super) struct Call {
    pub method: Method,
    pub uri: Uri,
    pub operation: Operation,
    pub signature: Option<Signature>,
    /// The members of a request of ECS, or the body of a control call.
    pub body: Value,
    /// The parameters of a request of STS.
    pub form: HashMap<String, String>,
    user_agent: Option<String>,
    /// What is wrong with the request's form.
    malformed: Option<Refusal>,
}

impl Call {
    async fn read(request: Request<Body>) -> Self {
        let (parts, body) = request.into_parts();
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let bytes = to_bytes(body, MAX_BODY).await.unwrap_or_default();
        let is_control = parts.uri.path().starts_with(CONTROL);
        let content_type = header(CONTENT_TYPE.as_str());
        // A control call is JSON, whatever its client makes of it.
        let is_form =
            !is_control && content_type.is_some_and(|t| t.starts_with("application/x-www-form-urlencoded"));
        let form = if is_form { parse_form(&bytes) } else { HashMap::new() };
        let operation = match header("x-amz-target") {
            Some(target) => Operation::from_target(target),
            None => form.get("Action").map_or(Operation::Unknown, |action| Operation::from_action(action)),
        };
        let parsed =
            if is_form || bytes.is_empty() { Ok(Value::Null) } else { serde_json::from_slice(&bytes) };
        let malformed =
            if is_control || operation.is_sts() { None } else { malformation(content_type, &parsed) };
        Self {
            operation,
            signature: Signature::read(header(AUTHORIZATION.as_str()), header("x-amz-security-token")),
            body: parsed.unwrap_or_default(),
            form,
            user_agent: header(USER_AGENT.as_str()).map(str::to_owned),
            malformed,
            method: parts.method,
            uri: parts.uri,
        }
    }

    /// The path of a control call, taken apart.
    pub fn control_path(&self) -> Option<Vec<&str>> {
        Some(self.uri.path().strip_prefix(CONTROL)?.split('/').collect())
    }

    /// A parameter of the URL.
    pub fn query(&self, name: &str) -> Option<String> {
        Query::<HashMap<String, String>>::try_from_uri(&self.uri).ok()?.0.remove(name)
    }

    fn log_entry(&self) -> requests::Request {
        requests::Request {
            number: 0,
            at: Timestamp::now(),
            operation: self.operation,
            body: self.body.clone(),
            access_key: self.signature.as_ref().map(|signature| signature.access_key.clone()),
            user_agent: self.user_agent.clone(),
            held: true,
            status: None,
            exception: None,
        }
    }
}

fn parse_form(bytes: &Bytes) -> HashMap<String, String> {
    let text = String::from_utf8_lossy(bytes);
    let uri: Option<Uri> = format!("/?{text}").parse().ok();
    uri.and_then(|uri| Query::try_from_uri(&uri).ok()).map(|query| query.0).unwrap_or_default()
}

/// What is wrong with a request of awsJson1.1.
fn malformation(content_type: Option<&str>, body: &Result<Value, serde_json::Error>) -> Option<Refusal> {
    if content_type != Some(AWS_JSON) {
        return Some(Refusal::front_door("UnknownOperationException", ""));
    }
    match body {
        Ok(Value::Object(_)) => None,
        Ok(_) => Some(Refusal::front_door(
            "SerializationException",
            "Start of structure or map found where not expected.",
        )),
        Err(error) => Some(Refusal::front_door("SerializationException", error.to_string())),
    }
}

/// What goes back: an answer, or the first bytes of one and then the end of the connection.
enum Outcome {
    Answer(Answer),
    Cut(Answer, usize),
}

impl Outcome {
    /// The connection closes without a byte.
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
    let call = Call::read(request).await;
    if let Some(path) = call.control_path() {
        return Outcome::Answer(control::handle(inner, &call, &path).await);
    }
    let mut logged = Logged::begin(inner, &call);
    let outcome = work(inner, &call).await;
    if let Outcome::Answer(answer) = &outcome {
        logged.status = Some(answer.status.as_u16());
        logged.exception = answer.exception.clone();
    }
    outcome
}

/// A request in the log; its end is logged when this is dropped, so also when the client has gone.
struct Logged {
    inner: Arc<Inner>,
    number: u64,
    status: Option<u16>,
    exception: Option<String>,
}

impl Logged {
    fn begin(inner: &Arc<Inner>, call: &Call) -> Self {
        let mut state = inner.lock();
        let number = state.requests.begin(call.log_entry());
        state.touch();
        Self { inner: Arc::clone(inner), number, status: None, exception: None }
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        let mut state = self.inner.lock();
        state.requests.end(self.number, self.status, self.exception.take());
        state.touch();
    }
}

/// The work of one request, and what faults make of it.
async fn work(inner: &Arc<Inner>, call: &Call) -> Outcome {
    match inner.take_fault(call.operation, Effect::is_before) {
        Some(Effect::Delay { ms }) => tokio::time::sleep(Duration::from_millis(ms)).await,
        Some(effect) => return instead(effect).await,
        None => {}
    }
    let answer = if call.operation.is_sts() {
        sts::handle(inner, call)
    } else {
        dispatch(inner, call).map_or_else(Answer::from, |body| Answer::ok(&body))
    };
    match inner.take_fault(call.operation, Effect::is_after) {
        Some(Effect::CutAnswer) => {
            let half = answer.body.len().div_ceil(2);
            Outcome::Cut(answer, half)
        }
        Some(_) => Outcome::closed(),
        None => Outcome::Answer(answer),
    }
}

fn dispatch(inner: &Inner, call: &Call) -> Result<Value, Refusal> {
    if call.operation == Operation::Unknown {
        return Err(Refusal::front_door("UnknownOperationException", ""));
    }
    let mut state = inner.lock();
    let state = &mut *state;
    state.fire();
    let now = state.clock.now();
    let region = state.config.region.clone();
    state.access.check(call.signature.as_ref(), call.operation, &region, now)?;
    if let Some(refusal) = &call.malformed {
        return Err(refusal.clone());
    }
    if !state.throttle.admits(call.operation, now) {
        return Err(reported::throttled());
    }
    state.sweep_definitions();
    let effect = fault::take(&mut state.faults, call.operation, Effect::is_within);
    let (body, effect) = (&call.body, effect.as_ref());
    match call.operation {
        Operation::CreateCluster => clusters::create_cluster(state, body),
        Operation::DescribeClusters => clusters::describe_clusters(state, body),
        Operation::DescribeCapacityProviders => clusters::describe_providers(state, body),
        Operation::RegisterTaskDefinition => definitions::register(state, body),
        Operation::DeregisterTaskDefinition => definitions::deregister(state, body),
        Operation::DeleteTaskDefinitions => definitions::delete(state, body),
        Operation::DescribeTaskDefinition => definitions::describe(state, body),
        Operation::ListTaskDefinitions => definitions::list(state, body),
        Operation::RunTask => run::run_task(state, body, effect),
        Operation::StopTask => run::stop_task(state, body),
        Operation::ListTasks => look::list_tasks(state, body),
        Operation::DescribeTasks => look::describe_tasks(state, body, effect),
        Operation::TagResource => tags::tag(state, body),
        Operation::UntagResource => tags::untag(state, body),
        Operation::ListTagsForResource => tags::list(state, body),
        Operation::Any | Operation::AssumeRole | Operation::GetCallerIdentity | Operation::Unknown => {
            Err(Refusal::front_door("UnknownOperationException", ""))
        }
    }
}

/// A fault that takes the place of the work.
async fn instead(effect: Effect) -> Outcome {
    let status = |status| StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    match effect {
        Effect::Exception { status: number, code, message, at_front_door } => {
            let mut refusal = Refusal::new(&code, message).with_status(status(number));
            refusal.at_front_door = at_front_door;
            Outcome::Answer(refusal.into())
        }
        Effect::Body { status: number, body } => {
            let mut answer = Answer::empty(status(number));
            answer.body = body.into_bytes();
            Outcome::Answer(answer)
        }
        Effect::Hang { ms } => {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            Outcome::closed()
        }
        _ => Outcome::closed(),
    }
}

fn into_response(outcome: Outcome) -> Response {
    let (answer, cut) = match outcome {
        Outcome::Answer(answer) => (answer, None),
        Outcome::Cut(answer, sent) => (answer, Some(sent)),
    };
    let mut headers = HeaderMap::new();
    let id = Uuid::new_v4().to_string();
    let pairs =
        [(CONTENT_TYPE, answer.content_type), (HeaderName::from_static("x-amzn-requestid"), id.as_str())];
    headers.extend(pairs.into_iter().filter_map(|(name, value)| Some((name, value.parse().ok()?))));
    let body = match cut {
        Some(sent) => cut_body(Bytes::copy_from_slice(&answer.body[..sent])),
        None => Body::from(answer.body),
    };
    (answer.status, headers, body).into_response()
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

impl Inner {
    /// The fault that strikes this operation now, if any.
    fn take_fault(&self, operation: Operation, filter: fn(&Effect) -> bool) -> Option<Effect> {
        fault::take(&mut self.lock().faults, operation, filter)
    }
}
