//! What the tests of the simulated Mac have in common.

use std::process::Output;
use std::time::Duration;

use testkit::tart::{IMAGE, Mac, MacBuilder};
use tokio::process::Child;

/// Long enough for a busy machine; nothing waits for it to pass.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A Mac with this build's stand-in, where `exec` tries again five times sooner than Tart does.
pub fn builder() -> MacBuilder {
    Mac::builder().tart(env!("CARGO_BIN_EXE_tart")).scenario(|s| s.exec_patience /= 5)
}

/// A Mac without sshd, which starts sooner.
pub async fn local(builder: MacBuilder) -> Mac {
    builder.local().start().await.expect("a Mac")
}

/// Exit code, standard output and standard error.
pub fn parts(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// `tart` with these arguments; gives what it says if it succeeds.
pub async fn tart(mac: &Mac, args: &[&str]) -> String {
    let (code, output, errors) = parts(&mac.tart(args).await.expect("an answer"));
    assert_eq!(code, Some(0), "tart {args:?}: {output}{errors}");
    output
}

/// `tart` with these arguments; gives its exit code and what it says if it fails.
pub async fn refused(mac: &Mac, args: &[&str]) -> (i32, String) {
    let (code, output, errors) = parts(&mac.tart(args).await.expect("an answer"));
    let code = code.expect("an exit code");
    assert_ne!(code, 0, "tart {args:?}: {output}");
    (code, errors)
}

/// Begins to run a VM.
pub fn run(mac: &Mac, vm: &str) -> Child {
    mac.command("tart").args(["run", "--no-graphics", vm]).spawn().expect("spawned")
}

/// A clone of the image that runs, with its guest agent up.
pub async fn up(mac: &Mac, vm: &str) -> Child {
    tart(mac, &["clone", IMAGE, vm]).await;
    let process = run(mac, vm);
    mac.wait_until(PATIENCE, |mac| is_running(mac, vm)).await.expect("running");
    tart(mac, &["exec", vm, "true"]).await;
    process
}

/// Whether a VM runs.
pub fn is_running(mac: &Mac, vm: &str) -> bool {
    mac.running().is_ok_and(|running| running.iter().any(|name| name == vm))
}

/// The exit code of a process that ends.
pub async fn end(mut process: Child) -> Option<i32> {
    let end = tokio::time::timeout(PATIENCE, process.wait()).await;
    end.expect("in time").expect("an end").code()
}
