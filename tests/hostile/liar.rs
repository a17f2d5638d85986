//! A host that a tenant would have the controller reach.

use std::net::Ipv4Addr;

use futures::FutureExt;
use tokio::net::TcpListener;

/// Listens, and answers nobody. Whoever connects is noticed, even without a word.
pub struct Liar(TcpListener);

impl Liar {
    pub async fn new() -> Liar {
        Liar(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap())
    }

    /// `127.0.0.1:port`
    pub fn address(&self) -> String {
        self.0.local_addr().unwrap().to_string()
    }

    /// Whether somebody has connected since this was last asked.
    pub fn was_reached(&self) -> bool {
        self.0.accept().now_or_never().is_some()
    }
}
