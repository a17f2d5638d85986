//! For each line of the policy: what it does not permit is refused before anything is done for it, in words that name the
//! line, and is done once the line is there.

use harness::{Lab, Manifest, PATIENCE, condition, eventually, is, lab};
use paddock::api::RunnerScaleSet;
use serde_json::{Value, json};
use testkit::github::DEFAULT_TOKEN;

use crate::liar::Liar;

/// A rule that permits what the tests need to run at all, with other fields.
fn policy(changes: Value) -> String {
    let mut rule = json!({
        "insecureHttp": true, "networks": ["*"], "endpoints": ["unix:///*", "ssh://*", "local"], "hostSocket": true,
    });
    rule.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    json!({"rules": [rule], "hosts": []}).to_string()
}

/// Something that a tenant tries.
struct Try {
    name: &'static str,
    /// What it asks for.
    manifest: Manifest,
    /// The fields of the rule that refuse it, and those that permit it.
    refusing: Value,
    permitting: Value,
    /// What the refusal says.
    says: &'static str,
}

impl Try {
    fn docker(name: &'static str, github: &Liar, docker: Value) -> Try {
        let manifest = sample(github).docker(docker);
        Try { name, manifest, refusing: json!({}), permitting: json!({}), says: "" }
    }

    fn github(name: &'static str, github: &Liar, spec: Value) -> Try {
        Try { manifest: sample(github).spec(spec), ..Try::docker(name, github, json!({})) }
    }

    fn backend(name: &'static str, github: &Liar, backend: Value) -> Try {
        let manifest = sample(github).spec(json!({"backends": [backend]}));
        Try { manifest, ..Try::docker(name, github, json!({})) }
    }

    fn refused(self, refusing: Value, says: &'static str) -> Try {
        Try { refusing, says, ..self }
    }

    fn permitted(self, permitting: Value) -> Try {
        Try { permitting, ..self }
    }
}

fn sample(github: &Liar) -> Manifest {
    Manifest::sample(&format!("http://{}/acme", github.address()))
        .spec(json!({"minRunners": 1}))
        .docker(json!({"network": "none"}))
}

/// The attempts at which GitHub is `github`, and everything else that could be reached is `other`.
fn attempts(github: &Liar, other: &Liar) -> Vec<Try> {
    let ecs = |changes: Value| {
        let mut ecs = json!({"region": "eu-west-1", "cluster": "runners", "taskDefinition": "runner"});
        ecs.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        json!({"name": "aws", "ecs": ecs})
    };
    let elsewhere = format!("http://{}", other.address());
    let host = |endpoint: &str| json!({"hosts": [{"name": "a", "endpoint": endpoint}]});
    vec![
        Try::docker("namespaces", github, json!({})).refused(
            json!({"namespaces": ["another-*"]}),
            "no rule of the operator's policy is for namespace",
        ),
        Try::docker("github-host", github, json!({}))
            .refused(json!({"githubHosts": ["github.com"]}), "rules[0].githubHosts with \"127.0.0.1\""),
        Try::github(
            "proxy",
            github,
            json!({"github": {"url": "http://ghes.invalid/acme", "proxy": {"url": elsewhere}}}),
        )
        .refused(
            json!({"githubHosts": ["ghes.invalid"]}),
            "spec.github.proxy.url: 127.0.0.1 is not permitted in namespace",
        ),
        Try::docker("plain-http", github, json!({}))
            .refused(json!({"insecureHttp": false}), "spec.github.allowInsecure: plain http"),
        Try::docker("endpoint", github, json!({})).refused(
            json!({"endpoints": ["unix:///srv/*"]}),
            "hosts[local].endpoint: unix:///var/run/docker.sock",
        ),
        Try::docker("other-spelling", github, host("unix:///var/run/../run/docker.sock")).refused(
            json!({"endpoints": ["unix:///*", "!unix:///var/run/docker.sock"]}),
            "rules[0].endpoints without \"!unix:///var/run/docker.sock\" would permit it",
        ),
        Try::backend("local-tart", github, json!({"name": "mac", "tart": {"image": "m"}})).refused(
            json!({"endpoints": ["unix:///*", "tcp://*", "ssh://*"]}),
            "rules[0].endpoints with \"local\"",
        ),
        Try::docker("host-socket", github, json!({"dockerAccess": "HostSocket"}))
            .refused(json!({"hostSocket": false}), "rules[0].hostSocket: true would permit it"),
        Try::docker("sidecar", github, json!({"dockerAccess": "Sidecar"}))
            .refused(json!({"privilegedSidecar": false}), "rules[0].privilegedSidecar: true would permit it"),
        Try::docker("host-network", github, json!({"network": "host"})).refused(
            json!({"networks": ["*", "!host", "!container:*"]}),
            "docker.network: host is not permitted",
        ),
        Try::docker("others-network", github, json!({"network": "container:somebody"})).refused(
            json!({"networks": ["*", "!host", "!container:*"]}),
            "without \"!container:*\" would permit it",
        ),
        Try::backend("aws-identity", github, ecs(json!({}))).refused(
            json!({"controllerAwsIdentity": false}),
            "ecs.credentialsSecretRef: the controller's AWS identity is not permitted",
        ),
        Try::backend(
            "aws-plain-http",
            github,
            ecs(json!({"endpointUrl": elsewhere, "credentialsSecretRef": {"name": "aws"}})),
        )
        .refused(json!({"insecureHttp": false}), "ecs.endpointUrl: plain http"),
    ]
    .into_iter()
    .map(|attempt| attempt.permitted(json!({})))
    .collect()
}

