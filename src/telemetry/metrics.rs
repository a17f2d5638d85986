//! What is measured, and how Prometheus gets to see it.
//!
//! The names that begin with `gha_` are those of GitHub's Actions Runner Controller, with its meaning, so that its
//! dashboards work. No label has a value per job or per runner, and the series of a scale set go when it goes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};
use tokio::time::Instant;

use super::lock;
use crate::runner::{JobOutcome, Statistics};

/// What identifies a scale set in the metrics that ARC has, too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SetLabels {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The repository that it serves; empty for an organization's or an enterprise's.
    pub repository: String,
    /// The organization, or the repository's owner; empty for an enterprise's.
    pub organization: String,
    /// The enterprise; empty for the others.
    pub enterprise: String,
}

/// The sizes of a scale set.
#[derive(Debug, Clone, Copy, Default)]
pub struct SetGauges {
    /// GitHub's last counts. None: there are none yet, and what is shown stays.
    pub statistics: Option<Statistics>,
    /// The runners that are registered. As the ledger has them, as are the next two: GitHub tells its counts only with
    /// a job's message, and a spare that comes up brings none.
    pub registered_runners: u32,
    /// Of these, those with a job.
    pub busy_runners: u32,
    /// Those that are up and have none.
    pub idle_runners: u32,
    /// The spares asked for, schedule applied.
    pub min_runners: u32,
    /// The ceiling, schedule applied.
    pub max_runners: u32,
    /// The size that the last decision wants.
    pub desired_runners: u32,
}

/// A stretch of the way from a job that waits to a job that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartPhase {
    /// From the demand being seen to a runner being placed on a host for it.
    DemandToPlaced,
    /// From there to its instance running.
    PlacedToStarted,
    /// From there to its job.
    StartedToJob,
}

/// A host, its slots that are taken, and those free where there is a limit.
type HostSlots = (String, u32, Option<u32>);
type SlotSource = dyn Fn() -> Vec<HostSlots> + Send + Sync;
/// A host, what was freed there from, and how many bytes.
type FreedBytes = (String, &'static str, u64);
type FreedSource = dyn Fn() -> Vec<FreedBytes> + Send + Sync;

/// All metrics of one controller. Clones share them.
#[derive(Clone)]
pub struct Metrics(Arc<Families>);

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

/// Bounds for what a job waits or takes, in seconds; ARC's have the same span in 45 steps.
const JOB: [f64; 12] = [1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 21600.0];
/// Bounds for a stretch of a start, in seconds.
const START: [f64; 11] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];
/// Bounds for a reconcile, in seconds.
const RECONCILE: [f64; 8] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];
/// Bounds for a request to GitHub, in seconds. A quiet poll takes 50.
const REQUEST: [f64; 11] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];

