//! A template is edited while jobs come all the time: idle runners are replaced one at a time, and nobody waits for it.

use std::collections::BTreeSet;
use std::time::Duration;

use harness::{Lab, Manifest, PATIENCE, eventually, github, lab};
use jiff::Timestamp;
use paddock::api::RunnerScaleSet;
use paddock::api::status::RunnerPhase;
use serde_json::json;
use testkit::github::{Endpoint, JobResult, JobSpec, JobStatus, SimGithub};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const MIN_RUNNERS: usize = 4;
const MAX_RUNNERS: i64 = 12;
/// Of the idle runners, one may be missing.
const LEAST_IDLE: usize = MIN_RUNNERS - 1;
/// Jobs take outdated runners too; the template is edited until so many were removed for being outdated.
const REPLACED: usize = 4;
/// Jobs that run at a time.
const AT_A_TIME: usize = 2;

/// Runs one job after the other, until told to stop.
async fn job_after_job(github: &SimGithub, stop: &CancellationToken) {
    while !stop.is_cancelled() {
        let job = github.queue_job(JobSpec::new("acme/app", ["linux"]).lasting(Duration::from_millis(500)));
        github.wait_until(PATIENCE, |s| s.job(job).unwrap().status == JobStatus::Completed).await.unwrap();
    }
}

/// Whether no runner of an older template waits for a job.
fn is_rolled_out(set: &RunnerScaleSet) -> bool {
    let status = set.status.as_ref().unwrap();
    let waits = |phase| matches!(phase, RunnerPhase::Pending | RunnerPhase::Idle);
    status.observed_generation == set.metadata.generation
        && !status.runners.iter().any(|r| r.outdated && waits(r.phase))
}

/// A roll-out: from the edit to its end.
type Span = (Timestamp, Timestamp);

/// Edits the template again and again, each time once the last edit is rolled out; the last generation, and the
/// roll-outs.
async fn edit(lab: &Lab, manifest: &Manifest, replaced: impl Fn() -> usize) -> (String, Vec<Span>) {
    let deadline = Instant::now() + 3 * PATIENCE;
    let mut spans = Vec::new();
    loop {
        let generation = format!("edit-{}", spans.len());
        let env = json!({"env": [{"name": "GENERATION", "value": generation}]});
        let began = Timestamp::now();
        lab.apply(&manifest.clone().docker(env)).await;
        lab.until("linux", "what waits is of the new template", is_rolled_out).await;
        spans.push((began, Timestamp::now()));
        if replaced() >= REPLACED {
            return (generation, spans);
        }
        assert!(Instant::now() < deadline, "{} replaced in {} roll-outs", replaced(), spans.len());
    }
}

/// The text after `key` in a line of the log, up to the next quotation mark.
fn quoted<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.split_once(key)?.1.split('"').next()
}

/// By the controller's own accounts: how many idle or starting runners it left each time it removed an outdated one. A
/// runner that has a job counts until the controller hears of the job, as nothing else could be asked of it.
fn left_by_removals(log: &str) -> Vec<usize> {
    let mut waiting = BTreeSet::new();
    let mut left = Vec::new();
    for line in log.lines() {
        if line.contains("runner placed") {
            waiting.insert(quoted(line, "runner=\"").unwrap());
        } else if line.contains("event=Started") {
            waiting.remove(quoted(line, "runner_name: \"").unwrap());
        } else if line.contains("removal begins") {
            waiting.remove(quoted(line, "runner=\"").unwrap());
            if line.contains("why=\"Outdated\"") {
                left.push(waiting.len());
            }
        }
    }
    left
}

#[tokio::test]
async fn a_template_edited_under_load_leaves_three_of_four_idle_and_the_start_gate_open() {
    lab("rollout", async |lab| {
        let github = github(lab).await;
        let controller = lab.start();
        let manifest = Manifest::sample(&github.config_url("acme")).spec(json!({
            "minRunners": MIN_RUNNERS, "maxRunners": MAX_RUNNERS, "disruption": {"maxUnavailable": 1},
            "scaleDown": {"delay": "2s"},
        }));
        lab.apply(&manifest).await;
        lab.until_phases("linux", (0, 4, 0)).await;
        let held = github.queue_job(JobSpec::new("acme/app", ["linux"]));
        lab.until_phases("linux", (0, 4, 1)).await;
        let on_held = github.look(|s| s.job(held).unwrap().runner.clone().unwrap().name);
        let record = lab.record("linux");
        github.clear_requests();

        let stop = CancellationToken::new();
        let replaced = || left_by_removals(&controller.log()).len();
        let editing = async {
            let edited = edit(lab, &manifest, replaced).await;
            stop.cancel();
            edited
        };
        let load = futures::future::join_all((0..AT_A_TIME).map(|_| job_after_job(&github, &stop)));
        let ((generation, spans), _) = futures::future::join(editing, load).await;
        lab.until_phases("linux", (0, 4, 1)).await;

        assert_never_too_few(&controller.log());
        for status in record.statuses() {
            let waiting = status.idle_runners + status.pending_runners;
            assert!(usize::try_from(waiting).unwrap() >= LEAST_IDLE, "{status:?}");
        }
        assert_start_gate_stayed_open(&github, &spans);
        // What has run its job is not counted any more, and may not be cleared away yet.
        let containers = eventually("the five have a container, and nobody else", PATIENCE, async || {
            Some(lab.containers().await).filter(|c| c.len() == MIN_RUNNERS + 1)
        });
        for (runner, container) in containers.await {
            let new = lab.environment(&container).await.contains(&format!("GENERATION={generation}"));
            assert_eq!(new, runner != on_held, "{runner}");
        }
        github.finish_job(held, JobResult::Succeeded).unwrap();
        lab.until_phases("linux", (0, 4, 0)).await;
        assert_no_job_was_touched(lab, &github);
        record.assert_consistent(4, 12);
    })
    .await;
}

fn assert_never_too_few(log: &str) {
    let left = left_by_removals(log);
    println!("idle or starting after each removal: {left:?}");
    assert!(left.iter().all(|left| *left >= LEAST_IDLE), "{left:?}");
}

/// It was the same session all the time, every poll asked for as many jobs as there may be runners, and in each
/// roll-out jobs started.
fn assert_start_gate_stayed_open(github: &SimGithub, spans: &[Span]) {
    assert_eq!(github.requests(Endpoint::OpenSession).len(), 0);
    let polls = github.requests(Endpoint::Poll);
    assert!(!polls.is_empty() && polls.iter().all(|p| p.capacity == Some(MAX_RUNNERS)), "{polls:#?}");
    let started: Vec<Timestamp> = github.look(|s| s.jobs().filter_map(|j| j.started_at).collect());
    for (began, ended) in spans {
        let meanwhile = started.iter().filter(|at| *began < **at && **at < *ended).count();
        println!("{meanwhile} jobs started in a roll-out of {:.1}", ended.duration_since(*began));
        assert!(meanwhile > 0, "no job started from {began} to {ended}");
    }
}

/// Each job ran once and to its end, on a runner that was not killed.
fn assert_no_job_was_touched(lab: &Lab, github: &SimGithub) {
    let killed: BTreeSet<String> = lab.timeline.all("kill").into_iter().map(|e| e.runner).collect();
    github.look(|state| {
        for job in state.jobs() {
            assert_eq!((job.attempts, job.result), (1, Some(JobResult::Succeeded)), "{job:?}");
            assert!(!killed.contains(&job.runner.as_ref().unwrap().name), "{job:?}");
        }
    });
}
