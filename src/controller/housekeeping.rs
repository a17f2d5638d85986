//! The reaper's rounds: what nobody speaks for is looked for on a timer, and removed once it was asked about live.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::core::response::reason;
use tokio::time::sleep;
use tracing::{info, warn};

use super::answer::with_timeout;
use super::context::Context;
use crate::backend::OwnedInstance;
use crate::github::{ClientConfig, ListedRunner, ScaleSetService};
use crate::reaper::{OrphanInstances, OrphanRegistrations, SWEEP_INTERVAL};
use crate::rng;
use crate::scale_set::ScaleSetHandle;
use crate::time::Plus;

/// Between two rounds, give or take a quarter.
const ROUND: Duration = Duration::from_secs(60);
/// An object that is there is reconciled more often than this.
const UNSEEN: Duration = Duration::from_secs(120);

/// What the rounds remember.
#[derive(Default)]
pub(super) struct Rounds {
    orphans: OrphanInstances,
    gone: HashSet<String>,
    abandoned: HashMap<String, OrphanRegistrations>,
    listed_at: HashMap<ClientConfig, Timestamp>,
}

/// Makes rounds until the process stops.
pub(super) async fn run(ctx: Arc<Context>) {
    let mut rounds = Rounds::default();
    loop {
        let pause = ROUND.mul_f64(0.75 + 0.5 * rng::unit());
        tokio::select! {
            () = sleep(pause) => {}
            () = ctx.stopping.cancelled() => return,
        }
        rounds.make(&ctx).await;
    }
}

impl Rounds {
    /// One round.
    pub async fn make(&mut self, ctx: &Context) {
        self.forget_gone(ctx).await;
        self.remove_orphans(ctx).await;
        self.remove_abandoned(ctx).await;
    }

    /// Scale sets whose object went without us. The watch says nothing of that, but that it is not reconciled any more.
    async fn forget_gone(&mut self, ctx: &Context) {
        let mut gone = HashSet::new();
        for set in ctx.shared.registry.all() {
            let seen_at = set.state().reconciled_at;
            if seen_at.plus(UNSEEN) > ctx.shared.now()
                || !is_gone(&set.identity.scale_set, &set.uid, ctx).await
            {
                continue;
            }
            if self.gone.contains(&set.uid) {
                warn!(
                    scale_set = set.identity.scale_set,
                    uid = set.uid,
                    "the object is gone, and is forgotten"
                );
                ctx.forget(&set);
            } else {
                gone.insert(set.uid.clone());
            }
        }
        self.gone = gone;
    }

    /// Instances that nobody looks after: of a scale set that is gone they are removed, and a host on which a scale set has
    /// them that does not name it is drained.
    async fn remove_orphans(&mut self, ctx: &Context) {
        let sets: HashMap<String, Arc<ScaleSetHandle>> =
            ctx.shared.registry.all().into_iter().map(|set| (set.uid.clone(), set)).collect();
        let mut known = HashMap::new();
        let looked_after = |found: &OwnedInstance| {
            let Some(set) = sets.get(&found.instance.scale_set_uid) else { return false };
            let place = (set.uid.clone(), found.host.clone());
            *known.entry(place).or_insert_with(|| set.state().has_host(&found.host))
        };
        for orphan in self.orphans.look(ctx.shared.providers().instances(), looked_after, ctx.shared.now()) {
            let runner = &orphan.instance.runner;
            if let Some(set) = sets.get(&orphan.instance.scale_set_uid) {
                info!(
                    runner,
                    scale_set = orphan.scale_set,
                    host = orphan.host.endpoint,
                    "the spec does not name a host that has a runner"
                );
                let (providers, now) = (ctx.shared.providers(), ctx.shared.now());
                set.state().drain(&orphan.instance.backend, &orphan.host, providers, &set.identity, now);
                ctx.shared.registry.requeue(&set.uid);
                continue;
            }
            if !is_gone(&orphan.scale_set, &orphan.instance.scale_set_uid, ctx).await {
                continue;
            }
            match ctx.shared.remove_orphan(&orphan).await {
                Ok(()) => {
                    ctx.shared.metrics.orphan("instance");
                    info!(runner, scale_set = orphan.scale_set, "removed an instance whose scale set is gone")
                }
                Err(error) => {
                    warn!(runner, %error, "an instance whose scale set is gone cannot be removed yet")
                }
            }
        }
    }

