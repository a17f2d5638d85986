//! Where runners are started, and why not.

use super::*;

#[test]
fn backends_are_filled_in_order_and_hosts_evenly() {
    let mut scenario = Scenario::new(serde_json::json!({"maxRunners": 20}));
    scenario.backends = vec![backend("rack", &[("a", 2), ("b", 3)]), backend("cloud", &[("c", 100)])];
    scenario.backends[0].max_runners = Some(4);
    scenario.assigned(6);
    let plan = scenario.step();
    let mut places = BTreeMap::new();
    for action in &plan.actions {
        if let Action::Start { host, .. } = action {
            *places.entry(host.as_str()).or_insert(0) += 1;
        }
    }
    assert_eq!(places, BTreeMap::from([("a", 2), ("b", 2), ("c", 2)]));
}

/// One with few slots is not left for one that has more of them free and is fuller.
#[test]
fn hosts_are_filled_by_the_share_that_is_free_and_not_by_its_number() {
    let mut scenario = Scenario::new(serde_json::json!({"maxRunners": 40}));
    scenario.backends = vec![backend("rack", &[("large", 20), ("small", 10)])];
    let on = |scenario: &Scenario, host: &str| scenario.ledger.runners().filter(|r| r.host == host).count();
    scenario.assigned(9);
    scenario.step();
    assert_eq!((on(&scenario, "large"), on(&scenario, "small")), (6, 3));
    scenario.assigned(27);
    scenario.step();
    assert_eq!((on(&scenario, "large"), on(&scenario, "small")), (18, 9));
}

/// Each has as many free slots as the others, whatever is on it.
#[test]
fn hosts_without_a_limit_have_equally_many_runners() {
    let mut scenario = Scenario::new(serde_json::json!({"maxRunners": 20}));
    scenario.backends = vec![backend("rack", &[("a", u32::MAX), ("b", u32::MAX), ("c", 0)])];
    scenario.assigned(3);
    scenario.step();
    let no_limit = |host: &mut HostState| (host.slots, host.free_slots) = (u32::MAX, u32::MAX);
    scenario.backends[0].hosts.iter_mut().for_each(no_limit);
    scenario.assigned(9);
    scenario.step();
    let on = |host: &str| scenario.ledger.runners().filter(|runner| runner.host == host).count();
    assert_eq!([on("a"), on("b"), on("c")], [3, 3, 3]);
}

#[test]
fn each_refusal_has_its_reason() {
    type Change = fn(&mut Scenario);
    let cases: [(Change, Reason); 8] = [
        (|w| w.policy.suspend = true, Reason::Suspended),
        (
            |w| w.start_gate = StartGate::Closed(Explanation::new(Reason::AuthRejected, "no")),
            Reason::AuthRejected,
        ),
        (|w| w.backends[0].hosts[0].free_slots = 0, Reason::NoCapacity),
        (
            |w| w.backends[0].hosts[0].availability = Availability::Preparing { since: at(0) },
            Reason::ImagePulling,
        ),
        (|w| w.backends[0].hosts[0].availability = Availability::Unreachable, Reason::HostUnreachable),
        (|w| w.backends[0].hosts[0].availability = Availability::Refused, Reason::BackendRefused),
        (
            |w| {
                w.backends[0].hosts[0].availability =
                    Availability::BackOff { until: at(60), reason: Reason::ImageMissing }
            },
            Reason::ImageMissing,
        ),
        (|w| w.assigned(30), Reason::AtMaxRunners),
    ];
    for (change, reason) in cases {
        let mut scenario = Scenario::new(serde_json::json!({}));
        scenario.assigned(3);
        change(&mut scenario);
        let demand_status = scenario.step().demand_status;
        assert_eq!(
            (demand_status.met, demand_status.explanation.reason),
            (Some(false), reason),
            "{}",
            demand_status.explanation.message
        );
    }
}

