//! What every test stands on: Macs, a cluster id of its own, and the wake-ups that came.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use harness::stand_ins;
use paddock::api::PullPolicy;
use paddock::backend::remote::SshLogin;
use paddock::backend::tart::{HostSpec, Limits, Login, Macs, TartBackend, TartProvider, TartTemplate};
use paddock::backend::{Availability, Backend, Error, HostState, NewRunner, Requeuer, Reservation};
use paddock::runner::{Exit, Identity, Instance, InstanceState, JitConfiguration, runner_name};
use testkit::tart::{IMAGE, Image, Mac, MacBuilder, Vm};

/// What no output may show.
pub const SECRET: &str = "planted-secret";
/// How long to wait for what must come. Generous: other tests run beside.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Where the runner is in the guest.
pub const RUNNER_DIR: &str = "/Users/admin/actions-runner";

/// A test's own cluster.
pub struct Stage {
    pub cluster: String,
    pub macs: Arc<Macs>,
    woken: Arc<Mutex<HashMap<String, usize>>>,
}

impl Stage {
    pub fn new(name: &str) -> Stage {
        Stage::with(name, limits())
    }

    pub fn with(name: &str, limits: Limits) -> Stage {
        LazyLock::force(&LOG);
        let cluster = format!("test-{}-{name}", std::process::id());
        let woken = Arc::<Mutex<HashMap<String, usize>>>::default();
        let macs = Arc::new(Macs::new(cluster.clone(), counting(&woken)).with_limits(limits));
        Stage { cluster, macs, woken }
    }

    /// A second controller of the same cluster, that knows nothing yet.
    pub fn fresh(&self) -> Stage {
        let macs = Arc::new(Macs::new(self.cluster.clone(), counting(&self.woken)).with_limits(limits()));
        Stage { cluster: self.cluster.clone(), macs, woken: self.woken.clone() }
    }

    /// How often a scale set was woken.
    pub fn woken(&self, scale_set: &str) -> usize {
        self.woken.lock().unwrap().get(scale_set).copied().unwrap_or_default()
    }

    /// A scale set's backend.
    pub fn backend(&self, scale_set: &str, template: TartTemplate) -> TartBackend {
        TartBackend::new("macs", Vec::new(), self.identity(scale_set), template, &self.macs)
    }

    pub fn provider(&self) -> TartProvider {
        TartProvider::of(self.macs.clone())
    }

    pub fn identity(&self, scale_set: &str) -> Identity {
        Identity {
            cluster: self.cluster.clone(),
            scale_set_uid: scale_set.to_owned(),
            scale_set: format!("ci/{scale_set}"),
        }
    }
}

/// Tests wait for nothing that a Mac would be given time for.
pub fn limits() -> Limits {
    Limits {
        boot: Duration::from_secs(30),
        pull_silence: Duration::from_secs(20),
        silence: Duration::from_secs(60),
        relist: Duration::from_secs(5),
    }
}

fn counting(woken: &Arc<Mutex<HashMap<String, usize>>>) -> Requeuer {
    let woken = Arc::clone(woken);
    Requeuer::new(move |scale_set| *woken.lock().unwrap().entry(scale_set.to_owned()).or_default() += 1)
}

/// A Mac whose image has a shell script in place of the runner. `exec` tries again five times sooner than Tart does.
pub async fn mac(script: &str) -> Mac {
    customized(script, |builder| builder).await
}

/// A Mac that is changed before it starts.
pub async fn customized(script: &str, change: impl FnOnce(MacBuilder) -> MacBuilder) -> Mac {
    let builder = Mac::builder().tart(stand_ins::tart().await).image(IMAGE, image(script));
    change(builder.scenario(|s| s.exec_patience /= 5)).start().await.expect("a Mac")
}

/// An image with a shell script in place of the runner.
pub fn image(script: &str) -> Image {
    let text = format!("#!/bin/bash\n{script}\n");
    let files = [("admin/actions-runner/run.sh".to_owned(), (text.into_bytes(), true))];
    Image { files: files.into(), ..Image::default() }
}

/// Two slots on each of these Macs.
pub fn template(macs: &[&Mac]) -> TartTemplate {
    let host = |(number, mac): (usize, &&Mac)| HostSpec {
        name: format!("mac-{}", number + 1),
        endpoint: mac.endpoint(),
        max_vms: Some(2),
        login: Login::Given(login(mac)),
        tart_home: String::new(),
    };
    TartTemplate {
        image: IMAGE.to_owned(),
        pull_policy: PullPolicy::IfNotPresent,
        cpu: None,
        memory_mb: None,
        runner_dir: RUNNER_DIR.to_owned(),
        warm: 0,
        prune: None,
        prune_interval: Duration::from_secs(86_400),
        hosts: macs.iter().enumerate().map(host).collect(),
    }
}

