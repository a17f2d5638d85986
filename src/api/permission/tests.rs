//! What the operator's policy lets a spec have, line by line.

use serde_json::{Value, json};

use crate::api::{
    BackendType, NETWORK_OF_SET, OperatorPolicy, PullPolicy, Reason, RunnerScaleSetSpec, enforce,
    only_permitted_hosts, permits_github, permits_host, violations,
};

/// Spells endpoints as a machine does on which `/var/run` is a link to `/run`.
fn spelling(kind: BackendType, endpoint: &str) -> Option<String> {
    match kind {
        BackendType::Docker => Some(endpoint.strip_prefix("unix://").map(|path| {
            format!("unix://{}", path.replacen("/var/run/", "/run/", 1).replace("/x/../", "/"))
        })?),
        _ if endpoint == "local" => Some(endpoint.to_owned()),
        _ => Some(endpoint.strip_prefix("ssh://")?.to_ascii_lowercase().trim_end_matches(":22").to_owned())
            .map(|rest| format!("ssh://{rest}")),
    }
}

fn policy(yaml: &str) -> OperatorPolicy {
    OperatorPolicy::from_yaml(yaml).unwrap()
}

fn spec(github: Value, backend: Value) -> RunnerScaleSetSpec {
    let mut spec = json!({
        "github": {"url": "https://github.com/acme", "credentialsSecretRef": {"name": "github"}},
        "backends": [{"name": "rack"}],
    });
    let merge = |into: &mut Value, from: Value| {
        into.as_object_mut().unwrap().extend(from.as_object().unwrap().clone());
    };
    merge(&mut spec["github"], github);
    merge(&mut spec["backends"][0], backend);
    serde_json::from_value(spec).unwrap()
}

fn of(yaml: &str, spec: &RunnerScaleSetSpec) -> Vec<String> {
    let found = violations(&policy(yaml), "ci", spec, &spelling);
    assert!(found.iter().all(|why| why.reason == Reason::NotPermitted));
    found.into_iter().map(|why| why.message).collect()
}

/// It is refused in these words, and permitted by the other policy.
fn refused(yaml: &str, spec: &RunnerScaleSetSpec, words: &str, permitting: &str) {
    assert_eq!(of(yaml, spec), [words]);
    assert!(of(permitting, spec).is_empty(), "{permitting}: {:?}", of(permitting, spec));
}

fn docker(docker: Value) -> RunnerScaleSetSpec {
    spec(json!({}), json!({"docker": docker}))
}

fn engine(endpoint: &str) -> RunnerScaleSetSpec {
    docker(json!({"hosts": [{"name": "a", "endpoint": endpoint}]}))
}

fn mac(endpoint: &str) -> RunnerScaleSetSpec {
    let host = json!({"name": "mac", "endpoint": endpoint, "sshSecretRef": {"name": "mac"}});
    spec(json!({}), json!({"tart": {"image": "m", "hosts": [host]}}))
}

fn ecs(ecs: Value) -> RunnerScaleSetSpec {
    let mut whole = json!({"region": "eu-west-1", "cluster": "runners", "taskDefinition": "runner"});
    whole.as_object_mut().unwrap().extend(ecs.as_object().unwrap().clone());
    spec(json!({}), json!({"ecs": whole}))
}

#[test]
fn the_defaults_permit_what_harms_nobody() {
    for spec in [
        docker(json!({})),
        docker(json!({"hosts": []})),
        docker(json!({"network": ""})),
        docker(json!({"network": "builds", "dockerAccess": "Sidecar"})),
        engine("unix:///run/docker.sock"),
        engine("tcp://10.0.0.7:2376"),
        mac("ssh://ci@mac-1"),
        ecs(json!({})),
    ] {
        assert_eq!(of("", &spec), [""; 0]);
    }
}

