//! The life of a VM: made and booted, given a runner, removed.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::debug;

use super::failure::{meaning, told};
use super::index::Vm;
use super::mac::Mac;
use super::record::{Record, is_vm_name, mac_address};
use super::scripts;
use super::template::TartTemplate;
use crate::api::Reason;
use crate::backend::Error;
use crate::backend::remote::Script;
use crate::runner::{Instance, JitConfiguration};
use crate::time::Plus;

/// For a clone. Within one volume it takes a moment; others wait for the same lock, and an image that vanished meanwhile is
/// pulled by it.
const CLONE: Duration = Duration::from_secs(600);
/// For what takes a moment.
const MOMENT: Duration = Duration::from_secs(60);
/// For a start, in which the guest is asked twice.
const START: Duration = Duration::from_secs(90);
/// Stopping a VM takes Tart up to 5 s, and its removal waits for a lock.
const REMOVE: Duration = Duration::from_secs(120);
/// How many attempts to reach a guest agent may wait at a time, so that each has a second: more with each probe, up to 5 s, as a
/// slow host needs more.
const ATTEMPTS: u32 = 7;
const MOST_ATTEMPTS: u32 = 33;

/// Makes a VM and boots it. After an error nothing is left of it, as far as the host answers; what is left in spite of that
/// carries its record.
pub(super) async fn make(
    mac: &Mac,
    name: &str,
    record: &Record,
    template: &TartTemplate,
) -> Result<(), Error> {
    let begun = Instant::now();
    let made = try_to_make(mac, name, record, template).await;
    match &made {
        Ok(()) => {
            debug!(vm = name, host = %mac.endpoint, seconds = begun.elapsed().as_secs_f64(), "VM is up")
        }
        Err(error) => {
            debug!(vm = name, host = %mac.endpoint, %error, "VM could not be made");
            if error.reason() == Reason::HostFull {
                mac.host.update(|state| {
                    state.slots.full(Instant::now());
                    state.slots.users()
                });
            }
            discard(mac, &record.scale_set_uid, name).await;
        }
    }
    made
}

async fn try_to_make(mac: &Mac, name: &str, record: &Record, template: &TartTemplate) -> Result<(), Error> {
    let optional = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
    let clone = mac.script("cloning the image", scripts::CLONE, CLONE);
    succeed(mac, clone.arg(name).arg(record.line()).arg(&template.image), "the image cannot be cloned")
        .await?;
    let configure = mac
        .script("configuring the VM", scripts::CONFIGURE, MOMENT)
        .arg(name)
        .arg(optional(template.cpu.map(u64::from)))
        .arg(optional(template.memory_mb))
        .arg(mac_address(&record.cluster, &mac.endpoint.to_string(), record.place));
    succeed(mac, configure, "the VM cannot be configured").await?;
    let run = mac.script("starting the VM", scripts::RUN, MOMENT).arg(name);
    succeed(mac, run, "the VM cannot be started").await?;
    let spare = Vm {
        name: name.to_owned(),
        record: Some(record.clone()),
        runner: None,
        started: false,
        exit: None,
        running: true,
        down_since: None,
        unstarted: 0,
    };
    let note = |vm: Vm| mac.change(|view| view.index.put(vm, Instant::now()).into_iter().collect());
    note(spare.clone());
    await_agent(mac, name, mac.limits.boot).await?;
    // A listing meanwhile may have shown it as not running yet: Tart's starts wait for each other.
    note(spare);
    Ok(())
}

async fn succeed(mac: &Mac, script: Script, what: &str) -> Result<(), Error> {
    let output = mac.run(&script).await?;
    if output.code == Some(0) { Ok(()) } else { Err(meaning(what, &output)) }
}

/// Waits until the guest agent of a VM answers.
pub(super) async fn await_agent(mac: &Mac, name: &str, within: Duration) -> Result<(), Error> {
    let deadline = Instant::now().plus(within);
    let mut attempts = ATTEMPTS;
    loop {
        let probe = mac.script("asking the guest agent", scripts::PROBE, MOMENT);
        let output = mac.run(&probe.arg(name).arg(attempts.to_string())).await?;
        match output.code {
            Some(0) => return Ok(()),
            Some(scripts::NOT_YET) if Instant::now() < deadline => {}
            Some(scripts::NOT_YET) => {
                let message = format!(
                    "the guest agent did not answer within {} s: is it installed in the image?",
                    within.as_secs()
                );
                return Err(Error::no_capacity(Reason::GuestAgentSilent, message));
            }
            Some(scripts::NO_SUCH_VM) => {
                let message = "the VM was removed while it booted".to_owned();
                return Err(Error::no_capacity(Reason::TartError, message));
            }
            Some(scripts::RAN) => return Err(meaning("the VM ended while it booted", &output)),
            _ => return Err(meaning("the guest agent cannot be asked", &output)),
        }
        attempts = (attempts + 1).min(MOST_ATTEMPTS);
    }
}

