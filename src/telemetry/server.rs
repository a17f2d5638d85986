//! The HTTP server for health and metrics.

use std::future::IntoFuture;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Health, Metrics};

/// How long open connections may delay the end.
const GRACE: Duration = Duration::from_secs(1);

/// Answers `/healthz`, `/readyz` and `/metrics` until `shutdown` is cancelled and open requests are answered, or a
/// second has passed.
///
/// # Errors
/// Those of the listener.
pub async fn serve(
    listener: TcpListener,
    metrics: Metrics,
    health: Health,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    tracing::info!(address = %listener.local_addr()?, "serving /healthz, /readyz and /metrics");
    let router = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(health)
        .route("/metrics", get(show))
        .with_state(metrics);
    let served = axum::serve(listener, router)
        .with_graceful_shutdown(shutdown.clone().cancelled_owned())
        .into_future();
    let deadline = async {
        shutdown.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        result = served => result,
        () = deadline => Ok(()),
    }
}

async fn healthz(State(health): State<Health>) -> (StatusCode, String) {
    let stalled = health.stalled();
    if stalled.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    let lines =
        stalled.iter().map(|s| format!("{} has not polled for {} s\n", s.set, s.silent_for.as_secs()));
    (StatusCode::SERVICE_UNAVAILABLE, lines.collect())
}

async fn readyz(State(health): State<Health>) -> (StatusCode, &'static str) {
    if health.is_ready() {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the watch caches are not filled yet\n")
    }
}

async fn show(State(metrics): State<Metrics>) -> Response {
    match metrics.render() {
        Ok(text) => ([(CONTENT_TYPE, Metrics::CONTENT_TYPE)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::task::JoinHandle;
    use tokio::time::Instant;

    struct Server {
        address: SocketAddr,
        metrics: Metrics,
        health: Health,
        shutdown: CancellationToken,
        task: JoinHandle<std::io::Result<()>>,
    }

    impl Server {
        async fn start() -> Server {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let (metrics, health, shutdown) = (Metrics::new(), Health::new(), CancellationToken::new());
            let task = tokio::spawn(serve(listener, metrics.clone(), health.clone(), shutdown.clone()));
            Server { address, metrics, health, shutdown, task }
        }

        /// The whole answer, head and body.
        async fn get(&self, path: &str) -> String {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nhost: paddock\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        }

        async fn stop(self) {
            self.shutdown.cancel();
            let stopped = tokio::time::timeout(Duration::from_secs(30), self.task).await;
            stopped.unwrap().unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn readiness_turns_when_the_caches_are_filled() {
        let server = Server::start().await;
        assert!(server.get("/readyz").await.starts_with("HTTP/1.1 503 "));
        server.health.ready();
        assert!(server.get("/readyz").await.starts_with("HTTP/1.1 200 "));
        server.stop().await;
    }

    #[tokio::test]
    async fn liveness_names_the_set_that_is_stuck() {
        let server = Server::start().await;
        server.health.register("uid", "ci/linux");
        assert!(server.get("/healthz").await.starts_with("HTTP/1.1 200 "));
        let long_ago = Instant::now().checked_sub(Duration::from_secs(301)).unwrap();
        server.health.register_at("uid", "ci/linux", long_ago);
        let answer = server.get("/healthz").await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.ends_with("ci/linux has not polled for 301 s\n"), "{answer}");
        server.stop().await;
    }

    #[tokio::test]
    async fn metrics_come_with_their_content_type() {
        let server = Server::start().await;
        server.metrics.status_write();
        let answer = server.get("/metrics").await;
        assert!(answer.contains(&format!("content-type: {}\r\n", Metrics::CONTENT_TYPE)));
        assert!(answer.contains("paddock_status_writes_total 1\n"), "{answer}");
        server.stop().await;
    }

    #[tokio::test]
    async fn a_connection_that_asks_nothing_does_not_hold_the_end_up() {
        let server = Server::start().await;
        let idle = TcpStream::connect(server.address).await.unwrap();
        server.get("/healthz").await;
        server.stop().await;
        drop(idle);
    }
}
