//! What a plan may expect of every kind of capacity, as one suite of tests, and a recording fake that keeps to it.
//!
//! A kind implements [`Stage`] for the hosts of its tests and calls [`suite!`], which makes a test of each expectation. The
//! expectations are the public functions of [`lives`], [`logs`], [`ownership`], [`spec`], [`slots`] and [`outages`]; they
//! know of a kind what `paddock::backend` says and no more.
//!
//! The model plays its histories with the fake, too: [`fake::World`] puts the fake in the model's time, and has an instance
//! connect to the simulated GitHub with the JIT configuration that it was started with. The model's own hosts, of which each
//! call is held against its rules, are not run through this suite: what the suite does past a controller (a foreign instance, a
//! removal on behalf of the wrong scale set) is there a breach that ends the history.

// A test that cannot go on fails where it stands.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod controller;
pub mod fake;
pub mod lives;
pub mod logs;
pub mod outages;
pub mod ownership;
pub mod slots;
pub mod spec;
mod stage;

pub use controller::{Controller, ScaleSet};
pub use stage::{BACKEND, Block, HostUse, PRINTED, Secrets, Stage};

/// Sets a stage up, in its own runtime, and holds it against an expectation.
///
/// # Panics
/// Says what was not as expected.
pub fn run<S: Stage>(host: HostUse, expectation: impl AsyncFnOnce(&mut S)) {
    S::runtime().block_on(async {
        let mut stage = S::set_up(host).await;
        expectation(&mut stage).await;
    });
}

/// Makes a test of each expectation, for a [`Stage`]: of all, or of the groups that are named, for a kind that cannot have
/// the others. The file that calls it says why it cannot.
///
/// ```text
/// conformance::suite!(MacStage);
/// conformance::suite!(TaskStage: lives, ownership, spec, outages);
/// ```
#[macro_export]
macro_rules! suite {
    ($stage:ident) => {
        $crate::suite! { $stage: lives, logs, ownership, spec, slots, outages }
    };
    ($stage:ident: $($group:ident),+) => {
        $($crate::expectations! { $group $stage })+
    };
}

/// The expectations of each group.
#[doc(hidden)]
#[macro_export]
macro_rules! expectations {
    (lives $stage:ident) => {
        $crate::tests! { $stage lives Shared
            a_host_is_ready_once_it_is_prepared,
            a_started_instance_is_listed_with_all_that_it_was_made_for,
            a_start_answers_an_instance_that_comes_to_run,
            several_starts_at_once_make_an_instance_each,
            an_instance_that_ended_is_shown_with_its_code_until_it_is_removed,
            an_end_requeues_the_scale_set,
            a_running_instance_that_is_removed_is_gone,
            removing_what_is_gone_answers_gone,
            a_start_whose_future_is_dropped_is_carried_through,
            a_host_that_the_backend_does_not_have_is_refused,
        }
    };
    (logs $stage:ident) => {
        $crate::tests! { $stage logs Shared
            the_log_tail_is_what_the_runner_printed,
            reading_what_is_gone_answers_gone,
            an_instance_of_another_scale_set_is_not_read,
            an_instance_of_another_cluster_is_not_read,
        }
    };
    (ownership $stage:ident) => {
        $crate::tests! { $stage ownership Shared
            an_instance_of_another_scale_set_is_neither_shown_nor_removed,
            an_instance_of_another_cluster_is_neither_shown_nor_removed,
            two_backends_on_one_host_show_each_its_own,
            what_a_backend_left_that_is_no_more_is_adopted_by_its_sibling,
            a_new_controller_adopts_what_runs,
            a_host_alone_shows_what_runs_there_and_removes_it,
            an_orphan_is_found_and_removed_by_the_provider,
            an_orphan_is_not_removed_for_another_scale_set,
        }
    };
    (spec $stage:ident) => {
        $crate::tests! { $stage spec Shared
            an_unchanged_block_has_the_same_fingerprint_and_template_hash,
            a_changed_block_has_another_fingerprint_and_template_hash,
            two_spellings_of_a_host_have_one_key,
            a_block_read_without_secrets_names_the_same_hosts,
            a_spec_without_a_block_of_this_kind_is_not_resolved,
        }
    };
    (slots $stage:ident) => {
        $crate::tests! { $stage slots Own
            a_reservation_takes_a_slot_and_gives_it_back_when_dropped,
            no_more_is_reserved_than_the_maximum_whoever_asks,
            the_maximum_of_a_scale_set_limits_that_one_alone,
            a_ceiling_that_is_raised_wakes_those_who_wait,
            a_runner_takes_one_slot_from_its_reservation_to_its_end,
            a_ready_that_is_dropped_keeps_the_slot,
            a_slot_that_comes_free_goes_to_the_scale_set_that_waits_for_it,
            what_belongs_to_another_cluster_takes_a_slot,
            a_new_controller_finds_the_same_slots_taken,
            two_spellings_of_a_host_share_its_slots,
            a_changed_maximum_is_noticed_and_renews_no_runner,
        }
    };
    (outages $stage:ident) => {
        $crate::tests! { $stage outages Own
            nothing_is_reserved_on_a_host_that_was_not_seen_yet,
            a_silent_host_is_shown_as_last_known_and_not_current,
            a_silent_host_takes_no_start_and_no_removal,
            a_host_that_answers_again_is_current_and_requeues,
        }
    };
}

/// Makes the tests of a group.
#[doc(hidden)]
#[macro_export]
macro_rules! tests {
    ($stage:ident $group:ident $host:ident $($expectation:ident,)*) => {
        mod $group {
            $(
                #[test]
                fn $expectation() {
                    $crate::run::<super::$stage>($crate::HostUse::$host, $crate::$group::$expectation);
                }
            )*
        }
    };
}

#[cfg(test)]
mod tests {
    /// An expectation that no list has would be held against nobody.
    #[test]
    fn the_suite_has_every_expectation() {
        let lists = include_str!("lib.rs");
        for (group, source) in [
            ("lives", include_str!("lives.rs")),
            ("logs", include_str!("logs.rs")),
            ("ownership", include_str!("ownership.rs")),
            ("spec", include_str!("spec.rs")),
            ("slots", include_str!("slots.rs")),
            ("outages", include_str!("outages.rs")),
        ] {
            let (_, list) = lists.split_once(&format!("$crate::tests! {{ $stage {group} ")).unwrap();
            let listed: Vec<&str> =
                list.lines().skip(1).map_while(|line| line.trim().strip_suffix(',')).collect();
            let written = source.split("pub async fn ").skip(1).map(|rest| rest.split('<').next().unwrap());
            assert_eq!(written.collect::<Vec<_>>(), listed, "{group}");
        }
    }
}
