//! Programs of the testkit that stand in for others, where a test runs without them having been built.

use std::path::PathBuf;

use tokio::process::Command;
use tokio::sync::Mutex;

/// The stand-in for Tart. Building it takes minutes where it is not there, as its dependencies are compiled with it.
pub async fn tart() -> PathBuf {
    let program = beside_the_test("tart");
    if program.exists() { program } else { built("testkit", "tart").await }
}

/// The stand-in for GitHub's runner, as its sources are now.
pub async fn fake_runner() -> PathBuf {
    built("fake-runner", "fake-runner").await
}

fn beside_the_test(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().find(|folder| folder.join("deps").is_dir()).unwrap().join(name)
}

async fn built(package: &str, name: &str) -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
    let _turn = ONE_AT_A_TIME.lock().await;
    let program = beside_the_test(name);
    let released = program.parent().is_some_and(|folder| folder.ends_with("release"));
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--quiet", "--package", package, "--bin", name]);
    cargo.args(released.then_some("--release"));
    assert!(cargo.status().await.unwrap().success(), "{name} cannot be built");
    program
}
