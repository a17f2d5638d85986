//! The controller: it watches `RunnerScaleSet`s, brings what they ask for together with what is there, and writes down
//! what it saw.

mod act;
mod audience;
mod client;
mod conditions;
mod context;
mod core;
mod draining;
mod events;
mod finalize;
mod housekeeping;
mod inputs;
mod lease;
mod ownership;
mod reconcile;
mod registrar;
mod run;
mod set;
mod status;
mod step;
mod world;
mod writer;

pub use client::client;
pub use core::Core;
pub use run::{Options, StartError, run};
pub use world::{Real, World};
