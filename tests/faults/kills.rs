//! The controller is killed at random moments under a stream of jobs.

use crate::account::{Witness, assert_timeline, settle};
use crate::harness::{github, lab};
use crate::load::{Chance, manifest, short_or_long};

/// Jobs that are queued between two kills.
const JOBS: usize = 5;

#[tokio::test]
async fn kills_at_random_moments_cost_no_job() {
    let kills = short_or_long(10, 100);
    lab("kills", async |lab| {
        let github = github(lab).await;
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
