//! Our client against a GitHub that others wrote: the emulator of the crate `scaleset`.

use std::sync::Arc;
use std::time::Duration;

use paddock::github::{
    Client, ClientConfig, Credentials, Deadlines, ListenEnd, Network, ScaleSetService, WantedScaleSet,
};
use paddock::runner::{JobEvent, JobOutcome};
use scaleset::ScaleSetId;
use scaleset::testing::{DEFAULT_PAT, Emulator, Endpoint, Fault};

use crate::support::{Heard, Listening, SET, wanted};

async fn emulator() -> (Emulator, Arc<Client>) {
    let emulator = Emulator::builder().long_poll(Duration::from_secs(2)).runner_group("gpu").start().await;
    let config = ClientConfig {
        url: emulator.config_url(),
        allow_insecure: true,
        credentials: Credentials::Token(DEFAULT_PAT.to_owned()),
        network: Network::default(),
    };
    let client = Client::new(&config, Deadlines::default()).unwrap();
    (emulator, Arc::new(client))
}

#[tokio::test]
async fn a_whole_life_against_the_emulator() {
    let (emulator, client) = emulator().await;
    let wanted = WantedScaleSet { runner_group: "gpu".to_owned(), ..wanted() };
    let set = client.ensure_scale_set(&wanted, None).await.unwrap();
    assert_eq!(client.find_scale_set(set.id).await.unwrap().map(|found| found.id), Some(set.id));
    assert_eq!(client.ensure_scale_set(&wanted, Some(set.id)).await.unwrap().labels, set.labels);
    let listening = Listening::start(Arc::clone(&client) as Arc<dyn ScaleSetService>, set.id, None, 5);
    listening.ear.opened(1).await;

    // Offered, acquired, assigned; a runner takes it; it ends.
    let request = emulator.queue_job(ScaleSetId(set.id), [SET]);
    let id = |event: &JobEvent| match event {
        JobEvent::Assigned { job } => Some(job.id.clone()),
        _ => None,
    };
    let job = listening.ear.event(1, id).await;
    let runner = client.mint_jit(set.id, "fleet-a").await.unwrap();
    assert_eq!(client.find_runner("fleet-a").await.unwrap().unwrap().id, runner.id);
    emulator.start_job(request, Some("fleet-a"));
    let started = |event: &JobEvent| match event {
        JobEvent::Started { job, runner_name, runner_id } => {
            Some((job.id.clone(), runner_name.clone(), *runner_id))
        }
        _ => None,
    };
    assert_eq!(listening.ear.event(1, started).await, (job.clone(), "fleet-a".to_owned(), runner.id));
    let busy = client.remove_runner(runner.id).await;
    assert!(matches!(busy, Err(paddock::github::Error::RunnerBusy)), "{busy:?}");
    emulator.complete_job(request, Some("succeeded"));
    let completed = |event: &JobEvent| match event {
        JobEvent::Completed { job, outcome, .. } => Some((job.id.clone(), *outcome)),
        _ => None,
    };
    assert_eq!(listening.ear.event(1, completed).await, (job, JobOutcome::Succeeded));

    // What expires is renewed in place.
    emulator.expire_admin_tokens();
    emulator.expire_queue_token(ScaleSetId(set.id));
    emulator.queue_job(ScaleSetId(set.id), [SET]);
    listening.ear.event(2, id).await;
    emulator.expire_session(ScaleSetId(set.id));
    listening.ear.opened(2).await;
    emulator.inject(Fault::status(Endpoint::GetMessage, 500).times(1));
    emulator.queue_job(ScaleSetId(set.id), [SET]);
    listening.ear.event(3, id).await;

    let ear = Arc::clone(&listening.ear);
    assert_eq!(listening.stop().await, ListenEnd::Cancelled);
    assert!(matches!(ear.heard().last(), Some(Heard::Closed)));
    client.remove_runner(runner.id).await.unwrap();
    client.delete_scale_set(set.id).await.unwrap();
    assert!(emulator.state().scale_sets.is_empty());
}

#[tokio::test]
async fn a_session_left_behind_at_the_emulator_is_taken_over() {
    let (emulator, client) = emulator().await;
    let set = client.ensure_scale_set(&wanted(), None).await.unwrap();
    let left = client.open_session(set.id, "earlier", None).await.unwrap();
    assert!(client.open_session(set.id, "tester", None).await.is_err());
    client.open_session(set.id, "tester", Some(&left.id)).await.unwrap();
    assert_eq!(emulator.requests_to(Endpoint::Sessions).len(), 4);
}
