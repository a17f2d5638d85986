//! GitHub's runner scale set service: what Paddock asks of it, and the errors that a caller can act on.

mod service;

pub use service::{
    AcquirableJob, Error, JitRunner, Message, RunnerReference, ScaleSet, ScaleSetService, Session,
    WantedScaleSet,
};