/// What a Mac is logged in to with; none without sshd.
pub fn login(mac: &Mac) -> Option<SshLogin> {
    let key = mac.private_key().ok()?;
    Some(SshLogin::read(&key, &mac.known_hosts().unwrap()).unwrap())
}

/// Waits until `look` sees what it looks for.
pub async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        if begun.elapsed() > PATIENCE {
            let log = log();
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            panic!("still not so after {} s: {what}\n{}", PATIENCE.as_secs(), tail.join("\n"));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A host, as the backend shows it.
pub fn host(backend: &TartBackend, name: &str) -> HostState {
    backend.hosts().into_iter().find(|host| host.name == name).expect("the host")
}

/// Waits until all hosts were listed.
pub async fn connected(backend: &TartBackend) {
    until("the hosts are listed", || backend.instances().iter().all(|listing| listing.current).then_some(()))
        .await;
}

/// Prepares the first host and waits until that ended, one way or the other.
pub async fn prepared(backend: &TartBackend) -> HostState {
    prepared_host(backend, "mac-1").await
}

/// Prepares a host and waits until that ended.
pub async fn prepared_host(backend: &TartBackend, name: &str) -> HostState {
    connected(backend).await;
    until("the host is prepared", || {
        let host = host(backend, name);
        match host.availability {
            Availability::Unprepared => {
                backend.prepare(name);
                None
            }
            Availability::Preparing { .. } => None,
            _ => Some(host),
        }
    })
    .await
}

/// A JIT configuration that is recognised wherever it turns up.
pub fn jit() -> JitConfiguration {
    JitConfiguration::new(format!("{SECRET}-jit"))
}

/// Takes a slot of the first host and starts a runner in it.
pub async fn start(backend: &TartBackend) -> Result<Instance, Error> {
    let slot = backend.reserve("mac-1").expect("a free slot");
    start_in(slot, &runner_name("macs")).await
}

/// Starts a runner in a slot, both steps.
pub async fn start_in(mut slot: Box<dyn Reservation>, name: &str) -> Result<Instance, Error> {
    slot.ready().await?;
    slot.start(&NewRunner { name, jit: &jit() }).await
}

/// Prepares the first host, which must succeed, and starts a runner, which must too.
pub async fn started(backend: &TartBackend) -> Instance {
    let host = prepared(backend).await;
    assert_eq!(host.availability, Availability::Ready, "{}", host.message);
    start(backend).await.unwrap()
}

/// The instance as the backend shows it now.
pub fn shown(backend: &TartBackend, id: &str) -> Option<Instance> {
    let listings = backend.instances().into_iter();
    listings.flat_map(|listing| listing.instances).find(|instance| instance.id == id)
}

/// How the instance ended, once that is shown.
pub fn exit(backend: &TartBackend, id: &str) -> Option<Exit> {
    match shown(backend, id)?.state {
        InstanceState::Exited(exit) => Some(exit),
        _ => None,
    }
}

/// A VM as the Mac has it.
pub fn vm(mac: &Mac, name: &str) -> Vm {
    mac.vms().unwrap().into_iter().find(|vm| vm.name == name).expect("the VM")
}

/// Waits until nothing of ours is left on a Mac: no VM and no notes.
pub async fn nothing_left(mac: &Mac) {
    let notes = || std::fs::read_dir(mac.tart_home().join("paddock")).map_or(0, Iterator::count);
    until("nothing is left on the Mac", || {
        (mac.vms().is_ok_and(|vms| vms.is_empty()) && notes() == 0).then_some(())
    })
    .await;
}

/// How many calls of a sub-command there were.
pub fn calls(mac: &Mac, command: &str) -> usize {
    mac.calls().unwrap().iter().filter(|call| call.command() == command).count()
}

/// All that all tests of this process made Paddock log, at every level.
static LOG: LazyLock<Arc<Mutex<Vec<u8>>>> = LazyLock::new(|| {
    let log = Arc::<Mutex<Vec<u8>>>::default();
    let writer = Arc::clone(&log);
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter("trace,russh=info")
        .with_ansi(false)
        .with_writer(move || Writer(Arc::clone(&writer)))
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    log
});

/// What was logged so far.
pub fn log() -> String {
    String::from_utf8_lossy(&LOG.lock().unwrap()).into_owned()
}

struct Writer(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
