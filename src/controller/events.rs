//! Kubernetes events: what a person would want to know. Never a reason for anything else to fail.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{EventType, Recorder, Reporter};
use kube::{Client, Resource};
use tracing::debug;

use super::answer::api_message;
use crate::api::RunnerScaleSet;
use crate::scale_set::{Event, ScaleSetHandle};

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

    /// What events about a set refer to.
    pub fn about(set: &ScaleSetHandle) -> ObjectReference {
        ObjectReference {
            api_version: Some(RunnerScaleSet::api_version(&()).into_owned()),
            kind: Some(RunnerScaleSet::kind(&()).into_owned()),
            namespace: Some(set.object.namespace.clone()),
            name: Some(set.object.name.clone()),
            uid: Some(set.uid.clone()),
            ..ObjectReference::default()
        }
    }

    /// Publishes an event, in the background.
    pub fn publish(&self, about: ObjectReference, Event { warning, reason, action, note }: Event) {
        let event = kube::runtime::events::Event {
            type_: if warning { EventType::Warning } else { EventType::Normal },
            reason: reason.to_string(),
            note: Some(cut(note)),
            action: action.to_owned(),
            secondary: None,
        };
        let recorder = self.recorder.clone();
        tokio::spawn(async move {
            if let Err(error) = recorder.publish(&event, &about).await {
                debug!(error = api_message(&error), reason = event.reason, "an event could not be published");
            }
        });
    }
}

/// Cuts a note to what the API server takes.
fn cut(mut note: String) -> String {
    if note.len() > LONGEST_NOTE {
        let cut = (0..=LONGEST_NOTE - 3).rev().find(|at| note.is_char_boundary(*at)).unwrap_or(0);
        note.truncate(cut);
        note.push('…');
    }
    note
}