#[test]
fn each_line_refuses_what_it_is_for_and_its_remedy_permits_it() {
    refused(
        "",
        &docker(json!({"dockerAccess": "HostSocket"})),
        "spec.backends[rack].docker.dockerAccess: HostSocket is not permitted in namespace ci: rules[0].hostSocket: true \
         would permit it",
        "rules: [{hostSocket: true}]",
    );
    refused(
        "rules: [{privilegedSidecar: false}]",
        &docker(json!({"dockerAccess": "Sidecar"})),
        "spec.backends[rack].docker.dockerAccess: Sidecar is not permitted in namespace ci: rules[0].privilegedSidecar: true \
         would permit it",
        "",
    );
    refused(
        "",
        &spec(json!({"url": "http://ghes/acme", "allowInsecure": true}), json!({"docker": {}})),
        "spec.github.allowInsecure: plain http is not permitted in namespace ci: rules[0].insecureHttp: true would permit it",
        "rules: [{insecureHttp: true}]",
    );
    refused(
        "",
        &docker(json!({"network": "container:db"})),
        "spec.backends[rack].docker.network: container:db is not permitted in namespace ci: rules[0].networks without \
         \"!container:*\" would permit it",
        "rules: [{networks: ['*']}]",
    );
    refused(
        "rules: [{networks: [builds]}]",
        &docker(json!({})),
        "spec.backends[rack].docker.network: bridge is not permitted in namespace ci: rules[0].networks with \"bridge\" would \
         permit it",
        "rules: [{networks: [builds, bridge]}]",
    );
    for hosts in ["unix:///other.sock", ""] {
        let empty = hosts.is_empty();
        let spec = if empty { docker(json!({"hosts": []})) } else { engine(hosts) };
        assert_eq!(of("rules: [{endpoints: ['tcp://*']}]", &spec).len(), 1, "no host is the default host");
    }
    assert_eq!(of("", &spec(json!({}), json!({"tart": {"image": "m", "hosts": []}}))).len(), 1);
    let local = spec(json!({}), json!({"tart": {"image": "m"}}));
    refused(
        "",
        &local,
        "spec.backends[rack].tart.hosts[local].endpoint: local is not permitted in namespace ci: rules[0].endpoints with \
         \"local\" would permit it",
        "rules: [{endpoints: [local]}]",
    );
    refused(
        "rules: [{githubHosts: [github.com]}]",
        &spec(json!({"proxy": {"url": "http://Proxy:3128"}}), json!({"docker": {}})),
        "spec.github.proxy.url: proxy is not permitted in namespace ci: rules[0].githubHosts with \"proxy\" would permit it",
        "rules: [{githubHosts: [github.com, proxy]}]",
    );
    refused(
        "rules: [{controllerAwsIdentity: false}]",
        &ecs(json!({"assumeRoleArn": "arn:aws:iam::1:role/r"})),
        "spec.backends[rack].ecs.credentialsSecretRef: the controller's AWS identity is not permitted in namespace ci: \
         rules[0].controllerAwsIdentity: true would permit it",
        "",
    );
    let secret = json!({"name": "aws"});
    refused(
        "",
        &ecs(json!({"endpointUrl": "http://moto", "credentialsSecretRef": secret})),
        "spec.backends[rack].ecs.endpointUrl: plain http is not permitted in namespace ci: rules[0].insecureHttp: true would \
         permit it",
        "rules: [{insecureHttp: true}]",
    );
    assert!(
        of(
            "rules: [{controllerAwsIdentity: false}]",
            &ecs(json!({"endpointUrl": "https://moto", "credentialsSecretRef": secret}))
        )
        .is_empty()
    );
    let sidecar = json!({"taskDefinition": null, "managedTaskDefinition": {"dockerAccess": "Sidecar"}});
    assert_eq!(of("rules: [{privilegedSidecar: false}]", &ecs(sidecar)).len(), 1);
}

#[test]
fn the_controllers_identity_signs_calls_to_aws_alone() {
    let at = |url: &str| of("rules: [{insecureHttp: true}]", &ecs(json!({"endpointUrl": url})));
    for aws in [
        "https://ecs.eu-west-1.amazonaws.com",
        "https://ECS-fips.eu-west-1.amazonaws.com/",
        "https://ecs.eu-west-1.api.aws",
        "https://vpce-1-a.ecs.eu-west-1.vpce.amazonaws.com",
    ] {
        assert!(at(aws).is_empty(), "{aws}");
    }
    for other in [
        "https://10.0.0.1",
        "https://ecs.eu-west-1.amazonaws.com.evil.org",
        "https://evil.org/ecs.eu-west-1.amazonaws.com",
        "https://evil-1.eu-west-1.elb.amazonaws.com",
        "https://ec2-1-2-3-4.eu-west-1.compute.amazonaws.com",
        "https://ecs.eu-west-1.amazonaws.com@evil.org",
        "http://moto:5000",
    ] {
        let found = at(other);
        assert!(found.len() == 1 && found[0].ends_with("give credentialsSecretRef"), "{other}: {found:?}");
    }
}