type Word = (&'static str, &'static str);
type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;
type SizeOf = fn(&SetGauges) -> Option<u32>;
type Seconds = Family<[(&'static str, String); 2], Gauge<f64, AtomicU64>>;

/// Namespace and name.
type SetName = (String, String);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct JobLabels {
    #[prometheus(flatten)]
    set: SetLabels,
    job_result: &'static str,
}

#[rustfmt::skip]
const SIZES: [(&str, &str, SizeOf); 8] = [
    ("gha_assigned_jobs", "Jobs assigned to the scale set", |s| s.statistics.map(|s| s.assigned)),
    ("gha_running_jobs", "Jobs running, or about to", |s| s.statistics.map(|s| s.running)),
    ("gha_registered_runners", "Runners registered at GitHub", |s| Some(s.registered_runners)),
    ("gha_busy_runners", "Registered runners with a job", |s| Some(s.busy_runners)),
    ("gha_idle_runners", "Registered runners without a job", |s| Some(s.idle_runners)),
    ("gha_min_runners", "Idle runners kept on top of the jobs in hand, schedule applied", |s| Some(s.min_runners)),
    ("gha_max_runners", "Ceiling of the scale set, schedule applied", |s| Some(s.max_runners)),
    ("gha_desired_runners", "Runners wanted by the last decision", |s| Some(s.desired_runners)),
];

struct Families {
    registry: Registry,
    /// In the order of [`SIZES`].
    sizes: [Family<SetLabels, Gauge>; 8],
    started_jobs: Family<SetLabels, Counter>,
    completed_jobs: Family<JobLabels, Counter>,
    job_startup: Histograms<SetLabels>,
    job_execution: Histograms<JobLabels>,
    reconcile: Histogram,
    reconcile_errors: Family<[Word; 1], Counter>,
    github_requests: Family<[Word; 2], Counter>,
    github_latency: Histograms<[Word; 1]>,
    backend_requests: Family<[Word; 3], Counter>,
    backend_latency: Histograms<[Word; 2]>,
    unreadable: Counter,
    starts: Family<[Word; 2], Counter>,
    start_latency: Histograms<[Word; 1]>,
    removals: Family<[Word; 1], Counter>,
    orphans: Family<[Word; 1], Counter>,
    failures: Family<[Word; 1], Counter>,
    status_writes: Counter,
    policy_valid: Gauge,
    /// When the last poll of each scale set came back.
    polls: Mutex<BTreeMap<SetName, Instant>>,
    /// Counts the hosts' slots, at each scrape.
    slots: Mutex<Box<SlotSource>>,
    /// Counts what housekeeping freed, at each scrape.
    freed: Mutex<Box<FreedSource>>,
    /// Since when, and for how long, the starts of each scale set are held back.
    backoffs: Mutex<BTreeMap<SetName, (Instant, Duration)>>,
}

fn add<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

/// A counter whose values of a label are known before the first of them is counted: with a 0 to begin with, its rate has the
/// first one too.
fn known<const N: usize>(label: &'static str, values: [&'static str; N]) -> Family<[Word; 1], Counter> {
    let family = Family::default();
    for value in values {
        drop(family.get_or_create_owned(&[(label, value)]));
    }
    family
}

/// What is in force at the start could be used.
fn valid() -> Gauge {
    let gauge = Gauge::default();
    gauge.set(1);
    gauge
}

fn gauge(registry: &mut Registry, name: &str, help: &str) -> Seconds {
    add(registry, name, help, Family::default())
}

fn histograms<L>(registry: &mut Registry, name: &str, help: &str, new: fn() -> Histogram) -> Histograms<L>
where
    L: Clone + std::hash::Hash + Eq + EncodeLabelSet + fmt::Debug + Send + Sync + 'static,
{
    add(registry, name, help, Family::new_with_constructor(new))
}

impl Families {
    /// Counters are registered without `_total`: the encoder appends it.
    #[rustfmt::skip]
    fn new() -> Families {
        let mut registry = Registry::default();
        let r = &mut registry;
        Families {
            sizes: SIZES.map(|(name, help, _)| add(r, name, help, Family::default())),
            started_jobs: add(r, "gha_started_jobs", "Jobs that a runner took", Family::default()),
            completed_jobs: add(r, "gha_completed_jobs", "Jobs that are over", Family::default()),
            job_startup: histograms(r, "gha_job_startup_duration_seconds",
                "From a job's assignment to the scale set to a runner taking it", || Histogram::new(JOB)),
            job_execution: histograms(r, "gha_job_execution_duration_seconds",
                "From a runner taking a job to its end", || Histogram::new(JOB)),
            reconcile: add(r, "paddock_reconcile_duration_seconds",
                "Time to reconcile a scale set", Histogram::new(RECONCILE)),
            reconcile_errors: add(r, "paddock_reconcile_errors", "Reconciles of a scale set that failed", known("category", ["kube"])),
            github_requests: add(r, "paddock_github_requests", "Calls of GitHub", Family::default()),
            github_latency: histograms(r, "paddock_github_request_duration_seconds",
                "Time of a call of GitHub, tries included; a quiet poll takes 50 s", || Histogram::new(REQUEST)),
            backend_requests: add(r, "paddock_backend_requests", "Calls of a backend's hosts", Family::default()),
            backend_latency: histograms(r, "paddock_backend_request_duration_seconds",
                "Time of a call of a backend's hosts", || Histogram::new(START)),
            unreadable: add(r, "paddock_unreadable_messages",
                "Entries of GitHub's messages that could not be read", Counter::default()),
            starts: add(r, "paddock_runner_starts", "Starts of runners", Family::default()),
            start_latency: histograms(r, "paddock_start_latency_seconds",
                "Stretches of the way from demand to a running job", || Histogram::new(START)),
            removals: add(r, "paddock_runner_removals", "Runners removed; those that end by themselves are not counted", Family::default()),
            orphans: add(r, "paddock_orphans_found", "What was found that no scale set speaks for, and removed",
                known("kind", ["instance", "registration"])),
            failures: add(r, "paddock_runner_failures", "Runners that failed", Family::default()),
            status_writes: add(r, "paddock_status_writes", "Writes of a scale set's status to the API server", Counter::default()),
            policy_valid: add(r, "paddock_policy_valid",
                "1 while the operator's policy in force is what its file has, 0 while that cannot be used and the last good one holds", valid()),
            polls: Mutex::default(),
            slots: Mutex::new(Box::new(Vec::new)),
            freed: Mutex::new(Box::new(Vec::new)),
            backoffs: Mutex::default(),
            registry,
        }
    }

    /// The metrics whose values change with time alone, and those of hosts, which come and go; as they are now.
    fn moving(&self, now: Instant) -> Registry {
        let mut registry = Registry::default();
        let ages = gauge(
            &mut registry,
            "paddock_poll_age_seconds",
            "Time since the last poll of a scale set came back",
        );
        for (set, at) in lock(&self.polls).iter() {
            let age = now.saturating_duration_since(*at);
            ages.get_or_create(&set_labels(set)).set(age.as_secs_f64());
        }
        let waits = gauge(
            &mut registry,
            "paddock_backoff_seconds",
            "How long the starts of a scale set are held back yet because GitHub registers no runners",
        );
        for (set, (at, wait)) in lock(&self.backoffs).iter() {
            let remaining = wait.saturating_sub(now.saturating_duration_since(*at));
            waits.get_or_create(&set_labels(set)).set(remaining.as_secs_f64());
        }
        let slots = Family::<[(&str, String); 2], Gauge>::default();
        registry.register(
            "paddock_host_slots",
            "Slots of a host, the free ones where there is a limit",
            slots.clone(),
        );
        let freed = Family::<[(&str, String); 2], Counter>::default();
        registry.register("paddock_housekeeping_freed_bytes", "Bytes that housekeeping freed", freed.clone());
        for (host, store, bytes) in lock(&self.freed)() {
            freed.get_or_create(&[("host", host), ("store", store.to_owned())]).inc_by(bytes);
        }
        for (host, used, free) in lock(&self.slots)() {
            for (state, count) in [("used", Some(used)), ("free", free)] {
                if let Some(count) = count {
                    let labels = [("host", host.clone()), ("state", state.to_owned())];
                    slots.get_or_create(&labels).set(count.into());
                }
            }
        }
        registry
    }
}

impl Metrics {
    /// The content type of [`Metrics::render`].
    pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// All metrics, with nothing measured yet.
    pub fn new() -> Metrics {
        Metrics(Arc::new(Families::new()))
    }

    /// All metrics in the OpenMetrics text format.
    ///
    /// # Errors
    /// A value that the format cannot express.
    pub fn render(&self) -> Result<String, fmt::Error> {
        self.render_at(Instant::now())
    }

    fn render_at(&self, now: Instant) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode_registry(&mut text, &self.0.registry)?;
        encode_registry(&mut text, &self.0.moving(now))?;
        encode_eof(&mut text)?;
        Ok(text)
    }

    /// The sizes of a scale set.
    pub fn set(&self, set: &SetLabels, sizes: &SetGauges) {
        for ((_, _, size_of), family) in SIZES.iter().zip(&self.0.sizes) {
            if let Some(size) = size_of(sizes) {
                family.get_or_create(set).set(size.into());
            }
        }
    }

    /// A runner took a job; `startup` is the time since the job's assignment to the scale set.
    pub fn job_started(&self, set: &SetLabels, startup: Option<Duration>) {
        self.0.started_jobs.get_or_create(set).inc();
        if let Some(startup) = startup {
            let histogram = self.0.job_startup.get_or_create(set);
            histogram.observe(startup.as_secs_f64());
        }
    }

    /// A job is over; `execution` is the time since a runner took it, none when no runner did.
    pub fn job_completed(&self, set: &SetLabels, outcome: JobOutcome, execution: Option<Duration>) {
        let labels = JobLabels { set: set.clone(), job_result: job_result(outcome) };
        self.0.completed_jobs.get_or_create(&labels).inc();
        if let Some(execution) = execution {
            let histogram = self.0.job_execution.get_or_create(&labels);
            histogram.observe(execution.as_secs_f64());
        }
    }

    /// A reconcile ended; `error` is the category of its error, if it failed.
    pub fn reconcile(&self, took: Duration, error: Option<&'static str>) {
        self.0.reconcile.observe(took.as_secs_f64());
        if let Some(category) = error {
            let labels = [("category", category)];
            self.0.reconcile_errors.get_or_create(&labels).inc();
        }
    }

    /// A poll of a scale set came back: the age of its polls is 0.
    pub fn poll_completed(&self, namespace: &str, name: &str) {
        self.poll_completed_at(namespace, name, Instant::now());
    }

    fn poll_completed_at(&self, namespace: &str, name: &str, now: Instant) {
        lock(&self.0.polls).insert((namespace.to_owned(), name.to_owned()), now);
    }

    /// The starts of a scale set are held back for so long from now on; zero: no longer.
    pub fn backoff(&self, namespace: &str, name: &str, remaining: Duration) {
        self.backoff_at(namespace, name, remaining, Instant::now());
    }

    fn backoff_at(&self, namespace: &str, name: &str, remaining: Duration, now: Instant) {
        let set = (namespace.to_owned(), name.to_owned());
        lock(&self.0.backoffs).insert(set, (now, remaining));
    }

    /// A call of GitHub's scale-set service ended.
    pub fn github_request(&self, call: &'static str, outcome: &'static str, took: Duration) {
        let requests = &self.0.github_requests;
        requests.get_or_create(&[("call", call), ("outcome", outcome)]).inc();
        let latency = self.0.github_latency.get_or_create(&[("call", call)]);
        latency.observe(took.as_secs_f64());
    }

    /// A call of a backend of that kind ended.
    pub fn backend_request(
        &self,
        kind: &'static str,
        call: &'static str,
        outcome: &'static str,
        took: Duration,
    ) {
        let requests = &self.0.backend_requests;
        requests.get_or_create(&[("backend", kind), ("call", call), ("outcome", outcome)]).inc();
        let latency = self.0.backend_latency.get_or_create(&[("backend", kind), ("call", call)]);
        latency.observe(took.as_secs_f64());
    }

    /// So many entries of a message could not be read.
    pub fn unreadable_messages(&self, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.0.unreadable.inc_by(count);
    }

    /// The start of a runner ended: `started`, or a word for what failed.
    pub fn runner_start(&self, backend: &'static str, outcome: &'static str) {
        let labels = [("backend", backend), ("outcome", outcome)];
        self.0.starts.get_or_create(&labels).inc();
    }

    /// A stretch of the way from demand to a running job is done.
    pub fn start_latency(&self, phase: StartPhase, took: Duration) {
        let phase = match phase {
            StartPhase::DemandToPlaced => "demand_to_placed",
            StartPhase::PlacedToStarted => "placed_to_started",
            StartPhase::StartedToJob => "started_to_job",
        };
        let histogram = self.0.start_latency.get_or_create(&[("phase", phase)]);
        histogram.observe(took.as_secs_f64());
    }

    /// A runner was removed, and why in a word.
    pub fn removal(&self, reason: &'static str) {
        self.0.removals.get_or_create(&[("reason", reason)]).inc();
    }

    /// Something was found that nobody speaks for any more: an `instance` or a `registration`.
    pub fn orphan(&self, kind: &'static str) {
        self.0.orphans.get_or_create(&[("kind", kind)]).inc();
    }

    /// A runner failed, and how in a word.
    pub fn runner_failure(&self, reason: &'static str) {
        self.0.failures.get_or_create(&[("reason", reason)]).inc();
    }

    /// Takes the slots of all hosts from `source` at each scrape: what tells the host from all others, those taken, and those
    /// free where there is a limit.
    pub fn host_slots_from(&self, source: impl Fn() -> Vec<HostSlots> + Send + Sync + 'static) {
        *lock(&self.0.slots) = Box::new(source);
    }

    /// Takes what housekeeping freed since the process began from `source` at each scrape, by host and store.
    pub fn freed_bytes_from(&self, source: impl Fn() -> Vec<FreedBytes> + Send + Sync + 'static) {
        *lock(&self.0.freed) = Box::new(source);
    }

    /// A scale set's status was written.
    pub fn status_write(&self) {
        self.0.status_writes.inc();
    }

    /// Says whether the file with the operator's policy can be used as it is.
    pub fn policy_valid(&self, valid: bool) {
        self.0.policy_valid.set(i64::from(valid));
    }

    /// A scale set is deleted, and what works for it has ended: its series go.
    pub fn forget_set(&self, set: &SetLabels) {
        for family in &self.0.sizes {
            family.remove(set);
        }
        self.0.started_jobs.remove(set);
        self.0.job_startup.remove(set);
        for job_result in OUTCOMES.map(job_result) {
            let labels = JobLabels { set: set.clone(), job_result };
            self.0.completed_jobs.remove(&labels);
            self.0.job_execution.remove(&labels);
        }
        let name = (set.namespace.clone(), set.name.clone());
        lock(&self.0.polls).remove(&name);
        lock(&self.0.backoffs).remove(&name);
    }
}

const OUTCOMES: [JobOutcome; 4] =
    [JobOutcome::Succeeded, JobOutcome::Failed, JobOutcome::Canceled, JobOutcome::Other];

fn job_result(outcome: JobOutcome) -> &'static str {
    match outcome {
        JobOutcome::Succeeded => "succeeded",
        JobOutcome::Failed => "failed",
        JobOutcome::Canceled => "canceled",
        JobOutcome::Other => "other",
    }
}

fn set_labels((namespace, name): &SetName) -> [(&'static str, String); 2] {
    [("namespace", namespace.clone()), ("name", name.clone())]
}

#[cfg(test)]
mod tests;