#[test]
fn a_backend_at_its_ceiling_is_named() {
    let mut scenario = Scenario::new(serde_json::json!({"maxRunners": 10}));
    scenario.backends = vec![backend("rack", &[("a", 20)]), backend("cloud", &[("c", 1)])];
    scenario.backends[0].max_runners = Some(2);
    scenario.assigned(4);
    let said = "1 of 4 assigned jobs wait: maxRunners of backend rack is 2; no host of backend cloud has a free slot";
    assert_eq!(scenario.plan().demand_status.explanation.message, said, "counting what begins now");
    scenario.step();
    let demand_status = scenario.plan().demand_status;
    assert_eq!(
        (demand_status.explanation.reason, demand_status.explanation.message.as_str()),
        (Reason::NoCapacity, said)
    );
    scenario.backends[1].max_runners = Some(1);
    let said = "1 of 4 assigned jobs wait: maxRunners of backend rack is 2; maxRunners of backend cloud is 1";
    assert_eq!(scenario.plan().demand_status.explanation.message, said);
}

#[test]
fn each_backend_has_its_say_and_what_passes_first_is_the_reason() {
    let mut scenario = Scenario::new(serde_json::json!({"maxRunners": 10}));
    scenario.backends =
        vec![backend("rack", &[("a", 1)]), backend("macs", &[("m", 0)]), backend("aws", &[("c", 9)])];
    scenario.backends[2].hosts[0].availability =
        Availability::BackOff { until: at(60), reason: Reason::EngineError };
    scenario.backends[2].hosts[0].message = "no memory".to_owned();
    scenario.assigned(3);
    scenario.step();
    let Explanation { reason, message } = scenario.plan().demand_status.explanation;
    assert_eq!(
        (reason, message.as_str()),
        (
            Reason::EngineError,
            "2 of 3 assigned jobs wait: no host of backend rack has a free slot; no host of backend macs has a free slot; \
             aws/c: no memory"
        )
    );
}

/// Nobody's job waits, and still it is to be said.
#[test]
fn spares_that_cannot_be_started_have_a_reason() {
    type Change = fn(&mut Scenario);
    let lacks = |reason| Availability::BackOff { until: at(60), reason };
    let cases: [(Change, Option<Reason>); 6] = [
        (|w| w.backends[0].hosts[0].availability = Availability::Refused, Some(Reason::BackendRefused)),
        (
            |w| w.backends[0].hosts[0].availability = Availability::Preparing { since: at(0) },
            Some(Reason::ImagePulling),
        ),
        (|w| w.backends[0].hosts[0].free_slots = 0, Some(Reason::NoCapacity)),
        (|w| w.policy.suspend = true, None),
        (|w| w.start_gate = StartGate::Closed(Explanation::new(Reason::AuthRejected, "no")), None),
        (|_| {}, None),
    ];
    for (change, reason) in cases {
        let mut scenario = Scenario::new(serde_json::json!({"minRunners": 5}));
        scenario.assigned(0);
        change(&mut scenario);
        let plan = scenario.step();
        assert_eq!(plan.short.as_ref().map(|why| why.reason), reason, "{:?}", plan.short);
        assert_eq!(plan.refused.is_some(), reason == Some(Reason::BackendRefused));
    }
    let mut scenario = Scenario::new(serde_json::json!({"minRunners": 5}));
    scenario.assigned(0);
    scenario.backends[0].hosts[0].availability = lacks(Reason::ImagePullFailed);
    scenario.backends[0].hosts[0].message = "no such image".to_owned();
    let message = "5 of minRunners 5 are missing: rack/rack-1: no such image".to_owned();
    assert_eq!(scenario.step().short, Some(Explanation { reason: Reason::ImagePullFailed, message }));
    scenario.backends.push(backend("cloud", &[("c", 1)]));
    scenario.backends[0].hosts[0].availability = Availability::Refused;
    assert_eq!(scenario.step().refused, None, "one can be used");
}

#[test]
fn spares_whose_place_a_job_has_are_not_short() {
    let mut scenario = Scenario::at_work(serde_json::json!({"minRunners": 2}));
    scenario.backends[0].hosts[0].free_slots = 0;
    scenario.up();
    scenario.busy("linux-002", "another");
    scenario.assigned(2);
    scenario.completed("linux-002", "another");
    assert_eq!(scenario.step().short, None, "it does not move with load");
}

