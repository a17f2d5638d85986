//! The proving ground: what the tests need that no real part can show.
//!
//! [`github`] is a simulated GitHub that speaks the scale-set service's wire protocol over HTTP. The same simulation runs
//! as the binary `sim-github`; the program `fake-runner` is the runner that talks to it. [`raw`] is one of a few lines on a
//! bare socket, for what no HTTP server would show or do.
//!
//! [`ecs`] is a simulated Amazon ECS, in the binary `sim-ecs` too; its tasks run `fake-runner` as a process.
//!
//! [`tart`] has simulated Macs: a stand-in for `tart` whose machines run `fake-runner`, behind a real sshd.
//!
//! [`fuzz`] makes inputs that nobody would write in good faith.
//!
//! [`changes`] tells of changes, in an order that is always the same.
//!
//! [`wait`] waits for a state, by a deadline.

pub mod changes;
pub mod ecs;
pub mod fuzz;
pub mod github;
pub mod lies;
pub mod raw;
pub mod tart;
pub mod wait;
