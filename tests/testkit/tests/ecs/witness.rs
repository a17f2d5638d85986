//! boto3, the official client, and moto, another who says how ECS answers. `tests/ecs/python` installs both.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};

use crate::PATIENCE;

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ecs")
}

/// The folder of the witnesses' programs.
async fn programs() -> PathBuf {
    let output = Command::new(here().join("python")).stderr(Stdio::inherit()).output().await.expect("bash");
    assert!(output.status.success(), "tests/testkit/tests/ecs/python says what is missing");
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}

/// Waits for a line with a URL.
async fn announced(output: impl AsyncRead + Unpin) -> String {
    let mut lines = BufReader::new(output).lines();
    let url = async {
        loop {
            let line = lines.next_line().await.expect("readable").expect("a URL before the end");
            if let Some(start) = line.find("http://") {
                let rest = &line[start..];
                return rest.split_whitespace().next().unwrap_or(rest).to_owned();
            }
        }
    };
    tokio::time::timeout(PATIENCE, url).await.expect("in time")
}

async fn simulation(arguments: &[&str]) -> (Child, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sim-ecs"));
    let mut process =
        command.args(arguments).stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("spawned");
    let url = announced(process.stdout.take().expect("its output")).await;
    (process, url)
}

/// Runs a script; what it printed, when it came to a good end.
async fn play(programs: &Path, script: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(programs.join("python"));
    command.arg("-B").arg(here().join(script)).args(arguments).kill_on_drop(true);
    // A proxy or a profile of whoever runs the tests is none of the scripts' business.
    for variable in
        ["HTTP_PROXY", "http_proxy", "AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"]
    {
        command.env_remove(variable);
    }
    let Output { status, stdout, stderr } = command.output().await.expect("run");
    let output = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{script}:\n{output}");
    output
}

#[tokio::test]
async fn boto3_goes_through_the_whole_surface() {
    let programs = programs().await;
    let (_process, url) =
        simulation(&["--delay-ms", "20", "--lag-ms", "0", "--stop-timeout-ms", "1000"]).await;
    println!("{}", play(&programs, "surface.py", &[&url]).await);
}

#[tokio::test]
async fn the_happy_path_comes_out_as_documented() {
    let programs = programs().await;
    let (_process, url) = simulation(&["--delay-ms", "20", "--lag-ms", "100"]).await;
    play(&programs, "happy.py", &[&url, "documented"]).await;
}

#[tokio::test]
async fn the_happy_path_comes_out_of_moto_but_for_what_the_table_says() {
    let programs = programs().await;
    let mut command = Command::new(programs.join("python"));
    command.args(["-u".as_ref(), programs.join("moto_server").as_os_str()]).args([
        "-H",
        "127.0.0.1",
        "-p",
        "0",
    ]);
    let mut moto =
        command.stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true).spawn().expect("spawned");
    let mut errors = moto.stderr.take().expect("its output");
    let url = announced(&mut errors).await;
    // Read on, lest the server blocks on what it has to say.
    let drained = tokio::spawn(async move { tokio::io::copy(&mut errors, &mut tokio::io::sink()).await });
    println!("{}", play(&programs, "happy.py", &[&url, "moto"]).await);
    drained.abort();
}
