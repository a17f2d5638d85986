//! One request, one reply: sent, read within bounds, and nothing secret kept for the error texts.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};
use reqwest::{Method, Request, Response, StatusCode, Url};
use serde_json::json;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout as within;

use super::Error;
use super::url::is_githubs;
use crate::cause;

/// The largest body that is read. A message holds at most 50 jobs and a page 100 runners: far below 1 MiB.
const MAX_BODY: usize = 1 << 20;
/// How much is read of the body of an error: the rest is left.
const MAX_ERROR: usize = 16 << 10;
/// A larger body is read and decoded in turns, so that hundreds of polls that are answered at once cost no more memory
/// than a few.
const LARGE: usize = 64 << 10;
/// The turns of the whole process.
static LARGE_AT_ONCE: Semaphore = Semaphore::const_new(4);
/// How long a large body may take from there on, its wait included: who sends it drop by drop does not keep the turn.
const LARGE_WITHIN: Duration = Duration::from_secs(10);

/// A request with what every one of ours has: who may ask (`scheme` and `token`), and who asks.
///
/// GitHub's own client describes itself by a JSON object in `User-Agent`; `scale_set_id` is 0 where no set is meant.
pub(super) fn request(
    method: Method,
    url: Url,
    (scheme, token): (&str, &str),
    (subsystem, scale_set_id): (&str, i64),
) -> Result<Request, Error> {
    // hyper leaves the length out where there is no body, and GitHub answers 411 to that.
    let length_told = matches!(method, Method::POST | Method::PATCH | Method::PUT);
    let mut request = Request::new(method, url);
    if length_told {
        request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
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
    request.headers_mut().remove(CONTENT_LENGTH);
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
    /// Whether a host of GitHub's own answered: only its words are told.
    pub githubs: bool,
    /// What the request authorised itself with, so that an error text can leave it out.
    pub secret: String,
    /// The turn of a large body; it ends with the reply.
    pub _turn: Option<SemaphorePermit<'static>>,
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
    let (secret, githubs) = (secret_of(&request), is_githubs(request.url()));
    *request.timeout_mut() = Some(timeout);
    let failed =
        |e: reqwest::Error| Error::Transient(format!("{asked}: {}", cause::innermost(&e.without_url())));
    let mut response = pool.execute(request).await.map_err(failed)?;
    let (mut body, turn) = read(&mut response, &asked).await?;
    if body.starts_with(b"\xef\xbb\xbf") {
        body.drain(..3);
    }
    let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
    tracing::debug!(%asked, status = status.as_u16(), "GitHub answered");
    Ok(Reply { status, headers, body, asked, githubs, secret, _turn: turn })
}

/// Reads the body within its bounds, a large one in its turn.
async fn read(
    response: &mut Response,
    asked: &str,
) -> Result<(Vec<u8>, Option<SemaphorePermit<'static>>), Error> {
    let mut body = Vec::new();
    if fill(response, &mut body, LARGE, asked).await? {
        return Ok((body, None));
    }
    let rest = async {
        // The semaphore is never closed.
        let turn = LARGE_AT_ONCE.acquire().await.ok();
        fill(response, &mut body, MAX_BODY, asked).await.map(|_| turn)
    };
    match within(LARGE_WITHIN, rest).await {
        Ok(turn) => turn.map(|turn| (body, turn)),
        Err(_) => Err(Error::Transient(format!("{asked}: a large answer took too long"))),
    }
}

/// Reads on until there are more bytes than `until`; true when there is no more to read. Of an error's body only the
/// beginning is; any other that passes its bound is refused there.
async fn fill(response: &mut Response, body: &mut Vec<u8>, until: usize, asked: &str) -> Result<bool, Error> {
    let good = response.status().is_success();
    let bound = if good { MAX_BODY } else { MAX_ERROR };
    while body.len() <= until {
        let chunk = response.chunk().await;
        let chunk = chunk
            .map_err(|e| Error::Transient(format!("{asked}: {}", cause::innermost(&e.without_url()))))?;
        let Some(chunk) = chunk else { return Ok(true) };
        let taken = chunk.len().min(bound - body.len());
        body.extend_from_slice(&chunk[..taken]);
        match taken < chunk.len() {
            true if good => {
                return Err(Error::BadReply(format!("{asked}: the answer is larger than {bound} bytes")));
            }
            true => return Ok(true),
            false => {}
        }
    }
    Ok(false)
}

fn secret_of(request: &Request) -> String {
    let value = request.headers().get(AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
    value.split_once(' ').map(|(_, token)| token).unwrap_or_default().to_owned()
}
