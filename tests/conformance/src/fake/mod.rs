//! A kind of capacity in memory, which records the calls that it gets and fails the next one on request.
//!
//! It reads the `docker` block of a spec, at endpoints `fake://NAME`, and says that it is of that kind: a kind of its own would
//! be a change of the API. [`Hosts`] is what is there in truth, however many controllers look at it; a [`FakeProvider`] is how
//! one controller sees it, by looks that come a moment later.

mod backend;
mod hosts;
mod provider;
mod reservation;
mod view;

pub use hosts::{Call, Fault, Hosts, Method, World};
pub use provider::FakeProvider;
