//! The documentation keeps up with the code: the tests that it names exist, and nothing is missing in the reference.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::process::Command;

use paddock::api::Reason;
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
fn every_reason_metric_and_flag_is_in_the_reference() {
    let program = read("src/main.rs");
    let reasons = Reason::ALL.iter().map(|reason| format!("`{reason}`"));
    let metrics = read("src/telemetry/metrics.rs");
    let metrics = metrics.split("#[cfg(test)]").next().unwrap().split('"');
    let metrics = metrics.filter(|text| text.starts_with("gha_") || text.starts_with("paddock_"));
    let metrics = metrics.map(|name| format!("`{name}"));
    let flags = between(&program, "env = \"PADDOCK_", "\"");
    let flags = flags.map(|name| format!("`--{}", name.to_lowercase().replace('_', "-")));
    let all: Vec<String> = reasons.chain(metrics).chain(flags).collect();
    assert!(all.len() > 80, "{all:?}");
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
