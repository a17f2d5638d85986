//! What the suite needs of a kind of capacity: a host to run on, and a hand on it past the controller.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use paddock::api;
use paddock::backend::{Provider, Requeuer};
use paddock::runner::Instance;
use tokio::runtime::{Builder, Runtime};

/// The backend's name in every block.
pub const BACKEND: &str = "rack";
/// The line that every runner of a stage prints when it is up.
pub const PRINTED: &str = "the runner is up";

/// A host of one kind of capacity, as a test has it. All that a test left there goes when this is dropped.
#[allow(async_fn_in_trait)] // one thread runs a test
pub trait Stage: Sized {
    /// The deadline for what must come, on a machine that does other things too.
    const PATIENCE: Duration = Duration::from_secs(60);
    /// How many runners a host runs side by side. At least two.
    const AT_ONCE: usize = 4;
    /// What has ended keeps its slot until it is removed: the machine that was made for it runs on.
    const ENDED_KEEPS_SLOT: bool = false;
    /// A spec names a host by its endpoint, and the host is told as it is spelled there. False where the endpoint is made of
    /// other fields.
    const SPELLS_ENDPOINTS: bool = true;

    /// Makes the runtime of a test: one thread with the real clock, unless the hosts are simulated.
    fn runtime() -> Runtime {
        Builder::new_current_thread().enable_all().build().expect("a runtime")
    }

    /// Sets up a host that can run what [`Stage::backend`] names.
    async fn set_up(host: HostUse) -> Self;

    /// Returns the cluster's id of the stage's controllers. No other stage has the same.
    fn cluster(&self) -> &str;

    /// Makes the provider of one more controller of the cluster. It knows nothing yet.
    fn provider(&self, requeuer: Requeuer) -> Arc<dyn Provider>;

    /// Returns a backend named [`BACKEND`] with one host. Its runners print [`PRINTED`] and run until [`Stage::end`].
    fn backend(&self, block: &Block) -> api::Backend;

    /// Returns the Secrets that the backend refers to: each value by the Secret's name and its key.
    fn secrets(&self) -> Secrets {
        Secrets::new()
    }

    /// Has the runner of an instance end by itself with an exit code.
    async fn end(&mut self, instance: &Instance, code: u8);

    /// Adds to the host an instance that is not of this cluster and has not ended, and returns its id.
    async fn add_foreign(&mut self) -> String;

    /// Tells whether the host has an instance that could be removed, asked past every controller. What a kind goes on showing
    /// of one that ended, and nobody can remove, is none.
    async fn has(&mut self, instance_id: &str) -> bool;

    /// Has the host answer nobody any more. What runs there may end with it.
    async fn fall_silent(&mut self);

    /// Has the host answer again, with what is left there.
    async fn answer_again(&mut self);
}

/// Values by the Secret's name and the key in it.
pub type Secrets = HashMap<(&'static str, &'static str), String>;

/// Says with whom a stage shares its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostUse {
    /// Other tests may run instances there at the same time: this one counts no slots and silences nothing.
    Shared,
    /// Nothing runs there but what this test starts.
    Own,
}

/// What a test asks of a backend's block, beside what all have.
#[derive(Debug, Clone, Default)]
pub struct Block {
    /// The maximum of the backend's runners on the host: two at most. A kind whose hosts have none leaves it out.
    pub max_runners: Option<u8>,
    /// Something is changed that the runners are made from.
    pub changed: bool,
    /// The host's endpoint is spelled in another way.
    pub respelled: bool,
}

impl Block {
    /// A block that states the host's maximum.
    pub fn limited(max_runners: u8) -> Block {
        Block { max_runners: Some(max_runners), ..Block::default() }
    }
}
