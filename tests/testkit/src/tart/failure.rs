//! How a command of Tart fails: the exit code and the text, in the three forms in which Tart prints one.

use std::fmt;
use std::io;

/// A command that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    code: u8,
    text: String,
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// The text alone: Tart's own errors.
    Bare,
    /// `Error: ` before it: errors of Foundation and of gRPC, and whatever is thrown while arguments are validated.
    Prefixed,
    /// Prefixed, with two lines on usage after it.
    Usage(&'static str),
    /// Nothing is printed: the guest's own exit code.
    Silent,
}

impl Failure {
    /// One of Tart's own errors, with exit code 1.
    pub fn new(text: impl Into<String>) -> Self {
        Self { code: 1, text: text.into(), form: Form::Bare }
    }

    /// An error of a library, with exit code 1.
    pub fn foreign(text: impl Into<String>) -> Self {
        Self { code: 1, text: text.into(), form: Form::Prefixed }
    }

    /// Wrong arguments, with exit code 64.
    pub fn usage(command: &'static str, text: impl Into<String>) -> Self {
        Self { code: 64, text: text.into(), form: Form::Usage(command) }
    }

    /// The exit code of a program in the guest.
    pub fn guest(code: u8) -> Self {
        Self { code, text: String::new(), form: Form::Silent }
    }

    /// There is no VM of that name.
    pub fn missing(name: &str) -> Self {
        Self { code: 2, ..Self::new(format!("the specified VM \"{name}\" does not exist")) }
    }

    /// The VM runs, and must not.
    pub fn running(name: &str) -> Self {
        Self::new(format!("VM \"{name}\" is running"))
    }

    /// The VM must run, and does not.
    pub fn not_running(name: &str) -> Self {
        Self { code: 2, ..Self::new(format!("VM \"{name}\" is not running")) }
    }

    /// The VM is run a second time.
    pub fn already_running(name: &str) -> Self {
        Self { code: 2, ..Self::new(format!("VM \"{name}\" is already running!")) }
    }

    /// The volume is full. Which of its errors Foundation shows, only a Mac can tell.
    pub fn disk_full(file: &str) -> Self {
        Self::foreign(format!(
            "You can’t save the file “{file}” because the volume “Macintosh HD” is out of space."
        ))
    }

    /// A failure that a test asked for.
    pub fn planted(code: u8, text: &str) -> Self {
        Self { code, ..Self::new(text) }
    }

    /// Thrown while arguments are validated: the code is 1 whatever it was, and `Error: ` is put before the text.
    pub fn in_validation(self) -> Self {
        Self { code: 1, form: Form::Prefixed, ..self }
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.form {
            Form::Bare => writeln!(f, "{}", self.text),
            Form::Prefixed => writeln!(f, "Error: {}", self.text),
            Form::Usage(command) => writeln!(
                f,
                "Error: {}\nUsage: tart {command} [<options>] ...\n  See 'tart {command} --help' for more information.",
                self.text
            ),
            Form::Silent => Ok(()),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull => Self::disk_full("disk.img"),
            io::ErrorKind::NotFound => {
                Self::foreign("The file couldn’t be opened because there is no such file.")
            }
            _ => Self::foreign(format!("The operation couldn’t be completed. ({error})")),
        }
    }
}
