//! The `paddock` program, end to end: the real binary as the ServiceAccount of `deploy/`, a real API server, real
//! containers, and a simulated GitHub.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod changes;
mod deletion;
mod draining;
mod early_exit;
mod ecs;
mod engines;
mod failures;
mod fleet;
mod hostile;
mod housekeeping;
mod install;
mod network;
mod queue;
mod reaper;
mod restart;
mod rollout;
mod secrets;
mod sharing;
mod sidecar;
mod spillover;
mod tart;
mod top;
mod trouble;
mod twins;
mod variants;
mod witness;
mod writes;
