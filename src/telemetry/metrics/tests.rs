use super::*;

fn linux() -> SetLabels {
    SetLabels {
        name: "linux".to_owned(),
        namespace: "ci".to_owned(),
        organization: "acme".to_owned(),
        ..SetLabels::default()
    }
}

/// Metrics in which everything was measured once.
fn everything(start: Instant) -> Metrics {
    let metrics = Metrics::new();
    let second = Duration::from_secs(1);
    let statistics = Statistics { assigned: 5, ..Statistics::default() };
    let sizes = SetGauges {
        statistics: Some(statistics),
        registered_runners: 4,
        busy_runners: 3,
        idle_runners: 1,
        min_runners: 2,
        max_runners: 9,
        desired_runners: 7,
    };
    metrics.set(&linux(), &sizes);
    metrics.job_started(&linux(), Some(second));
    metrics.job_completed(&linux(), JobOutcome::Failed, Some(second));
    metrics.reconcile(second, Some("github"));
    metrics.poll_completed_at("ci", "linux", start);
    metrics.backoff_at("ci", "linux", Duration::from_secs(20), start);
    metrics.github_request("poll", "ok", second);
    metrics.unreadable_messages(3);
    metrics.runner_start("docker", "started");
    metrics.start_latency(StartPhase::PlacedToStarted, second);
    metrics.removal("surplus");
    metrics.runner_failure("JobLost");
    metrics.host_slots_from(|| vec![("unix:///var/run/docker.sock".to_owned(), 1, Some(15))]);
    metrics.status_write();
    metrics
}

#[test]
fn every_metric_has_its_name_and_labels() {
    let start = Instant::now();
    let text = everything(start).render_at(start + Duration::from_secs(8)).unwrap();
    let set = r#"name="linux",namespace="ci",repository="",organization="acme",enterprise="""#;
    let expected = [
        format!("gha_assigned_jobs{{{set}}} 5"),
        format!("gha_running_jobs{{{set}}} 0"),
        format!("gha_registered_runners{{{set}}} 4"),
        format!("gha_busy_runners{{{set}}} 3"),
        format!("gha_idle_runners{{{set}}} 1"),
        format!("gha_min_runners{{{set}}} 2"),
        format!("gha_max_runners{{{set}}} 9"),
        format!("gha_desired_runners{{{set}}} 7"),
        format!("gha_started_jobs_total{{{set}}} 1"),
        format!(r#"gha_completed_jobs_total{{{set},job_result="failed"}} 1"#),
        format!("gha_job_startup_duration_seconds_count{{{set}}} 1"),
        format!(r#"gha_job_execution_duration_seconds_count{{{set},job_result="failed"}} 1"#),
        "paddock_reconcile_duration_seconds_count 1".to_owned(),
        r#"paddock_reconcile_errors_total{category="github"} 1"#.to_owned(),
        r#"paddock_poll_age_seconds{namespace="ci",name="linux"} 8.0"#.to_owned(),
        r#"paddock_backoff_seconds{namespace="ci",name="linux"} 12.0"#.to_owned(),
        r#"paddock_github_requests_total{call="poll",outcome="ok"} 1"#.to_owned(),
        r#"paddock_github_request_duration_seconds_count{call="poll"} 1"#.to_owned(),
        "paddock_unreadable_messages_total 3".to_owned(),
        r#"paddock_runner_starts_total{backend="docker",outcome="started"} 1"#.to_owned(),
        r#"paddock_start_latency_seconds_count{phase="placed_to_started"} 1"#.to_owned(),
        r#"paddock_runner_removals_total{reason="surplus"} 1"#.to_owned(),
        r#"paddock_runner_failures_total{reason="JobLost"} 1"#.to_owned(),
        r#"paddock_host_slots{host="unix:///var/run/docker.sock",state="used"} 1"#.to_owned(),
        r#"paddock_host_slots{host="unix:///var/run/docker.sock",state="free"} 15"#.to_owned(),
        "paddock_status_writes_total 1".to_owned(),
    ];
    for line in expected {
        assert!(text.lines().any(|l| l == line), "no `{line}` in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn a_deleted_set_leaves_no_series() {
    let start = Instant::now();
    let metrics = everything(start);
    let other = SetLabels { name: "mac".to_owned(), ..linux() };
    metrics.job_completed(&other, JobOutcome::Succeeded, None);
    metrics.forget_set(&linux());
    metrics.host_slots_from(Vec::new);
    let text = metrics.render_at(start).unwrap();
    assert!(!text.contains("linux") && !text.contains("docker.sock"), "{text}");
    assert!(text.contains("mac"), "{text}");
}

#[test]
fn a_poll_makes_the_age_young_and_a_backoff_runs_out() {
    let start = Instant::now();
    let metrics = everything(start);
    let later = start + Duration::from_secs(60);
    metrics.poll_completed_at("ci", "linux", later);
    let text = metrics.render_at(later).unwrap();
    assert!(text.contains(r#"paddock_poll_age_seconds{namespace="ci",name="linux"} 0.0"#));
    assert!(text.contains(r#"paddock_backoff_seconds{namespace="ci",name="linux"} 0.0"#));
}

#[test]
fn counts_that_are_not_known_are_not_shown_as_zero() {
    let metrics = Metrics::new();
    metrics.set(&linux(), &SetGauges::default());
    let text = metrics.render().unwrap();
    assert!(!text.contains("gha_assigned_jobs{"), "{text}");
    assert!(text.contains("gha_max_runners{"), "{text}");
}
