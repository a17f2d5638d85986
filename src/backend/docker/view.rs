//! What is known of an engine by one way of reaching it, and what all ways together say of it.

use std::collections::BTreeMap;

use bollard::Docker;
use jiff::Timestamp;
use tokio::time::Instant;

use super::index::Index;

/// What is known of an engine by one way of reaching it.
#[derive(Debug)]
pub(super) struct View {
    pub(super) index: Index,
    pub(super) link: Link,
    /// When it last answered a whole listing.
    pub(super) listed_at: Option<Timestamp>,
    /// Connections so far: what an engine refused is tried again when it comes back, maybe changed.
    pub(super) connections: u64,
}

/// The connection to an engine.
#[derive(Debug, Clone)]
pub(super) enum Link {
    /// Its events flow and it was listed.
    Up(Client),
    /// Why not, and since when.
    Down { why: String, since: Instant },
}

/// What is needed to talk to an engine.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) docker: Docker,
    /// Whether it can put an init process into containers, which reaps what jobs leave behind and passes signals on.
    pub(super) init: bool,
}

/// All views of one engine: one, unless scale sets reach it with different credentials. Each shows the same containers.
#[derive(Debug, Default)]
pub(super) struct Views {
    views: BTreeMap<u64, View>,
    next: u64,
}

impl Default for View {
    fn default() -> View {
        View {
            index: Index::default(),
            link: Link::Down { why: "not connected yet".to_owned(), since: Instant::now() },
            listed_at: None,
            connections: 0,
        }
    }
}

impl View {
    /// Whether it is current.
    pub(super) fn is_up(&self) -> bool {
        matches!(self.link, Link::Up(_))
    }
}

impl Views {
    /// Adds a way of reaching the engine. Returns its number.
    pub(super) fn add(&mut self) -> u64 {
        self.next += 1;
        self.views.insert(self.next, View::default());
        self.next
    }

    /// Nobody reaches it in that way any more.
    pub(super) fn remove(&mut self, number: u64) {
        self.views.remove(&number);
    }

    pub(super) fn get(&self, number: u64) -> Option<&View> {
        self.views.get(&number)
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut View> {
        self.views.get_mut(&number)
    }

    /// Those that are current; if none is, all of them, as last known.
    pub(super) fn believed(&self) -> impl Iterator<Item = &View> {
        let any_up = self.views.values().any(View::is_up);
        self.views.values().filter(move |view| view.is_up() || !any_up)
    }

    /// How many containers of runners have not ended, of whatever cluster.
    pub(super) fn live(&self) -> usize {
        self.believed().map(|view| view.index.live()).max().unwrap_or_default()
    }

    /// How many of a scale set have not ended, of the backends that `owns` says. Costs what the scale set has.
    pub(super) fn live_of_set(&self, uid: &str, owns: impl Fn(&str) -> bool) -> usize {
        let live = |view: &View| {
            view.index.live_of_set(uid).filter(|(backend, _)| owns(backend)).map(|(_, live)| live).sum()
        };
        self.believed().map(live).max().unwrap_or_default()
    }

    /// Whether a runner is seen.
    pub(super) fn has_runner(&self, runner: &str) -> bool {
        self.believed().any(|view| view.index.has_runner(runner))
    }
}
