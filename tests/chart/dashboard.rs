//! The dashboard before a Prometheus that scrapes the program at work: no panel is empty.

use std::env;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use harness::{Engine, Lab, Manifest, PATIENCE, eventually, github, lab};
use serde_json::{Value, json};
use testkit::github::{JobSpec, JobStatus, SimGithub};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A Prometheus; it ends with this.
struct Prometheus {
    _server: Child,
    url: String,
}

impl Prometheus {
    /// One that scrapes the target every second, with its files in the folder.
    async fn start(folder: &Path, target: SocketAddr) -> Prometheus {
        let config = json!({
            "global": {"scrape_interval": "1s"},
            "scrape_configs": [{
                "job_name": "paddock",
                "static_configs": [{"targets": [target.to_string()]}],
                // In place of the socket in the folder of this run.
                "metric_relabel_configs": [{
                    "source_labels": ["host"],
                    "regex": "unix://.*",
                    "target_label": "host",
                    "replacement": "unix:///var/run/docker.sock",
                }],
            }],
        });
        fs::write(folder.join("prometheus.yml"), config.to_string()).unwrap();
        let mut server = Command::new(format!("{ROOT}/.cache/bin/prometheus"))
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=series"])
            .arg("--web.listen-address=127.0.0.1:0")
            .current_dir(folder)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(server.stderr.take().unwrap()).lines();
        let address = loop {
            let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap();
            let line = line.expect("an address before the end");
            if let Some((_, address)) = line.split_once("msg=\"Listening on\" address=") {
                break address.to_owned();
            }
        };
        // Read on, lest it blocks on what it has to say.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Prometheus { _server: server, url: format!("http://{address}") }
    }

    /// Whether a panel shows something for this expression.
    async fn shows(&self, expression: &str) -> bool {
        let question = reqwest::Client::new()
            .post(format!("{}/api/v1/query", self.url))
            .header("Content-Type", "application/x-www-form-urlencoded");
        let escaped: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = question.body(format!("query={escaped}")).send().await.unwrap().text().await.unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let series = answer["data"]["result"].as_array().unwrap_or_else(|| panic!("{expression}: {answer}"));
        series.iter().any(|one| one["value"][1] != "NaN")
    }
}

/// The expressions of all panels, as Grafana asks them where no variable is narrowed.
fn expressions() -> Vec<String> {
    let dashboard = fs::read_to_string(format!("{ROOT}/charts/paddock/files/dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let targets =
        dashboard["panels"].as_array().unwrap().iter().flat_map(|p| p["targets"].as_array().unwrap());
    let asked = |target: &Value| {
        let expression = target["expr"].as_str().unwrap().replace("$__rate_interval", "5m");
        let expression = expression.replace("$namespace", ".*").replace("$name", ".*");
        assert!(!expression.contains('$'), "{expression}");
        expression
    };
    targets.map(asked).collect()
}

/// Gives the engine something to clean up: an image that nobody uses.
async fn import_image(lab: &Lab, engine: &Engine) {
    let archive = lab.folder().join("image.tar");
    let tar = Command::new("tar").args(["-C", "/bin", "-chf"]).arg(&archive).arg("bash").status();
    assert!(tar.await.unwrap().success());
    let import = Command::new("docker").args(["--host", engine.endpoint(), "import"]).arg(&archive).output();
    assert!(import.await.unwrap().status.success());
}

async fn run_jobs(github: &SimGithub, count: usize, each: Duration) {
    let done = github.look(|s| s.jobs_in(JobStatus::Completed)) + count;
    github.queue_jobs(count, &JobSpec::new("acme/app", ["linux"]).lasting(each));
    github.wait_until(PATIENCE * 2, |s| s.jobs_in(JobStatus::Completed) == done).await.unwrap();
}

#[tokio::test]
async fn no_panel_of_the_dashboard_is_empty() {
    lab("dashboard", async |lab| {
        let github = github(lab).await;
        let engine = Engine::start("dashboard-host", github.address()).await;
        import_image(lab, &engine).await;
        let controller = lab.start();
        let prometheus = Prometheus::start(lab.folder(), controller.address().await).await;
        let manifest = Manifest::sample(&github.config_url("acme"))
            .spec(json!({"minRunners": 1, "scaleDown": {"delay": "0s"}}))
            .docker(json!({
                "hosts": [{"name": "rack", "endpoint": engine.endpoint(), "maxRunners": 8}],
                "housekeeping": {"interval": "1s", "images": {"enabled": true}},
            }));
        lab.apply(&manifest).await;
        lab.until_phases("linux", (0, 1, 0)).await;
        // A rate needs a count and a higher one: the second jobs come once the first were seen.
        run_jobs(&github, 3, Duration::from_millis(500)).await;
        eventually("the first jobs are seen", PATIENCE, async || {
            prometheus.shows("sum(gha_completed_jobs_total) == 3").await.then_some(())
        })
        .await;
        run_jobs(&github, 3, Duration::from_millis(500)).await;
        lab.scale("linux", 0).await;
        let broken = json!({"command": ["/bin/sh", "-c", "exit 1"]});
        lab.apply(&manifest.clone().named("broken").docker(broken)).await;

        let expressions = expressions();
        let mut told = Vec::new();
        eventually("no panel is empty", PATIENCE * 2, async || {
            let mut empty = Vec::new();
            for expression in &expressions {
                if !prometheus.shows(expression).await {
                    empty.push(expression.clone());
                }
            }
            if empty != told {
                println!("empty: {empty:#?}");
                told.clone_from(&empty);
            }
            empty.is_empty().then_some(())
        })
        .await;

        // `make picture` asks for this.
        if let Ok(picture) = env::var("PADDOCK_DASHBOARD_PICTURE") {
            let rounds =
                [(7, 4, 3), (1, 6, 0), (12, 3, 2), (5, 6, 2), (1, 4, 0), (14, 2, 4), (1, 8, 0), (6, 5, 1)];
            for (jobs, seconds, idle) in rounds {
                import_image(lab, &engine).await;
                lab.scale("linux", idle).await;
                run_jobs(&github, jobs, Duration::from_secs(seconds)).await;
            }
            let mut draw = Command::new(format!("{ROOT}/tests/chart/picture/draw"));
            assert!(draw.args([&prometheus.url, &picture]).status().await.unwrap().success());
        }
    })
    .await;
}
