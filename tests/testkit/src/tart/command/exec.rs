//! `exec`: runs a program in a guest.

use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::process::{Signal, getpid, kill_process};

use super::super::failure::Failure;
use super::super::guest::{Frame, Request, ask, read_frame, write_frame};
use super::super::vm::VmDir;
use super::args::Context;

/// When Tart tries to reach a guest agent, in thousandths of its patience of 30 s.
const TRIES: [u32; 7] = [0, 33, 87, 173, 310, 530, 880];

/// The arguments: flags, a name, and whatever follows as it is.
pub(super) struct Exec {
    interactive: bool,
    terminal: bool,
    name: String,
    command: Vec<String>,
}

impl Exec {
    pub fn parse(args: &[String]) -> Result<Self, Failure> {
        let flags = args.iter().take_while(|arg| arg.starts_with('-')).count();
        let mut exec = Self { interactive: false, terminal: false, name: String::new(), command: Vec::new() };
        for flag in &args[..flags] {
            match flag.as_str() {
                "-i" => exec.interactive = true,
                "-t" => exec.terminal = true,
                "-it" | "-ti" => (exec.interactive, exec.terminal) = (true, true),
                _ => return Err(Failure::usage("exec", format!("Unknown option '{flag}'"))),
            }
        }
        let [name, command @ ..] = &args[flags..] else {
            return Err(Failure::usage("exec", "Missing expected argument '<name>'"));
        };
        if command.is_empty() {
            return Err(Failure::usage("exec", "Missing expected argument '<command> ...'"));
        }
        Ok(Self { name: name.clone(), command: command.to_vec(), ..exec })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn run(self, context: &Context) -> Result<(), Failure> {
        context.home.collect_garbage()?;
        let vm = context.home.open_vm(&self.name)?;
        if !vm.running()? {
            return Err(Failure::not_running(&self.name));
        }
        if self.terminal && !io::stdin().is_terminal() {
            eprintln!("Fatal error: 'try!' expression unexpectedly raised an error");
            kill_process(getpid(), Signal::TRAP).map_err(io::Error::from)?;
        }
        let request = Request { command: self.command, interactive: self.interactive };
        let stream = reach(&vm, &request, context.scenario.exec_patience)?;
        if request.interactive {
            let input = stream.try_clone()?;
            std::thread::spawn(move || send_input(input));
        }
        receive(stream)
    }
}

fn reach(vm: &VmDir, request: &Request, patience: Duration) -> Result<UnixStream, Failure> {
    let begin = Instant::now();
    for due in TRIES {
        std::thread::sleep((patience * due / 1000).saturating_sub(begin.elapsed()));
        if let Some(stream) = ask(vm, request)? {
            return Ok(stream);
        }
    }
    std::thread::sleep(patience.saturating_sub(begin.elapsed()));
    Err(Failure::new(
        "Failed to connect to the VM using its control socket: The operation couldn’t be completed. \
         (GRPC.GRPCConnectionPoolError error 1.), is the Tart Guest Agent running?",
    ))
}

fn send_input(mut to: UnixStream) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let mut input = io::stdin().lock();
    loop {
        let count = input.read(&mut buffer)?;
        write_frame(&mut to, &Frame::Input(buffer[..count].to_vec()))?;
        if count == 0 {
            return Ok(());
        }
    }
}

fn receive(mut from: UnixStream) -> Result<(), Failure> {
    loop {
        match read_frame(&mut from) {
            Ok(Some(Frame::Output(bytes))) => {
                io::stdout().write_all(&bytes)?;
                io::stdout().flush()?;
            }
            Ok(Some(Frame::Error(bytes))) => io::stderr().write_all(&bytes)?,
            Ok(Some(Frame::Exit(0))) => return Ok(()),
            Ok(Some(Frame::Exit(code))) => return Err(Failure::guest(code)),
            Ok(Some(Frame::Refused(text))) => return Err(Failure::foreign(text)),
            Ok(Some(_)) => {}
            // The guest is gone.
            Ok(None) | Err(_) => return Err(Failure::foreign("unavailable (14): Transport became inactive")),
        }
    }
}
