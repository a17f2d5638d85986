//! Serves HTTP on a port that anyone in the network may reach: bounded in connections, in waiting and in time.

use std::collections::VecDeque;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::cause;

/// Connections at once. Probes and a scraper or two need a handful.
const MOST: usize = 64;
/// A connection that has not sent the head of a request within this is closed; so is one that is idle for so long.
const HEAD: Duration = Duration::from_secs(10);
/// A connection is ended in order when it is this old ...
const OLD: Duration = Duration::from_secs(60);
/// ... and at once when it does not end within this.
const ENDING: Duration = Duration::from_secs(5);
/// After a failed accept (no file descriptor left), the next is tried after this.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// Answers requests by `router` until `shutdown` is cancelled and open requests are answered. When a connection comes that
/// is one too many, the oldest goes: whoever holds many open keeps nobody else out.
pub(super) async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    let mut connections = JoinSet::new();
    let accepting = async {
        let mut open = VecDeque::new();
        loop {
            let stream = accept(&listener).await;
            while connections.try_join_next().is_some() {}
            make_room(&mut open);
            open.push_back(connections.spawn(answer(stream, router.clone(), shutdown.clone())));
        }
    };
    shutdown.run_until_cancelled(accepting).await;
    while connections.join_next().await.is_some() {}
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                warn!(error = cause::innermost(&error), "a connection cannot be accepted");
                sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// Ends the oldest connection where there are as many as there may be.
fn make_room(open: &mut VecDeque<AbortHandle>) {
    open.retain(|connection| !connection.is_finished());
    if open.len() >= MOST
        && let Some(oldest) = open.pop_front()
    {
        oldest.abort();
    }
}

async fn answer(stream: TcpStream, router: Router, shutdown: CancellationToken) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        done = connection.as_mut() => return note(done),
        () = shutdown.cancelled() => {}
        () = sleep(OLD) => {}
    }
    connection.as_mut().graceful_shutdown();
    match timeout(ENDING, connection).await {
        Ok(done) => note(done),
        Err(_) => debug!("a connection does not end and is cut off"),
    }
}

fn note(done: hyper::Result<()>) {
    if let Err(error) = done {
        debug!(%error, "a connection ended early");
    }
}
