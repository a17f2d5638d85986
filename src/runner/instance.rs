//! What a backend runs for a runner: a container, a VM, a task.

use jiff::Timestamp;

use crate::api::Explanation;

/// An instance as its backend last showed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// The backend's own id of it.
    pub id: String,
    /// The runner that it was made for.
    pub runner: String,
    /// The scale set that it belongs to.
    pub scale_set_uid: String,
    /// The backend, by its name in the scale set.
    pub backend: String,
    /// The host, by its name in the backend.
    pub host: String,
    /// Hash of the template that it was made from.
    pub template_hash: String,
    /// When the backend made it.
    pub created_at: Timestamp,
    /// What it does.
    pub state: InstanceState,
}

/// What an instance does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstanceState {
    /// Made, and not running yet.
    Starting,
    /// Made, and at that step of its way up. Each step has the whole of `timeouts.start`.
    Launching(&'static str),
    /// Made by a controller that is no more, and as far as can be seen nobody comes to start it.
    NeverStarted,
    /// Its process runs.
    Running,
    /// It ended; what is left of it waits to be removed.
    Exited(Exit),
}

impl InstanceState {
    /// Whether it ended.
    pub fn ended(&self) -> bool {
        matches!(self, InstanceState::Exited(_))
    }
}

/// How an instance ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exit {
    /// The process's exit code; absent when the backend does not know it.
    pub code: Option<i64>,
    /// Ended for want of memory.
    pub out_of_memory: bool,
    /// When.
    pub at: Timestamp,
    /// What ended it, where its backend says more than an exit code does.
    pub cause: Option<Cause>,
    /// Where what it printed is kept, as a URL.
    pub log: Option<String>,
    /// Nothing is left of it that could be removed: where its runner is not known, nothing is to be done about it.
    pub leaves_nothing: bool,
}

/// What ended an instance from outside, or kept it from coming up, as its backend tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// What happened.
    pub why: Explanation,
    /// It says nothing against the host or the template: its replacement need not wait.
    pub blameless: bool,
    /// The job that it took along is to be run again: its backend's spec asks for that.
    pub rerun: bool,
}

impl Exit {
    /// Its runner ended by itself, and all is well.
    pub fn clean(&self) -> bool {
        !self.out_of_memory && self.code == Some(0) && self.cause.is_none()
    }

    /// Exit codes from 128 upwards name a signal: something else ended the process. 137 is SIGKILL, 143 SIGTERM.
    pub fn killed(&self) -> bool {
        !self.out_of_memory && matches!(self.code, Some(137 | 143))
    }
}
