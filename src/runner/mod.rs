//! What a runner is: its identity, its record, its phases, and the ledger of one scale set.
//!
//! Everything here is plain data. GitHub's service (`github`) and the backends (`backend`) speak of runners
//! in these terms, and `plan` decides with them.

mod demand;
mod failure;
mod host;
mod identity;
mod instance;
mod jit;
mod job;
mod ledger;
mod observation;
mod persisted;
mod recent;
mod record;
mod rerun;
mod unseen;
mod watched;

pub use demand::Demand;
pub use failure::{Failure, FailureStreak, Failures};
pub use host::{Availability, HostState};
pub use identity::{Identity, runner_name};
pub use instance::{Cause, Exit, Instance, InstanceState};
pub use jit::JitConfiguration;
pub use job::{Job, JobEvent, JobOutcome, Statistics};
pub use ledger::Ledger;
pub use observation::Observation;
pub use persisted::PersistedRunner;
pub use record::{Leaving, Operation, Phase, Registration, Runner, Seen, Work};
pub use rerun::{Rerun, RerunAnswer, RerunState, Reruns};
pub use unseen::HostCount;
pub use watched::Watched;
