//! Macs that run Tart, for Linux: a stand-in for the program `tart`, and [`Mac`], which has it behind a real sshd.
//!
//! The stand-in does what the sources of Tart 2.35.0 say, as far as a fleet of runners has to do with it: files, locks, exit
//! codes and texts are Tart's own. `tests/tart-contract` says it in sentences that a real Mac can be asked too. A VM is a
//! tree of real processes that has its own `/Users`. How long things take and what goes wrong is in files of `TART_HOME`, so
//! that it holds for whoever calls `tart` there: see [`Scenario`] and [`Fault`].

mod cache;
mod calls;
mod command;
mod config;
mod failure;
mod guest;
mod home;
mod host;
mod image;
mod leases;
mod lock;
mod reaper;
mod registry;
mod scenario;
mod vm;

pub use calls::{Call, CallEnd};
pub use command::main;
pub use config::Os;
pub use host::{HeldLock, IMAGE, Mac, MacBuilder, StartError, StrangersVm, TooLate, Vm};
pub use registry::Image;
pub use scenario::{Effect, Fault, ListFormat, Overwrite, Scenario};
pub use vm::VmState;
