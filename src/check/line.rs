//! The lines that tell what was found.

use serde::Serialize;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The file, as it was given; `-` is standard input.
    pub file: String,
    /// Kind and name of the object; empty where the file has none that can be read.
    pub object: String,
    /// The field, as a path; empty where it is about the whole object.
    pub field: String,
    /// Whether all is well.
    pub ok: bool,
    /// What was found.
    pub message: String,
}

/// What is told of one object.
pub(super) struct Report<'a> {
    pub(super) file: &'a str,
    pub(super) object: String,
    pub(super) checks: &'a mut Vec<Check>,
}

impl Report<'_> {
    pub(super) fn tell(&mut self, ok: bool, field: impl Into<String>, message: impl Into<String>) {
        self.checks.push(Check {
            file: self.file.to_owned(),
            object: self.object.clone(),
            field: field.into(),
            ok,
            message: message.into(),
        });
    }

    /// Tells why something cannot be used, of the field that the words begin with.
    pub(super) fn refuse(&mut self, why: &str) {
        let end = why.find([' ', ':']).unwrap_or(why.len());
        let (field, rest) = why.split_at(end);
        match field.starts_with("spec.") || field.starts_with("metadata.") {
            true => self.tell(false, field, rest.trim_start_matches(':').trim_start()),
            false => self.tell(false, "", why),
        }
    }
}
