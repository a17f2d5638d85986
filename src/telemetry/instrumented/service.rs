//! The scale-set service, measured.

use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::Instrumented;
use crate::github::{
    AcquirableJob, Error, JitRunner, ListedRunner, Message, RunnerReference, ScaleSet, ScaleSetService,
    Session, WantedScaleSet,
};

impl Instrumented<dyn ScaleSetService> {
    async fn measure<T>(
        &self,
        call: &'static str,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let start = Instant::now();
        let result = answer.await;
        let outcome = result.as_ref().map_or_else(outcome, |_| "ok");
        self.metrics.github_request(call, outcome, start.elapsed());
        result
    }
}

fn outcome(error: &Error) -> &'static str {
    match error {
        Error::AuthRejected(_) => "auth_rejected",
        Error::Forbidden(_) => "forbidden",
        Error::GroupNotFound(_) => "group_not_found",
        Error::NameTaken(_) => "name_taken",
        Error::ScaleSetGone => "scale_set_gone",
        Error::SessionLost(_) => "session_lost",
        Error::TokenExpired => "token_expired",
        Error::SessionConflict { .. } => "session_conflict",
        Error::RunnerExists => "runner_exists",
        Error::RunnerGone => "runner_gone",
        Error::RunnerBusy => "runner_busy",
        Error::NoRerun(_) => "no_rerun",
        Error::RateLimited { .. } => "rate_limited",
        Error::Transient(_) => "transient",
        Error::BadReply(_) => "bad_reply",
        Error::Config(_) => "config",
    }
}

#[async_trait]
impl ScaleSetService for Instrumented<dyn ScaleSetService> {
    async fn ensure_scale_set(&self, wanted: &WantedScaleSet, own: Option<i64>) -> Result<ScaleSet, Error> {
        let answer = self.inner.ensure_scale_set(wanted, own);
        self.measure("ensure_scale_set", answer).await
    }

    async fn find_scale_set(&self, id: i64) -> Result<Option<ScaleSet>, Error> {
        self.measure("find_scale_set", self.inner.find_scale_set(id)).await
    }

    async fn delete_scale_set(&self, id: i64) -> Result<(), Error> {
        let answer = self.inner.delete_scale_set(id);
        self.measure("delete_scale_set", answer).await
    }

    async fn open_session(
        &self,
        scale_set_id: i64,
        owner: &str,
        left_behind: Option<&str>,
    ) -> Result<Session, Error> {
        let answer = self.inner.open_session(scale_set_id, owner, left_behind);
        self.measure("open_session", answer).await
    }

    async fn refresh(&self, session: &Session) -> Result<Session, Error> {
        self.measure("refresh", self.inner.refresh(session)).await
    }

    async fn poll(
        &self,
        session: &Session,
        last_message_id: i64,
        capacity: u32,
    ) -> Result<Option<Message>, Error> {
        let answer = self.inner.poll(session, last_message_id, capacity);
        let message = self.measure("poll", answer).await?;
        if let Some(message) = message.as_ref().filter(|m| m.unreadable > 0) {
            self.metrics.unreadable_messages(message.unreadable);
        }
        Ok(message)
    }

    async fn acknowledge(&self, session: &Session, message_id: i64) -> Result<(), Error> {
        let answer = self.inner.acknowledge(session, message_id);
        self.measure("acknowledge", answer).await
    }

    async fn acquire(&self, session: &Session, request_ids: &[i64]) -> Result<Vec<i64>, Error> {
        let answer = self.inner.acquire(session, request_ids);
        self.measure("acquire", answer).await
    }

    async fn acquirable(&self, scale_set_id: i64) -> Result<Vec<AcquirableJob>, Error> {
        let answer = self.inner.acquirable(scale_set_id);
        self.measure("acquirable", answer).await
    }

    async fn mint_jit(&self, scale_set_id: i64, runner_name: &str) -> Result<JitRunner, Error> {
        let answer = self.inner.mint_jit(scale_set_id, runner_name);
        self.measure("mint_jit", answer).await
    }

    async fn find_runner(&self, name: &str) -> Result<Option<RunnerReference>, Error> {
        self.measure("find_runner", self.inner.find_runner(name)).await
    }

    async fn list_runners(&self) -> Result<Vec<ListedRunner>, Error> {
        self.measure("list_runners", self.inner.list_runners()).await
    }

    async fn remove_runner(&self, id: i64) -> Result<(), Error> {
        self.measure("remove_runner", self.inner.remove_runner(id)).await
    }

    async fn rerun_failed_jobs(&self, repository: &str, run_id: i64) -> Result<(), Error> {
        let answer = self.inner.rerun_failed_jobs(repository, run_id);
        self.measure("rerun_failed_jobs", answer).await
    }

    async fn close(&self, session: &Session) -> Result<(), Error> {
        self.measure("close", self.inner.close(session)).await
    }

