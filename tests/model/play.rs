//! Plays a history: the moves, one after another, then quiet, and looks at the world after each step.

use std::cell::{Cell, RefCell};
use std::panic;
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use paddock::runner::InstanceState;
use testkit::changes::Changes;
use tokio::runtime::Builder;
use tokio::time::sleep;

use crate::fake;
use crate::github::{End, JobRecord, JobState, LAPSE, Presence};
use crate::history::{Fate, History, Kind, Move, Starts, Weather};
use crate::hosts::Container;
use crate::left_out;
use crate::life::{Life, Veil};
use crate::rules::{self, Violation};
use crate::sim::{Sim, State, between};

/// After the last move, with all faults mended, and after each job that is over, the world has this long to come to rest: where
/// each job takes the boot of a VM on the only slot, all of them take longer.
const REST: Duration = Duration::from_secs(50 * 60);
/// And stays at rest.
const AT_REST: Duration = Duration::from_secs(100);
/// For so long a host hangs that did when all else was mended.
const HANGS_ON: Duration = Duration::from_secs(20 * 60);
/// A controller that is told to stop has this long.
const FAREWELL: Duration = Duration::from_secs(8);
/// How often the world is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// What came of a history.
pub struct Outcome {
    pub violation: Option<Violation>,
    pub trace: Vec<String>,
}

thread_local! {
    static PLAYING: Cell<bool> = const { Cell::new(false) };
    static PANICKED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// A task that panics breaks a promise too, wherever it runs. With RUST_LOG the controller's own words are shown.
fn catch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        if std::env::var_os("RUST_LOG").is_some() {
            let filter = tracing_subscriber::EnvFilter::from_default_env();
            tracing_subscriber::fmt()
                .with_env_filter(filter)
                .without_time()
                .with_writer(std::io::stderr)
                .init();
        }
        panic::set_hook(Box::new(move |info| {
            if PLAYING.get() {
                PANICKED.with_borrow_mut(|first| first.get_or_insert_with(|| info.to_string()).truncate(500));
            } else {
                before(info);
            }
        }));
    });
}

/// Plays a history to its end, or to the first rule that is broken.
pub fn play(history: &History, veil: &Veil, traced: bool) -> Outcome {
    catch_panics();
    paddock::rng::seed(history.seed);
    PANICKED.set(None);
    PLAYING.set(true);
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    let sim = runtime.block_on(async {
        let sim = Sim::new(&history.setup, history.seed, traced);
        Play::new(sim.clone(), veil.clone()).run(history).await;
        sim
    });
    drop(runtime);
    PLAYING.set(false);
    let mut state = sim.state();
    if let Some(what) = PANICKED.take() {
        state.violations.clear();
        state.violate(0, what);
    }
    Outcome { violation: state.violations.first().cloned(), trace: state.trace.take().unwrap_or_default() }
}

/// A history that is played.
struct Play {
    sim: Arc<Sim>,
    controllers: Arc<Controllers>,
}

/// Who leads, if anybody, and who is still there.
struct Controllers {
    sim: Arc<Sim>,
    veil: Veil,
    leader: Mutex<Option<Arc<Life>>>,
}

impl Controllers {
    /// Another one begins after a while, unless one has begun by then.
    fn begin_after(self: &Arc<Self>, wait: Duration) {
        let this = self.clone();
        tokio::spawn(async move {
            sleep(wait).await;
            this.ensure();
        });
    }

    fn ensure(&self) {
        let mut leader = self.leader.lock().expect("held for moments");
        if leader.is_none() {
            *leader = Some(Life::begin(&self.sim, &self.veil));
        }
    }

    fn take(&self) -> Option<Arc<Life>> {
        self.leader.lock().expect("held for moments").take()
    }
}

fn kill_after(life: Arc<Life>, wait: Duration) {
    tokio::spawn(async move {
        sleep(wait).await;
        life.kill();
    });
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}

impl Play {
    fn new(sim: Arc<Sim>, veil: Veil) -> Play {
        let controllers = Arc::new(Controllers { sim: sim.clone(), veil, leader: Mutex::default() });
        Play { sim, controllers }
    }

