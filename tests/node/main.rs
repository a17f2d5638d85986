//! The chart in a whole cluster: the controller in pods, with the image that `deploy/Dockerfile` makes, beside the Docker engine of
//! their node. Every step is a command that a person types.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod newcomer;
mod release;
mod restricted;
mod site;
mod socket;
