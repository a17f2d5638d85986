//! README's way from a cluster and a token to the first job, typed as it stands there.

use testkit::github::{DEFAULT_TOKEN, JobStatus};

use crate::site::{PATIENCE, Site};

/// How many commands that may take.
const AT_MOST: usize = 6;

/// The commands of README's section, continuation lines joined.
fn commands() -> Vec<String> {
    let readme = include_str!("../../README.md");
    let (_, section) = readme.split_once("\n## A first scale set in a real cluster\n").unwrap();
    let block = section.split("```sh\n").nth(1).and_then(|rest| rest.split("\n```").next()).unwrap();
    block.replace("\\\n", "").lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_newcomer_has_a_first_job_after_six_commands() {
    let site = Site::new().await;
    let commands = commands();
    assert!(commands.len() <= AT_MOST, "{commands:#?}");
    let token = std::env::temp_dir().join("token.txt");
    std::fs::write(&token, DEFAULT_TOKEN).unwrap();
    let group = site.group().await;
    for command in commands {
        // What is not to be had here: the registry, ssh to the node, GitHub and its runners' image.
        let here = command
            .replace("ssh NODE stat -c %g /var/run/docker.sock", &format!("echo {group}"))
            .replace("NODE", "node")
            .replace(
                "registry.example.com/paddock",
                "paddock.test/paddock --set image.tag=1 --set policy.rules[0].insecureHttp=true",
            )
            .replace("YOUR-ORGANISATION", "acme")
            .replace("token.txt", token.to_str().unwrap())
            .replace("deploy/samples/docker.yaml", site.sample().to_str().unwrap());
        if !here.starts_with("docker build ") {
            site.sh(&here).await;
        }
    }
    let job = site.queue(1);
    site.until_jobs(PATIENCE, &job, JobStatus::Running).await;
    site.until_busy(1).await;
    site.finish(&job).await;
    site.sh("helm test paddock -n paddock").await;
    site.until(
        "kubectl -n ci get rss linux -o jsonpath='{.status.currentRunners} {.status.idleRunners}'",
        "0 0",
    )
    .await;
    site.remove_all().await;
}
