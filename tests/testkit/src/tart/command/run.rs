//! `run`: holds a VM until its guest stops.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use super::super::config::Os;
use super::super::failure::Failure;
use super::super::guest::{Boot, boot};
use super::super::lock::{FolderLock, PidLock};
use super::super::scenario::Effect;
use super::super::vm::{VmDir, VmState};
use super::super::{calls, leases};
use super::args::{Context, RunArgs};
use super::files::avoid_mac_collision;

/// What no wait of the stand-in outlasts.
const NEVER: Duration = Duration::from_secs(1 << 32);

pub(super) fn run(context: &Context, args: &RunArgs) -> Result<(), Failure> {
    let vm = validate(context, args)?;
    let suspended = vm.state()? == VmState::Suspended;
    let host = context.home.sim.host(&context.scenario)?;
    let storage = context.home.lock()?;
    avoid_mac_collision(context, &vm)?;
    // Read before the lock is taken: whoever closes a file loses its locks on it.
    let config = vm.config()?;
    let lock = vm.lock()?;
    if !lock.try_lock()? {
        return Err(Failure::already_running(&args.name));
    }
    drop(storage);
    let restored = vm.state_path().exists();
    if restored {
        println!("restoring VM state from a snapshot...");
        std::fs::remove_file(vm.state_path())?;
        println!("resuming VM...");
    }
    let slot = match config.os {
        Os::Linux => None,
        Os::Darwin => Some(
            leases::take_slot(&host, context.scenario.vm_limit)?.ok_or_else(|| limit_exceeded(context))?,
        ),
    };
    let mut machine = Machine {
        context,
        vm,
        mac: config.mac_address,
        suspendable: args.suspendable || suspended,
        restored,
        _lock: lock,
        _slot: slot,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let end = runtime.block_on(machine.live());
    calls::tell(&context.home.sim);
    end
}

/// What Tart checks while it reads the arguments: an error here has another form.
fn validate(context: &Context, args: &RunArgs) -> Result<VmDir, Failure> {
    let softnet = args.net_softnet
        || args.net_softnet_allow.is_some()
        || args.net_softnet_block.is_some()
        || args.net_softnet_expose.is_some();
    let networks = [!args.net_bridged.is_empty(), softnet, args.net_host];
    if networks.iter().filter(|given| **given).count() > 1 {
        let text = "--net-bridged, --net-softnet and --net-host are mutually exclusive";
        return Err(Failure::usage("run", text));
    }
    let vm = context.home.open_vm(&args.name).map_err(Failure::in_validation)?;
    let suspendable = args.suspendable || vm.state()? == VmState::Suspended;
    if suspendable && vm.config()?.os != Os::Darwin {
        return Err(Failure::usage("run", "You can only suspend macOS VMs"));
    }
    Ok(vm)
}

fn limit_exceeded(context: &Context) -> Failure {
    let running = context.home.local_vms().unwrap_or_default().into_iter();
    // Our own lock is not seen by us.
    let names: Vec<String> =
        running.filter(|vm| vm.running().unwrap_or_default()).map(|vm| vm.name()).collect();
    let hint =
        if names.is_empty() { String::new() } else { format!(" (other running VMs: {})", names.join(", ")) };
    Failure::new(format!("The number of VMs exceeds the system limit{hint}"))
}

/// A VM that runs, with all that is free again when it ends.
struct Machine<'a> {
    context: &'a Context,
    vm: VmDir,
    mac: String,
    suspendable: bool,
    restored: bool,
    _lock: PidLock,
    _slot: Option<FolderLock>,
}

/// How the guest came to its end.
enum End {
    Itself,
    Cut,
    Suspended,
    Died(u8),
}

