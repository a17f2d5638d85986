//! Durations as people write them in manifests.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, fmt, str::FromStr, time};

/// A span of time written like `5m`, `1h30m`, `168h` or `0s`: whole numbers with the units `h`, `m`, `s` and `ms`.
///
/// It is what Go's `time.ParseDuration` reads, without signs, fractions and units below a millisecond, and it prints as it
/// was written. The schema's pattern and this parser admit the same texts: what the API server stores can be read.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Duration {
    text: String,
    value: time::Duration,
}

/// One to four numbers of at most six digits, each with its unit. The bound keeps every sum far from overflow.
const PATTERN: &str = "^([0-9]{1,6}(h|ms|m|s)){1,4}$";

/// The text is not a [`Duration`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a duration: write whole numbers with the units h, m, s and ms, like 5m, 1h30m or 0s")]
pub struct InvalidDuration(String);

impl Duration {
    /// So many seconds, written in seconds.
    pub fn seconds(seconds: u32) -> Self {
        Self { text: format!("{seconds}s"), value: time::Duration::from_secs(seconds.into()) }
    }

    /// So many minutes, written in minutes.
    pub fn minutes(minutes: u32) -> Self {
        Self { text: format!("{minutes}m"), value: time::Duration::from_secs(u64::from(minutes) * 60) }
    }

    /// So many hours, written in hours.
    pub fn hours(hours: u32) -> Self {
        Self { text: format!("{hours}h"), value: time::Duration::from_secs(u64::from(hours) * 3600) }
    }

    /// The span itself.
    pub fn get(&self) -> time::Duration {
        self.value
    }
}

impl FromStr for Duration {
    type Err = InvalidDuration;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let value = parse(text).ok_or_else(|| InvalidDuration(text.to_owned()))?;
        Ok(Self { text: text.to_owned(), value })
    }
}

/// Reads what [`PATTERN`] admits, and nothing else.
fn parse(text: &str) -> Option<time::Duration> {
    let mut rest = text;
    let mut millis = 0;
    for part in 0.. {
        if rest.is_empty() && part > 0 {
            return Some(time::Duration::from_millis(millis));
        }
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if part == 4 || digits == 0 || digits > 6 {
            return None;
        }
        let (number, unit) = rest.split_at(digits);
        let units = [("h", 3_600_000), ("ms", 1), ("m", 60_000), ("s", 1_000)];
        let (unit, factor) = units.into_iter().find(|(name, _)| unit.starts_with(name))?;
        millis += number.parse::<u64>().ok()? * factor;
        rest = &rest[digits + unit.len()..];
    }
    None
}

impl PartialEq for Duration {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl Eq for Duration {}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Duration {
    type Error = InvalidDuration;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Duration> for String {
    fn from(duration: Duration) -> Self {
        duration.text
    }
}

impl JsonSchema for Duration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": PATTERN, "maxLength": 32})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_reads_and_prints_it_as_written() {
        for (text, millis) in [
            ("0s", 0),
            ("5m", 300_000),
            ("60s", 60_000),
            ("1h30m", 5_400_000),
            ("168h", 604_800_000),
            ("1h1m1s1ms", 3_661_001),
            ("250ms", 250),
        ] {
            let duration: Duration = text.parse().unwrap();
            assert_eq!(duration.get(), time::Duration::from_millis(millis), "{text}");
            assert_eq!(duration.to_string(), text);
        }
    }

    #[test]
    fn refuses_the_rest() {
        for text in [
            "",
            "5",
            "1d",
            "-5m",
            "+5m",
            "1.5h",
            "m",
            "5 m",
            "5m ",
            "1234567s",
            "1h1m1s1ms1ms",
            "5M",
            "5us",
            "٣m",
        ] {
            assert_eq!(text.parse::<Duration>(), Err(InvalidDuration(text.to_owned())));
        }
    }

    #[test]
    fn the_largest_is_no_overflow() {
        assert!("999999h999999h999999h999999h".parse::<Duration>().is_ok());
    }

    #[test]
    fn goes_through_json_as_text() {
        let duration: Duration = serde_json::from_str("\"90m\"").unwrap();
        assert_eq!(duration, "1h30m".parse().unwrap());
        assert_eq!(serde_json::to_string(&duration).unwrap(), "\"90m\"");
        assert!(serde_json::from_str::<Duration>("300").is_err());
    }

    #[test]
    fn constructors_keep_their_unit() {
        assert_eq!(Duration::seconds(60).to_string(), "60s");
        assert_eq!(Duration::minutes(5).to_string(), "5m");
        assert_eq!(Duration::hours(168).to_string(), "168h");
        assert_eq!(Duration::hours(1), Duration::minutes(60));
    }

    #[test]
    fn fuzz_what_is_read_is_written_and_read_again_as_the_same() {
        testkit::fuzz::each(&["1h30m", "0s", "999999h999999h", "250ms"], |input| {
            let Ok(duration) = String::from_utf8_lossy(input).parse::<Duration>() else { return };
            assert_eq!(duration.to_string().parse(), Ok(duration));
        });
    }
}
