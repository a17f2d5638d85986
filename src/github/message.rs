//! The messages of the queue: an envelope whose body is a JSON array in a string.

use std::fmt;

use serde::Deserializer;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::fields::{Field, ITEMS, Read, object};
use super::wire::{self, WireJob, WireStatistics};
use super::{Error, Message};
use crate::runner::JobEvent;

/// What the envelope of job messages is called.
const JOB_MESSAGES: &str = "RunnerScaleSetJobMessages";

/// Reads a message. What cannot be read inside it is counted and passed over: refusing the message would bring it back
/// for ever, and its statistics say what to scale to.
pub(super) fn message(body: &[u8]) -> Result<Message, Error> {
    let envelope: Envelope = wire::decode(body, "the message")?;
    if envelope.id <= 0 {
        return Err(Error::BadReply("the message has no id".into()));
    }
    let jobs = envelope.kind == JOB_MESSAGES;
    let Entries { events, unreadable } = if jobs { envelope.entries } else { Entries::unreadable() };
    if unreadable > 0 {
        tracing::warn!(
            message = envelope.id,
            kind = envelope.kind,
            unreadable,
            "passed over what cannot be read"
        );
    }
    Ok(Message { id: envelope.id, statistics: envelope.statistics.map(Into::into), events, unreadable })
}

#[derive(Default)]
struct Envelope {
    id: i64,
    kind: String,
    entries: Entries,
    statistics: Option<WireStatistics>,
}

object!(Envelope {
    "messageid" => id,
    "messagetype" => kind,
    "body" => entries,
    "statistics" => statistics,
});

/// What a message says, entry by entry.
#[derive(Default)]
struct Entries {
    events: Vec<JobEvent>,
    unreadable: usize,
}

impl Entries {
    fn unreadable() -> Self {
        Entries { events: Vec::new(), unreadable: 1 }
    }
}

impl Field for Entries {
    fn read<'de, D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_any(EntriesVisitor)
    }
}

