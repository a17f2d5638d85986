//! GitHub's own dialect: canned answers as GitHub, its older servers and its gateways give them, one row each.

use std::sync::Arc;

use paddock::github::{Client, Error, ScaleSetService, Session, WantedScaleSet};
use paddock::runner::JobEvent;
use testkit::github::{Effect, Endpoint, Fault};

use crate::support::{client, github, scale_set, wanted};

/// What is asked of GitHub.
#[derive(Debug, Clone, Copy)]
enum Ask {
    Create,
    Group,
    Find,
    Remove,
    Mint,
    DeleteSet,
    Open,
    Refresh,
    Poll,
    Acknowledge,
    Acquire,
    Acquirable,
    List,
}

impl Ask {
    /// The endpoint whose answer is canned.
    fn endpoint(self) -> Endpoint {
        match self {
            Ask::Create => Endpoint::CreateScaleSet,
            Ask::Group => Endpoint::RunnerGroups,
            Ask::Find => Endpoint::GetRunner,
            Ask::Remove => Endpoint::RemoveRunner,
            Ask::Mint => Endpoint::JitConfig,
            Ask::DeleteSet => Endpoint::DeleteScaleSet,
            Ask::Open => Endpoint::OpenSession,
            Ask::Refresh => Endpoint::RefreshSession,
            Ask::Poll => Endpoint::Poll,
            Ask::Acknowledge => Endpoint::Acknowledge,
            Ask::Acquire => Endpoint::AcquireJobs,
            Ask::Acquirable => Endpoint::AcquirableJobs,
            Ask::List => Endpoint::RunnerList,
        }
    }

    /// Asks, and tells in a few words what was understood.
    async fn of(self, client: &Client, session: &Session) -> Result<String, Error> {
        let set = session.scale_set_id;
        Ok(match self {
            Ask::Create => {
                let new = WantedScaleSet { name: "new".into(), labels: vec!["new".into()], ..wanted() };
                let made = client.ensure_scale_set(&new, None).await?;
                format!("{} {} {:?}", made.id, made.name, made.labels)
            }
            Ask::Group => {
                let other = WantedScaleSet { runner_group: "gpu".into(), ..wanted() };
                client.ensure_scale_set(&other, Some(set)).await.map(|_| "a group".into())?
            }
            Ask::Find => match client.find_runner("fleet-a").await? {
                Some(found) => format!("{} {}", found.id, found.name),
                None => "none".into(),
            },
            Ask::Remove => client.remove_runner(7).await.map(|()| "removed".into())?,
            Ask::Mint => format!("runner {}", client.mint_jit(set, "fleet-a").await?.id),
            Ask::DeleteSet => client.delete_scale_set(set).await.map(|()| "deleted".into())?,
            Ask::Open => client.open_session(set, "tester", None).await?.id,
            Ask::Refresh => client.refresh(session).await?.id,
            Ask::Poll => match client.poll(session, 0, 1).await? {
                Some(message) => {
                    let events: Vec<String> = message.events.iter().map(brief).collect();
                    let assigned = message.statistics.map_or("?".into(), |s| s.assigned.to_string());
                    format!("[{}] unreadable {} assigned {assigned}", events.join(", "), message.unreadable)
                }
                None => "quiet".into(),
            },
            Ask::Acknowledge => client.acknowledge(session, 1).await.map(|()| "acknowledged".into())?,
            Ask::Acquire => format!("{:?}", client.acquire(session, &[1]).await?),
            Ask::Acquirable => {
                let jobs = client.acquirable(set).await?;
                format!("{:?}", jobs.iter().map(|job| job.request_id).collect::<Vec<_>>())
            }
            Ask::List => {
                format!("{:?}", client.list_runners().await?.iter().map(|r| r.id).collect::<Vec<_>>())
            }
        })
    }
}

