//! Bugs that a controller might have, planted between it and its world, one for each rule: the model finds each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use paddock::api::{self, BackendType, HostCeiling, Reason};
use paddock::backend::{
    Availability, Backend, Error, Fingerprint, FreedBytes, HostState, HostUsage, Listing, NamedHost,
    OwnedInstance, Provider, Providers, References, Reservation, ResolveError, Resolved,
};
use paddock::github::{
    self, AcquirableJob, ClientConfig, JitRunner, ListedRunner, Message, RunnerReference, ScaleSet,
    ScaleSetService, Session, WantedScaleSet,
};
use paddock::runner::{Exit, Identity, Instance, InstanceState};
use paddock::scale_set::Environment;

use crate::history::{History, Kind, history_of};
use crate::hosts::Container;
use crate::left_out;
use crate::life::{Life, Veil};
use crate::search::find;
use crate::sim::between;

/// How late the bug starts that starts late.
const LATE: Duration = Duration::from_secs(1200);

/// How long the bug that blames a host leaves it alone.
const LEFT_ALONE: Duration = Duration::from_secs(300);

/// The bugs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// Every third runner is overlooked, and so another is started in its place.
    Overlooks,
    /// That a runner is busy is no reason not to stop it.
    StopsBusy,
    /// What was made and not started has ended.
    BuriesNeverStarted,
    /// A slot is taken where none is free.
    TakesAnySlot,
    /// Whoever comes first takes the slot that another waits for.
    JumpsTheQueue,
    /// The scale set of a deleted object is left at GitHub.
    LeavesScaleSet,
    /// What is left on a host of a deleted object stays there.
    LeavesOrphans,
    /// GitHub's list of runners is not looked at.
    ListsNoRunners,
    /// A host that does not answer has nothing on it.
    BelievesSilence,
    /// Whoever stops takes its runners along.
    StopsRunners,
    /// Whatever runs on a host is ours.
    OwnsAll,
    /// What refuses is asked again.
    IgnoresRefusals,
    /// What fails is waited for, for ever.
    WaitsForEver,
    /// Nothing runs on a host that the spec leaves out.
    ForgetsLeftOut,
    /// What has ended is not removed for half a minute.
    LetsLinger,
    /// No place is taken in the first 20 minutes.
    StartsLate,
    /// Jobs are asked for whether or not they can be started.
    AsksForAll,
    /// A host on which a runner ended is left alone for a while, whatever the end was.
    BlamesDrops,
    /// What never reached GitHub is taken for busy.
    KeepsDeaf,
    /// What was on a Mac that is silent is counted on for ever.
    CountsLost,
    /// What a host does not show is not there, however late it is to show it.
    BelievesAbsence,
}

pub fn planted(bug: Bug) -> Veil {
    Arc::new(move |life: Arc<Life>, world: Arc<dyn Environment>| {
        let plant = |provider: &Arc<dyn Provider>| {
            let provider = provider.clone();
            Arc::new(PlantedProvider { bug, life: life.clone(), provider }) as Arc<dyn Provider>
        };
        let providers = Providers::new(world.providers().iter().map(plant).collect());
        Arc::new(Planted { bug, life, world, providers }) as Arc<dyn Environment>
    })
}

struct Planted {
    bug: Bug,
    life: Arc<Life>,
    world: Arc<dyn Environment>,
    providers: Providers,
}

impl Environment for Planted {
    fn now(&self) -> Timestamp {
        self.world.now()
    }

    fn uptime(&self) -> Duration {
        self.world.uptime()
    }

    fn github(&self, client: &ClientConfig) -> Result<Arc<dyn ScaleSetService>, github::Error> {
        let life = self.life.clone();
        Ok(Arc::new(Service { bug: self.bug, life, service: self.world.github(client)? }))
    }

    fn providers(&self) -> &Providers {
        &self.providers
    }
}

struct PlantedProvider {
    bug: Bug,
    life: Arc<Life>,
    provider: Arc<dyn Provider>,
}

