//! What is about images: `pull`, `prune`, `login`, `fqn`.

use std::io::Read;
use std::time::Duration;

use jiff::Timestamp;

use super::super::cache::{Cache, by_use, prune_older_than, prune_to};
use super::super::failure::Failure;
use super::super::image::ImageName;
use super::super::registry::Registry;
use super::super::vm::VmDir;
use super::args::{Context, LoginArgs, PruneArgs, PullArgs};

pub(super) fn pull(context: &Context, args: &PullArgs) -> Result<(), Failure> {
    if args.concurrency < 1 {
        return Err(Failure::usage("pull", "network concurrency cannot be less than 1"));
    }
    if context.home.vm(&args.remote_name).initialized() {
        println!("\"{}\" is a local image, nothing to pull here!", args.remote_name);
        return Ok(());
    }
    let name = ImageName::require(&args.remote_name)?;
    println!("pulling {name}...");
    Cache::of(&context.home).pull(&name, &context.scenario, &context.effects)
}

pub(super) fn prune(context: &Context, args: &PruneArgs) -> Result<(), Failure> {
    if args.cache_budget.is_some() {
        eprintln!("--cache-budget is deprecated, please use --space-budget");
    }
    let budget = args.space_budget.or(args.cache_budget);
    if args.older_than.is_none() && budget.is_none() && !args.gc {
        return Err(Failure::usage("prune", "at least one pruning criteria must be specified"));
    }
    let cache = Cache::of(&context.home);
    if args.gc {
        cache.collect()?;
    }
    let since = args.older_than.map(|days| Timestamp::now() - Duration::from_secs(86_400) * days);
    let bytes = budget.map(|gigabytes| gigabytes << 30);
    match args.entries.as_str() {
        "caches" => {
            since.map_or(Ok(()), |since| cache.prune_older_than(since))?;
            bytes.map_or(Ok(()), |bytes| cache.prune_to(bytes))?;
        }
        "vms" => {
            since.map_or(Ok(()), |since| prune_older_than(&stopped(context)?, since))?;
            bytes.map_or(Ok(()), |bytes| prune_to(&stopped(context)?, bytes))?;
        }
        _ => {
            let text = "unsupported --entries value, please specify either \"caches\" or \"vms\"";
            return Err(Failure::usage("prune", text));
        }
    }
    Ok(())
}

/// The local VMs that do not run, whatever they are for.
fn stopped(context: &Context) -> std::io::Result<Vec<(Timestamp, VmDir)>> {
    let mut vms = context.home.local_vms()?;
    let mut running = Vec::new();
    for vm in &vms {
        running.push(vm.running()?);
    }
    let mut running = running.into_iter();
    vms.retain(|_| !running.next().unwrap_or_default());
    by_use(vms.into_iter())
}

pub(super) fn login(context: &Context, args: &LoginArgs) -> Result<(), Failure> {
    if args.username.is_some() != args.password_stdin {
        return Err(Failure::usage("login", "both --username and --password-stdin are required"));
    }
    let mut password = String::new();
    std::io::stdin().read_to_string(&mut password)?;
    if password.trim().is_empty() {
        return Err(Failure::new("invalid credentials: the password is empty"));
    }
    Ok(Registry::of(&context.home.sim).log_in(&args.host)?)
}

pub(super) fn fqn(context: &Context, name: &str) -> Result<(), Failure> {
    let name = ImageName::require(name)?;
    let vm = Cache::of(&context.home).vm(&name);
    vm.open(&name.to_string())?;
    let folder = std::fs::canonicalize(vm.path())?;
    let digest = folder.file_name().unwrap_or_default().to_string_lossy();
    println!("{}", name.with_digest(&digest));
    Ok(())
}
