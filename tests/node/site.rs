//! The node that `make test-node` brings up, with a simulated GitHub beside it, for one test after the other.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use harness::{IMAGE, Manifest, eventually};
use serde_json::{Value, json};
use testkit::github::{DEFAULT_TOKEN, JobId, JobSpec, JobStatus, SimGithub};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, UnixStream};
use tokio::process::Command;
use tokio::sync::{Mutex, MutexGuard};

/// How long anything may take on a busy machine that has no deadline of its own: pods start and stop in it.
pub const PATIENCE: Duration = Duration::from_secs(180);

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The machine as pods and containers of the node see it.
const OUTSIDE: &str = "10.88.0.2:0";

/// What a test has.
pub struct Site {
    /// GitHub.
    pub github: SimGithub,
    node: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

impl Site {
    /// Waits for its turn, and takes away what a test before left.
    pub async fn new() -> Site {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
        let turn = ONE_AT_A_TIME.lock().await;
        let node = std::env::var_os("PADDOCK_TEST_NODE").expect("run `make test-node`").into();
        let github = SimGithub::builder().small_jit().bind(OUTSIDE.parse().unwrap()).start().await.unwrap();
        let site = Site { github, node, _turn: turn };
        site.sweep().await;
        site
    }

    /// Removes whatever is of a release, of the kind that stays too.
    async fn sweep(&self) {
        self.sh("helm uninstall paddock -n paddock --ignore-not-found --wait").await;
        let strip = "kubectl get rss -A -o name 2>/dev/null | xargs -r -I{} kubectl -n ci patch {} --type=merge \
                     -p '{\"metadata\": {\"finalizers\": null}}' || true";
        self.sh(strip).await;
        self.sh("kubectl delete crd runnerscalesets.paddock.dev --ignore-not-found").await;
        self.sh("kubectl delete namespace paddock paddock-system ci --ignore-not-found").await;
        self.sh("docker ps -aq --filter label=paddock.dev/cluster | xargs -r docker rm --force").await;
    }

