//! The controller's life: what it needs to start, what it watches, and how it ends.

use std::error::Error as _;
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::channel::mpsc;
use futures::{FutureExt, Stream, StreamExt, future};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::api::PartialObjectMeta;
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::{Controller, WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::answer::{api_message, is_unserved, with_timeout};
use super::context::{Context, Guarded};
use super::definition::Definition;
use super::housekeeping;
use super::lease::{Candidate, Leadership};
use super::policy_file::{PolicyError, PolicyFile};
use super::reconcile::{after_error, reconcile};
use crate::api::OperatorPolicy;
use crate::scale_set::{Environment, ObjectName, Production, Registry};
use crate::telemetry::{Ports, serve};

/// On a stop, what is under way ends and sessions are closed, in no longer than this.
const FAREWELL: Duration = Duration::from_secs(8);

/// How many objects a list brings at a time. One may have a MiB and more.
const PAGE: u32 = 10;

/// How the controller runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// The namespaces it watches; none: all.
    pub namespaces: Vec<String>,
    /// The cluster's id; none: the UID of the `kube-system` namespace.
    pub cluster_id: Option<String>,
    /// Who owns the message sessions and the Lease: stable over restarts, and no other's.
    pub owner: String,
    /// Where the Lease is by which one of several controllers leads; none: this one leads without asking.
    pub lease_namespace: Option<String>,
    /// The file with the operator's policy, read again when it changes; none: the default policy.
    pub policy: Option<PathBuf>,
}

/// Why the controller cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The API server does not let us see the scale sets.
    #[error("RunnerScaleSets cannot be listed; is the RBAC of deploy/ there? {}", api_message(.0))]
    NoScaleSets(kube::Error),
    /// The cluster's id cannot be read.
    #[error(
        "cannot read the kube-system namespace for the cluster's id: allow it or give --cluster-id ({})", api_message(.0)
    )]
    NoClusterId(kube::Error),
    /// There is no policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Another controller may lead now.
    #[error("leadership is lost; this process may not act any more")]
    LeadershipLost,
    /// The web server ended.
    #[error("the web server: {0}")]
    Serve(#[from] std::io::Error),
}

/// Runs until `stopping` is cancelled. Runners are left running.
pub async fn run(
    client: Client,
    ports: Ports,
    options: Options,
    stopping: CancellationToken,
) -> Result<(), StartError> {
    let (file, policy) = match &options.policy {
        Some(path) => PolicyFile::open(path).await.map(|(file, policy)| (Some(file), policy))?,
        None => (None, OperatorPolicy::default()),
    };
    let mut candidate =
        options.lease_namespace.as_ref().map(|n| Candidate::new(client.clone(), n, &options.owner));
    let leadership = candidate.as_ref().map_or_else(Leadership::open, Candidate::leadership);
    let ctx = Arc::new(context(client, &options, leadership, policy, stopping.clone()).await?);
    let scale_sets = api(&ctx.client, options.namespaces.first().map(String::as_str));
    let definition = Definition::new(scale_sets, ctx.shared.health.clone());
    definition.look().await.map_err(StartError::NoScaleSets)?;
    tokio::spawn(definition.clone().follow(stopping.clone()));
    if let Some(file) = file {
        tokio::spawn(file.follow(ctx.clone()));
    }
    let server = serve(ports, ctx.shared.metrics.clone(), ctx.shared.health.clone(), stopping.clone());
    let (served, led) = future::join(server, lead(&ctx, &options, &definition, candidate.as_mut())).await;
    led?;
    Ok(served?)
}

/// Leads once this process may, until it is told to stop or may not any more.
async fn lead(
    ctx: &Arc<Context>,
    options: &Options,
    definition: &Definition,
    candidate: Option<&mut Candidate>,
) -> Result<(), StartError> {
    let Some(candidate) = candidate else {
        act(ctx, options, definition).await;
        return Ok(());
    };
    // A standby is as ready as it can be.
    ctx.shared.health.ready();
    if !candidate.lead(&ctx.stopping).await {
        return Ok(());
    }
    let keep = async {
        let kept = candidate.keep(&ctx.stopping).await;
        ctx.stopping.cancel();
        if kept { Ok(()) } else { Err(StartError::LeadershipLost) }
    };
    // Who does not lead any more finishes nothing.
    future::try_join(keep, act(ctx, options, definition).map(Ok)).await?;
    candidate.resign().await;
    Ok(())
}

/// Acts until this process is told to stop, and says farewell. What is not done in time is taken up by the next
/// controller.
async fn act(ctx: &Arc<Context>, options: &Options, definition: &Definition) {
    let late = async {
        ctx.stopping.cancelled().await;
        sleep(FAREWELL).await;
    };
    let acting = async {
        reconcile_all(ctx, options, definition).await;
        farewell(ctx).await;
    };
    tokio::select! {
        () = acting => {}
        () = late => {}
    }
    info!("controller stopped; runners are left running");
}