    async fn run(&self, history: &History) {
        if history.setup.kind == Kind::Fake {
            self.put_fakes();
        }
        tokio::spawn(age(self.sim.clone()));
        self.controllers.ensure();
        for step in &history.steps {
            sleep(step.after).await;
            if self.broken() {
                return;
            }
            self.sim.state().note(|| format!("-- {:?}", step.what));
            self.make(step.what);
            rules::look(&mut self.sim.state());
        }
        self.sim.state().note(|| "-- quiet".to_owned());
        self.quiet();
        self.rest().await;
    }

    fn put_fakes(&self) {
        let fake = fake::hosts(&self.sim);
        self.sim.state().fake = Some(fake.clone());
        for host in 0..self.sim.hosts.len() {
            tokio::spawn(fake::fall_silent(self.sim.clone(), fake.clone(), host));
        }
    }

    fn broken(&self) -> bool {
        PANICKED.with_borrow(Option::is_some) || !self.sim.state().violations.is_empty()
    }

    fn make(&self, what: Move) {
        self.change(what);
        self.sim.github.tell();
        self.sim.cluster.tell();
        self.sim.hosts.iter().for_each(Changes::tell);
    }

    fn change(&self, what: Move) {
        let mut state = self.sim.state();
        let now = state.now;
        match what {
            Move::Nothing => {}
            Move::Queue { set, jobs, seconds, hangs } => state.queue_jobs(set, jobs, seconds, hangs),
            Move::Cancel { pick } => cancel(&mut state, pick),
            Move::GitHub { weather, seconds: length } => {
                state.github.weather = weather;
                self.after(seconds(length), move |state| {
                    if state.github.weather == weather {
                        state.github.weather = Weather::Fine;
                    }
                });
            }
            Move::LoseMessage { set } => state.github.sets[set].lose = true,
            Move::RepeatMessage { set } => state.repeat_message(set),
            Move::Shuffle { set } => state.github.sets[set].shuffle = true,
            Move::Truncate { set } => state.github.sets[set].truncate = true,
            Move::DelayMessages { set, seconds: length } => {
                state.github.sets[set].hold_until = Some(now + seconds(length));
                self.after(seconds(length), |_| {});
            }
            Move::ZeroStatistics { set } => state.github.sets[set].zero = true,
            Move::ExpireToken { set } => {
                if let Some(session) = &mut state.github.sets[set].session {
                    session.expired = true;
                }
            }
            Move::EndSession { set } => state.github.sets[set].session = None,
            Move::VanishScaleSet { set } => {
                let busy =
                    state.github.registrations.values().any(|r| r.set == set && r.state == Presence::Busy);
                if !busy {
                    state.forget_scale_set(set);
                }
            }
            Move::DropRegistration { pick } => drop_registration(&mut state, pick),
            Move::DropSpares { seconds: length } => state.github.drops_until = Some(now + seconds(length)),
            Move::HostPulls { host, seconds: length } => {
                state.hosts[host].pulls_until = Some(now + seconds(length));
                self.after(seconds(length), |_| {});
            }
            Move::CompleteEarly { pick } => complete_early(&mut state, pick),
            Move::EmptyListing { host } if state.setup.kind == Kind::Ecs => {
                state.mislay(host, now + seconds(30));
            }
            Move::EmptyListing { host } => state.hosts[host].empty_listing = true,
            Move::TakeByHand { host, slots, seen, seconds: length } => {
                let end = state.take_by_hand(host, slots, seen);
                self.after(seconds(length), end);
            }
            Move::Reboot { host, seconds: length } => {
                state.restart(host);
                self.host_away(&mut state, host, length, Fate::Kept);
            }
            Move::Interrupt { pick } => state.interrupt(pick),
            Move::Mislay { host, seconds: length } => state.mislay(host, now + seconds(length)),
            Move::HostHangs { host, seconds: length } => self.host_hangs(&mut state, host, seconds(length)),
            Move::Die { pick, death } => {
                let live: Vec<(usize, String)> = state
                    .instances()
                    .filter(|(_, i)| i.ours() && i.live())
                    .map(|(h, i)| (h, i.shown.id.clone()))
                    .collect();
                if let Some((host, id)) = live.get(pick % live.len().max(1)) {
                    state.die(*host, id, death);
                }
            }
            Move::HostAway { host, seconds: length, fate } => self.host_away(&mut state, host, length, fate),
            Move::HostStarts { host, starts, seconds: length } => {
                state.hosts[host].starts = starts;
                self.after(seconds(length), move |state| {
                    if state.hosts[host].starts == starts {
                        state.hosts[host].starts = Starts::Well;
                    }
                });
            }
            Move::Cluster { weather, seconds: length } => {
                state.cluster.weather = weather;
                self.after(seconds(length), move |state| {
                    if state.cluster.weather == weather {
                        state.cluster.weather = Weather::Fine;
                    }
                });
            }
            Move::HideSecrets { seconds: length } => {
                state.cluster.hides_secrets = true;
                self.after(seconds(length), |state| state.cluster.hides_secrets = false);
            }
            Move::Min { set, to } => edit(&mut state, set, |spec| spec.min_runners = to.cast_signed()),
            Move::Max { set, to } => edit(&mut state, set, |spec| spec.max_runners = to.cast_signed()),
            Move::Suspend { set, on } => edit(&mut state, set, |spec| spec.suspend = on),
            Move::Template { set } => {
                let image = format!("runner:{}", state.number());
                edit(&mut state, set, |spec| {
                    for backend in &mut spec.backends {
                        let docker = backend.docker.as_mut().expect("all are Docker's");
                        docker.image.clone_from(&image);
                    }
                });
            }
            Move::LeaveOut { set, host } => edit(&mut state, set, |spec| left_out::leave_out(spec, host)),
            Move::PutBack { set } => {
                let setup = state.setup.sets[set].clone();
                edit(&mut state, set, |spec| left_out::put_back(spec, &setup));
            }
            Move::Delete { set } => {
                state.watch.edited[set] = now;
                state.cluster.delete(set, now);
            }
            Move::Crash { .. } | Move::Restart { .. } | Move::Depose { .. } => {
                drop(state);
                self.end_leader(what);
            }
        }
    }

