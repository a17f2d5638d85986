//! The Tart backend against simulated Macs: the tests' stand-in for Tart behind a real sshd, or on this machine.

// A test that cannot go on fails where it stands.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod conformance;
mod connection;
mod faults;
mod hostile;
mod images;
mod lives;
mod outages;
mod pool;
mod slots;
mod stage;
