//! What changes the files of VMs: `clone`, `set`, `rename`, `delete`.

use std::fs::OpenOptions;

use super::super::cache::Cache;
use super::super::config::{Os, VmConfig, random_id, random_mac};
use super::super::failure::Failure;
use super::super::image::ImageName;
use super::super::lock::Holder;
use super::super::scenario::{Effect, Overwrite};
use super::super::vm::{VmDir, VmState};
use super::args::{CloneArgs, Context, SetArgs};

pub(super) fn clone(context: &Context, args: &CloneArgs) -> Result<(), Failure> {
    let Context { home, scenario, effects } = context;
    if args.new_name.contains('/') {
        return Err(Failure::usage("clone", "<new-name> should be a local name"));
    }
    if args.concurrency < 1 {
        return Err(Failure::usage("clone", "network concurrency cannot be less than 1"));
    }
    if args.stacked {
        return Err(Failure::foreign("--stacked is not simulated"));
    }
    reject_taken(context, args)?;
    let cache = Cache::of(home);
    let image = ImageName::parse(&args.source);
    if let Some(image) = &image
        && !cache.vm(image).initialized()
    {
        cache.pull(image, scenario, effects)?;
    }
    let source = image.as_ref().map_or_else(|| home.vm(&args.source), |image| cache.vm(image));
    source.open(&args.source)?;
    let (tmp, _tmp_lock) = home.temporary()?;
    let lock = home.lock()?;
    reject_taken(context, args)?;
    let mac = source.config()?.mac_address;
    let others = home.local_vms()?;
    let known = others.iter().map(VmDir::config).collect::<Result<Vec<_>, _>>()?;
    let new_mac =
        known.iter().any(|config| config.mac_address == mac) && source.state()? != VmState::Suspended;
    if let Some(text) = half_way(effects) {
        std::fs::copy(source.config_path(), tmp.config_path())?;
        return Err(Failure::planted(1, text));
    }
    std::thread::sleep(scenario.clone);
    source.copy_to(&tmp, new_mac)?;
    tmp.set_accessed(jiff::Timestamp::now())?;
    replace(context, &args.new_name, &tmp)?;
    drop(lock);
    let unclaimed = source.size()?.saturating_sub(source.allocated()?);
    Ok(cache.reclaim(unclaimed.min(args.prune_limit << 30), Some(&source), scenario)?)
}

fn half_way(effects: &[Effect]) -> Option<&str> {
    effects.iter().find_map(|effect| match effect {
        Effect::HalfWay { text } => Some(text.as_str()),
        _ => None,
    })
}

fn reject_taken(context: &Context, args: &CloneArgs) -> Result<(), Failure> {
    let taken = context.home.vm(&args.new_name).initialized();
    if context.scenario.overwrite == Overwrite::Asked && !args.overwrite && taken {
        let text = format!("VM \"{}\" already exists, use --overwrite to replace it", args.new_name);
        return Err(Failure::usage("clone", text));
    }
    Ok(())
}

/// Moves a finished VM to its name, whatever is there.
fn replace(context: &Context, name: &str, finished: &VmDir) -> Result<(), Failure> {
    let target = context.home.vm(name);
    std::fs::create_dir_all(context.home.vms())?;
    if target.exists() {
        if context.scenario.overwrite != Overwrite::Silent && target.running()? {
            return Err(Failure::running(name));
        }
        target.remove()?;
    }
    Ok(std::fs::rename(finished.path(), target.path())?)
}

pub(super) fn set(context: &Context, args: &SetArgs) -> Result<(), Failure> {
    let vm = context.home.open_vm(&args.name)?;
    let mut config = vm.config()?;
    let darwin = config.os == Os::Darwin;
    if let Some(cpu) = args.cpu {
        let least = if darwin { config.cpu_count_min } else { 1 };
        at_least(cpu.into(), least.into(), |least| format!("VM should have {least} CPU cores at minimum"))?;
        config.cpu_count = cpu;
    }
    if let Some(memory) = args.memory {
        let least = if darwin { config.memory_size_min } else { 128 << 20 };
        at_least(memory << 20, least, |least| format!("VM should have {least} bytes of memory at minimum"))?;
        config.memory_size = memory << 20;
    }
    if args.random_mac {
        config.mac_address = random_mac();
    }
    if args.random_serial && darwin {
        config.ecid = Some(random_id());
    }
    config.write(&vm.config_path())?;
    args.disk_size.map_or(Ok(()), |size| resize(&vm, size.into()))
}

fn at_least(asked: u64, least: u64, rule: impl Fn(u64) -> String) -> Result<(), Failure> {
    if asked >= least {
        return Ok(());
    }
    Err(Failure::foreign(format!("LessThanMinimalResourcesError: {} (requested {asked})", rule(least))))
}

fn resize(vm: &VmDir, gigabytes: u64) -> Result<(), Failure> {
    let (now, wanted) = (vm.size()?, gigabytes * 1_000_000_000);
    if wanted < now {
        let now = now / 1_000_000_000;
        return Err(Failure::new(format!(
            "new disk size of {gigabytes} GB should be larger than the current disk size of {now} GB"
        )));
    }
    Ok(OpenOptions::new().write(true).open(vm.disk_path())?.set_len(wanted)?)
}

pub(super) fn rename(context: &Context, name: &str, new_name: &str) -> Result<(), Failure> {
    let home = &context.home;
    if new_name.contains('/') {
        return Err(Failure::usage("rename", "<new-name> should be a local name"));
    }
    let _lock = home.lock()?;
    if !home.vm(name).initialized() {
        return Err(Failure::usage("rename", format!("failed to rename a non-existent local VM: {name}")));
    }
    if home.vm(new_name).initialized() {
        let text =
            format!("failed to rename VM {name}, target VM {new_name} already exists, delete it first!");
        return Err(Failure::usage("rename", text));
    }
    Ok(std::fs::rename(home.vm(name).path(), home.vm(new_name).path())?)
}

pub(super) fn delete(context: &Context, name: &str) -> Result<(), Failure> {
    if let Some(image) = ImageName::parse(name) {
        return Cache::of(&context.home).delete(&image);
    }
    let vm = context.home.vm(name);
    let lock = vm.lock().map_err(|_| Failure::missing(name))?;
    if lock.holder()? != Holder::Nobody || !lock.try_lock()? {
        return Err(Failure::running(name));
    }
    Ok(vm.remove()?)
}

/// Gives a VM another MAC if one that runs has the same, as `run` does under the lock of `TART_HOME`.
pub(super) fn avoid_mac_collision(context: &Context, vm: &VmDir) -> Result<(), Failure> {
    let VmConfig { mac_address, .. } = vm.config()?;
    for other in context.home.local_vms()? {
        if other.name() != vm.name() && other.running()? && other.config()?.mac_address == mac_address {
            println!("There is already a running VM with the same MAC address!");
            println!("Resetting VM to assign a new MAC address...");
            return vm.renew_mac();
        }
    }
    Ok(())
}
