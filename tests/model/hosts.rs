//! The hosts and the instances on them, and a backend as one controller has it: what it was last shown, and calls that
//! may fail in all ways.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use paddock::api::BackendType;
use paddock::api::Reason;
use paddock::backend::{Availability, Backend, Error, HostState, Listing, NamedHost, NewRunner, Reservation};
use paddock::runner::{Exit, Identity, Instance, InstanceState};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use crate::github::{JobState, Presence};
use crate::history::{Death, HostSetup, Kind, Starts};
use crate::life::Life;
use crate::sim::{CLUSTER, State, between};
use crate::{ecs, left_out, mac, process, rules};

/// No start takes longer to be answered, and no removal.
const START: Duration = Duration::from_secs(180);
const REMOVE: Duration = Duration::from_secs(60);

/// A host.
pub struct Host {
    pub slots: Option<u32>,
    pub reachable: bool,
    pub starts: Starts,
    /// What is prepared until then takes until then.
    pub pulls_until: Option<Timestamp>,
    /// The next listing shows nothing, although there is something.
    pub empty_listing: bool,
    /// It refused something: what is mended there shows when it is connected to again.
    pub refused: bool,
    /// Until then, nothing is removed from it, and what was deregistered does not end.
    pub hangs_until: Option<Timestamp>,
    pub instances: BTreeMap<String, Container>,
    /// What has ended, and what ECS goes on showing.
    pub ended: BTreeMap<String, Container>,
    pub mac: mac::Truth,
}

/// An instance, in truth.
#[derive(Debug, Clone)]
pub struct Container {
    pub cluster: String,
    pub set: usize,
    pub shown: Instance,
    /// How many listings in a row have shown it made and not started, as a controller counts them.
    pub unstarted: u32,
    /// It came up when its maker was dead.
    pub late: bool,
    /// The registration that it starts with.
    pub registration: i64,
    /// The controller that asked for it; none of ours for a foreign one.
    pub maker: usize,
    /// Its start was answered with an error, or not at all.
    pub disowned: bool,
    /// When its start was answered.
    pub answered_at: Option<Timestamp>,
    /// It runs, and never reaches GitHub.
    pub deaf: bool,
    /// The controller that had its registration removed, and was told so.
    pub deregistered: Option<usize>,
    /// Until then, no listing shows it.
    pub hidden_until: Option<Timestamp>,
}

impl Host {
    pub fn new(host: usize, setup: &HostSetup) -> Host {
        let foreign = (0..setup.foreign).map(|number| {
            let id = format!("foreign-{host}-{number}");
            let foreign = Container::foreign(&id, crate::sim::base());
            (id, foreign)
        });
        Host {
            slots: setup.slots.map(|slots| slots.max(setup.foreign)),
            reachable: true,
            starts: Starts::Well,
            pulls_until: None,
            empty_listing: false,
            refused: false,
            hangs_until: None,
            instances: foreign.collect(),
            ended: BTreeMap::new(),
            mac: mac::Truth::default(),
        }
    }

    pub fn hangs(&self, now: Timestamp) -> bool {
        self.hangs_until.is_some_and(|until| until > now)
    }

    pub fn live(&self) -> impl Iterator<Item = &Container> {
        self.instances.values().filter(|i| !i.shown.state.ended())
    }
}

impl Container {
    /// An instance of another cluster.
    pub fn foreign(id: &str, now: Timestamp) -> Container {
        let shown = Instance {
            id: id.to_owned(),
            runner: id.to_owned(),
            scale_set_uid: "uid-0".to_owned(),
            backend: "backend-0".to_owned(),
            host: String::new(),
            template_hash: "other".to_owned(),
            created_at: now,
            state: InstanceState::Running,
        };
        Container {
            cluster: "cluster-2".to_owned(),
            set: 0,
            shown,
            unstarted: 0,
            late: false,
            registration: 0,
            maker: usize::MAX,
            disowned: false,
            answered_at: None,
            deaf: false,
            deregistered: None,
            hidden_until: None,
        }
    }

    pub fn ours(&self) -> bool {
        self.cluster == CLUSTER
    }

    pub fn live(&self) -> bool {
        !self.shown.state.ended()
    }

    /// It was made, and does not run yet.
    pub fn comes_up(&self) -> bool {
        matches!(self.shown.state, InstanceState::Starting | InstanceState::Launching(_))
    }

    /// When it ended; when it was made, if it has not.
    pub fn ended_at(&self) -> Timestamp {
        match &self.shown.state {
            InstanceState::Exited(exit) => exit.at,
            _ => self.shown.created_at,
        }
    }

