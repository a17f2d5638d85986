//! A GitHub that lies: it leads to other hosts, and has answers of other services shown. Nobody is asked with its credentials,
//! and nothing is told.

use std::net::Ipv4Addr;

use futures::FutureExt;
use paddock::github::{Client, ClientConfig, Credentials, Deadlines, Error, Network, ScaleSetService};
use serde_json::json;
use testkit::github::{DEFAULT_TOKEN, Endpoint, Fault, SimGithub};
use tokio::net::TcpListener;

use crate::support::{client, github, scale_set, session, wanted};

/// A host that is not GitHub's, where credentials must not go.
struct Elsewhere(TcpListener);

impl Elsewhere {
    async fn new() -> Elsewhere {
        Elsewhere(TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), 0)).await.unwrap())
    }

    fn url(&self) -> String {
        format!("http://{}", self.0.local_addr().unwrap())
    }

    /// Nobody has connected.
    fn untouched(&self) {
        assert!(self.0.accept().now_or_never().is_none(), "someone was led there");
    }
}

/// A client of a GitHub at its own address, wherever that says it is.
fn at_its_address(github: &SimGithub) -> Client {
    let config = ClientConfig {
        url: format!("http://{}/acme", github.address()),
        allow_insecure: true,
        credentials: Credentials::Token(DEFAULT_TOKEN.to_owned()),
        network: Network::default(),
    };
    Client::new(&config, Deadlines::default()).unwrap()
}

fn leads_away(error: &Error) -> bool {
    matches!(error, Error::BadReply(text) if text.contains("leads to 127.0.0.2"))
}

#[tokio::test]
async fn a_service_on_another_host_is_not_asked() {
    let elsewhere = Elsewhere::new().await;
    let github = github().public_url(elsewhere.url()).start().await.unwrap();
    let client = at_its_address(&github);
    let error = client.ensure_scale_set(&wanted(), None).await.unwrap_err();
    assert!(leads_away(&error), "{error}");
    elsewhere.untouched();
}

#[tokio::test]
async fn a_queue_on_another_host_is_not_polled() {
    let elsewhere = Elsewhere::new().await;
    let github = github().start().await.unwrap();
    let client = client(&github);
    let open = session(&client).await;
    let lie = json!({
        "sessionId": open.id, "ownerName": "tester",
        "messageQueueUrl": format!("{}/message", elsewhere.url()), "messageQueueAccessToken": "planted",
    });
    github.inject(Fault::answer(Endpoint::RefreshSession, 200, lie.to_string()));
    github.inject(Fault::answer(Endpoint::OpenSession, 200, lie.to_string()));
    let refreshed = client.refresh(&open).await.unwrap_err();
    let opened = client.open_session(open.scale_set_id, "tester", None).await.unwrap_err();
    assert!(leads_away(&refreshed) && leads_away(&opened), "{refreshed} {opened}");
    // Were it taken for a session all the same:
    let lured = paddock::github::Session { queue_url: format!("{}/message", elsewhere.url()), ..open };
    assert!(leads_away(&client.poll(&lured, 0, 1).await.unwrap_err()));
    assert!(leads_away(&client.acknowledge(&lured, 1).await.unwrap_err()));
    elsewhere.untouched();
}

#[tokio::test]
async fn no_redirect_is_followed() {
    let elsewhere = Elsewhere::new().await;
    let github = github().start().await.unwrap();
    let known = client(&github);
    let open = session(&known).await;
    for status in [301, 302, 303, 307, 308] {
        github.clear_faults();
        for endpoint in [
            Endpoint::RegistrationToken,
            Endpoint::RunnerRegistration,
            Endpoint::GetScaleSet,
            Endpoint::JitConfig,
            Endpoint::Poll,
            Endpoint::Acknowledge,
        ] {
            github.inject(Fault::status(endpoint, status).with_header("Location", elsewhere.url()));
        }
        assert!(client(&github).find_runner("a").await.is_err());
        assert!(known.find_scale_set(open.scale_set_id).await.is_err());
        assert!(known.mint_jit(open.scale_set_id, "fleet-a").await.is_err());
        assert!(known.poll(&open, 0, 1).await.is_err());
        assert!(known.acknowledge(&open, 1).await.is_err());
        elsewhere.untouched();
    }
}

/// A tenant may name any host as its GitHub, and read what that answers where errors are told.
#[tokio::test]
async fn what_a_host_that_is_not_githubs_answers_is_not_told() {
    const PLANTED: [&str; 3] = [
        "<html>planted</html>",
        "planted, in plain text",
        r#"{"message": "planted", "typeName": "planted"}"#,
    ];
    let github = github().start().await.unwrap();
    let known = client(&github);
    let set = scale_set(&known).await;
    let open = known.open_session(set.id, "tester", None).await.unwrap();
    for (body, status) in
        PLANTED.iter().flat_map(|body| [400, 401, 403, 404, 409, 422, 500].map(|s| (body, s)))
    {
        github.inject(Fault::answer(Endpoint::Any, status, *body));
        let said = [
            client(&github).find_runner("a").await.unwrap_err(),
            known.ensure_scale_set(&wanted(), None).await.unwrap_err(),
            known.poll(&open, 0, 1).await.unwrap_err(),
        ];
        github.clear_faults();
        for error in said {
            assert!(!format!("{error} {error:?}").contains("planted"), "{status}: {error:?}");
        }
    }
}
