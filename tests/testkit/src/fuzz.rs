//! Inputs that nobody would write in good faith, for what reads the words of others: samples in which something is changed,
//! and bytes that mean nothing.
//!
//! How many each target gets is in `PADDOCK_FUZZ_INPUTS` (3,000 if it is not set), and from where they are drawn in
//! `PADDOCK_FUZZ_SEED` (always the same if it is not set). Whoever finds a fault adds the input to the target's samples.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Map, Value, json};

/// Inputs for each target where the environment says nothing.
const INPUTS: u64 = 3_000;
/// Words that mean something to what reads them, or that break what is careless.
const WORDS: [&str; 16] = [
    "",
    "\0",
    "-1",
    "NaN",
    "9223372036854775808",
    "1e999",
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:60Z",
    "é\u{202e}",
    "%s%n",
    "../../etc/passwd",
    "\r\nX-Planted: 1",
    "{",
    "[",
    "\"",
    "\\u0000",
];

/// Calls `target` with each input. Where it panics, the input is printed.
pub fn each(samples: &[&str], mut target: impl FnMut(&[u8])) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("PADDOCK_FUZZ_SEED").unwrap_or(0);
    let mut rng = StdRng::seed_from_u64(seed);
    samples.iter().for_each(|sample| target(sample.as_bytes()));
    for turn in 0..number("PADDOCK_FUZZ_INPUTS").unwrap_or(INPUTS) {
        let input = Shown { turn, seed, input: made(samples, &mut rng) };
        target(&input.input);
    }
}

/// As [`each`], with inputs that are JSON and have the form of the samples, by and large.
pub fn each_json(samples: &[Value], mut target: impl FnMut(Value)) {
    let texts: Vec<String> = samples.iter().map(Value::to_string).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    each(&texts, |input| {
        if let Ok(value) = serde_json::from_slice(input) {
            target(value);
        }
    });
}

/// Prints its input when what is done with it panics.
struct Shown {
    turn: u64,
    seed: u64,
    input: Vec<u8>,
}

impl Drop for Shown {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Shown { turn, seed, input } = self;
            eprintln!("input {turn} of seed {seed}: {:?}", String::from_utf8_lossy(input));
        }
    }
}

fn made(samples: &[&str], rng: &mut StdRng) -> Vec<u8> {
    let sample = samples.get(rng.random_range(0..samples.len().max(1))).copied().unwrap_or_default();
    changed(sample.as_bytes(), rng)
}

/// A sample in which something is changed, or bytes that mean nothing.
pub fn changed(sample: &[u8], rng: &mut StdRng) -> Vec<u8> {
    match rng.random_range(0..10) {
        0 => (0..rng.random_range(0..200)).map(|_| rng.random()).collect(),
        1..=3 => scrambled(sample, rng),
        _ => match serde_json::from_slice::<Value>(sample) {
            Ok(mut value) => {
                (0..rng.random_range(1..4)).for_each(|_| change(&mut value, rng));
                value.to_string().into_bytes()
            }
            Err(_) => scrambled(sample, rng),
        },
    }
}

/// Cuts, repeats and overwrites pieces of a text.
fn scrambled(text: &[u8], rng: &mut StdRng) -> Vec<u8> {
    let mut bytes = text.to_vec();
    for _ in 0..rng.random_range(1..5) {
        let at = rng.random_range(0..=bytes.len());
        let end = rng.random_range(at..=bytes.len());
        match rng.random_range(0..5) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let piece = bytes.get(at..end).unwrap_or_default().repeat(rng.random_range(1..4));
                bytes.splice(at..at, piece);
            }
            3 => {
                let word = WORDS.get(rng.random_range(0..WORDS.len())).copied().unwrap_or_default();
                bytes.splice(at..end, word.bytes());
            }
            _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = rng.random()),
        }
    }
    bytes
}

/// Changes one thing, anywhere inside.
fn change(value: &mut Value, rng: &mut StdRng) {
    let inside = rng.random_range(0..4) > 0;
    match value {
        Value::Array(list) if inside && !list.is_empty() => {
            let at = rng.random_range(0..list.len());
            match rng.random_range(0..8) {
                0 => drop(list.remove(at)),
                1 => list.extend(list.clone().into_iter().cycle().take(rng.random_range(1..50))),
                _ => list.iter_mut().skip(at).take(1).for_each(|item| change(item, rng)),
            }
        }
        Value::Object(map) if inside && !map.is_empty() => change_member(map, rng),
        other => *other = anything(rng),
    }
}

fn change_member(map: &mut Map<String, Value>, rng: &mut StdRng) {
    let key = map.keys().nth(rng.random_range(0..map.len())).cloned().unwrap_or_default();
    match rng.random_range(0..8) {
        0 => drop(map.remove(&key)),
        1 => drop(map.insert(key.to_uppercase(), anything(rng))),
        2 => drop(map.insert(format!("{key}x"), anything(rng))),
        _ => map.get_mut(&key).into_iter().for_each(|member| change(member, rng)),
    }
}

fn anything(rng: &mut StdRng) -> Value {
    match rng.random_range(0..12) {
        0 => Value::Null,
        1 => json!(rng.random::<bool>()),
        2 => json!(rng.random::<i64>()),
        3 => json!(u64::MAX),
        4 => json!(i64::MIN),
        5 => json!(rng.random::<f64>() * 1e300),
        6 => json!(rng.random_range(-3..3)),
        7 => json!([]),
        8 => json!({}),
        9 => json!("x".repeat(rng.random_range(0..70_000))),
        10 => (0..rng.random_range(1..300)).fold(Value::Null, |inner, _| json!([inner])),
        _ => json!(WORDS.get(rng.random_range(0..WORDS.len()))),
    }
}
