//! From a reply to the error that it means. In this order: rate limit, redirect, the exception's name, the hop, the status.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::StatusCode;
use reqwest::header::{LOCATION, RETRY_AFTER};

use super::Error;
use super::fields::{NAME, cut};
use super::transport::Reply;
use super::wire::{self, Fault};

/// How GitHub begins to say that a credential lacks a right for a workflow run: by the same status it refuses one that goes on
/// ("This workflow is already running") or is not fit for it ("This workflow run cannot be retried").
const NO_RIGHT: [&str; 2] = ["Resource not accessible", "Must have"];
/// How long to leave GitHub alone when it does not say. GitHub's documentation on rate limits: "wait for at least one
/// minute before retrying".
const UNSAID_DELAY: Duration = Duration::from_secs(60);
/// The longest piece of a body that an error text carries.
const EXCERPT: usize = 200;

/// What was asked for: the same status means another thing at each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallKind {
    /// The REST calls that lead to an admin token. A 404 here says nothing about a set or a runner.
    Auth,
    /// A scale set, or what is below one.
    ScaleSet,
    /// The removal of a scale set.
    DeleteScaleSet,
    /// Runner groups.
    Group,
    /// A new session.
    OpenSession,
    /// A session that exists.
    Session,
    /// The message queue.
    Queue,
    /// A new registration.
    Mint,
    /// A registration that exists.
    Runner,
    /// A workflow run that is to be run again.
    Rerun,
}

impl Reply {
    /// Itself when the status is 2xx, else what it means.
    pub fn success(self, kind: CallKind) -> Result<Self, Error> {
        if self.status.is_success() { Ok(self) } else { Err(self.error(kind)) }
    }

    /// What an unsuccessful reply means.
    pub fn error(&self, kind: CallKind) -> Error {
        let fault = wire::fault(&self.body);
        if let Some(retry_after) = self.rate_limit(&fault) {
            return Error::RateLimited { retry_after };
        }
        if self.status.is_redirection() {
            return self.moved();
        }
        let text = self.text(&fault);
        if kind == CallKind::Rerun {
            return rerun(self.status, &fault, text);
        }
        by_name(self.status, &fault, kind, &text).unwrap_or_else(|| by_status(self.status, kind, text))
    }

    fn rate_limit(&self, fault: &Fault) -> Option<Duration> {
        let spent = self.header("x-ratelimit-remaining").is_some_and(|left| left == "0");
        let asked_to_wait = self.header(RETRY_AFTER.as_str());
        let limited = match self.status {
            StatusCode::TOO_MANY_REQUESTS => true,
            // Who says when to come again wants to be left alone until then.
            StatusCode::SERVICE_UNAVAILABLE => asked_to_wait.is_some(),
            StatusCode::FORBIDDEN => {
                spent || asked_to_wait.is_some() || fault.message.to_lowercase().contains("secondary rate")
            }
            _ => false,
        };
        let reset = || self.header("x-ratelimit-reset").filter(|_| spent).and_then(until_epoch);
        limited.then(|| asked_to_wait.and_then(delay).or_else(reset).unwrap_or(UNSAID_DELAY))
    }

    fn moved(&self) -> Error {
        let target = self.header(LOCATION.as_str()).unwrap_or("a place that it does not name");
        let target = excerpt(target.split('?').next().unwrap_or_default());
        Error::Config(format!(
            "{} has moved to {target} (HTTP {}): GitHub was asked at an old name; give the new one",
            self.asked,
            self.status.as_u16()
        ))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok()).map(str::trim).filter(|v| !v.is_empty())
    }

    /// What a person needs to look into it, and no credential. The words of a host that is not GitHub's own are not told: they
    /// may be those of any service that the controller reaches and a tenant does not.
    fn text(&self, fault: &Fault) -> String {
        let mut text = format!("{} answered HTTP {}", self.asked, self.status.as_u16());
        if !self.githubs {
            text.push_str(" (in words that are not shown");
        } else if !fault.message.is_empty() {
            text = format!("{} ({text}", excerpt(&fault.message));
        } else {
            text.push_str(" (no message");
        }
        for name in ["ActivityId", "X-GitHub-Request-Id"] {
            if let Some(id) = self.header(name) {
                text.push_str(&format!("; {name} {}", cut(id, NAME)));
            }
        }
        text.push(')');
        if self.secret.is_empty() { text } else { text.replace(&self.secret, "…") }
    }
}

