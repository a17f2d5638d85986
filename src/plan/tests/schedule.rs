//! Windows of time.

use super::*;

#[test]
fn the_last_open_window_wins() {
    let spec = serde_json::json!({"minRunners": 1, "maxRunners": 10, "schedules": [
        {"name": "always", "start": "0 0 * * *", "end": "59 23 31 12 *", "minRunners": 3},
        {"name": "epoch-noon", "start": "0 12 * * *", "end": "0 18 * * *", "timeZone": "UTC", "minRunners": 5, "maxRunners": 6},
    ]});
    let policy = Scenario::new(spec).policy;
    let noon = |hour: i8| jiff::civil::date(2026, 3, 2).at(hour, 30, 0, 0).in_tz("UTC").unwrap().timestamp();
    let bounds = |hour| {
        let bounds = policy.bounds(noon(hour));
        (bounds.min, bounds.max, bounds.schedule.unwrap())
    };
    assert_eq!(bounds(11), (3, 10, "always".to_owned()));
    assert_eq!(bounds(12), (5, 6, "epoch-noon".to_owned()));
    assert_eq!(bounds(18), (3, 10, "always".to_owned()));
}

#[test]
fn windows_keep_to_the_wall_clock_across_a_change_of_the_clocks() {
    let spec = serde_json::json!({"schedules": [
        {"name": "office", "start": "0 8 * * *", "end": "0 19 * * *", "timeZone": "Europe/Zurich", "minRunners": 5},
    ]});
    let policy = Scenario::new(spec).policy;
    // 29 March 2026 is the day on which Zurich goes from UTC+1 to UTC+2; 25 October it goes back.
    for (day, utc_hour, open) in [
        ((3, 28), 7, true),
        ((3, 28), 6, false),
        ((3, 29), 6, true),
        ((3, 29), 5, false),
        ((10, 25), 7, true),
        ((10, 25), 6, false),
    ] {
        let time = jiff::civil::date(2026, day.0, day.1).at(utc_hour, 30, 0, 0).in_tz("UTC").unwrap();
        assert_eq!(policy.bounds(time.timestamp()).schedule.is_some(), open, "{time}");
    }
}

#[test]
fn a_wrong_cron_line_or_time_zone_is_named() {
    for (start, zone, named) in [("0 8 * *", "UTC", "start"), ("0 8 * * *", "Mars/Olympus", "timeZone")] {
        let spec = serde_json::json!({
            "github": {"url": "https://github.com/acme", "credentialsSecretRef": {"name": "github"}},
            "backends": [{"name": "rack", "docker": {}}],
            "schedules": [{"name": "office", "start": start, "end": "0 19 * * *", "timeZone": zone}],
        });
        let invalid = Policy::from_spec(&serde_json::from_value(spec).unwrap()).unwrap_err();
        assert!(invalid.message.contains("office") && invalid.message.contains(named), "{invalid}");
    }
}
