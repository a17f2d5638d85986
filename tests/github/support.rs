//! What the tests share: a client of the simulated GitHub, and a handler that writes down what it hears.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use paddock::github::{
    Client, ClientConfig, Credentials, Deadlines, JitRunner, ListenEnd, ListenState, ListenTarget, Message,
    MessageHandler, Network, ScaleSet, ScaleSetService, Session, SessionRecord, WantedScaleSet, listen,
};
use paddock::runner::{JobEvent, Statistics};
use testkit::github::{DEFAULT_TOKEN, SimGithub, SimGithubBuilder, SimRunner};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Long enough for a busy machine; nothing here waits for it to pass.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// The scale set's name in every test.
pub const SET: &str = "fleet";

/// A simulated GitHub whose quiet polls end soon.
pub fn github() -> SimGithubBuilder {
    SimGithub::builder().long_poll(Duration::from_secs(2)).runner_group("gpu")
}

pub fn config(github: &SimGithub, path: &str) -> ClientConfig {
    ClientConfig {
        url: github.config_url(path),
        allow_insecure: true,
        credentials: Credentials::Token(DEFAULT_TOKEN.to_owned()),
        network: Network::default(),
    }
}

pub fn client(github: &SimGithub) -> Client {
    Client::new(&config(github, "acme"), Deadlines::default()).unwrap()
}

pub fn wanted() -> WantedScaleSet {
    WantedScaleSet {
        name: SET.to_owned(),
        runner_group: "Default".to_owned(),
        labels: vec![SET.to_owned(), "linux".to_owned()],
    }
}

pub async fn scale_set(client: &Client) -> ScaleSet {
    client.ensure_scale_set(&wanted(), None).await.unwrap()
}

/// A scale set with an open session.
pub async fn session(client: &Client) -> Session {
    let set = scale_set(client).await;
    client.open_session(set.id, "tester", None).await.unwrap()
}

pub fn connect(github: &SimGithub, runner: &JitRunner) -> SimRunner {
    github.connect_runner(runner.configuration.expose()).unwrap()
}

/// What a handler hears, in order.
#[derive(Debug, Clone)]
pub enum Heard {
    Opened(SessionRecord),
    Closed,
    Statistics(Statistics),
    Message(Message),
    State(ListenState),
}

/// A handler that writes everything down.
pub struct Ear {
    heard: Mutex<Vec<Heard>>,
    changed: watch::Sender<()>,
    pub capacity: watch::Sender<u32>,
}

impl Ear {
    pub fn new(capacity: u32) -> Arc<Self> {
        let (changed, capacity) = (watch::Sender::new(()), watch::Sender::new(capacity));
        Arc::new(Ear { heard: Mutex::default(), changed, capacity })
    }

    fn apply(&self, heard: Heard) {
        self.heard.lock().unwrap().push(heard);
        self.changed.send_replace(());
    }

    pub fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }

    /// Waits until `find` finds something in what was heard.
    pub async fn until<T>(&self, mut find: impl FnMut(&[Heard]) -> Option<T>) -> T {
        let mut changes = self.changed.subscribe();
        let waiting = async {
            loop {
                changes.borrow_and_update();
                if let Some(found) = find(&self.heard()) {
                    return found;
                }
                changes.changed().await.unwrap();
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(found) => found,
            Err(_) => panic!("not heard; heard was {:#?}", self.heard()),
        }
    }

    /// Waits for the number-th event (from 1) that `pick` picks.
    pub async fn event<T>(&self, number: usize, pick: impl Fn(&JobEvent) -> Option<T>) -> T {
        self.until(|heard| events(heard).iter().filter_map(&pick).nth(number - 1)).await
    }

    /// Waits for a state of listening.
    pub async fn state<T>(&self, pick: impl Fn(&ListenState) -> Option<T>) -> T {
        self.until(|heard| heard.iter().find_map(|h| if let Heard::State(s) = h { pick(s) } else { None }))
            .await
    }

    /// Waits for the number-th session (from 1).
    pub async fn opened(&self, number: usize) -> SessionRecord {
        self.until(|heard| sessions(heard).nth(number - 1)).await
    }
}

pub fn sessions(heard: &[Heard]) -> impl Iterator<Item = SessionRecord> {
    heard.iter().filter_map(|h| if let Heard::Opened(s) = h { Some(s.clone()) } else { None })
}

pub fn events(heard: &[Heard]) -> Vec<JobEvent> {
    let messages = heard.iter().filter_map(|h| if let Heard::Message(m) = h { Some(m) } else { None });
    messages.flat_map(|m| m.events.clone()).collect()
}

#[async_trait]
impl MessageHandler for Ear {
    async fn session_opened(&self, session: &SessionRecord) {
        self.apply(Heard::Opened(session.clone()));
    }

    async fn session_closed(&self) {
        self.apply(Heard::Closed);
    }

    fn statistics(&self, statistics: Statistics) {
        self.apply(Heard::Statistics(statistics));
    }

    fn message(&self, message: &Message) {
        self.apply(Heard::Message(message.clone()));
    }

    fn state(&self, state: ListenState) {
        self.apply(Heard::State(state));
    }

    fn capacity(&self) -> watch::Receiver<u32> {
        self.capacity.subscribe()
    }
}

/// A listen loop that runs.
pub struct Listening {
    pub ear: Arc<Ear>,
    cancel: CancellationToken,
    task: JoinHandle<ListenEnd>,
}

impl Listening {
    pub fn start(
        service: Arc<dyn ScaleSetService>,
        scale_set_id: i64,
        left_behind: Option<&str>,
        capacity: u32,
    ) -> Self {
        let (ear, cancel) = (Ear::new(capacity), CancellationToken::new());
        let left_behind = left_behind.map(str::to_owned);
        let set = ListenTarget { scale_set_id, owner: "tester".to_owned(), left_behind };
        let task =
            tokio::spawn(listen(service, set, Arc::clone(&ear) as Arc<dyn MessageHandler>, cancel.clone()));
        Listening { ear, cancel, task }
    }

    /// Waits for the end that comes by itself.
    pub async fn end(self) -> ListenEnd {
        tokio::time::timeout(PATIENCE, self.task).await.expect("the loop ends").unwrap()
    }

    /// Tells it to stop and waits for its end.
    pub async fn stop(self) -> ListenEnd {
        self.cancel.cancel();
        self.end().await
    }

    /// Dies as a killed controller does.
    pub fn kill(self) {
        self.task.abort();
    }
}

/// Registers the set and listens to it.
pub async fn listening(github: &SimGithub, capacity: u32) -> (Arc<Client>, ScaleSet, Listening) {
    let client = Arc::new(client(github));
    let set = scale_set(&client).await;
    let listening = Listening::start(Arc::clone(&client) as Arc<dyn ScaleSetService>, set.id, None, capacity);
    listening.ear.opened(1).await;
    (client, set, listening)
}