    pub fn end(&mut self, exit: Exit) {
        if self.live() {
            self.shown.state = InstanceState::Exited(exit);
        }
    }
}

impl State {
    /// Whether a host hangs now.
    pub fn hangs(&self, host: usize) -> bool {
        self.hosts[host].hangs(self.now)
    }

    /// All instances, with their hosts.
    pub fn instances(&self) -> impl Iterator<Item = (usize, &Container)> {
        self.hosts.iter().enumerate().flat_map(|(host, h)| h.instances.values().map(move |i| (host, i)))
    }

    /// Instances of a set that have not ended.
    pub fn live(&self, set: usize) -> impl Iterator<Item = (usize, &Container)> {
        self.instances().filter(move |(_, i)| i.ours() && i.set == set && i.live())
    }

    /// An instance's process ends.
    pub fn end_instance(&mut self, host: usize, id: &str, code: i64, out_of_memory: bool) {
        let leaves_nothing = self.setup.kind == Kind::Ecs;
        let exit = Exit { code: Some(code), out_of_memory, leaves_nothing, ..Exit::default() };
        self.end_with(host, id, exit);
    }

    /// An instance ends now, in that way.
    pub fn end_with(&mut self, host: usize, id: &str, exit: Exit) {
        let now = self.now;
        let Some(instance) = self.hosts[host].instances.get_mut(id).filter(|i| i.live()) else { return };
        let (code, out_of_memory) = (exit.code.unwrap_or(137), exit.out_of_memory);
        instance.shown.state = InstanceState::Exited(Exit { at: now, ..exit });
        let (name, registration) = (instance.shown.runner.clone(), instance.registration);
        let made_at = instance.shown.created_at;
        self.note_end(code, made_at);
        self.note(|| {
            format!("{name} ends with {code}{}", if out_of_memory { ", out of memory" } else { "" })
        });
        self.silence(registration);
        if self.setup.kind == Kind::Ecs {
            self.put_aside(host, id);
        }
        if let Some(fake) = &self.fake {
            fake.end(id, code);
        }
    }

    /// Nothing of an instance is left.
    pub fn drop_instance(&mut self, host: usize, id: &str) {
        // A task does not go without a trace.
        if self.setup.kind == Kind::Ecs {
            return self.end_with(host, id, Exit { leaves_nothing: true, ..Exit::default() });
        }
        if let Some(fake) = &self.fake {
            fake.take_away(id);
        }
        if let Some(instance) = self.hosts[host].instances.remove(id)
            && instance.live()
        {
            self.silence(instance.registration);
        }
    }

    /// A runner's process is gone: GitHub notices in time.
    fn silence(&mut self, registration: i64) {
        let now = self.now;
        let Some(runner) = self.github.registrations.get_mut(&registration) else { return };
        if runner.state == Presence::Idle {
            runner.state = Presence::Offline;
        }
        let set = runner.set;
        let running = JobState::Running { registration };
        if let Some(job) = self.github.sets[set].jobs.iter_mut().find(|job| job.state == running) {
            job.silent.get_or_insert(now);
        }
    }

    /// A start is answered, or its controller is dead.
    fn note_answer(&mut self, place: &Place) {
        let now = self.now;
        let instances = self.hosts[place.host].instances.values_mut();
        let made = instances.filter(|i| place.runner.as_ref() == Some(&i.shown.runner));
        made.for_each(|instance| instance.answered_at = Some(now));
    }

    pub fn die(&mut self, host: usize, id: &str, death: Death) {
        match death {
            Death::Killed => self.end_instance(host, id, 137, false),
            Death::OutOfMemory => self.end_instance(host, id, 137, true),
            Death::Failed => self.end_instance(host, id, 1, false),
            Death::Removed => self.drop_instance(host, id),
        }
    }
}

/// What a controller was last shown of a host.
#[derive(Debug, Clone, Default)]
pub struct View {
    pub up: bool,
    pub listed_at: Option<Timestamp>,
    pub instances: BTreeMap<String, Container>,
    /// Connections so far.
    pub connections: u64,
    /// What is shown came from a listing that showed too little; no event mends that.
    pub too_little: bool,
    /// When it was last shown too little.
    pub misled: Option<Timestamp>,
    pub ecs: ecs::Known,
    pub mac: mac::Known,
}

/// A place that a controller holds on a host.
#[derive(Debug, Clone)]
pub struct Place {
    pub set: usize,
    pub host: usize,
    pub backend: String,
    pub runner: Option<String>,
    pub taken_at: Timestamp,
    /// Its instance was made, and counts in its stead.
    pub made: bool,
}

