//! The command `paddock convert`: where its output goes, and how it ends.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::File;
use std::process::{Command, Output, Stdio};

const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/convert");

fn convert(arguments: &[&str], input: Stdio) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_paddock"));
    let command = command.arg("convert").args(arguments).stdin(input).env_clear().env("GITHUB_ORG", "acme");
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn manifests_go_to_standard_output() {
    let expected = std::fs::read_to_string(format!("{SAMPLES}/expected/runscaler.yaml")).unwrap();
    let file = format!("{SAMPLES}/runscaler.toml");
    let (code, output, errors) = convert(&["runscaler", &file], Stdio::null());
    assert_eq!((code, output, errors), (Some(0), expected.clone(), String::new()));

    let input = File::open(&file).unwrap();
    assert_eq!(convert(&["runscaler", "-"], input.into()), (Some(0), expected, String::new()), "a dash");
}

#[test]
fn what_ecs_arc_has_from_its_environment_is_taken_from_there() {
    let (code, output, _) = convert(&["ecs-arc", &format!("{SAMPLES}/ecs-arc-matrix.toml")], Stdio::null());
    assert_eq!((code, output.matches("url: https://github.com/acme\n").count()), (Some(0), 51));
    assert!(output.starts_with("# ECS_CLUSTER is not set: replace CLUSTER"), "{output}");
}

#[test]
fn a_bad_file_is_exit_code_1_and_a_bad_word_2() {
    let (code, output, errors) = convert(&["ecs-arc", &format!("{SAMPLES}/runscaler.toml")], Stdio::null());
    assert_eq!((code, output.as_str()), (Some(1), ""));
    assert!(
        errors
            .ends_with("runscaler.toml: there is no runner: write at least one [[runner]] or [[template]]\n")
    );

    let (code, _, errors) = convert(&["arc", "/nowhere"], Stdio::null());
    assert!(code == Some(1) && errors.starts_with("paddock: /nowhere: No such file"), "{errors}");
    assert_eq!(convert(&["garm", "/nowhere"], Stdio::null()).0, Some(2));
    assert_eq!(convert(&["arc"], Stdio::null()).0, Some(2));
}
