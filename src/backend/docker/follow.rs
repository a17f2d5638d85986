//! The task that follows one engine: its events as they come, a listing as the truth behind them, and connecting
//! again when it went away.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bollard::models::{ContainerState, ContainerSummary, ContainerSummaryStateEnum, EventMessage};
use bollard::query_parameters::{
    EventsOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
};
use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::beside::PrivateEngines;
use super::endpoint::Endpoint;
use super::engine::Engine;
use super::failure::{ANSWER, call, meaning};
use super::index::{Change, Container};
use super::sidecar;
use super::view::{Client, Link};
use crate::backend::Error;
use crate::rng;
use crate::runner::{Exit, Identity, InstanceState};
use crate::time::{Backoff, Plus, past};

/// The longest that the engine may take to begin any answer. Calls have closer deadlines of their own.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(300);
/// For a whole listing of a busy engine.
const LISTING: Duration = Duration::from_secs(30);
/// How often the events are checked against a listing.
const RELIST: Duration = Duration::from_secs(30);
/// The second listing comes this soon: what a status remembers is believed to be gone once two of them lack it, and
/// takes a slot until then.
const SECOND_LOOK: Duration = Duration::from_secs(2);
/// So many listings are made at that pace: what happened in the moments before the first does not count in it.
const LOOKS_AT_FIRST: u32 = 3;
/// How long to wait before connecting again.
const RECONNECT: Backoff = Backoff { first: Duration::from_millis(250), last: Duration::from_secs(15) };
/// Inspections at once, when a listing shows containers that ended unseen.
const INSPECTIONS: usize = 4;
/// For one of them.
const INSPECTION: Duration = Duration::from_secs(5);
/// A container that ended and cannot be inspected for so long is taken to have ended, nobody knows how: as long as it is
/// as last known, it takes a slot.
const INSPECTED_WITHIN: SignedDuration = SignedDuration::from_secs(120);
/// The events that matter.
const EVENTS: [&str; 5] = ["create", "start", "oom", "die", "destroy"];

/// What the task waits for.
enum Input {
    Event(EventMessage),
    /// A listing, the version of the index when it was asked for, and how many there were before.
    Listing(u64, Vec<Container>, u32),
}

/// Follows the engine for ever, through all its absences.
pub(super) async fn follow(engine: Arc<Engine>) -> Infallible {
    let mut failures = 0;
    loop {
        let Err(error) = session(&engine, &mut failures).await;
        failures += 1;
        engine.route.disconnect();
        disconnected(&engine, &error);
        tokio::time::sleep(RECONNECT.after(failures)).await;
    }
}

/// One connection, until it breaks. The events are asked for from a moment before the first listing, so that nothing
/// falls between the two; the index knows what to do with those that it sees twice.
async fn session(engine: &Engine, failures: &mut u32) -> Result<Infallible, Error> {
    let (client, since) = connect(engine).await?;
    let lost =
        stream::once(async { Err(Error::Unreachable("the engine ended its event stream".to_owned())) });
    let events = events(&client.docker, since).map_ok(Input::Event).chain(lost);
    let mut inputs = std::pin::pin!(stream::select(events, listings(engine, &client.docker)));
    while let Some(input) = inputs.next().await {
        match input? {
            Input::Event(event) => apply(engine, &event),
            Input::Listing(asked_at, listing, before) => {
                listed(engine, &client, asked_at, listing);
                if before == 1 {
                    engine.host.requeue_all();
                }
                *failures = 0;
            }
        }
    }
    Err(Error::Unreachable("nothing is heard of the engine".to_owned()))
}

async fn connect(engine: &Engine) -> Result<(Client, Timestamp), Error> {
    engine.route.connect().await?;
    let route = Arc::clone(&engine.route);
    let transport = move |request| {
        let route = Arc::clone(&route);
        async move { route.send(request).await }
    };
    let timeout = CLIENT_TIMEOUT.as_secs();
    let docker =
        Docker::connect_with_custom_transport(transport, Some("http://docker"), timeout, API_DEFAULT_VERSION)
            .map_err(|error| meaning(&error))?
            .with_request_modifier(with_url_safe_login);
    let no_engine = |error| no_engine(&engine.endpoint, error);
    let docker = call("asking for the engine's version", ANSWER, docker.negotiate_version()).await;
    let docker = docker.map_err(no_engine)?;
    let about =
        call("asking for the engine's description", ANSWER, docker.info()).await.map_err(no_engine)?;
    let now = about.system_time.and_then(|time| time.parse().ok()).unwrap_or_else(Timestamp::now);
    // "N/A" is the engine's word for an init program that it cannot run.
    let init = about.init_commit.and_then(|commit| commit.id).is_some_and(|id| id != "N/A");
    let version = about.server_version.unwrap_or_default();
    debug!(endpoint = %engine.endpoint, version, api = %docker.client_version(), init, "Docker engine answers");
    Ok((Client { docker, init }, now))
}

