//! Faults on real parts under load: the controller, the engine, the API server and its etcd are killed and frozen, the
//! network to GitHub fails. Each test ends in the same account: nothing lost, nothing killed, nothing done twice, nothing
//! left behind.
//!
//! With `PADDOCK_SOAK` in the environment the tests take their long forms; `PADDOCK_SEED` repeats a run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod account;
mod apiserver;
mod definition;
mod deletion;
mod engines;
mod hosts;
mod kills;
mod leadership;
mod load;
mod network;
mod proxy;
mod pulls;
