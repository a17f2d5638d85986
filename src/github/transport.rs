//! One request, one reply: sent, read within bounds, and nothing secret kept for the error texts.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};
use reqwest::{Method, Request, StatusCode, Url};
use serde_json::json;

use super::Error;
use super::network::causes;

/// The largest body that is read. A message holds at most 50 jobs and a page 100 runners: far below 1 MiB.
const MAX_BODY: usize = 8 << 20;

/// A request with what every one of ours has: who may ask (`scheme` and `token`), and who asks.
///
/// GitHub's own client describes itself by a JSON object in `User-Agent`; `scale_set_id` is 0 where no set is meant.
pub(super) fn request(
    method: Method,
    url: Url,
    (scheme, token): (&str, &str),
    (subsystem, scale_set_id): (&str, i64),
) -> Result<Request, Error> {
    let mut request = Request::new(method, url);
    let mut authorization = HeaderValue::from_str(&format!("{scheme} {token}"))
        .map_err(|_| Error::Config("the credential holds characters that no header can carry".into()))?;
    authorization.set_sensitive(true);
    request.headers_mut().insert(AUTHORIZATION, authorization);
    let agent = json!({
        "system": "paddock",
        "version": env!("CARGO_PKG_VERSION"),
        "commit_sha": option_env!("PADDOCK_COMMIT").unwrap_or("unknown"),
        "scale_set_id": scale_set_id,
        "subsystem": subsystem,
    });
    let agent = HeaderValue::from_str(&agent.to_string()).unwrap_or(HeaderValue::from_static("paddock"));
    request.headers_mut().insert(USER_AGENT, agent);
    Ok(request)
}

/// Gives it a JSON body.
pub(super) fn with_json(request: &mut Request, body: &serde_json::Value) {
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    *request.body_mut() = Some(body.to_string().into());
}

/// A reply, read whole.
pub(super) struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// Without the byte-order mark that may precede it.
    pub body: Vec<u8>,
    /// What was asked, for error texts: method and path. A queue's URL is a secret of its own and is not named.
    pub asked: String,
    /// What the request authorised itself with, so that an error text can leave it out.
    pub secret: String,
}

/// Sends it and reads the answer, whatever its status.
///
/// # Errors
/// [`Error::Transient`] when no answer came within `timeout`, [`Error::BadReply`] for one that is too large.
pub(super) async fn send(
    pool: &reqwest::Client,
    mut request: Request,
    asked: String,
    timeout: Duration,
) -> Result<Reply, Error> {
    let secret = secret_of(&request);
    *request.timeout_mut() = Some(timeout);
    let failed = |e: reqwest::Error| Error::Transient(format!("{asked}: {}", causes(&e.without_url())));
    let mut response = pool.execute(request).await.map_err(failed)?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > MAX_BODY {
            return Err(Error::BadReply(format!("{asked}: the answer is larger than {MAX_BODY} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    if body.starts_with(b"\xef\xbb\xbf") {
        body.drain(..3);
    }
    let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
    tracing::debug!(%asked, status = status.as_u16(), "GitHub answered");
    Ok(Reply { status, headers, body, asked, secret })
}

fn secret_of(request: &Request) -> String {
    let value = request.headers().get(AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
    value.split_once(' ').map(|(_, token)| token).unwrap_or_default().to_owned()
}
