//! The Docker engine is killed and frozen under load.

use std::collections::BTreeSet;
use std::time::Duration;

use harness::{Engine, PATIENCE, lab};
use serde_json::json;
use testkit::github::{DEFAULT_TOKEN, JobSpec, JobStatus, SimGithub};

use crate::account::{Witness, settle};
use crate::load::{Chance, manifest, short_or_long};

/// Jobs that are queued between two faults.
const JOBS: usize = 6;
/// Jobs that still run when the engine comes back, and how long they would.
const LONG_JOBS: usize = 2;
const LONG: Duration = Duration::from_secs(60);
/// GitHub gives up on a runner that is silent for so long. Not ten minutes, that the test may see it.
/// But long enough for an engine to come back on a busy machine: a job that GitHub gave up first is not told as lost.
const SILENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn an_engine_that_fails_loses_the_jobs_it_ran_and_no_other() {
    let rounds = short_or_long(3, 20);
    lab("engine", async |lab| {
        lab.secret("github", [("github_token", DEFAULT_TOKEN)]).await;
        let github = SimGithub::builder().small_jit().silence(SILENCE).start().await.unwrap();
        let (witness, mut chance) = (Witness::of(&github), Chance::of("engine"));
        let mut engine = Engine::start("failing", github.address()).await;
        let controller = lab.start();
        let record = lab.record("linux");
        let hosts = json!({"hosts": [{"name": "rack-1", "endpoint": engine.endpoint()}]});
        lab.apply(&manifest(&github.config_url("acme")).docker(hosts)).await;
        lab.until_is("linux", "Ready", "True", None).await;
        for _ in 0..rounds {
            github.queue_jobs(LONG_JOBS, &JobSpec::new("acme/app", ["linux"]).lasting(LONG));
            github.wait_until(PATIENCE, |s| s.jobs_in(JobStatus::Running) == LONG_JOBS).await.unwrap();
            chance.queue_jobs(&github, JOBS);
            tokio::time::sleep(chance.time(0, 2000)).await;
            engine.kill().await;
            tokio::time::sleep(chance.time(0, 2000)).await;
            engine.restart().await;

            chance.queue_jobs(&github, JOBS);
            tokio::time::sleep(chance.time(0, 2000)).await;
            engine.freeze().await;
            tokio::time::sleep(chance.time(500, 3000)).await;
            engine.thaw().await;
            github
                .wait_until(2 * PATIENCE, |s| s.jobs().all(|j| j.status == JobStatus::Completed))
                .await
                .unwrap();
        }
        let failed = settle(lab, &github, &witness, &[&engine.docker], 0).await;
        let told: BTreeSet<String> = record
            .statuses()
            .into_iter()
            .flat_map(|status| status.recent_failures)
            .filter(|failure| failure.reason == "JobLost")
            .map(|failure| failure.runner)
            .collect();
        let lost: BTreeSet<String> = github.look(|s| {
            failed.iter().map(|id| s.job(*id).unwrap().runner.as_ref().unwrap().name.clone()).collect()
        });
        assert!(lost.len() >= rounds * LONG_JOBS, "an engine that comes back ends what still runs: {lost:?}");
        println!("{} jobs were lost with their containers", lost.len());
        // Status shows the last few, which not every status written shows all of.
        assert!(
            !told.is_empty() && told.is_subset(&lost),
            "what status tells of lost jobs: {told:?} of {lost:?}"
        );
        let log = controller.log();
        let says = |line: &&str, runner: &str| line.contains(runner) && line.contains("runner failed");
        for runner in &lost {
            let said: Vec<&str> = log.lines().filter(|line| says(line, runner)).collect();
            if !said.iter().any(|line| line.contains("JobLost")) {
                println!("{runner} is told otherwise: {said:?}");
            }
        }
        let counted = controller.count(r#"paddock_runner_failures_total{reason="JobLost"}"#).await;
        assert_eq!(counted, lost.len(), "what is counted of lost jobs");
        record.assert_consistent(0, i32::try_from(crate::load::MAX_RUNNERS).unwrap());
    })
    .await;
}
