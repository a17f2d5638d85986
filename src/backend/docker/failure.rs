//! What an engine's errors mean, and the deadline of each call.

use std::error::Error as _;
use std::future::Future;
use std::time::Duration;

use bollard::errors::Error as EngineError;

use super::tls;
use crate::api::Reason;
use crate::backend::Error;
use crate::cause;

/// For making a container, a network or a volume. On a host that swaps, what makes the engine work takes its time.
pub(super) const CREATE: Duration = Duration::from_secs(60);
/// For starting a container.
pub(super) const START: Duration = Duration::from_secs(120);
/// For an answer that needs no work.
pub(super) const ANSWER: Duration = Duration::from_secs(15);

/// Waits for a call of the engine no longer than `deadline`, and says what its error means.
pub(super) async fn call<T>(
    what: &str,
    deadline: Duration,
    call: impl Future<Output = Result<T, EngineError>>,
) -> Result<T, Error> {
    within(deadline, call).await.map_err(|error| match error {
        EngineError::RequestTimeoutError => {
            Error::Unreachable(format!("{what} took longer than {} s", deadline.as_secs()))
        }
        error => meaning(&error),
    })
}

/// Waits for a call of the engine no longer than `deadline`.
pub(super) async fn within<T>(
    deadline: Duration,
    call: impl Future<Output = Result<T, EngineError>>,
) -> Result<T, EngineError> {
    tokio::time::timeout(deadline, call).await.unwrap_or(Err(EngineError::RequestTimeoutError))
}

/// Which of the four kinds an engine's error is.
pub(super) fn meaning(error: &EngineError) -> Error {
    match error {
        EngineError::DockerResponseServerError { status_code, message } => {
            refusal(*status_code, &without_body(message))
        }
        EngineError::DockerStreamError { error } => {
            Error::no_capacity(Reason::EngineError, without_body(error))
        }
        EngineError::JsonDataError { .. }
        | EngineError::JsonSerdeError { .. }
        | EngineError::APIVersionParseError {} => {
            Error::no_capacity(Reason::EngineError, format!("the engine's answer is not understood: {error}"))
        }
        _ => Error::Unreachable(obstacle(error)),
    }
}

/// The engine's words without the page that it got where it looked for a registry: a tenant may name any host as one.
fn without_body(message: &str) -> String {
    const BODY: &str = "response body: ";
    match message.find(BODY) {
        Some(at) => format!("{}{BODY}it is not a registry's, and not shown", &message[..at]),
        None => message.to_owned(),
    }
}

/// By status, and by the engine's words where one status stands for several things.
fn refusal(status: u16, message: &str) -> Error {
    let has = |words: &str| message.to_ascii_lowercase().contains(words);
    match status {
        404 if has("no such container") => Error::Gone,
        // It has no addresses for another network now, and will when one goes.
        _ if has("address pool") || has("subnet pools") => {
            let remedy = "`default-address-pools` in its daemon.json gives the engine room for more networks";
            Error::no_capacity(Reason::EngineError, format!("{message}: {remedy}"))
        }
        404 if has("network") && has("not found") => Error::no_capacity(Reason::NetworkMissing, message),
        404 if has("image") => Error::no_capacity(Reason::ImageMissing, message),
        _ if has("unable to find user") || has("no matching entries in passwd file") => {
            Error::Refused(message.to_owned())
        }
        // Another's doing at the same moment, such as a prune: no fault of what was asked for.
        409 => Error::no_capacity(Reason::EngineError, message),
        400..=499 => Error::Refused(message.to_owned()),
        _ => Error::no_capacity(Reason::EngineError, message),
    }
}

/// What keeps one from the engine, in plain words.
fn obstacle(error: &EngineError) -> String {
    if let EngineError::IOError { err } = error {
        return tls::explain(err).unwrap_or_else(|| cause::innermost(err));
    }
    let mut below = error.source();
    while let Some(cause) = below {
        if let Some(why) = tls::explain(cause) {
            return why;
        }
        below = cause.source();
    }
    cause::innermost(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_a_host_that_is_no_registry_is_not_told() {
        let error = r#"error parsing HTTP 403 response body: invalid character '<' looking for beginning of value: "<p>planted""#;
        let errors = [
            EngineError::DockerStreamError { error: error.to_owned() },
            EngineError::DockerResponseServerError { status_code: 500, message: error.to_owned() },
        ];
        for error in errors {
            let said = meaning(&error).to_string();
            assert!(said.contains("HTTP 403") && !said.contains("planted"), "{said}");
        }
    }

    /// As engines 20.10 and 28 word them.
    #[test]
    fn the_engines_words_tell_what_one_status_stands_for() {
        let reason = |status, message| match refusal(status, message) {
            Error::NoCapacity(why) => why.reason.as_str(),
            Error::Refused(_) => "refused",
            Error::Gone => "gone",
            Error::Unreachable(_) => "unreachable",
        };
        for (status, message, expected) in [
            (404, "No such image: network/runner:1", Reason::ImageMissing.as_str()),
            (
                404,
                "image with reference r:1 was found but does not match the specified platform",
                Reason::ImageMissing.as_str(),
            ),
            (404, "network image-net not found", Reason::NetworkMissing.as_str()),
            (
                404,
                "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network",
                Reason::EngineError.as_str(),
            ),
            (400, "all predefined address pools have been fully subnetted", Reason::EngineError.as_str()),
            (404, "No such container: 9f3c", "gone"),
            (400, "Minimum memory limit allowed is 6MB", "refused"),
            (
                409,
                "Conflict. The container name \"/x\" is already in use by container \"y\"",
                Reason::EngineError.as_str(),
            ),
            (409, "cannot start a container that is marked for removal", Reason::EngineError.as_str()),
            (500, "unable to find user x: no matching entries in passwd file", "refused"),
            (500, "write /var/lib/docker/tmp/x: no space left on device", Reason::EngineError.as_str()),
            (503, "", Reason::EngineError.as_str()),
        ] {
            assert_eq!(reason(status, message), expected, "{message}");
        }
    }
}
