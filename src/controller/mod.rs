//! The controller: it watches `RunnerScaleSet`s, brings what they ask for together with what is there, and writes down
//! what it saw.

mod answer;
mod client;
mod cluster;
mod conditions;
mod context;
mod definition;
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
mod turns;
mod writer;

pub use client::client;
pub use cluster::{Cluster, LeaseState, ScaleSets};
pub use inputs::{Data, Error as InputError, Objects, read_backend, read_client, wanted as wanted_scale_set};
pub use permission::{enforced, judge};
pub use policy_file::{PolicyError, read_policy};
pub use record::recorded;
pub use run::{Options, StartError, run};
pub use test_driver::TestDriver;