impl PlantedProvider {
    fn plant(&self, resolved: Arc<dyn Resolved>) -> Arc<dyn Resolved> {
        Arc::new(PlantedBlock { bug: self.bug, life: self.life.clone(), resolved })
    }
}

#[async_trait]
impl Provider for PlantedProvider {
    fn kind(&self) -> BackendType {
        self.provider.kind()
    }

    async fn resolve(
        &self,
        spec: &api::Backend,
        references: &dyn References,
    ) -> Result<Arc<dyn Resolved>, ResolveError> {
        Ok(self.plant(self.provider.resolve(spec, references).await?))
    }

    fn resolve_offline(&self, spec: &api::Backend) -> Option<Arc<dyn Resolved>> {
        self.provider.resolve_offline(spec).map(|resolved| self.plant(resolved))
    }

    fn resolve_host(&self, name: &str, endpoint: &str) -> Option<Arc<dyn Resolved>> {
        self.provider.resolve_host(name, endpoint).map(|resolved| self.plant(resolved))
    }

    fn limit_hosts(&self, ceilings: &[HostCeiling]) {
        self.provider.limit_hosts(ceilings);
    }

    fn hosts(&self) -> Vec<HostUsage> {
        self.provider.hosts()
    }

    fn freed(&self) -> Vec<FreedBytes> {
        self.provider.freed()
    }

    fn instances(&self) -> Vec<OwnedInstance> {
        self.provider.instances()
    }

    async fn remove_orphan(&self, orphan: &OwnedInstance) -> Result<(), Error> {
        if self.bug == Bug::LeavesOrphans { Ok(()) } else { self.provider.remove_orphan(orphan).await }
    }
}

struct PlantedBlock {
    bug: Bug,
    life: Arc<Life>,
    resolved: Arc<dyn Resolved>,
}

impl Resolved for PlantedBlock {
    fn fingerprint(&self) -> Fingerprint {
        self.resolved.fingerprint()
    }

    fn hosts(&self) -> &[NamedHost] {
        self.resolved.hosts()
    }

    fn open(&self, name: &str, siblings: &[String], owner: &Identity) -> Arc<dyn Backend> {
        let backend = self.resolved.open(name, siblings, owner);
        let set = self.life.sim.state().cluster.set_of(&owner.scale_set_uid).expect("a set of ours");
        {
            let mut state = self.life.sim.state();
            let memory = &mut state.lives[self.life.number];
            memory.takes_any_slot = self.bug == Bug::TakesAnySlot;
            memory.jumps_the_queue = self.bug == Bug::JumpsTheQueue;
        }
        if self.bug == Bug::StopsRunners {
            tokio::spawn(stop_runners(self.life.clone(), backend.clone()));
        }
        Arc::new(Hosted {
            bug: self.bug,
            set,
            began: self.life.sim.now(),
            life: self.life.clone(),
            backend,
            overlooked: Mutex::default(),
            blamed: Mutex::default(),
        })
    }
}

fn bury(instance: &mut Instance) {
    if instance.state == InstanceState::NeverStarted {
        let exit = Exit { code: None, out_of_memory: false, at: instance.created_at, ..Exit::default() };
        instance.state = InstanceState::Exited(exit);
    }
}

async fn stop_runners(life: Arc<Life>, backend: Arc<dyn Backend>) {
    life.stopping().cancelled().await;
    for instance in backend.instances().into_iter().flat_map(|listing| listing.instances) {
        let _ = backend.remove(&instance.host, &instance.id).await;
    }
}

struct Hosted {
    bug: Bug,
    set: usize,
    began: Timestamp,
    life: Arc<Life>,
    backend: Arc<dyn Backend>,
    /// Runners that were seen, and whether they are overlooked.
    overlooked: Mutex<(BTreeSet<String>, BTreeSet<String>)>,
    /// When a runner last ended, by host.
    blamed: Mutex<BTreeMap<usize, Timestamp>>,
}