impl Machine<'_> {
    async fn live(&mut self) -> Result<(), Failure> {
        let mut signals = Signals::new()?;
        let begin = Instant::now();
        let listener = self.listen()?;
        let mut guest = boot(&self.vm)?;
        let end = self.until_end(&mut guest, &listener, &mut signals, begin).await;
        // The socket's file stays, as a power cut leaves it; a client finds nobody behind it.
        drop(listener);
        guest.cut().await?;
        match end? {
            End::Itself | End::Cut | End::Died(0) => Ok(()),
            End::Died(code) => Err(Failure::planted(code, "The virtual machine stopped unexpectedly.")),
            End::Suspended => {
                println!("snapshot created successfully! shutting down the VM...");
                Ok(())
            }
        }
    }

    /// Binds the control socket by a short name from within the VM's folder.
    fn listen(&self) -> io::Result<UnixListener> {
        std::env::set_current_dir(self.vm.path())?;
        let path = Path::new("control.sock");
        let _ = std::fs::remove_file(path);
        UnixListener::bind(path)
    }

    async fn until_end(
        &self,
        guest: &mut Boot,
        listener: &UnixListener,
        signals: &mut Signals,
        begin: Instant,
    ) -> Result<End, Failure> {
        let scenario = &self.context.scenario;
        let up_at = begin + if self.restored { scenario.resume } else { scenario.boot };
        let agent_at = self.agent_at(up_at);
        let (dies_at, code) = self.dies_at(begin);
        let mut addressed = false;
        loop {
            tokio::select! {
                ended = guest.ended() => return Ok(ended.map(|()| End::Itself)?),
                () = sleep_until(dies_at) => return Ok(End::Died(code)),
                () = sleep_until(up_at), if !addressed => {
                    let host = self.context.home.sim.host(scenario)?;
                    leases::lease(&host, &self.mac, scenario)?;
                    addressed = true;
                }
                connection = listener.accept() => {
                    // Before the agent is up nobody is behind the socket, and the connection is closed.
                    if Instant::now() >= agent_at {
                        tokio::spawn(join(connection?.0));
                    }
                }
                _ = signals.interrupt.recv() => {
                    if !self.context.effects.contains(&Effect::Deaf) {
                        return Ok(End::Cut);
                    }
                }
                _ = signals.suspend.recv() => return self.suspend().await,
                _ = signals.request.recv() => println!("Requesting guest OS to stop..."),
            }
        }
    }

    fn agent_at(&self, up_at: Instant) -> Instant {
        self.context.effects.iter().fold(up_at, |at, effect| match effect {
            Effect::NoAgent => at + NEVER,
            Effect::LateAgent { ms } => at + Duration::from_millis(*ms),
            _ => at,
        })
    }

    fn dies_at(&self, begin: Instant) -> (Instant, u8) {
        let dies = self.context.effects.iter().find_map(|effect| match effect {
            Effect::Dies { ms, code } => Some((begin + Duration::from_millis(*ms), *code)),
            _ => None,
        });
        dies.unwrap_or((begin + NEVER, 0))
    }

    async fn suspend(&self) -> Result<End, Failure> {
        if !self.suspendable {
            println!(
                "Failed to suspend the VM: The virtual machine configuration cannot be saved or restored."
            );
            return Err(Failure::guest(1));
        }
        println!("pausing VM to take a snapshot...");
        println!("creating a snapshot...");
        tokio::time::sleep(self.context.scenario.suspend).await;
        std::fs::write(self.vm.state_path(), [])?;
        Ok(End::Suspended)
    }
}

/// The signals by which other commands speak to this one.
struct Signals {
    interrupt: Signal,
    suspend: Signal,
    request: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            suspend: signal(SignalKind::user_defined1())?,
            request: signal(SignalKind::user_defined2())?,
        })
    }
}

/// Joins a client with the guest agent, as Tart joins its control socket with a port of the guest.
async fn join(mut client: UnixStream) -> io::Result<()> {
    let mut agent = UnixStream::connect(Path::new(".guest/agent.sock")).await?;
    tokio::io::copy_bidirectional(&mut client, &mut agent).await.map(drop)
}
