//! Runners of two tenants on one engine: what a job of one listens on, and a job of the other that looks for it.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use bollard::models::ContainerSummary;
use bollard::query_parameters::ListContainersOptionsBuilder;
use harness::{Lab, Manifest, PATIENCE, PERMISSIVE, condition, eventually, lab};
use paddock::runner::Identity;
use serde_json::{Value, json};
use testkit::github::{DEFAULT_TOKEN, JobSpec, JobStatus, SimGithub};
use tokio::process::Command;

/// What a job listens on.
const PORT: &str = "4444";

/// A GitHub that runners reach from whatever network of the engine.
async fn github(lab: &Lab) -> SimGithub {
    lab.secret("github", [("github_token", DEFAULT_TOKEN)]).await;
    let bridge = lab.docker.inspect_network("bridge", None).await.unwrap();
    let ipam = bridge.ipam.unwrap().config.unwrap();
    // The machine has the first address. An engine that made the bridge itself does not tell it as the gateway.
    let subnet = ipam.into_iter().find_map(|config| config.subnet).unwrap();
    let base: Ipv4Addr = subnet.split_once('/').unwrap().0.parse().unwrap();
    let gateway = Ipv4Addr::from_bits(base.to_bits() + 1);
    SimGithub::builder().small_jit().bind((gateway, 0).into()).start().await.unwrap()
}

fn set(github: &SimGithub, name: &str, docker: Value) -> Manifest {
    let spec = json!({"minRunners": 1, "maxRunners": 1});
    Manifest::sample(&github.config_url("acme")).named(name).spec(spec).docker(docker)
}

/// The runner of a set, with its network and its address there, once it is idle on a network of which that is so.
async fn runner(lab: &Lab, set: &str, so: impl Fn(&str) -> bool) -> Runner {
    let found = eventually(&format!("{set} has a runner on that network"), PATIENCE, async || {
        let mut runners = containers(lab, set).await;
        let runner = Runner::of(&runners.pop()?)?;
        (runners.is_empty() && so(&runner.network)).then_some(runner)
    })
    .await;
    lab.until_phases(set, (0, 1, 0)).await;
    found
}

async fn containers(lab: &Lab, set: &str) -> Vec<ContainerSummary> {
    let labels = [
        format!("{}={}", Identity::CLUSTER, lab.cluster),
        format!("{}={}/{set}", Identity::SCALE_SET, lab.namespace),
    ];
    let filters = HashMap::from([("label", labels.to_vec())]);
    let options = ListContainersOptionsBuilder::new().filters(&filters).build();
    lab.docker.list_containers(Some(options)).await.unwrap()
}

/// A runner's container.
struct Runner {
    id: String,
    name: String,
    network: String,
    network_id: String,
    address: String,
}

impl Runner {
    fn of(container: &ContainerSummary) -> Option<Runner> {
        let networks = container.network_settings.as_ref()?.networks.as_ref()?;
        let (network, endpoint) = networks.iter().next()?;
        Some(Runner {
            id: container.id.clone()?,
            name: container.names.as_ref()?.first()?.trim_start_matches('/').to_owned(),
            network: network.clone(),
            network_id: endpoint.network_id.clone()?,
            address: endpoint.ip_address.clone().filter(|address| !address.is_empty())?,
        })
    }

    /// Does in it what its job would do.
    async fn does(&self, script: &str) -> String {
        let done =
            Command::new("docker").args(["exec", &self.id, "sh", "-c", script]).output().await.unwrap();
        String::from_utf8(done.stdout).unwrap()
    }

    /// Has it listen, and waits until it does.
    async fn listens(&self) {
        self.does(&format!("nc -ll -p {PORT} -e echo reached >/dev/null 2>&1 &")).await;
        eventually("it listens", PATIENCE, async || self.reaches(self).await.then_some(())).await;
    }

    /// Whether it gets an answer of what another listens on.
    async fn reaches(&self, other: &Runner) -> bool {
        self.does(&format!("nc -w 5 {} {PORT} </dev/null", other.address)).await.contains("reached")
    }
}

#[tokio::test]
async fn what_a_job_listens_on_is_reached_by_no_other_set_where_each_has_its_own_network() {
    lab("network", async |lab| {
        let github = github(lab).await;
        let _controller = lab.start();
        for name in ["one", "two"] {
            lab.apply(&set(&github, name, json!({"network": "bridge"}))).await;
        }
        let shared = |network: &str| network == "bridge";
        let (one, two) = (runner(lab, "one", shared).await, runner(lab, "two", shared).await);
        one.listens().await;
        assert!(two.reaches(&one).await, "on Docker's default network all reach each other");

        // The operator keeps them apart: idle runners are replaced, and are runners as before.
        lab.policy(&PERMISSIVE.replace("hostSocket: true", "hostSocket: true\n  networkPerScaleSet: true"));
        let own = |network: &str| network.starts_with("paddock-");
        let (one, two) = (runner(lab, "one", own).await, runner(lab, "two", own).await);
        one.listens().await;
        assert!(!two.reaches(&one).await, "{} and {}", one.network, two.network);
        let job = github.queue_job(JobSpec::new("acme/app", ["two"]).lasting(Duration::ZERO));
        github.wait_until(PATIENCE, |s| s.job(job).unwrap().status == JobStatus::Completed).await.unwrap();

        // Nor does a tenant get there by what leads to it.
        let one = runner(lab, "one", own).await;
        for network in [&one.network, &one.network_id[..12], &format!("container:{}", one.name)] {
            lab.apply(&set(&github, "two", json!({"network": network}))).await;
            lab.until("two", &format!("it does not get on {network}"), |set| {
                let stalled = condition(set, "Stalled").filter(|c| c.reason == "NotPermitted");
                stalled.is_some_and(|c| {
                    c.message.contains(&format!("docker.network: {network} is not permitted"))
                })
            })
            .await;
        }
        for name in ["one", "two"] {
            lab.delete(name).await;
            lab.until_gone(name, PATIENCE).await;
        }
        for runner in [&one, &two] {
            let gone = lab.docker.inspect_network(&runner.network_id, None).await;
            assert!(gone.is_err(), "it goes with its set: {gone:?}");
        }
    })
    .await;
}
