//! The client and the listen loop against the simulated GitHub, and against an emulator that others wrote.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod calls;
mod deputy;
mod dialect;
mod hazards;
mod lengths;
mod limits;
mod listening;
mod network;
mod official;
mod secrets;
mod support;
mod witness;
