//! Answers of the API server: waited for with a deadline, and told in short.

use std::future::Future;
use std::time::Duration;

use kube::core::response::reason;
use tokio::time::timeout;

use crate::cause;

/// How long the API server may take for one answer.
const ANSWER: Duration = Duration::from_secs(10);

/// What the API server said, in short, or what keeps one from it: kube's own text has the whole answer in it.
pub(super) fn api_message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => cause::innermost(other),
    }
}

/// Waits for an answer of the API server, not for ever: kube itself sets no limit.
pub(super) async fn with_timeout<T>(
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, kube::Error> {
    within(ANSWER, call).await
}

/// Waits for an answer of the API server, for so long.
pub(super) async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, kube::Error> {
    let silent = || kube::Error::Service(format!("no answer within {} s", limit.as_secs()).into());
    timeout(limit, call).await.unwrap_or_else(|_| Err(silent()))
}

/// Whether the API server does not know what was asked for at all, and not only the object: the definition is not there. Its 404
/// says no reason then.
pub(super) fn is_unserved(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404 && status.reason != reason::NOT_FOUND)
}
