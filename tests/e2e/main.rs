//! The `paddock` program, end to end: the real binary as the ServiceAccount of `deploy/`, a real API server, real
//! containers, and a simulated GitHub.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod deletion;
mod fleet;
mod harness;
mod queue;
mod restart;
mod secrets;
mod trouble;
mod variants;
mod witness;
mod writes;
