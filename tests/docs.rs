//! The documentation keeps up with the code: the tests that it names exist, and nothing is missing in the reference.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use paddock::api::Reason;
use paddock::runner::{JobOutcome, Statistics};
use paddock::telemetry::{Metrics, SetGauges, SetLabels, StartPhase};
use serde_json::Value;

const REFERENCE: &str = include_str!("../docs/reference.md");

fn read(path: &str) -> String {
    fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).expect(path)
}

/// The texts between `open` and the next `close`.
fn between<'a>(text: &'a str, open: &'a str, close: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(open).skip(1).filter_map(move |rest| Some(rest.split_once(close)?.0))
}

#[test]
fn the_committed_crds_are_what_the_program_prints() {
    let printed = Command::new(env!("CARGO_BIN_EXE_paddock")).arg("crd").output().unwrap();
    assert!(printed.status.success());
    for path in ["crds/runnerscaleset.yaml", "charts/paddock/files/runnerscaleset.yaml"] {
        assert!(printed.stdout == read(path).as_bytes(), "{path} is not what the types say: run `make crd`");
    }
}

#[test]
fn every_test_that_is_named_exists() {
    for (document, least) in
        [("docs/behaviours.md", 60), ("docs/architecture.md", 20), ("docs/threat-model.md", 40)]
    {
        let text = read(document);
        let named: Vec<(&str, &str)> = text.split('`').filter_map(|code| code.split_once(".rs: ")).collect();
        assert!(named.len() >= least, "{document} names {} tests", named.len());
        for (file, test) in named {
            let source = read(&format!("{file}.rs"));
            assert!(source.contains(&format!("fn {test}(")), "{document}: no {test} in {file}.rs");
        }
    }
}

#[test]
fn every_behaviour_has_its_row() {
    let text = read("docs/behaviours.md");
    let number = |line: &str| line.strip_prefix("| ")?.split_once(' ')?.0.parse::<u32>().ok();
    assert!(text.lines().filter_map(number).eq(1..=31));
}

/// The sections of the reference by title, and the path that the fields in them are below.
const SECTIONS: [(&str, &str); 7] = [
    ("`spec.github`", "spec.github."),
    ("`docker`", "spec.backends[].docker."),
    ("`tart`", "spec.backends[].tart."),
    ("`ecs`", "spec.backends[].ecs."),
    ("`spec.backends[]`", "spec.backends[]."),
    ("Spec", "spec."),
    ("Status", "status."),
];

/// The paths of all fields that hold no further ones.
fn leaves(schema: &Value, path: &str, found: &mut Vec<String>) {
    if let Some(items) = schema.get("items") {
        return leaves(items, &format!("{path}[]"), found);
    }
    match schema.get("properties").and_then(Value::as_object) {
        Some(fields) => {
            fields.iter().for_each(|(name, field)| leaves(field, &format!("{path}.{name}"), found))
        }
        None => found.push(path.trim_start_matches('.').trim_end_matches("[]").to_owned()),
    }
}

#[test]
fn every_field_is_in_the_table_of_its_section() {
    let crd: Value = serde_saphyr::from_str(&read("crds/runnerscaleset.yaml")).unwrap();
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let mut found = Vec::new();
    for part in ["spec", "status"] {
        leaves(&schema["properties"][part], part, &mut found);
    }
    assert!(found.len() > 150, "{} fields", found.len());
    for path in found.iter().filter(|path| !path.starts_with("status.conditions")) {
        // A reference to a Secret is one row.
        let path = path.strip_suffix(".name").filter(|stem| stem.ends_with("SecretRef")).unwrap_or(path);
        let section = SECTIONS.iter().find_map(|(title, base)| Some((title, path.strip_prefix(base)?)));
        let (title, field) = section.unwrap();
        let heading = format!("# {title}\n");
        let section = REFERENCE.split("\n#").find(|s| format!("#{s}").contains(&heading)).unwrap();
        assert!(section.contains(&format!("\n| `{field}` |")), "{title}: no row for `{field}`");
    }
}

#[test]
fn every_reason_and_flag_is_in_the_reference() {
    let program = read("src/main.rs");
    let reasons = Reason::ALL.iter().map(|reason| format!("`{reason}`"));
    let flags = between(&program, "env = \"PADDOCK_", "\"");
    let flags = flags.map(|name| format!("`--{}", name.to_lowercase().replace('_', "-")));
    let all: Vec<String> = reasons.chain(flags).collect();
    assert!(all.len() > 50, "{all:?}");
    let missing: Vec<_> = all.iter().filter(|name| !REFERENCE.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "not in docs/reference.md: {missing:?}");
}

/// Whatever a condition, a failure or an event gives for a reason: the row says what to do.
#[test]
fn every_reason_has_its_row_in_troubleshooting() {
    let text = read("docs/operations.md");
    let (_, section) = text.split_once("\n## Troubleshooting\n").unwrap();
    let rows =
        section.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |")?.split_once(" | "));
    let remedies: Vec<(&str, &str)> = rows.collect();
    for reason in Reason::ALL {
        let of_it = |(reasons, _): &&(&str, &str)| {
            reasons.split(", ").any(|word| word.trim_matches('`') == reason.as_str())
        };
        let found: Vec<_> = remedies.iter().filter(of_it).collect();
        assert!(matches!(found[..], [(_, remedy)] if remedy.len() >= 20), "{reason}: {found:?}");
    }
    for (reasons, _) in remedies {
        for word in reasons.split(", ").map(|word| word.trim_matches('`')) {
            assert!(
                Reason::ALL.iter().any(|reason| reason.as_str() == word),
                "the code gives no reason {word}"
            );
        }
    }
}

