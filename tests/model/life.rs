//! One controller process: the real core, the world as it reaches it, and the loop that reconciles. It may die at any
//! moment; what it asked for may then still happen, and no answer ever comes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use paddock::api::RunnerScaleSet;
use paddock::api::status::HostStatus;
use paddock::backend::{Availability, Providers, Requeuer, SlotQueue};
use paddock::controller::TestDriver;
use paddock::github::{ClientConfig, Error, RateLimit, ScaleSetService};
use paddock::runner::Exit;
use paddock::scale_set::Environment;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::cluster;
use crate::ecs;
use crate::fake::{Faked, FakedProvider};
use crate::history::{Kind, Weather};
use crate::hosts::{self, Container, Place, View};
use crate::left_out;
use crate::provider::Hosts;
use crate::service::Service;
use crate::sim::{Sim, State};

/// A reconcile that failed is tried again after this.
const AGAIN: Duration = Duration::from_secs(5);
/// How often hosts are listed.
const LISTED: (u64, u64) = (24_000, 36_000);
/// How often the reaper makes its round.
const ROUND: (u64, u64) = (45_000, 75_000);
/// No controller does so much in a second unless it spins.
const MOST_CALLS: u32 = 400;

/// What a process holds, and what it was told.
pub struct Memory {
    pub alive: bool,
    /// It may act.
    pub leads: bool,
    /// It was told to stop.
    pub stopping: bool,
    pub began: Timestamp,
    pub views: Vec<View>,
    pub places: BTreeMap<u64, Place>,
    /// Who waits for the slots of each host.
    pub queues: Vec<SlotQueue>,
    /// How many places others took on a host while a set waited there with jobs that had no runner, by host and set.
    pub passed_over: BTreeMap<(usize, usize), u32>,
    /// A planted bug: it takes places where none is free.
    pub takes_any_slot: bool,
    /// A planted bug: whoever comes first takes the slot.
    pub jumps_the_queue: bool,
    /// What its watch shows, by set.
    pub handed: Vec<Option<Arc<RunnerScaleSet>>>,
    /// What it reconciles, or reconciled last.
    pub acting: Vec<Option<Arc<RunnerScaleSet>>>,
    /// The instances that it was ever shown.
    pub seen: BTreeSet<String>,
    /// The hashes of its backends' templates, by set and name.
    pub templates: BTreeMap<(usize, String), String>,
    /// The runners that the status told of when it began.
    pub remembered: Vec<BTreeSet<String>>,
    /// How many runners that status told of on each host.
    pub said: Vec<BTreeMap<usize, usize>>,
    /// The assigned jobs that it was last told of, and since when it is told so; none when that is not sure.
    pub told: Vec<Option<(u32, Timestamp)>>,
    /// What it was last shown of each host, by set and backend.
    pub shown: BTreeMap<(usize, String, usize), Availability>,
    /// When runners were registered.
    pub minted: Vec<Vec<Timestamp>>,
    second: i64,
    calls: u32,
}

impl Memory {
    pub fn saw(&mut self, host: usize) {
        self.seen.extend(self.views[host].instances.keys().cloned());
    }

    /// For how many runners a set waits for slots of a host.
    pub fn waiting(&self, set: usize, host: usize) -> u32 {
        let user = hosts::user(set);
        (user..user + hosts::USERS_OF_A_SET).map(|user| self.queues[host].runners_of(user)).sum()
    }

    /// Whether it can know of an instance.
    pub fn knows(&self, set: usize, id: &str, runner: &str) -> bool {
        self.seen.contains(id)
            || self.remembered[set].contains(runner)
            || self.places.values().any(|place| place.runner.as_deref() == Some(runner))
    }
}

/// One controller process.
pub struct Life {
    pub sim: Arc<Sim>,
    pub number: usize,
    sets: usize,
    requeuer: OnceLock<Requeuer>,
    suspicions: Vec<Notify>,
    slots: Vec<Notify>,
    stopping: CancellationToken,
    core: OnceLock<Arc<TestDriver>>,
    tasks: std::sync::Mutex<Vec<JoinHandle<()>>>,
    /// All sets use one credential.
    pub limit: RateLimit,
}

/// Puts something between the controller and its world.
pub type Veil = Arc<dyn Fn(Arc<Life>, Arc<dyn Environment>) -> Arc<dyn Environment> + Send + Sync>;

