//! Planner scenarios: text files that tell what happens to one scale set, and what is decided at each look.
//!
//! A line is an event (see [`Scene::event`]) or, after `look`, the decision, each line of it behind `> `. What was decided is
//! compared with the file; `PADDOCK_WRITE_SCENARIOS=1 make test-one T=scenarios` writes it there, so a new scenario is its events alone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod scene;

use std::fs;
use std::path::Path;

use scene::Scene;

/// Plays the events of a text, and gives it back with what is decided now.
fn play(text: &str) -> String {
    let mut scene = Scene::default();
    let mut played = String::new();
    for line in text.lines().filter(|line| !line.starts_with("> ")) {
        played.push_str(line);
        played.push('\n');
        for decided in scene.event(line) {
            played.push_str(&format!("> {decided}\n"));
        }
    }
    played
}

#[test]
fn scenarios_are_decided_as_they_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/planner/scenarios");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 10, "{files:?}");
    let mut wrong = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let played = play(&text);
        if std::env::var_os("PADDOCK_WRITE_SCENARIOS").is_some() {
            fs::write(&file, &played).unwrap();
        } else if played != text {
            let (line, (now, then)) =
                played.lines().zip(text.lines()).enumerate().find(|(_, (a, b))| a != b).unwrap_or_default();
            wrong.push(format!("{}:{}: decided\n  {now}\nand not\n  {then}", file.display(), line + 1));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