    /// Runs what a person types, at the root of the repository, with the node's cluster and engine: what it prints.
    pub async fn sh(&self, command: &str) -> String {
        let output = self.attempt(command).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{command}\n{said}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    async fn attempt(&self, command: &str) -> std::process::Output {
        let path = std::env::var("PATH").unwrap();
        Command::new("bash")
            .args(["-euo", "pipefail", "-c", command])
            .current_dir(ROOT)
            .env("PATH", format!("{ROOT}/.cache/bin:{path}"))
            .env("KUBECONFIG", self.node.join("control/kubeconfig"))
            .env("DOCKER_HOST", format!("unix://{}", self.socket().display()))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .unwrap()
    }

    /// Waits until a command prints this.
    pub async fn until(&self, command: &str, prints: &str) {
        let what = format!("`{command}` prints {prints:?}");
        eventually(&what, PATIENCE, async || {
            let output = self.attempt(command).await;
            (String::from_utf8_lossy(&output.stdout).trim() == prints).then_some(())
        })
        .await;
    }

    /// The engine's socket on the node.
    pub fn socket(&self) -> PathBuf {
        self.node.join("root/run/docker.sock")
    }

    /// The engine by a port of this machine, which pods reach.
    pub async fn engine_by_a_port(&self) -> SocketAddr {
        let listener = TcpListener::bind(OUTSIDE).await.unwrap();
        let (address, socket) = (listener.local_addr().unwrap(), self.socket());
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let socket = socket.clone();
                tokio::spawn(async move {
                    let mut engine = UnixStream::connect(socket).await?;
                    copy_bidirectional(&mut client, &mut engine).await
                });
            }
        });
        address
    }

    /// Runs a command on the node.
    pub async fn on_node(&self, command: &str) -> String {
        let first = std::fs::read_link(self.node.join("root")).unwrap();
        let first = first.parent().and_then(Path::file_name).unwrap().to_str().unwrap().to_owned();
        self.sh(&format!("nsenter --target {first} --all -- {command}")).await
    }

    /// The group that owns the engine's socket.
    pub async fn group(&self) -> String {
        self.on_node("stat -c %g /var/run/docker.sock").await
    }

    /// The flags with which the chart is installed here: the image that the node has, the engine beside it, and plain http.
    pub async fn flags(&self) -> String {
        let group = self.group().await;
        format!(
            "-n paddock --set image.repository=paddock.test/paddock --set image.tag=1 --set dockerSocket.enabled=true \
             --set dockerSocket.gid={group} --set-string 'nodeSelector.kubernetes\\.io/hostname=node' \
             --set 'policy.rules[0].insecureHttp=true' --wait --timeout 180s"
        )
    }

    /// Installs a chart, and declares the sample.
    pub async fn install(&self, chart: &str) {
        let flags = self.flags().await;
        self.sh(&format!("helm install paddock {chart} --create-namespace {flags}")).await;
        self.declare().await;
    }

    /// Declares the sample, with what it needs.
    pub async fn declare(&self) {
        self.declare_file(&self.sample()).await;
    }

    /// Declares the scale set of a file, with what it needs.
    pub async fn declare_file(&self, manifest: &Path) {
        self.sh("kubectl create namespace ci").await;
        self.sh(&format!(
            "kubectl -n ci create secret generic github --from-literal=github_token={DEFAULT_TOKEN}"
        ))
        .await;
        self.sh(&format!("kubectl -n ci apply -f {}", manifest.display())).await;
        self.sh("kubectl -n ci wait --for=condition=Ready rss/linux --timeout=120s").await;
    }

    /// The sample for this GitHub, as a file: with the tests' runners, on the engine's own bridge.
    pub fn sample(&self) -> PathBuf {
        self.sample_with(json!({}))
    }

    /// The same, with something else in its Docker backend.
    pub fn sample_with(&self, docker: Value) -> PathBuf {
        let sample = Manifest::sample(&self.github.config_url("acme"));
        let sample = sample.docker(json!({"image": IMAGE, "network": "bridge"})).docker(docker);
        let file = std::env::temp_dir().join("sample.json");
        std::fs::write(&file, sample.0.to_string()).unwrap();
        file
    }

    /// Queues jobs that last until they are finished by hand.
    pub fn queue(&self, count: usize) -> Vec<JobId> {
        self.github.queue_jobs(count, &JobSpec::new("acme/app", ["linux"]))
    }

    /// Waits until all these jobs are so.
    pub async fn until_jobs(&self, within: Duration, jobs: &[JobId], status: JobStatus) {
        let so =
            |job: &JobId, state: &testkit::github::State| state.job(*job).is_some_and(|j| j.status == status);
        if let Err(late) = self.github.wait_until(within, |state| jobs.iter().all(|job| so(job, state))).await
        {
            let log = self.sh("kubectl -n \"$(kubectl get deployments -A -o jsonpath='{.items[0].metadata.namespace}')\" logs -l app.kubernetes.io/name=paddock --tail=50 --prefix").await;
            let set = self.sh("kubectl -n ci describe rss linux").await;
            panic!("{status:?}: {late}\n{set}\n{log}");
        }
    }

    /// Waits until so many runners are seen at work.
    pub async fn until_busy(&self, count: usize) {
        self.until("kubectl -n ci get rss linux -o jsonpath='{.status.busyRunners}'", &count.to_string())
            .await;
    }

    /// Finishes jobs.
    pub async fn finish(&self, jobs: &[JobId]) {
        for job in jobs {
            self.github.finish_job(*job, testkit::github::JobResult::Succeeded).unwrap();
        }
        self.until_jobs(PATIENCE, jobs, JobStatus::Completed).await;
    }

    /// The runners' containers.
    pub async fn containers(&self) -> String {
        self.sh("docker ps -aq --no-trunc --filter label=paddock.dev/runner | sort").await
    }

    /// Takes all away as docs/install.md says, and sees that nothing is left.
    pub async fn remove_all(&self) {
        let page = include_str!("../../docs/install.md");
        let (_, uninstall) = page.split_once("\n## Uninstall\n").unwrap();
        let commands = uninstall.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        self.sh(commands).await;
        assert_eq!(self.github.look(|state| state.scale_sets().count()), 0);
        assert_eq!(self.github.look(|state| state.runners().count()), 0);
        assert_eq!(self.containers().await, "");
        let left = "kubectl get all,secrets,configmaps,leases,networkpolicies,clusterroles,clusterrolebindings,roles,\
                    rolebindings,serviceaccounts,crds,validatingadmissionpolicies,validatingadmissionpolicybindings -A \
                    -o name | grep -i paddock || true";
        self.until(left, "").await;
    }
}
