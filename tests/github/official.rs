//! The simulated GitHub as GitHub's own client sees it: `github.com/actions/scaleset` as it is, in a small Go program.
//! What our client and the simulation could be wrong about together, a client that GitHub wrote would not be.

use std::process::Stdio;
use std::time::Duration;

use testkit::github::{DEFAULT_TOKEN, Model, SimGithub, SimGithubBuilder};
use tokio::process::Command;
use tokio::sync::OnceCell;

/// The program, built once.
async fn program() -> &'static str {
    static BUILT: OnceCell<String> = OnceCell::const_new();
    let build = async || {
        let build = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/github/official/build");
        let output = Command::new(build).output().await.unwrap();
        assert!(output.status.success(), "{build}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    BUILT.get_or_init(build).await
}

fn github() -> SimGithubBuilder {
    SimGithub::builder().long_poll(Duration::from_secs(1)).runner_group("R&D big iron")
}

/// Has the program do its work; what it says becomes the test's failure.
async fn run(github: &SimGithub, arguments: &[&str]) {
    let (url, control) = (github.config_url("acme"), format!("{}/_control", github.url()));
    let program = Command::new(program().await)
        .args(["-url", &url, "-control", &control, "-token", DEFAULT_TOKEN])
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = program.await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn the_official_client_lives_a_whole_life_with_assigned_jobs() {
    let github = github().model(Model::Broker).start().await.unwrap();
    run(&github, &["-model", "broker"]).await;
    assert_eq!(github.look(|s| s.scale_sets().count()), 0);
}

#[tokio::test]
async fn the_official_client_lives_a_whole_life_with_offered_jobs() {
    let github = github().model(Model::Ghes).start().await.unwrap();
    run(&github, &["-model", "ghes"]).await;
    assert_eq!(github.look(|s| s.scale_sets().count()), 0);
}

#[tokio::test]
async fn the_official_client_reads_the_expiry_of_an_admin_token() {
    let github = github().admin_token_ttl(Duration::from_secs(30)).start().await.unwrap();
    run(&github, &["-only", "renewal"]).await;
}

#[tokio::test]
async fn the_official_client_reads_answers_behind_a_byte_order_mark() {
    let github = github().byte_order_mark().start().await.unwrap();
    run(&github, &["-model", "broker"]).await;
}