fn brief(event: &JobEvent) -> String {
    match event {
        JobEvent::Available { job, request_id } => format!("{} available by {request_id}", job.id),
        JobEvent::Assigned { job } => {
            format!("{} assigned{}", job.id, if job.queued_at.is_some() { ", timed" } else { "" })
        }
        JobEvent::Started { job, runner_name, runner_id } => {
            format!("{} started on {runner_name} {runner_id}", job.id)
        }
        JobEvent::Completed { job, runner_name, outcome } => {
            format!("{} {outcome:?} on {runner_name}", job.id)
        }
    }
}

/// A message of one entry, as it stands in the envelope's string.
macro_rules! message {
    ($entry:literal) => {
        concat!(
            r#"{"messageId": 1, "messageType": "RunnerScaleSetJobMessages", "statistics": {"totalAssignedJobs": 3}, "body": ""#,
            $entry,
            r#""}"#
        )
    };
}

/// An exception, as the service words it.
macro_rules! exception {
    ($name:literal) => {
        concat!(
            r#"{"$id": "1", "innerException": null, "message": "no", "typeName": "GitHub.DistributedTask.WebApi."#,
            $name,
            r#", GitHub.DistributedTask.WebApi", "typeKey": ""#,
            $name,
            r#"", "errorCode": 0, "eventId": 3000}"#
        )
    };
}

const CONFLICT: &str = r#"{"typeName": "GitHub.Actions.Runtime.WebApi.RunnerScaleSetSessionConflictException, X",
    "message": "The runner scale set fleet already has an active session for owner pod-0."}"#;
const LENGTH_REQUIRED: &str = "<html><head><title>411 Length Required</title></head></html>";

