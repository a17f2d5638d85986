//! The same against a GitHub that others wrote: the emulator of the crate `scaleset`.

use std::time::Duration;

use harness::{Manifest, PATIENCE, lab};
use scaleset::testing::{DEFAULT_PAT, Emulator, JobState};
use serde_json::json;

#[tokio::test]
async fn jobs_run_against_the_scaleset_crate_s_emulator() {
    lab("emulator", async |lab| {
        let emulator = Emulator::builder().long_poll(Duration::from_secs(10)).start().await;
        lab.secret("github", [("github_token", DEFAULT_PAT)]).await;
        let _controller = lab.start();
        let record = lab.record("linux");
        // The emulator has no place for runners to call: the test plays their part at GitHub, and they just run.
        let manifest = Manifest::sample(&emulator.config_url())
            .spec(json!({"labels": ["x64"]}))
            .docker(json!({"command": ["/bin/sleep", "600"]}));
        lab.apply(&manifest).await;
        lab.until_is("linux", "Ready", "True", None).await;
        let set = emulator.state().scale_sets[0].clone();
        assert_eq!(set.name, "linux");
        let labels: Vec<&str> = set.labels.iter().map(|l| l.name.as_str()).collect();
        assert_eq!(labels, ["linux", "x64"]);

        let jobs = [(); 3].map(|()| emulator.queue_job(set.id, ["linux"]));
        emulator
            .wait_until(PATIENCE, |s| {
                s.runners.len() == 3 && s.jobs.iter().all(|j| j.state == JobState::Assigned)
            })
            .await;
        lab.until_phases("linux", (0, 3, 0)).await;
        let containers = lab.containers().await;
        assert_eq!(containers.len(), 3);
        for (job, runner) in jobs.iter().zip(containers.keys()) {
            emulator.start_job(*job, Some(runner));
        }
        lab.until_phases("linux", (0, 0, 3)).await;
        for (job, container) in jobs.iter().zip(containers.values()) {
            emulator.complete_job(*job, None);
            lab.kill_container(container).await;
        }
        lab.until_phases("linux", (0, 0, 0)).await;
        assert_eq!(lab.timeline.count("create"), 3);
        record.assert_consistent(0, 10);

        lab.delete("linux").await;
        lab.until_gone("linux", PATIENCE).await;
        let end = emulator.state();
        assert!(end.scale_sets.is_empty() && end.sessions.is_empty() && end.runners.is_empty());
        assert_eq!(lab.containers().await.len(), 0);
    })
    .await;
}
