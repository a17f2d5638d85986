//! What the listen loop tells, taken into the ledger of its scale set.

use std::mem::discriminant;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::watch;
use tracing::{debug, warn};

use super::context::{Context, api_message};
use super::decide;
use super::set::ScaleSetHandle;
use crate::github::{ListenState, Message, MessageHandler, SessionRecord};
use crate::runner::{Job, JobEvent, Phase, Statistics};
use crate::telemetry::StartPhase;
use crate::time::elapsed;

/// One scale set, listening.
pub(super) struct SetMessageHandler {
    pub set: Arc<ScaleSetHandle>,
    pub ctx: Arc<Context>,
    pub scale_set_id: i64,
}

#[async_trait]
impl MessageHandler for SetMessageHandler {
    async fn session_opened(&self, session: &SessionRecord) {
        {
            let mut state = self.set.state();
            state.session = Some(session.clone());
            // GitHub gives it to one at a time: the scale set is this object's now.
            state.registration.take(self.scale_set_id);
            state.registration.session_open = true;
        }
        self.set.session_opened.notify_one();
        // The record first: a session that is written down without it would be closed by nobody.
        self.record().await;
        self.write_down().await;
    }

    async fn session_closed(&self) {
        {
            let mut state = self.set.state();
            state.session = None;
            state.registration.session_open = false;
        }
        // While the process stops, no reconcile does it.
        self.write_down().await;
    }

    fn statistics(&self, statistics: Statistics) {
        self.set.state().ledger.count(statistics, self.ctx.environment.now());
        self.wake();
    }

    fn message(&self, message: &Message) {
        let now = self.ctx.environment.now();
        let mut state = self.set.state();
        for event in &message.events {
            let idle_since = match event {
                JobEvent::Started { runner_name, .. } => {
                    state.ledger.runner(runner_name).filter(|r| r.phase == Phase::Idle).map(|r| r.since)
                }
                _ => None,
            };
            let news = state.ledger.apply(event, now);
            debug!(job = event.job().id, news, ?event, "heard from GitHub");
            if news {
                self.measure(event, idle_since, now);
            }
        }
        if let Some(statistics) = message.statistics {
            state.ledger.count(statistics, now);
        }
        drop(state);
        self.wake();
    }

    fn state(&self, listening: ListenState) {
        self.ctx.health.beat(&self.set.uid);
        if let ListenState::PollCompleted { .. } = listening {
            self.ctx.metrics.poll_completed(&self.set.namespace, &self.set.name);
        }
        let answered = matches!(listening, ListenState::Polling { .. } | ListenState::PollCompleted { .. });
        let mut state = self.set.state();
        if let ListenState::Conflict { .. } = listening {
            state.registration.session_open = false;
        }
        let awaited = answered && state.ledger.answered(self.ctx.environment.now());
        let before = state.listening.replace(listening.clone());
        drop(state);
        if awaited || before.map(|b| discriminant(&b)) != Some(discriminant(&listening)) {
            self.wake();
        }
    }

    fn capacity(&self) -> watch::Receiver<u32> {
        self.set.capacity.subscribe()
    }
}

impl SetMessageHandler {
    /// Writes the session's id, or that there is none, at once.
    async fn write_down(&self) {
        let status = decide::status(&self.set, self.ctx.environment.now());
        if let Err(error) = self.set.writer.write_now(status).await {
            warn!(error = api_message(&error), "the session could not be written down");
        }
    }

    async fn record(&self) {
        if let Err(error) = self.set.record_ownership(&self.ctx).await {
            warn!(
                error = api_message(&error),
                "that the scale set is this object's own could not be recorded"
            );
        }
    }

    fn wake(&self) {
        self.ctx.sets.requeue(&self.set.uid);
    }

    fn measure(&self, event: &JobEvent, idle_since: Option<Timestamp>, now: Timestamp) {
        let metrics = &self.ctx.metrics;
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
