//! The recording fake of the conformance suite as a kind of host: the fake is put in the model's time, what it starts connects to
//! the simulated GitHub, and what it is asked for is held against the rules. A kind that can show what it has is run so too.

use std::sync::Arc;

use async_trait::async_trait;
use conformance::fake;
use jiff::Timestamp;
use paddock::api::{self, BackendType, HostCeiling, Reason};
use paddock::backend::{
    Backend, Error, Fingerprint, FreedBytes, HostState, HostUsage, Listing, NamedHost, NewRunner,
    OwnedInstance, Provider, References, Requeuer, Reservation, ResolveError, Resolved,
};
use paddock::runner::{Identity, Instance, JitConfiguration};
use tokio::time::Instant;

use crate::history::Starts;
use crate::hosts::{self, Container, Hold, Place};
use crate::life::Life;
use crate::sim::{CLUSTER, Sim, State};
use crate::{left_out, process, rules};

/// The model's world, as the fake is in it.
pub struct World(pub Arc<Sim>);

impl fake::World for World {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn runs(&self, endpoint: &str, instance: &Instance, jit: &JitConfiguration) {
        let host = left_out::number(endpoint);
        let mut state = self.0.state();
        let starts = state.hosts[host].starts;
        let registration = jit.expose().parse().expect("a registration's number");
        let set = state.cluster.set_of(&instance.scale_set_uid).expect("a set of ours");
        let holds = |place: &Place| place.runner.as_ref() == Some(&instance.runner);
        let maker = state.lives.iter().position(|life| life.places.values().any(holds));
        let maker = maker.unwrap_or_else(|| state.lives.len() - 1);
        let container = Container {
            cluster: CLUSTER.to_owned(),
            set,
            shown: instance.clone(),
            registration,
            maker,
            deaf: starts == Starts::Deaf,
            ..Container::foreign(&instance.id, state.now)
        };
        state.hosts[host].instances.insert(instance.id.clone(), container);
        let places = state.lives[maker].places.values_mut();
        places.filter(|place| holds(place)).for_each(|place| place.made = true);
        state.note(|| format!("{} runs on fake host {host} ({starts:?})", instance.runner));
        rules::instance_comes(&mut state, maker, host, set);
        drop(state);
        tokio::spawn(process::run(self.0.clone(), host, instance.id.clone(), starts));
    }
}

/// A host's endpoint, as the fake reads it.
fn endpoint(host: usize) -> String {
    format!("fake://{host}")
}

/// Fake hosts with what is on them in the beginning.
pub fn hosts(sim: &Arc<Sim>) -> fake::Hosts {
    let fake = fake::Hosts::within(World(sim.clone()));
    for (number, host) in sim.state().hosts.iter().enumerate() {
        host.live().for_each(|_| drop(fake.add_foreign(&endpoint(number))));
    }
    fake
}

/// Has a host fall silent at once: nobody is shown what becomes of it.
pub fn silence(fake: &fake::Hosts, host: usize) {
    fake.fall_silent(&endpoint(host));
}

/// Has the fake's hosts fall silent when the model's do.
pub async fn fall_silent(sim: Arc<Sim>, fake: fake::Hosts, host: usize) {
    let mut changed = sim.hosts[host].follow();
    loop {
        let away = !sim.state().hosts[host].reachable;
        match fake.is_silent(&endpoint(host)) {
            false if away => silence(&fake, host),
            true if !away => fake.answer_again(&endpoint(host)),
            _ => {}
        }
        changed.changed().await;
    }
}

/// The fake as one controller reaches it.
pub struct Faked {
    life: Arc<Life>,
    hosts: fake::Hosts,
    inner: fake::FakeProvider,
}