    /// Registrations without an instance: of scale sets that are new to this process, and where GitHub counts more of them
    /// than there are runners.
    async fn remove_abandoned(&mut self, ctx: &Context) {
        let sets = ctx.shared.registry.all();
        self.abandoned.retain(|uid, _| sets.iter().any(|set| set.uid == *uid));
        let mut lists: HashMap<ClientConfig, Vec<ListedRunner>> = HashMap::new();
        for set in sets {
            let settled = self.abandoned.get(&set.uid).is_some_and(OrphanRegistrations::is_settled);
            let Some(suspect) = Suspect::of(&set).filter(|s| s.counts_more || !settled) else { continue };
            if !lists.contains_key(&suspect.client) {
                let Some(list) = self.list(&suspect, ctx.shared.now()).await else { continue };
                lists.insert(suspect.client.clone(), list);
            }
            let Some(list) = lists.get(&suspect.client) else { continue };
            let abandoned = self.abandoned.entry(set.uid.clone()).or_default();
            for runner in abandoned.look(list, &suspect.name, &suspect.known, ctx.shared.now()) {
                suspect.remove(&runner, ctx).await;
            }
        }
    }

    /// GitHub's list, unless it was asked for with this credential a short while ago.
    async fn list(&mut self, suspect: &Suspect, now: Timestamp) -> Option<Vec<ListedRunner>> {
        self.listed_at.retain(|_, at| at.plus(SWEEP_INTERVAL) > now);
        if self.listed_at.contains_key(&suspect.client) {
            return None;
        }
        self.listed_at.insert(suspect.client.clone(), now);
        match suspect.service.list_runners().await {
            Ok(list) => Some(list),
            Err(error) => {
                info!(%error, "GitHub's list of runners cannot be read");
                None
            }
        }
    }
}

/// Whether the object of that `namespace/name` and UID is gone, by a live read, in a namespace that is ours to judge.
async fn is_gone(scale_set: &str, uid: &str, ctx: &Context) -> bool {
    let Some((namespace, name)) = scale_set.split_once('/') else { return false };
    if !ctx.shared.registry.serve(namespace) {
        return false;
    }
    match with_timeout(ctx.scale_sets(namespace).get(name)).await {
        Ok(object) => object.metadata.uid.as_deref() != Some(uid),
        // Of the object only. A 404 that says no reason is of a version that is not served, or of something in between.
        Err(kube::Error::Api(status)) => status.reason == reason::NOT_FOUND,
        // Nothing destructive follows from a read that failed.
        Err(_) => false,
    }
}

/// A scale set of which GitHub may have registrations that nobody knows of.
struct Suspect {
    /// GitHub counts more runners of it than it has.
    counts_more: bool,
    client: ClientConfig,
    service: Arc<dyn ScaleSetService>,
    scale_set_id: i64,
    name: String,
    known: HashSet<String>,
}

impl Suspect {
    fn of(set: &ScaleSetHandle) -> Option<Suspect> {
        let client = set.target.borrow().as_ref().map(|target| target.client.clone())?;
        let state = set.state();
        let (counted, _) = state.ledger.demand().latest()?;
        let (held, _) = state
            .github
            .registration
            .held
            .as_ref()
            .filter(|(held, _)| state.github.registration.owns(held.id))?;
        Some(Suspect {
            counts_more: counted.registered_runners as usize > state.ledger.runners().count(),
            client,
            service: state.github.service.clone()?,
            scale_set_id: held.id,
            name: held.name.clone(),
            known: state.ledger.runners().map(|r| r.name.clone()).collect(),
        })
    }

    async fn remove(&self, runner: &ListedRunner, ctx: &Context) {
        let confirmed = match self.service.find_runner(&runner.name).await {
            Ok(found) => found.is_some_and(|f| f.id == runner.id && f.scale_set_id == self.scale_set_id),
            Err(_) => false,
        };
        if !confirmed {
            return;
        }
        match self.service.remove_runner(runner.id).await {
            Ok(()) => {
                ctx.shared.metrics.orphan("registration");
                info!(runner = runner.name, "removed a registration that no instance stands for");
            }
            Err(error) => {
                info!(runner = runner.name, %error, "an abandoned registration cannot be removed yet")
            }
        }
    }
}
