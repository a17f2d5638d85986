//! Images that runners are made from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// When an image is pulled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum PullPolicy {
    /// Before every start.
    Always,
    /// When the host does not have it.
    #[default]
    IfNotPresent,
    /// Never: a host that does not have it refuses the start.
    Never,
}

/// The image that runners have unless told otherwise: GitHub's own.
pub(super) fn runner_image() -> String {
    "ghcr.io/actions/actions-runner:latest".into()
}
