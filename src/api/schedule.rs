//! Windows of time with bounds of their own.

use super::schema::{LABEL, MOST_RUNNERS};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A window of time in which other bounds hold. Of the windows open at once the last in the list wins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Schedule {
    /// Name of the window, unique in the list; status.activeSchedule shows it.
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL))]
    pub name: String,

    /// When the window opens: a cron line of five fields (minute, hour, day of month, month, day of week), like
    /// "0 8 * * 1-5".
    #[schemars(length(min = 1, max = 128))]
    pub start: String,

    /// When the window closes: a cron line like start.
    #[schemars(length(min = 1, max = 128))]
    pub end: String,

    /// The time zone of start and end: an IANA name like Europe/Zurich. Default: UTC.
    #[serde(default = "utc")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: String,

    /// What spec.minRunners is while the window is open. Default: as outside of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = MOST_RUNNERS))]
    pub min_runners: Option<i32>,

    /// What spec.maxRunners is while the window is open. Default: as outside of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = MOST_RUNNERS))]
    pub max_runners: Option<i32>,
}

fn utc() -> String {
    "UTC".into()
}
