//! What stands on the wire, and how much of an answer is taken from it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use paddock::github::{
    Client, ClientConfig, Credentials, Deadlines, Error, Network, ScaleSetService, Session,
};
use testkit::github::app_private_key;
use testkit::raw::{Answer, RawGithub};
use tokio::time::Instant;

use crate::support::{Heard, Listening};

fn client(github: &RawGithub, credentials: Credentials) -> Client {
    let url = format!("http://{}/acme", github.address);
    let config = ClientConfig { url, allow_insecure: true, credentials, network: Network::default() };
    Client::new(&config, Deadlines::default()).unwrap()
}

/// A session as the server would have opened it.
fn queue(github: &RawGithub) -> Session {
    Session {
        id: "session".into(),
        scale_set_id: 1,
        owner: "tester".into(),
        queue_url: format!("http://{}/queue", github.address),
        queue_token: "queue".into(),
        statistics: None,
    }
}

/// GitHub answers 411 to a POST, PATCH or PUT without.
#[tokio::test]
async fn every_post_and_patch_tells_the_length_of_its_body_though_there_is_none() {
    let github =
        RawGithub::start(|_| Answer::Body(200, r#"{"count": 0, "value": []}"#.into())).await.unwrap();
    let app =
        Credentials::App { app_id: "1".into(), installation_id: 2, private_key: app_private_key().into() };
    let client = client(&github, app);
    let session = queue(&github);
    assert!(matches!(client.refresh(&session).await, Err(Error::BadReply(_))), "the answer has no session");
    let _ = client.mint_jit(1, "a").await;
    let _ = client.acknowledge(&session, 1).await;
    assert!(client.find_runner("a").await.unwrap().is_none());
    let heads = github.heads();
    let lengths = |method: &str| -> Vec<Vec<String>> {
        let of = heads.iter().filter(|head| head.line.starts_with(method));
        of.map(|head| head.all("content-length").into_iter().map(str::to_owned).collect()).collect()
    };
    let posts = lengths("POST ");
    assert_eq!(posts[1], ["0"], "the registration token");
    let others = posts.iter().enumerate().filter(|(at, _)| *at != 1);
    assert!(others.map(|(_, told)| told).all(|told| told.len() == 1 && told[0] != "0"), "{posts:?}");
    assert_eq!((posts.len(), lengths("PATCH ")), (4, vec![vec!["0".to_owned()]]));
    assert!(lengths("GET ").iter().chain(&lengths("DELETE ")).all(Vec::is_empty), "{heads:#?}");
}

#[tokio::test]
async fn an_answer_without_end_is_left_at_its_bound() {
    const ENDLESS: usize = 64 << 20;
    for status in [200, 500] {
        let github =
            RawGithub::start(move |_| Answer::Endless(status, r#"{"a":1},"#, ENDLESS)).await.unwrap();
        let client = client(&github, Credentials::Token("t".into()));
        let polled = client.poll(&queue(&github), 0, 1).await;
        match status {
            200 => assert!(matches!(&polled, Err(Error::BadReply(text)) if text.contains("larger"))),
            _ => assert!(matches!(polled, Err(Error::Transient(_)))),
        }
        // What the sockets' own buffers hold is sent, too.
        assert!(github.sent() < ENDLESS / 4, "{} bytes were taken", github.sent());
    }
}

/// A server that always has news.
#[tokio::test]
async fn polls_that_are_answered_at_once_again_and_again_wait_in_between() {
    const POLLS: usize = 30;
    let number = AtomicI64::new(0);
    let github = RawGithub::start(move |line| {
        if line.starts_with("POST ") {
            let session =
                r#"{"sessionId": "s", "messageQueueUrl": "http://HOST/q", "messageQueueAccessToken": "q"}"#;
            return Answer::Body(200, session.into());
        }
        if line.starts_with("DELETE ") {
            return Answer::Body(204, String::new());
        }
        let id = number.fetch_add(1, Ordering::Relaxed) + 1;
        Answer::Body(
            200,
            format!(r#"{{"messageId": {id}, "messageType": "RunnerScaleSetJobMessages", "body": "[]"}}"#),
        )
    })
    .await
    .unwrap();
    let client = Arc::new(client(&github, Credentials::Token("t".into())));
    let begun = Instant::now();
    let listening = Listening::start(client, 1, None, 1);
    let messages = |heard: &[Heard]| heard.iter().filter(|h| matches!(h, Heard::Message(_))).count();
    listening.ear.until(|heard| (messages(heard) >= POLLS).then_some(())).await;
    assert!(begun.elapsed() >= Duration::from_millis(100) * 25, "{:?}", begun.elapsed());
    listening.stop().await;
}
