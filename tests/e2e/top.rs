//! `paddock top`, beside a controller at work.

use harness::{Lab, Manifest, PATIENCE, api_server, github, lab};
use serde_json::{Value, json};
use testkit::github::{JobSpec, JobStatus};
use tokio::process::Command;

/// What the program printed, which ended well.
async fn printed(lab: &Lab, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_paddock"));
    command
        .args(arguments)
        .arg("--kubeconfig")
        .arg(api_server::kubeconfig())
        .env("PADDOCK_NAMESPACE", &lab.namespace);
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn top_shows_each_job_with_its_runner_its_host_and_its_page() {
    lab("top", async |lab| {
        let github = github(lab).await;
        let _controller = lab.start();
        lab.apply(&Manifest::sample(&github.config_url("acme"))).await;
        github.wait_until(PATIENCE, |s| s.scale_sets().count() == 1).await.unwrap();
        let job = github.queue_job(JobSpec::new("acme/app", ["linux"]));
        github.wait_until(PATIENCE, |s| s.jobs_in(JobStatus::Running) == 1).await.unwrap();
        let set = lab.until_phases("linux", (0, 0, 1)).await;

        let run = github.look(|s| s.job(job).unwrap().run);
        let page =
            format!("{}/acme/app/actions/runs/{run}", github.config_url("acme").trim_end_matches("/acme"));
        let told = &set.status.as_ref().unwrap().runners[0];
        assert_eq!(told.job.as_ref().unwrap().url.as_deref(), Some(page.as_str()));
        let top: Value = serde_json::from_str(&printed(lab, &["top", "-o", "json"]).await).unwrap();
        let name = format!("{}/linux", lab.namespace);
        let counts = |line: &Value| json!([line["name"], line["well"], line["assignedJobs"], line["busy"]]);
        assert_eq!(counts(&top["scaleSets"][0]), json!([name, true, 1, 1]));
        assert_eq!(top["hosts"][0]["endpoint"], "unix:///var/run/docker.sock");
        let runner = &top["runners"][0];
        assert_eq!((&runner["name"], &runner["url"]), (&json!(told.name), &json!(page)));

        let text = printed(lab, &["top"]).await;
        for part in ["SCALE SET", &name, &told.name, &page, "acme/app: build"] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
        assert!(!text.contains('\u{1b}'), "nothing steers what is no terminal");
    })
    .await;
}