async fn reconcile_all(ctx: &Arc<Context>, options: &Options, definition: &Definition) {
    let scopes: Vec<Option<String>> = match options.namespaces.as_slice() {
        [] => vec![None],
        namespaces => namespaces.iter().cloned().map(Some).collect(),
    };
    info!(cluster = ctx.shared.cluster, owner = ctx.shared.owner, "controller started");
    tokio::spawn(housekeeping::run(ctx.clone()));
    future::join_all(scopes.into_iter().map(|scope| control(ctx.clone(), definition, scope))).await;
}

/// Sessions are closed, and starts that are under way are waited for.
async fn farewell(ctx: &Context) {
    let sets = ctx.shared.registry.all();
    sets.iter().for_each(|set| {
        set.tasks.close();
    });
    future::join_all(sets.iter().map(|set| set.tasks.wait())).await;
}

async fn context(
    client: Client,
    options: &Options,
    leadership: Leadership,
    policy: OperatorPolicy,
    stopping: CancellationToken,
) -> Result<Context, StartError> {
    let cluster = match &options.cluster_id {
        Some(id) => id.clone(),
        None => cluster_id(&client).await.map_err(StartError::NoClusterId)?,
    };
    let production = |requeuer| Arc::new(Production::new(&cluster, requeuer)) as Arc<dyn Environment>;
    Ok(Context::new(client, cluster.clone(), options.owner.clone(), leadership, policy, stopping, production))
}

pub(super) async fn cluster_id(client: &Client) -> Result<String, kube::Error> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    Ok(with_timeout(namespaces.get("kube-system")).await?.metadata.uid.unwrap_or_default())
}

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Watches one namespace, or all.
async fn control(ctx: Arc<Context>, definition: &Definition, namespace: Option<String>) {
    let scope = namespace.as_deref();
    let (requeue, requeued) = mpsc::unbounded();
    let registry = &ctx.shared.registry;
    registry.requeue_through(namespace.clone(), requeue);
    let (secrets, maps) = (registry.clone(), registry.clone());
    let (store, writer) = reflector::store();
    let scale_sets = api::<Guarded>(&ctx.client, scope);
    let scale_sets = definition.renewed(move || watched(scale_sets.clone())).reflect(writer);
    let controller = Controller::for_stream(scale_sets.applied_objects(), store.clone())
        .watches_stream(
            watched(api::<PartialObjectMeta<Secret>>(&ctx.client, scope)).touched_objects(),
            move |secret| referring_to(&secret, &secrets),
        )
        .watches_stream(
            watched(api::<PartialObjectMeta<ConfigMap>>(&ctx.client, scope)).touched_objects(),
            move |map| referring_to(&map, &maps),
        )
        .reconcile_on(requeued.map(|name| reference(&name)))
        .graceful_shutdown_on(ctx.stopping.clone().cancelled_owned());
    let health = ctx.shared.health.clone();
    let ready = async move {
        if store.wait_until_ready().await.is_ok() {
            health.ready();
        }
    };
    let reconciling = controller.run(reconcile, after_error, ctx).for_each(|result| async move {
        if let Err(error) = result {
            debug!(%error, "controller");
        }
    });
    future::join(ready, reconciling).await;
}

/// Watches objects, with a back-off of its own: kube's controller has one for all of its watches, and one that fails would make
/// the others late.
fn watched<K>(
    objects: Api<K>,
) -> impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send + 'static
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let events = watcher(objects, watcher::Config::default().page_size(PAGE)).default_backoff();
    events
        .filter_map(async |event| event.inspect_err(|error| tell_of_watch(&K::kind(&()), error)).ok().map(Ok))
}

/// Logs that a watch failed. That the definition is not there is told by who looks for it.
fn tell_of_watch(kind: &str, error: &watcher::Error) {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<kube::Error>());
    let told = cause.map_or_else(|| error.to_string(), api_message);
    if cause.is_some_and(is_unserved) {
        debug!(kind, error = told, "a watch failed; it is begun again");
    } else {
        warn!(kind, error = told, "a watch failed; it is begun again");
    }
}

/// The scale sets that refer to a Secret or ConfigMap, marked to read it again.
fn referring_to<K: Resource>(object: &K, registry: &Registry) -> Vec<ObjectRef<Guarded>> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    registry.referring_to(&namespace, &name).iter().map(reference).collect()
}

fn reference(object: &ObjectName) -> ObjectRef<Guarded> {
    ObjectRef::new(&object.name).within(&object.namespace)
}
