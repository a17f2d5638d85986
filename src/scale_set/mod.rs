//! One scale set at work, without Kubernetes: its state, what it hears from GitHub, what is decided about it, and the
//! tasks that start and remove its runners.
//!
//! Whoever watches the objects (`controller`) makes a [`ScaleSetHandle`] for each, looks at it by [`decide()`] and tells it
//! what changed; it answers through [`Reporter`].

mod adopt;
mod claim;
mod decide;
mod draining;
mod environment;
mod event;
mod github_end;
mod handle;
mod inputs;
mod leader_only;
mod message_handler;
mod registrar;
mod registration;
mod registry;
mod report;
mod reporter;
mod rerun;
mod shared;
mod state;
mod tasks;

pub use adopt::{adopt, leave_github, place_offline, refuse, stall};
pub use claim::{Claim, Seniority};
pub use decide::{Decision, Left, decide, preview};
pub use environment::{Environment, Production};
pub use event::Event;
pub use github_end::{delete_at_github, own_scale_set};
pub use handle::{ObjectName, ScaleSetHandle};
pub use inputs::{BackendInput, Inputs};
pub use registrar::keep_registered;
pub use registration::Registration;
pub use registry::Registry;
pub use reporter::Reporter;
pub use shared::Shared;
pub use state::{ConfiguredBackend, ScaleSetState};
pub use tasks::spawn;
