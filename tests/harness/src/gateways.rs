//! What stands between the controller and GitHub: a proxy that asks for a login, and a front with a certificate of its
//! own authority.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use testkit::github::{SimGithub, SimGithubBuilder};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// The login that the proxy asks for.
pub const LOGIN: (&str, &str) = ("tester", "proxy-password");

/// An HTTP proxy that asks for a login, notes what it is asked for, and takes everybody to one place.
pub struct TestProxy {
    /// Where it listens.
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl TestProxy {
    /// Starts one that takes everybody to `target`.
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (address, asked) = (listener.local_addr().unwrap(), Arc::new(Mutex::default()));
        let log = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, target, Arc::clone(&log)));
            }
        });
        TestProxy { address, asked }
    }

    /// The first line of each connection so far.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// Serves one connection: the first head decides, what follows is passed on as it is.
async fn serve(
    mut stream: TcpStream,
    target: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let first = text.lines().next().unwrap_or_default().to_owned();
    asked.lock().unwrap().push(first.clone());
    let login = format!("proxy-authorization: basic {}", STANDARD.encode(format!("{}:{}", LOGIN.0, LOGIN.1)));
    if !text.lines().any(|line| line.eq_ignore_ascii_case(&login)) {
        let refusal =
            "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        return stream.write_all(refusal.as_bytes()).await;
    }
    let mut onward = TcpStream::connect(target).await?;
    if first.starts_with("CONNECT ") {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    } else {
        onward.write_all(&head).await?;
    }
    copy_bidirectional(&mut stream, &mut onward).await.map(drop)
}

/// A front that speaks TLS before a simulated GitHub, with a certificate that only its own authority vouches for.
pub struct TlsFront {
    /// Where it listens.
    pub address: SocketAddr,
    /// The certificate of its authority, PEM.
    pub authority: String,
}

impl TlsFront {
    /// Starts one, and the GitHub behind it.
    pub async fn start(github: SimGithubBuilder) -> (Self, SimGithub) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let github = github.public_url(format!("https://{address}")).start().await.unwrap();
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let certificate = names.signed_by(&key, &authority).unwrap();
        let server = rustls::ServerConfig::builder_with_provider(Arc::new(
            rustls::crypto::aws_lc_rs::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
        let (acceptor, target) = (TlsAcceptor::from(Arc::new(server)), github.address());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut stream = acceptor.accept(stream).await?;
                    let mut onward = TcpStream::connect(target).await?;
                    copy_bidirectional(&mut stream, &mut onward).await
                });
            }
        });
        (TlsFront { address, authority: authority.pem() }, github)
    }
}
