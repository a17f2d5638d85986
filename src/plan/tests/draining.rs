//! Runners that are on their way out and still take a slot, and what is not known to be gone.

use super::*;

/// An engine that hangs: GitHub let go of the runner, and its instance could not be removed.
#[test]
fn a_runner_without_a_registration_is_replaced_and_its_removal_tried_until_it_is_gone() {
    let mut world = World::new(serde_json::json!({"minRunners": 1, "maxRunners": 2}));
    world.assigned(0);
    world.step();
    world.up();
    world.ledger.begin_removal("linux-001");
    world.ledger.deregistered("linux-001");
    world.ledger.removal_failed("linux-001", at(10));
    assert_eq!(starts(&world.step()), 1, "it is no spare any more");
    assert_eq!(starts(&world.step()), 0, "it takes its slot still");
    for second in [10, 20, 30] {
        world.now = second;
        assert_eq!(removals(&world.step()), [("linux-001", Removal::Unregistered)]);
        assert_eq!(removals(&world.step()), [], "one try at a time");
        world.ledger.removal_failed("linux-001", at(second + 10));
        assert_eq!(world.plan().wake_at, Some(at(second + 10)));
    }
}