#[test]
fn a_set_waits_for_slots_where_it_could_start_and_for_no_more_than_it_may_have() {
    let mut scenario = Scenario::new(serde_json::json!({"maxRunners": 6}));
    scenario.backends =
        vec![backend("rack", &[("full", 0), ("pulling", 0)]), backend("spill", &[("small", 1)])];
    scenario.backends[1].max_runners = Some(2);
    scenario.backend_host("rack", "pulling").availability = Availability::Unprepared;
    let waiting =
        |scenario: &Scenario| -> Vec<u32> { scenario.plan().waiting.iter().map(|w| w.runners).collect() };
    scenario.assigned(0);
    assert_eq!(waiting(&scenario), [0, 0, 0]);
    scenario.assigned(4);
    assert_eq!(waiting(&scenario), [3, 0, 1], "one is placed, and one more is all that its backend takes");
    scenario.step();
    assert_eq!(waiting(&scenario), [3, 0, 1]);
    // What GitHub holds back for want of capacity counts too.
    let statistics = Statistics { assigned: 4, available: 40, ..Statistics::default() };
    scenario.ledger.count(statistics, at(scenario.now));
    assert_eq!(waiting(&scenario), [5, 0, 1], "maxRunners is 6");
    let held_back =
        HostState { availability: Availability::Refused, ..scenario.backends[0].hosts[0].clone() };
    scenario.backends[0].hosts[0] = held_back;
    assert_eq!(waiting(&scenario), [0, 0, 1]);
    scenario.policy.suspend = true;
    assert_eq!(waiting(&scenario), [0, 0, 0]);
}

#[test]
fn that_no_host_of_any_backend_answers_is_told_though_no_job_waits() {
    let mut scenario = Scenario::new(serde_json::json!({"maxRunners": 20}));
    scenario.backends = vec![backend("rack", &[("a", 2), ("b", 3)]), backend("cloud", &[("c", 100)])];
    scenario.assigned(0);
    let hosts = |scenario: &mut Scenario, count: usize| {
        let hosts = scenario.backends.iter_mut().flat_map(|backend| backend.hosts.iter_mut());
        hosts.take(count).for_each(|host| host.availability = Availability::Unreachable);
    };
    hosts(&mut scenario, 2);
    assert_eq!(scenario.plan().unreachable, None, "one answers");
    hosts(&mut scenario, 3);
    scenario.backends[0].hosts[1].message = "permission denied".to_owned();
    let why = scenario.plan().unreachable.unwrap();
    let said =
        "no host answers: rack/a: it does not answer; rack/b: permission denied; cloud/c: it does not answer";
    assert_eq!((why.reason, why.message.as_str()), (Reason::HostUnreachable, said));
    let starting = Explanation::new(Reason::Starting, "they had no time to");
    scenario.start_gate = StartGate::Closed(starting);
    assert_eq!(scenario.plan().unreachable, None, "they were not looked at yet");
    scenario.start_gate = StartGate::Open;
    scenario.policy.suspend = true;
    assert_eq!(scenario.plan().unreachable, None, "a rack may be off while nothing is wanted of it");
}

/// A host may have nothing to say of itself.
#[test]
fn no_explanation_ends_before_it_has_said_why() {
    let all = [
        Availability::Unprepared,
        Availability::Preparing { since: at(0) },
        Availability::BackOff { until: at(60), reason: Reason::EngineError },
        Availability::Unreachable,
        Availability::Refused,
    ];
    for availability in all {
        let mut scenario = Scenario::new(serde_json::json!({}));
        scenario.assigned(1);
        scenario.backends[0].hosts[0].free_slots = 0;
        scenario.backends[0].hosts[0].availability = availability.clone();
        scenario.backends[0].hosts[0].message = String::new();
        let said = scenario.plan().demand_status.explanation.message;
        assert!(said.contains("rack/rack-1: it "), "{availability:?}: {said}");
    }
}