impl Faked {
    pub fn new(life: &Arc<Life>, requeuer: Requeuer) -> Option<Faked> {
        let hosts = life.sim.state().fake.clone()?;
        let inner = fake::FakeProvider::new(&hosts, CLUSTER, requeuer);
        let slots = life.sim.state().hosts.iter().map(|host| host.slots).collect::<Vec<_>>();
        let ceiling = |(host, slots): (usize, Option<u32>)| {
            Some(HostCeiling { endpoint: endpoint(host), max_runners: slots? })
        };
        inner.limit_hosts(&slots.into_iter().enumerate().filter_map(ceiling).collect::<Vec<_>>());
        Some(Faked { life: life.clone(), hosts, inner })
    }
}

/// The fake's provider with its calls held against the rules.
pub struct FakedProvider(pub Arc<Faked>);

struct Block {
    faked: Arc<Faked>,
    inner: Arc<dyn Resolved>,
}

/// The spec with the endpoints of the fake.
fn respelled(spec: &api::Backend) -> api::Backend {
    let mut spec = spec.clone();
    for host in spec.docker.iter_mut().flat_map(|docker| &mut docker.hosts) {
        host.endpoint = endpoint(left_out::number(&host.endpoint));
    }
    spec
}

impl FakedProvider {
    fn block(&self, inner: Arc<dyn Resolved>) -> Arc<dyn Resolved> {
        Arc::new(Block { faked: self.0.clone(), inner })
    }
}

#[async_trait]
impl Provider for FakedProvider {
    fn kind(&self) -> BackendType {
        self.0.inner.kind()
    }

    async fn resolve(
        &self,
        spec: &api::Backend,
        references: &dyn References,
    ) -> Result<Arc<dyn Resolved>, ResolveError> {
        Ok(self.block(self.0.inner.resolve(&respelled(spec), references).await?))
    }

    fn resolve_offline(&self, spec: &api::Backend) -> Option<Arc<dyn Resolved>> {
        self.0.inner.resolve_offline(&respelled(spec)).map(|inner| self.block(inner))
    }

    fn resolve_host(&self, name: &str, endpoint: &str) -> Option<Arc<dyn Resolved>> {
        let endpoint = self::endpoint(left_out::number(endpoint));
        self.0.inner.resolve_host(name, &endpoint).map(|inner| self.block(inner))
    }

    /// The hosts have the slots of the history.
    fn limit_hosts(&self, _: &[HostCeiling]) {}

    fn hosts(&self) -> Vec<HostUsage> {
        self.0.inner.hosts()
    }

    fn freed(&self) -> Vec<FreedBytes> {
        self.0.inner.freed()
    }

    fn instances(&self) -> Vec<OwnedInstance> {
        self.0.inner.instances()
    }

    async fn remove_orphan(&self, orphan: &OwnedInstance) -> Result<(), Error> {
        let Faked { life, inner, .. } = &*self.0;
        life.living().await;
        rules::orphan_asked(&mut life.sim.state(), life.number, &orphan.instance.runner);
        life.sim.pause(1, 3_000).await;
        life.living().await;
        let host = left_out::number(&orphan.host.endpoint);
        let id = &orphan.instance.id;
        {
            let mut state = life.sim.state();
            if let Some(instance) = reached(&state, host, id) {
                rules::orphan_goes(&mut state, &instance);
            }
        }
        inner.remove_orphan(orphan).await?;
        life.sim.state().drop_instance(host, id);
        life.sim.hosts[host].tell();
        Ok(())
    }
}

/// An instance, if its host is there to be asked for it.
fn reached(state: &State, host: usize, id: &str) -> Option<Container> {
    state.hosts[host].instances.get(id).filter(|_| state.hosts[host].reachable).cloned()
}

impl Resolved for Block {
    fn fingerprint(&self) -> Fingerprint {
        self.inner.fingerprint()
    }

    fn hosts(&self) -> &[NamedHost] {
        self.inner.hosts()
    }

