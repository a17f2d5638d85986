//! Nothing secret leaves the client: not in an error, not in `Debug`, not in a log line of any level.

use std::io;
use std::sync::{Arc, Mutex};

use paddock::github::{
    Client, ClientConfig, Credentials, Deadlines, ListenState, Network, Proxy, ScaleSetService,
};
use testkit::github::{Endpoint, Fault, JobSpec};
use tracing_subscriber::fmt::MakeWriter;

use crate::support::{Heard, Listening, SET, config, github, scale_set};

/// Marks every secret that this test plants.
const PLANTED: &str = "planted";

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Log;

    fn make_writer(&'a self) -> Log {
        self.clone()
    }
}

/// What a server that repeats everything would answer: the credential as it was sent, and tokens of its own.
fn gossip(endpoint: Endpoint, status: u16, token: &str) -> Fault {
    let body = format!("<html>{token} {token}</html>");
    Fault::answer(endpoint, status, body)
}

#[tokio::test(flavor = "current_thread")]
async fn planted_secrets_are_nowhere() {
    let log = Log::default();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(log.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    // With a single subscriber, a callsite that another test's thread meets first would be switched off for all.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());

    let token = "ghp_planted_token";
    let github = github().token(token).start().await.unwrap();
    let config =
        ClientConfig { credentials: Credentials::Token(token.to_owned()), ..config(&github, "acme") };
    let client = Arc::new(Client::new(&config, Deadlines::default()).unwrap());
    let mut said = format!("{config:?} {client:?}");
    let mut secrets = vec![token.to_owned()];

    github.inject(gossip(Endpoint::RegistrationToken, 401, token).times(1));
    let refused = Client::new(&config, Deadlines::default()).unwrap().find_runner("a").await;
    said.push_str(&format!("{:?}", refused.unwrap_err()));
    assert!(said.contains("X-GitHub-Request-Id"), "{said}");
    let set = scale_set(&client).await;
    let session = client.open_session(set.id, "tester", None).await.unwrap();
    said.push_str(&format!("{session:?}"));
    secrets.extend([session.queue_token.clone(), session.queue_url.clone()]);
    for status in [400, 403, 404, 500] {
        github.inject(gossip(Endpoint::Poll, status, &session.queue_token).times(1));
        let error = client.poll(&session, 0, 1).await.unwrap_err();
        said.push_str(&format!("{error} {error:?}"));
    }
    let runner = client.mint_jit(set.id, "fleet-a").await.unwrap();
    said.push_str(&format!("{runner:?}"));
    secrets.push(runner.configuration.expose().to_owned());
    client.close(&session).await.unwrap();

    let listening = Listening::start(client, set.id, None, 1);
    listening.ear.opened(1).await;
    github.queue_job(JobSpec::new("acme/app", [SET]));
    github.inject(Fault::status(Endpoint::Poll, 500).times(2));
    listening.ear.state(|s| matches!(s, ListenState::Unreachable { .. }).then_some(())).await;
    listening.ear.until(|heard| heard.iter().any(|h| matches!(h, Heard::Message(_))).then_some(())).await;
    said.push_str(&format!("{:?}", listening.ear.heard()));
    listening.stop().await;

    let log = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(log.contains("message session opened"), "the log was caught");
    for secret in secrets {
        assert!(!said.contains(&secret), "told: {secret}");
        assert!(!log.contains(&secret), "logged: {secret}");
    }
}

#[test]
fn settings_that_cannot_be_used_are_refused_without_being_quoted() {
    let proxy = |url: &str| Network {
        proxy: Some(Proxy {
            url: url.to_owned(),
            no_proxy: Vec::new(),
            login: Some((PLANTED.to_owned(), PLANTED.to_owned())),
        }),
        ca_bundle: None,
    };
    let networks = [
        proxy("socks5://planted:planted@proxy:1"),
        proxy("//planted@"),
        proxy("planted"),
        Network { proxy: None, ca_bundle: Some(PLANTED.as_bytes().to_vec()) },
    ];
    for network in networks {
        let config = ClientConfig {
            url: "https://ghes.corp/acme".to_owned(),
            allow_insecure: false,
            credentials: Credentials::Token(PLANTED.to_owned()),
            network,
        };
        let error = Client::new(&config, Deadlines::default()).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(PLANTED), "{error}");
    }
    let debug = format!("{:?}", proxy("http://planted:planted@proxy:1"));
    assert!(!debug.contains(PLANTED), "{debug}");
}
