//! The way to an engine: a stream of bytes to its API, however far it is.

use std::io;
use std::path::PathBuf;

use bollard::BollardRequest;
use bollard::errors::Error as EngineError;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue};
use hyper::{Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};

use super::endpoint::{Endpoint, found_at};
use super::login::Login;
use super::ssh;
use super::tls::TlsLogin;
use crate::backend::Error;
use crate::backend::remote::{Remote, Stream};
use crate::cause;

/// The way to an engine.
#[derive(Debug)]
pub(super) enum Route {
    /// A socket on this machine.
    Unix(PathBuf),
    /// A port of a host, in the clear or with TLS.
    Tcp(String, u16, Option<TlsLogin>),
    /// A socket on a host with sshd.
    Ssh(Box<Remote>, String),
    /// There is none, and why.
    Closed(String),
}

impl Route {
    /// The way to an endpoint, not gone yet.
    pub(super) fn new(endpoint: &Endpoint, login: Login) -> Route {
        match (endpoint, login) {
            (_, Login::Unusable(why)) => Route::Closed(why),
            (Endpoint::Unix(path), _) => Route::Unix(found_at(path)),
            (Endpoint::Tcp(host, port), Login::Tls(login)) => Route::Tcp(host.clone(), *port, Some(login)),
            (Endpoint::Tcp(host, port), _) => Route::Tcp(host.clone(), *port, None),
            (Endpoint::Ssh(at), login) => {
                let login = if let Login::Ssh(login) = login { Some(login) } else { None };
                match Remote::new(at, login) {
                    Ok(remote) => Route::Ssh(Box::new(remote), endpoint.socket().to_owned()),
                    Err(invalid) => Route::Closed(invalid.to_string()),
                }
            }
        }
    }

    /// Goes it for the first time, and finds what keeps one from it.
    pub(super) async fn connect(&self) -> Result<(), Error> {
        let obstacle = match self {
            Route::Unix(_) | Route::Tcp(_, _, None) => None,
            Route::Tcp(_, _, Some(login)) => login.out_of_time(),
            Route::Ssh(remote, socket) => ssh::connect(remote, socket).await.err(),
            Route::Closed(why) => Some(why.clone()),
        };
        obstacle.map_or(Ok(()), |why| Err(Error::Unreachable(why)))
    }

    /// Drops what was connected.
    pub(super) fn disconnect(&self) {
        if let Route::Ssh(remote, _) = self {
            remote.disconnect();
        }
    }

    async fn open(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Route::Unix(path) => match UnixStream::connect(path).await {
                Ok(stream) => Ok(Box::new(stream)),
                Err(error) => {
                    let told = format!("{}: {}", path.display(), cause::innermost(&error));
                    Err(io::Error::new(error.kind(), told))
                }
            },
            Route::Tcp(host, port, login) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                match login {
                    Some(login) => Ok(Box::new(login.connect(host, stream).await?)),
                    None => Ok(Box::new(stream)),
                }
            }
            Route::Ssh(remote, socket) => remote.open_socket(socket).await.map_err(io::Error::other),
            Route::Closed(why) => Err(io::Error::other(why.clone())),
        }
    }

    /// Sends a request over a connection of its own: an engine that restarts leaves none that look alive.
    pub(super) async fn send(&self, mut request: BollardRequest) -> Result<Response<Incoming>, EngineError> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(self.open().await?)).await?;
        // What goes wrong there, the response tells.
        tokio::spawn(connection);
        // Only a proxy is told the whole address.
        if let Some(path) = request.uri().path_and_query().cloned() {
            *request.uri_mut() = Uri::from(path);
        }
        request.headers_mut().insert(HOST, HeaderValue::from_static("docker"));
        Ok(sender.send_request(request).await?)
    }
}
