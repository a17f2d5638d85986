//! Each expectation that is named here fails when its opposite is planted in the fake.

use std::panic::{AssertUnwindSafe, catch_unwind};

use conformance::fake::Fault;
use conformance::{HostUse, lives, logs, outages, ownership, run, slots, spec};

use crate::stage::{FakeStage, PLANTED};

/// A test for each fault, with the expectation that must fail of it.
macro_rules! noticed {
    ($($name:ident: $fault:ident, $group:ident::$expectation:ident;)*) => {
        $(
            #[test]
            fn $name() {
                let play = || run::<FakeStage>(HostUse::Own, $group::$expectation);
                play();
                PLANTED.set(Some(Fault::$fault));
                let outcome = catch_unwind(AssertUnwindSafe(play));
                PLANTED.set(None);
                assert!(outcome.is_err(), "{} holds in spite of {:?}", stringify!($expectation), Fault::$fault);
            }
        )*
    };
}

noticed! {
    a_slot_that_leaks: LeakedSlot, slots::a_reservation_takes_a_slot_and_gives_it_back_when_dropped;
    a_maximum_that_is_ignored: NoMaximum, slots::no_more_is_reserved_than_the_maximum_whoever_asks;
    a_ceiling_that_is_passed_over: NoCeiling, slots::a_ceiling_that_is_raised_wakes_those_who_wait;
    a_maximum_that_limits_others: SharedMaximum, slots::the_maximum_of_a_scale_set_limits_that_one_alone;
    a_foreign_instance_that_is_not_counted: ForeignTakesNoSlot, slots::what_belongs_to_another_cluster_takes_a_slot;
    a_slot_that_is_kept_for_nobody: NoQueue, slots::a_slot_that_comes_free_goes_to_the_scale_set_that_waits_for_it;
    a_start_on_a_host_nobody_has_seen: StartsUnseen, outages::nothing_is_reserved_on_a_host_that_was_not_seen_yet;
    a_slot_for_each_spelling: KeyAsSpelled, slots::two_spellings_of_a_host_share_its_slots;
    a_key_for_each_spelling: KeyAsSpelled, spec::two_spellings_of_a_host_have_one_key;
    a_start_that_ends_with_its_future: AbandonedStart, lives::a_start_whose_future_is_dropped_is_carried_through;
    an_instance_that_is_listed_late: ListedLate, lives::a_started_instance_is_listed_with_all_that_it_was_made_for;
    a_moment_without_a_slot: ListedLate, slots::a_runner_takes_one_slot_from_its_reservation_to_its_end;
    an_exit_code_that_is_not_told: NoExitCode, lives::an_instance_that_ended_is_shown_with_its_code_until_it_is_removed;
    an_end_that_vanishes: EndedVanishes, lives::an_instance_that_ended_is_shown_with_its_code_until_it_is_removed;
    an_instance_without_its_template: NoTemplateHash, lives::a_started_instance_is_listed_with_all_that_it_was_made_for;
    an_end_that_nobody_is_told_of: NoRequeue, lives::an_end_requeues_the_scale_set;
    a_slot_that_nobody_is_told_of: NoRequeue, slots::a_reservation_takes_a_slot_and_gives_it_back_when_dropped;
    a_return_that_nobody_is_told_of: NoRequeue, outages::a_host_that_answers_again_is_current_and_requeues;
    a_removal_of_nothing: GoneIsRemoved, lives::removing_what_is_gone_answers_gone;
    a_log_that_is_empty: NoLog, logs::the_log_tail_is_what_the_runner_printed;
    a_removal_for_another_scale_set:
        AnyScaleSet, ownership::an_instance_of_another_scale_set_is_neither_shown_nor_removed;
    a_log_that_is_read_by_another: AnyScaleSet, logs::an_instance_of_another_scale_set_is_not_read;
    a_log_that_is_read_by_another_cluster: AnyCluster, logs::an_instance_of_another_cluster_is_not_read;
    an_orphan_that_is_none: AnyScaleSet, ownership::an_orphan_is_not_removed_for_another_scale_set;
    a_removal_for_another_cluster:
        AnyCluster, ownership::an_instance_of_another_cluster_is_neither_shown_nor_removed;
    a_backend_that_was_renamed: NoAdoption, ownership::what_a_backend_left_that_is_no_more_is_adopted_by_its_sibling;
    an_orphan_that_is_not_seen: OrphansUnseen, ownership::an_orphan_is_found_and_removed_by_the_provider;
    a_change_that_is_not_noticed: OneFingerprint, spec::a_changed_block_has_another_fingerprint_and_template_hash;
    a_template_hash_with_hosts: HashOfHosts, slots::a_changed_maximum_is_noticed_and_renews_no_runner;
    a_silent_host_that_is_empty: SilentIsEmpty, outages::a_silent_host_is_shown_as_last_known_and_not_current;
    a_silent_host_that_is_current: SilentIsCurrent, outages::a_silent_host_takes_no_start_and_no_removal;
}