impl Hosted {
    fn overlooks(&self, instance: &Instance) -> bool {
        let mut overlooked = self.overlooked.lock().unwrap();
        let (seen, hidden) = &mut *overlooked;
        if instance.state == InstanceState::Running
            && seen.insert(instance.runner.clone())
            && seen.len().is_multiple_of(3)
        {
            hidden.insert(instance.runner.clone());
        }
        hidden.contains(&instance.runner)
    }

    fn is_left_out(&self, host: &str) -> bool {
        let state = self.life.sim.state();
        let object = state.lives[self.life.number].acting[self.set].as_ref();
        object.is_some_and(|object| !left_out::names(object, left_out::number(host)))
    }

    fn blamed_until(&self, host: &str) -> Option<Timestamp> {
        let state = self.life.sim.state();
        let number = host.trim_start_matches("host-").parse::<usize>().expect("a host's number");
        let ended = |i: &Container| match &i.shown.state {
            InstanceState::Exited(exit) => Some(exit.at),
            _ => None,
        };
        let mut blamed = self.blamed.lock().unwrap();
        let last = blamed.entry(number).or_insert(self.life.sim.now() - LEFT_ALONE);
        let ended = state.hosts[number].instances.values().filter_map(ended).max();
        *last = (*last).max(ended.unwrap_or(*last));
        Some(*last + LEFT_ALONE).filter(|until| *until > state.now)
    }

    fn others(&self, listing: &Listing) -> Vec<Instance> {
        let state = self.life.sim.state();
        let number = left_out::number(&listing.host);
        let view = &state.lives[self.life.number].views[number];
        let others = view.instances.values().filter(|i| !i.ours());
        others.map(|i| Instance { host: listing.host.clone(), ..i.shown.clone() }).collect()
    }
}

#[async_trait]
impl Backend for Hosted {
    fn name(&self) -> &str {
        self.backend.name()
    }

    fn kind(&self) -> BackendType {
        self.backend.kind()
    }

    fn template_hash(&self) -> &str {
        self.backend.template_hash()
    }

    fn hosts(&self) -> Vec<HostState> {
        let mut hosts = self.backend.hosts();
        for host in &mut hosts {
            if self.bug == Bug::TakesAnySlot {
                host.free_slots = u32::MAX;
            }
            if self.bug == Bug::IgnoresRefusals && host.availability == Availability::Refused {
                host.availability = Availability::Ready;
            }
            if self.bug == Bug::BlamesDrops
                && let Some(until) = self.blamed_until(&host.name)
            {
                host.availability = Availability::BackOff { until, reason: Reason::StartFailures };
            }
        }
        hosts
    }

    fn instances(&self) -> Vec<Listing> {
        let mut listings = self.backend.instances();
        for listing in &mut listings {
            match self.bug {
                Bug::BuriesNeverStarted => listing.instances.iter_mut().for_each(bury),
                Bug::Overlooks => listing.instances.retain(|i| !self.overlooks(i)),
                Bug::ForgetsLeftOut if self.is_left_out(&listing.host) => listing.instances.clear(),
                Bug::BelievesAbsence => listing.hides = Duration::ZERO,
                Bug::OwnsAll => listing.instances.extend(self.others(listing)),
                Bug::BelievesSilence if !listing.current => {
                    listing.current = true;
                    listing.listed_at = Some(self.life.sim.now());
                    listing.instances.clear();
                }
                _ => {}
            }
        }
        listings
    }

    fn prepare(&self, host: &str) {
        self.backend.prepare(host);
    }

    fn wait_for_slots(&self, host: &str, runners: u32) {
        self.backend.wait_for_slots(host, runners);
    }

    fn keep_warm(&self, wanted: bool) {
        self.backend.keep_warm(wanted);
    }

    fn warm(&self) -> Option<u32> {
        self.backend.warm()
    }

    fn lost_hosts(&self) -> Vec<String> {
        if self.bug == Bug::CountsLost { Vec::new() } else { self.backend.lost_hosts() }
    }

