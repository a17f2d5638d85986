//! The samples of `tests/support/convert`, converted, and what is refused.

use std::fs;

use serde_json::Value;

use super::{ConvertError, Source, convert};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/convert");

fn of_acme(variable: &str) -> Option<String> {
    let value = match variable {
        "GITHUB_ORG" => "acme",
        "ECS_CLUSTER" => "runners",
        "AWS_REGION" => "eu-west-1",
        "SCALESET_NAME_PREFIX" => "prod",
        "RUNNER_LOG_GROUP" => "/runners",
        "RUNNER_EXECUTION_ROLE_ARN" => "arn:aws:iam::1:role/execution",
        "AWS_DEFAULT_REGION" | "RUNNER_TASK_ROLE_ARN" => "",
        secret => panic!("{secret} is none of its business"),
    };
    Some(value.to_owned())
}

fn refused(source: Source, text: &str) -> String {
    convert(source, text, |_| None).unwrap_err().to_string()
}

/// Converts a sample, and compares what comes of it with the file of that name in `expected`, which PADDOCK_RENEW writes.
fn becomes_what_is_expected(source: Source, sample: &str) {
    let text = fs::read_to_string(format!("{FOLDER}/{sample}")).unwrap();
    let manifests = convert(source, &text, of_acme).unwrap();
    assert!(!manifests.contains("planted"), "a secret is told: {manifests}");
    let expected = format!("{FOLDER}/expected/{}.yaml", sample.split('.').next().unwrap());
    if std::env::var_os("PADDOCK_RENEW").is_some() {
        fs::write(&expected, &manifests).unwrap();
    }
    assert_eq!(manifests, fs::read_to_string(&expected).unwrap(), "PADDOCK_RENEW=1 renews {expected}");
}

#[test]
fn runscalers_scale_sets_inherit_and_what_is_lost_is_told() {
    becomes_what_is_expected(Source::Runscaler, "runscaler.toml");
    becomes_what_is_expected(Source::Runscaler, "runscaler-single.toml");
}

#[test]
fn ecs_arcs_runners_and_templates_become_scale_sets() {
    becomes_what_is_expected(Source::EcsArc, "ecs-arc.toml");
}

#[test]
fn arcs_objects_and_values_become_scale_sets() {
    becomes_what_is_expected(Source::Arc, "arc.yaml");
    becomes_what_is_expected(Source::Arc, "arc-values.yaml");
}

