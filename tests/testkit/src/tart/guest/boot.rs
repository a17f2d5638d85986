//! Starts a guest, and is its power switch.

use std::io;
use std::process::Stdio;

use tokio::process::{Child, ChildStdin, Command};

use super::super::vm::VmDir;
use super::PROGRAMS;

/// A guest that is up. Its processes end when it is dropped, or the process that holds it is killed.
pub(in super::super) struct Boot {
    /// The guest lives as long as nobody closes this.
    power: Option<ChildStdin>,
    process: Child,
}

/// Starts the guest of a VM. To be called in the main thread, as the guest ends with the thread that started it.
pub(in super::super) fn boot(vm: &VmDir) -> io::Result<Boot> {
    let mut command = Command::new("/usr/bin/setpriv");
    command.args(["--pdeathsig", "KILL", "--", "/usr/bin/unshare"]);
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--pid", "--mount", "--fork", "--kill-child", "--propagation", "private", "--"]);
    command.args(["/bin/sh", "-c", include_str!("boot.sh"), "boot"]);
    command.arg(vm.guest_path()).arg(std::env::current_exe()?).args(PROGRAMS);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).kill_on_drop(true);
    let mut process = command.spawn()?;
    Ok(Boot { power: process.stdin.take(), process })
}

impl Boot {
    /// Waits until the guest has switched itself off.
    pub async fn ended(&mut self) -> io::Result<()> {
        self.process.wait().await.map(drop)
    }

    /// Cuts the power, and waits until no process of the guest is left.
    pub async fn cut(mut self) -> io::Result<()> {
        drop(self.power.take());
        self.ended().await
    }
}
