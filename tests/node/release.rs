//! A release of the chart with jobs in flight: upgraded from the commit before, uninstalled, installed again, all of it removed.

use testkit::github::{JobId, JobResult, JobStatus};

use crate::site::{PATIENCE, Site};

/// The charts of the commit before this one, unpacked.
async fn chart_before(site: &Site) -> String {
    let folder = std::env::temp_dir().join("before");
    let folder = folder.display();
    site.sh(&format!("rm -rf {folder} && mkdir {folder} && git archive HEAD~1 charts | tar -x -C {folder}"))
        .await;
    format!("{folder}/charts/paddock")
}

/// The runners that have these jobs, in order.
fn runners(site: &Site, jobs: &[JobId]) -> Vec<String> {
    site.github.look(|state| {
        let runner = |job: &JobId| state.job(*job).unwrap().runner.as_ref().unwrap().name.clone();
        jobs.iter().map(runner).collect()
    })
}

fn assert_succeeded(site: &Site, jobs: &[JobId], attempts: u32) {
    site.github.look(|state| {
        for job in jobs.iter().map(|job| state.job(*job).unwrap()) {
            assert_eq!((job.result, job.attempts), (Some(JobResult::Succeeded), attempts), "{job:?}");
        }
    });
}

#[tokio::test]
async fn an_upgrade_from_the_commit_before_loses_no_job_in_flight() {
    let site = Site::new().await;
    let before = chart_before(&site).await;
    site.install(&before).await;
    let jobs = site.queue(3);
    site.until_jobs(PATIENCE, &jobs, JobStatus::Running).await;
    site.until_busy(jobs.len()).await;
    let (at_work, containers) = (runners(&site, &jobs), site.containers().await);
    let pods = site.sh("kubectl -n paddock get pods -o name | sort").await;

    let flags = site.flags().await;
    // The variable has the pods replaced even if the two charts make the same.
    let another = "--set extraEnv[0].name=UPGRADED --set-string extraEnv[0].value=1";
    site.sh(&format!("helm upgrade paddock charts/paddock {flags} {another}")).await;
    assert_ne!(site.sh("kubectl -n paddock get pods -o name | sort").await, pods);
    let late = site.queue(1);
    site.until_jobs(PATIENCE, &late, JobStatus::Running).await;
    assert_eq!(runners(&site, &jobs), at_work);
    for container in containers.lines() {
        assert!(site.containers().await.contains(container));
    }

    let all = [jobs, late].concat();
    site.finish(&all).await;
    assert_succeeded(&site, &all, 1);
    site.until("docker ps -aq --filter label=paddock.dev/runner", "").await;
    site.remove_all().await;
}

#[tokio::test]
async fn an_uninstall_leaves_scale_sets_and_runners_and_the_next_install_goes_on_with_them() {
    let site = Site::new().await;
    site.install("charts/paddock").await;
    let jobs = site.queue(2);
    site.until_jobs(PATIENCE, &jobs, JobStatus::Running).await;
    site.until_busy(jobs.len()).await;
    let (at_work, containers) = (runners(&site, &jobs), site.containers().await);

    site.sh("helm uninstall paddock -n paddock --wait").await;
    site.until("kubectl -n paddock get pods -o name", "").await;
    assert_eq!(site.sh("kubectl -n ci get rss -o name").await, "runnerscaleset.paddock.dev/linux");
    assert_eq!(site.containers().await, containers);
    assert_eq!(site.github.look(|state| state.scale_sets().count()), 1);
    // One job ends while no controller is there, the other after the next is.
    site.finish(&jobs[..1]).await;

    let flags = site.flags().await;
    site.sh(&format!("helm install paddock charts/paddock {flags}")).await;
    site.until_busy(1).await;
    assert_eq!(runners(&site, &jobs), at_work);
    site.finish(&jobs[1..]).await;
    assert_succeeded(&site, &jobs, 1);
    site.until("docker ps -aq --filter label=paddock.dev/runner", "").await;
    site.remove_all().await;
}
