//! One tenant's GitHub lies, in each part that an answer has; nine others' jobs wait for nothing.

use std::time::Duration;

use harness::{Manifest, PATIENCE, github, lab};
use testkit::github::{JobResult, JobSpec, JobStatus, SimGithub};
use testkit::lies::LyingGithub;
use tokio::time::Instant;

use crate::memory;

/// How many lies are told where `PADDOCK_LIES` does not say. Who is lied to asks again after a pause, so that a lie takes some
/// seconds: thousands are for more scale sets (`PADDOCK_LIED_TO`) at once.
const LIES: usize = 25;
/// Polls of the liar come this often.
const POLL: Duration = Duration::from_millis(50);
/// A controller of ten scale sets has no more memory than this, in bytes.
const MEMORY: usize = 128 << 20;

#[tokio::test]
async fn nine_scale_sets_do_not_notice_that_the_github_of_a_tenth_lies() {
    lab("lies", async |lab| {
        let github = github(lab).await;
        let lying = LyingGithub::start(SimGithub::builder().small_jit().long_poll(POLL), 1).await.unwrap();
        let controller = lab.start_at_level("info");
        for n in 1..10 {
            lab.apply(&Manifest::sample(&github.config_url("acme")).named(&format!("honest-{n}"))).await;
        }
        let lied_to = number("PADDOCK_LIED_TO", 1);
        for n in 0..lied_to {
            lab.apply(&Manifest::sample(&lying.github.config_url("acme")).named(&format!("lied-to-{n}")))
                .await;
        }
        github.wait_until(PATIENCE, |state| state.scale_sets().count() == 9).await.unwrap();
        let lies = number("PADDOCK_LIES", LIES);
        let began = Instant::now();
        let (mut rounds, mut worst) = (0, Duration::ZERO);
        while rounds < 9 || lying.told() < lies {
            // A set that gave up its GitHub would be lied to no more.
            let patience = PATIENCE / 4 * u32::try_from(lies).unwrap();
            assert!(began.elapsed() < patience, "{} lies are told", lying.told());
            if lying.github.look(|state| state.jobs().all(|job| job.status == JobStatus::Completed)) {
                for n in 0..lied_to {
                    let label = format!("lied-to-{n}");
                    lying.github.queue_job(JobSpec::new("acme/app", [&label]).lasting(Duration::ZERO));
                }
            }
            let (label, asked_at) = (format!("honest-{}", rounds % 9 + 1), Instant::now());
            let job = github.queue_job(JobSpec::new("acme/app", [&label]).lasting(Duration::ZERO));
            let has_begun = |status| matches!(status, JobStatus::Running | JobStatus::Completed);
            github.wait_until(PATIENCE, |state| has_begun(state.job(job).unwrap().status)).await.unwrap();
            worst = worst.max(asked_at.elapsed());
            let over = |status| status == JobStatus::Completed;
            let state = github.wait_until(PATIENCE, |state| over(state.job(job).unwrap().status)).await;
            state.unwrap();
            assert_eq!(github.look(|state| state.job(job).unwrap().result), Some(JobResult::Succeeded));
            rounds += 1;
        }
        let peak = memory::peak(&controller);
        println!("{rounds} jobs, begun within {worst:?}; {} lies; {} MiB", lying.told(), peak >> 20);
        assert!(peak < MEMORY, "{} MiB", peak >> 20);
    })
    .await;
}

/// What a variable of the environment says.
fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |number| number.parse().unwrap())
}
