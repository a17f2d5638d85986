//! The chart `charts/paddock`, rendered by Helm: what it makes is accepted by a real API server, means what the controller means,
//! and gives the controller the rights that it needs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod admission;
mod combinations;
mod dashboard;
mod helm;
mod least;
mod lifecycle;
mod monitoring;
mod rights;
mod values;