    fn left_over(&self) -> u32 {
        self.backend.left_over()
    }

    fn reserve(&self, host: &str) -> Option<Box<dyn Reservation>> {
        if self.bug == Bug::StartsLate && between(self.began, self.life.sim.now()) < LATE {
            return None;
        }
        self.backend.reserve(host)
    }

    async fn remove(&self, host: &str, instance_id: &str) -> Result<(), Error> {
        let ended = |instance: &Instance| instance.id == instance_id && instance.state.ended();
        if self.bug == Bug::LetsLinger
            && self.backend.instances().iter().any(|listing| listing.instances.iter().any(ended))
        {
            tokio::time::sleep(Duration::from_secs(30)).await;
        }
        self.backend.remove(host, instance_id).await
    }

    async fn log_tail(&self, host: &str, instance_id: &str) -> Result<String, Error> {
        self.backend.log_tail(host, instance_id).await
    }
}

fn is_deaf(life: &Life, registration: i64) -> bool {
    life.sim.state().instances().any(|(_, i)| i.registration == registration && i.deaf)
}

struct Service {
    bug: Bug,
    life: Arc<Life>,
    service: Arc<dyn ScaleSetService>,
}

#[async_trait]
impl ScaleSetService for Service {
    async fn ensure_scale_set(
        &self,
        wanted: &WantedScaleSet,
        known: Option<i64>,
    ) -> Result<ScaleSet, github::Error> {
        self.service.ensure_scale_set(wanted, known).await
    }

    async fn find_scale_set(&self, id: i64) -> Result<Option<ScaleSet>, github::Error> {
        self.service.find_scale_set(id).await
    }

    async fn delete_scale_set(&self, id: i64) -> Result<(), github::Error> {
        if self.bug == Bug::LeavesScaleSet { Ok(()) } else { self.service.delete_scale_set(id).await }
    }

    async fn open_session(
        &self,
        id: i64,
        owner: &str,
        left_behind: Option<&str>,
    ) -> Result<Session, github::Error> {
        self.service.open_session(id, owner, left_behind).await
    }

    async fn refresh(&self, session: &Session) -> Result<Session, github::Error> {
        self.service.refresh(session).await
    }

    async fn poll(
        &self,
        session: &Session,
        last: i64,
        capacity: u32,
    ) -> Result<Option<Message>, github::Error> {
        let capacity = if self.bug == Bug::AsksForAll { 10 } else { capacity };
        self.service.poll(session, last, capacity).await
    }

    async fn acknowledge(&self, session: &Session, message_id: i64) -> Result<(), github::Error> {
        self.service.acknowledge(session, message_id).await
    }

    async fn acquire(&self, session: &Session, request_ids: &[i64]) -> Result<Vec<i64>, github::Error> {
        self.service.acquire(session, request_ids).await
    }

    async fn acquirable(&self, id: i64) -> Result<Vec<AcquirableJob>, github::Error> {
        self.service.acquirable(id).await
    }

    async fn mint_jit(&self, id: i64, runner_name: &str) -> Result<JitRunner, github::Error> {
        self.service.mint_jit(id, runner_name).await
    }

    async fn find_runner(&self, name: &str) -> Result<Option<RunnerReference>, github::Error> {
        self.service.find_runner(name).await
    }

    async fn remove_runner(&self, id: i64) -> Result<(), github::Error> {
        if self.bug == Bug::KeepsDeaf && is_deaf(&self.life, id) {
            return Err(github::Error::RunnerBusy);
        }
        match self.service.remove_runner(id).await {
            Err(github::Error::RunnerBusy) if self.bug == Bug::StopsBusy => Ok(()),
            Err(github::Error::Transient(_)) if self.bug == Bug::WaitsForEver => std::future::pending().await,
            answer => answer,
        }
    }

