//! Why a configuration cannot be converted.

/// Why a configuration cannot be converted.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The text is not of the language that it should be in.
    #[error("line {line}: {problem}")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// What the parser says, without the line's text, which may be secret.
        problem: String,
    },
    /// A field is missing or has a value that cannot be used.
    #[error("{field}: {problem}")]
    Field {
        /// The field's path in the file.
        field: String,
        /// What is wrong and what to write instead.
        problem: String,
    },
    /// The file has nothing that could be converted.
    #[error("{0}")]
    Nothing(&'static str),
    /// A manifest cannot be written as JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// A manifest cannot be written as YAML.
    #[error(transparent)]
    Yaml(#[from] serde_saphyr::ser::Error),
}