    fn open(&self, name: &str, siblings: &[String], owner: &Identity) -> Arc<dyn Backend> {
        let inner = self.inner.open(name, siblings, owner);
        let life = &self.faked.life;
        let mut state = life.sim.state();
        let set = state.cluster.set_of(&owner.scale_set_uid).expect("a set of ours");
        let numbers = self.inner.hosts().iter().map(|host| left_out::number(&host.endpoint));
        let numbers: Vec<usize> = numbers.collect();
        hosts::note_template(&mut state, life.number, (set, name), inner.template_hash(), &numbers);
        drop(state);
        let names = self.inner.hosts().iter().map(|host| host.name.clone());
        let hosts = names.zip(numbers).collect();
        Arc::new(Held { faked: self.faked.clone(), set, hosts, inner })
    }
}

/// A backend of the fake.
struct Held {
    faked: Arc<Faked>,
    set: usize,
    /// By their names in the backend.
    hosts: Vec<(String, usize)>,
    inner: Arc<dyn Backend>,
}

impl Held {
    fn host(&self, name: &str) -> Option<usize> {
        self.hosts.iter().find(|(known, _)| known == name).map(|(_, host)| *host)
    }

    fn user(&self) -> u64 {
        hosts::user_of(self.set, self.inner.name())
    }

    /// Slots that are free there, for whomever.
    fn free(&self, host: usize) -> u32 {
        let usages = self.faked.inner.hosts();
        let usage = usages.iter().find(|usage| usage.host.endpoint == endpoint(host));
        usage.and_then(|usage| usage.free).unwrap_or(u32::MAX)
    }
}

#[async_trait]
impl Backend for Held {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn kind(&self) -> BackendType {
        self.inner.kind()
    }

    fn template_hash(&self) -> &str {
        self.inner.template_hash()
    }

    fn hosts(&self) -> Vec<HostState> {
        let shown = self.inner.hosts();
        let life = &self.faked.life;
        let memory = &mut life.sim.state().lives[life.number];
        for (host, at) in shown.iter().filter_map(|state| Some((state, self.host(&state.name)?))) {
            let key = (self.set, self.inner.name().to_owned(), at);
            memory.shown.insert(key, host.availability.clone());
        }
        shown
    }

    /// What is shown, noted as what the controller knows.
    fn instances(&self) -> Vec<Listing> {
        let listings = self.inner.instances();
        let life = &self.faked.life;
        let mut state = life.sim.state();
        for (listing, host) in listings.iter().filter_map(|l| Some((l, self.host(&l.host)?))) {
            let there = |instance: &Instance| {
                // What is gone from a silent host is shown as it was last known.
                let before = &state.lives[life.number].views[host].instances;
                let known = state.hosts[host].instances.get(&instance.id).or(before.get(&instance.id));
                let mut known = known.cloned()?;
                known.shown.state = instance.state.clone();
                Some((instance.id.clone(), known))
            };
            let shown: Vec<(String, Container)> = listing.instances.iter().filter_map(there).collect();
            let memory = &mut state.lives[life.number];
            let view = &mut memory.views[host];
            (view.up, view.listed_at) = (listing.current, listing.listed_at);
            let own = |i: &Container| i.set == self.set && i.shown.backend == self.inner.name();
            view.instances.retain(|_, i| !own(i));
            view.instances.extend(shown);
            memory.saw(host);
        }
        drop(state);
        listings
    }

    fn prepare(&self, host: &str) {
        self.inner.prepare(host);
    }

    fn wait_for_slots(&self, host: &str, runners: u32) {
        self.inner.wait_for_slots(host, runners);
        if let Some(at) = self.host(host) {
            let life = &self.faked.life;
            let queue = &mut life.sim.state().lives[life.number].queues[at];
            queue.wait(self.user(), runners, Instant::now());
        }
    }

    fn keep_warm(&self, wanted: bool) {
        self.inner.keep_warm(wanted);
    }

    fn warm(&self) -> Option<u32> {
        self.inner.warm()
    }

    fn lost_hosts(&self) -> Vec<String> {
        self.inner.lost_hosts()
    }

    fn left_over(&self) -> u32 {
        self.inner.left_over()
    }

