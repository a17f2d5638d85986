//! What nobody speaks for any more: instances of scale sets that are gone, and registrations without an instance. Both
//! are found by comparing lists, and absence from a list is believed only after two looks and a minimum age.

mod instances;
mod looks;
mod registrations;

pub use instances::OrphanInstances;
pub use registrations::{OrphanRegistrations, SWEEP_INTERVAL};
