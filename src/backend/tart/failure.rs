//! What Tart's errors mean. Its exit codes say little, so its texts are read: fragments of them, in one table.

use crate::api::Reason;
use crate::backend::Error;
use crate::backend::remote::Output;

/// How much of what Tart said is told.
const TOLD: usize = 400;

/// What Tart's words say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// The host runs as many VMs as macOS lets it.
    HostFull,
    /// There is no VM or image of that name.
    Missing,
    /// The volume is full.
    DiskFull,
    /// What the spec asks for is less than the image needs.
    BelowLeast,
}

/// Fragments of Tart's texts in lower case, as of 2.35.0.
const TEXTS: [(&str, Meaning); 6] = [
    ("exceeds the system limit", Meaning::HostFull),
    ("out of space", Meaning::DiskFull),
    ("no space left", Meaning::DiskFull),
    ("lessthanminimalresources", Meaning::BelowLeast),
    ("does not exist", Meaning::Missing),
    ("not found in the registry", Meaning::Missing),
];

/// Judges a command that failed. `what` was to be done.
pub(super) fn meaning(what: &str, output: &Output) -> Error {
    classify(what, &output.errors(), output.code)
}

fn classify(what: &str, errors: &str, code: Option<u32>) -> Error {
    let lower = errors.to_lowercase();
    let found = TEXTS.iter().find(|(fragment, _)| lower.contains(fragment)).map(|(_, meaning)| *meaning);
    let message = match (errors.is_empty(), code) {
        (false, _) => format!("{what}: {}", told(errors)),
        (true, Some(code)) => format!("{what}: exit code {code}, and nothing was said"),
        (true, None) => format!("{what}: a signal ended it"),
    };
    let no_capacity = |reason| Error::no_capacity(reason, message.as_str());
    match found {
        Some(Meaning::HostFull) => no_capacity(Reason::HostFull),
        Some(Meaning::DiskFull) => no_capacity(Reason::DiskFull),
        Some(Meaning::Missing) => no_capacity(Reason::ImageMissing),
        Some(Meaning::BelowLeast) => Error::Refused(message),
        None => no_capacity(Reason::TartError),
    }
}

/// On one line, and not too long.
pub(super) fn told(text: &str) -> String {
    let line: Vec<&str> = text.split_whitespace().collect();
    line.join(" ").chars().take(TOLD).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Tart 2.35.0 words them.
    #[test]
    fn tarts_words_tell_what_went_wrong() {
        for (text, expected) in [
            (
                "The number of VMs exceeds the system limit (other running VMs: a, b)",
                Reason::HostFull.as_str(),
            ),
            ("the specified VM \"golden\" does not exist", Reason::ImageMissing.as_str()),
            (
                "Error: You can’t save the file “disk.img” because the volume “Macintosh HD” is out of space.",
                Reason::DiskFull.as_str(),
            ),
            ("Error: write: No space left on device", Reason::DiskFull.as_str()),
            (
                "Error: LessThanMinimalResourcesError: VM should have 4 CPU cores at minimum (requested 1)",
                "refused",
            ),
            ("Error: The operation couldn’t be completed.", Reason::TartError.as_str()),
            ("sh: tart: command not found", Reason::TartError.as_str()),
            ("", Reason::TartError.as_str()),
        ] {
            let reason = match classify("cloning", text, Some(1)) {
                Error::NoCapacity(why) => why.reason.as_str(),
                Error::Refused(_) => "refused",
                other => panic!("{other}"),
            };
            assert_eq!(reason, expected, "{text}");
        }
    }

    #[test]
    fn what_is_told_is_one_line_of_bounded_length() {
        assert_eq!(told(" a\n\tb "), "a b");
        assert_eq!(told(&"x".repeat(5000)).len(), TOLD);
    }
}