    fn limited_for(&self) -> Option<Duration> {
        self.inner.limited_for()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::telemetry::Metrics;

    /// Answers each call in the one way that shows which call it was.
    struct Service;

    fn session() -> Session {
        Session {
            id: String::new(),
            scale_set_id: 1,
            owner: String::new(),
            queue_url: String::new(),
            queue_token: String::new(),
            statistics: None,
        }
    }

    #[async_trait]
    impl ScaleSetService for Service {
        async fn ensure_scale_set(&self, _: &WantedScaleSet, _: Option<i64>) -> Result<ScaleSet, Error> {
            Err(Error::GroupNotFound(String::new()))
        }
        async fn find_scale_set(&self, _: i64) -> Result<Option<ScaleSet>, Error> {
            Ok(None)
        }
        async fn delete_scale_set(&self, _: i64) -> Result<(), Error> {
            Err(Error::ScaleSetGone)
        }
        async fn open_session(&self, _: i64, _: &str, _: Option<&str>) -> Result<Session, Error> {
            Err(Error::SessionConflict { owner: None })
        }
        async fn refresh(&self, _: &Session) -> Result<Session, Error> {
            Err(Error::SessionLost(String::new()))
        }
        async fn poll(&self, _: &Session, _: i64, _: u32) -> Result<Option<Message>, Error> {
            Ok(Some(Message { id: 1, statistics: None, events: Vec::new(), unreadable: 2 }))
        }
        async fn acknowledge(&self, _: &Session, _: i64) -> Result<(), Error> {
            Err(Error::Transient(String::new()))
        }
        async fn acquire(&self, _: &Session, _: &[i64]) -> Result<Vec<i64>, Error> {
            Err(Error::BadReply(String::new()))
        }
        async fn acquirable(&self, _: i64) -> Result<Vec<AcquirableJob>, Error> {
            Err(Error::Forbidden(String::new()))
        }
        async fn mint_jit(&self, _: i64, _: &str) -> Result<JitRunner, Error> {
            Err(Error::RunnerExists)
        }
        async fn find_runner(&self, _: &str) -> Result<Option<RunnerReference>, Error> {
            Err(Error::AuthRejected(String::new()))
        }
        async fn list_runners(&self) -> Result<Vec<ListedRunner>, Error> {
            Ok(Vec::new())
        }
        async fn remove_runner(&self, _: i64) -> Result<(), Error> {
            Err(Error::RunnerBusy)
        }
        async fn rerun_failed_jobs(&self, _: &str, _: i64) -> Result<(), Error> {
            Err(Error::NoRerun(String::new()))
        }
        async fn close(&self, _: &Session) -> Result<(), Error> {
            Ok(())
        }
        fn limited_for(&self) -> Option<Duration> {
            None
        }
    }

    #[tokio::test]
    async fn every_call_is_passed_on_and_counted_by_outcome() {
        let metrics = Metrics::new();
        let service = Instrumented::new(Arc::new(Service) as Arc<dyn ScaleSetService>, metrics.clone());
        let wanted = WantedScaleSet { name: String::new(), runner_group: String::new(), labels: Vec::new() };
        let _ = service.ensure_scale_set(&wanted, None).await;
        let _ = service.find_scale_set(1).await;
        let _ = service.delete_scale_set(1).await;
        let _ = service.open_session(1, "", None).await;
        let _ = service.refresh(&session()).await;
        let message = service.poll(&session(), 0, 1).await.unwrap();
        let _ = service.acknowledge(&session(), 1).await;
        let _ = service.acquire(&session(), &[]).await;
        let _ = service.acquirable(1).await;
        let _ = service.mint_jit(1, "").await;
        let _ = service.find_runner("").await;
        let _ = service.remove_runner(1).await;
        let _ = service.rerun_failed_jobs("", 1).await;
        service.close(&session()).await.unwrap();

        assert_eq!(message.unwrap().unreadable, 2);
        let text = metrics.render().unwrap();
        let counted: Vec<_> = text
            .lines()
            .filter(|l| l.starts_with("paddock_github_requests_total") || l.starts_with("paddock_unreadable"))
            .collect();
        let expected = [
            ("ensure_scale_set", "group_not_found"),
            ("find_scale_set", "ok"),
            ("delete_scale_set", "scale_set_gone"),
            ("open_session", "session_conflict"),
            ("refresh", "session_lost"),
            ("poll", "ok"),
            ("acknowledge", "transient"),
            ("acquire", "bad_reply"),
            ("acquirable", "forbidden"),
            ("mint_jit", "runner_exists"),
            ("find_runner", "auth_rejected"),
            ("remove_runner", "runner_busy"),
            ("rerun_failed_jobs", "no_rerun"),
            ("close", "ok"),
        ];
        for (call, outcome) in expected {
            let line = format!(r#"paddock_github_requests_total{{call="{call}",outcome="{outcome}"}} 1"#);
            assert!(counted.contains(&line.as_str()), "no `{line}` in {counted:#?}");
        }
        assert!(counted.contains(&"paddock_unreadable_messages_total 2"));
        assert_eq!(counted.len(), expected.len() + 1, "{counted:#?}");
    }
}
