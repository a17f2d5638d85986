//! Answers of the API server: waited for with a deadline, and told in short.

use std::future::Future;
use std::time::Duration;

use tokio::time::timeout;

/// How long the API server may take for one answer.
const ANSWER: Duration = Duration::from_secs(10);

/// What the API server said, in short: kube's own text has the whole answer in it.
pub(super) fn api_message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
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
