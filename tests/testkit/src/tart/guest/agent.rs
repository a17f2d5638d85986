//! The guest agent: the first process in a guest.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::super::reaper::Reaper;
use super::wire::{Frame, Request, receive, send};

/// The argument by which the stand-in knows that it is in a guest.
pub(in super::super) const ROLE: &str = "__guest";
/// Where `tart run` finds the agent, as seen from within.
const SOCKET: &str = "/.host/agent.sock";

/// Serves until the power is cut (its standard input ends) or the guest is shut down (TERM).
pub(in super::super) fn serve() -> ExitCode {
    // A thread of its own: the end of the power must not wait for anything.
    std::thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(accept())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guest agent: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn accept() -> io::Result<()> {
    let reaper = Reaper::start()?;
    let mut shut_down = signal(SignalKind::terminate())?;
    let _ = std::fs::remove_file(SOCKET);
    let listener = UnixListener::bind(SOCKET)?;
    loop {
        tokio::select! {
            connection = listener.accept() => {
                let reaper = reaper.clone();
                tokio::spawn(async move { serve_one(connection?.0, &reaper).await });
            }
            _ = shut_down.recv() => return Ok(()),
        }
    }
}

async fn serve_one(stream: UnixStream, reaper: &Reaper) -> io::Result<()> {
    let (mut from, mut to) = stream.into_split();
    let Some(Frame::Request(text)) = receive(&mut from).await? else { return Ok(()) };
    let request: Request = serde_json::from_slice(&text)?;
    send(&mut to, &Frame::Hello).await?;
    let Some((name, args)) = request.command.split_first() else { return Ok(()) };
    let mut command = Command::new(name);
    command.args(args).current_dir("/").process_group(0);
    command.stdin(if request.interactive { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let (mut child, end) = match reaper.spawn(&mut command) {
        Ok(started) => started,
        Err(error) => {
            return send(&mut to, &Frame::Refused(refusal(name, &error))).await;
        }
    };
    let pid = Pid::from_raw(child.id().cast_signed());
    let input = child.stdin.take().map(ChildStdin::from_std).transpose()?;
    let (frames, outgoing) = mpsc::channel(16);
    let output = child.stdout.take().map(ChildStdout::from_std).transpose()?;
    let errors = child.stderr.take().map(ChildStderr::from_std).transpose()?;
    tokio::spawn(forward(output, Frame::Output, frames.clone()));
    tokio::spawn(forward(errors, Frame::Error, frames));
    let mut writer = tokio::spawn(write(outgoing, to));
    tokio::select! {
        // Everyone who had the output has closed it.
        written = &mut writer => {
            let code = end.await.unwrap_or(255);
            send(&mut written.map_err(io::Error::other)??, &Frame::Exit(code)).await
        }
        // The client is gone: that one process goes, and nothing that it started.
        () = feed(from, input) => {
            writer.abort();
            // It may have ended by itself.
            let _ = pid.map(|pid| kill_process(pid, Signal::KILL));
            Ok(())
        }
    }
}

fn refusal(name: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound if !name.contains('/') => {
            format!("unknown (2): exec: \"{name}\": executable file not found in $PATH")
        }
        io::ErrorKind::NotFound => format!("unknown (2): fork/exec {name}: no such file or directory"),
        io::ErrorKind::PermissionDenied => format!("unknown (2): fork/exec {name}: permission denied"),
        _ => format!("unknown (2): fork/exec {name}: {error}"),
    }
}

/// Hands on an output until it is closed or nobody wants it any more.
async fn forward(
    from: Option<impl AsyncRead + Unpin>,
    frame: impl Fn(Vec<u8>) -> Frame,
    to: mpsc::Sender<Frame>,
) {
    let Some(mut from) = from else { return };
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count) = from.read(&mut buffer).await {
        if count == 0 || to.send(frame(buffer[..count].to_vec())).await.is_err() {
            return;
        }
    }
}

/// Writes frames as they come. Gives the way to the client back when no more will come.
async fn write(mut frames: mpsc::Receiver<Frame>, mut to: OwnedWriteHalf) -> io::Result<OwnedWriteHalf> {
    while let Some(frame) = frames.recv().await {
        send(&mut to, &frame).await?;
    }
    Ok(to)
}

/// Hands the client's input to the program. Returns when the client is gone.
async fn feed(mut from: OwnedReadHalf, mut input: Option<ChildStdin>) {
    while let Ok(Some(frame)) = receive(&mut from).await {
        let Frame::Input(bytes) = frame else { continue };
        if bytes.is_empty() {
            input = None;
        } else if let Some(pipe) = &mut input
            && pipe.write_all(&bytes).await.is_err()
        {
            // The program reads no more.
            input = None;
        }
    }
}
