//! One call to the service: the token, the tries, the deadline.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde_json::Value;

use super::Error;
use super::auth::{AdminToken, Auth};
use super::classify::CallKind;
use super::network::Pools;
use super::transport::{self, Reply};
use super::url::below;

/// The version of the service's API that GitHub's own client asks for.
const API_VERSION: &str = "6.0-preview";
/// A transient fault gets this many further tries, if the call's deadline leaves the time.
const RETRIES: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(500))
    .with_max_delay(Duration::from_secs(5))
    .with_max_times(2)
    .with_jitter();

/// How long a call may take, all tries included.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// Everything but a poll: 30 s. One try of a call that is repeated gets a third of it.
    pub control: Duration,
    /// A long poll: 2 min. GitHub holds a quiet one for about 50 s.
    pub poll: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Deadlines { control: Duration::from_secs(30), poll: Duration::from_secs(120) }
    }
}

/// A call to the service.
pub(super) struct Call<'a> {
    method: Method,
    pub kind: CallKind,
    path: Vec<String>,
    query: &'a [(&'a str, &'a str)],
    body: Option<Value>,
    /// For the user agent.
    scale_set_id: i64,
}

impl<'a> Call<'a> {
    /// A call of `path` below `_apis`.
    pub fn new(method: Method, kind: CallKind, path: &[&str]) -> Self {
        let path = std::iter::once("_apis").chain(path.iter().copied()).map(str::to_owned).collect();
        Call { method, kind, path, query: &[], body: None, scale_set_id: 0 }
    }

    /// A call to a scale set, or to what `rest` names below it.
    pub fn of_set(method: Method, kind: CallKind, id: i64, rest: &[&str]) -> Self {
        let id_text = id.to_string();
        let path = [&["runtime", "runnerscalesets", &id_text], rest].concat();
        Call { scale_set_id: id, ..Call::new(method, kind, &path) }
    }

    /// With these in its query.
    pub fn query(self, query: &'a [(&'a str, &'a str)]) -> Self {
        Call { query, ..self }
    }

    /// With this for its body.
    pub fn body(self, body: Value) -> Self {
        Call { body: Some(body), ..self }
    }
}

/// What makes calls: connections, tokens and deadlines.
pub(super) struct Caller {
    pub pools: Pools,
    pub auth: Auth,
    pub deadlines: Deadlines,
}

impl Caller {
    /// A call with the admin token that may be repeated: transient faults get further tries.
    pub async fn call(&self, call: Call<'_>) -> Result<Reply, Error> {
        let attempt = || async {
            let token = self.auth.admin().await?;
            self.call_with(token, &call, self.deadlines.control / 3).await
        };
        persist(attempt).await
    }

    /// A call that must not happen twice when its answer is lost: one try.
    pub async fn call_once(&self, call: Call<'_>) -> Result<Reply, Error> {
        let token = self.auth.admin().await?;
        self.call_with(token, &call, self.deadlines.control).await
    }

    /// A refused token is renewed once. (A call that was refused did not happen, so this is no repetition.)
    async fn call_with(
        &self,
        token: Arc<AdminToken>,
        call: &Call<'_>,
        timeout: Duration,
    ) -> Result<Reply, Error> {
        let limit = self.auth.limit();
        limit.check()?;
        let reply = self.send(&token.service, &token.token, call, timeout).await?;
        if reply.status != StatusCode::UNAUTHORIZED {
            return limit.noted(reply.success(call.kind));
        }
        let token = self.auth.renew(&token).await?;
        limit.noted(self.send(&token.service, &token.token, call, timeout).await?.success(call.kind))
    }

    /// One try of a call, with that token.
    pub async fn send(
        &self,
        service: &Url,
        token: &str,
        call: &Call<'_>,
        timeout: Duration,
    ) -> Result<Reply, Error> {
        let mut url = below(service, &call.path.iter().map(String::as_str).collect::<Vec<_>>());
        url.query_pairs_mut().extend_pairs(call.query).append_pair("api-version", API_VERSION);
        let asked = format!("{} {}", call.method, url.path());
        let who = ("controller", call.scale_set_id);
        let mut request = transport::request(call.method.clone(), url, ("Bearer", token), who)?;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(body) = &call.body {
            transport::with_json(&mut request, body);
        }
        transport::send(&self.pools.control, request, asked, timeout).await
    }
}

/// Tries again after transient faults.
pub(super) async fn persist<T, F>(attempt: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    attempt.retry(RETRIES).when(|e| matches!(e, Error::Transient(_))).await
}

/// Ends a call at its deadline.
pub(super) async fn within<T>(
    deadline: Duration,
    call: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(deadline, call).await {
        Ok(result) => result,
        Err(_) => Err(Error::Transient(format!("no answer within {} s", deadline.as_secs_f32()))),
    }
}
