//! Proxies with login and exclusions, and certificate authorities of one's own.

use harness::gateways::{LOGIN, TestProxy, TlsFront};
use paddock::github::{Client, ClientConfig, Deadlines, Error, Network, Proxy, ScaleSetService};
use testkit::github::{DEFAULT_TOKEN, Endpoint, SimGithub};

use crate::support::{config, github, scale_set};

fn network(proxy: &TestProxy, login: Option<(&str, &str)>, no_proxy: &[&str]) -> Network {
    Network {
        proxy: Some(Proxy {
            url: format!("http://{}", proxy.address),
            no_proxy: no_proxy.iter().map(|s| (*s).to_owned()).collect(),
            login: login.map(|(user, password)| (user.to_owned(), password.to_owned())),
        }),
        ca_bundle: None,
    }
}

fn through(github: &SimGithub, network: Network) -> Client {
    Client::new(&ClientConfig { network, ..config(github, "acme") }, Deadlines::default()).unwrap()
}

#[tokio::test]
async fn everything_goes_through_the_proxy_with_its_login() {
    // A name that only the proxy can reach.
    let github = github().public_url("http://ghes.invalid").start().await.unwrap();
    let proxy = TestProxy::start(github.address()).await;
    let client = through(&github, network(&proxy, Some(LOGIN), &["10.0.0.0/8", "corp.invalid"]));
    let session = crate::support::session(&client).await;
    assert!(client.poll(&session, 0, 1).await.unwrap().is_none());
    let asked = proxy.asked();
    assert!(asked.iter().all(|line| line.contains("http://ghes.invalid/")), "{asked:?}");
    assert!(asked.iter().any(|line| line.contains("/message")), "the poll too: {asked:?}");
}

#[tokio::test]
async fn a_login_that_the_proxy_refuses_is_said_so() {
    let github = github().public_url("http://ghes.invalid").start().await.unwrap();
    let proxy = TestProxy::start(github.address()).await;
    for login in [None, Some(("tester", "wrong-password"))] {
        let error = through(&github, network(&proxy, login, &[])).find_runner("a").await.unwrap_err();
        assert!(matches!(&error, Error::Config(text) if text.contains("proxy")), "{error:?}");
        assert!(!format!("{error:?}").contains("wrong-password"));
    }
    assert_eq!(github.look(|s| s.requests().total()), 0);
}

#[tokio::test]
async fn what_is_excluded_does_not_go_through_the_proxy() {
    let github = github().start().await.unwrap();
    let proxy = TestProxy::start(github.address()).await;
    scale_set(&through(&github, network(&proxy, Some(LOGIN), &["10.0.0.0/8", "127.0.0.0/8"]))).await;
    assert!(proxy.asked().is_empty());
    scale_set(&through(&github, network(&proxy, Some(LOGIN), &["10.0.0.0/8"]))).await;
    assert!(!proxy.asked().is_empty());
}

fn behind(front: &TlsFront, github: &SimGithub, ca_bundle: Option<&str>) -> ClientConfig {
    let network = Network { proxy: None, ca_bundle: ca_bundle.map(|pem| pem.as_bytes().to_vec()) };
    let url = format!("https://{}/acme", front.address);
    ClientConfig { url, allow_insecure: false, network, ..config(github, "acme") }
}

#[tokio::test]
async fn an_authority_of_ones_own_is_trusted_when_given() {
    let (front, github) = TlsFront::start(github()).await;
    let client = Client::new(&behind(&front, &github, Some(&front.authority)), Deadlines::default()).unwrap();
    let session = crate::support::session(&client).await;
    assert!(client.poll(&session, 0, 1).await.unwrap().is_none());
    github.clear_requests();
    let stranger = Client::new(&behind(&front, &github, None), Deadlines::default()).unwrap();
    let error = stranger.find_runner("a").await.unwrap_err();
    assert!(
        matches!(&error, Error::Transient(text) if text.to_lowercase().contains("certificate")),
        "{error:?}"
    );
    assert_eq!(github.look(|s| s.requests().total()), 0, "nothing was sent to one who is not trusted");
}

#[tokio::test]
async fn a_private_authority_serves_behind_a_proxy_too() {
    let (front, github) = TlsFront::start(github()).await;
    let proxy = TestProxy::start(front.address).await;
    let network =
        Network { ca_bundle: Some(front.authority.as_bytes().to_vec()), ..network(&proxy, Some(LOGIN), &[]) };
    let config = ClientConfig { network, ..behind(&front, &github, None) };
    scale_set(&Client::new(&config, Deadlines::default()).unwrap()).await;
    let asked = proxy.asked();
    assert!(asked.iter().all(|line| line.starts_with("CONNECT ")), "{asked:?}");
}

#[tokio::test]
async fn credentials_are_not_sent_in_the_clear_where_github_says_http() {
    // An https GitHub whose service URL is plain http: its tokens would travel in the open.
    let (front, github) = TlsFront::start(github()).await;
    let service = serde_json::json!({"url": "http://127.0.0.1:9/", "token": "a.b.c"});
    let fault = testkit::github::Fault::answer(Endpoint::RunnerRegistration, 200, service.to_string());
    github.inject(fault);
    let client = Client::new(&behind(&front, &github, Some(&front.authority)), Deadlines::default()).unwrap();
    let error = client.find_runner("a").await.unwrap_err();
    assert!(matches!(&error, Error::Config(text) if text.contains("not https")), "{error:?}");
    assert!(!format!("{error:?}").contains(DEFAULT_TOKEN));
}
