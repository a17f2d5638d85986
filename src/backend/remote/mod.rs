//! Commands on a host, on this machine or over SSH: scripts with arguments that no value can break out of, secrets by
//! standard input, a deadline on each, and no more at once than a host's sshd takes.

mod endpoint;
mod failure;
mod known_hosts;
mod local;
mod login;
mod process;
mod quote;
mod script;
mod ssh;

pub use endpoint::{Endpoint, InvalidEndpoint, spelt_host};
pub use failure::Failure;
pub use known_hosts::InvalidKnownHosts;
pub use login::{InvalidLogin, SshLogin};
pub use script::{Output, Part, Script};

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use crate::cause;
use crate::time::Plus;
use process::Process;
use ssh::Ssh;

/// Commands at once on one host. sshd refuses the eleventh on a connection (`MaxSessions 10`): two are left for those that watch
/// the host.
const AT_ONCE: usize = 8;

/// A host on which commands are run.
#[derive(Debug)]
pub struct Remote {
    form: Form,
    permits: Semaphore,
}

#[derive(Debug)]
enum Form {
    Local,
    Ssh(Ssh),
}

/// A stream of bytes to a socket on a host.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Remote {
    /// A host that is not connected yet.
    ///
    /// # Errors
    /// [`InvalidLogin`] where the endpoint needs a login and there is none.
    pub fn new(endpoint: &Endpoint, login: Option<SshLogin>) -> Result<Remote, InvalidLogin> {
        let form = match (endpoint, login) {
            (Endpoint::Local, _) => Form::Local,
            (Endpoint::Ssh(address), Some(login)) => Form::Ssh(Ssh::new(address.clone(), login)),
            (Endpoint::Ssh(_), None) => return Err(InvalidLogin::Missing),
        };
        Ok(Remote { form, permits: Semaphore::new(AT_ONCE) })
    }

    /// Connects, in place of the connection before. This machine is always connected.
    ///
    /// # Errors
    /// [`Failure`]: nobody answers, the host key is not a known one, or the login is refused.
    pub async fn connect(&self) -> Result<(), Failure> {
        match &self.form {
            Form::Local => Ok(()),
            Form::Ssh(ssh) => ssh.connect().await,
        }
    }

    /// Drops the connection, and with it what runs on it and was not detached.
    pub fn disconnect(&self) {
        if let Form::Ssh(ssh) = &self.form {
            ssh.disconnect();
        }
    }

    /// Runs a script to its end, in its turn.
    ///
    /// # Errors
    /// [`Failure`]: there is no connection, it was lost, or the deadline passed; then the script is ended as far as the host
    /// can be reached. An exit code other than 0 is no failure.
    pub async fn run(&self, script: &Script) -> Result<Output, Failure> {
        let mut output = Output::default();
        self.run_with(script, script.within, &mut |part| output.add(part)).await?;
        Ok(output)
    }

    /// Runs a script to its end, in its turn, and hands over what it prints as it comes. It is ended when it prints nothing
    /// for as long as `silence`, or at its deadline.
    ///
    /// # Errors
    /// As [`Remote::run`].
    pub async fn run_with(
        &self,
        script: &Script,
        silence: Duration,
        take: &mut (dyn FnMut(Part) + Send),
    ) -> Result<(), Failure> {
        let deadline = Instant::now().plus(script.within);
        let _turn = self.turn(script, deadline).await?;
        self.carry_through(script, deadline, silence, take).await
    }

    /// Runs a script beside all others, out of turn: for the two commands of a host that watch it.
    ///
    /// # Errors
    /// As [`Remote::run`].
    pub async fn watch(
        &self,
        script: &Script,
        silence: Duration,
        take: &mut (dyn FnMut(Part) + Send),
    ) -> Result<(), Failure> {
        let deadline = Instant::now().plus(script.within);
        self.carry_through(script, deadline, silence, take).await
    }

    /// Connects to a Unix socket on the host.
    ///
    /// # Errors
    /// [`Failure`]: there is no connection, or the host refuses.
    pub async fn open_socket(&self, path: &str) -> Result<Box<dyn Stream>, Failure> {
        match &self.form {
            Form::Local => {
                let socket = tokio::net::UnixStream::connect(path).await;
                Ok(Box::new(socket.map_err(|error| Failure::Refused(cause::innermost(&error)))?))
            }
            Form::Ssh(ssh) => Ok(Box::new(ssh.open_socket(path).await?)),
        }
    }

    async fn turn(&self, script: &Script, deadline: Instant) -> Result<SemaphorePermit<'_>, Failure> {
        match timeout_at(deadline, self.permits.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Failure::TimedOut { what: script.what, seconds: script.within.as_secs() }),
        }
    }

    async fn carry_through(
        &self,
        script: &Script,
        deadline: Instant,
        silence: Duration,
        take: &mut (dyn FnMut(Part) + Send),
    ) -> Result<(), Failure> {
        let late = || Failure::TimedOut { what: script.what, seconds: script.within.as_secs() };
        let begun = timeout_at(deadline, self.begin(script)).await;
        let mut process = begun.map_err(|_| late())??;
        loop {
            let until = Instant::now().plus(silence).min(deadline);
            let next = timeout_at(until, process.next()).await;
            match next {
                Ok(Ok(Some(part))) => {
                    let over = matches!(part, Part::Exit(_));
                    take(part);
                    if over {
                        process.ended();
                        return Ok(());
                    }
                }
                Ok(Ok(None)) => {
                    process.ended();
                    return Err(Failure::Disconnected("the connection was lost".to_owned()));
                }
                Ok(Err(failure)) => return Err(failure),
                Err(_) if until == deadline => return Err(late()),
                Err(_) => return Err(Failure::Silent { what: script.what, seconds: silence.as_secs() }),
            }
        }
    }

    async fn begin(&self, script: &Script) -> Result<Process, Failure> {
        match &self.form {
            Form::Local => Ok(Process::Local(Box::new(local::begin(script).await?))),
            Form::Ssh(ssh) => Ok(Process::Ssh(ssh.begin(script).await?)),
        }
    }
}

#[cfg(test)]
mod tests;