/// Everything measured once, in the text format.
fn everything() -> String {
    let (metrics, second) = (Metrics::new(), Duration::from_secs(1));
    let set = SetLabels::default();
    metrics.set(&set, &SetGauges { statistics: Some(Statistics::default()), ..SetGauges::default() });
    metrics.job_started(&set, Some(second));
    metrics.job_completed(&set, JobOutcome::Succeeded, Some(second));
    metrics.reconcile(second, Some("kube"));
    metrics.poll_completed("", "");
    metrics.backoff("", "", second);
    metrics.github_request("poll", "ok", second);
    metrics.backend_request("docker", "start", "ok", second);
    metrics.runner_start("docker", "started");
    metrics.start_latency(StartPhase::DemandToPlaced, second);
    metrics.removal("Surplus");
    metrics.orphan("instance");
    metrics.runner_failure("JobLost");
    metrics.host_slots_from(|| vec![(String::new(), 1, Some(1))]);
    metrics.freed_bytes_from(|| vec![(String::new(), "images", 1)]);
    metrics.render().unwrap()
}

/// The rows of the table of all metrics, of what the program shows.
fn rows(shown: &str) -> String {
    let mut rows = String::from("| Metric | Type | Labels | Meaning |\n|---|---|---|---|\n");
    for metric in shown.split("# HELP ").skip(1) {
        let (help, rest) = metric.split_once('\n').unwrap();
        let (name, help) = help.split_once(' ').unwrap();
        let (kind, _) = rest.split_once('\n').unwrap();
        let kind = kind.strip_prefix(&format!("# TYPE {name} ")).unwrap();
        let series = rest.lines().nth(1).unwrap();
        let labels: Vec<String> = between(series, "{", "}")
            .flat_map(|labels| labels.split(','))
            .filter_map(|label| Some(label.split_once('=')?.0))
            .filter(|label| *label != "le")
            .map(|label| format!("`{label}`"))
            .collect();
        let total = if kind == "counter" { "_total" } else { "" };
        rows += &format!("| `{name}{total}` | {kind} | {} | {help} |\n", labels.join(", "));
    }
    rows
}

#[test]
fn the_table_of_metrics_is_what_the_program_shows() {
    const PATH: &str = "docs/metrics.md";
    let (title, shown) = ("## All metrics\n\n", everything());
    let text = read(PATH);
    let (before, rest) = text.split_once(title).unwrap();
    let (_, after) = rest.split_once("## ").unwrap();
    let written = format!("{before}{title}{}\n## {after}", rows(&shown));
    if std::env::var_os("PADDOCK_WRITE_METRICS").is_some() {
        fs::write(format!("{}/{PATH}", env!("CARGO_MANIFEST_DIR")), &written).unwrap();
    } else {
        assert!(text == written, "{PATH} is not what the code says: run `make metrics`");
    }
    let code = read("src/telemetry/metrics.rs");
    let names = code.split('"').filter(|text| text.starts_with("gha_") || text.starts_with("paddock_"));
    // Those of ARC, as the contract has them.
    let contract = [
        "assigned_jobs",
        "running_jobs",
        "registered_runners",
        "busy_runners",
        "idle_runners",
        "min_runners",
        "max_runners",
        "desired_runners",
        "started_jobs_total",
        "completed_jobs_total",
        "job_startup_duration_seconds",
        "job_execution_duration_seconds",
    ];
    for name in names.map(str::to_owned).chain(contract.map(|name| format!("gha_{name}"))) {
        assert!(written.contains(&format!("\n| `{name}")), "no row for {name}");
    }
    let labels = rows(&shown);
    let labels = labels.lines().skip(2).filter_map(|row| row.split('|').nth(3));
    for label in labels.flat_map(|labels| labels.split(", ")).map(str::trim).filter(|label| !label.is_empty())
    {
        assert!(before.contains(label) || after.contains(label), "nothing is said of the label {label}");
    }
}

/// A folder with the three files that name a version, and a changelog.
fn release(name: &str, chart: &str, changelog: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(folder.join("charts/paddock")).unwrap();
    fs::write(folder.join("Cargo.toml"), "[workspace.package]\nversion = \"1.2.0\"\n").unwrap();
    let chart = format!("name: paddock\nversion: {chart}\nappVersion: \"1.2.0\"\n");
    fs::write(folder.join("charts/paddock/Chart.yaml"), chart).unwrap();
    fs::write(folder.join("CHANGELOG.md"), changelog).unwrap();
    folder
}

#[test]
fn the_notes_of_a_release_are_its_section_of_the_changelog() {
    const CHANGELOG: &str = "# Changelog\n\n## [Unreleased]\n\n- Next.\n\n## [1.2.0] - 2026-11-29\n\n### Added\n\n- A.\n\n\
        ## [1.2.0-rc.1] - 2026-11-28\n\n- B.\n";
    let notes = |folder: PathBuf, tag: &str| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/.ci/release-notes");
        let output = Command::new(script).arg(tag).current_dir(folder).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        if output.status.success() { Ok(String::from_utf8(output.stdout).unwrap()) } else { Err(said) }
    };
    let good = || release("release", "1.2.0", CHANGELOG);
    assert_eq!(notes(good(), "v1.2.0").unwrap().trim(), "### Added\n\n- A.");
    for (folder, tag, says) in [
        (good(), "v1.2.1", "Cargo.toml has version 1.2.0"),
        (good(), "1.2.0", "no tag"),
        (release("release-chart", "1.1.0", CHANGELOG), "v1.2.0", "Chart.yaml has version 1.1.0"),
        (release("release-changelog", "1.2.0", "# Changelog\n\n## [Unreleased]\n"), "v1.2.0", "no section"),
    ] {
        let said = notes(folder, tag).unwrap_err();
        assert!(said.contains(says), "{tag}: {said}");
    }
}
