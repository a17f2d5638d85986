//! The proving ground: what the tests need that no real part can show.
//!
//! [`github`] is a simulated GitHub that speaks the scale-set service's wire protocol over HTTP. The same simulation runs
//! as the binary `sim-github`; the program `fake-runner` is the runner that talks to it. [`tart`] has simulated Macs.

pub mod github;
pub mod tart;