impl Life {
    /// A controller begins.
    pub fn begin(sim: &Arc<Sim>, veil: &Veil) -> Arc<Life> {
        let mut state = sim.state();
        let number = state.lives.len();
        let sets = state.cluster.objects.len();
        let memory = Memory {
            alive: true,
            leads: true,
            stopping: false,
            began: state.now,
            views: vec![View::default(); state.hosts.len()],
            places: BTreeMap::new(),
            queues: state.hosts.iter().map(|_| SlotQueue::default()).collect(),
            passed_over: BTreeMap::new(),
            takes_any_slot: false,
            jumps_the_queue: false,
            handed: vec![None; sets],
            acting: vec![None; sets],
            seen: BTreeSet::new(),
            templates: BTreeMap::new(),
            remembered: vec![BTreeSet::new(); sets],
            said: vec![BTreeMap::new(); sets],
            told: vec![None; sets],
            shown: BTreeMap::new(),
            minted: vec![Vec::new(); sets],
            second: 0,
            calls: 0,
        };
        state.lives.push(memory);
        state.note(|| format!("controller {number} begins"));
        let hosts = state.hosts.len();
        drop(state);
        let life = Arc::new(Life {
            sim: sim.clone(),
            number,
            sets,
            requeuer: OnceLock::new(),
            suspicions: (0..hosts).map(|_| Notify::new()).collect(),
            slots: (0..hosts).map(|_| Notify::new()).collect(),
            stopping: CancellationToken::new(),
            core: OnceLock::new(),
            tasks: std::sync::Mutex::default(),
            limit: RateLimit::default(),
        });
        life.run(veil, sets, hosts);
        life
    }

    fn run(self: &Arc<Self>, veil: &Veil, sets: usize, hosts: usize) {
        let client = cluster::client(self);
        let world = |requeuer: Requeuer| {
            let _ = self.requeuer.set(requeuer.clone());
            let providers = Providers::new(vec![match Faked::new(self, requeuer) {
                Some(faked) => Arc::new(FakedProvider(Arc::new(faked))),
                None => Arc::new(Hosts(self.clone())),
            }]);
            veil(self.clone(), Arc::new(Reached { life: self.clone(), providers }))
        };
        let core = TestDriver::new(client, crate::sim::CLUSTER, "paddock", self.stopping.clone(), world);
        let core = Arc::new(core);
        let _ = self.core.set(core.clone());
        let woken: Arc<Vec<Notify>> = Arc::new((0..sets).map(|_| Notify::new()).collect());
        let mut tasks = vec![tokio::spawn(wakes(core.clone(), woken.clone()))];
        for set in 0..sets {
            tasks.push(tokio::spawn(watch(self.clone(), set, woken.clone())));
            tasks.push(tokio::spawn(reconcile(self.clone(), core.clone(), set, woken.clone())));
        }
        tasks.push(tokio::spawn(rounds(self.clone(), core)));
        // The fake does that by itself.
        let hosts = if self.sim.state().fake.is_some() { 0 } else { hosts };
        tasks.extend((0..hosts).map(|host| tokio::spawn(follow(self.clone(), host))));
        tasks.extend((0..hosts).map(|host| tokio::spawn(hosts::keep_queue(self.clone(), host))));
        *self.tasks.lock().expect("held for moments") = tasks;
    }

    /// It dies on the spot.
    pub fn kill(&self) {
        let mut state = self.sim.state();
        if std::mem::replace(&mut state.lives[self.number].alive, false) {
            state.note(|| format!("controller {} is dead", self.number));
        }
        state.lives[self.number].leads = false;
        drop(state);
        self.tasks.lock().expect("held for moments").drain(..).for_each(|task| task.abort());
    }

    /// It is told to stop, and says farewell.
    pub fn stop(&self) {
        let mut state = self.sim.state();
        state.lives[self.number].stopping = true;
        state.note(|| format!("controller {} stops", self.number));
        drop(state);
        self.tasks.lock().expect("held for moments").drain(..).for_each(|task| task.abort());
        self.stopping.cancel();
    }

    /// It does not lead any more; what it asked for is still on its way.
    pub fn depose(&self) {
        let mut state = self.sim.state();
        state.lives[self.number].leads = false;
        state.note(|| format!("controller {} does not lead any more", self.number));
        drop(state);
        if let Some(core) = self.core.get() {
            core.depose();
        }
        self.stopping.cancel();
    }

    pub fn lives(&self, state: &State) -> bool {
        state.lives[self.number].alive
    }

    pub fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Returns while it lives, and never after.
    pub async fn living(&self) {
        let lives = self.lives(&self.sim.state());
        if !lives {
            std::future::pending::<()>().await;
        }
    }

