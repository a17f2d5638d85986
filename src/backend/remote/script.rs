//! A script for a host's shell, and what it prints.

use std::fmt;
use std::time::Duration;

use super::quote::quote;

/// What is kept of a command's output and of its errors; the rest is read and dropped.
const KEPT: usize = 4 << 20;

/// A script for `/bin/sh`. Its text is the program's own and constant; values come in as its arguments, and secrets by
/// standard input, so that neither can change what it does.
#[derive(Clone)]
pub struct Script {
    /// What it does, for the report of a failure: "listing the VMs".
    pub(super) what: &'static str,
    pub(super) text: &'static str,
    pub(super) arguments: Vec<String>,
    pub(super) input: Vec<u8>,
    pub(super) within: Duration,
}

impl Script {
    /// A script with a deadline and no arguments.
    pub fn new(what: &'static str, text: &'static str, within: Duration) -> Script {
        Script { what, text, arguments: Vec::new(), input: Vec::new(), within }
    }

    /// Adds an argument: `$1`, then `$2` and so on.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<String>) -> Script {
        self.arguments.push(argument.into());
        self
    }

    /// Gives it something to read. It is shown nowhere.
    #[must_use]
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Script {
        self.input = input.into();
        self
    }

    /// The words of the command: the shell, the text, the name of the script, the arguments.
    pub(super) fn words(&self) -> Vec<&str> {
        let mut words = vec!["/bin/sh", "-c", self.text, "paddock"];
        words.extend(self.arguments.iter().map(String::as_str));
        words
    }

    /// The line for a login shell, whichever that is. What it runs prints the number of its process before anything else.
    pub(super) fn line(&self) -> String {
        let named = ["/bin/sh", "-c", "echo $$; exec \"$@\"", "paddock"];
        let words: Vec<String> = named.into_iter().chain(self.words()).map(quote).collect();
        format!("exec {}", words.join(" "))
    }
}

/// Without what it reads, which may be a secret.
impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script").field("what", &self.what).field("arguments", &self.arguments).finish()
    }
}

/// A part of what a script prints, or its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// On standard output.
    Output(Vec<u8>),
    /// On standard error.
    Error(Vec<u8>),
    /// It ended, with that exit code; none if a signal ended it.
    Exit(Option<u32>),
}

/// What a script printed, and how it ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// The exit code; none if a signal ended it.
    pub code: Option<u32>,
    output: Vec<u8>,
    errors: Vec<u8>,
}

impl Output {
    /// What it printed on standard output.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }

    /// What it printed on standard error, without the white space around it.
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.errors).trim().to_owned()
    }

    /// Adds a part, up to a bound.
    pub fn add(&mut self, part: Part) {
        let (kept, bytes) = match part {
            Part::Output(bytes) => (&mut self.output, bytes),
            Part::Error(bytes) => (&mut self.errors, bytes),
            Part::Exit(code) => {
                self.code = code;
                return;
            }
        };
        let room = KEPT.saturating_sub(kept.len());
        kept.extend(bytes.into_iter().take(room));
    }
}
