//! Kubernetes events: what a person would want to know. Never a reason for anything else to fail.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tracing::debug;

use super::context::api_message;

/// The longest note that the API server takes.
const LONGEST_NOTE: usize = 1024;

/// Publishes events; repeats within a few minutes become a count on the first.
#[derive(Clone)]
pub(super) struct Events {
    recorder: Recorder,
}

impl Events {
    pub fn new(client: Client, instance: String) -> Events {
        let reporter = Reporter { controller: "paddock.dev/controller".to_owned(), instance: Some(instance) };
        Events { recorder: Recorder::new(client, reporter) }
    }

    /// Something that is as it should be.
    pub fn normal(&self, about: &ObjectReference, reason: &str, action: &str, note: String) {
        self.publish(EventType::Normal, about, reason, action, note);
    }

    /// Something that someone should look at.
    pub fn warning(&self, about: &ObjectReference, reason: &str, action: &str, note: String) {
        self.publish(EventType::Warning, about, reason, action, note);
    }

    fn publish(
        &self,
        type_: EventType,
        about: &ObjectReference,
        reason: &str,
        action: &str,
        mut note: String,
    ) {
        if note.len() > LONGEST_NOTE {
            let cut = (0..=LONGEST_NOTE - 3).rev().find(|at| note.is_char_boundary(*at)).unwrap_or(0);
            note.truncate(cut);
            note.push('…');
        }
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note),
            action: action.to_owned(),
            secondary: None,
        };
        let (recorder, about) = (self.recorder.clone(), about.clone());
        tokio::spawn(async move {
            if let Err(error) = recorder.publish(&event, &about).await {
                debug!(error = api_message(&error), reason = event.reason, "an event could not be published");
            }
        });
    }
}
