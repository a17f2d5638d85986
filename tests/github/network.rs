//! Proxies with login and exclusions, and certificate authorities of one's own.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use paddock::github::{Client, ClientConfig, Deadlines, Error, Network, Proxy, ScaleSetService};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use testkit::github::{DEFAULT_TOKEN, Endpoint, SimGithub};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::support::{config, github, scale_set};

const LOGIN: (&str, &str) = ("tester", "proxy-password");

/// An HTTP proxy that asks for a login, notes what it is asked for, and takes everybody to one place.
struct TestProxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl TestProxy {
    async fn start(target: SocketAddr) -> Self {
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

    fn network(&self, login: Option<(&str, &str)>, no_proxy: &[&str]) -> Network {
        Network {
            proxy: Some(Proxy {
                url: format!("http://{}", self.address),
                no_proxy: no_proxy.iter().map(|s| (*s).to_owned()).collect(),
                login: login.map(|(user, password)| (user.to_owned(), password.to_owned())),
            }),
            ca_bundle: None,
        }
    }

    fn asked(&self) -> Vec<String> {
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

fn through(github: &SimGithub, network: Network) -> Client {
    Client::new(&ClientConfig { network, ..config(github, "acme") }, Deadlines::default()).unwrap()
}

#[tokio::test]
async fn everything_goes_through_the_proxy_with_its_login() {
    // A name that only the proxy can reach.
    let github = github().public_url("http://ghes.invalid").start().await.unwrap();
    let proxy = TestProxy::start(github.address()).await;
    let client = through(&github, proxy.network(Some(LOGIN), &["10.0.0.0/8", "corp.invalid"]));
    let session = crate::support::session(&client).await;
    assert!(client.poll(&session, 0, 1).await.unwrap().is_none());
    let asked = proxy.asked();
    assert!(asked.iter().all(|line| line.contains("http://ghes.invalid/")), "{asked:?}");
    assert!(asked.iter().any(|line| line.contains("/message?")), "the poll too: {asked:?}");
}

#[tokio::test]
async fn a_login_that_the_proxy_refuses_is_said_so() {
    let github = github().public_url("http://ghes.invalid").start().await.unwrap();
    let proxy = TestProxy::start(github.address()).await;
    for login in [None, Some(("tester", "wrong-password"))] {
        let error = through(&github, proxy.network(login, &[])).find_runner("a").await.unwrap_err();
        assert!(matches!(&error, Error::Config(text) if text.contains("proxy")), "{error:?}");
        assert!(!format!("{error:?}").contains("wrong-password"));
    }
    assert_eq!(github.look(|s| s.requests().total()), 0);
}

#[tokio::test]
async fn what_is_excluded_does_not_go_through_the_proxy() {
    let github = github().start().await.unwrap();
    let proxy = TestProxy::start(github.address()).await;
    scale_set(&through(&github, proxy.network(Some(LOGIN), &["10.0.0.0/8", "127.0.0.0/8"]))).await;
    assert!(proxy.asked().is_empty());
    scale_set(&through(&github, proxy.network(Some(LOGIN), &["10.0.0.0/8"]))).await;
    assert!(!proxy.asked().is_empty());
}

/// A front that speaks TLS before a simulated GitHub, with a certificate that only its own authority vouches for.
struct TlsFront {
    address: SocketAddr,
    authority: String,
}

impl TlsFront {
    async fn start() -> (Self, SimGithub) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let github = github().public_url(format!("https://{address}")).start().await.unwrap();
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

    fn config(&self, github: &SimGithub, ca_bundle: Option<&str>) -> ClientConfig {
        let network = Network { proxy: None, ca_bundle: ca_bundle.map(|pem| pem.as_bytes().to_vec()) };
        let url = format!("https://{}/acme", self.address);
        ClientConfig { url, allow_insecure: false, network, ..config(github, "acme") }
    }
}

#[tokio::test]
async fn an_authority_of_ones_own_is_trusted_when_given() {
    let (front, github) = TlsFront::start().await;
    let client = Client::new(&front.config(&github, Some(&front.authority)), Deadlines::default()).unwrap();
    let session = crate::support::session(&client).await;
    assert!(client.poll(&session, 0, 1).await.unwrap().is_none());
    github.clear_requests();
    let stranger = Client::new(&front.config(&github, None), Deadlines::default()).unwrap();
    let error = stranger.find_runner("a").await.unwrap_err();
    assert!(
        matches!(&error, Error::Transient(text) if text.to_lowercase().contains("certificate")),
        "{error:?}"
    );
    assert_eq!(github.look(|s| s.requests().total()), 0, "nothing was sent to one who is not trusted");
}

#[tokio::test]
async fn a_private_authority_serves_behind_a_proxy_too() {
    let (front, github) = TlsFront::start().await;
    let proxy = TestProxy::start(front.address).await;
    let network =
        Network { ca_bundle: Some(front.authority.as_bytes().to_vec()), ..proxy.network(Some(LOGIN), &[]) };
    let config = ClientConfig { network, ..front.config(&github, None) };
    scale_set(&Client::new(&config, Deadlines::default()).unwrap()).await;
    let asked = proxy.asked();
    assert!(asked.iter().all(|line| line.starts_with("CONNECT ")), "{asked:?}");
}

#[tokio::test]
async fn credentials_are_not_sent_in_the_clear_where_github_says_http() {
    // An https GitHub whose service URL is plain http: its tokens would travel in the open.
    let (front, github) = TlsFront::start().await;
    let service = serde_json::json!({"url": "http://127.0.0.1:9/", "token": "a.b.c"});
    let fault = testkit::github::Fault::answer(Endpoint::RunnerRegistration, 200, service.to_string());
    github.inject(fault);
    let client = Client::new(&front.config(&github, Some(&front.authority)), Deadlines::default()).unwrap();
    let error = client.find_runner("a").await.unwrap_err();
    assert!(matches!(&error, Error::Config(text) if text.contains("not https")), "{error:?}");
    assert!(!format!("{error:?}").contains(DEFAULT_TOKEN));
}
