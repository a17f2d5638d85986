//! What an object asks for, made strict: from here on nothing reads the raw spec again.

use std::time::Duration;

use jiff::Timestamp;

use super::Schedule;
use crate::api::{BackendType, Explanation, MaxUnavailable, Reason, RunnerScaleSetSpec};

/// What an object asks for.
#[derive(Debug, Clone)]
pub struct Policy {
    min: u32,
    max: u32,
    schedules: Vec<Schedule>,
    start_timeouts: Vec<(String, Duration)>,
    /// Take no new job, remove idle runners, let busy ones finish.
    pub suspend: bool,
    /// Why the operator's policy does not permit the spec: the set stands down as if it were suspended.
    pub refused: Option<Explanation>,
    /// An idle runner older than this is recycled.
    pub idle_timeout: Option<Duration>,
    /// A job that runs longer than this is stopped.
    pub job_timeout: Option<Duration>,
    /// A runner older than this goes once it is not busy.
    pub lifetime: Option<Duration>,
    /// How long surplus idle runners are kept.
    pub scale_down_delay: Duration,
    /// How many idle runners may be missing while outdated ones are replaced.
    pub max_unavailable: MaxUnavailable,
    /// The object is being deleted: busy runners are waited for until then.
    pub drain_until: Option<Timestamp>,
}

/// The bounds that hold at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// Idle spares on top of the jobs in hand.
    pub min: u32,
    /// The ceiling.
    pub max: u32,
    /// The window that sets them.
    pub schedule: Option<String>,
    /// When other bounds may hold.
    pub until: Option<Timestamp>,
}

impl Policy {
    /// Reads the policy out of a spec.
    pub fn from_spec(spec: &RunnerScaleSetSpec) -> Result<Policy, Explanation> {
        let limit = |duration: &crate::api::Duration| Some(duration.get()).filter(|d| !d.is_zero());
        let schedules = spec.schedules.iter().map(schedule).collect::<Result<_, _>>()?;
        Ok(Policy {
            min: count(spec.min_runners),
            max: count(spec.max_runners),
            schedules,
            start_timeouts: spec
                .backends
                .iter()
                .filter_map(|b| Some((b.name.clone(), spec.timeouts.start_timeout(b.kind()?))))
                .collect(),
            suspend: spec.suspend,
            refused: None,
            idle_timeout: limit(&spec.timeouts.idle),
            job_timeout: limit(&spec.timeouts.job),
            lifetime: limit(&spec.timeouts.lifetime),
            scale_down_delay: spec.scale_down.delay.get(),
            max_unavailable: spec.disruption.max_unavailable,
            drain_until: None,
        })
    }

    /// The bounds that hold now: of the windows that are open the last wins.
    pub fn bounds(&self, now: Timestamp) -> Bounds {
        let open = self.schedules.iter().rev().find(|s| s.is_open(now));
        Bounds {
            min: open.and_then(|s| s.min_runners).unwrap_or(self.min),
            max: open.and_then(|s| s.max_runners).unwrap_or(self.max),
            schedule: open.map(|s| s.name.clone()),
            until: self.schedules.iter().filter_map(|s| s.next_change(now)).min(),
        }
    }

    /// Whether the set takes no new jobs and gives its runners up.
    pub fn stands_down(&self) -> bool {
        self.suspend || self.refused.is_some() || self.drain_until.is_some()
    }

    /// How long a runner of that backend may take to come up.
    pub fn start_timeout(&self, backend: &str) -> Duration {
        let known = self.start_timeouts.iter().find(|(name, _)| name == backend).map(|(_, timeout)| *timeout);
        known.unwrap_or_else(|| crate::api::Timeouts::default().start_timeout(BackendType::Docker))
    }
}

fn schedule(raw: &crate::api::Schedule) -> Result<Schedule, Explanation> {
    let mut schedule = Schedule::new(&raw.name, &raw.start, &raw.end, &raw.time_zone).map_err(|message| {
        Explanation { reason: Reason::InvalidSchedule, message: format!("spec.schedules: {message}") }
    })?;
    schedule.min_runners = raw.min_runners.map(count);
    schedule.max_runners = raw.max_runners.map(count);
    Ok(schedule)
}

/// The schema admits no negative count.
fn count(value: i32) -> u32 {
    value.max(0).unsigned_abs()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plan::{Input, StartGate, plan};
    use crate::runner::{Ledger, Statistics};

    #[test]
    fn fuzz_a_spec_past_the_schema_is_decided_on_or_refused() {
        let spec = json!({
            "github": {"url": "https://github.com/acme", "credentialsSecretRef": {"name": "github"}},
            "minRunners": 1, "maxRunners": 10, "suspend": false, "scaleSetName": "linux", "labels": ["x64"],
            "schedules": [{"name": "office", "start": "0 8 * * 1-5", "end": "0 19 * * 1-5", "timeZone": "Europe/Zurich",
                "minRunners": 5, "maxRunners": 20}],
            "timeouts": {"start": "5m", "idle": "0s", "job": "6h", "lifetime": "0s", "drain": "2h"},
            "scaleDown": {"delay": "60s"}, "disruption": {"maxUnavailable": "25%"},
            "backends": [{"name": "rack", "maxRunners": 8, "docker": {"image": "runner:1", "resources": {"cpu": "2"},
                "hosts": [{"name": "rack-1", "endpoint": "unix:///var/run/docker.sock", "maxRunners": 16}]}}],
        });
        let mut decided = 0;
        testkit::fuzz::each_json(&[spec], |value| {
            let Ok(spec) = serde_json::from_value::<RunnerScaleSetSpec>(value) else { return };
            let Ok(policy) = Policy::from_spec(&spec) else { return };
            decided += 1;
            for now in [Timestamp::UNIX_EPOCH, Timestamp::MAX] {
                let mut ledger = Ledger::new();
                ledger.count(Statistics { assigned: u32::MAX, ..Statistics::default() }, now);
                let input = Input {
                    policy: &policy,
                    ledger: &ledger,
                    backends: &[],
                    start_gate: StartGate::Open,
                    now,
                };
                assert!(plan(&input).desired <= policy.bounds(now).max);
            }
        });
        assert!(decided > 100, "{decided}");
    }
}
