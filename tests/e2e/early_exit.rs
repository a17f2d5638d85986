//! A controller that cannot run says why in the form that its log has.

use std::process::{Command, Output};

use serde_json::Value;

fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_paddock"));
    command.arg("run").args(arguments).env("PADDOCK_LISTEN", "127.0.0.1:0");
    // No cluster is found by chance.
    for name in ["KUBECONFIG", "HOME", "KUBERNETES_SERVICE_HOST"] {
        command.env_remove(name);
    }
    command.env("HOME", "/nonexistent").envs(variables.iter().copied()).output().unwrap()
}

/// What keeps it from running: arguments, its exit code, and a part of what it says.
const FAULTS: [(&[&str], i32, &str); 6] = [
    (&["--listen=nowhere"], 2, "invalid value 'nowhere' for '--listen <ADDRESS>'"),
    (&["--no-such-flag"], 2, "unexpected argument '--no-such-flag'"),
    (&["--log-level=loud"], 1, "`loud` is neither a log level nor a filter"),
    (&["--kubeconfig=/nonexistent/config"], 1, "/nonexistent/config"),
    (&[], 1, "kubeconfig"),
    (&["--metrics-listen=192.0.2.1:80"], 1, "--metrics-listen 192.0.2.1:80"),
];

#[test]
fn what_keeps_it_from_running_is_one_line_of_json_where_the_log_is_json() {
    for (arguments, code, part) in FAULTS {
        for output in [
            run(&[&["--log-format=json"], arguments].concat(), &[]),
            run(&[arguments, &["--log-format", "json"]].concat(), &[]),
            run(arguments, &[("PADDOCK_LOG_FORMAT", "json")]),
        ] {
            let said = String::from_utf8(output.stderr).unwrap();
            let lines: Vec<Value> =
                said.lines().map(|line| serde_json::from_str(line).expect(&said)).collect();
            let last = lines.last().expect("it says something");
            assert!(last["message"].as_str().unwrap().contains(part), "{arguments:?}: {said}");
            assert_eq!((&last["level"], output.status.code()), (&Value::from("ERROR"), Some(code)), "{said}");
        }
    }
}

#[test]
fn it_is_plain_text_where_the_log_is_text() {
    for (arguments, code, part) in FAULTS {
        let output = run(arguments, &[]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(part), "{arguments:?}: {said}");
        assert!(!said.lines().any(|line| serde_json::from_str::<Value>(line).is_ok()), "{said}");
        assert_eq!(output.status.code(), Some(code), "{said}");
    }
}
