//! One Docker engine by one way of reaching it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, OnceCell};

use super::endpoint::Endpoint;
use super::host::{Host, State};
use super::route::Route;
use super::view::{Client, Link, View};
use crate::backend::Error;

/// One Docker engine by one way of reaching it: an endpoint and credentials.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) endpoint: Endpoint,
    pub(super) route: Arc<Route>,
    /// Whose containers are ours.
    pub(super) cluster: String,
    pub(super) host: Arc<Host>,
    /// Asks for a listing now.
    pub(super) suspicion: Notify,
    /// The number of its socket's group, once a runner wanted it.
    pub(super) socket_group: OnceCell<String>,
    pub(super) patience: Patience,
    number: u64,
}

/// How long an engine may say nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// A host that has not answered for so long is not counted on.
    pub(super) silence: Duration,
    /// A pull of which nothing is heard for so long is stuck.
    pub(super) stalled: Duration,
}

impl Engine {
    pub(super) fn new(
        endpoint: Endpoint,
        route: Route,
        cluster: &str,
        host: Arc<Host>,
        patience: Patience,
    ) -> Engine {
        let number = host.state().views.add();
        let (route, cluster, suspicion) = (Arc::new(route), cluster.to_owned(), Notify::new());
        Engine { endpoint, route, cluster, host, suspicion, socket_group: OnceCell::new(), patience, number }
    }

    /// What is known of it, within what is known of its host.
    pub(super) fn view_of<'a>(&self, state: &'a State) -> Option<&'a View> {
        state.views.get(self.number)
    }

    /// Looks at what is known of it.
    pub(super) fn look<T>(&self, look: impl FnOnce(&View) -> T) -> Option<T> {
        self.view_of(&self.host.state()).map(look)
    }

    /// Changes what is known of it, and wakes whom it concerns, as [`Host::update`] does.
    pub(super) fn change(&self, change: impl FnOnce(&mut View) -> BTreeSet<String>) {
        self.host.update(|state| state.views.get_mut(self.number).map(change).unwrap_or_default());
    }

    /// Something did not answer: looks at once whether the engine still does.
    pub(super) fn suspect(&self) {
        self.suspicion.notify_one();
    }

    /// The client, while the engine answers.
    pub(super) fn client(&self) -> Result<Client, Error> {
        match self.look(|view| view.link.clone()) {
            Some(Link::Up(client)) => Ok(client),
            Some(Link::Down { why, .. }) => Err(Error::Unreachable(why)),
            None => Err(Error::Unreachable("it is not used any more".to_owned())),
        }
    }

    /// Whether its host has not answered for so long that nothing is counted on there. One's own machine is never lost: its
    /// engine is away to be restarted.
    pub(super) fn is_lost(&self) -> bool {
        let silent = |view: &View| matches!(view.link, Link::Down { since, .. } if since.elapsed() >= self.patience.silence);
        !self.endpoint.is_local() && self.look(silent).unwrap_or_default()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.host.update(|state| {
            state.views.remove(self.number);
            BTreeSet::new()
        });
    }
}