/// Each entry is read by itself: one that cannot be does not hide the others.
fn event(entry: &RawValue) -> Option<JobEvent> {
    serde_json::from_str::<Read<WireJob>>(entry.get()).ok().and_then(|job| job.0.event())
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of jobs, or a text that holds one")
    }

    fn visit_unit<E>(self) -> Result<Entries, E> {
        Ok(Entries::default())
    }

    fn visit_str<E>(self, text: &str) -> Result<Entries, E> {
        if text.trim().is_empty() {
            return Ok(Entries::default());
        }
        Ok(serde_json::from_str::<Read<Entries>>(text).map_or_else(|_| Entries::unreadable(), |read| read.0))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Entries, A::Error> {
        let mut entries = Entries::default();
        while entries.events.len() < ITEMS {
            match list.next_element::<Option<&RawValue>>()? {
                Some(Some(entry)) => match event(entry) {
                    Some(event) => entries.events.push(event),
                    None => entries.unreadable += 1,
                },
                Some(None) => {}
                None => return Ok(entries),
            }
        }
        while list.next_element::<IgnoredAny>()?.is_some() {
            entries.unreadable += 1;
        }
        Ok(entries)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Entries::unreadable())
    }

    fn visit_bool<E>(self, _: bool) -> Result<Entries, E> {
        Ok(Entries::unreadable())
    }

    fn visit_i64<E>(self, _: i64) -> Result<Entries, E> {
        Ok(Entries::unreadable())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Entries, E> {
        Ok(Entries::unreadable())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Entries, E> {
        Ok(Entries::unreadable())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn envelope(body: &Value) -> Vec<u8> {
        json!({"MessageId": 7, "messageType": JOB_MESSAGES, "body": body.to_string(),
               "statistics": {"TotalAssignedJobs": 3, "totalRunningJobs": null, "totalIdleRunners": -1}})
        .to_string()
        .into_bytes()
    }

    #[test]
    fn h2_null_is_absent_and_names_have_no_case() {
        let body = json!([{"MESSAGETYPE": "JobStarted", "JobID": "j1", "runnerName": "r1", "RunnerId": 4,
            "ownerName": "acme", "repositoryName": "app", "requestLabels": null, "eventName": null,
            "queueTime": "2026-01-02T03:04:05.1234567Z", "finishTime": "0001-01-01T00:00:00Z"}, null]);
        let message = message(&envelope(&body)).unwrap();
        assert_eq!((message.id, message.unreadable), (7, 0));
        let statistics = message.statistics.unwrap();
        assert_eq!((statistics.assigned, statistics.running, statistics.idle_runners), (3, 0, 0));
        let [JobEvent::Started { job, runner_name, runner_id: 4 }] = message.events.as_slice() else {
            unreachable!("{:?}", message.events)
        };
        assert_eq!(
            (job.id.as_str(), job.repository.as_str(), runner_name.as_str()),
            ("j1", "acme/app", "r1")
        );
        assert!(job.queued_at.is_some() && job.finished_at.is_none());
    }

    #[test]
    fn h2_an_entry_that_cannot_be_read_does_not_hide_the_others() {
        let body = json!([{"messageType": "JobStarted", "jobId": []}, {"messageType": "JobInvented", "jobId": "j"},
            {"messageType": "JobAssigned"}, {"messageType": "JobAssigned", "jobId": "j2"}]);
        let message = message(&envelope(&body)).unwrap();
        assert_eq!(message.unreadable, 3);
        assert!(matches!(message.events.as_slice(), [JobEvent::Assigned { job }] if job.id == "j2"));
    }

    #[test]
    fn a_message_without_readable_entries_still_counts() {
        for (kind, body, unreadable) in [
            (JOB_MESSAGES, json!("not json"), 1),
            (JOB_MESSAGES, json!(""), 0),
            (JOB_MESSAGES, Value::Null, 0),
            (JOB_MESSAGES, json!({"a": 1}), 1),
            ("SomethingNew", json!("[]"), 1),
        ] {
            let wire = json!({"messageId": 9, "messageType": kind, "body": body, "statistics": {}});
            let message = message(wire.to_string().as_bytes()).unwrap();
            assert_eq!((message.id, message.unreadable, message.events.len()), (9, unreadable, 0), "{body}");
            assert!(message.statistics.is_some());
        }
    }

    #[test]
    fn an_envelope_that_is_none_is_a_bad_reply() {
        for body in ["", "nonsense", "null", "[]", "{}", r#"{"messageId": "planted"}"#] {
            let error = message(body.as_bytes()).unwrap_err();
            assert!(matches!(&error, Error::BadReply(t) if !t.contains("planted")), "{body}: {error}");
        }
    }

    #[test]
    fn fuzz_no_message_does_more_than_be_refused() {
        let entry = json!([{"messageType": "JobCompleted", "jobId": "j1", "runnerName": "r1", "runnerId": 4,
            "ownerName": "acme", "repositoryName": "app", "jobDisplayName": "build", "workflowRunId": 7, "result": "succeeded",
            "runnerAssignTime": "2026-01-02T03:04:05.1234567Z", "finishTime": "0001-01-01T00:00:00Z"}]);
        let text = String::from_utf8(envelope(&entry)).unwrap();
        let open = json!({"messageId": 1, "messageType": JOB_MESSAGES, "body": entry, "statistics": {}});
        let mut read = 0;
        testkit::fuzz::each(&[text.as_str(), &open.to_string()], |input| match message(input) {
            Ok(message) => {
                read += 1;
                assert!(message.id > 0);
                for event in &message.events {
                    let job = event.job();
                    assert!(
                        job.id.len() <= super::super::fields::NAME && job.display_name.len() <= 1024,
                        "{job:?}"
                    );
                }
            }
            Err(error) => assert!(matches!(error, Error::BadReply(_)) && error.to_string().len() < 1024),
        });
        assert!(read > 2, "the changed ones are read too: {read}");
    }
}