/// Starts a runner in a VM that is up. After an error the VM is removed.
pub(super) async fn start(
    mac: &Mac,
    name: &str,
    runner: (&str, &JitConfiguration),
    (record, template): (&Record, &TartTemplate),
) -> Result<Instance, Error> {
    let (runner, jit) = runner;
    let script = mac
        .script("starting the runner", scripts::START, START)
        .arg(name)
        .arg(runner)
        .arg(&template.runner_dir)
        .arg(scripts::GUEST_RECEIVES)
        .arg(scripts::GUEST_RUNS)
        .input(jit.expose());
    match succeed(mac, script, "the runner cannot be started in its VM").await {
        Ok(()) => {}
        Err(error) => {
            discard(mac, &record.scale_set_uid, name).await;
            // The image is there: the VM or what is in it is not.
            return Err(match error {
                Error::NoCapacity(why) => Error::no_capacity(Reason::TartError, why.message),
                error => error,
            });
        }
    }
    let vm = Vm {
        name: name.to_owned(),
        record: Some(record.clone()),
        runner: Some(runner.to_owned()),
        started: true,
        exit: None,
        running: true,
        down_since: None,
        unstarted: 0,
    };
    let instance = vm.instance(&record.cluster).ok_or(Error::Gone)?;
    mac.change(|view| view.index.put(vm, Instant::now()).into_iter().collect());
    // It may have ended already, and the note of that been told before the VM was known to have a runner.
    mac.suspect();
    Ok(instance)
}

/// Removes a VM of a scale set of this cluster, running or not, and waits until it is gone.
pub(super) async fn remove(mac: &Mac, scale_set_uid: &str, name: &str) -> Result<(), Error> {
    let cluster = mac.cluster.clone();
    let output =
        mac.run(&marked(mac, ("removing the VM", scripts::REMOVE), (&cluster, scale_set_uid), name)?).await?;
    match output.code {
        Some(0) => {
            mac.forget(name);
            Ok(())
        }
        Some(scripts::NO_SUCH_VM) => {
            mac.forget(name);
            Err(Error::Gone)
        }
        Some(scripts::NOT_OWN) => Err(Error::Refused(format!("VM {name} does not belong to this scale set"))),
        _ => Err(meaning("the VM cannot be removed", &output)),
    }
}

/// Reads the end of what the runner in a VM of a scale set of this cluster printed.
pub(super) async fn log_tail(
    mac: &Mac,
    scale_set_uid: &str,
    name: &str,
    runner_dir: &str,
) -> Result<String, Error> {
    let what = ("reading the runner's log", scripts::LOG);
    let script = marked(mac, what, (&mac.cluster, scale_set_uid), name)?.arg(runner_dir);
    let output = mac.run(&script).await?;
    match output.code {
        Some(scripts::NO_SUCH_VM) => Err(Error::Gone),
        Some(scripts::NOT_OWN) => Err(Error::Refused(format!("VM {name} does not belong to this scale set"))),
        _ => Ok(output.text()),
    }
}

/// A script that looks at the record first: the id may come from a status, which anyone may have written.
fn marked(
    mac: &Mac,
    (what, text): (&'static str, &'static str),
    (cluster, scale_set_uid): (&str, &str),
    name: &str,
) -> Result<Script, Error> {
    if !is_vm_name(name) {
        return Err(Error::Refused(format!("{} is not the name of a VM of ours", told(name))));
    }
    let script = mac.script(what, text, REMOVE).arg(name);
    Ok(Record::marks(cluster, scale_set_uid).into_iter().fold(script, |script, mark| script.arg(mark)))
}

/// Removes what a start that failed may have left.
async fn discard(mac: &Mac, scale_set_uid: &str, name: &str) {
    if let Err(error) = remove(mac, scale_set_uid, name).await
        && !matches!(error, Error::Gone)
    {
        debug!(vm = name, %error, "what a failed start left cannot be removed now");
    }
}

/// The record of a VM that is to be made now.
pub(super) fn record(
    (cluster, scale_set_uid, scale_set): (&str, &str, &str),
    backend: &str,
    (template_hash, digest): (&str, Option<String>),
    place: u32,
) -> Record {
    Record {
        cluster: cluster.to_owned(),
        scale_set_uid: scale_set_uid.to_owned(),
        scale_set: scale_set.to_owned(),
        backend: backend.to_owned(),
        template_hash: template_hash.to_owned(),
        digest,
        place,
        created_at: Timestamp::now(),
    }
}
