//! The command `paddock check` without a cluster: what it says of manifests, how it prints it, and how it ends.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde::Deserialize;
use serde_json::{Value, json};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The exit code, and what was printed.
fn check(arguments: &[&str], input: &str) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_paddock"));
    let command = command.arg("check").args(arguments).env_clear();
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    file: String,
    object: String,
    field: String,
    ok: bool,
    message: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Checks {
    checks: Vec<Line>,
}

/// The lines about manifests that come by standard input, and whether all is well.
fn lines(manifests: &[Value], arguments: &[&str]) -> (bool, Vec<Line>) {
    let text: Vec<String> = manifests.iter().map(Value::to_string).collect();
    let arguments = [&["-f", "-", "-o", "json"], arguments].concat();
    let (code, output, errors) = check(&arguments, &text.join("\n---\n"));
    assert!(errors.is_empty(), "{errors}");
    let Checks { checks } = serde_json::from_str(&output).expect(&output);
    assert_eq!(code, Some(i32::from(checks.iter().any(|line| !line.ok))), "{output}");
    (code == Some(0), checks)
}

fn scale_set(changes: Value) -> Value {
    let least = json!({
        "apiVersion": "paddock.dev/v1alpha1",
        "kind": "RunnerScaleSet",
        "metadata": {"name": "linux", "namespace": "ci"},
        "spec": {
            "github": {"url": "https://github.com/acme", "credentialsSecretRef": {"name": "github"}},
            "backends": [{"name": "rack", "docker": {}}],
        },
    });
    harness::merged(least, changes)
}

fn secret(name: &str, texts: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "ci"}, "stringData": texts})
}

#[test]
fn every_sample_passes() {
    let samples = format!("{ROOT}/deploy/samples");
    let (code, output, errors) = check(&["-f", &samples], "");
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{output}");
    for sample in fs::read_dir(samples).unwrap() {
        let sample = sample.unwrap().path().display().to_string();
        assert!(output.contains(&sample), "nothing is said of {sample}");
    }
    assert!(!output.contains('\u{1b}'), "colours are for a terminal alone");
}

#[test]
fn what_is_wrong_is_told_with_its_field() {
    let ecs = json!({"region": "eu-west-1", "cluster": "arn:aws:ecs:us-east-1:123456789012:cluster/c", "taskDefinition": "r:1"});
    let window = |start: &str, zone: &str| json!({"spec": {"schedules": [{"name": "a", "start": start, "end": "0 9 * * *", "timeZone": zone}]}});
    for (changes, field, says) in [
        (json!({"apiVersion": "paddock.dev/v1"}), "apiVersion", "is not served"),
        (json!({"metadata": {"name": "Linux"}}), "metadata.name", "no name"),
        (json!({"spec": {"minRuners": 1}}), "spec.minRuners", "unknown field"),
        (json!({"spec": {"minRunners": 11}}), "spec.minRunners", "must not be greater than spec.maxRunners"),
        (json!({"spec": {"maxRunners": "many"}}), "spec.maxRunners", "must be of type integer"),
        (json!({"spec": {"github": {"url": null}}}), "spec.github.url", "Required value"),
        (
            json!({"spec": {"github": {"url": "http://ghes.acme.test/acme"}}}),
            "spec.github.url",
            "must be https",
        ),
        (
            json!({"spec": {"backends": [{"name": "a"}]}}),
            "spec.backends[0]",
            "exactly one of docker, tart and ecs",
        ),
        (
            json!({"spec": {"backends": [{"name": "a", "docker": {"hosts": [{"name": "h", "endpoint": "ssh://h"}]}}]}}),
            "spec.backends[0].docker.hosts[0].sshSecretRef",
            "is required",
        ),
        (window("61 * * * *", "UTC"), "spec.schedules", "61"),
        (window("0 8 * * *", "Europe/Zuerich"), "spec.schedules", "Europe/Zuerich"),
        (
            json!({"spec": {"backends": [{"name": "a", "docker": {"dockerAccess": "HostSocket"}}]}}),
            "spec.backends[a].docker.dockerAccess",
            "hostSocket",
        ),
        (
            json!({"spec": {"backends": [{"name": "a", "ecs": ecs}]}}),
            "spec.backends[a].ecs.cluster",
            "us-east-1",
        ),
    ] {
        let (well, lines) = lines(&[scale_set(changes)], &[]);
        let told = lines.iter().filter(|line| !line.ok && line.field == field && line.message.contains(says));
        assert_eq!((well, told.count()), (false, 1), "{field}, {says}: {lines:?}");
    }
}

