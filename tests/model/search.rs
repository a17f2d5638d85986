//! Random histories, and what is made of one that breaks a rule: the shortest that still does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use paddock::scale_set::Environment;

use crate::history::{History, KINDS, Step, history, history_of};
use crate::life::{Life, Veil};
use crate::play::play;
use crate::rules::Violation;

/// Where the seeds of a run begin unless told otherwise.
const FIRST: u64 = 1;

/// No veil: the controller sees the world as it is.
pub fn clear() -> Veil {
    Arc::new(|_: Arc<Life>, world: Arc<dyn Environment>| world)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// The history of a seed, on the kind of host that is asked for, or on the seed's own.
fn asked_for(seed: u64) -> History {
    let Ok(name) = std::env::var("PADDOCK_MODEL_KIND") else { return history(seed) };
    let known =
        KINDS.iter().map(|(kind, _)| *kind).find(|kind| format!("{kind:?}").eq_ignore_ascii_case(&name));
    history_of(seed, known.unwrap_or_else(|| panic!("PADDOCK_MODEL_KIND={name} is no kind of host")))
}

/// The first history of a run that breaks a rule, that one if one is given, and how.
pub fn find(
    histories: fn(u64) -> History,
    first: u64,
    count: u64,
    threads: usize,
    veil: &Veil,
    rule: Option<u8>,
) -> Option<(u64, Violation)> {
    let (next, found) = (AtomicU64::new(first), Mutex::new(None));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed - first >= count || found.lock().unwrap().is_some() {
                        return;
                    }
                    let violation = play(&histories(seed), veil, false).violation;
                    if let Some(violation) = violation.filter(|v| rule.is_none_or(|rule| v.rule == rule)) {
                        found.lock().unwrap().get_or_insert((seed, violation));
                    }
                }
            });
        }
    });
    found.into_inner().unwrap()
}

/// Thins a history out as long as it breaks the same rule.
pub fn shrink(mut history: History, rule: u8, veil: &Veil) -> History {
    let breaks = |history: &History| play(history, veil, false).violation.is_some_and(|v| v.rule == rule);
    let until = Instant::now() + Duration::from_secs(40);
    let mut size = history.steps.len() / 2;
    while size > 0 && Instant::now() < until {
        let before = history.steps.len();
        let mut at = 0;
        while at < history.steps.len() && Instant::now() < until {
            let mut fewer = history.clone();
            let end = (at + size).min(fewer.steps.len());
            let time: Duration = fewer.steps.drain(at..end).map(|step| step.after).sum();
            let mut kept = fewer.clone();
            if let Some(next) = kept.steps.get_mut(at) {
                next.after += time;
            }
            if breaks(&fewer) {
                history = fewer;
            } else if breaks(&kept) {
                history = kept;
            } else {
                at += size;
            }
        }
        // The last moves may need more than one look.
        let shorter = history.steps.len() < before;
        size = if size == 1 && shorter { 1 } else { size / 2 };
    }
    round(&mut history, breaks);
    history
}

/// Makes the pauses round, where that changes nothing.
fn round(history: &mut History, breaks: impl Fn(&History) -> bool) {
    for at in 0..history.steps.len() {
        let full = history.steps[at].after;
        for shorter in [
            Duration::ZERO,
            Duration::from_secs(full.as_secs() / 10 * 10),
            Duration::from_secs(full.as_secs()),
        ] {
            let mut rounder = history.clone();
            rounder.steps[at].after = shorter;
            if shorter < full && breaks(&rounder) {
                *history = rounder;
                break;
            }
        }
    }
}

/// What a person needs to see it again.
pub fn report(full: History, violation: &Violation, veil: &Veil) -> String {
    let (seed, kind) = (full.seed, format!("{:?}", full.setup.kind).to_lowercase());
    let before = full.steps.len();
    let least = shrink(full, violation.rule, veil);
    let outcome = play(&least, veil, true);
    let steps: Vec<String> = least.steps.iter().map(|step: &Step| format!("    {step:?},\n")).collect();
    format!(
        "seed {seed}: rule {} is broken after {:.0} s: {}\n{:#?}\n{} of {before} moves are enough:\n{}\nthey break rule {:?}\nreplay: PADDOCK_MODEL_KIND={kind} PADDOCK_MODEL_SEED={seed} cargo test --test model replay -- --nocapture\n\n{}",
        violation.rule,
        violation.at,
        violation.what,
        least.setup,
        least.steps.len(),
        steps.concat(),
        outcome.violation,
        tail(&outcome.trace),
    )
}

fn tail(trace: &[String]) -> String {
    trace[trace.len().saturating_sub(150)..].join("\n")
}

#[test]
fn random_histories_keep_the_rules() {
    let count =
        number("PADDOCK_MODEL_HISTORIES").map_or(10_000, |count| if count == 0 { u64::MAX } else { count });
    let first = number("PADDOCK_MODEL_FIRST").unwrap_or(FIRST);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let began = Instant::now();
    if let Some((seed, violation)) = find(asked_for, first, count, threads, &clear(), None) {
        println!("{} histories in {:.0} s", seed - first, began.elapsed().as_secs_f64());
        panic!("{}", report(asked_for(seed), &violation, &clear()));
    }
    println!("{count} histories in {:.0} s", began.elapsed().as_secs_f64());
}

/// Plays one history again, whole, and tells what happens. Without a seed it plays the first.
#[test]
fn replay() {
    let seed = number("PADDOCK_MODEL_SEED").unwrap_or(FIRST);
    let outcome = play(&asked_for(seed), &clear(), true);
    println!("{}", outcome.trace.join("\n"));
    if let Some(violation) = outcome.violation {
        panic!("{}", report(asked_for(seed), &violation, &clear()));
    }
}

/// What a seed leads to is the same each time: else nothing could be shrunk, or seen again.
#[test]
fn a_history_comes_out_the_same_twice() {
    for seed in 1..=40 {
        let [first, second] = [(); 2].map(|()| play(&history(seed), &clear(), true).trace);
        let differ = first.iter().zip(&second).position(|(a, b)| a != b);
        assert_eq!(differ.map(|at| (&first[at], &second[at])), None, "seed {seed}");
    }
}