/// What it means that no engine answers at an endpoint. A tenant may name any host in the network as one: its words are not
/// told.
fn no_engine(endpoint: &Endpoint, error: Error) -> Error {
    match error {
        Error::Unreachable(why) => Error::Unreachable(why),
        error if endpoint.is_local() => error,
        _ => Error::Unreachable("what answers there is no Docker engine, or it wants TLS".to_owned()),
    }
}

/// The engine reads logins as URL-safe base64 and silently goes without what it cannot read; bollard 0.21 writes the
/// plain alphabet, so a password with the wrong characters in the wrong place would be lost.
fn with_url_safe_login(mut request: BollardRequest) -> BollardRequest {
    if let Some(login) = request.headers_mut().get_mut("x-registry-auth")
        && let Some(safe) =
            login.to_str().ok().and_then(|text| text.replace('+', "-").replace('/', "_").parse().ok())
    {
        *login = safe;
        login.set_sensitive(true);
    }
    request
}

fn events(docker: &Docker, since: Timestamp) -> impl Stream<Item = Result<EventMessage, Error>> + use<> {
    let filters = HashMap::from([
        ("type", vec!["container"]),
        ("label", vec![Identity::CLUSTER]),
        ("event", EVENTS.into()),
    ]);
    let options = EventsOptionsBuilder::new().since(&since.as_second().to_string()).filters(&filters).build();
    docker.events(Some(options)).map_err(|error| meaning(&error))
}

/// A listing now, and then again and again.
fn listings<'a>(engine: &'a Engine, docker: &'a Docker) -> impl Stream<Item = Result<Input, Error>> + 'a {
    stream::unfold((0u32, Left::new()), move |(before, left_before)| async move {
        if before > 0 {
            let unsure = before < LOOKS_AT_FIRST || left_before.values().any(|looks| *looks < LOOKS_AT_FIRST);
            let pause = if unsure { SECOND_LOOK } else { RELIST };
            let pause = pause.mul_f64(0.8 + 0.4 * rng::unit());
            // Either is a reason to look.
            let _ = tokio::time::timeout(pause, engine.suspicion.notified()).await;
        }
        let asked_at = engine.look(|view| view.index.version()).unwrap_or_default();
        let (listing, left) = match list(engine, docker, &left_before).await {
            Ok((listing, left)) => (Ok(Input::Listing(asked_at, listing, before)), left),
            Err(error) => (Err(error), left_before),
        };
        Some((listing, (before.saturating_add(1), left)))
    })
}

/// What is left of private engines without a runner, by id, and how many looks in a row have shown it.
type Left = BTreeMap<String, u32>;

/// All runners' containers, and what is left of private engines without a runner by this look and the one before: in between
/// the one may be about to be made, or the other to be removed. Returns what is left too.
async fn list(engine: &Engine, docker: &Docker, left_before: &Left) -> Result<(Vec<Container>, Left), Error> {
    let mut engines = PrivateEngines::default();
    // Before the containers: a runner's is the last that is made.
    sidecar::parts(docker).await.iter().for_each(|labels| engines.add(labels, false));
    let filters = HashMap::from([("label", vec![Identity::CLUSTER])]);
    let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    let summaries = call("a listing", LISTING, docker.list_containers(Some(options))).await?;
    for summary in &summaries {
        let runs = summary.state == Some(ContainerSummaryStateEnum::RUNNING);
        summary.labels.iter().for_each(|labels| engines.add(labels, runs));
    }
    let described = summaries.into_iter().filter_map(describe);
    let (ended, live): (Vec<_>, Vec<_>) = described.partition(|(_, ended)| *ended);
    let ended = ended.into_iter().map(|(container, _)| container).collect();
    let live = live.into_iter().map(|(container, _)| ended_with_engine(engine, container, &engines));
    let mut listing: Vec<Container> = live.chain(inspected(engine, docker, ended).await).collect();
    let mut left = engines.left_without(&listing, Timestamp::now());
    left.retain(|left| !engine.host.state().slots.is_held_for(&left.instance.runner));
    let looks =
        |left: &Container| left_before.get(&left.instance.id).map_or(1, |looks| looks.saturating_add(1));
    let shown = left.iter().map(|left| (left.instance.id.clone(), looks(left))).collect();
    listing.extend(left.into_iter().filter(|left| left_before.contains_key(&left.instance.id)));
    Ok((listing, shown))
}

/// A container as it is listed, or as ended if its private engine is gone.
fn ended_with_engine(engine: &Engine, mut container: Container, engines: &PrivateEngines) -> Container {
    if let Some(end) = engines.end_without_engine(&container, Timestamp::now()) {
        let known = engine.look(|view| view.index.get(&container.instance.id).cloned()).flatten();
        let known = known.map(|known| known.instance.state).filter(InstanceState::ended);
        container.instance.state = known.unwrap_or(end);
    }
    container
}

