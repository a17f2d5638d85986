//! What the listen loop tells, taken into the ledger of its scale set.

use std::mem::discriminant;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::watch;
use tracing::debug;

use super::handle::ScaleSetHandle;
use super::shared::Shared;
use crate::github::{ListenState, Message, MessageHandler, SessionRecord};
use crate::runner::{Job, JobEvent, Phase, Statistics};
use crate::telemetry::StartPhase;
use crate::time::elapsed;

/// One scale set, listening.
pub struct SetMessageHandler {
    pub set: Arc<ScaleSetHandle>,
    pub shared: Arc<Shared>,
    pub scale_set_id: i64,
}

#[async_trait]
impl MessageHandler for SetMessageHandler {
    async fn session_opened(&self, session: &SessionRecord) {
        {
            let mut state = self.set.state();
            state.github.session = Some(session.clone());
            // GitHub gives it to one at a time: the scale set is this object's now.
            state.github.registration.take(self.scale_set_id);
            state.github.registration.session_open = true;
        }
        self.set.session_opened.notify_one();
        self.shared.reporter.session_changed(&self.set).await;
    }

    async fn session_closed(&self) {
        {
            let mut state = self.set.state();
            state.github.session = None;
            state.github.registration.session_open = false;
        }
        // While the process stops, no reconcile does it.
        self.shared.reporter.session_changed(&self.set).await;
    }

    fn statistics(&self, statistics: Statistics) {
        self.set.state().ledger.count(statistics, self.shared.now());
        self.requeue();
    }

    fn message(&self, message: &Message) {
        let now = self.shared.now();
        let mut state = self.set.state();
        for event in &message.events {
            let idle_since = match event {
                JobEvent::Started { runner_name, .. } => {
                    state.ledger.runner(runner_name).filter(|r| r.phase == Phase::Idle).map(|r| r.since)
                }
                _ => None,
            };
            let news = state.ledger.apply(event, now);
            debug!(job = event.job().id, news, ?event, "job event received");
            if news {
                self.measure(event, idle_since, now);
            }
        }
        if let Some(statistics) = message.statistics {
            state.ledger.count(statistics, now);
        }
        drop(state);
        self.requeue();
    }

    fn state(&self, listening: ListenState) {
        self.shared.health.beat(&self.set.uid);
        if let ListenState::PollCompleted { .. } = listening {
            self.shared.metrics.poll_completed(&self.set.object.namespace, &self.set.object.name);
        }
        let answered = matches!(listening, ListenState::Polling { .. } | ListenState::PollCompleted { .. });
        let mut state = self.set.state();
        if let ListenState::Conflict { .. } = listening {
            state.github.registration.session_open = false;
        }
        let awaited = answered && state.ledger.answered(self.shared.now());
        let before = state.github.listening.replace(listening.clone());
        drop(state);
        if awaited || before.map(|b| discriminant(&b)) != Some(discriminant(&listening)) {
            self.requeue();
        }
    }

    fn capacity(&self) -> watch::Receiver<u32> {
        self.set.capacity.subscribe()
    }
}

impl SetMessageHandler {
    fn requeue(&self) {
        self.shared.registry.requeue(&self.set.uid);
    }

    fn measure(&self, event: &JobEvent, idle_since: Option<Timestamp>, now: Timestamp) {
        let metrics = &self.shared.metrics;
        match event {
            JobEvent::Started { job, .. } => {
                metrics.job_started(
                    &self.set.labels,
                    between(job, |j| j.scale_set_assigned_at, |j| j.runner_assigned_at),
                );
                if let Some(since) = idle_since {
                    metrics.start_latency(StartPhase::StartedToJob, elapsed(since, now));
                }
            }
            JobEvent::Completed { job, outcome, .. } => {
                let execution = between(job, |j| j.runner_assigned_at, |j| j.finished_at);
                metrics.job_completed(&self.set.labels, *outcome, execution);
            }
            JobEvent::Available { .. } | JobEvent::Assigned { .. } => {}
        }
    }
}

type Moment = fn(&Job) -> Option<Timestamp>;

fn between(job: &Job, from: Moment, to: Moment) -> Option<Duration> {
    Some(elapsed(from(job)?, to(job)?))
}