    fn end_leader(&self, what: Move) {
        let Some(life) = self.controllers.take() else { return };
        match what {
            Move::Restart { seconds: down } => {
                life.stop();
                kill_after(life, FAREWELL);
                self.controllers.begin_after(FAREWELL + seconds(down));
            }
            Move::Depose { seconds: down } => {
                life.depose();
                kill_after(life, FAREWELL);
                self.controllers.begin_after(seconds(down));
            }
            Move::Crash { seconds: down } => {
                life.kill();
                self.controllers.begin_after(seconds(down));
            }
            _ => {}
        }
    }

    fn host_away(&self, state: &mut State, host: usize, length: u32, fate: Fate) {
        state.hosts[host].reachable = false;
        if let Some(fake) = &state.fake {
            fake::silence(fake, host);
        }
        let ids: Vec<String> =
            state.hosts[host].instances.values().filter(|i| i.ours()).map(|i| i.shown.id.clone()).collect();
        for id in ids {
            match fate {
                Fate::Kept => {}
                Fate::Killed => state.end_instance(host, &id, 137, false),
                Fate::Gone => state.drop_instance(host, &id),
            }
        }
        self.after(seconds(length), move |state| state.hosts[host].reachable = true);
    }

    fn host_hangs(&self, state: &mut State, host: usize, length: Duration) {
        state.hosts[host].hangs_until = Some(state.now + length);
        self.after(length, |_| {});
    }

    /// Changes the world after a while.
    fn after(&self, wait: Duration, change: impl FnOnce(&mut State) + Send + 'static) {
        let sim = self.sim.clone();
        tokio::spawn(async move {
            sleep(wait).await;
            change(&mut sim.state());
            sim.github.tell();
            sim.cluster.tell();
            sim.hosts.iter().for_each(Changes::tell);
        });
    }

