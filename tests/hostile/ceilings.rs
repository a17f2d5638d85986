//! Slots of a host that tenants share: what one of them states takes nothing from another, and all of them together have what
//! the operator says.

use harness::{Engine, Lab, Manifest, PATIENCE, PERMISSIVE, condition, github, lab, phases};
use serde_json::{Value, json};
use testkit::github::{JobSpec, JobStatus, SimGithub};

fn host(endpoint: &str, changes: Value) -> Value {
    let mut host = json!({"name": "shared", "endpoint": endpoint});
    host.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    json!({"hosts": [host]})
}

fn set(github: &SimGithub, name: &str, min: i32, docker: Value) -> Manifest {
    let spec = json!({"minRunners": min, "maxRunners": 5});
    Manifest::sample(&github.config_url("acme")).named(name).spec(spec).docker(docker)
}

/// A policy that permits all, with this ceiling.
fn ceiling(lab: &Lab, endpoint: &str, max_runners: u32) {
    let hosts = json!([{"endpoint": endpoint, "maxRunners": max_runners}]);
    lab.policy(&PERMISSIVE.replace("hosts: []", &format!("hosts: {hosts}")));
}

#[tokio::test]
async fn a_tenant_that_cordons_a_shared_engine_stops_no_other() {
    lab("cordon", async |lab| {
        let github = github(lab).await;
        let socket = "unix:///var/run/docker.sock";
        let _controller = lab.start();
        lab.apply(&set(&github, "cordon", 0, host(socket, json!({"maxRunners": 0})))).await;
        lab.until_is("cordon", "Ready", "True", None).await;
        lab.apply(&set(&github, "other", 2, host(socket, json!({})))).await;
        lab.until_phases("other", (0, 2, 0)).await;
        let job = github.queue_job(JobSpec::new("acme/app", ["other"]).lasting(std::time::Duration::ZERO));
        github.wait_until(PATIENCE, |s| s.job(job).unwrap().status == JobStatus::Completed).await.unwrap();
        // It holds for the tenant itself.
        lab.scale("cordon", 1).await;
        lab.until("cordon", "it says why it has no runner", |set| {
            let said = condition(set, "Reconciling").is_some_and(|c| c.message.contains("minRunners"));
            phases(set) == (0, 0, 0) && said
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn all_tenants_together_have_what_the_operator_says() {
    lab("ceiling", async |lab| {
        let github = github(lab).await;
        let engine = Engine::start("ceiling", github.address()).await;
        ceiling(lab, engine.endpoint(), 2);
        let _controller = lab.start();
        let (one, two) =
            (host(engine.endpoint(), json!({"maxRunners": 5})), host(engine.endpoint(), json!({})));
        lab.apply(&set(&github, "one", 2, one)).await;
        lab.until_phases("one", (0, 2, 0)).await;
        lab.apply(&set(&github, "two", 2, two)).await;
        lab.until("two", "it waits for a slot", |set| {
            condition(set, "Reconciling").is_some_and(|c| c.reason == "NoCapacity")
                && set.status.as_ref().unwrap().backends[0].hosts[0].free_slots == Some(0)
        })
        .await;
        assert_eq!(running(&engine).await, 2);
        // More slots wake those who wait.
        ceiling(lab, engine.endpoint(), 3);
        lab.until_phases("two", (0, 1, 0)).await;
        assert_eq!(running(&engine).await, 3);
        // A ceiling that is lowered stops nothing that runs.
        ceiling(lab, engine.endpoint(), 0);
        lab.until("one", "the ceiling is noticed", |set| {
            set.status.as_ref().unwrap().backends[0].hosts[0].message.contains("all 0 slots")
        })
        .await;
        assert_eq!(running(&engine).await, 3);
    })
    .await;
}

async fn running(engine: &Engine) -> usize {
    engine.docker.list_containers(None).await.unwrap().len()
}
