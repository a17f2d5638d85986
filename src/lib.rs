//! Paddock: fleets of ephemeral GitHub Actions runners, declared in Kubernetes.

pub mod api;
