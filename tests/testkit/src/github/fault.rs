//! Faults on request: what one endpoint does instead of, or after, its work.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::route::Endpoint;
use super::wire;

/// One fault: where, how often, what. It stays until it is cleared, unless [`Fault::times`] says how often.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// The endpoint that misbehaves.
    pub endpoint: Endpoint,
    /// Only for requests that name this scale set in their path.
    #[serde(default)]
    pub scale_set: Option<String>,
    /// How often it strikes yet; none: until cleared.
    #[serde(default)]
    pub remaining: Option<u32>,
    /// What happens.
    pub effect: Effect,
}

/// What a fault does.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Effect {
    /// This answer, instead of the work. Strikes a poll that is already held, too.
    Answer {
        /// The HTTP status.
        status: u16,
        /// Names and values of headers.
        #[serde(default)]
        headers: Vec<(String, String)>,
        /// The body, as it goes out.
        #[serde(default)]
        body: String,
    },
    /// No answer for this long, then the connection closes. The work is not done.
    Hang {
        /// Milliseconds.
        ms: u64,
    },
    /// The connection closes without a byte. The work is not done.
    Refuse,
    /// The work is done this much later.
    Delay {
        /// Milliseconds.
        ms: u64,
    },
    /// The work is done, and the connection closes without a byte of the answer.
    LoseAnswer,
    /// The work is done, and the connection closes in the middle of the answer.
    CutAnswer,
    /// The work is done, and these fields are null wherever they appear in the answer, message bodies included.
    NullFields {
        /// Names of fields.
        fields: Vec<String>,
    },
    /// The work is done, and these fields are missing from the answer.
    DropFields {
        /// Names of fields.
        fields: Vec<String>,
    },
}

impl Effect {
    /// Whether it takes the place of the work.
    pub(super) fn is_instead(&self) -> bool {
        matches!(self, Self::Answer { .. } | Self::Hang { .. } | Self::Refuse)
    }

    /// Whether it spoils the answer after the work.
    pub(super) fn is_after(&self) -> bool {
        matches!(self, Self::LoseAnswer | Self::CutAnswer | Self::NullFields { .. } | Self::DropFields { .. })
    }
}

impl Fault {
    /// A fault with any effect, until cleared.
    pub fn new(endpoint: Endpoint, effect: Effect) -> Self {
        Self { endpoint, scale_set: None, remaining: None, effect }
    }

    /// This status and this body.
    pub fn answer(endpoint: Endpoint, status: u16, body: impl Into<String>) -> Self {
        Self::new(endpoint, Effect::Answer { status, headers: Vec::new(), body: body.into() })
    }

    /// This status, with a short message.
    pub fn status(endpoint: Endpoint, status: u16) -> Self {
        Self::answer(endpoint, status, json!({ "message": "injected fault" }).to_string())
    }

    /// This status, with the exception of this name.
    pub fn exception(endpoint: Endpoint, status: u16, name: &str) -> Self {
        Self::answer(endpoint, status, wire::exception(name, "injected fault").to_string())
    }

    /// 200 with no body at all.
    pub fn empty(endpoint: Endpoint) -> Self {
        Self::answer(endpoint, 200, "")
    }

    /// 200 with a body that is no JSON.
    pub fn malformed(endpoint: Endpoint) -> Self {
        Self::answer(endpoint, 200, "{\"messageId\": 100000001, \"mess")
    }

    /// 301 to another place, as for a renamed organisation or repository.
    pub fn redirect(endpoint: Endpoint, location: impl Into<String>) -> Self {
        Self::status(endpoint, 301).with_header("Location", location)
    }

    /// 429 with `Retry-After`, in whole seconds.
    pub fn too_many_requests(endpoint: Endpoint, retry_after: Duration) -> Self {
        Self::status(endpoint, 429).with_header("Retry-After", retry_after.as_secs().to_string())
    }

    /// 503 with `Retry-After`, in whole seconds.
    pub fn unavailable(endpoint: Endpoint, retry_after: Duration) -> Self {
        Self::status(endpoint, 503).with_header("Retry-After", retry_after.as_secs().to_string())
    }

    /// 403 with `X-RateLimit-Remaining: 0`: the hourly quota is spent until it is reset, so much later.
    pub fn primary_rate_limit(endpoint: Endpoint, reset_in: Duration) -> Self {
        let reset = Timestamp::now().as_second() + i64::try_from(reset_in.as_secs()).unwrap_or(i64::MAX / 2);
        Self::answer(endpoint, 403, json!({ "message": "API rate limit exceeded" }).to_string())
            .with_header("X-RateLimit-Limit", "5000")
            .with_header("X-RateLimit-Remaining", "0")
            .with_header("X-RateLimit-Reset", reset.to_string())
    }

    /// 403 whose text speaks of a secondary rate limit, with `Retry-After`.
    pub fn secondary_rate_limit(endpoint: Endpoint, retry_after: Duration) -> Self {
        let message =
            "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.";
        Self::answer(endpoint, 403, json!({ "message": message }).to_string())
            .with_header("Retry-After", retry_after.as_secs().to_string())
    }

