//! Scripts on this machine.

use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use super::failure::Failure;
use super::script::{Part, Script};
use crate::cause;

/// What is read at once.
const BUFFER: usize = 16 << 10;

/// A script that runs on this machine, in a process group of its own.
pub(super) struct LocalProcess {
    child: Child,
    output: Option<tokio::process::ChildStdout>,
    errors: Option<tokio::process::ChildStderr>,
    group: Option<Pid>,
}

/// Begins to run a script.
pub(super) async fn begin(script: &Script) -> Result<LocalProcess, Failure> {
    let refused = |error: std::io::Error| Failure::Refused(cause::innermost(&error));
    let words = script.words();
    let (program, arguments) =
        words.split_first().ok_or_else(|| Failure::Refused("no program".to_owned()))?;
    let mut command = Command::new(program);
    command.args(arguments).process_group(0).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(refused)?;
    let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let mut process = LocalProcess { output: child.stdout.take(), errors: child.stderr.take(), group, child };
    if let Some(mut input) = process.child.stdin.take() {
        let bytes = script.input.clone();
        // It may end without having read all of it.
        tokio::spawn(async move {
            let _ = input.write_all(&bytes).await;
        });
    }
    Ok(process)
}

impl LocalProcess {
    pub(super) async fn next(&mut self) -> Result<Part, Failure> {
        let lost = |error: std::io::Error| Failure::Disconnected(cause::innermost(&error));
        loop {
            let (mut output, mut errors) = ([0; BUFFER], [0; BUFFER]);
            tokio::select! {
                count = read(&mut self.output, &mut output), if self.output.is_some() => {
                    match count.map_err(lost)? {
                        0 => self.output = None,
                        count => return Ok(Part::Output(output[..count].to_vec())),
                    }
                }
                count = read(&mut self.errors, &mut errors), if self.errors.is_some() => {
                    match count.map_err(lost)? {
                        0 => self.errors = None,
                        count => return Ok(Part::Error(errors[..count].to_vec())),
                    }
                }
                status = self.child.wait(), if self.output.is_none() && self.errors.is_none() => {
                    let code = status.map_err(lost)?.code();
                    return Ok(Part::Exit(code.map(i32::cast_unsigned)));
                }
            }
        }
    }

    pub(super) fn ended(&mut self) {
        self.group = None;
    }
}

async fn read(from: &mut Option<impl AsyncRead + Unpin>, buffer: &mut [u8]) -> std::io::Result<usize> {
    match from {
        Some(from) => from.read(buffer).await,
        None => Ok(0),
    }
}

impl Drop for LocalProcess {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            // It may have ended meanwhile.
            let _ = kill_process_group(group, Signal::TERM);
        }
    }
}
