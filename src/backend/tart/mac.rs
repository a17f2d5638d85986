//! One Mac by one way of reaching it: commands on it, and what is known of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::host::{HeldSlot, Host, State};
use super::view::View;
use crate::backend::remote::{Endpoint, Failure, Output, Remote, Script};
use crate::backend::{Error, SILENCE};

/// One Mac by one way of reaching it: an endpoint, a login and a `TART_HOME`.
#[derive(Debug)]
pub(super) struct Mac {
    pub(super) endpoint: Endpoint,
    /// Empty for Tart's own default.
    pub(super) home: String,
    /// Whose VMs are ours.
    pub(super) cluster: String,
    pub(super) remote: Remote,
    pub(super) host: Arc<Host>,
    /// Asks for a listing now.
    pub(super) suspicion: Notify,
    pub(super) limits: Limits,
    number: u64,
}

/// How long things may take; tests have less time.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From the start of a VM until its guest agent answers.
    pub boot: Duration,
    /// A pull that prints nothing for so long is stuck.
    pub pull_silence: Duration,
    /// A Mac that has not answered for so long is not counted on.
    pub silence: Duration,
    /// Between two listings.
    pub relist: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            boot: Duration::from_secs(300),
            pull_silence: Duration::from_secs(300),
            silence: SILENCE,
            relist: Duration::from_secs(30),
        }
    }
}

impl Mac {
    pub(super) fn new(
        (endpoint, home, remote): (Endpoint, String, Remote),
        cluster: &str,
        host: Arc<Host>,
        limits: Limits,
    ) -> Mac {
        let number = host.add_view(&home);
        let (cluster, suspicion) = (cluster.to_owned(), Notify::new());
        Mac { endpoint, home, cluster, remote, host, suspicion, limits, number }
    }

    /// Looks at what is known of it.
    pub(super) fn look<T>(&self, look: impl FnOnce(&View) -> T) -> Option<T> {
        self.host.state().views.get(&self.number).map(look)
    }

    /// What is known of it, within what is known of its host.
    pub(super) fn view_of<'a>(&self, state: &'a State) -> Option<&'a View> {
        state.views.get(&self.number)
    }

    /// Changes what is known of it, and wakes the scale sets that `change` answers.
    pub(super) fn change(&self, change: impl FnOnce(&mut View) -> BTreeSet<String>) {
        let number = self.number;
        self.host.update(|state| state.views.get_mut(&number).map(change).unwrap_or_default());
    }

    /// Notes that a VM is no more.
    pub(super) fn forget(&self, vm: &str) {
        self.change(|view| view.index.forget(vm, Instant::now()).into_iter().collect());
    }

    /// Something did not answer, or ended: looks at once.
    pub(super) fn suspect(&self) {
        self.suspicion.notify_one();
    }

    /// Whether it has not answered for so long that nothing is counted on there.
    pub(super) fn is_lost(&self) -> bool {
        self.look(|view| view.down_since.is_some_and(|since| since.elapsed() >= self.limits.silence))
            .unwrap_or_default()
    }

    /// Whether it answers.
    pub(super) fn answers(&self) -> Result<(), Error> {
        self.look(View::answers)
            .unwrap_or_else(|| Err(Error::Unreachable("it is not used any more".to_owned())))
    }

    /// Holds a place for a VM of a user of the host.
    pub(super) fn hold(&self, user: u64, vm: &str) -> HeldSlot {
        let mut number = 0;
        self.host.update(|state| {
            number = state.slots.hold(user, &self.home, vm, &state.views);
            BTreeSet::new()
        });
        HeldSlot::new(&self.host, number)
    }

    /// A script for it.
    pub(super) fn script(&self, what: &'static str, text: &'static str, within: Duration) -> Script {
        Script::new(what, text, within).arg(self.home.clone())
    }

    /// Runs a script, if the Mac answers.
    pub(super) async fn run(&self, script: &Script) -> Result<Output, Error> {
        self.answers()?;
        self.remote.run(script).await.map_err(|failure| self.no_answer(&failure))
    }

    /// What it means that a command has no result.
    pub(super) fn no_answer(&self, failure: &Failure) -> Error {
        self.suspect();
        Error::Unreachable(failure.to_string())
    }
}

impl Drop for Mac {
    fn drop(&mut self) {
        self.host.remove_view(self.number);
    }
}
