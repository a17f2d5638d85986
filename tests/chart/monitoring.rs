//! Alerts and the dashboard ask for metrics that there are, and each alert is explained.

use std::fs;

use serde_json::{Value, json};

use crate::helm;

fn read(path: &str) -> String {
    fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).expect(path)
}

/// The series that the controller has, without the endings that the format gives to counters and histograms.
fn metrics() -> Vec<String> {
    let code = read("src/telemetry/metrics.rs");
    let code = code.split("#[cfg(test)]").next().unwrap();
    let texts = code.split('"').filter(|text| text.starts_with("gha_") || text.starts_with("paddock_"));
    texts.map(str::to_owned).collect()
}

/// The names of metrics in an expression.
fn names(expression: &str) -> Vec<&str> {
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("gha_") || word.starts_with("paddock_")).collect()
}

/// Panics where an expression names something that the controller does not measure.
fn check(expression: &str, metrics: &[String]) {
    let found = names(expression);
    assert!(!found.is_empty(), "{expression}");
    for name in found {
        let stem = name.trim_end_matches("_bucket").trim_end_matches("_total");
        assert!(metrics.iter().any(|metric| metric == stem), "no metric {name}: {expression}");
    }
}

async fn rendered() -> Vec<Value> {
    let rule = json!({"enabled": true, "runbookUrl": "https://example.com/alerts"});
    helm::objects(
        "paddock",
        "paddock",
        &json!({"metrics": {"prometheusRule": rule}, "dashboard": {"enabled": true}}),
    )
    .await
}

#[tokio::test]
async fn each_alert_asks_for_what_is_measured_and_has_its_section() {
    let (objects, metrics, document) = (rendered().await, metrics(), read("docs/alerts.md"));
    let played: Value = serde_saphyr::from_str(&read("tests/support/alerts.yaml")).unwrap();
    let played =
        played["tests"].as_array().unwrap().iter().flat_map(|t| t["alert_rule_test"].as_array().unwrap());
    let played: Vec<&Value> = played.collect();
    let rules =
        helm::find(&objects, "PrometheusRule", "paddock")["spec"]["groups"][0]["rules"].as_array().unwrap();
    assert!(rules.len() >= 10, "{}", rules.len());
    for rule in rules {
        let name = rule["alert"].as_str().unwrap();
        check(rule["expr"].as_str().unwrap(), &metrics);
        assert!(document.contains(&format!("\n## {name}\n")), "docs/alerts.md: no section for {name}");
        let plays = |fires: bool| {
            let is_it = |p: &&&Value| {
                p["alertname"] == name && p["exp_alerts"].as_array().unwrap().is_empty() != fires
            };
            played.iter().filter(is_it).count()
        };
        assert!(
            plays(true) >= 1 && plays(false) >= 2,
            "tests/support/alerts.yaml: {name} does not fire and resolve"
        );
        let link = format!("https://example.com/alerts#{}", name.to_lowercase());
        assert_eq!(rule["annotations"]["runbook_url"], link);
        for text in ["summary", "description"] {
            assert!(rule["annotations"][text].as_str().unwrap().ends_with('.'), "{name}: {text}");
        }
        assert!(["warning", "critical"].contains(&rule["labels"]["severity"].as_str().unwrap()), "{name}");
    }
}

#[tokio::test]
async fn each_panel_asks_for_what_is_measured_and_each_metric_has_a_panel() {
    let (objects, metrics) = (rendered().await, metrics());
    let dashboard = helm::find(&objects, "ConfigMap", "-dashboard")["data"]["paddock.json"].as_str().unwrap();
    let dashboard: Value = serde_json::from_str(dashboard).unwrap();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            check(target["expr"].as_str().unwrap(), &metrics);
        }
    }
    let text = dashboard.to_string();
    // What these show is in another panel.
    let told_otherwise = ["gha_registered_runners", "gha_min_runners", "gha_started_jobs"];
    for metric in metrics.iter().filter(|metric| !told_otherwise.contains(&metric.as_str())) {
        assert!(text.contains(metric.as_str()), "no panel for {metric}");
    }
}
