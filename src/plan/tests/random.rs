//! Whatever happens, the rules hold.

use super::*;

/// What may happen to a scale set.
#[derive(Debug, Clone)]
enum Move {
    Demand(u32),
    Up,
    JobStarts(usize),
    JobEnds(usize),
    Exits(usize, bool),
    StartFails,
    Removed,
    FoundBusy,
    Wait(i64),
    Template(bool),
    Suspend(bool),
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        4 => (0u32..12).prop_map(Move::Demand),
        4 => Just(Move::Up),
        3 => (0usize..8).prop_map(Move::JobStarts),
        3 => (0usize..8).prop_map(Move::JobEnds),
        3 => (0usize..8, any::<bool>()).prop_map(|(n, clean)| Move::Exits(n, clean)),
        1 => Just(Move::StartFails),
        3 => Just(Move::Removed),
        1 => Just(Move::FoundBusy),
        3 => (0i64..120).prop_map(Move::Wait),
        1 => any::<bool>().prop_map(Move::Template),
        1 => any::<bool>().prop_map(Move::Suspend),
    ]
}

impl Scenario {
    fn make(&mut self, a_move: &Move, job: usize) {
        let now = at(self.now);
        match a_move {
            Move::Demand(assigned) => self.assigned(*assigned),
            Move::Up => self.up(),
            Move::JobStarts(n) => {
                if let Some(name) = self.names(|r| r.phase == Phase::Idle).get(*n) {
                    self.busy(name, &format!("job-{job}"));
                }
            }
            Move::JobEnds(n) => {
                let busy: Vec<(String, String)> = self
                    .ledger
                    .runners()
                    .filter(|r| r.phase == Phase::Busy)
                    .filter_map(|r| Some((r.name.clone(), r.work.job.as_ref()?.id.clone())))
                    .collect();
                if let Some((name, job)) = busy.get(*n) {
                    self.completed(name, job);
                }
            }
            Move::Exits(n, clean) => {
                if let Some(name) = self.names(|r| r.occupies() && r.phase != Phase::Pending).get(*n) {
                    self.exits(name, if *clean { 0 } else { 1 });
                }
            }
            Move::StartFails => {
                for name in self.names(|r| r.operation == Some(Operation::Starting)) {
                    self.ledger.start_failed(&name, Reason::EngineError, "no", now);
                }
            }
            Move::Removed => {
                for name in self.names(|r| r.operation == Some(Operation::Removing)) {
                    self.ledger.retire(&name, now);
                }
            }
            Move::FoundBusy => {
                for name in self.names(|r| r.operation == Some(Operation::Removing)) {
                    self.ledger.found_busy(&name, now);
                }
            }
            Move::Wait(seconds) => self.now += seconds,
            Move::Template(new) => self.backends[0].template_hash = if *new { "t2" } else { TEMPLATE }.into(),
            Move::Suspend(suspend) => self.policy.suspend = *suspend,
        }
        let taken = self.names(|r| r.occupies()).len();
        self.backends[0].hosts[0].free_slots = 20u32.saturating_sub(u32::try_from(taken).unwrap());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_rules_hold(
        history in proptest::collection::vec(moves(), 1..120),
        min in 0i32..4,
        max in 0i32..8,
    ) {
        let mut scenario = Scenario::new(serde_json::json!({
            "minRunners": min.min(max), "maxRunners": max, "timeouts": {"idle": "5m", "job": "0s"},
        }));
        for (job, a_move) in history.iter().enumerate() {
            scenario.make(a_move, job);
            let before: BTreeMap<String, Phase> =
                scenario.ledger.runners().map(|r| (r.name.clone(), r.phase)).collect();
            let plan = scenario.step();
            let occupying = scenario.names(|r| r.occupies()).len();
            prop_assert!(occupying <= max as usize, "{occupying} runners, maxRunners {max}");
            for (name, why) in removals(&plan) {
                // One that lingers after its job is asked for at GitHub first, as every removal that is not forced.
                let may = before[name] != Phase::Busy || why == Removal::LingeringAfterJob;
                prop_assert!(may, "{name} is busy and goes: {why:?}");
            }
            prop_assert!(plan.capacity <= max as u32);
        }
        // After quiet: demand met, and nobody idle without need.
        scenario.policy.suspend = false;
        scenario.assigned(u32::try_from(scenario.names(|r| r.phase == Phase::Busy && r.work.over_at.is_none()).len()).unwrap());
        for _ in 0..40 {
            scenario.now += 400;
            scenario.make(&Move::Removed, 0);
            scenario.ledger.observe(&[], at(scenario.now));
            scenario.step();
            scenario.make(&Move::Up, 0);
        }
        scenario.make(&Move::Removed, 0);
        scenario.step();
        let serving = scenario.names(|r| r.serves()).len();
        let desired = scenario.plan().desired as usize;
        let finishing = scenario.names(|r| r.occupies() && !r.serves()).len();
        prop_assert!(serving >= desired.min((max as usize).saturating_sub(finishing)), "{serving} of {desired}");
    }
}
