//! What one answer costs in memory. A process of its own, so that nothing else is measured.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use futures::future::join_all;
use paddock::github::{
    Client, ClientConfig, Credentials, Deadlines, Error, Network, ScaleSetService, Session,
};
use testkit::raw::{Answer, RawGithub};

fn client(github: &RawGithub) -> Client {
    let config = ClientConfig {
        url: format!("http://{}/acme", github.address),
        allow_insecure: true,
        credentials: Credentials::Token("t".into()),
        network: Network::default(),
    };
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

/// The most memory that this process ever had, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The shipped limit is 256 MiB for everything.
#[tokio::test]
async fn no_answer_costs_more_memory_than_a_few_times_its_bound() {
    const MOST: u64 = 64 << 10;
    let endless = |text: &'static str, length| move |_: &str| Answer::Endless(200, text, length);
    let refused = |error: Option<Error>| matches!(error, Some(Error::BadReply(_)));
    let (before, mut accepted) = (peak(), Vec::new());
    let mut see = |what: &str, refused: bool| {
        if !refused {
            accepted.push(what.to_owned())
        }
    };
    // One that is too large, and one that is just within the bound and all small things.
    for (text, length) in [(r#"{"a":1},"#, 8 << 20), ("[[[[[[[[", 1 << 20), ("{},", 1 << 20), ("1,", 1 << 20)]
    {
        let github = RawGithub::start(endless(text, length)).await.unwrap();
        let client = client(&github);
        let session = queue(&github);
        see(text, refused(client.poll(&session, 0, 1).await.err()));
        see(text, refused(client.find_runner("a").await.err()));
        see(text, refused(client.mint_jit(1, "a").await.err()));
    }
    // Lists of the smallest items that there are, well formed: the tree of one would have hundreds of MiB.
    for (left, item, right) in [
        (r#"{"value":["#, "{},", "{}]}"),
        (r#"{"runners":["#, "{},", "{}]}"),
        (r#"{"messageId":1,"messageType":"RunnerScaleSetJobMessages","body":["#, "{},", "{}]}"),
        (r#"{"messageId":1,"messageType":"RunnerScaleSetJobMessages","body":""#, "[],", r#"{}"}"#),
    ] {
        let body = format!("{left}{}{right}", item.repeat((1 << 20) / item.len() - 64));
        let github = RawGithub::start(move |_| Answer::Body(200, body.clone())).await.unwrap();
        let client = client(&github);
        if left.contains("messageId") {
            let message = client.poll(&queue(&github), 0, 1).await.unwrap().unwrap();
            see(left, message.events.is_empty() && message.unreadable > 0);
        } else {
            let listed = client.find_runner("a").await.err().or(client.list_runners().await.err());
            see(left, refused(listed));
        }
    }
    // A hundred polls that are answered so at once.
    let github = RawGithub::start(endless(r#"{"a":1},"#, 8 << 20)).await.unwrap();
    let client = client(&github);
    let session = queue(&github);
    let polls = join_all((0..100).map(|_| client.poll(&session, 0, 1))).await;
    see("polls", polls.into_iter().all(|polled| polled.is_err()));
    let grown = peak() - before;
    assert!(grown < MOST, "{grown} KiB");
    assert!(accepted.is_empty(), "{accepted:?}");
}