/// A place that returns when dropped.
pub struct Hold {
    life: Arc<Life>,
    number: u64,
}

impl Hold {
    /// Takes a place on a host.
    pub fn take(state: &mut State, life: &Arc<Life>, set: usize, host: usize, backend: &str) -> Hold {
        let number = state.number();
        let (backend, taken_at) = (backend.to_owned(), state.now);
        let place = Place { set, host, backend, runner: None, taken_at, made: false };
        state.lives[life.number].places.insert(number, place);
        Hold { life: life.clone(), number }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let place = self.life.sim.state().lives[self.life.number].places.remove(&self.number);
        let Some(place) = place else { return };
        self.life.sim.state().note_answer(&place);
        self.life.change_slots(place.host);
    }
}

/// A place on a host, and a start in it.
struct SimReservation {
    backend: Arc<SimBackend>,
    name: String,
    host: usize,
    hold: Hold,
    /// What was registered with a lower number was registered before the host was ready; none: it is not.
    ready: Option<u64>,
}

/// A backend as one controller has it.
pub struct SimBackend {
    pub life: Arc<Life>,
    pub set: usize,
    pub name: String,
    pub template_hash: String,
    /// By their names in the backend.
    pub hosts: Vec<(String, usize)>,
    ready: Mutex<HashMap<usize, Ready>>,
    trouble: Mutex<HashMap<usize, Trouble>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ready {
    Preparing { since: Timestamp },
    Yes,
}

#[derive(Clone)]
enum Trouble {
    Lacking {
        until: Timestamp,
        failures: u32,
    },
    Refused {
        connection: u64,
    },
    /// Of a cluster nobody tells when that is mended.
    RefusedUntil(Timestamp),
}

/// Each set has so many numbers in the queue for slots, one for a backend ...
pub const USERS_OF_A_SET: u64 = 10;

/// ... and this is the first.
pub fn user(set: usize) -> u64 {
    USERS_OF_A_SET * u64::try_from(set).expect("few")
}

/// The set and its backend, in the queue for slots.
pub fn user_of(set: usize, backend: &str) -> u64 {
    let backend: u64 = backend.trim_start_matches("backend-").parse().expect("a backend's number");
    user(set) + backend
}

/// Notes the template that a backend starts runners with. Where the spec names none of its hosts, it starts nothing.
pub fn note_template(
    state: &mut State,
    life: usize,
    (set, backend): (usize, &str),
    template_hash: &str,
    hosts: &[usize],
) {
    let memory = &mut state.lives[life];
    let named =
        |host: &usize| memory.acting[set].as_ref().is_some_and(|object| left_out::names(object, *host));
    if hosts.iter().any(named) {
        memory.templates.insert((set, backend.to_owned()), template_hash.to_owned());
    }
}

/// Notes for which runner a place is, and that its registration came after its host was ready.
pub fn begin_start(
    state: &mut State,
    life: &Life,
    hold: &Hold,
    ready: Option<u64>,
    runner: &NewRunner<'_>,
) -> i64 {
    let registration = runner.jit.expose().parse().expect("a registration's number");
    life.count_call(state);
    if ready.is_none_or(|ready| u64::try_from(registration).is_ok_and(|number| number < ready)) {
        state.violate(9, format!("{} was registered before its host was ready", runner.name));
    }
    if let Some(place) = state.lives[life.number].places.get_mut(&hold.number) {
        place.runner = Some(runner.name.to_owned());
    }
    registration
}

/// Slots that are free, as far as a controller sees.
pub fn free(state: &State, life: usize, host: usize) -> u32 {
    let memory = &state.lives[life];
    let view = &memory.views[host];
    let seen = |runner: &str| view.instances.values().any(|i| i.shown.runner == runner);
    let live = view.instances.values().filter(|i| i.live()).count();
    let held = memory.places.values().filter(|p| p.host == host);
    let held = held.filter(|p| p.runner.as_deref().is_none_or(|runner| !seen(runner))).count();
    // VMs that are there before their runners, of someone who is no more or of nobody yet.
    let spares = view.mac.spares.keys().filter(|place| !memory.places.contains_key(place)).count();
    let taken = u32::try_from(live + held + spares).expect("few");
    if view.mac.is_full(state.now) {
        return 0;
    }
    state.hosts[host].slots.map_or(u32::MAX, |slots| slots.saturating_sub(taken))
}

/// Keeps the queue for a host's slots, and wakes those whose turn it is, or for whom a slot is free again.
pub async fn keep_queue(life: Arc<Life>, host: usize) {
    let mut served = Vec::new();
    loop {
        let (first_end, woken) = {
            let mut state = life.sim.state();
            let free = free(&state, life.number, host);
            let queue = &mut state.lives[life.number].queues[host];
            queue.end_turns(Instant::now());
            let begun = queue.begin_turns(free, Instant::now());
            let mut woken: Vec<usize> =
                begun.into_iter().map(|user| usize::try_from(user / USERS_OF_A_SET).expect("few")).collect();
            let serves = |set: &usize| {
                (0..USERS_OF_A_SET).any(|backend| queue.free_for(user(*set) + backend, free) > 0)
            };
            let now_served: Vec<usize> = (0..life.sets()).filter(serves).collect();
            woken.extend(now_served.iter().filter(|set| !served.contains(*set)));
            served = now_served;
            (queue.first_end(), woken)
        };
        woken.into_iter().for_each(|set| life.wake(set));
        tokio::select! {
            () = life.slots_changed(host) => {}
            () = sleep_until(first_end.unwrap_or_else(Instant::now)), if first_end.is_some() => {}
        }
    }
}

impl SimBackend {
    /// The backend of that name of a set, with these hosts.
    pub fn open(
        life: &Arc<Life>,
        name: &str,
        identity: &Identity,
        template_hash: String,
        hosts: &[NamedHost],
    ) -> Arc<dyn Backend> {
        let set = life.sim.state().cluster.set_of(&identity.scale_set_uid).expect("a set of ours");
        let number = |host: &NamedHost| (host.name.clone(), left_out::number(&host.endpoint));
        let hosts: Vec<(String, usize)> = hosts.iter().map(number).collect();
        let numbers: Vec<usize> = hosts.iter().map(|(_, host)| *host).collect();
        note_template(&mut life.sim.state(), life.number, (set, name), &template_hash, &numbers);
        Arc::new(Handle(Arc::new(SimBackend {
            life: life.clone(),
            set,
            name: name.to_owned(),
            template_hash,
            hosts,
            ready: Mutex::default(),
            trouble: Mutex::default(),
        })))
    }

