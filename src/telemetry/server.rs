//! The HTTP server for health and metrics.

use std::path::PathBuf;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::Router;
use axum::extract::State;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Health, Metrics, connections};
use crate::cause;

/// How long open connections may delay the end.
const GRACE: Duration = Duration::from_secs(1);

/// Where health and metrics are served, and to whom.
#[derive(Debug)]
pub struct Ports {
    /// `/healthz` and `/readyz`; and `/metrics`, where that has no port of its own.
    pub health: TcpListener,
    /// `/metrics` alone.
    pub metrics: Option<TcpListener>,
    /// A file with the bearer token that `/metrics` asks for, read at each request, so that it may be changed.
    pub metrics_token: Option<PathBuf>,
}

impl From<TcpListener> for Ports {
    /// All on one port, for everyone.
    fn from(listener: TcpListener) -> Ports {
        Ports { health: listener, metrics: None, metrics_token: None }
    }
}

/// Answers `/healthz`, `/readyz` and `/metrics` until `shutdown` is cancelled and open requests are answered, or a
/// second has passed.
///
/// # Errors
/// Those of the listeners.
pub async fn serve(
    ports: Ports,
    metrics: Metrics,
    health: Health,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let probes =
        Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz)).with_state(health);
    let metrics =
        Router::new().route("/metrics", get(show)).with_state(Shown { metrics, token: ports.metrics_token });
    let own = |listener: TcpListener, router| connections::serve(listener, router, shutdown.clone());
    let served = async {
        match ports.metrics {
            Some(listener) => {
                info!(address = %listener.local_addr()?, "serving /metrics");
                info!(address = %ports.health.local_addr()?, "serving /healthz and /readyz");
                tokio::join!(own(listener, metrics), own(ports.health, probes));
            }
            None => {
                info!(address = %ports.health.local_addr()?, "serving /healthz, /readyz and /metrics");
                own(ports.health, probes.merge(metrics)).await;
            }
        }
        Ok(())
    };
    let deadline = async {
        shutdown.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        result = served => result,
        () = deadline => Ok(()),
    }
}

/// What `/metrics` shows, and to whom.
#[derive(Clone)]
struct Shown {
    metrics: Metrics,
    token: Option<PathBuf>,
}

impl Shown {
    /// Whether a request brings the token that is asked for. While that cannot be read, none does.
    async fn permits(&self, headers: &HeaderMap) -> bool {
        let Some(file) = &self.token else { return true };
        let wanted = match tokio::fs::read_to_string(file).await {
            Ok(token) => format!("Bearer {}", token.trim()),
            Err(error) => {
                warn!(file = %file.display(), error = cause::innermost(&error), "the token of /metrics cannot be read");
                return false;
            }
        };
        let brought = headers.get(AUTHORIZATION).map(|value| value.as_bytes()).unwrap_or_default();
        wanted != "Bearer " && verify_slices_are_equal(wanted.as_bytes(), brought).is_ok()
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

async fn readyz(State(health): State<Health>) -> (StatusCode, String) {
    match health.not_ready() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

async fn show(State(shown): State<Shown>, headers: HeaderMap) -> Response {
    if !shown.permits(&headers).await {
        return (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")]).into_response();
    }
    match shown.metrics.render() {
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
            Server::start_with(|_| {}).await
        }

        async fn start_with(change: impl FnOnce(&mut Ports)) -> Server {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let mut ports = Ports::from(listener);
            change(&mut ports);
            let (metrics, health, shutdown) = (Metrics::new(), Health::new(), CancellationToken::new());
            let task = tokio::spawn(serve(ports, metrics.clone(), health.clone(), shutdown.clone()));
            Server { address, metrics, health, shutdown, task }
        }

        /// The whole answer, head and body.
        async fn get(&self, path: &str) -> String {
            Server::ask(self.address, path, "").await
        }

        async fn ask(address: SocketAddr, path: &str, headers: &str) -> String {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request =
                format!("GET {path} HTTP/1.1\r\nhost: paddock\r\n{headers}connection: close\r\n\r\n");
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

    #[tokio::test]
    async fn metrics_with_a_token_are_shown_to_who_brings_it() {
        let folder = std::env::temp_dir().join(format!("paddock-token-{}", rand::random::<u64>()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("token");
        let server = Server::start_with(|ports| ports.metrics_token = Some(file.clone())).await;
        let status = async |headers: &str| {
            let answer = Server::ask(server.address, "/metrics", headers).await;
            answer.split(' ').nth(1).unwrap().to_owned()
        };
        assert_eq!(status("authorization: Bearer \r\n").await, "401", "there is no file");
        std::fs::write(&file, "\n").unwrap();
        assert_eq!(status("authorization: Bearer \r\n").await, "401", "it is empty");
        std::fs::write(&file, "s3cret\n").unwrap();
        assert_eq!(status("").await, "401");
        assert_eq!(status("authorization: Bearer s3cre\r\n").await, "401");
        assert_eq!(status("authorization: Bearer s3cret\r\n").await, "200");
        std::fs::write(&file, "another").unwrap();
        assert_eq!(status("authorization: Bearer s3cret\r\n").await, "401", "it was changed");
        assert!(server.get("/healthz").await.starts_with("HTTP/1.1 200 "));
        server.stop().await;
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[tokio::test]
    async fn metrics_on_their_own_address_are_not_on_the_other() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::start_with(|ports| ports.metrics = Some(listener)).await;
        assert!(server.get("/metrics").await.starts_with("HTTP/1.1 404 "));
        assert!(Server::ask(address, "/metrics", "").await.starts_with("HTTP/1.1 200 "));
        assert!(Server::ask(address, "/healthz", "").await.starts_with("HTTP/1.1 404 "));
        server.stop().await;
    }

    #[tokio::test]
    async fn who_holds_many_connections_keeps_nobody_out_and_loses_the_oldest() {
        let server = Server::start().await;
        let mut held = Vec::new();
        for _ in 0..200 {
            held.push(TcpStream::connect(server.address).await.unwrap());
        }
        assert!(server.get("/healthz").await.starts_with("HTTP/1.1 200 "));
        for connection in &mut held[..100] {
            let closed = connection.read(&mut [0; 1]).await;
            assert!(!matches!(closed, Ok(read) if read > 0), "{closed:?}");
        }
        server.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_does_not_finish_its_head_is_closed() {
        let server = Server::start().await;
        let mut slow = TcpStream::connect(server.address).await.unwrap();
        slow.write_all(b"GET /healthz HTTP/1.1\r\nx-slow: ").await.unwrap();
        let closed = slow.read_to_end(&mut Vec::new()).await;
        assert!(closed.is_ok() || closed.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset));
        server.stop().await;
    }
}
