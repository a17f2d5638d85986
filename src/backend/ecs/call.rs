//! A call of ECS: what becomes of it, and which of a backend's errors that is.

use std::error::Error as StdError;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_ecs::config::http::HttpResponse;
use aws_sdk_ecs::error::{ProvideErrorMetadata, SdkError};
use tracing::warn;

use super::account::Account;
use super::classify::{Meaning, Source, classify};
use crate::api::Reason;
use crate::backend::Error;
use crate::cause;

/// So much of what AWS says is kept.
const LONGEST: usize = 300;

/// Why a call has no result.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum CallError {
    /// ECS answered with an exception.
    #[error("{code}: {message}")]
    Answered {
        /// Its name.
        code: String,
        /// Its text.
        message: String,
    },
    /// There is no answer: it may have been carried out.
    #[error("{0}")]
    Lost(String),
    /// There are no credentials to call with: it was not sent.
    #[error("{0}")]
    NoCredentials(String),
}

/// What the answer to a call means, for those who try again.
pub(super) fn meaning(error: &CallError) -> Meaning {
    match error {
        CallError::Answered { code, message } => classify(Source::Exception, code, message),
        CallError::Lost(_) => Meaning::Transient,
        CallError::NoCredentials(_) => Meaning::Refused(
            "give the controller an AWS identity, or name a Secret in ecs.credentialsSecretRef",
        ),
    }
}

/// What a call's failure is to whoever uses the backend. One that the table does not know is told of once.
pub(super) fn failure(account: &Account, error: &CallError) -> Error {
    match meaning(error) {
        Meaning::Refused(change) => Error::Refused(format!("{error} ({change})")),
        Meaning::Gone => Error::Gone,
        Meaning::NoCapacity => Error::no_capacity(Reason::NoCapacity, error.to_string()),
        Meaning::Throttled => Error::no_capacity(Reason::Throttled, error.to_string()),
        Meaning::Transient => Error::Unreachable(error.to_string()),
        Meaning::Ended { .. } | Meaning::ByItself | Meaning::Other => {
            if account.is_news(&error.to_string()) {
                warn!(%error, "ECS answers what is not known here: it is taken for a want of capacity");
            }
            Error::no_capacity(Reason::NoCapacity, error.to_string())
        }
    }
}

impl<E: ProvideErrorMetadata + StdError + Send + Sync + 'static> From<SdkError<E, HttpResponse>>
    for CallError
{
    fn from(error: SdkError<E, HttpResponse>) -> CallError {
        match &error {
            SdkError::ServiceError(answer) => {
                let denied = answer.raw().status().as_u16() == 403;
                let unnamed = if denied { "AccessDenied" } else { "an answer without a name" };
                CallError::Answered {
                    code: shortened(answer.err().code().unwrap_or(unnamed)),
                    message: shortened(answer.err().message().unwrap_or_default()),
                }
            }
            _ => match lacks_credentials(&error) {
                true => CallError::NoCredentials(causes(&error)),
                false => CallError::Lost(shortened(&cause::innermost(&error))),
            },
        }
    }
}

/// Whether the search for credentials came to nothing. That of an instance's metadata may do so for a while, and an STS that
/// does not answer too: only a plain "there are none" and a refusal are final.
fn lacks_credentials(error: &(dyn StdError + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<CredentialsError>() {
            let denied = || causes(error).contains("AccessDenied");
            return match error {
                CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_) => true,
                CredentialsError::ProviderError(_) => denied(),
                _ => false,
            };
        }
        cause = error.source();
    }
    false
}

/// An error with what is behind it. By `Display` alone: `Debug` may show what was sent.
fn causes(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    shortened(&text)
}

/// The first line, and not too much of it: what follows it in a complaint about a signature is the request, with its session
/// token.
pub(super) fn shortened(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_complaint_quotes_of_the_request_is_left_out() {
        let complaint = "The request signature we calculated does not match.\n\nThe Canonical String\nx-amz-security-token:planted-secret";
        assert_eq!(shortened(complaint), "The request signature we calculated does not match.");
        assert_eq!(shortened(&"é".repeat(1000)).chars().count(), LONGEST + 1);
    }

    #[test]
    fn a_lost_answer_is_no_refusal() {
        assert_eq!(meaning(&CallError::Lost("timeout".into())), Meaning::Transient);
        assert!(matches!(meaning(&CallError::NoCredentials("none".into())), Meaning::Refused(_)));
    }
}