    fn host(&self, name: &str) -> Option<usize> {
        self.hosts.iter().find(|(known, _)| known == name).map(|(_, host)| *host)
    }

    /// An instance as the Docker backend shows it.
    fn as_seen(&self, state: &State, host: &str, instance: &Container) -> Instance {
        let shown = Instance { host: host.to_owned(), ..instance.shown.clone() };
        let places = &state.lives[self.life.number].places;
        let held = places.values().any(|place| place.runner.as_ref() == Some(&shown.runner));
        let never_started = shown.state == InstanceState::Starting && instance.unstarted >= 2 && !held;
        Instance { state: if never_started { InstanceState::NeverStarted } else { shown.state }, ..shown }
    }

    /// Whether a host takes starts.
    pub fn is_ready(&self, state: &State, host: usize) -> bool {
        self.availability(state, host) == Availability::Ready
    }

    /// Slots that are free for this set, as far as its controller sees.
    pub fn free(&self, state: &State, host: usize) -> u32 {
        let memory = &state.lives[self.life.number];
        let free = free(state, self.life.number, host);
        if memory.jumps_the_queue { free } else { memory.queues[host].free_for(self.user(), free) }
    }

    /// The set and its backend, in the queue for slots.
    pub fn user(&self) -> u64 {
        user_of(self.set, &self.name)
    }

    fn availability(&self, state: &State, host: usize) -> Availability {
        let view = &state.lives[self.life.number].views[host];
        if !view.up {
            return Availability::Unreachable;
        }
        match self.trouble.lock().expect("held for moments").get(&host) {
            Some(Trouble::Refused { connection }) if *connection == view.connections => {
                return Availability::Refused;
            }
            Some(Trouble::RefusedUntil(until)) if *until > state.now => return Availability::Refused,
            Some(Trouble::Lacking { until, .. }) if *until > state.now => {
                return Availability::BackOff { until: *until, reason: Reason::EngineError };
            }
            _ => {}
        }
        match self.ready.lock().expect("held for moments").get(&host) {
            // A cluster has nothing to prepare.
            None if state.setup.kind == Kind::Ecs => Availability::Ready,
            None => Availability::Unprepared,
            Some(Ready::Preparing { since }) => Availability::Preparing { since: *since },
            Some(Ready::Yes) => Availability::Ready,
        }
    }