/// What is asked, the status and body that GitHub answers, and what is understood: words, or an error's name.
#[rustfmt::skip]
const ROWS: &[(Ask, u16, &str, &str)] = &[
    // Exceptions, with GitHub's long names and with short ones, whatever the status.
    (Ask::Mint, 409, exception!("TaskAgentExistsException"), "RunnerExists"),
    (Ask::Mint, 400, exception!("AgentExistsException"), "RunnerExists"),
    (Ask::Mint, 404, exception!("RunnerScaleSetNotFoundException"), "ScaleSetGone"),
    (Ask::Find, 404, exception!("TaskAgentNotFoundException"), "none"),
    (Ask::Remove, 404, exception!("TaskAgentNotFoundException"), "removed"),
    (Ask::Remove, 404, exception!("AgentNotFoundException"), "removed"),
    (Ask::Remove, 400, exception!("TaskAgentJobStillRunningException"), "RunnerBusy"),
    (Ask::Remove, 400, exception!("JobStillRunningException"), "RunnerBusy"),
    (Ask::Remove, 400, r#"{"typeName": "TaskAgentJobStillRunningException"}"#, "RunnerBusy"),
    (Ask::DeleteSet, 400, exception!("TaskAgentJobStillRunningException"), "RunnerBusy"),
    (Ask::Create, 400, exception!("RunnerScaleSetExistsException"), "NameTaken"),
    (Ask::Create, 409, exception!("RunnerScaleSetExistsException"), "NameTaken"),
    (Ask::Open, 409, CONFLICT, "SessionConflict"),
    (Ask::Open, 409, exception!("TaskAgentSessionConflictException"), "SessionConflict"),
    (Ask::Poll, 400, exception!("RunnerScaleSetSessionExpiredException"), "SessionLost"),
    (Ask::Poll, 401, exception!("TokenExpiredException"), "TokenExpired"),
    (Ask::Refresh, 404, r#"{"message": "session doesn't exist in redis"}"#, "SessionLost"),
    (Ask::Acknowledge, 404, exception!("MessageNotFoundException"), "acknowledged"),
    (Ask::Acquire, 404, "", "[]"),
    (Ask::Acquirable, 404, "", "[]"),
    (Ask::Acquirable, 204, "", "[]"),
    // What stands before GitHub.
    (Ask::Mint, 411, LENGTH_REQUIRED, "BadReply"),
    (Ask::Refresh, 411, LENGTH_REQUIRED, "BadReply"),
    (Ask::Find, 503, "<html>We had issues</html>", "Transient"),
    (Ask::Find, 429, "<html>Too many</html>", "RateLimited"),
    (Ask::Remove, 200, "<p>back soon</p>", "BadReply"),
    (Ask::Find, 200, "<p>back soon</p>", "BadReply"),
    // Lists.
    (Ask::Find, 200, r#"{"count": 0, "value": []}"#, "none"),
    (Ask::Find, 200, r#"{"count": 0, "value": null}"#, "none"),
    (Ask::Find, 200, r#"{"count": 0}"#, "none"),
    (Ask::Find, 200, r#"{"value": null}"#, "none"),
    (Ask::Find, 200, "{}", "none"),
    (Ask::Find, 200, r#"{"count": 1, "value": null}"#, "BadReply"),
    (Ask::Find, 200, r#"{"count": 1}"#, "BadReply"),
    (Ask::Find, 200, r#"{"value": {}}"#, "BadReply"),
    (Ask::Find, 200, "[]", "BadReply"),
    (Ask::Find, 200, "", "BadReply"),
    (Ask::Group, 200, r#"{"count": 0, "value": null}"#, "GroupNotFound"),
    (Ask::Acquire, 200, r#"{"count": 0, "value": null}"#, "[]"),
    (Ask::Acquire, 200, r#"{"count": 2, "value": [1, "2"]}"#, "[1, 2]"),
    (Ask::Acquirable, 200, r#"{"count": 1, "value": [null, {"runnerRequestId": 9, "jobId": null}]}"#, "[9]"),
    (Ask::List, 200, r#"{"total_count": 0, "runners": null}"#, "[]"),
    (Ask::List, 200, r#"{"total_count": 1, "runners": [{"id": 5, "busy": null, "labels": [{}], "os": 1}]}"#, "[5]"),
    // Names in any case, numbers as text, fields that are new and fields that are missing.
    (Ask::Find, 200, r#"{"Count": 1, "Value": [{"ID": "7", "NAME": "Fleet-A", "version": {"a": [1]}}]}"#, "7 Fleet-A"),
    (Ask::Find, 200, "\u{feff}{\"count\": 1, \"value\": [{\"id\": 7, \"name\": \"fleet-a\"}]}", "7 fleet-a"),
    (Ask::Create, 200, r#"{"id": "12", "name": "new", "labels": [{"name": "new"}, null], "statistics": null}"#, "12 new [\"new\"]"),
    (Ask::Create, 200, r#"{"id": 12, "name": "new", "labels": [{"name": "NEW", "type": "System", "id": 0}],
        "RunnerSetting": {"disableUpdate": true, "more": {}}, "runnerGroupId": 1}"#, "12 new [\"NEW\"]"),
    (Ask::Create, 200, r#"{"name": "new"}"#, "BadReply"),
    (Ask::Mint, 200, r#"{"runner": {"id": "31", "name": null}, "encodedJITConfig": "e30="}"#, "runner 31"),
    (Ask::Mint, 200, r#"{"Runner": {"Id": 31}, "EncodedJitConfig": "e30="}"#, "runner 31"),
    (Ask::Mint, 200, r#"{"runner": null, "encodedJITConfig": "e30="}"#, "BadReply"),
    (Ask::Open, 200, r#"{"sessionId": "s", "messageQueueUrl": "HOST/q", "messageQueueAccessToken": "t", "new": []}"#, "s"),
    (Ask::Open, 200, r#"{"sessionId": "s", "messageQueueUrl": "", "messageQueueAccessToken": "t"}"#, "BadReply"),
    // Messages.
    (Ask::Poll, 202, "", "quiet"),
    (Ask::Poll, 200, message!(r#"[{\"messageType\": \"JobAssigned\", \"runnerRequestId\": 41}]"#), "[41 assigned] unreadable 0 assigned 3"),
    (Ask::Poll, 200, message!(r#"[{\"messageType\": \"JobAvailable\", \"runnerRequestId\": 41}]"#), "[41 available by 41] unreadable 0 assigned 3"),
    (Ask::Poll, 200, message!(r#"[{\"messageType\": \"JobStarted\", \"jobId\": \"\", \"runnerRequestId\": \"41\", \"runnerId\": 2, \"runnerName\": \"r\"}]"#), "[41 started on r 2] unreadable 0 assigned 3"),
    (Ask::Poll, 200, message!(r#"[{\"messageType\": \"JobCompleted\", \"jobId\": 41, \"runnerRequestId\": 0, \"result\": \"Succeeded\", \"runnerName\": null}]"#), "[41 Succeeded on ] unreadable 0 assigned 3"),
    (Ask::Poll, 200, message!(r#"[{\"messageType\": \"JobAssigned\", \"runnerRequestId\": 0}]"#), "[] unreadable 1 assigned 3"),
    (Ask::Poll, 200, message!(r#"[{\"messageType\": \"JobInvented\", \"jobId\": \"j\"}, {\"JobId\": \"j\", \"MessageType\": \"JobAssigned\", \"new\": {}}]"#), "[j assigned] unreadable 1 assigned 3"),
    (Ask::Poll, 200, message!(r#"[{\"messageType\": \"JobAssigned\", \"jobId\": \"j\", \"queueTime\": \"2026-01-02T03:04:05\"}]"#), "[j assigned] unreadable 0 assigned 3"),
    (Ask::Poll, 200, message!(r#"[{\"messageType\": \"JobAssigned\", \"jobId\": \"j\", \"queueTime\": \"0001-01-01T00:00:00Z\"}]"#), "[j assigned] unreadable 0 assigned 3"),
    (Ask::Poll, 200, message!(r#"[{\"messageType\": \"JobAssigned\", \"jobId\": \"j\", \"queueTime\": \"2026-01-02T03:04:05.1234567Z\"}]"#), "[j assigned, timed] unreadable 0 assigned 3"),
    (Ask::Poll, 200, message!(r#"[{\"messageType\": \"JobAssigned\", \"jobId\": \"j\", \"requestLabels\": null}, null]"#), "[j assigned] unreadable 0 assigned 3"),
    (Ask::Poll, 200, message!(""), "[] unreadable 0 assigned 3"),
    (Ask::Poll, 200, message!("no json"), "[] unreadable 1 assigned 3"),
    (Ask::Poll, 200, r#"{"messageId": 1, "messageType": "RunnerScaleSetJobMessages", "body": null, "statistics": null}"#, "[] unreadable 0 assigned ?"),
    (Ask::Poll, 200, r#"{"messageId": "1", "messageType": "SomethingNew", "body": "[]", "statistics": {"totalAssignedJobs": "4"}}"#, "[] unreadable 1 assigned 4"),
    (Ask::Poll, 200, "\u{feff}{\"messageId\": 1, \"messageType\": \"RunnerScaleSetJobMessages\", \"body\": \"[]\"}", "[] unreadable 0 assigned ?"),
    (Ask::Poll, 200, "", "BadReply"),
    (Ask::Poll, 200, r#"{"messageType": "RunnerScaleSetJobMessages"}"#, "BadReply"),
];

#[tokio::test]
async fn every_answer_of_github_s_own_dialect_is_understood() {
    let github = github().start().await.unwrap();
    let mut misunderstood = Vec::new();
    for (ask, status, body, expected) in ROWS {
        // A rate limit would be remembered by its client.
        let client = Arc::new(client(&github));
        let set = scale_set(&client).await;
        let session = client.open_session(set.id, "tester", None).await.unwrap();
        let body = body.replace("HOST", github.url());
        github.inject(Fault::new(
            ask.endpoint(),
            Effect::Answer { status: *status, headers: Vec::new(), body: body.clone() },
        ));
        let heard = ask.of(&client, &session).await.unwrap_or_else(|error| {
            let name = format!("{error:?}");
            name.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
        });
        if heard != *expected {
            misunderstood.push(format!("{ask:?} {status} {body}\n    {heard}, not {expected}"));
        }
        github.clear_faults();
        github.vanish_scale_set(&set.name).unwrap();
    }
    assert!(misunderstood.is_empty(), "{} rows:\n{}", misunderstood.len(), misunderstood.join("\n"));
}