#[test]
fn ecs_arcs_matrix_has_its_51_runners() {
    let text = fs::read_to_string(format!("{FOLDER}/ecs-arc-matrix.toml")).unwrap();
    let manifests = convert(Source::EcsArc, &text, |_| None).unwrap();
    let sets: Vec<Value> = serde_saphyr::from_multiple(&manifests).unwrap();
    let find = |name: &str| sets.iter().find(|set| set["metadata"]["name"] == name);
    assert_eq!(sets.len(), 51, "26 sizes in two kinds, of which one is excluded");
    assert!(find("runner-small-1g-plain").is_some() && find("runner-small-1g-docker").is_none());
    let spec = &find("runner-medium-10g-docker").unwrap()["spec"];
    assert_eq!(spec["maxRunners"], 4);
    assert_eq!(spec["backends"][0]["ecs"]["managedTaskDefinition"]["memory"], 10240);
    let labels: Vec<&str> = spec["labels"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(labels, ["medium-10g", "docker", "linux", "external", "2cpu", "10gb"]);
}

#[test]
fn a_field_that_cannot_be_used_is_named_with_the_remedy() {
    let set = "url = \"https://github.com/acme\"\nname = \"linux\"\n";
    for (source, text, says) in [
        (Source::Runscaler, "name = \"linux\"", "url: missing: write the URL"),
        (
            Source::Runscaler,
            "url = \"github.com/acme\"\nname = \"linux\"",
            "url: not such a URL: write the URL",
        ),
        (
            Source::Runscaler,
            "url = \"https://x:ghp_planted@github.com/acme\"\nname = \"linux\"",
            "url: not such a URL",
        ),
        (
            Source::Runscaler,
            "url = \"https://github.com/acme\"\nname = \"a b\"",
            "name: \"a b\" cannot name a scale set",
        ),
        (Source::Runscaler, &format!("{set}max-runners = \"5\""), "max-runners: expected a whole number"),
        (Source::Runscaler, &format!("{set}max-runners = -1"), "max-runners: expected a whole number"),
        (
            Source::Runscaler,
            &format!("{set}min-runners = 5\nmax-runners = 3"),
            "min-runners: 5 is more than the 3 of max-runners",
        ),
        (Source::Runscaler, &format!("{set}backend = \"lxc\""), "backend: write docker or tart"),
        (
            Source::Runscaler,
            &format!("{set}[docker]\nsocket = \"tcp://x\""),
            "docker.socket: write the absolute path",
        ),
        (
            Source::Runscaler,
            &format!("{set}[docker]\nbuildx-cleanup-ttl = \"1.5h\""),
            "docker.buildx-cleanup-ttl: \"1.5h\" is not a duration",
        ),
        (Source::Runscaler, &format!("{set}[[scaleset]]\nname = \"x\""), "scaleset[0].url: missing"),
        (Source::EcsArc, "", "there is no runner: write at least one"),
        (
            Source::EcsArc,
            "[[runner]]\nfamily = \"a\"\nmemory = 512",
            "runner[0].cpu: missing: write the CPU units",
        ),
        (Source::EcsArc, "[[runner]]\nfamily = \"a\"\ncpu = 256\nmemory = 512", "runner[0].subnets: missing"),
        (
            Source::EcsArc,
            "[[runner]]\nfamily = \"a\"\ncpu = 256\nmemory = 512\narchitecture = \"SPARC\"",
            "runner[0].architecture: write X86_64 or ARM64",
        ),
        (
            Source::EcsArc,
            "[[runner]]\nfamily = \"a\"\ncpu = 256\nmemory = 512\ncompatibility = \"MOON\"",
            "runner[0].compatibility: write FARGATE",
        ),
        (Source::EcsArc, "[[template]]\nfamily_prefix = \"a\"", "template[0].sizes: missing"),
        (
            Source::EcsArc,
            "[[template]]\nfamily_prefix = \"a\"\n[template.sizes]\nb = 1",
            "template[0].sizes.b: expected a table",
        ),
        (Source::Arc, "kind: Secret", "there is no AutoscalingRunnerSet"),
        (
            Source::Arc,
            "githubConfigUrl: https://github.com/acme",
            "runnerScaleSetName: missing: the chart takes the release's name",
        ),
        (
            Source::Arc,
            "githubConfigUrl: https://github.com/acme\nrunnerScaleSetName: a\nproxy: {http: {url: \"http://x:planted@proxy\"}}",
            "proxy.http.url: a login is in it",
        ),
        (
            Source::Arc,
            "githubConfigUrl: https://github.com/acme\nrunnerScaleSetName: a\ncontainerMode: {type: vm}",
            "containerMode.type: write dind",
        ),
    ] {
        let error = refused(source, text);
        assert!(error.contains(says), "{text}: {error}");
        assert!(!error.contains("planted"), "a secret is told: {error}");
    }
}

#[test]
fn a_family_that_is_there_twice_is_refused() {
    let runner = "[[runner]]\nfamily = \"a\"\ncpu = 1024\nmemory = 2048\ncompatibility = \"EXTERNAL\"\n";
    assert!(refused(Source::EcsArc, &runner.repeat(2)).contains("a is there twice"));
}

#[test]
fn a_syntax_error_has_its_line_and_not_the_lines_text() {
    for (source, text) in [
        (Source::Runscaler, "name = \"linux\"\ntoken = \"ghp_planted\nurl = \"x\""),
        (Source::Arc, "githubConfigUrl: x\ngithubConfigSecret: {github_token: \"ghp_planted\n"),
    ] {
        let error = convert(source, text, |_| None).unwrap_err();
        assert!(matches!(error, ConvertError::Syntax { line: 2.., .. }), "{error:?}");
        assert!(!error.to_string().contains("planted"), "{error}");
    }
}

#[test]
fn a_name_in_the_file_cannot_end_a_comment() {
    let text = "url = \"https://github.com/acme\"\nname = \"linux\"\n\"a\\r\\nkind: Secret\" = 1";
    let manifests = convert(Source::Runscaler, text, |_| None).unwrap();
    let sets: Vec<Value> = serde_saphyr::from_multiple(&manifests).unwrap();
    assert_eq!((sets.len(), &sets[0]["kind"]), (1, &"RunnerScaleSet".into()));
    assert!(manifests.lines().any(|line| line == "# kind: Secret: has no counterpart"), "{manifests}");
}
