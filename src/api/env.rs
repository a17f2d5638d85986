//! Environment variables of a runner.

use super::SecretKeyRef;
use kube::core::Rule;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Carries the JIT configuration to the runner; the user's `env` may not set it.
pub const JIT_CONFIG_ENV: &str = "ACTIONS_RUNNER_INPUT_JITCONFIG";
/// Makes a runner that GitHub finds too old say so by its exit code; the user's `env` may not set it.
pub const VERSION_EXIT_CODE_ENV: &str = "ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE";

/// One environment variable: a value in place, or a key of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    Rule::new("!(has(self.value) && has(self.valueFrom))")
        .message("value and valueFrom exclude each other")
        .field_path(".valueFrom"),
]))]
pub struct EnvVar {
    /// Name of the variable. ACTIONS_RUNNER_INPUT_JITCONFIG and ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE belong to
    /// the controller and are refused.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = "^[-._a-zA-Z][-._a-zA-Z0-9]*$"),
        extend("x-kubernetes-validations" = [
            Rule::new(format!("!(self in ['{JIT_CONFIG_ENV}', '{VERSION_EXIT_CODE_ENV}'])"))
                .message("env[].name is one that the controller sets itself and may not be overridden"),
        ])
    )]
    pub name: String,
    /// Value of the variable. Default: empty. Excludes valueFrom.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32768))]
    pub value: Option<String>,
    /// Where the value comes from, instead of value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_from: Option<EnvVarSource>,
}

/// Where the value of a variable comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvVarSource {
    /// A key of a Secret in the namespace of the RunnerScaleSet. Whoever can inspect the instance can read the value.
    pub secret_key_ref: SecretKeyRef,
}