#[test]
fn a_secret_among_the_files_is_used_and_one_that_is_not_is_said() {
    let of = |lines: &[Line], field: &str| -> Vec<(bool, String)> {
        lines.iter().filter(|l| l.field == field).map(|l| (l.ok, l.message.clone())).collect()
    };
    const FIELD: &str = "spec.github.credentialsSecretRef";
    let (well, alone) = lines(&[scale_set(json!({}))], &[]);
    assert!(well && of(&alone, FIELD)[0].1.contains("not looked at"), "{alone:?}");

    let good = secret("github", json!({"github_token": "ghp_x"}));
    let (well, with) = lines(&[good, scale_set(json!({}))], &[]);
    assert!(well && of(&with, FIELD)[0].1.contains("among the files"), "{with:?}");

    let bad = secret("github", json!({"token": "ghp_x"}));
    let (well, wrong) = lines(&[bad, scale_set(json!({}))], &[]);
    assert!(
        !well && of(&wrong, FIELD).iter().any(|(ok, said)| !ok && said.contains("github_token")),
        "{wrong:?}"
    );
    assert!(!format!("{wrong:?}").contains("ghp_x"), "no secret is told");

    let host = json!({"name": "h", "endpoint": "tcp://h:2376", "tlsSecretRef": {"name": "tls"}});
    let fleet = scale_set(json!({"spec": {"backends": [{"name": "a", "docker": {"hosts": [host]}}]}}));
    let tls = secret("tls", json!({"ca.crt": "no", "tls.crt": "no", "tls.key": "no"}));
    let (well, login) = lines(&[fleet, tls], &[]);
    let told = of(&login, "spec.backends[a].docker.hosts[h].tlsSecretRef");
    assert!(!well && told.iter().any(|(ok, _)| !ok), "a login that cannot be used: {login:?}");
}

#[test]
fn two_manifests_of_one_scale_set_are_refused() {
    let other = scale_set(json!({"metadata": {"name": "other"}, "spec": {"scaleSetName": "Linux"}}));
    let (well, lines) = lines(&[scale_set(json!({})), other], &[]);
    let told = lines.iter().find(|line| !line.ok).unwrap();
    assert!(
        !well && told.object == "RunnerScaleSet ci/other" && told.field == "spec.scaleSetName",
        "{lines:?}"
    );
}

#[test]
fn the_policy_of_the_operator_is_the_one_that_is_given() {
    let socket =
        scale_set(json!({"spec": {"backends": [{"name": "a", "docker": {"dockerAccess": "HostSocket"}}]}}));
    let permissive = format!("{ROOT}/tests/support/permissive.yaml");
    let (well, permitted) = lines(std::slice::from_ref(&socket), &["--policy", &permissive]);
    assert!(well, "{permitted:?}");
    let (code, _, errors) = check(&["-f", "-", "--policy", "/nowhere"], "");
    assert!(code == Some(1) && errors.contains("--policy /nowhere"), "{errors}");
}

#[test]
fn what_is_no_scale_set_is_passed_over_and_said() {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}});
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [pod, scale_set(json!({}))]});
    let (well, lines) = lines(&[list, Value::Null], &[]);
    let passed = lines.iter().find(|line| line.object == "Pod x").unwrap();
    assert!(well && passed.message == "passed over" && passed.file == "-", "{lines:?}");
    assert!(lines.iter().any(|line| line.object == "RunnerScaleSet ci/linux"), "the items of a list");
}

#[test]
fn a_file_that_cannot_be_read_is_exit_code_1_and_a_bad_word_2() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("check");
    fs::create_dir_all(folder.join("empty")).unwrap();
    let written = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let good = written("good.yaml", &scale_set(json!({})).to_string());
    for bad in [
        "/nowhere".to_owned(),
        written("broken.yaml", "kind: [\n"),
        written("twice.yaml", "kind: A\nkind: B\n"),
        written("text.yaml", "only words\n"),
        folder.join("empty").display().to_string(),
    ] {
        let (code, output, _) = check(&["-f", &good, "-f", &bad], "");
        assert_eq!(code, Some(1), "{output}");
        assert!(
            output.lines().any(|line| line.starts_with("FAIL") && line.contains(&bad)),
            "{bad}: {output}"
        );
        assert!(output.contains("the controller can work with it"), "the others are judged all the same");
    }
    assert_eq!(check(&[], "").0, Some(2));
    assert_eq!(check(&["-f", "-", "-o", "xml"], "").0, Some(2));
}
