//! Scripts over SSH: one connection to a host, on which each is a channel.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use russh::client::{self, Handle, Msg};
use russh::keys::{PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::{
    Channel, ChannelMsg, ChannelOpenFailure, ChannelReadHalf, ChannelStream, ChannelWriteHalf, Preferred, Sig,
};
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::endpoint::Address;
use super::failure::Failure;
use super::known_hosts::KnownHosts;
use super::login::SshLogin;
use super::script::{Part, Script};

/// For the connection, the exchange of keys and the login.
const CONNECT: Duration = Duration::from_secs(20);
/// When nothing was heard for so long, the host is asked whether it is there ...
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// ... and after so many questions without an answer it is not.
const UNANSWERED: usize = 2;
/// How often it is tried to end a command, and how long in between.
const KILLS: u32 = 10;
const BETWEEN_KILLS: Duration = Duration::from_millis(200);
/// Between two tries to open a channel.
const BETWEEN_OPENINGS: Duration = Duration::from_millis(50);
/// The extended data of a channel that is standard error.
const STANDARD_ERROR: u32 = 1;

/// A host with sshd, and the connection to it.
pub(super) struct Ssh {
    address: Address,
    login: SshLogin,
    connection: Mutex<Result<Arc<Handle<Client>>, Failure>>,
}

impl Ssh {
    pub(super) fn new(address: Address, login: SshLogin) -> Ssh {
        let none = Failure::Disconnected("not connected yet".to_owned());
        Ssh { address, login, connection: Mutex::new(Err(none)) }
    }

    pub(super) async fn connect(&self) -> Result<(), Failure> {
        let late = || Failure::TimedOut { what: "connecting to the host's sshd", seconds: CONNECT.as_secs() };
        let connection = timeout(CONNECT, self.logged_in()).await.unwrap_or_else(|_| Err(late()));
        let result = connection.as_ref().map(|_| ()).map_err(Clone::clone);
        self.set(connection.map(Arc::new));
        result
    }

    pub(super) fn disconnect(&self) {
        self.set(Err(Failure::Disconnected("not connected".to_owned())));
    }

    async fn logged_in(&self) -> Result<Handle<Client>, Failure> {
        let Address { user, host, port } = &self.address;
        let known = |refusal: super::known_hosts::Refusal| Failure::HostKey(refusal.to_string());
        let algorithms = self.login.known_hosts.algorithms(&self.address).map_err(known)?;
        let config = client::Config {
            keepalive_interval: Some(KEEP_ALIVE),
            keepalive_max: UNANSWERED,
            nodelay: true,
            preferred: Preferred { key: Cow::Owned(algorithms), ..Preferred::default() },
            ..client::Config::default()
        };
        let client = Client { known_hosts: self.login.known_hosts.clone(), address: self.address.clone() };
        let mut connection = client::connect(Arc::new(config), (host.as_str(), *port), client).await?;
        let key = PrivateKeyWithHashAlg::new(self.login.key.clone(), None);
        if !connection.authenticate_publickey(user, key).await?.success() {
            return Err(Failure::LoginRefused { user: user.clone() });
        }
        debug!(host, port, user, "connected over SSH");
        Ok(connection)
    }

    fn set(&self, connection: Result<Arc<Handle<Client>>, Failure>) {
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = connection;
    }

    fn connection(&self) -> Result<Arc<Handle<Client>>, Failure> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) async fn begin(&self, script: &Script) -> Result<SshProcess, Failure> {
        let connection = self.connection()?;
        let (from, to) = session(&connection).await?.split();
        let to = Arc::new(to);
        let process = SshProcess {
            connection,
            from,
            to: to.clone(),
            head: Vec::new(),
            number: None,
            exit: None,
            ended: false,
        };
        to.exec(true, script.line()).await?;
        let input = script.input.clone();
        // It may end without having read all of it, and must not be waited for before its output is read.
        tokio::spawn(async move {
            if !input.is_empty() {
                let _ = to.data_bytes(input).await;
            }
            let _ = to.eof().await;
        });
        Ok(process)
    }

    pub(super) async fn open_socket(&self, path: &str) -> Result<ChannelStream<Msg>, Failure> {
        let opened = self.connection()?.channel_open_direct_streamlocal(path).await;
        let channel = opened.map_err(|error| match error {
            russh::Error::ChannelOpenFailure(_) => {
                Failure::Refused(format!("sshd does not connect to {path}"))
            }
            error => error.into(),
        })?;
        Ok(channel.into_stream())
    }
}

