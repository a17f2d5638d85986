//! The model: the real controller in a simulated world, through random histories, under the rules of the design.
//!
//! A history follows from its seed: the world it begins with, the moves, and every chance in between. When a rule is
//! broken the moves are thinned out to the few that break it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod cluster;
mod ecs;
mod fake;
mod github;
mod history;
mod hosts;
mod jobs;
mod left_out;
mod life;
mod mac;
mod planted;
mod play;
mod process;
mod prompt;
mod provider;
mod regressions;
mod rules;
mod search;
mod service;
mod sim;
