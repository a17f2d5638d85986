//! The ECS backend against the simulated ECS of the testkit, which speaks the protocol of the AWS SDKs and is as late, as limited
//! and as particular as AWS is documented to be.

// A test that cannot go on fails where it stands.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod capacity;
mod conformance;
mod definitions;
mod lives;
mod looks;
mod moto;
mod refusals;
mod stage;
