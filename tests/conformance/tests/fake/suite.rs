//! The suite over the fake.

use crate::stage::FakeStage;

conformance::suite!(FakeStage);
