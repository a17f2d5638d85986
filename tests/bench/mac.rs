//! What a start on a Mac costs beyond the commands that it takes. Run by `cargo bench --bench mac`.
//!
//! The Mac is the stand-in behind a real sshd on this machine: the network costs nothing, so these are the times of the
//! commands and of what the controller does between them. Only a real Mac can say what its own clone and boot take.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, dead_code)]

#[path = "../tart_backend/stage.rs"]
mod stage;

use std::time::{Duration, Instant};

use paddock::backend::remote::{Endpoint, Remote, Script};
use paddock::backend::tart::TartBackend;
use paddock::backend::{Backend, Reservation};
use paddock::runner::{Instance, runner_name};
use stage::{Stage, customized, prepared, start_in, template, until};
use testkit::tart::Mac;

/// What a clone and a boot take on the stand-in.
const CLONE: Duration = Duration::from_millis(300);
const BOOT: Duration = Duration::from_millis(1500);
/// How often each is measured.
const ROUNDS: usize = 15;
/// How many times the round trips of its commands a start may take.
const GOAL: u32 = 3;

/// A warm start asks whether the guest is there, and gives it the configuration: the same, with nothing of the controller's. A
/// cold one clones, configures and runs the VM before.
const WARM: [Command; 2] = [ASK, GIVE];
const COLD: [Command; 5] = [ASK, ASK, ASK, ASK, GIVE];

/// A text that calls Tart in a VM, and what it reads.
type Command = (&'static str, &'static str);
const ASK: Command =
    (r#"PATH=$PATH:/opt/homebrew/bin:/usr/local/bin; export PATH; tart exec "$1" true </dev/null"#, "");
const GIVE: Command = (
    r#"PATH=$PATH:/opt/homebrew/bin:/usr/local/bin; export PATH; tart exec -i "$1" /bin/sh -c 'cat >/dev/null'"#,
    "a configuration",
);

#[tokio::main]
async fn main() {
    let stage = Stage::new("bench");
    let mac =
        customized("sleep 1000", |builder| builder.scenario(|s| (s.clone, s.boot) = (CLONE, BOOT))).await;
    let mut one_warm = template(&[&mac]);
    one_warm.warm = 1;
    let backend = stage.backend("set", one_warm);
    prepared(&backend).await;

    let cold = median(ROUNDS, async || {
        backend.keep_warm(false);
        until("no VM is left", || mac.vms().unwrap().is_empty().then_some(())).await;
        timed_start(&backend).await
    })
    .await;
    let warm = median(ROUNDS, async || {
        backend.keep_warm(true);
        until("a VM is warm", || (backend.warm() == Some(1)).then_some(())).await;
        timed_start(&backend).await
    })
    .await;
    let (vm, remote) = warm_vm(&backend, &mac).await;
    report("a runner in a warm VM", warm, round_trips(&remote, &vm, &WARM).await);
    let label = format!("a runner in a new VM, beyond clone ({CLONE:?}) and boot ({BOOT:?})");
    report(&label, cold.saturating_sub(CLONE + BOOT), round_trips(&remote, &vm, &COLD).await);
}

fn report(what: &str, time: Duration, commands: Duration) {
    let times = time.as_secs_f64() / commands.as_secs_f64();
    println!(
        "{what}: {time:.1?}, its commands alone {commands:.1?}: {times:.2} times, at most {GOAL} are the goal"
    );
}

/// Starts a runner, and removes it again. Returns how long the start took.
async fn timed_start(backend: &TartBackend) -> Duration {
    let slot = until("a slot is free", || backend.reserve("mac-1")).await;
    let begun = Instant::now();
    let instance = begin(slot).await;
    let took = begun.elapsed();
    backend.remove("mac-1", &instance.id).await.unwrap();
    took
}

async fn begin(slot: Box<dyn Reservation>) -> Instance {
    start_in(slot, &runner_name("macs")).await.unwrap()
}

/// A VM that is up, and a connection of our own to its host.
async fn warm_vm(backend: &TartBackend, mac: &Mac) -> (String, Remote) {
    backend.keep_warm(true);
    until("a VM is warm", || (backend.warm() == Some(1)).then_some(())).await;
    let remote = Remote::new(&Endpoint::parse(&mac.endpoint()).unwrap(), stage::login(mac)).unwrap();
    remote.connect().await.unwrap();
    (mac.vms().unwrap().remove(0).name, remote)
}

/// What commands take one after the other, by themselves.
async fn round_trips(remote: &Remote, vm: &str, commands: &[Command]) -> Duration {
    median(ROUNDS, async || {
        let begun = Instant::now();
        for (text, input) in commands {
            let script = Script::new("measuring", text, stage::PATIENCE).arg(vm).input(*input);
            let output = remote.run(&script).await.unwrap();
            assert_eq!(output.code, Some(0), "{}", output.errors());
        }
        begun.elapsed()
    })
    .await
}

async fn median(rounds: usize, mut measure: impl AsyncFnMut() -> Duration) -> Duration {
    let mut times = Vec::new();
    for _ in 0..rounds {
        times.push(measure().await);
    }
    times.sort();
    times[times.len() / 2]
}
