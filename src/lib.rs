//! Paddock: fleets of ephemeral GitHub Actions runners, declared in Kubernetes.

pub mod backend;
pub mod github;
pub mod runner;
pub mod telemetry;