/// It was never run for, nor asked on behalf of.
async fn nothing_was_done(lab: &Lab, liars: [&Liar; 2], name: &str) {
    assert_eq!(lab.timeline.count("create"), 0, "{name}: a container was made");
    for liar in liars {
        assert!(!liar.was_reached(), "{name}: the controller connected");
    }
}

fn stalled(set: &RunnerScaleSet) -> String {
    condition(set, "Stalled").map(|c| c.message.clone()).unwrap_or_default()
}

#[tokio::test]
async fn what_a_line_does_not_permit_is_refused_and_reaches_nobody() {
    lab("lines", async |lab| {
        let (github, other) = (Liar::new().await, Liar::new().await);
        lab.secret("github", [("github_token", DEFAULT_TOKEN)]).await;
        lab.secret("aws", [("aws_access_key_id", "x"), ("aws_secret_access_key", "x")]).await;
        for attempt in attempts(&github, &other) {
            let name = attempt.name;
            // The policy of a controller that starts is in force from its first look.
            lab.policy(&policy(attempt.refusing));
            let controller = lab.start();
            lab.apply(&attempt.manifest.named(name)).await;
            let set = lab.until_is(name, "Stalled", "True", Some("NotPermitted")).await;
            let message = stalled(&set);
            assert!(message.contains(attempt.says), "{name}: {message}");
            assert!(is(&set, "Ready", "False", Some("NotPermitted")), "{name}");
            assert!(is(&set, "Reconciling", "False", None), "{name}");
            let event = lab.event(name, "NotPermitted").await;
            assert!(event.contains(attempt.says), "{name}: {event}");
            nothing_was_done(lab, [&github, &other], name).await;

            // The line is there: what comes next is what the spec leads to.
            lab.policy(&policy(attempt.permitting));
            lab.until(name, "it is not refused any more", |set| {
                !is(set, "Stalled", "True", Some("NotPermitted"))
            })
            .await;
            if ["github-host", "plain-http", "namespaces", "host-socket", "host-network"].contains(&name) {
                eventually(&format!("{name}: GitHub is asked"), PATIENCE, async || {
                    github.was_reached().then_some(())
                })
                .await;
            }
            // Whoever never answers keeps its object for long.
            controller.kill().await;
            lab.delete_by_force(name).await;
            // What its last try left in the backlog is no news of the next.
            while github.was_reached() || other.was_reached() {}
        }
    })
    .await;
}

/// A lie about where ECS is would get calls signed with the controller's own identity.
#[tokio::test]
async fn the_controllers_aws_identity_goes_to_aws_alone() {
    lab("aws-identity", async |lab| {
        let (github, liar) = (Liar::new().await, Liar::new().await);
        lab.policy(&policy(json!({})));
        let _controller = lab.start_with(&[("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "x")]);
        let ecs = json!({
            "region": "eu-west-1", "cluster": "c", "taskDefinition": "t", "endpointUrl": format!("http://{}", liar.address()),
        });
        lab.apply(&sample(&github).spec(json!({"backends": [{"name": "aws", "ecs": ecs}]}))).await;
        let set = lab.until_is("linux", "Stalled", "True", Some("NotPermitted")).await;
        assert!(stalled(&set).ends_with("give credentialsSecretRef"), "{}", stalled(&set));
        nothing_was_done(lab, [&github, &liar], "aws").await;
        // With credentials of the tenant's own it is his affair where they go.
        lab.secret("aws", [("aws_access_key_id", "x"), ("aws_secret_access_key", "x")]).await;
        lab.secret("github", [("github_token", DEFAULT_TOKEN)]).await;
        let mut own = ecs.clone();
        own["credentialsSecretRef"] = json!({"name": "aws"});
        lab.apply(&sample(&github).spec(json!({"backends": [{"name": "aws", "ecs": own}]}))).await;
        eventually("the tenant's own host is reached", PATIENCE, async || liar.was_reached().then_some(())).await;
    })
    .await;
}