/// One line, and short.
fn excerpt(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(EXCERPT) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// `Retry-After`: seconds, or a date.
fn delay(value: &str) -> Option<Duration> {
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => until(DateTimeParser::new().parse_timestamp(value).ok()?),
    }
}

fn until_epoch(value: &str) -> Option<Duration> {
    until(Timestamp::from_second(value.parse().ok()?).ok()?)
}

fn until(moment: Timestamp) -> Option<Duration> {
    Some(Duration::try_from(moment.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO))
}

fn by_name(status: StatusCode, fault: &Fault, kind: CallKind, text: &str) -> Option<Error> {
    // A 401 is about the token, whatever the exception says ("TokenExpired", for one, does not mean the session).
    if kind == CallKind::Auth || status == StatusCode::UNAUTHORIZED {
        return None;
    }
    let lost = || fault.name.contains("Expired") || fault.name.contains("NotFound");
    // GitHub names some of them with `TaskAgent` before, and some without.
    let is = |end: &str| fault.name.ends_with(end);
    match kind {
        _ if is("AgentExistsException") => Some(Error::RunnerExists),
        _ if is("AgentNotFoundException") => Some(Error::RunnerGone),
        _ if is("JobStillRunningException") => Some(Error::RunnerBusy),
        _ if is("RunnerScaleSetExistsException") => Some(Error::NameTaken(text.to_owned())),
        _ if is("RunnerScaleSetNotFoundException") => Some(Error::ScaleSetGone),
        _ if is("SessionConflictException") => Some(conflict(fault)),
        CallKind::Session | CallKind::Queue if lost() => Some(Error::SessionLost(text.to_owned())),
        _ => None,
    }
}

fn by_status(status: StatusCode, kind: CallKind, text: String) -> Error {
    match (kind, status.as_u16()) {
        (_, 408 | 500..) => Error::Transient(text),
        // Something on the way took the length of the body away: no credential is to blame.
        (_, 411) => Error::BadReply(text),
        (_, 407) => Error::Config(format!("the proxy asks for another login: {text}")),
        (CallKind::Queue, 401) => Error::TokenExpired,
        (_, 401) => Error::AuthRejected(text),
        (_, 403) => Error::Forbidden(text),
        (CallKind::Auth, _) => Error::AuthRejected(text),
        (CallKind::ScaleSet | CallKind::DeleteScaleSet | CallKind::OpenSession | CallKind::Mint, 404) => {
            Error::ScaleSetGone
        }
        (CallKind::ScaleSet, 409) => Error::NameTaken(text),
        (CallKind::DeleteScaleSet, 400 | 409) => Error::RunnerBusy,
        (CallKind::OpenSession, 409) => Error::SessionConflict { owner: None },
        (CallKind::Session | CallKind::Queue, _) => Error::SessionLost(text),
        (CallKind::Mint, 409) => Error::RunnerExists,
        // GitHub names the exception; a 404 without it is a gateway's, or of an outage.
        (CallKind::Runner, 404) => Error::Transient(text),
        (CallKind::ScaleSet, _) => Error::Config(format!("GitHub refuses the scale set: {text}")),
        _ => Error::BadReply(text),
    }
}

/// A repository that the credential may not see is not found.
fn rerun(status: StatusCode, fault: &Fault, text: String) -> Error {
    match status.as_u16() {
        404 => Error::Forbidden(text),
        403 if NO_RIGHT.iter().any(|beginning| fault.message.starts_with(beginning)) => {
            Error::Forbidden(text)
        }
        403 | 409 | 422 => Error::NoRerun(text),
        _ => by_status(status, CallKind::Rerun, text),
    }
}

