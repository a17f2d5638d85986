//! Fleets of Macs: jobs, warm VMs, controllers and hosts that come and go.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use paddock::api::RunnerScaleSet;
use serde_json::json;
use testkit::github::{Endpoint, JobResult, JobSpec, JobStatus, SimGithub};
use testkit::tart::{Mac, Scenario, VmState};

use harness::{Manifest, PATIENCE, eventually, github, is, lab, phases};

fn slow_boots(scenario: &mut Scenario) {
    (scenario.clone, scenario.boot) = (Duration::from_millis(100), Duration::from_millis(700));
}

/// How many VMs are warm, by status.
fn warm(set: &RunnerScaleSet) -> Option<i32> {
    set.status.as_ref()?.backends.first()?.warm
}

/// The largest number of VMs that a Mac was seen to run, while something is awaited.
async fn most_running<T>(macs: &[Mac], awaited: impl Future<Output = T>) -> (usize, T) {
    let most = Arc::new(Mutex::new(0));
    let watch = async {
        loop {
            // A configuration that is being written cannot be read.
            let running = macs.iter().filter_map(|mac| Some(mac.running().ok()?.len()));
            let now = running.max().unwrap_or_default();
            let before = *most.lock().unwrap();
            *most.lock().unwrap() = before.max(now);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let outcome = tokio::select! {
        outcome = awaited => outcome,
        never = watch => never,
    };
    let most = *most.lock().unwrap();
    (most, outcome)
}

/// Waits until nothing of Paddock's is left on the Macs.
async fn nothing_left(macs: &[Mac]) {
    eventually("nothing is left on the Macs", PATIENCE, async || {
        let left = |mac: &Mac| {
            let notes = std::fs::read_dir(mac.tart_home().join("paddock")).map_or(0, Iterator::count);
            notes + mac.vms().map_or(1, |vms| vms.len())
        };
        (macs.iter().map(left).sum::<usize>() == 0).then_some(())
    })
    .await;
}

fn clones(macs: &[Mac]) -> usize {
    let of = |mac: &Mac| mac.calls().unwrap().iter().filter(|call| call.command() == "clone").count();
    macs.iter().map(of).sum()
}

async fn completed(github: &SimGithub, jobs: usize) {
    github.wait_until(PATIENCE * 2, |s| s.jobs_in(JobStatus::Completed) == jobs).await.unwrap();
}

/// Jobs that last for some seconds on three Macs with one warm VM.
#[tokio::test]
async fn eight_jobs_on_three_macs_take_the_warm_one_first_and_no_host_runs_three() {
    lab("macs", async |lab| {
        let (github, macs) = (github(lab).await, lab.macs(3, slow_boots).await);
        let controller = lab.start();
        let manifest =
            Manifest::tart(&github.config_url("acme"), &macs).of_tart(json!({"warmPool": {"size": 1}}));
        lab.apply(&manifest).await;
        lab.until("macos", "one is warm", |set| warm(set) == Some(1)).await;
        assert_eq!(github.look(|s| s.runners().count()), 0, "it has no registration");
        let first = macs.iter().flat_map(|mac| mac.running().unwrap()).next().unwrap();

        let job = JobSpec::new("acme/app", ["macos"]).lasting(Duration::from_secs(1));
        let (most, ()) = most_running(&macs, async {
            github.queue_jobs(8, &job);
            completed(&github, 8).await;
        })
        .await;
        assert!((1..=2).contains(&most), "{most} VMs ran on one Mac");
        let log = controller.log();
        let started = log.lines().find(|line| line.contains("runner started"));
        assert!(
            started.is_some_and(|line| line.contains(&first)),
            "the warm one is taken first: {started:?}"
        );
        let minted = github.requests(Endpoint::JitConfig).len();
        assert_eq!(minted, 8, "one registration a start, none before its VM answers");
        lab.until("macos", "one is warm again", |set| warm(set) == Some(1) && phases(set) == (0, 0, 0)).await;
        assert_eq!(macs.iter().map(|mac| mac.vms().unwrap().len()).sum::<usize>(), 1);
        assert_eq!(github.look(|s| s.runners().count()), 0);

        lab.delete("macos").await;
        lab.until_gone("macos", PATIENCE).await;
        nothing_left(&macs).await;
    })
    .await;
}

#[tokio::test]
async fn a_controller_that_is_killed_with_four_vms_up_is_followed_by_one_that_knows_them() {
    lab("macs-killed", async |lab| {
        let (github, macs) = (github(lab).await, lab.macs(2, |_| {}).await);
        let first = lab.start();
        let manifest =
            Manifest::tart(&github.config_url("acme"), &macs).of_tart(json!({"warmPool": {"size": 1}}));
        lab.apply(&manifest).await;
        lab.until("macos", "one is warm", |set| warm(set) == Some(1)).await;
        let jobs = github.queue_jobs(3, &JobSpec::new("acme/app", ["macos"]));
        lab.until("macos", "four are up", |set| phases(set) == (0, 0, 3) && warm(set) == Some(1)).await;
        let vms = || -> BTreeSet<(String, String)> {
            let all = macs.iter().flat_map(|mac| mac.vms().unwrap());
            all.map(|vm| (vm.name, vm.mac_address)).collect()
        };
        let (before, made) = (vms(), clones(&macs));
        assert_eq!((before.len(), made), (4, 4));

        first.kill().await;
        let second = lab.start();
        eventually("the second has taken over", PATIENCE, async || {
            second.log().contains("Mac connected").then_some(())
        })
        .await;
        lab.until("macos", "four are known", |set| phases(set) == (0, 0, 3) && warm(set) == Some(1)).await;
        for job in jobs {
            github.finish_job(job, JobResult::Succeeded).unwrap();
        }
        completed(&github, 3).await;
        lab.until("macos", "the jobs' VMs are gone", |set| phases(set) == (0, 0, 0)).await;
        let left = vms();
        assert!(left.len() == 1 && left.is_subset(&before), "{left:?}");
        assert_eq!(clones(&macs), made, "nothing was cloned twice");
    })
    .await;
}

#[tokio::test]
async fn a_job_goes_on_while_its_hosts_sshd_is_away_and_is_not_replaced() {
    lab("macs-sshd", async |lab| {
        let github = github(lab).await;
        let mut macs = lab.macs(2, |_| {}).await;
        let _controller = lab.start();
        lab.apply(&Manifest::tart(&github.config_url("acme"), &macs).spec(json!({"maxRunners": 2}))).await;
        lab.until_is("macos", "Ready", "True", None).await;
        let job = github.queue_job(JobSpec::new("acme/app", ["macos"]));
        lab.until_phases("macos", (0, 0, 1)).await;
        let at = macs.iter().position(|mac| !mac.running().unwrap().is_empty()).unwrap();
        macs[at].kill_sshd().await.unwrap();
        let host = format!("mac-{}", at + 1);
        let shown = |set: &RunnerScaleSet, ready: bool| {
            let status = set.status.as_ref().unwrap();
            status.backends[0].hosts.iter().any(|h| h.name == host && h.ready == ready)
        };
        lab.until("macos", "its host is away", |set| shown(set, false) && phases(set) == (0, 0, 1)).await;
        github.finish_job(job, JobResult::Succeeded).unwrap();
        completed(&github, 1).await;
        macs[at].start_sshd().await.unwrap();
        lab.until("macos", "it is seen again", |set| shown(set, true) && phases(set) == (0, 0, 0)).await;
        assert_eq!(clones(&macs), 1, "it was not replaced");
        nothing_left(&macs).await;
    })
    .await;
}

#[tokio::test]
async fn two_sets_on_the_same_macs_have_their_minimum_and_no_host_runs_three() {
    lab("macs-shared", async |lab| {
        let (github, macs) = (github(lab).await, lab.macs(2, slow_boots).await);
        let _controller = lab.start();
        let set = |name: &str| {
            Manifest::tart(&github.config_url("acme"), &macs)
                .named(name)
                .spec(json!({"minRunners": 1, "maxRunners": 4, "scaleDown": {"delay": "1s"}}))
        };
        let (most, ()) = most_running(&macs, async {
            for name in ["one", "two"] {
                lab.apply(&set(name)).await;
                lab.until_phases(name, (0, 1, 0)).await;
            }
            let job = |name| JobSpec::new("acme/app", [name]).lasting(Duration::from_millis(200));
            github.queue_jobs(6, &job("one"));
            github.queue_jobs(6, &job("two"));
            completed(&github, 12).await;
            for name in ["one", "two"] {
                lab.until_phases(name, (0, 1, 0)).await;
            }
        })
        .await;
        assert_eq!(most, 2);
    })
    .await;
}

#[tokio::test]
async fn a_changed_host_key_is_refused_until_the_secret_names_it() {
    lab("macs-key", async |lab| {
        let github = github(lab).await;
        let mut macs = lab.macs(1, |_| {}).await;
        let _controller = lab.start();
        lab.apply(&Manifest::tart(&github.config_url("acme"), &macs)).await;
        let hosts = |set: &RunnerScaleSet| set.status.as_ref().unwrap().backends[0].hosts.clone();
        lab.until("macos", "the host is ready", |set| is(set, "Ready", "True", None) && hosts(set)[0].ready)
            .await;
        macs[0].change_host_key().await.unwrap();
        lab.until("macos", "the key is refused", |set| {
            !hosts(set)[0].ready && hosts(set)[0].message.contains("is not the one in known_hosts")
        })
        .await;
        github.queue_job(JobSpec::new("acme/app", ["macos"]));
        lab.mac_secret(1, &macs[0]).await;
        lab.until_phases("macos", (0, 0, 1)).await;
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_used_is_said_at_its_field() {
    lab("macs-invalid", async |lab| {
        let (github, macs) = (github(lab).await, lab.macs(1, |_| {}).await);
        let _controller = lab.start();
        lab.secret("mac-1-ssh", [("ssh-privatekey", "planted-secret"), ("known_hosts", "mac ssh-ed25519 x")])
            .await;
        lab.apply(&Manifest::tart(&github.config_url("acme"), &macs)).await;
        let stalled = lab.until_is("macos", "Stalled", "True", Some("SecretInvalid")).await;
        let message = &harness::condition(&stalled, "Stalled").unwrap().message;
        assert!(message.starts_with("spec.backends[macs].tart.hosts[mac-1].sshSecretRef: "), "{message}");
        assert!(!message.contains("planted-secret"), "{message}");
        lab.mac_secret(1, &macs[0]).await;
        lab.until_is("macos", "Stalled", "False", None).await;
        let broken = Manifest::tart(&github.config_url("acme"), &macs).of_tart(json!({"image": "--help"}));
        lab.apply(&broken).await;
        lab.until_is("macos", "Stalled", "True", Some("InvalidSpec")).await;
    })
    .await;
}

#[tokio::test]
async fn a_host_that_is_left_out_is_drained_with_what_was_kept_ready() {
    lab("macs-left-out", async |lab| {
        let (github, macs) = (github(lab).await, lab.macs(2, |_| {}).await);
        let _controller = lab.start();
        let url = github.config_url("acme");
        let sized = |macs: &[Mac]| Manifest::tart(&url, macs).of_tart(json!({"warmPool": {"size": 2}}));
        lab.apply(&sized(&macs)).await;
        lab.until("macos", "two are warm", |set| warm(set) == Some(2)).await;
        assert!(
            macs.iter().all(|mac| mac.running().unwrap().len() == 1),
            "a Mac each, as each has most slots"
        );
        lab.apply(&sized(&macs[..1])).await;
        nothing_left(&macs[1..]).await;
        lab.until("macos", "two are warm on the other", |set| warm(set) == Some(2)).await;
        lab.until("macos", "the host is let go", |set| {
            set.status.as_ref().unwrap().backends[0].hosts.len() == 1
        })
        .await;
        lab.apply(&sized(&macs[..1]).spec(json!({"suspend": true}))).await;
        nothing_left(&macs).await;
    })
    .await;
}

#[tokio::test]
async fn a_mac_that_reboots_loses_its_jobs_and_nothing_else() {
    lab("macs-reboot", async |lab| {
        let github = github(lab).await;
        let mut macs = lab.macs(1, |_| {}).await;
        let _controller = lab.start();
        lab.apply(&Manifest::tart(&github.config_url("acme"), &macs)).await;
        github.queue_job(JobSpec::new("acme/app", ["macos"]));
        lab.until_phases("macos", (0, 0, 1)).await;
        macs[0].reboot().await.unwrap();
        let lost = lab.until("macos", "the loss is told", |set| {
            set.status.as_ref().unwrap().recent_failures.iter().any(|failure| failure.reason == "JobLost")
        });
        lost.await;
        github.queue_job(JobSpec::new("acme/app", ["macos"]).lasting(Duration::ZERO));
        github.wait_until(PATIENCE, |s| s.jobs_in(JobStatus::Completed) >= 1).await.unwrap();
        assert!(macs[0].vms().unwrap().iter().all(|vm| vm.state != VmState::Suspended));
    })
    .await;
}