    /// All faults are mended, and nothing new comes.
    fn quiet(&self) {
        {
            let mut state = self.sim.state();
            state.github.weather = Weather::Fine;
            state.github.drops_until = None;
            state.cluster.weather = Weather::Fine;
            state.cluster.hides_secrets = false;
            let known = rules::known_busy(&state);
            // What hangs then, hangs on: long enough for the others to do without it.
            for host in 0..state.hosts.len() {
                if state.hosts[host].hangs(state.now) {
                    self.host_hangs(&mut state, host, HANGS_ON);
                }
            }
            state.give_back_by_hand();
            for host in &mut state.hosts {
                host.reachable = !host.refused;
                host.starts = Starts::Well;
                host.empty_listing = false;
                host.pulls_until = None;
            }
            for set in &mut state.github.sets {
                set.hold_until = None;
                // What hangs and is known to run is ended by timeouts.job.
                let stays = |job: &&mut JobRecord| matches!(job.state, JobState::Running { registration } if known.contains_key(&registration));
                for job in set.jobs.iter_mut().filter(|job| !stays(job)) {
                    (job.hangs, job.seconds) = (false, job.seconds.min(5));
                }
                // A long queue would only take long.
                let waiting = set
                    .jobs
                    .iter_mut()
                    .filter(|job| matches!(job.state, JobState::Queued | JobState::Offered));
                waiting.skip(10).for_each(|job| job.state = JobState::Over(End::Cancelled));
                (set.zero, set.lose, set.shuffle, set.truncate) = (false, false, false, false);
            }
        }
        self.controllers.begin_after(Duration::from_secs(20));
        self.make(Move::Nothing);
        self.after(Duration::from_secs(10), |state| {
            state.hosts.iter_mut().for_each(|host| host.reachable = true)
        });
    }

    /// Waits until the world is at rest, and looks whether it stays so.
    async fn rest(&self) {
        let (mut waited, mut over) = (Duration::ZERO, 0);
        loop {
            sleep(LOOK).await;
            waited += LOOK;
            let mut state = self.sim.state();
            rules::look(&mut state);
            let now_over = state.jobs_over();
            if now_over > over {
                (waited, over) = (Duration::ZERO, now_over);
            }
            if PANICKED.with_borrow(Option::is_some) || !state.violations.is_empty() {
                return;
            }
            match unrest(&state) {
                None => break,
                Some(_) if waited < REST => {}
                Some((rule, what)) => return state.violate(rule, format!("no rest: {what}")),
            }
        }
        self.sim.state().note(|| "-- at rest".to_owned());
        let before: Vec<(u32, bool)> = {
            let state = self.sim.state();
            // The other sets' runners left no room for its jobs; when one of them goes, there is.
            let waits = |set: usize| {
                state.github.sets[set].jobs.iter().any(|job| !matches!(job.state, JobState::Over(_)))
            };
            state.watch.minted.iter().enumerate().map(|(set, minted)| (*minted, waits(set))).collect()
        };
        sleep(AT_REST).await;
        let mut state = self.sim.state();
        for (set, (before, waits)) in before.into_iter().enumerate() {
            let started = state.watch.minted[set] - before;
            if started > 0 && !waits && never_recycled(&state, set) {
                state.violate(0, format!("no lasting rest: set {set} started {started} more"));
            }
        }
    }
}

/// Time passes at GitHub, and the rules are looked after.
async fn age(sim: Arc<Sim>) {
    loop {
        sleep(LOOK).await;
        {
            let mut state = sim.state();
            state.github_ages();
            rules::look(&mut state);
        }
        sim.github.tell();
    }
}

fn edit(state: &mut State, set: usize, edit: impl FnOnce(&mut paddock::api::RunnerScaleSetSpec)) {
    state.watch.edited[set] = state.now;
    state.cluster.edit(set, edit);
}

