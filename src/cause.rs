//! The cause of an error, in words for people.

use std::error::Error;

/// Returns the innermost cause of an error as a part of a sentence: "connection refused". The errors around it tell of HTTP
/// clients and their connectors, in which nobody can mend anything, and the system's have a number, as in "Connection refused
/// (os error 111)". By `Display` alone: `Debug` may show what was sent.
pub fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let text = cause.to_string();
    let Some((words, _)) = text.split_once(" (os error ") else { return text };
    let mut rest = words.chars();
    rest.next().map_or_else(String::new, |first| first.to_lowercase().chain(rest).collect())
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("client error (Connect)")]
    struct Outer(#[source] io::Error);

    #[test]
    fn what_the_system_says_is_told_in_plain_words() {
        for (code, expected) in
            [(2, "no such file or directory"), (13, "permission denied"), (111, "connection refused")]
        {
            let error = Outer(io::Error::from_raw_os_error(code));
            assert_eq!(innermost(&error), expected);
        }
    }

    #[test]
    fn what_is_no_error_of_the_system_keeps_its_words() {
        let error = Outer(io::Error::other("/var/run/docker.sock: permission denied"));
        assert_eq!(innermost(&error), "/var/run/docker.sock: permission denied");
    }
}
