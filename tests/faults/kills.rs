//! The controller is killed at random moments under a stream of jobs.

use std::time::Duration;

use harness::lab;
use testkit::github::{DEFAULT_TOKEN, SimGithub};

use crate::account::{Witness, assert_timeline, settle};
use crate::load::{Chance, manifest, short_or_long};

/// Jobs that are queued between two kills.
const JOBS: usize = 5;
/// A controller that is killed in the moment between a session's opening and its being written down leaves one that
/// nobody knows: GitHub lets it lapse.
const SESSION_LAPSE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn kills_at_random_moments_cost_no_job() {
    let kills = short_or_long(10, 100);
    lab("kills", async |lab| {
        lab.secret("github", [("github_token", DEFAULT_TOKEN)]).await;
        let github = SimGithub::builder().small_jit().session_lapse(SESSION_LAPSE).start().await.unwrap();
        let (witness, mut chance) = (Witness::of(&github), Chance::of("kills"));
        let mut controller = lab.start();
        lab.apply(&manifest(&github.config_url("acme"))).await;
        lab.until_is("linux", "Ready", "True", None).await;
        for _ in 0..kills {
            chance.queue_jobs(&github, JOBS);
            tokio::time::sleep(chance.time(0, 2500)).await;
            controller.kill().await;
            controller = lab.start();
        }
        let failed = settle(lab, &github, &witness, &[&lab.docker], kills).await;
        assert!(failed.is_empty(), "lost: {failed:?}");
        assert_timeline(lab, &github);
    })
    .await;
}
