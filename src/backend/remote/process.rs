//! The process that runs a script, here or on another host.

use super::failure::Failure;
use super::local::LocalProcess;
use super::script::Part;
use super::ssh::SshProcess;

/// A script that runs. Dropped before its end, it is ended.
pub(super) enum Process {
    Local(Box<LocalProcess>),
    Ssh(SshProcess),
}

impl Process {
    /// The next part; none when the connection ended before the script did.
    pub(super) async fn next(&mut self) -> Result<Option<Part>, Failure> {
        match self {
            Process::Local(process) => process.next().await.map(Some),
            Process::Ssh(process) => Ok(process.next().await),
        }
    }

    /// Notes that there is nothing to be ended any more.
    pub(super) fn ended(&mut self) {
        match self {
            Process::Local(process) => process.ended(),
            Process::Ssh(process) => process.ended(),
        }
    }
}