    /// Looks at once whether a host still answers.
    pub fn suspect(&self, host: usize) {
        self.suspicions[host].notify_one();
    }

    /// Waits until that is asked for.
    pub async fn suspected(&self, host: usize) {
        self.suspicions[host].notified().await;
    }

    /// Which slots of a host are taken, or waited for, has changed.
    pub fn change_slots(&self, host: usize) {
        self.slots[host].notify_one();
    }

    /// Waits until that is so.
    pub async fn slots_changed(&self, host: usize) {
        self.slots[host].notified().await;
    }

    pub fn sets(&self) -> usize {
        self.sets
    }

    pub fn wake(&self, set: usize) {
        if let Some(requeuer) = self.requeuer.get() {
            requeuer.requeue(&cluster::uid(set));
        }
    }

    pub fn requeue_all(&self) {
        (0..self.sets).for_each(|set| self.wake(set));
    }

    /// Counts what it does: who spins is found.
    pub fn count_call(&self, state: &mut State) {
        let second = state.now.as_second();
        let memory = &mut state.lives[self.number];
        if memory.second != second {
            (memory.second, memory.calls) = (second, 0);
        }
        memory.calls += 1;
        assert!(memory.calls < 100 * MOST_CALLS, "the controller spins");
        if memory.calls == MOST_CALLS {
            state.violate(9, format!("controller {} does {MOST_CALLS} things in a second", self.number));
        }
    }
}

/// The world, as one controller reaches it.
struct Reached {
    life: Arc<Life>,
    providers: Providers,
}

impl Environment for Reached {
    fn now(&self) -> Timestamp {
        self.life.sim.now()
    }

    fn uptime(&self) -> Duration {
        self.life.sim.elapsed()
    }

    fn github(&self, _: &ClientConfig) -> Result<Arc<dyn ScaleSetService>, Error> {
        Ok(Arc::new(Service { life: self.life.clone() }))
    }

    fn providers(&self) -> &Providers {
        &self.providers
    }
}

/// The reaper's rounds.
async fn rounds(life: Arc<Life>, core: Arc<TestDriver>) {
    loop {
        life.sim.pause(ROUND.0, ROUND.1).await;
        core.make_round().await;
    }
}

async fn wakes(core: Arc<TestDriver>, woken: Arc<Vec<Notify>>) {
    let mut wakes = std::pin::pin!(core.wakes(None));
    while let Some((_, name)) = wakes.next().await {
        let set = (0..woken.len()).find(|set| cluster::name(*set) == name);
        set.into_iter().for_each(|set| woken[set].notify_one());
    }
}

/// The watch of one object: what it shows is late, and stands still while the API server does not answer.
async fn watch(life: Arc<Life>, set: usize, woken: Arc<Vec<Notify>>) {
    let mut changed = life.sim.cluster.follow();
    loop {
        life.sim.pause(5, 150).await;
        {
            let mut state = life.sim.state();
            if state.cluster.weather != Weather::Down {
                let object = state.cluster.objects[set].clone();
                let memory = &mut state.lives[life.number];
                let version = |o: &Option<Arc<RunnerScaleSet>>| {
                    o.as_ref().and_then(|o| o.metadata.resource_version.clone())
                };
                if version(&memory.handed[set]) != version(&object) {
                    if memory.handed[set].is_none()
                        && let Some(status) = object.as_ref().and_then(|o| o.status.as_ref())
                    {
                        memory.remembered[set] = status.runners.iter().map(|r| r.name.clone()).collect();
                        let hosts = status.backends.iter().flat_map(|backend| &backend.hosts);
                        let count = |host: &HostStatus| host.current_runners.unsigned_abs() as usize;
                        memory.said[set] =
                            hosts.map(|host| (left_out::number(&host.name), count(host))).collect();
                    }
                    memory.handed[set] = object;
                    woken[set].notify_one();
                }
            }
        }
        changed.changed().await;
    }
}

/// Plays kube-rs: one at a time per object; when it changed, when it is woken, when it is time.
async fn reconcile(life: Arc<Life>, core: Arc<TestDriver>, set: usize, woken: Arc<Vec<Notify>>) {
    let mut next: Option<Instant> = None;
    loop {
        tokio::select! {
            biased;
            () = woken[set].notified() => {}
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
        }
        next = None;
        let object = {
            let mut state = life.sim.state();
            life.count_call(&mut state);
            let memory = &mut state.lives[life.number];
            memory.acting[set].clone_from(&memory.handed[set]);
            memory.acting[set].clone()
        };
        let Some(object) = object else { continue };
        next = match core.reconcile(&object).await {
            Ok(pause) => pause.map(|pause| Instant::now() + pause),
            Err(error) => {
                life.sim.state().note(|| format!("reconciling set {set} fails: {error}"));
                Some(Instant::now() + AGAIN)
            }
        };
        // Nothing that is done is done in no time.
        sleep(Duration::from_millis(1)).await;
    }
}