fn cancel(state: &mut State, pick: usize) {
    let open: Vec<(usize, usize)> = jobs(state, |job| !matches!(job, JobState::Over(_)));
    if let Some((set, job)) = open.get(pick % open.len().max(1)) {
        state.cancel_job(*set, *job);
    }
}

fn jobs(state: &State, wanted: fn(&JobState) -> bool) -> Vec<(usize, usize)> {
    let of = |(set, s): (usize, &crate::github::ScaleSet)| -> Vec<(usize, usize)> {
        s.jobs.iter().enumerate().filter(|(_, job)| wanted(&job.state)).map(|(n, _)| (set, n)).collect()
    };
    state.github.sets.iter().enumerate().flat_map(of).collect()
}

/// GitHub loses an idle runner, as it does now and then.
fn drop_registration(state: &mut State, pick: usize) {
    let idle: Vec<i64> =
        state.github.registrations.values().filter(|r| r.state == Presence::Idle).map(|r| r.id).collect();
    if let Some(id) = idle.get(pick % idle.len().max(1)) {
        state.github.registrations.remove(id);
    }
}

/// GitHub says that a job is over which is not.
fn complete_early(state: &mut State, pick: usize) {
    let running = jobs(state, |job| matches!(job, JobState::Running { .. }));
    if let Some((set, job)) = running.get(pick % running.len().max(1)) {
        state.tell_over(*set, *job, End::Succeeded);
    }
}

impl State {
    fn jobs_over(&self) -> usize {
        let jobs = self.github.sets.iter().flat_map(|set| &set.jobs);
        jobs.filter(|job| matches!(job.state, JobState::Over(_))).count()
    }
}

/// What keeps the world from rest, and the rule that it is about.
fn unrest(state: &State) -> Option<(u8, String)> {
    (0..state.cluster.objects.len()).find_map(|set| unrest_of(state, set))
}

fn unrest_of(state: &State, set: usize) -> Option<(u8, String)> {
    let Some(object) = &state.cluster.objects[set] else { return remains(state, set) };
    if object.metadata.deletion_timestamp.is_some() {
        return Some((9, format!("set {set} is still being deleted")));
    }
    let scale_set = &state.github.sets[set];
    if scale_set.has_news() {
        return Some((0, format!("messages for set {set} wait")));
    }
    if let Some(job) = scale_set.jobs.iter().find(|job| !matches!(job.state, JobState::Over(_)))
        && !object.spec.suspend
        && object.spec.max_runners > 0
        && room(state, set) > 0
    {
        return Some((0, format!("{} is {:?}", job.id, job.state)));
    }
    let live: Vec<_> = state.live(set).collect();
    let wanted = if object.spec.suspend {
        0
    } else {
        object.spec.min_runners.min(object.spec.max_runners).unsigned_abs() as usize
    };
    if live.len() > wanted {
        return Some((4, format!("set {set} wants {wanted} runners and has {}", live.len())));
    }
    if live.len() < wanted && live.len() < room(state, set) {
        return Some((0, format!("set {set} wants {wanted} runners and has {}", live.len())));
    }
    let Some(memory) = state.lives.iter().rev().find(|life| life.alive && life.leads) else {
        return Some((0, "nobody leads".to_owned()));
    };
    let mut vms = state.hosts.iter().flat_map(|host| host.mac.spares.values());
    if vms.any(|vm| vm.set == set && !vm.up) {
        return Some((0, format!("a VM boots for set {set}")));
    }
    for (_, instance) in &live {
        let current = memory.templates.get(&(set, instance.shown.backend.clone()));
        if instance.shown.state != InstanceState::Running || current != Some(&instance.shown.template_hash) {
            return Some((
                0,
                format!(
                    "{} is {:?} of {}",
                    instance.shown.runner, instance.shown.state, instance.shown.template_hash
                ),
            ));
        }
        let known = state.github.registrations.get(&instance.registration);
        if !instance.deaf && known.is_none_or(|r| r.state != Presence::Idle) {
            return Some((4, format!("{} runs, and GitHub has it as {known:?}", instance.shown.runner)));
        }
    }
    if let Some((host, ended)) = state.instances().find(|(_, i)| i.ours() && i.set == set && !i.live()) {
        return Some((4, format!("{} has ended and is still on host {host}", ended.shown.runner)));
    }
    let spares = spares_of(state, set);
    if spares > state.setup.sets[set].warm as usize * object.spec.backends.len() {
        return Some((4, format!("{spares} VMs of set {set} have no runner")));
    }
    let registrations = &state.github.registrations;
    if let Some(runner) = registrations.values().find(|r| r.set == set && !has_instance(state, r.id)) {
        return Some((4, format!("{} is registered and has no instance", runner.name)));
    }
    let status = object.status.clone().unwrap_or_default();
    let open = scale_set.session.as_ref();
    if open.is_none_or(|open| between(open.seen, state.now) > LAPSE) {
        return Some((9, format!("nobody listens for set {set}")));
    }
    if status.session.as_ref().map(|s| &s.id) != open.map(|open| &open.id) {
        return Some((6, format!("the session of set {set} is not written down")));
    }
    if status.current_runners.unsigned_abs() as usize != live.len() || status.pending_runners > 0 {
        return Some((
            0,
            format!("status of set {set} shows {} runners of {}", status.current_runners, live.len()),
        ));
    }
    None
}