#[test]
fn no_other_spelling_lets_in_what_is_refused() {
    let networks = "rules: [{networks: ['*', '!bridge', '!host']}]";
    for network in ["", "default", "bridge", "host", "HOST"] {
        assert_eq!(of(networks, &docker(json!({"network": network}))).len(), 1, "{network:?}");
    }
    let sockets = "rules: [{endpoints: ['unix:///*', '!unix:///var/run/docker.sock']}]";
    for endpoint in ["unix:///run/docker.sock", "unix:///var/run/docker.sock", "unix:///run/x/../docker.sock"]
    {
        assert_eq!(of(sockets, &engine(endpoint)).len(), 1, "{endpoint}");
    }
    let folder = "rules: [{endpoints: ['unix:///var/run/*']}]";
    assert!(of(folder, &engine("unix:///run/other.sock")).is_empty(), "the pattern has two spellings too");
    assert_eq!(of(folder, &engine("unix:///var/run2/docker.sock")).len(), 1);
    let macs = "rules: [{endpoints: ['ssh://*', '!ssh://*@mac-1']}]";
    for endpoint in ["ssh://ci@mac-1", "ssh://ci@MAC-1", "ssh://ci@mac-1:22"] {
        assert_eq!(of(macs, &mac(endpoint)).len(), 1, "{endpoint}");
    }
    assert!(of(macs, &mac("ssh://ci@mac-2")).is_empty());
    let github = |url: &str| spec(json!({"url": url}), json!({"docker": {}}));
    let hosts = "rules: [{githubHosts: ['*', '!ghes.corp', '!127.0.0.1', '!169.254.*']}]";
    for url in [
        "https://GHES.corp/a",
        "https://ghes.corp./a",
        "https://ghes.corp:8443/a",
        "https://0x7f.1/a",
        "https://2852039166/a",
    ] {
        assert_eq!(of(hosts, &github(url)).len(), 1, "{url}");
    }
    assert!(of("rules: [{githubHosts: [GitHub.com]}]", &github("https://github.COM/acme")).is_empty());
}

#[test]
fn the_first_rule_that_names_the_namespace_holds_and_without_one_all_is_refused() {
    let rules = "rules:\n- {namespaces: ['ci-*', '!ci-lab'], hostSocket: true}\n- {namespaces: ['ci*']}\n";
    let spec = docker(json!({"dockerAccess": "HostSocket"}));
    let found = |namespace: &str| {
        let found = violations(&policy(rules), namespace, &spec, &spelling);
        found.into_iter().map(|why| why.message).collect::<Vec<_>>()
    };
    assert!(found("ci-1").is_empty());
    for namespace in ["ci", "ci-lab"] {
        assert!(found(namespace)[0].contains("rules[1].hostSocket"), "{namespace}");
    }
    let none = found("other");
    assert_eq!(
        none,
        [
            "metadata.namespace: no rule of the operator's policy is for namespace other: rules[].namespaces with \"other\" \
             would permit it"
        ]
    );
    assert_eq!(violations(&policy("rules: []"), "ci", &spec, &spelling).len(), 1);
}

#[test]
fn all_violations_are_told_in_the_order_of_the_fields() {
    let mut spec = spec(
        json!({"url": "http://ghes/acme", "allowInsecure": true}),
        json!({"docker": {"network": "host", "dockerAccess": "HostSocket"}}),
    );
    spec.backends.extend(mac("local").backends);
    let found = of("rules: [{githubHosts: [github.com]}]", &spec);
    let fields: Vec<&str> = found.iter().map(|message| message.split(':').next().unwrap()).collect();
    assert_eq!(
        fields,
        [
            "spec.github.url",
            "spec.github.allowInsecure",
            "spec.backends[rack].docker.network",
            "spec.backends[rack].docker.dockerAccess",
            "spec.backends[rack].tart.hosts[mac].endpoint",
        ]
    );
}

