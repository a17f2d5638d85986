//! A network that fails on request: a TCP proxy between the controller and GitHub or the API server, or between an engine
//! and its registry.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the network does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// All passes.
    Fair,
    /// Each piece of data comes this much later.
    Slow(Duration),
    /// Connections that there are break, and new ones close at once.
    Down,
    /// Connections are accepted and held, and nothing passes any more.
    Silent,
    /// Nothing passes until the weather changes; then all does.
    Held,
    /// Of each answer some bytes pass, then its connection breaks.
    Cutting,
    /// The next connection on which something is asked goes silent for good. All others are as in fair weather, which it is
    /// from then on.
    HangingOne,
}

/// Bytes of an answer that pass before it is cut.
const UNCUT: usize = 60;

/// The proxy. It ends with this.
pub struct Proxy {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// A proxy in front of an address on which nobody need listen yet.
    pub async fn before(target: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let weather = watch::Sender::new(Weather::Fair);
        let forecast = weather.clone();
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                tokio::spawn(connection(client, target, forecast.clone()));
            }
        });
        Proxy { address, weather, task }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens, in front of what speaks HTTP.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The weather as it is.
    pub fn weather(&self) -> Weather {
        *self.weather.borrow()
    }

    /// Changes the weather.
    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connection(client: TcpStream, target: SocketAddr, weather: watch::Sender<Weather>) {
    if *weather.borrow() == Weather::Down {
        return;
    }
    let Ok(server) = TcpStream::connect(target).await else { return };
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let mut changes = weather.subscribe();
    // Whichever ends takes both directions with it.
    tokio::select! {
        () = pass(from_client, to_server, weather.clone(), false) => {}
        () = pass(from_server, to_client, weather.clone(), true) => {}
        _ = changes.wait_for(|weather| *weather == Weather::Down) => {}
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    weather: watch::Sender<Weather>,
    answers: bool,
) {
    let mut buffer = vec![0; 64 << 10];
    let mut silenced = false;
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        if weather.subscribe().wait_for(|weather| *weather != Weather::Held).await.is_err() {
            return;
        }
        let now = *weather.borrow();
        // A connection that went silent stays so: what was lost on it does not come later.
        silenced |= now == Weather::Silent || (!answers && weather.send_if_modified(is_hung));
        if silenced {
            return std::future::pending().await;
        }
        let mut passed = read;
        match now {
            Weather::Slow(time) => tokio::time::sleep(time).await,
            Weather::Cutting if answers => passed = read.min(UNCUT),
            _ => {}
        }
        if to.write_all(&buffer[..passed]).await.is_err() || (answers && now == Weather::Cutting) {
            return;
        }
    }
}

/// Whether this connection is the one that hangs; if so, no other does.
fn is_hung(weather: &mut Weather) -> bool {
    let hung = *weather == Weather::HangingOne;
    if hung {
        *weather = Weather::Fair;
    }
    hung
}
