//! Paddock: fleets of ephemeral GitHub Actions runners, declared in Kubernetes.

// A sum of times from outside must not panic: `clippy.toml` allows the plain operators for whole numbers alone.
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

pub mod api;
pub mod backend;
pub mod cause;
pub mod check;
pub mod controller;
pub mod convert;
pub mod doctor;
pub mod github;
pub mod plan;
pub mod reaper;
pub mod rng;
pub mod runner;
pub mod scale_set;
pub mod telemetry;
pub mod terminal;
pub mod time;
pub mod top;
