//! Windows of time in which other bounds hold.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};

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
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = |field: &str, line: &str| {
            let cron = parser
                .parse(line)
                .map_err(|e| format!("schedule `{name}`: {field} `{line}` is not a cron line: {e}"))?;
            match cron.find_next_occurrence(&Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC), true) {
                Ok(_) => Ok(cron),
                Err(_) => Err(format!("schedule `{name}`: {field} `{line}` names a time that never comes")),
            }
        };
        let zone = TimeZone::get(time_zone)
            .map_err(|_| format!("schedule `{name}`: timeZone `{time_zone}` is not a known time zone"))?;
        let (start, end) = (cron("start", start)?, cron("end", end)?);
        Ok(Schedule { name: name.to_owned(), start, end, zone, min_runners: None, max_runners: None })
    }

    /// Whether it is open.
    pub fn is_open(&self, now: Timestamp) -> bool {
        let Some(wall) = self.wall(now) else { return false };
        let last = |cron: &Cron| cron.find_previous_occurrence(&wall, true).ok();
        match (last(&self.start), last(&self.end)) {
            (Some(start), Some(end)) => start > end,
            (Some(_), None) => true,
            (None, _) => false,
        }
    }

    /// When it next opens or closes, or the clocks change.
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        let wall = self.wall(now)?;
        let next = |cron: &Cron| {
            let at = cron.find_next_occurrence(&wall, false).ok()?;
            self.zone.to_timestamp(at.datetime()).ok()
        };
        let clocks_change = self.zone.following(now).next().map(|change| change.timestamp());
        [next(&self.start), next(&self.end), clocks_change].into_iter().flatten().min()
    }

    /// The time that a clock on the wall shows, written as if in UTC, for cron to count with. Where clocks are set back it
    /// stands still for that while, so that no time comes twice; where they are set forward, what was skipped is over.
    fn wall(&self, now: Timestamp) -> Option<Zoned> {
        const TICK: SignedDuration = SignedDuration::from_nanos(1);
        let shown_at_change =
            self.zone.preceding(now.checked_add(TICK).unwrap_or(now)).next().map(|change| {
                let at = change.timestamp();
                let last = self.zone.to_offset(at.checked_sub(TICK).unwrap_or(at)).to_datetime(at);
                last.checked_sub(TICK).unwrap_or(last)
            });
        let shown = self.zone.to_datetime(now);
        let shown = shown_at_change.map_or(shown, |at| at.max(shown));
        TimeZone::UTC.to_zoned(shown).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zurich(start: &str, end: &str) -> Schedule {
        Schedule::new("night", start, end, "Europe/Zurich").unwrap()
    }

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    /// On 29 March 2026 Zurich goes from 02:00 to 03:00, at 01:00 UTC.
    #[test]
    fn what_the_clocks_skip_is_over_when_they_were_set_forward() {
        for start in ["0 2,14 * * *", "*/30 2 * * *", "30 2 * * *"] {
            let night = zurich(start, "0 5,17 * * *");
            assert!(!night.is_open(at("2026-03-29T00:59:59Z")), "{start}");
            assert!(night.is_open(at("2026-03-29T01:00:00Z")), "{start}");
            assert_eq!(night.next_change(at("2026-03-29T00:30:00Z")), Some(at("2026-03-29T01:00:00Z")));
            assert!(!night.is_open(at("2026-03-29T03:00:00Z")), "{start}: five o'clock");
        }
    }

    /// On 25 October 2026 Zurich goes from 03:00 back to 02:00, at 01:00 UTC.
    #[test]
    fn what_the_clocks_show_twice_comes_once() {
        let night = zurich("30 2 * * *", "0 5 * * *");
        for (time, open) in
            [("00:29", false), ("00:30", true), ("01:10", true), ("03:59", true), ("04:00", false)]
        {
            assert_eq!(night.is_open(at(&format!("2026-10-25T{time}:00Z"))), open, "{time}");
        }
        let early = zurich("0 1 * * *", "30 2 * * *");
        for (time, open) in [("00:29", true), ("00:30", false), ("01:10", false), ("01:40", false)] {
            assert_eq!(early.is_open(at(&format!("2026-10-25T{time}:00Z"))), open, "{time}");
        }
        assert_eq!(early.next_change(at("2026-10-25T01:10:00Z")), Some(at("2026-10-26T00:00:00Z")));
    }

    #[test]
    fn a_line_that_says_nothing_is_refused() {
        for (start, why) in
            [("0 0 30 2 *", "never comes"), ("0 0 8 * * *", "cron line"), ("0 8 * *", "cron line")]
        {
            let error = Schedule::new("night", start, "0 5 * * *", "UTC").unwrap_err();
            assert!(error.contains("`night`: start") && error.contains(why), "{error}");
        }
        assert!(Schedule::new("night", "0 0 29 2 *", "@daily", "UTC").is_ok());
    }

    #[test]
    fn fuzz_a_schedule_is_read_or_refused_and_asked_at_any_time() {
        let samples = ["0 8 * * 1-5", "*/7 1-3,9 1,15 * *", "0 0 29 2 *", "59 23 L 12 5#3", "@daily"];
        let zones = ["Europe/Zurich", "America/St_Johns", "Pacific/Apia", "UTC"];
        let mut turn = 0;
        testkit::fuzz::each(&samples, |input| {
            turn += 1;
            let line = String::from_utf8_lossy(input);
            let zone = zones[turn % zones.len()];
            if let Ok(schedule) = Schedule::new("x", &line, "0 19 * * *", zone) {
                for now in [Timestamp::MIN, Timestamp::UNIX_EPOCH, at("2026-03-29T01:00:00Z"), Timestamp::MAX]
                {
                    schedule.is_open(now);
                    assert!(
                        schedule.next_change(now).is_none_or(|change| change > now),
                        "{line} after {now}"
                    );
                }
            }
        });
    }
}
