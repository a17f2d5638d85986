//! The controller: it watches `RunnerScaleSet`s, brings what they ask for together with what is there, and writes down
//! what it saw.

mod client;
mod conditions;
mod context;
mod decide;
mod draining;
mod environment;
mod events;
mod finalize;
mod housekeeping;
mod inputs;
mod lease;
mod message_handler;
mod ownership;
mod reconcile;
mod registrar;
mod run;
mod set;
mod state;
mod status;
mod tasks;
mod test_driver;
mod writer;

pub use client::client;
pub use environment::{Environment, Production};
pub use run::{Options, StartError, run};
pub use test_driver::TestDriver;