/// Without the login.
impl fmt::Debug for Ssh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ssh").field("address", &self.address).finish()
    }
}

/// Judges the host.
pub(super) struct Client {
    known_hosts: KnownHosts,
    address: Address,
}

impl client::Handler for Client {
    type Error = Failure;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Failure> {
        let refused = |refusal: super::known_hosts::Refusal| Failure::HostKey(refusal.to_string());
        self.known_hosts.check(&self.address, &key.public_key()).map_err(refused)?;
        Ok(true)
    }
}

/// A script that runs over SSH.
pub(super) struct SshProcess {
    connection: Arc<Handle<Client>>,
    from: ChannelReadHalf,
    to: Arc<ChannelWriteHalf<Msg>>,
    /// What it printed before it had printed the number of its process.
    head: Vec<u8>,
    /// The number of its process, which leads a group of its own.
    number: Option<u32>,
    exit: Option<Part>,
    ended: bool,
}

impl SshProcess {
    /// The next part. sshd tells of the end before it has handed over all that was printed: the end comes last here.
    pub(super) async fn next(&mut self) -> Option<Part> {
        loop {
            let Some(message) = self.from.wait().await else { return self.exit.take() };
            match message {
                ChannelMsg::Data { data } => {
                    let rest = self.without_number(&data);
                    if !rest.is_empty() {
                        return Some(Part::Output(rest));
                    }
                }
                ChannelMsg::ExtendedData { data, ext: STANDARD_ERROR } => {
                    return Some(Part::Error(data.to_vec()));
                }
                ChannelMsg::ExitStatus { exit_status } => self.exit = Some(Part::Exit(Some(exit_status))),
                ChannelMsg::ExitSignal { .. } => self.exit = Some(Part::Exit(None)),
                ChannelMsg::Failure => return None,
                ChannelMsg::Close => return self.exit.take(),
                _ => {}
            }
        }
    }

    fn without_number(&mut self, data: &[u8]) -> Vec<u8> {
        if self.number.is_some() {
            return data.to_vec();
        }
        self.head.extend_from_slice(data);
        let Some(end) = self.head.iter().position(|byte| *byte == b'\n') else { return Vec::new() };
        let rest = self.head.split_off(end + 1);
        self.number = String::from_utf8_lossy(&self.head).trim().parse().ok();
        rest
    }

    pub(super) fn ended(&mut self) {
        self.ended = true;
    }
}

impl Drop for SshProcess {
    /// Ends the script with all that it started. Closing the channel would leave it running; and of sshd's own signals root
    /// has none, so that a second command signals the group.
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (connection, to) = (self.connection.clone(), self.to.clone());
        let number = self.number.filter(|_| !self.ended);
        let ended = self.ended;
        runtime.spawn(async move {
            if !ended {
                let _ = to.signal(Sig::TERM).await;
            }
            let _ = to.close().await;
            if let Some(number) = number {
                kill(&connection, number).await;
            }
        });
    }
}

/// Opens a channel for a command. sshd refuses one while it has as many as it takes, those that are just ending among them: it is
/// asked again, for as long as this is awaited.
async fn session(connection: &Handle<Client>) -> Result<Channel<Msg>, Failure> {
    loop {
        match connection.channel_open_session().await {
            Err(russh::Error::ChannelOpenFailure(ChannelOpenFailure::ConnectFailed)) => {
                sleep(BETWEEN_OPENINGS).await;
            }
            opened => return Ok(opened?),
        }
    }
}

async fn kill(connection: &Handle<Client>, number: u32) {
    let line = format!("exec /bin/kill -TERM -- -{number}");
    for _ in 0..KILLS {
        // sshd may have all the commands that it takes.
        if let Ok(channel) = connection.channel_open_session().await
            && channel.exec(true, line.as_str()).await.is_ok()
        {
            return;
        }
        sleep(BETWEEN_KILLS).await;
    }
}
