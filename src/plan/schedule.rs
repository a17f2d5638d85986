//! Windows of time in which other bounds hold.

use std::str::FromStr;

use croner::Cron;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// One window: open from each time that `start` names until the next that `end` names, in its own time zone.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// Its name.
    pub name: String,
    start: Cron,
    end: Cron,
    zone: TimeZone,
    /// Holds instead of `minRunners` while the window is open.
    pub min_runners: Option<u32>,
    /// Holds instead of `maxRunners` while the window is open.
    pub max_runners: Option<u32>,
}

impl Schedule {
    /// Reads a window; the error names the field and what is wrong with it.
    pub fn new(name: &str, start: &str, end: &str, time_zone: &str) -> Result<Schedule, String> {
        let cron = |field: &str, line: &str| {
            Cron::from_str(line)
                .map_err(|e| format!("schedule `{name}`: {field} `{line}` is not a cron line: {e}"))
        };
        let zone = TimeZone::get(time_zone)
            .map_err(|_| format!("schedule `{name}`: timeZone `{time_zone}` is not a known time zone"))?;
        let (start, end) = (cron("start", start)?, cron("end", end)?);
        Ok(Schedule { name: name.to_owned(), start, end, zone, min_runners: None, max_runners: None })
    }

    /// Whether it is open.
    pub fn is_open(&self, now: Timestamp) -> bool {
        let now = now.to_zoned(self.zone.clone());
        let last = |cron: &Cron| cron.find_previous_occurrence(&now, true).ok();
        match (last(&self.start), last(&self.end)) {
            (Some(start), Some(end)) => start > end,
            (Some(_), None) => true,
            (None, _) => false,
        }
    }

    /// When it next opens or closes.
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        let now = now.to_zoned(self.zone.clone());
        let next = |cron: &Cron| cron.find_next_occurrence(&now, false).ok().map(|at: Zoned| at.timestamp());
        [next(&self.start), next(&self.end)].into_iter().flatten().min()
    }
}