    /// No answer for this long.
    pub fn hang(endpoint: Endpoint, time: Duration) -> Self {
        Self::new(endpoint, Effect::Hang { ms: millis(time) })
    }

    /// A late answer.
    pub fn delay(endpoint: Endpoint, time: Duration) -> Self {
        Self::new(endpoint, Effect::Delay { ms: millis(time) })
    }

    /// Fields that are null.
    pub fn null_fields<S: Into<String>>(endpoint: Endpoint, fields: impl IntoIterator<Item = S>) -> Self {
        let fields = fields.into_iter().map(Into::into).collect();
        Self::new(endpoint, Effect::NullFields { fields })
    }

    /// Fields that are missing.
    pub fn drop_fields<S: Into<String>>(endpoint: Endpoint, fields: impl IntoIterator<Item = S>) -> Self {
        let fields = fields.into_iter().map(Into::into).collect();
        Self::new(endpoint, Effect::DropFields { fields })
    }

    /// How often it strikes before it is used up.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.remaining = Some(times);
        self
    }

    /// Only for requests that name this scale set in their path.
    #[must_use]
    pub fn for_scale_set(mut self, name: impl Into<String>) -> Self {
        self.scale_set = Some(name.into());
        self
    }

    /// A header more; only an [`Effect::Answer`] has any.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: impl Into<String>) -> Self {
        if let Effect::Answer { headers, .. } = &mut self.effect {
            headers.push((name.to_owned(), value.into()));
        }
        self
    }

    fn strikes(&self, endpoint: Endpoint, scale_set: Option<&str>) -> bool {
        let everywhere =
            self.endpoint == Endpoint::Any && !matches!(endpoint, Endpoint::Runner | Endpoint::Control);
        (everywhere || self.endpoint == endpoint)
            && self.scale_set.as_deref().is_none_or(|wanted| scale_set == Some(wanted))
    }
}

/// Takes the first fault that strikes here and passes `filter`, using up one of its times.
pub(super) fn take(
    faults: &mut Vec<Fault>,
    endpoint: Endpoint,
    scale_set: Option<&str>,
    filter: fn(&Effect) -> bool,
) -> Option<Effect> {
    faults.retain(|fault| fault.remaining != Some(0));
    let fault = faults.iter_mut().find(|f| filter(&f.effect) && f.strikes(endpoint, scale_set))?;
    if let Some(remaining) = &mut fault.remaining {
        *remaining -= 1;
    }
    Some(fault.effect.clone())
}

/// Applies `change` to each field of one of these names, at any depth and inside message bodies.
pub(super) fn spoil(value: &mut Value, fields: &[String], drop: bool) {
    match value {
        Value::Object(map) => {
            for field in fields {
                if drop {
                    map.remove(field);
                } else if let Some(value) = map.get_mut(field) {
                    *value = Value::Null;
                }
            }
            map.values_mut().for_each(|value| spoil(value, fields, drop));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| spoil(value, fields, drop)),
        Value::String(text) if text.starts_with('[') => {
            if let Ok(mut inner) = serde_json::from_str::<Value>(text) {
                spoil(&mut inner, fields, drop);
                *text = inner.to_string();
            }
        }
        _ => {}
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_used_up_and_keeps_to_its_place() {
        let mut faults = vec![Fault::status(Endpoint::Poll, 503).times(1).for_scale_set("a")];
        assert!(take(&mut faults, Endpoint::Poll, Some("b"), Effect::is_instead).is_none());
        assert!(take(&mut faults, Endpoint::JitConfig, Some("a"), Effect::is_instead).is_none());
        assert!(take(&mut faults, Endpoint::Poll, Some("a"), Effect::is_after).is_none());
        assert!(take(&mut faults, Endpoint::Poll, Some("a"), Effect::is_instead).is_some());
        assert!(take(&mut faults, Endpoint::Poll, Some("a"), Effect::is_instead).is_none());
    }

    #[test]
    fn an_outage_spares_runners_and_control() {
        let mut faults = vec![Fault::new(Endpoint::Any, Effect::Refuse)];
        assert!(take(&mut faults, Endpoint::AccessToken, None, Effect::is_instead).is_some());
        assert!(take(&mut faults, Endpoint::Control, None, Effect::is_instead).is_none());
        assert!(take(&mut faults, Endpoint::Runner, None, Effect::is_instead).is_none());
    }

    #[test]
    fn nulls_reach_into_message_bodies() {
        let mut value = json!({ "statistics": {}, "body": "[{\"runnerName\":\"r\",\"jobId\":\"j\"}]" });
        spoil(&mut value, &["statistics".to_owned(), "runnerName".to_owned()], false);
        assert_eq!(value["statistics"], Value::Null);
        let body: Value = serde_json::from_str(value["body"].as_str().expect("text")).expect("JSON");
        assert_eq!(body, json!([{ "runnerName": null, "jobId": "j" }]));
    }
}