/// A container out of a listing, and whether it ended: how, a listing does not say. None: it is no runner's.
fn describe(summary: ContainerSummary) -> Option<(Container, bool)> {
    use ContainerSummaryStateEnum::{CREATED, DEAD, EXITED, REMOVING};
    let id = summary.id.unwrap_or_default();
    let created_at = past(summary.created.and_then(|at| Timestamp::from_second(at).ok()).unwrap_or_default());
    let state = match summary.state {
        Some(CREATED) => InstanceState::Starting,
        _ => InstanceState::Running,
    };
    let container = Container::from_labels(&id, &summary.labels.unwrap_or_default(), created_at, state)?;
    Some((container, matches!(summary.state, Some(EXITED | DEAD | REMOVING))))
}

/// Asks how containers ended, unless it is known already. Those that vanished meanwhile are left out, and those that
/// cannot be inspected are as last known: that is no fault of their host. It takes [`ANSWER`] at most.
async fn inspected(engine: &Engine, docker: &Docker, ended: Vec<Container>) -> Vec<Container> {
    let deadline = Instant::now().plus(ANSWER);
    let with_known = |container: Container| {
        let known = engine.look(|view| view.index.get(&container.instance.id).cloned());
        (container, known.flatten())
    };
    let (known, mut asked): (Vec<_>, Vec<_>) = ended
        .into_iter()
        .map(with_known)
        .partition(|(_, known)| known.as_ref().is_some_and(|known| known.instance.state.ended()));
    // Those that did not answer before must not hold up the others.
    asked.sort_by_key(|(_, known)| known.as_ref().and_then(|known| known.uninspected_since));
    let inspections = stream::iter(asked).map(async |(container, known)| {
        let within = INSPECTION.min(deadline.saturating_duration_since(Instant::now()));
        let inspection = docker.inspect_container(&container.instance.id, None::<InspectContainerOptions>);
        match call("an inspection", within, inspection).await {
            Ok(found) => Some(exited(container, found.state.unwrap_or_default())),
            Err(Error::Gone) => None,
            Err(error) => Some(not_inspected(container, known, &error, Timestamp::now())),
        }
    });
    let asked: Vec<Option<Container>> = inspections.buffered(INSPECTIONS).collect().await;
    known.into_iter().filter_map(|(_, known)| known).chain(asked.into_iter().flatten()).collect()
}

fn exited(mut container: Container, state: ContainerState) -> Container {
    let finished_at = state.finished_at.and_then(|at| at.parse().ok()).map(past).unwrap_or_default();
    container.out_of_memory = state.oom_killed.unwrap_or_default();
    container.instance.state = InstanceState::Exited(Exit {
        code: state.exit_code,
        out_of_memory: container.out_of_memory && state.exit_code != Some(0),
        // The engine says year 1 of what never ran.
        at: finished_at.max(container.instance.created_at),
        ..Exit::default()
    });
    container
}

/// A container that ended, by a listing, and cannot be inspected: as last known for a while, then as ended nobody knows
/// how.
fn not_inspected(container: Container, known: Option<Container>, error: &Error, now: Timestamp) -> Container {
    let mut kept = known.unwrap_or(container);
    let runner = &kept.instance.runner;
    match kept.uninspected_since {
        None => {
            warn!(runner, %error, "a container that ended cannot be inspected: it stays as last known");
            kept.uninspected_since = Some(now);
        }
        Some(since) if now.duration_since(since) >= INSPECTED_WITHIN => {
            warn!(runner, %error, "a container that ended cannot be inspected: how it ended stays unknown");
            kept.instance.state =
                InstanceState::Exited(Exit { code: None, out_of_memory: false, at: now, ..Exit::default() });
        }
        Some(_) => {}
    }
    kept
}

fn listed(engine: &Engine, client: &Client, asked_at: u64, listing: Vec<Container>) {
    let mut connected = false;
    engine.change(|view| {
        let affected = view.index.replace(asked_at, listing);
        view.listed_at = Some(Timestamp::now());
        connected = !view.is_up();
        if connected {
            view.link = Link::Up(client.clone());
            view.connections += 1;
            let ours = view.index.containers().filter(|known| known.cluster == engine.cluster).count();
            info!(endpoint = %engine.endpoint, containers = ours, "Docker engine connected");
        }
        affected
    });
    if connected {
        engine.host.requeue_all();
    }
}