    /// What the end of a start says of the host, as the Docker backend has it.
    fn learn(&self, host: usize, answer: &Result<Instance, Error>) {
        let (now, kind, connection) = {
            let state = self.life.sim.state();
            (state.now, state.setup.kind, state.lives[self.life.number].views[host].connections)
        };
        let mut trouble = self.trouble.lock().expect("held for moments");
        match answer {
            Ok(_) => drop(trouble.remove(&host)),
            Err(Error::Refused(_)) if kind == Kind::Ecs => {
                trouble.insert(host, Trouble::RefusedUntil(now + ecs::REFUSED));
            }
            Err(Error::Refused(_)) => drop(trouble.insert(host, Trouble::Refused { connection })),
            Err(Error::Gone | Error::Unreachable(_)) if kind != Kind::Ecs => self.life.suspect(host),
            // A cluster is left alone whatever it was.
            Err(_) => {
                let failures = match trouble.get(&host) {
                    Some(Trouble::Lacking { until, .. }) if *until > now => return,
                    Some(Trouble::Lacking { failures, .. }) => failures + 1,
                    _ => 1,
                };
                let wait = Duration::from_secs(5 << failures.min(6)).min(Duration::from_secs(300));
                trouble.insert(host, Trouble::Lacking { until: now + wait, failures });
            }
        }
    }

    /// Carried through, whoever still waits for it.
    async fn launch(
        self: Arc<Self>,
        host: usize,
        runner: String,
        registration: i64,
        hold: Hold,
    ) -> Result<Instance, Error> {
        let sim = self.life.sim.clone();
        let starts = sim.state().hosts[host].starts;
        match starts {
            Starts::Slow => sim.pause(20_000, 170_000).await,
            _ => sim.pause(50, 4_000).await,
        }
        let number = {
            let mut state = sim.state();
            if !state.hosts[host].reachable || !self.life.lives(&state) {
                return Err(Error::Unreachable("no route".into()));
            }
            match state.hosts[host].starts {
                Starts::NoCapacity => {
                    let message = "no room".to_owned();
                    return Err(Error::no_capacity(Reason::EngineError, message));
                }
                Starts::Refused => {
                    state.hosts[host].refused = true;
                    return Err(Error::Refused("no such runtime".into()));
                }
                _ => {}
            }
            state.number()
        };
        let id = format!("instance-{number}");
        if sim.state().setup.kind == Kind::Mac && !sim.state().take_spare(host, hold.number) {
            return Err(Error::no_capacity(Reason::EngineError, "its VM does not run any more"));
        }
        self.create(host, &id, &runner, registration, starts, InstanceState::Starting);
        if starts == Starts::Stuck {
            tokio::time::sleep(START).await;
            return Err(Error::Unreachable("no answer".into()));
        }
        sim.pause(50, 3_000).await;
        if !self.life.lives(&sim.state()) {
            // Nobody is left to ask for its start, unless it was asked for already: the host comes to it in time.
            if sim.state().chance(50) {
                return Err(Error::Unreachable("nobody asks".into()));
            }
            sim.pause(0, 60_000).await;
            if let Some(instance) = sim.state().hosts[host].instances.get_mut(&id) {
                instance.late = true;
            }
        }
        let Some(shown) = self.bring_up(host, &id) else {
            let message = "its container vanished before it was started".to_owned();
            return Err(Error::no_capacity(Reason::EngineError, message));
        };
        let process = process::run(sim.clone(), host, id.clone(), starts);
        tokio::spawn(process);
        if starts == Starts::Unanswered {
            sim.pause(0, 100_000).await;
            if let Some(instance) = sim.state().hosts[host].instances.get_mut(&id) {
                instance.disowned = true;
            }
            return Err(Error::Unreachable("no answer".into()));
        }
        sim.pause(1, 100).await;
        drop(hold);
        Ok(shown)
    }

    /// Makes an instance. What it is to start with, it has.
    pub fn create(
        &self,
        host: usize,
        id: &str,
        runner: &str,
        registration: i64,
        starts: Starts,
        step: InstanceState,
    ) {
        let mut state = self.life.sim.state();
        let shown = Instance {
            id: id.to_owned(),
            runner: runner.to_owned(),
            scale_set_uid: crate::cluster::uid(self.set),
            backend: self.name.clone(),
            host: String::new(),
            template_hash: self.template_hash.clone(),
            created_at: state.now,
            state: step,
        };
        let container = Container {
            cluster: CLUSTER.to_owned(),
            set: self.set,
            shown,
            unstarted: 0,
            late: false,
            registration,
            maker: self.life.number,
            disowned: starts == Starts::Stuck,
            answered_at: None,
            deaf: starts == Starts::Deaf,
            deregistered: None,
            hidden_until: None,
        };
        state.hosts[host].instances.insert(id.to_owned(), container);
        let places = state.lives[self.life.number].places.values_mut();
        places.filter(|p| p.runner.as_deref() == Some(runner)).for_each(|p| p.made = true);
        state.note(|| format!("{runner} is made on host {host} ({starts:?})"));
        rules::instance_comes(&mut state, self.life.number, host, self.set);
        drop(state);
        self.life.sim.hosts[host].tell();
    }