/// The service says "… already has an active session for owner NAME." (actions-runner-controller, issue 3351)
fn conflict(fault: &Fault) -> Error {
    let owner = fault.message.split_once("for owner ").map(|(_, rest)| rest.trim());
    let owner = owner.map(|o| o.trim_end_matches('.').trim_matches(['\'', '"', '`']).to_owned());
    let is_name = |o: &String| !o.is_empty() && o.len() <= NAME && o.chars().all(|c| c.is_ascii_graphic());
    Error::SessionConflict { owner: owner.filter(is_name) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn reply(status: u16, headers: &[(&str, &str)], body: &str) -> Reply {
        let headers = headers.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect();
        Reply {
            status: StatusCode::from_u16(status).unwrap(),
            headers,
            body: body.into(),
            asked: "GET /x".into(),
            githubs: true,
            secret: "planted".into(),
            _turn: None,
        }
    }

    fn exception(status: u16, name: &str, kind: CallKind) -> Error {
        let body = format!(r#"{{"typeName": "GitHub.X.{name}, GitHub.X", "message": "no"}}"#);
        reply(status, &[], &body).error(kind)
    }

    #[test]
    fn a_rate_limit_comes_before_everything() {
        let seconds = |status, headers: &[(&str, &str)], body: &str| match reply(status, headers, body)
            .error(CallKind::Auth)
        {
            Error::RateLimited { retry_after } => Some(retry_after.as_secs()),
            _ => None,
        };
        assert_eq!(seconds(429, &[("retry-after", "7")], ""), Some(7));
        assert_eq!(seconds(429, &[], ""), Some(60));
        assert_eq!(seconds(403, &[("retry-after", "7")], ""), Some(7));
        assert_eq!((seconds(503, &[("retry-after", "7")], ""), seconds(503, &[], "")), (Some(7), None));
        assert_eq!(seconds(403, &[], r#"{"message": "You have exceeded a Secondary Rate limit"}"#), Some(60));
        let an_hour = reply(429, &[("retry-after", "3600")], "").error(CallKind::Runner);
        assert_eq!(an_hour.retry_after().as_secs(), 15 * 60, "not without another look");
        let soon = (Timestamp::now() + Duration::from_secs(90)).as_second().to_string();
        let left = seconds(403, &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", &soon)], "").unwrap();
        assert!((80..=90).contains(&left), "{left}");
        assert_eq!(seconds(429, &[("retry-after", "Tue, 15 Nov 1994 08:12:31 GMT")], ""), Some(0));
        assert_eq!(seconds(403, &[], r#"{"message": "Resource not accessible"}"#), None);
        let named = r#"{"typeName": "AgentNotFoundException", "message": "x"}"#;
        assert!(matches!(reply(429, &[], named).error(CallKind::Runner), Error::RateLimited { .. }));
    }

    #[test]
    fn an_exceptions_name_comes_before_the_status() {
        assert!(matches!(exception(400, "AgentExistsException", CallKind::Mint), Error::RunnerExists));
        assert!(matches!(exception(400, "AgentNotFoundException", CallKind::Runner), Error::RunnerGone));
        assert!(matches!(exception(400, "JobStillRunningException", CallKind::Runner), Error::RunnerBusy));
        assert!(matches!(exception(409, "TaskAgentExistsException", CallKind::Mint), Error::RunnerExists));
        assert!(matches!(exception(404, "TaskAgentNotFoundException", CallKind::Runner), Error::RunnerGone));
        assert!(matches!(
            exception(400, "TaskAgentJobStillRunningException", CallKind::Runner),
            Error::RunnerBusy
        ));
        assert!(matches!(
            exception(400, "RunnerScaleSetExistsException", CallKind::ScaleSet),
            Error::NameTaken(_)
        ));
        assert!(matches!(
            exception(400, "RunnerScaleSetNotFoundException", CallKind::Session),
            Error::ScaleSetGone
        ));
        assert!(matches!(
            exception(400, "RunnerScaleSetSessionExpiredException", CallKind::Queue),
            Error::SessionLost(_)
        ));
        let conflict = exception(409, "TaskAgentSessionConflictException", CallKind::OpenSession);
        assert!(matches!(conflict, Error::SessionConflict { owner: None }));
    }

    #[test]
    fn a_conflict_names_the_owner() {
        let body = r#"{"typeName": "X.RunnerScaleSetSessionConflictException",
            "message": "The runner scale set linux already has an active session for owner arc-listener-0."}"#;
        let error = reply(409, &[], body).error(CallKind::OpenSession);
        assert!(matches!(error, Error::SessionConflict { owner: Some(o) } if o == "arc-listener-0"));
    }

    #[test]
    fn h3_not_found_means_what_was_asked_for() {
        let not_found = |kind| reply(404, &[], r#"{"message": "Not Found"}"#).error(kind);
        assert!(matches!(not_found(CallKind::Auth), Error::AuthRejected(_)));
        assert!(matches!(not_found(CallKind::ScaleSet), Error::ScaleSetGone));
        assert!(matches!(not_found(CallKind::OpenSession), Error::ScaleSetGone));
        assert!(matches!(not_found(CallKind::Session), Error::SessionLost(_)));
        assert!(matches!(not_found(CallKind::Queue), Error::SessionLost(_)));
        assert!(matches!(not_found(CallKind::Runner), Error::Transient(_)));
        assert!(matches!(exception(404, "AgentNotFoundException", CallKind::Runner), Error::RunnerGone));
        assert!(matches!(not_found(CallKind::Group), Error::BadReply(_)));
    }

    #[test]
    fn a_401_is_about_the_token_at_the_queue_and_the_credential_elsewhere() {
        assert!(matches!(exception(401, "TokenExpiredException", CallKind::Queue), Error::TokenExpired));
        assert!(matches!(exception(401, "TokenExpiredException", CallKind::Session), Error::AuthRejected(_)));
        assert!(matches!(reply(403, &[], "").error(CallKind::Auth), Error::Forbidden(_)));
        assert!(matches!(reply(502, &[], "").error(CallKind::Auth), Error::Transient(_)));
    }

    #[test]
    fn a_redirect_names_the_new_place() {
        let error = reply(301, &[("location", "https://api.github.com/orgs/new?t=planted")], "")
            .error(CallKind::Auth);
        assert!(
            matches!(&error, Error::Config(t) if t.contains("orgs/new") && !t.contains("planted")),
            "{error}"
        );
    }

    #[test]
    fn a_text_helps_and_carries_no_credential() {
        let headers = [("ActivityId", "act-1"), ("X-GitHub-Request-Id", "req-1")];
        let text = reply(500, &headers, &format!("<p>who is\n planted {}</p>", "x".repeat(900)))
            .error(CallKind::Runner);
        let text = text.to_string();
        assert!(text.contains("act-1") && text.contains("req-1") && text.contains("<p>who is … x"), "{text}");
        assert!(!text.contains("planted") && text.len() < 400, "{text}");
        let other =
            Reply { githubs: false, ..reply(500, &headers, "<p>who is this</p>") }.error(CallKind::Runner);
        assert!(!other.to_string().contains("who is") && other.to_string().contains("act-1"), "{other}");
        // What looks like data is not quoted at all: it may hold a token that is not ours yet.
        assert!(!reply(500, &[], r#"{"token": "fresh""#).error(CallKind::Auth).to_string().contains("fresh"));
    }

    #[test]
    fn fuzz_no_refusal_is_worded_at_length_or_shows_a_credential() {
        let known =
            r#"{"typeName": "GitHub.Actions.AgentNotFoundException, GitHub", "message": "planted: no"}"#;
        testkit::fuzz::each(
            &[known, r#"{"message": "API rate limit exceeded"}"#, "<html>502</html>"],
            |input| {
                for status in [302, 400, 401, 403, 404, 409, 422, 429, 500, 503] {
                    let mut reply = reply(status, &[("retry-after", "7")], "");
                    reply.body = input.to_vec();
                    for kind in [
                        CallKind::Auth,
                        CallKind::ScaleSet,
                        CallKind::Session,
                        CallKind::Queue,
                        CallKind::Runner,
                    ] {
                        let text = reply.error(kind).to_string();
                        assert!(text.len() < 2048 && !text.contains("planted"), "{text}");
                    }
                }
            },
        );
    }
}
