//! The stand-in keeps the contract: every sentence of `tests/tart-contract` is asked of it, as it can be of a Mac.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use testkit::tart::{IMAGE, Scenario};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::support::*;

/// More at once make a small machine no faster.
const AT_ONCE: usize = 4;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tart-contract").canonicalize().expect("the contract")
}

fn names() -> Vec<String> {
    let entries = fs::read_dir(folder().join("sentences")).expect("the sentences");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    // To work on one of them.
    let part = std::env::var("TART_CONTRACT_SENTENCE").unwrap_or_default();
    names.retain(|name| name.contains(&part));
    names.sort();
    names
}

/// The lines before a sentence: what it says, where that is from, and how it is asked.
fn header(name: &str, field: &str) -> Option<String> {
    let text = fs::read_to_string(folder().join("sentences").join(name)).expect("a sentence");
    text.lines().find_map(|line| line.strip_prefix(&format!("# {field}: ")).map(str::to_owned))
}

/// A scenario with some of its values changed.
fn changed(scenario: &Scenario, changes: &str) -> Scenario {
    let mut all = serde_json::to_value(scenario).expect("a scenario");
    let changes: Value = serde_json::from_str(changes).expect("JSON");
    for (key, value) in changes.as_object().expect("an object") {
        all[key] = value.clone();
    }
    serde_json::from_value(all).expect("a scenario")
}

/// Asks one sentence; gives what was printed if it is not so.
async fn ask(name: String) -> Result<(), String> {
    let changes = header(&name, "Stand-in").unwrap_or_else(|| "{}".to_owned());
    let mac = local(builder().scenario(|s| *s = changed(s, &changes))).await;
    let mut command = mac.command("env");
    command.arg(format!("TART_CONTRACT_IMAGE={IMAGE}"));
    command.args(["TART_CONTRACT_STAND_IN=yes", "TART_CONTRACT_PATIENCE=30", "sh"]);
    command.arg(folder().join("run")).arg(&name);
    let run = tokio::time::timeout(PATIENCE * 2, command.output()).await;
    let (code, output, errors) = parts(&run.map_err(|_| format!("{name} does not end"))?.expect("an answer"));
    if code == Some(0) && output.contains("1 right, 0 wrong, 0 skipped") {
        Ok(())
    } else {
        Err(format!("{output}{errors}"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stand_in_does_what_every_sentence_says() {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut asked = JoinSet::new();
    for name in names() {
        let places = Arc::clone(&places);
        asked.spawn(async move {
            let _place = places.acquire_owned().await.expect("open");
            ask(name).await
        });
    }
    let answers = asked.join_all().await;
    let wrong: Vec<String> = answers.iter().filter_map(|answer| answer.clone().err()).collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), answers.len(), wrong.join("\n"));
}

/// A list that anything passes says nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_does_nothing_keeps_no_sentence() {
    for code in [0, 1] {
        let mac = local(builder()).await;
        let program = mac.path().join("tart");
        fs::remove_file(&program).expect("removed");
        fs::write(&program, format!("#!/bin/sh\nexit {code}\n")).expect("written");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a program");
        let mut command = mac.command("env");
        command.args(["TART_CONTRACT_STAND_IN=yes", "TART_CONTRACT_PATIENCE=0", "sh"]);
        let run = command.arg(folder().join("run")).output().await.expect("an answer");
        let (_, output, _) = parts(&run);
        let kept: Vec<&str> = output.lines().filter(|line| line.starts_with("ok")).collect();
        assert!(kept.is_empty(), "exit code {code}: {kept:#?}");
        assert!(output.contains("NOT"), "{output}");
    }
}

#[test]
fn every_sentence_says_where_it_is_from_and_how_sure_it_is() {
    let names = names();
    for name in names {
        for field in ["Says", "From"] {
            assert!(header(&name, field).is_some_and(|text| !text.is_empty()), "{name}: {field}");
        }
        let sure = header(&name, "Sure").unwrap_or_default();
        assert!(["source", "mac"].contains(&sure.as_str()), "{name}: {sure}");
        let asks = header(&name, "Asks").unwrap_or_default();
        assert!(["both", "stand-in"].contains(&asks.as_str()), "{name}: {asks}");
        let stand_in = header(&name, "Stand-in");
        assert!(stand_in.is_none() || asks == "stand-in", "{name} needs a scenario, which a Mac has not");
    }
}
