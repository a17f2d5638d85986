//! The stand-in for Tart and the Macs that it is on.

#![allow(clippy::expect_used)]

mod contract;
mod faults;
mod images;
mod life;
mod mac;
mod support;