#[test]
fn a_host_and_a_github_can_be_judged_alone() {
    let permits =
        |endpoint: &str| permits_host(&policy(""), "ci", (BackendType::Docker, endpoint), &spelling);
    assert!(permits("unix:///var/run/docker.sock") && !permits("unix:///run/other.sock"));
    let mut mixed = engine("unix:///run/other.sock");
    mixed.backends.extend(mac("ssh://ci@mac-1").backends);
    mixed.backends.extend(ecs(json!({})).backends);
    let left = |yaml: &str| only_permitted_hosts(&policy(yaml), "ci", &mixed, &spelling).backends;
    assert!(left("")[0].docker.as_ref().unwrap().hosts.is_empty());
    assert_eq!((left("")[1].clone(), left("").len()), (mixed.backends[1].clone(), 3));
    assert_eq!(left("rules: [{controllerAwsIdentity: false}]").len(), 2);
    assert!(left("rules: []")[1].tart.as_ref().unwrap().hosts.is_empty());
    let spec = docker(json!({"dockerAccess": "HostSocket"}));
    assert!(permits_github(&policy(""), "ci", &spec.github));
    assert!(!permits_github(&policy("rules: [{githubHosts: [ghes]}]"), "ci", &spec.github));
}

#[test]
fn images_are_pulled_always_where_the_policy_wants_it() {
    let pulls = |yaml: &str, namespace: &str| {
        let mut spec = docker(json!({"pullPolicy": "Never"}));
        spec.backends.extend(mac("ssh://ci@mac-1").backends);
        enforce(&policy(yaml), namespace, &mut spec);
        (
            spec.backends[0].docker.as_ref().unwrap().pull_policy,
            spec.backends[1].tart.as_ref().unwrap().pull_policy,
        )
    };
    let yaml = "rules: [{namespaces: [ci], alwaysPullImages: true}, {}]";
    assert_eq!(pulls(yaml, "ci"), (PullPolicy::Always, PullPolicy::Always));
    assert_eq!(pulls(yaml, "other"), (PullPolicy::Never, PullPolicy::IfNotPresent));
}

#[test]
fn who_names_no_network_has_one_of_the_set_alone_where_the_policy_wants_it() {
    let network = |yaml: &str, docker_: Value| {
        let mut spec = docker(docker_);
        enforce(&policy(yaml), "ci", &mut spec);
        spec.backends[0].docker.as_ref().unwrap().network.clone()
    };
    let yaml = "rules: [{networkPerScaleSet: true}]";
    for default in ["", "default", "bridge"] {
        assert_eq!(network(yaml, json!({"network": default})), NETWORK_OF_SET, "{default:?}");
        assert_eq!(network("", json!({"network": default})), default);
        assert_eq!(
            network(
                &format!("rules: [{{namespaces: [other]}}, {{}}]\n# {yaml}"),
                json!({"network": default})
            ),
            default
        );
    }
    assert_eq!(network(yaml, json!({})), NETWORK_OF_SET);
    assert_eq!(network(yaml, json!({"dockerAccess": "HostSocket"})), NETWORK_OF_SET);
    for named in ["builds", "none", "host", "container:db"] {
        assert_eq!(network(yaml, json!({"network": named})), named);
    }
    assert_eq!(network(yaml, json!({"dockerAccess": "Sidecar"})), "bridge", "it is on one of its own");
}

#[test]
fn nothing_leads_to_the_network_of_another_set() {
    let network = |name: &str| docker(json!({"network": name}));
    let ids = ["0", "cafe", "9f3c0a1b2c3d", "container:linux-a1b2c3d4", "container:9f", "ns:/proc/1/ns/net"];
    // An engine takes the beginning of an id for the whole; another's rule is enough.
    let apart = "rules: [{networks: ['*'], namespaces: [ci]}, {networkPerScaleSet: true}]";
    for name in ids.into_iter().chain(["paddock-ci.linux-0a1b2c3d", NETWORK_OF_SET]) {
        let found = of(apart, &network(name));
        let said = "of another scale set, which rules[1].networkPerScaleSet keeps apart";
        assert!(found.len() == 1 && found[0].ends_with(said), "{name}: {found:?}");
        assert_eq!(of("rules: [{networks: ['*']}]", &network(name)), [""; 0]);
    }
    for name in ["", "default", "bridge", "none", "host", "builds", "CAFE", "cafe-1"] {
        assert_eq!(of(apart, &network(name)), [""; 0], "{name}");
    }
}
