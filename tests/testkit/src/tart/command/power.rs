//! What speaks to a `tart run`: `stop` and `suspend`.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use super::super::failure::Failure;
use super::super::lock::Holder;
use super::super::vm::VmState;
use super::args::{Context, StopArgs};

pub(super) fn stop(context: &Context, args: &StopArgs) -> Result<(), Failure> {
    let vm = context.home.open_vm(&args.name)?;
    match vm.state()? {
        VmState::Suspended => Ok(std::fs::remove_file(vm.state_path())?),
        VmState::Stopped => Err(Failure::not_running(&args.name)),
        VmState::Running => {
            let pid = process(vm.holder()?, &args.name)?;
            // That it is just ending is no failure.
            let _ = kill_process(pid, Signal::INT);
            if ends_within(pid, Duration::from_secs(args.timeout))? {
                return Ok(());
            }
            kill_process(pid, Signal::KILL).map_err(|error| {
                Failure::new(format!("failed to forcefully terminate the VM \"{}\": {error}", args.name))
            })
        }
    }
}

pub(super) fn suspend(context: &Context, name: &str) -> Result<(), Failure> {
    let vm = context.home.open_vm(name)?;
    let pid = process(vm.holder()?, name)?;
    kill_process(pid, Signal::USR1).map_err(|_| {
        Failure::new(format!(
            "Failed to suspend the VM: failed to send SIGUSR1 signal to the \"tart run\" process running VM \"{name}\""
        ))
    })
}

fn process(holder: Holder, name: &str) -> Result<Pid, Failure> {
    match holder {
        Holder::Nobody => Err(Failure::not_running(name)),
        Holder::Process(pid) => Ok(pid),
        Holder::Unseen => Err(Failure::new("the stand-in's VM runs on another host than this command")),
    }
}

fn ends_within(pid: Pid, time: Duration) -> Result<bool, Failure> {
    let until = Instant::now() + time;
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(rustix::io::Errno::SRCH) => return Ok(true),
        Err(error) => return Err(std::io::Error::from(error).into()),
    };
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(std::io::Error::other)?;
        match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&left)) {
            Ok(ended) => return Ok(ended > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(std::io::Error::from(error).into()),
        }
    }
}
