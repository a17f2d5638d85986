//! The controller: it watches `RunnerScaleSet`s, brings what they ask for together with what is there, and writes down
//! what it saw.

mod answer;
mod client;
mod conditions;
mod context;
mod events;
mod finalizer;
mod housekeeping;
mod inputs;
mod lease;
mod load;
mod permission;
mod policy_file;
mod reconcile;
mod record;
mod report;
mod reporter;
mod requeue;
mod resolve;
mod run;
mod status;
mod test_driver;
mod writer;

pub use client::client;
pub use policy_file::PolicyError;
pub use run::{Options, StartError, run};
pub use test_driver::TestDriver;
