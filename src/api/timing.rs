//! How long things may take, and how gently runners are taken away.

use super::{BackendType, Duration, schema::IntOrText};
use kube::core::Rule;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, fmt, time};

/// How long a runner may stay in each phase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Timeouts {
    /// A runner that is Pending longer than this has failed to start and is removed. Default: 5m, and 10m on a tart
    /// backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [
        Rule::new("duration(self) > duration('0s')").message("spec.timeouts.start must be longer than 0s"),
    ]))]
    pub start: Option<Duration>,

    /// An idle runner older than this is replaced by a fresh one. 0s: never. Default: 0s.
    pub idle: Duration,

    /// A runner that is Busy longer than this, counted from the start of its job, is stopped, and the job with it.
    /// 0s: never. Default: 6h.
    pub job: Duration,

    /// A runner older than this is removed once it is not busy. 0s: never. Default: 0s.
    pub lifetime: Duration,

    /// How long the deletion of the RunnerScaleSet waits for busy runners before it removes them. 0s: not at all.
    /// Default: 2h.
    pub drain: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            start: None,
            idle: Duration::seconds(0),
            job: Duration::hours(6),
            lifetime: Duration::seconds(0),
            drain: Duration::hours(2),
        }
    }
}

impl Timeouts {
    /// How long a runner may be Pending on a backend of this type: `start`, else 10 minutes where a Mac boots, else 5.
    pub fn start_timeout(&self, backend: BackendType) -> time::Duration {
        let default = match backend {
            BackendType::Tart => Duration::minutes(10),
            BackendType::Docker | BackendType::Ecs => Duration::minutes(5),
        };
        self.start.as_ref().unwrap_or(&default).get()
    }
}

/// How surplus idle runners go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct ScaleDown {
    /// How long an idle runner must have been surplus before it is removed: the last backend first, there the oldest
    /// first. Default: 60s.
    pub delay: Duration,
}

impl Default for ScaleDown {
    fn default() -> Self {
        Self { delay: Duration::seconds(60) }
    }
}

/// How idle runners are replaced when the template they were made from changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Disruption {
    /// How many of the idle runners are replaced at a time: a count, or a percentage of them, rounded up. 0: none, they
    /// stay until a job has used them. Default: 25%.
    pub max_unavailable: MaxUnavailable,
}

/// A count of runners, or a percentage of those that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "IntOrText", into = "IntOrText")]
pub enum MaxUnavailable {
    /// So many.
    Count(u32),
    /// So many of a hundred.
    Percent(u8),
}

const PERCENT: &str = "^(100|[1-9]?[0-9])%$";

impl MaxUnavailable {
    /// How many of `total` that is; a percentage is rounded up.
    pub fn of(self, total: usize) -> usize {
        match self {
            Self::Count(count) => total.min(usize::try_from(count).unwrap_or(usize::MAX)),
            Self::Percent(percent) => (total * usize::from(percent)).div_ceil(100),
        }
    }
}

impl Default for MaxUnavailable {
    fn default() -> Self {
        Self::Percent(25)
    }
}

impl fmt::Display for MaxUnavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// The value is neither a count nor a percentage.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is neither a count nor a percentage from 0% to 100%")]
pub struct InvalidMaxUnavailable(String);

impl TryFrom<IntOrText> for MaxUnavailable {
    type Error = InvalidMaxUnavailable;

    fn try_from(value: IntOrText) -> Result<Self, Self::Error> {
        match value {
            IntOrText::Int(count) => {
                u32::try_from(count).map(Self::Count).map_err(|_| InvalidMaxUnavailable(count.to_string()))
            }
            IntOrText::Text(text) => text
                .strip_suffix('%')
                .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
                .and_then(|digits| digits.parse().ok())
                .filter(|percent| *percent <= 100)
                .map(Self::Percent)
                .ok_or(InvalidMaxUnavailable(text)),
        }
    }
}

impl From<MaxUnavailable> for IntOrText {
    fn from(value: MaxUnavailable) -> Self {
        match value {
            MaxUnavailable::Count(count) => Self::Int(count.into()),
            MaxUnavailable::Percent(_) => Self::Text(value.to_string()),
        }
    }
}

impl JsonSchema for MaxUnavailable {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "MaxUnavailable".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "nullable": false, // or else kube makes it true
            "pattern": PERCENT,
            "minimum": 0,
            "maximum": super::schema::MOST_RUNNERS,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_depends_on_the_backend_until_it_is_given() {
        let mut timeouts = Timeouts::default();
        assert_eq!(timeouts.start_timeout(BackendType::Docker), time::Duration::from_secs(300));
        assert_eq!(timeouts.start_timeout(BackendType::Ecs), time::Duration::from_secs(300));
        assert_eq!(timeouts.start_timeout(BackendType::Tart), time::Duration::from_secs(600));
        timeouts.start = Some(Duration::minutes(1));
        assert_eq!(timeouts.start_timeout(BackendType::Tart), time::Duration::from_secs(60));
    }

    #[test]
    fn max_unavailable_is_a_count_or_a_share() {
        assert_eq!(MaxUnavailable::Percent(25).of(8), 2);
        assert_eq!(MaxUnavailable::Percent(25).of(1), 1, "rounded up, or one runner would never be replaced");
        assert_eq!(MaxUnavailable::Percent(0).of(8), 0);
        assert_eq!(MaxUnavailable::Percent(100).of(8), 8);
        assert_eq!(MaxUnavailable::Count(3).of(8), 3);
        assert_eq!(MaxUnavailable::Count(30).of(8), 8);
    }

    #[test]
    fn max_unavailable_goes_through_json() {
        for text in ["3", "0", "\"25%\"", "\"0%\"", "\"100%\""] {
            let value: MaxUnavailable = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&value).unwrap(), text);
        }
        for text in ["-1", "\"101%\"", "\"3\"", "\"%\"", "\"+5%\"", "\"\"", "1.5"] {
            assert!(serde_json::from_str::<MaxUnavailable>(text).is_err(), "{text}");
        }
    }
}
