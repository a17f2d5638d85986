//! Paddock: fleets of ephemeral GitHub Actions runners, declared in Kubernetes.

pub mod api;
pub mod backend;
pub mod chance;
pub mod controller;
pub mod github;
pub mod plan;
pub mod reaper;
pub mod runner;
pub mod telemetry;
