//! The Docker backend against a real engine: the one at `DOCKER_HOST` or the default socket, and others that a test
//! starts for itself. The runners are the shell of the image that `make image` makes.

// A test that cannot go on fails where it stands.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod conformance;
mod fleet;
mod housekeeping;
mod images;
mod lives;
mod network;
mod outages;
mod parts;
mod podman;
mod proxy;
mod sidecar;
mod slots;
mod stage;