fn disconnected(engine: &Engine, error: &Error) {
    let why = error.to_string();
    let mut news = false;
    engine.change(|view| {
        let (known, since) = match &view.link {
            Link::Up(_) => (None, Instant::now()),
            Link::Down { why, since } => (Some(why), *since),
        };
        news = known != Some(&why);
        if news {
            warn!(endpoint = %engine.endpoint, why, "Docker engine does not answer; its containers stay as last known");
        }
        view.link = Link::Down { why, since };
        BTreeSet::new()
    });
    // Time alone makes it lost: those who use it look then, and now and then after it.
    if news || engine.is_lost() {
        engine.host.requeue_all();
    }
}

fn apply(engine: &Engine, event: &EventMessage) {
    let Some((described, change, at)) = read(event) else {
        // A private engine, perhaps: a look shows what its end means for its runner.
        if matches!(event.action.as_deref(), Some("die" | "destroy")) {
            engine.suspect();
        }
        return;
    };
    engine.change(|view| view.index.apply(described, change, at).into_iter().collect());
}

/// What an event says, of a container as its labels describe it. Docker puts them among the event's attributes.
fn read(event: &EventMessage) -> Option<(Container, Change, Timestamp)> {
    let actor = event.actor.as_ref()?;
    let attributes = actor.attributes.as_ref()?;
    let at = past(Timestamp::from_nanosecond(event.time_nano?.into()).ok()?);
    let change = match event.action.as_deref()? {
        "create" => Change::Created,
        "start" => Change::Started,
        "oom" => Change::OutOfMemory,
        "die" => Change::Died(attributes.get("exitCode").and_then(|code| code.parse().ok())),
        "destroy" => Change::Destroyed,
        _ => return None,
    };
    let container = Container::from_labels(actor.id.as_ref()?, attributes, at, InstanceState::Starting)?;
    Some((container, change, at))
}

#[cfg(test)]
mod tests {
    use bollard::models::EventActor;

    use super::*;

    #[test]
    fn an_event_of_the_future_is_of_now() {
        let labels = [Identity::CLUSTER, Identity::SCALE_SET_UID, Identity::SCALE_SET, Identity::RUNNER]
            .into_iter()
            .chain([Identity::BACKEND, Identity::TEMPLATE_HASH]);
        let attributes = labels.map(|label| (label.to_owned(), "ns/x".to_owned())).collect();
        let actor = EventActor { id: Some("x".to_owned()), attributes: Some(attributes) };
        let action = Some("create".to_owned());
        let event =
            EventMessage { actor: Some(actor), action, time_nano: Some(i64::MAX), ..EventMessage::default() };
        let (container, _, at) = read(&event).unwrap();
        let now = Timestamp::now();
        assert!(at <= now && container.instance.created_at <= now);
    }

    #[test]
    fn what_cannot_be_inspected_is_as_last_known_for_a_while_and_then_ended_nobody_knows_how() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let labels = HashMap::from([(Identity::CLUSTER.to_owned(), "cluster".to_owned())]);
        let listed = || Container::from_labels("a", &labels, at(0), InstanceState::Running).unwrap();
        let error = Error::Unreachable("500".to_owned());
        let mut known = None;
        for (second, ended) in [(10, false), (100, false), (129, false), (130, true)] {
            let kept = not_inspected(listed(), known, &error, at(second));
            assert_eq!(kept.instance.state.ended(), ended, "at {second} s");
            known = Some(kept);
        }
        let exit = Exit { code: None, out_of_memory: false, at: at(130), ..Exit::default() };
        assert_eq!(known.map(|known| known.instance.state), Some(InstanceState::Exited(exit)));
    }

    #[test]
    fn fuzz_an_engine_that_lies_costs_its_own_containers_alone() {
        let labels = serde_json::json!({
            Identity::CLUSTER: "cluster", Identity::SCALE_SET_UID: "uid", Identity::RUNNER: "linux-a",
            Identity::SCALE_SET: "ci/linux", Identity::BACKEND: "rack", Identity::TEMPLATE_HASH: "t",
        });
        let summary = serde_json::json!([{"Id": "a", "Created": 1, "State": "running", "Labels": labels}]);
        let event = serde_json::json!([{"Type": "container", "Action": "die", "timeNano": 1,
            "Actor": {"ID": "a", "Attributes": labels}}]);
        let mut index = super::super::index::Index::default();
        testkit::fuzz::each_json(&[summary, event], |value| {
            let asked_at = index.version();
            if let Ok(listing) = serde_json::from_value::<Vec<ContainerSummary>>(value.clone()) {
                let listing = listing.into_iter().filter_map(describe).map(|(container, _)| container);
                index.replace(asked_at, listing.collect());
            }
            for event in serde_json::from_value::<Vec<EventMessage>>(value).unwrap_or_default() {
                if let Some((container, change, at)) = read(&event) {
                    index.apply(container, change, at);
                }
            }
            let counted = index.containers().filter(|c| !c.instance.state.ended()).count();
            assert_eq!(index.live(), counted);
        });
    }
}