    /// None when it is gone or over already.
    fn bring_up(&self, host: usize, id: &str) -> Option<Instance> {
        let mut state = self.life.sim.state();
        let instance = state.hosts[host].instances.get_mut(id).filter(|i| i.live())?;
        instance.shown.state = InstanceState::Running;
        let (shown, known) = (instance.shown.clone(), instance.clone());
        let memory = &mut state.lives[self.life.number];
        memory.views[host].instances.insert(id.to_owned(), known);
        memory.seen.insert(id.to_owned());
        drop(state);
        self.life.sim.hosts[host].tell();
        Some(shown)
    }
}

/// The backend that a controller holds: several hold the same.
struct Handle(Arc<SimBackend>);

#[async_trait]
impl Backend for Handle {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn kind(&self) -> BackendType {
        BackendType::Docker
    }

    fn template_hash(&self) -> &str {
        &self.0.template_hash
    }

    fn hosts(&self) -> Vec<HostState> {
        let mut state = self.0.life.sim.state();
        for (_, host) in &self.0.hosts {
            let availability = self.0.availability(&state, *host);
            let key = (self.0.set, self.0.name.clone(), *host);
            state.lives[self.0.life.number].shown.insert(key, availability);
        }
        let host = |(name, host): &(String, usize)| {
            let availability = self.0.availability(&state, *host);
            let up = availability != Availability::Unreachable;
            let warm = if up { mac::fit_on(&state, &self.0, *host) } else { 0 };
            let free_slots = if up { self.0.free(&state, *host).saturating_add(warm) } else { 0 };
            HostState {
                name: name.clone(),
                availability,
                slots: state.hosts[*host].slots.unwrap_or(u32::MAX),
                free_slots,
                warm,
                failures: 0,
                message: String::new(),
            }
        };
        self.0.hosts.iter().map(host).collect()
    }

    fn instances(&self) -> Vec<Listing> {
        let state = self.0.life.sim.state();
        let listing = |(name, host): &(String, usize)| {
            let view = &state.lives[self.0.life.number].views[*host];
            let own = view
                .instances
                .values()
                .filter(|i| i.ours() && i.set == self.0.set && i.shown.backend == self.0.name);
            Listing {
                hides: if state.setup.kind == Kind::Ecs { view.ecs.hides(state.now) } else { Duration::ZERO },
                host: name.clone(),
                listed_at: view.listed_at,
                current: view.up,
                instances: own.map(|i| self.0.as_seen(&state, name, i)).collect(),
            }
        };
        self.0.hosts.iter().map(listing).collect()
    }

    fn prepare(&self, host: &str) {
        let Some(host) = self.0.host(host) else { return };
        self.0
            .trouble
            .lock()
            .expect("held for moments")
            .retain(|known, trouble| *known != host || !matches!(trouble, Trouble::Lacking { .. }));
        let mut ready = self.0.ready.lock().expect("held for moments");
        if ready.contains_key(&host) {
            return;
        }
        ready.insert(host, Ready::Preparing { since: self.0.life.sim.now() });
        drop(ready);
        let backend = self.0.clone();
        tokio::spawn(async move {
            backend.life.sim.pause(50, 8_000).await;
            pulled(&backend.life, host).await;
            backend.ready.lock().expect("held for moments").insert(host, Ready::Yes);
            backend.life.wake(backend.set);
        });
    }

    fn wait_for_slots(&self, host: &str, runners: u32) {
        let Some(host) = self.0.host(host) else { return };
        let mut state = self.0.life.sim.state();
        let memory = &mut state.lives[self.0.life.number];
        if memory.queues[host].runners_of(self.0.user()) == runners {
            return;
        }
        memory.queues[host].wait(self.0.user(), runners, Instant::now());
        drop(state);
        self.0.life.change_slots(host);
    }

