//! GitHub's runner scale set service: what Paddock asks of it, and the errors that a caller can act on.
//!
//! [`ScaleSetService`] is the seam. [`Client`] meets it over HTTP, [`Clients`] shares clients between fleets, and
//! [`listen`] keeps the message session of one fleet open and hands over what it hears.

mod auth;
mod call;
mod classify;
mod client;
mod clients;
mod credentials;
mod fields;
mod limit;
mod listen;
mod message;
mod network;
mod service;
mod transport;
mod url;
mod wire;

pub use call::Deadlines;
pub use client::{Client, ClientConfig};
pub use clients::Clients;
pub use credentials::Credentials;
pub use limit::RateLimit;
pub use listen::{ListenEnd, ListenState, ListenTarget, MessageHandler, SessionRecord, listen};
pub use network::{Network, Proxy};
pub use service::{
    AcquirableJob, Error, JitRunner, ListedRunner, Message, RunnerReference, ScaleSet, ScaleSetService,
    Session, WantedScaleSet,
};
