//! What an engine's errors mean, and the deadline of each call.

use std::error::Error as _;
use std::future::Future;
use std::time::Duration;

use bollard::errors::Error as EngineError;

use crate::api::condition::reason::{ENGINE_ERROR, IMAGE_MISSING, NETWORK_MISSING};
use crate::backend::Error;

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
        EngineError::DockerResponseServerError { status_code, message } => refusal(*status_code, message),
        EngineError::DockerStreamError { error } => no_capacity(ENGINE_ERROR, error),
        EngineError::JsonDataError { .. }
        | EngineError::JsonSerdeError { .. }
        | EngineError::APIVersionParseError {} => {
            no_capacity(ENGINE_ERROR, &format!("the engine's answer is not understood: {error}"))
        }
        _ => Error::Unreachable(with_causes(error)),
    }
}

/// By status, and by the engine's words where one status stands for several things.
fn refusal(status: u16, message: &str) -> Error {
    let has = |words: &str| message.to_ascii_lowercase().contains(words);
    match status {
        404 if has("no such container") => Error::Gone,
        404 if has("network") && has("not found") => no_capacity(NETWORK_MISSING, message),
        404 if has("image") => no_capacity(IMAGE_MISSING, message),
        _ if has("unable to find user") || has("no matching entries in passwd file") => {
            Error::Refused(message.to_owned())
        }
        // Another's doing at the same moment, such as a prune: no fault of what was asked for.
        409 => no_capacity(ENGINE_ERROR, message),
        400..=499 => Error::Refused(message.to_owned()),
        _ => no_capacity(ENGINE_ERROR, message),
    }
}

pub(super) fn no_capacity(reason: &'static str, message: &str) -> Error {
    Error::NoCapacity { reason, message: message.to_owned() }
}

/// The HTTP client keeps the reason, such as a refused connection, in the error below the error.
fn with_causes(error: &EngineError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As engines 20.10 and 28 word them.
    #[test]
    fn the_engines_words_tell_what_one_status_stands_for() {
        let reason = |status, message| match refusal(status, message) {
            Error::NoCapacity { reason, .. } => reason,
            Error::Refused(_) => "refused",
            Error::Gone => "gone",
            Error::Unreachable(_) => "unreachable",
        };
        for (status, message, expected) in [
            (404, "No such image: network/runner:1", IMAGE_MISSING),
            (
                404,
                "image with reference r:1 was found but does not match the specified platform",
                IMAGE_MISSING,
            ),
            (404, "network image-net not found", NETWORK_MISSING),
            (404, "No such container: 9f3c", "gone"),
            (400, "Minimum memory limit allowed is 6MB", "refused"),
            (409, "Conflict. The container name \"/x\" is already in use by container \"y\"", ENGINE_ERROR),
            (409, "cannot start a container that is marked for removal", ENGINE_ERROR),
            (500, "unable to find user x: no matching entries in passwd file", "refused"),
            (500, "write /var/lib/docker/tmp/x: no space left on device", ENGINE_ERROR),
            (503, "", ENGINE_ERROR),
        ] {
            assert_eq!(reason(status, message), expected, "{message}");
        }
    }
}
