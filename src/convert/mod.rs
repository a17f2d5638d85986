//! Converts the configuration of other programs that keep runners into `RunnerScaleSet` manifests.
//!
//! Nothing is dropped silently: a configuration is read field by field (`table.rs`), and each field that has no counterpart is
//! told in a comment above the manifest. No secret is written: a token becomes a reference to a Secret.

mod arc;
mod ecs_arc;
mod error;
mod manifest;
mod pod;
mod runscaler;
mod table;
#[cfg(test)]
mod tests;

pub use error::ConvertError;

/// The program whose configuration is converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Source {
    /// runscaler's config.toml.
    Runscaler,
    /// ecs-arc's TOML. What ecs-arc has from its environment is taken from there: GITHUB_ORG, ECS_CLUSTER and so on.
    EcsArc,
    /// AutoscalingRunnerSets of actions-runner-controller, or the values of its chart gha-runner-scale-set.
    Arc,
}

/// Returns the manifests as YAML, a document for each scale set.
///
/// `environment` looks up a variable that the program would have read; it is asked for no secret.
///
/// # Errors
///
/// The text cannot be read, or a field has a value that no manifest can have; the error names the field and the remedy, and
/// repeats no value that may be secret.
pub fn convert(
    source: Source,
    text: &str,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<String, ConvertError> {
    let manifests = match source {
        Source::Runscaler => runscaler::convert(text),
        Source::EcsArc => ecs_arc::convert(text, environment),
        Source::Arc => arc::convert(text),
    };
    manifests?.render()
}