/// Whether idle runners of a set stay for ever.
fn never_recycled(state: &State, set: usize) -> bool {
    state.setup.sets[set].idle == 0 && state.setup.sets[set].lifetime == 0
}

fn spares_of(state: &State, set: usize) -> usize {
    let spares = state.hosts.iter().flat_map(|host| host.mac.spares.values());
    spares.filter(|spare| spare.set == set).count()
}

fn has_instance(state: &State, registration: i64) -> bool {
    state.instances().any(|(_, i)| i.ours() && i.registration == registration)
}

/// How many runners the hosts could take at all, those of other sets left alone.
pub fn room(state: &State, set: usize) -> usize {
    let object = state.cluster.objects[set].as_ref();
    let backends = object.map(|o| o.spec.backends.as_slice()).unwrap_or_default();
    let places = |backend: &paddock::api::Backend| {
        let free = left_out::hosts(backend).map(|host| {
            let in_the_way = state.in_the_way(host, set);
            let host = &state.hosts[host];
            let others = in_the_way + host.live().filter(|i| !i.ours() || i.set != set).count();
            host.slots.map_or(100, |slots| (slots as usize).saturating_sub(others))
        });
        free.sum::<usize>().min(backend.max_runners.map_or(100, |max| max.unsigned_abs() as usize))
    };
    backends.iter().map(places).sum()
}

/// What is left of a set whose object is gone.
fn remains(state: &State, set: usize) -> Option<(u8, String)> {
    // A host that no spec names any more is followed by none but the model's own provider.
    let named = |host: usize| state.cluster.objects.iter().flatten().any(|o| left_out::names(o, host));
    let followed = |host: usize| state.setup.kind != Kind::Fake || named(host);
    let of_set = |(host, i): &(usize, &Container)| i.ours() && i.set == set && followed(*host);
    if let Some((host, left)) = state.instances().find(of_set) {
        return Some((4, format!("set {set} is gone, and {} is still on host {host}", left.shown.runner)));
    }
    if spares_of(state, set) > 0 {
        return Some((4, format!("set {set} is gone, and a VM of it is still there")));
    }
    if state.watch.gone[set] == Some(true) {
        // It could not wait any longer, and said what it left.
        return None;
    }
    // One that was made, and whose id nobody was told or wrote down, cannot be told from someone else's of that name, nor
    // its runners.
    let id = state.github.sets[set].id;
    if id.is_some() && id != state.watch.shown_id[set] {
        return None;
    }
    if let Some(left) = state.github.registrations.values().find(|r| r.set == set) {
        return Some((4, format!("set {set} is gone, and {} is still registered", left.name)));
    }
    if id.is_some() {
        return Some((4, format!("set {set} is gone, and is still at GitHub")));
    }
    None
}