    fn reserve(&self, host: &str) -> Option<Box<dyn Reservation>> {
        let at = self.0.host(host)?;
        let mut state = self.0.life.sim.state();
        let availability = self.0.availability(&state, at);
        rules::place_taken(&mut state, self.0.life.number, self.0.set, &self.0.name, at, &availability);
        let memory = &state.lives[self.0.life.number];
        let warm = mac::fit_on(&state, &self.0, at) > 0;
        let none = self.0.free(&state, at) == 0 && !warm && !memory.takes_any_slot;
        if !memory.views[at].up || none || !self.0.life.lives(&state) {
            return None;
        }
        let number = state.number();
        let place = Place {
            set: self.0.set,
            host: at,
            backend: self.0.name.clone(),
            runner: None,
            taken_at: state.now,
            made: false,
        };
        let left = free(&state, self.0.life.number, at);
        if warm {
            mac::claim(&mut state, &self.0, at, number);
        } else {
            rules::slot_taken(&mut state, at, left);
            rules::place_taken_from_others(&mut state, self.0.life.number, self.0.set, at, left);
        }
        let memory = &mut state.lives[self.0.life.number];
        memory.places.insert(number, place);
        memory.queues[at].took(self.0.user());
        self.0.life.change_slots(at);
        let hold = Hold { life: self.0.life.clone(), number };
        Some(Box::new(SimReservation {
            backend: self.0.clone(),
            name: host.to_owned(),
            host: at,
            hold,
            ready: None,
        }))
    }

    fn keep_warm(&self, wanted: bool) {
        let (kind, warm) = {
            let state = self.0.life.sim.state();
            (state.setup.kind, state.setup.sets[self.0.set].warm)
        };
        if kind == Kind::Mac {
            mac::keep_warm(&self.0, if wanted { warm } else { 0 });
        }
    }

    fn warm(&self) -> Option<u32> {
        let state = self.0.life.sim.state();
        let fit = |(_, host): &(String, usize)| mac::fit_on(&state, &self.0, *host);
        (state.setup.kind == Kind::Mac).then(|| self.0.hosts.iter().map(fit).sum())
    }

    fn lost_hosts(&self) -> Vec<String> {
        let state = self.0.life.sim.state();
        let lost = |(_, host): &&(String, usize)| state.is_lost(self.0.life.number, *host);
        self.0.hosts.iter().filter(lost).map(|(name, _)| name.clone()).collect()
    }

    fn left_over(&self) -> u32 {
        mac::left_over(&self.0.life.sim.state(), &self.0)
    }

    async fn remove(&self, host: &str, instance_id: &str) -> Result<(), Error> {
        let life = self.0.life.clone();
        life.living().await;
        let host = self.0.host(host).ok_or_else(|| Error::Refused("there is no such host".into()))?;
        if life.sim.state().setup.kind == Kind::Ecs {
            return ecs::remove(&life, ecs::Whose::Set(self.0.set), host, instance_id).await;
        }
        let (there, back, lost) = {
            let mut state = life.sim.state();
            life.count_call(&mut state);
            if !state.lives[life.number].views[host].up {
                return Err(Error::Unreachable("not connected".into()));
            }
            let rough = state.hosts[host].starts != Starts::Well;
            (state.millis(1, 200), state.millis(1, 3_000), rough && state.chance(20))
        };
        let (sender, answered) = oneshot::channel();
        let id = instance_id.to_owned();
        let (worker, set) = (life.clone(), self.0.set);
        tokio::spawn(async move {
            tokio::time::sleep(there).await;
            if worker.sim.state().hangs(host) {
                tokio::time::sleep(REMOVE).await;
                let _ = sender.send(Err(Error::Unreachable("no answer".into())));
                return;
            }
            let answer = take_away(&mut worker.sim.state(), worker.number, set, host, &id);
            worker.sim.hosts[host].tell();
            tokio::time::sleep(if lost { REMOVE } else { back }).await;
            let _ = sender.send(if lost { Err(Error::Unreachable("no answer".into())) } else { answer });
        });
        let answer = answered.await;
        life.living().await;
        let answer = answer.unwrap_or_else(|_| Err(Error::Unreachable("nobody answers".into())));
        if matches!(answer, Err(Error::Unreachable(_))) {
            life.suspect(host);
        }
        answer
    }

    async fn log_tail(&self, _: &str, _: &str) -> Result<String, Error> {
        self.0.life.living().await;
        Ok(String::new())
    }
}

#[async_trait]
impl Reservation for SimReservation {
    fn host(&self) -> &str {
        &self.name
    }

