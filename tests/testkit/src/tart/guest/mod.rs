//! The guest: a tree of real processes with a file tree of its own, in namespaces that end with the `tart run` that started
//! them. Its first process is the guest agent, which runs what `tart exec` asks for.
//!
//! What a guest of the stand-in is not: it has the host's kernel, network and Linux programs, of which it sees those that a
//! Mac has too. Only what is below `/Users` stays when it stops, and nothing but files comes back after a suspension. The host
//! of a real VM does not see the processes in it; this one does.

mod agent;
mod boot;
mod wire;

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

pub(super) use agent::{ROLE, serve};
pub(super) use boot::{Boot, boot};
pub(super) use wire::{Frame, Request, read_frame, write_frame};

use super::vm::VmDir;

/// Programs of Linux that stand for those of a Mac, in a guest and on a host. `timeout`, `setsid` and `flock` are not among
/// them.
pub(super) const PROGRAMS: &[&str] = &[
    "awk", "base64", "basename", "bash", "cat", "chmod", "chown", "cmp", "cp", "cut", "date", "dd", "df",
    "diff", "dirname", "du", "echo", "env", "expr", "false", "file", "find", "grep", "groups", "gzip",
    "head", "hostname", "id", "install", "kill", "ln", "ls", "mkdir", "mkfifo", "mktemp", "mv", "nice",
    "nohup", "od", "perl", "pgrep", "pkill", "printf", "ps", "pwd", "readlink", "rm", "rmdir", "sed", "seq",
    "sh", "sleep", "sort", "split", "stat", "stty", "tail", "tar", "tee", "test", "touch", "tr", "true",
    "tty", "uname", "uniq", "wc", "which", "whoami", "xargs", "yes",
];

/// Opens the control socket of a VM, by a short name from within its folder as Tart does. A path in which a URL would need
/// escapes is one that Tart does not find.
pub(super) fn connect(vm: &VmDir) -> io::Result<UnixStream> {
    let path = vm.path().to_string_lossy();
    if !path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&byte)) {
        return Err(io::ErrorKind::NotFound.into());
    }
    std::env::set_current_dir(vm.path())?;
    UnixStream::connect(Path::new("control.sock"))
}

/// Asks a guest agent for a program and waits until it says that it is there. `None`: it does not answer yet.
pub(super) fn ask(vm: &VmDir, request: &Request) -> io::Result<Option<UnixStream>> {
    let Ok(mut stream) = connect(vm) else { return Ok(None) };
    let asked = serde_json::to_vec(request)?;
    let hello = write_frame(&mut stream, &Frame::Request(asked)).and_then(|()| stream.flush());
    match hello.and_then(|()| read_frame(&mut stream)) {
        Ok(Some(Frame::Hello)) => Ok(Some(stream)),
        _ => Ok(None),
    }
}

/// Whether the guest agent of a VM answers.
pub(super) fn answers(vm: &VmDir) -> bool {
    let request = Request { command: vec!["true".to_owned()], interactive: false };
    matches!(ask(vm, &request), Ok(Some(_)))
}
