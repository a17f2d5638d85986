//! The recording fake keeps to the suite, and the suite notices when it does not.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod planted;
mod recording;
mod stage;
mod suite;
