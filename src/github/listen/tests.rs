#![allow(clippy::unwrap_used)]
//! What the loop does after minutes, shown at a faster pace.

use std::sync::Mutex;

use async_trait::async_trait;
use testkit::github::{DEFAULT_TOKEN, Endpoint, SimGithub};

use super::*;
use crate::github::{Client, ClientConfig, Credentials, Deadlines, Network, WantedScaleSet};
use crate::runner::Statistics;

const PATIENCE: Duration = Duration::from_secs(30);

/// Keeps what was said of the session's life, and how often statistics came.
struct Ear {
    states: Mutex<Vec<ListenState>>,
    counted: watch::Sender<usize>,
    capacity: watch::Sender<u32>,
}

impl Ear {
    fn new() -> Arc<Self> {
        let (counted, capacity) = (watch::Sender::new(0), watch::Sender::new(1));
        Arc::new(Ear { states: Mutex::default(), counted, capacity })
    }

    fn said(&self, wanted: impl Fn(&ListenState) -> bool) -> usize {
        self.states.lock().unwrap().iter().filter(|s| wanted(s)).count()
    }
}

#[async_trait]
impl MessageHandler for Ear {
    async fn session_opened(&self, _: &SessionRecord) {}

    async fn session_closed(&self) {}

    fn statistics(&self, _: Statistics) {
        self.counted.send_modify(|n| *n += 1);
    }

    fn message(&self, _: &Message) {}

    fn state(&self, state: ListenState) {
        self.states.lock().unwrap().push(state);
    }

    fn capacity(&self) -> watch::Receiver<u32> {
        self.capacity.subscribe()
    }
}

/// A listener to a fresh scale set of this GitHub.
async fn listener(github: &SimGithub, ear: &Arc<Ear>, pace: Pace) -> Listener {
    let config = ClientConfig {
        url: github.config_url("acme"),
        allow_insecure: true,
        credentials: Credentials::Token(DEFAULT_TOKEN.into()),
        network: Network::default(),
    };
    let client = Client::new(&config, Deadlines::default()).unwrap();
    let wanted =
        WantedScaleSet { name: "fleet".into(), runner_group: "Default".into(), labels: vec!["fleet".into()] };
    let scale_set_id = client.ensure_scale_set(&wanted, None).await.unwrap().id;
    let set = ListenTarget { scale_set_id, owner: "tester".into(), left_behind: None };
    let handler = Arc::clone(ear) as Arc<dyn MessageHandler>;
    Listener::new(Arc::new(client), set, handler, CancellationToken::new(), pace)
}

#[tokio::test]
async fn h10_statistics_that_grow_old_are_asked_for() {
    let github = SimGithub::builder().long_poll(Duration::from_millis(200)).start().await.unwrap();
    let (fresh, stale) = (Ear::new(), Ear::new());
    let pace = Pace { stale_statistics: Duration::from_millis(150), ..Pace::default() };
    let task = tokio::spawn(listener(&github, &stale, pace).await.listen());
    // Every poll is quiet, and yet statistics come: with the session, and twice more.
    let counted = stale.counted.subscribe().wait_for(|n| *n >= 3).await.map(|n| *n);
    assert!(counted.is_ok());
    assert!(github.requests(Endpoint::RefreshSession).len() >= 2);
    assert_eq!(github.requests(Endpoint::OpenSession).len(), 1);
    task.abort();
    // While they are young they are not.
    github.vanish_scale_set("fleet").unwrap();
    github.clear_requests();
    let task = tokio::spawn(listener(&github, &fresh, Pace::default()).await.listen());
    github.wait_until(PATIENCE, |s| s.requests().count(Endpoint::Poll) >= 3).await.unwrap();
    assert_eq!(github.requests(Endpoint::RefreshSession).len(), 0);
    task.abort();
}

#[tokio::test]
async fn polls_that_are_dropped_again_and_again_do_not_hide_that_the_session_lives() {
    let github = SimGithub::builder().start().await.unwrap();
    let ear = Ear::new();
    let pace = Pace { sign_of_life: Duration::ZERO, ..Pace::default() };
    let task = tokio::spawn(listener(&github, &ear, pace).await.listen());
    for rise in 1..=3 {
        github.wait_until(PATIENCE, |s| s.requests().count(Endpoint::Poll) == rise).await.unwrap();
        ear.capacity.send_modify(|n| *n += 1);
    }
    github.wait_until(PATIENCE, |s| s.requests().count(Endpoint::Poll) == 4).await.unwrap();
    assert_eq!(github.requests(Endpoint::RefreshSession).len(), 3);
    assert_eq!(ear.said(|s| matches!(s, ListenState::Polling { .. })), 4);
    task.abort();
}

#[tokio::test]
async fn a_foreign_session_is_asked_after_slowly_and_our_own_fast_at_first() {
    let github = SimGithub::builder().start().await.unwrap();
    let mut listener = listener(&github, &Ear::new(), Pace::default()).await;
    let slow = Duration::from_secs(15)..=Duration::from_secs(30);
    assert!(slow.contains(&listener.conflict_wait(Some("another"))));
    assert!(slow.contains(&listener.conflict_wait(None)));
    listener.failures = ListenFailures::default();
    let waits: Vec<_> = (0..7).map(|_| listener.conflict_wait(Some("tester"))).collect();
    assert!(waits[..5].iter().all(|w| *w == Duration::from_secs(1)), "{waits:?}");
    assert!(waits[5..].iter().all(|w| slow.contains(w)), "{waits:?}");
    listener.failures = ListenFailures::default();
    listener.set.left_behind = Some("an-id".into());
    assert_eq!(listener.conflict_wait(None), Duration::from_secs(1));
}

#[tokio::test]
async fn a_foreign_session_is_waited_out() {
    let github = SimGithub::builder().start().await.unwrap();
    let ear = Ear::new();
    let pace = Pace { conflict: Duration::from_millis(20), ..Pace::default() };
    let listener = listener(&github, &ear, pace).await;
    github.occupy_session("fleet", "another").unwrap();
    let task = tokio::spawn(listener.listen());
    github.wait_until(PATIENCE, |s| s.requests().count(Endpoint::OpenSession) >= 10).await.unwrap();
    assert_eq!(github.requests(Endpoint::CloseSession).len(), 0, "it is not ours to clear");
    github.expire_session("fleet").unwrap();
    github.wait_until(PATIENCE, |s| s.requests().polls_held() == 1).await.unwrap();
    let starts: std::collections::BTreeSet<_> = ear
        .states
        .lock()
        .unwrap()
        .iter()
        .filter_map(|s| if let ListenState::Conflict { since, .. } = s { Some(*since) } else { None })
        .collect();
    assert_eq!(starts.len(), 1, "one conflict, with one beginning");
    task.abort();
}

#[test]
fn a_back_off_grows_and_is_bounded() {
    let pace = Pace::default();
    for (failures, least) in [(1, 1), (2, 2), (3, 4), (5, 16), (6, 30), (40, 30), (u32::MAX, 30)] {
        let wait = pace.back_off(failures);
        let most = Duration::from_secs(least).mul_f64(1.5).min(Duration::from_secs(30));
        assert!(wait >= Duration::from_secs(least) && wait <= most, "{failures}: {wait:?}");
    }
}