    /// An image is pulled anew, which takes as long as it takes.
    async fn ready(&mut self) -> Result<(), Error> {
        let life = self.backend.life.clone();
        life.living().await;
        let starts = {
            let mut state = life.sim.state();
            life.count_call(&mut state);
            state.hosts[self.host].starts
        };
        match starts {
            Starts::Slow => life.sim.pause(10_000, 600_000).await,
            Starts::NoCapacity if life.sim.state().chance(30) => {
                life.sim.pause(50, 4_000).await;
                life.living().await;
                let message = "it cannot be pulled".to_owned();
                let failed = Err(Error::no_capacity(Reason::ImagePullFailed, message));
                self.backend.learn(self.host, &failed);
                return failed.map(drop);
            }
            _ => {}
        }
        if life.sim.state().setup.kind == Kind::Mac {
            let booted = mac::boot(&self.backend, self.host, self.hold.number).await;
            if let Err(error) = booted {
                // Of one that is full the slots say so.
                if !matches!(&error, Error::NoCapacity(why) if why.reason == Reason::HostFull) {
                    self.backend.learn(self.host, &Err(error.clone()));
                }
                return Err(error);
            }
        }
        life.living().await;
        self.ready = Some(life.sim.state().number());
        Ok(())
    }

    async fn start(self: Box<Self>, runner: &NewRunner<'_>) -> Result<Instance, Error> {
        let SimReservation { backend, name: host_name, host, hold, ready } = *self;
        let life = backend.life.clone();
        life.living().await;
        let registration = {
            let mut state = life.sim.state();
            let registration = begin_start(&mut state, &life, &hold, ready, runner);
            if !state.lives[life.number].views[host].up {
                return Err(Error::Unreachable("not connected".into()));
            }
            registration
        };
        let (sender, answered) = oneshot::channel();
        let name = runner.name.to_owned();
        tokio::spawn(async move {
            let kind = backend.life.sim.state().setup.kind;
            let answer = match kind {
                Kind::Docker | Kind::Mac | Kind::Fake => {
                    backend.clone().launch(host, name.clone(), registration, hold).await
                }
                Kind::Ecs => ecs::launch(backend.clone(), host, name.clone(), registration, hold).await,
            };
            if let Err(error) = &answer {
                backend.life.sim.state().note(|| format!("the start of {name} fails: {error:?}"));
            }
            if answer.is_err() {
                let mut state = backend.life.sim.state();
                state.watch.jobs.failed = state.now;
            }
            backend.learn(host, &answer);
            let _ = sender.send(answer);
        });
        let answer = answered.await;
        life.living().await;
        let answer = answer.unwrap_or_else(|_| Err(Error::Unreachable("nobody answers".into())));
        answer.map(|instance| Instance { host: host_name, ..instance })
    }
}

/// Waits until what a host pulls is there.
async fn pulled(life: &Life, host: usize) {
    let mut changed = life.sim.hosts[host].follow();
    loop {
        let until = life.sim.state().hosts[host].pulls_until;
        let left = until.map_or(Duration::ZERO, |until| between(life.sim.now(), until));
        if left.is_zero() {
            return;
        }
        tokio::select! {
            biased;
            () = tokio::time::sleep(left) => {}
            () = changed.changed() => {}
        }
    }
}

/// Removes an instance from a host.
fn take_away(state: &mut State, life: usize, set: usize, host: usize, id: &str) -> Result<(), Error> {
    if !state.hosts[host].reachable {
        return Err(Error::Unreachable("no route".into()));
    }
    let Some(instance) = state.hosts[host].instances.get(id).cloned() else { return Err(Error::Gone) };
    rules::instance_goes(state, life, set, &instance);
    remove(state, life, host, &instance);
    Ok(())
}

/// Removes an instance whose scale set is gone, as a controller believes.
pub fn take_orphan_away(state: &mut State, life: usize, host: usize, id: &str) -> Result<(), Error> {
    if !state.hosts[host].reachable {
        return Err(Error::Unreachable("no route".into()));
    }
    if let Some(number) = mac::number(id) {
        return mac::remove(state, host, number);
    }
    let Some(instance) = state.hosts[host].instances.get(id).cloned() else { return Err(Error::Gone) };
    rules::orphan_goes(state, &instance);
    remove(state, life, host, &instance);
    Ok(())
}

fn remove(state: &mut State, life: usize, host: usize, instance: &Container) {
    let shown = &instance.shown;
    state.note(|| format!("controller {life} removes {} ({:?})", shown.runner, shown.state));
    state.drop_instance(host, &shown.id);
    state.lives[life].views[host].instances.remove(&shown.id);
}