    fn reserve(&self, host: &str) -> Option<Box<dyn Reservation>> {
        let at = self.host(host)?;
        let life = &self.faked.life;
        let shown = self.inner.hosts().into_iter().find(|state| state.name == host)?;
        let backend = self.inner.name();
        rules::place_taken(&mut life.sim.state(), life.number, self.set, backend, at, &shown.availability);
        let free = self.free(at);
        let inner = self.inner.reserve(host)?;
        let mut state = life.sim.state();
        rules::place_taken_from_others(&mut state, life.number, self.set, at, free);
        state.lives[life.number].queues[at].took(self.user());
        let hold = Hold::take(&mut state, life, self.set, at, backend);
        Some(Box::new(Start {
            life: life.clone(),
            fake: self.faked.hosts.clone(),
            at,
            hold,
            ready: None,
            inner,
        }))
    }

    async fn remove(&self, host: &str, instance_id: &str) -> Result<(), Error> {
        let life = &self.faked.life;
        let at = self.host(host);
        life.living().await;
        life.sim.pause(1, 3_000).await;
        life.living().await;
        if let Some(at) = at {
            let mut state = life.sim.state();
            life.count_call(&mut state);
            if state.hangs(at) {
                self.faked.hosts.fail_next(fake::Method::Remove, Error::Unreachable("no answer".into()));
            } else if let Some(instance) = reached(&state, at, instance_id) {
                rules::instance_goes(&mut state, life.number, self.set, &instance);
            }
        }
        self.inner.remove(host, instance_id).await?;
        if let Some(at) = at {
            life.sim.state().drop_instance(at, instance_id);
            life.sim.hosts[at].tell();
        }
        Ok(())
    }

    async fn log_tail(&self, host: &str, instance_id: &str) -> Result<String, Error> {
        self.inner.log_tail(host, instance_id).await
    }
}

/// A slot on a fake host, and a start in it.
struct Start {
    life: Arc<Life>,
    fake: fake::Hosts,
    at: usize,
    hold: Hold,
    /// What was registered with a lower number was registered before the host was ready; none: it is not.
    ready: Option<u64>,
    inner: Box<dyn Reservation>,
}

impl Start {
    /// What a host's mood makes of a start.
    fn fails(&self) -> Option<Error> {
        match self.life.sim.state().hosts[self.at].starts {
            Starts::NoCapacity | Starts::Refused => {
                Some(Error::no_capacity(Reason::EngineError, "there is no room"))
            }
            Starts::Stuck | Starts::Unanswered => Some(Error::Unreachable("no answer".into())),
            Starts::Well | Starts::Slow | Starts::Fatal | Starts::Deaf => None,
        }
    }
}

#[async_trait]
impl Reservation for Start {
    fn host(&self) -> &str {
        self.inner.host()
    }

    async fn ready(&mut self) -> Result<(), Error> {
        self.life.living().await;
        let slow = self.life.sim.state().hosts[self.at].starts == Starts::Slow;
        self.life.sim.pause(50, if slow { 170_000 } else { 4_000 }).await;
        self.life.living().await;
        self.inner.ready().await?;
        self.ready = Some(self.life.sim.state().number());
        Ok(())
    }

    async fn start(self: Box<Self>, runner: &NewRunner<'_>) -> Result<Instance, Error> {
        self.life.living().await;
        hosts::begin_start(&mut self.life.sim.state(), &self.life, &self.hold, self.ready, runner);
        self.life.sim.pause(50, 4_000).await;
        self.life.living().await;
        if let Some(error) = self.fails() {
            self.fake.fail_next(fake::Method::Start, error);
        }
        let Start { life, inner, hold, .. } = *self;
        let answer = inner.start(runner).await;
        drop(hold);
        life.living().await;
        if let Err(error) = &answer {
            let mut state = life.sim.state();
            state.note(|| format!("the start of {} fails: {error:?}", runner.name));
            state.watch.jobs.failed = state.now;
        }
        answer
    }
}