/// Keeps what a controller is shown of a host.
async fn follow(life: Arc<Life>, host: usize) {
    if life.sim.state().setup.kind == Kind::Ecs {
        return ecs::follow(life, host).await;
    }
    let mut changed = life.sim.hosts[host].follow();
    life.sim.pause(1, 400).await;
    loop {
        if !life.sim.state().hosts[host].reachable {
            lose(&life, host);
            changed.changed().await;
            life.sim.pause(50, 15_000).await;
            continue;
        }
        list(&life, host);
        let relist = Instant::now() + life.sim.state().millis(LISTED.0, LISTED.1);
        loop {
            tokio::select! {
                biased;
                () = sleep_until(relist) => break,
                () = life.suspicions[host].notified() => break,
                () = changed.changed() => {}
            }
            life.sim.pause(1, 400).await;
            if !life.sim.state().hosts[host].reachable {
                break;
            }
            show(&life, host);
        }
    }
}

pub fn lose(life: &Arc<Life>, host: usize) {
    let mut state = life.sim.state();
    let now = state.now;
    let view = &mut state.lives[life.number].views[host];
    view.mac.down_since.get_or_insert(now);
    let was_up = std::mem::replace(&mut view.up, false);
    drop(state);
    if was_up {
        life.requeue_all();
    }
}

/// A whole listing.
fn list(life: &Arc<Life>, host: usize) {
    let mut state = life.sim.state();
    let now = state.now;
    // Two such listings in a row would be believed, and rightly.
    let before = state.lives[life.number].views[host].too_little;
    let empty = std::mem::take(&mut state.hosts[host].empty_listing) && !before;
    let mut shown = if empty { BTreeMap::new() } else { state.hosts[host].instances.clone() };
    for (id, instance) in &mut shown {
        let before = state.lives[life.number].views[host].instances.get(id).map_or(0, |i| i.unstarted);
        instance.unstarted = before + 1;
    }
    if empty {
        state.note(|| format!("host {host} shows controller {} nothing", life.number));
    }
    let spares = if empty { BTreeMap::new() } else { state.hosts[host].mac.spares.clone() };
    let view = &mut state.lives[life.number].views[host];
    (view.mac.spares, view.mac.down_since) = (spares, None);
    view.connections += u64::from(!view.up);
    view.up = true;
    view.too_little = empty;
    view.misled = if empty { Some(now) } else { view.misled };
    view.listed_at = Some(now);
    view.instances = shown;
    state.lives[life.number].saw(host);
    drop(state);
    life.change_slots(host);
    life.requeue_all();
}

/// What events tell between listings.
fn show(life: &Arc<Life>, host: usize) {
    let mut state = life.sim.state();
    if state.lives[life.number].views[host].too_little {
        return;
    }
    let (now, slots) = (state.now, state.hosts[host].slots.unwrap_or(u32::MAX) as usize);
    let mut shown = state.hosts[host].instances.clone();
    let spares = state.hosts[host].mac.spares.clone();
    let view = &mut state.lives[life.number].views[host];
    view.mac.spares = spares;
    for (id, instance) in &mut shown {
        instance.unstarted = view.instances.get(id).map_or(0, |i| i.unstarted);
    }
    // What someone else removed is shown as ended until the next listing.
    for (id, gone) in &view.instances {
        if !shown.contains_key(id) {
            let mut gone = gone.clone();
            gone.end(Exit { code: None, out_of_memory: false, at: now, ..Exit::default() });
            shown.insert(id.clone(), gone);
        }
    }
    let before = std::mem::replace(&mut view.instances, shown);
    let after = &view.instances;
    let full =
        |instances: &BTreeMap<String, Container>| instances.values().filter(|i| i.live()).count() >= slots;
    let changed = after.iter().filter(|(id, i)| before.get(*id).is_none_or(|was| was.shown != i.shown));
    let mut affected: BTreeSet<usize> = changed.map(|(_, i)| i.set).collect();
    if full(&before) && !full(after) {
        affected.extend(0..life.sets);
    }
    state.lives[life.number].saw(host);
    drop(state);
    life.change_slots(host);
    affected.into_iter().for_each(|set| life.wake(set));
}
