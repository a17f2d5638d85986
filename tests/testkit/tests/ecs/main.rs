//! The simulated ECS: by its own client, by the runner stand-in, and by the witnesses boto3 and moto.

#![allow(clippy::expect_used, clippy::panic)]

mod client;
mod lists;
mod runner;
mod tasks;
mod witness;

use std::time::Duration;

/// Long enough for a busy machine; nothing here waits for it to pass.
const PATIENCE: Duration = Duration::from_secs(30);
