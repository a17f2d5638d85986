//! What a tenant tries and does not get: the real binary as the ServiceAccount of `deploy/`, a real API server, real
//! containers, and hosts that note whoever comes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod ceilings;
mod drain;
mod file;
mod images;
mod large;
mod liar;
mod lies;
mod lines;
mod memory;
mod network;