    async fn list_runners(&self) -> Result<Vec<ListedRunner>, github::Error> {
        if self.bug == Bug::ListsNoRunners { Ok(Vec::new()) } else { self.service.list_runners().await }
    }

    async fn rerun_failed_jobs(&self, repository: &str, run_id: i64) -> Result<(), github::Error> {
        self.service.rerun_failed_jobs(repository, run_id).await
    }

    async fn close(&self, session: &Session) -> Result<(), github::Error> {
        self.service.close(session).await
    }

    fn limited_for(&self) -> Option<Duration> {
        self.service.limited_for()
    }
}

/// The model finds the bug within a thousand histories, by the rule that it breaks.
fn is_found(bug: Bug, rule: u8) {
    is_found_in(|seed| history_of(seed, Kind::Docker), bug, rule);
}

/// So it is on ECS.
fn is_found_on_ecs(bug: Bug, rule: u8) {
    is_found_in(|seed| history_of(seed, Kind::Ecs), bug, rule);
}

/// And on Macs.
fn is_found_on_macs(bug: Bug, rule: u8) {
    is_found_in(|seed| history_of(seed, Kind::Mac), bug, rule);
}

fn is_found_in(histories: fn(u64) -> History, bug: Bug, rule: u8) {
    let found = find(histories, 1, 1_000, 1, &planted(bug), Some(rule));
    let (seed, violation) = found.unwrap_or_else(|| panic!("{bug:?} is not found"));
    println!("{bug:?}: history {seed}, rule {rule}: {}", violation.what);
}

#[test]
fn rule_1_a_runner_that_is_overlooked() {
    is_found(Bug::Overlooks, 1);
}

#[test]
fn rule_1_a_task_that_is_not_shown_yet_and_is_believed_to_be_gone() {
    is_found_on_ecs(Bug::BelievesAbsence, 1);
}

#[test]
fn rule_2_a_busy_runner_that_is_stopped() {
    is_found(Bug::StopsBusy, 2);
}

#[test]
fn rule_2_a_runner_that_comes_up_late_and_is_stopped() {
    is_found(Bug::BuriesNeverStarted, 2);
}

#[test]
fn rule_3_a_slot_that_was_not_free() {
    is_found(Bug::TakesAnySlot, 3);
}

#[test]
fn rule_3_a_slot_that_was_taken_by_hand() {
    is_found_on_macs(Bug::TakesAnySlot, 3);
}

#[test]
fn rule_4_a_scale_set_that_is_left_at_github() {
    is_found(Bug::LeavesScaleSet, 4);
}

#[test]
fn rule_4_an_instance_that_is_left_on_a_host() {
    is_found(Bug::LeavesOrphans, 4);
}

#[test]
fn rule_4_a_registration_that_is_left_at_github() {
    is_found(Bug::ListsNoRunners, 4);
}

#[test]
fn rule_5_a_silent_host_that_is_believed_to_be_empty() {
    is_found(Bug::BelievesSilence, 5);
}

#[test]
fn rule_6_a_controller_that_takes_its_runners_along() {
    is_found(Bug::StopsRunners, 6);
}

#[test]
fn rule_7_an_instance_of_someone_else() {
    is_found(Bug::OwnsAll, 7);
}

#[test]
fn rule_8_a_host_that_refuses_and_is_asked_again() {
    is_found(Bug::IgnoresRefusals, 8);
}

#[test]
fn rule_9_a_set_that_is_starved() {
    is_found(Bug::JumpsTheQueue, 9);
}

#[test]
fn rule_9_a_wait_without_an_end() {
    is_found(Bug::WaitsForEver, 9);
}

#[test]
fn rule_5_a_runner_that_is_forgotten_with_its_host() {
    is_found(Bug::ForgetsLeftOut, 5);
}

#[test]
fn rule_4_an_instance_that_lingers_after_its_end() {
    is_found(Bug::LetsLinger, 4);
}

#[test]
fn rule_0_a_runner_that_is_started_late() {
    is_found(Bug::StartsLate, 0);
}
