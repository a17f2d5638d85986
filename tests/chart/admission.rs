//! The operator's policy in two forms: what the chart's `ValidatingAdmissionPolicy` refuses at the API server, the controller
//! refuses of the same values, and the other way round. One table drives both.

use futures::{StreamExt, stream};
use harness::{PATIENCE, api_server, eventually, merged};
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use paddock::api::{OperatorPolicy, RunnerScaleSet, violations};
use paddock::backend::{self, Requeuer};
use serde_json::{Value, json};

use crate::helm;

/// Rows that are tried at a time, each in a namespace of its own.
const AT_ONCE: usize = 32;

/// A host that every rule takes away, to see whether the policy is in force.
const SENTINEL: &str = "sentinel.invalid";

/// Rules, a spec, and what comes of them.
struct Row {
    rules: Value,
    spec: Value,
    verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Permitted,
    Refused,
    /// CEL cannot judge it: the API server takes it, and the controller refuses.
    LeftToTheController,
}
use Verdict::{LeftToTheController, Permitted, Refused};

fn row(rules: Value, spec: Value, verdict: Verdict) -> Row {
    Row { rules, spec, verdict }
}

fn github(github: Value) -> Value {
    json!({"github": github})
}

fn docker(docker: Value) -> Value {
    json!({"backends": [{"name": "rack", "docker": docker}]})
}

fn engine(endpoint: &str) -> Value {
    let mut host = json!({"name": "a", "endpoint": endpoint});
    if endpoint.starts_with("ssh://") {
        host["sshSecretRef"] = json!({"name": "ssh"});
    }
    docker(json!({"hosts": [host]}))
}

fn mac(endpoint: &str) -> Value {
    let host = json!({"name": "mac", "endpoint": endpoint, "sshSecretRef": {"name": "mac"}});
    json!({"backends": [{"name": "mac", "tart": {"image": "m", "hosts": [host]}}]})
}

fn ecs(changes: Value) -> Value {
    let whole = json!({"region": "eu-west-1", "cluster": "runners", "taskDefinition": "runner"});
    json!({"backends": [{"name": "aws", "ecs": merged(whole, changes)}]})
}

fn namespaces() -> Vec<Row> {
    let host_socket = || docker(json!({"dockerAccess": "HostSocket"}));
    vec![
        row(json!([]), json!({}), Refused),
        row(json!([{"namespaces": ["ci"]}]), json!({}), Refused),
        row(json!([{"namespaces": []}]), json!({}), Refused),
        row(json!([{"namespaces": ["test-*"]}]), json!({}), Permitted),
        row(json!([{"namespaces": ["*", "!test-*"]}]), json!({}), Refused),
        row(json!([{"namespaces": ["*", "!TEST-*"]}]), json!({}), Refused),
        row(json!([{"namespaces": ["test-*"], "hostSocket": true}, {}]), host_socket(), Permitted),
        row(json!([{}, {"namespaces": ["test-*"], "hostSocket": true}]), host_socket(), Refused),
        row(json!([{"namespaces": ["ci"], "hostSocket": true}, {}]), host_socket(), Refused),
        row(json!([{"namespaces": ["ci"]}, {"hostSocket": true}]), host_socket(), Permitted),
    ]
}

fn switches() -> Vec<Row> {
    let http = || github(json!({"url": "http://ghes.corp/acme", "allowInsecure": true}));
    let sidecar = || {
        ecs(json!({
            "taskDefinition": null, "launchType": "EC2",
            "managedTaskDefinition": {"image": "r", "networkMode": "bridge", "dockerAccess": "Sidecar"},
        }))
    };
    let ecs_http =
        || ecs(json!({"endpointUrl": "http://moto:5000", "credentialsSecretRef": {"name": "aws"}}));
    vec![
        row(json!([{}]), json!({}), Permitted),
        row(json!([{}]), docker(json!({"dockerAccess": "HostSocket"})), Refused),
        row(json!([{"hostSocket": true}]), docker(json!({"dockerAccess": "HostSocket"})), Permitted),
        row(json!([{}]), docker(json!({"dockerAccess": "Sidecar"})), Permitted),
        row(json!([{"privilegedSidecar": false}]), docker(json!({"dockerAccess": "Sidecar"})), Refused),
        row(json!([{}]), sidecar(), Permitted),
        row(json!([{"privilegedSidecar": false}]), sidecar(), Refused),
        row(json!([{}]), http(), Refused),
        row(json!([{"insecureHttp": true}]), http(), Permitted),
        row(json!([{}]), ecs_http(), Refused),
        row(json!([{"insecureHttp": true}]), ecs_http(), Permitted),
    ]
}

fn networks() -> Vec<Row> {
    let network = |name: &str| docker(json!({"network": name}));
    let apart = || json!([{"networks": ["*"]}, {"namespaces": ["another"], "networkPerScaleSet": true}]);
    vec![
        row(json!([{}]), network("builds"), Permitted),
        row(json!([{}]), network("host"), Refused),
        row(json!([{}]), network("HOST"), Refused),
        row(json!([{}]), network("container:db"), Refused),
        row(json!([{"networks": ["*"]}]), network("host"), Permitted),
        row(json!([{"networks": ["builds"]}]), json!({}), Refused),
        row(json!([{"networks": ["builds", "bridge"]}]), json!({}), Permitted),
        row(json!([{"networks": ["*", "!bridge"]}]), network("default"), Refused),
        row(json!([{"networks": ["a.c"]}]), network("abc"), Refused),
        row(json!([{"networks": ["a*c*e"]}]), network("abcde"), Permitted),
        row(json!([{"networks": ["!host"]}]), network("builds"), Refused),
        row(json!([{"networks": ["*"]}]), network("paddock-ci.linux-0a1b2c3d"), Permitted),
        row(apart(), network("paddock-ci.linux-0a1b2c3d"), Refused),
        row(json!([{"networks": ["*"]}]), network("cafe"), Permitted),
        row(json!([{"networks": ["*"]}]), network("container:db"), Permitted),
        row(apart(), network("cafe"), Refused),
        row(apart(), network("container:db"), Refused),
        row(apart(), network("cafe-1"), Permitted),
        row(apart(), network("bridge"), Permitted),
        row(json!([{"networks": ["it's \"odd\"", "a+(b)"]}]), network("a+(b)"), Permitted),
    ]
}

fn endpoints() -> Vec<Row> {
    let only = |globs: Value| json!([{"endpoints": globs}]);
    let local_mac = || json!({"backends": [{"name": "mac", "tart": {"image": "m"}}]});
    let sockets = || only(json!(["unix:///*", "!unix:///var/run/docker.sock"]));
    let macs = || only(json!(["ssh://*", "!ssh://*@mac-1"]));
    vec![
        row(json!([{}]), engine("unix:///run/docker.sock"), Permitted),
        row(json!([{}]), engine("unix:///srv/docker.sock"), Refused),
        row(json!([{}]), engine("unix:///var/run/other.sock"), Refused),
        row(json!([{}]), engine("tcp://10.0.0.7:2376"), Permitted),
        row(json!([{}]), engine("ssh://ci@rack-1"), Permitted),
        row(only(json!(["unix:///srv/*"])), engine("unix:///srv/docker.sock"), Permitted),
        row(only(json!(["unix:///var/run/*"])), engine("unix:///run/other.sock"), Permitted),
        row(only(json!(["tcp://*"])), json!({}), Refused),
        row(only(json!(["tcp://rack-1:*"])), engine("tcp://RACK-1:2376"), Permitted),
        row(sockets(), engine("unix:///run/docker.sock"), Refused),
        row(sockets(), engine("unix:///srv/docker.sock"), Permitted),
        row(sockets(), engine("unix:///run/../run/docker.sock"), LeftToTheController),
        row(json!([{}]), local_mac(), Refused),
        row(only(json!(["local"])), local_mac(), Permitted),
        row(json!([{}]), mac("ssh://ci@mac-1"), Permitted),
        row(macs(), mac("ssh://ci@mac-2"), Permitted),
        row(macs(), mac("ssh://ci@mac-1"), Refused),
        row(macs(), mac("ssh://ci@MAC-1"), Refused),
        row(macs(), mac("ssh://ci@mac-1:22"), Refused),
        row(macs(), mac("ssh://ci@mac-1:2222"), Permitted),
        row(macs(), mac("ssh://ci@mac-1."), LeftToTheController),
        row(only(json!(["ssh://ci@MAC-1:22"])), mac("ssh://ci@mac-1"), Permitted),
        row(only(json!(["ssh://ci@mac-1"])), mac("ssh://ci@mac-1:22"), Permitted),
    ]
}

fn github_hosts() -> Vec<Row> {
    let only = |globs: Value| json!([{"githubHosts": globs}]);
    let at = |url: &str| github(json!({"url": url}));
    let through = |proxy: &str| github(json!({"proxy": {"url": proxy}}));
    let some = || only(json!(["*", "!ghes.corp", "!169.254.*", "!127.0.0.1"]));
    vec![
        row(only(json!(["github.com"])), json!({}), Permitted),
        row(only(json!(["GitHub.com."])), at("https://github.COM/acme"), Permitted),
        row(only(json!(["*.corp"])), json!({}), Refused),
        row(only(json!(["*.corp"])), at("https://ghes.corp/acme"), Permitted),
        row(some(), at("https://ghes.corp/acme"), Refused),
        row(some(), at("https://GHES.corp:8443/acme"), Refused),
        row(some(), at("https://ghes.corp./acme"), Refused),
        row(some(), at("https://169.254.169.254/acme"), Refused),
        row(some(), at("https://10.1.2.3/acme"), Permitted),
        row(some(), at("https://0x7f.1/acme"), LeftToTheController),
        row(some(), at("https://2852039166/acme"), LeftToTheController),
        row(only(json!(["github.com"])), through("http://proxy:3128"), Refused),
        row(only(json!(["github.com", "proxy"])), through("http://Proxy:3128"), Permitted),
        row(only(json!(["*", "![fe80::1]"])), through("http://[FE80::1]:3128"), Refused),
        row(only(json!(["*", "![fe80::1]"])), through("http://[fe80::2]:3128"), Permitted),
    ]
}

fn aws() -> Vec<Row> {
    let secret = json!({"name": "aws"});
    let at = |url: &str| ecs(json!({"endpointUrl": url}));
    vec![
        row(json!([{}]), ecs(json!({})), Permitted),
        row(json!([{"controllerAwsIdentity": false}]), ecs(json!({})), Refused),
        row(
            json!([{"controllerAwsIdentity": false}]),
            ecs(json!({"credentialsSecretRef": secret})),
            Permitted,
        ),
        row(json!([{}]), at("https://ecs.eu-west-1.amazonaws.com"), Permitted),
        row(json!([{}]), at("https://ECS-fips.eu-west-1.amazonaws.com./"), Permitted),
        row(json!([{}]), at("https://vpce-1-a.ecs.eu-west-1.vpce.amazonaws.com"), Permitted),
        row(json!([{}]), at("https://ecs.eu-west-2.amazonaws.com"), Refused),
        row(json!([{}]), at("https://evil.org/ecs.eu-west-1.amazonaws.com"), Refused),
        row(
            json!([{}]),
            ecs(json!({"endpointUrl": "https://moto", "credentialsSecretRef": secret})),
            Permitted,
        ),
        row(
            json!([{"hostSocket": true}]),
            json!({"backends": [{"name": "rack", "docker": {}}, ecs(json!({"endpointUrl": "https://moto"}))["backends"][0]]}),
            Refused,
        ),
    ]
}

fn manifest(namespace: &str, spec: &Value) -> Value {
    let plain = json!({
        "apiVersion": "paddock.dev/v1alpha1", "kind": "RunnerScaleSet",
        "metadata": {"name": "linux", "namespace": namespace},
        "spec": {
            "github": {"url": "https://github.com/acme", "credentialsSecretRef": {"name": "github"}},
            "backends": [{"name": "rack", "docker": {}}],
        },
    });
    merged(plain, json!({"spec": spec}))
}

/// The rules, and in each that the sentinel is not let in.
fn with_sentinel(rules: &Value) -> Value {
    let mut rules = rules.clone();
    for rule in rules.as_array_mut().unwrap() {
        let mut hosts = rule.get("githubHosts").cloned().unwrap_or(json!(["*"]));
        hosts.as_array_mut().unwrap().push(json!(format!("!{SENTINEL}")));
        rule["githubHosts"] = hosts;
    }
    rules
}

/// The policy of a release of the chart in one namespace, in its two forms.
struct Installed {
    client: Client,
    namespace: String,
    name: String,
    policy: OperatorPolicy,
}

impl Installed {
    /// Installs it, and waits until the API server has it in force.
    async fn new(client: Client, namespace: &str, rules: &Value) -> Installed {
        let values = json!({"watchNamespaces": [namespace], "policy": {"rules": with_sentinel(rules)}});
        let objects = helm::objects(namespace, namespace, &values).await;
        let document = &helm::find(&objects, "ConfigMap", "-policy")["data"]["policy.yaml"];
        let policy = helm::find(&objects, "ValidatingAdmissionPolicy", "paddock");
        let name = policy["metadata"]["name"].as_str().unwrap().to_owned();
        let binding = helm::find(&objects, "ValidatingAdmissionPolicyBinding", "paddock");
        let params = PatchParams::apply("tests").force();
        let policies: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
        policies.patch(&name, &params, &Patch::Apply(policy)).await.unwrap();
        let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client.clone());
        bindings.patch(&name, &params, &Patch::Apply(binding)).await.unwrap();
        let policy = OperatorPolicy::from_yaml(document.as_str().unwrap()).unwrap();
        let installed = Installed { client, namespace: namespace.to_owned(), name, policy };
        let mut sentinel = manifest(namespace, &github(json!({"url": format!("https://{SENTINEL}/acme")})));
        sentinel["metadata"]["name"] = json!("sentinel");
        eventually("the policy is in force", PATIENCE, async || installed.admission(&sentinel).await.err())
            .await;
        installed
    }

    fn sets(&self) -> Api<DynamicObject> {
        let resource = ApiResource::erase::<RunnerScaleSet>(&());
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
    }

    /// What the API server says against a manifest.
    async fn admission(&self, manifest: &Value) -> Result<(), String> {
        let params = PostParams { dry_run: true, ..PostParams::default() };
        let object: DynamicObject = serde_json::from_value(manifest.clone()).unwrap();
        match self.sets().create(&params, &object).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.message.contains("ValidatingAdmissionPolicy") => {
                Err(status.message)
            }
            Err(error) => panic!("{manifest}: {error}"),
        }
    }

    /// What the controller says against it.
    fn controller(&self, manifest: &Value) -> Vec<String> {
        let set: RunnerScaleSet = serde_json::from_value(manifest.clone()).unwrap();
        let providers = backend::providers("tests", &Requeuer::new(|_| {}));
        let spelling = |kind, endpoint: &str| providers.spelling(kind, endpoint);
        let violations = violations(&self.policy, &self.namespace, &set.spec, &spelling);
        violations.into_iter().map(|why| why.message).collect()
    }

    async fn remove(self) {
        let params = DeleteParams::default();
        let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(self.client.clone());
        bindings.delete(&self.name, &params).await.unwrap();
        let policies: Api<ValidatingAdmissionPolicy> = Api::all(self.client);
        policies.delete(&self.name, &params).await.unwrap();
    }
}

/// Tries a row; says what is not as it should be.
async fn judge(row: Row) -> Vec<String> {
    let mut wrong = Vec::new();
    api_server::in_namespace(async |client, namespace| {
        let installed = Installed::new(client, namespace, &row.rules).await;
        let manifest = manifest(namespace, &row.spec);
        let (admission, controller) = (installed.admission(&manifest).await, installed.controller(&manifest));
        let verdict = match (&admission, controller.is_empty()) {
            (Ok(()), true) => Some(Permitted),
            (Err(_), false) => Some(Refused),
            (Ok(()), false) => Some(LeftToTheController),
            (Err(_), true) => None,
        };
        let case = format!("{} of {}", row.spec, row.rules);
        if verdict != Some(row.verdict) {
            wrong.push(format!("{case}: not {:?}: {admission:?}, {controller:?}", row.verdict));
        } else if let Err(said) = admission {
            // The same fields, in the same words.
            let told = |why: &&String| {
                !said.contains(why.split_once(" is not permitted").map_or(why.as_str(), |(told, _)| told))
            };
            wrong.extend(controller.iter().filter(told).map(|why| format!("{case}: {why} is not in {said}")));
        }
        installed.remove().await;
    })
    .await;
    wrong
}

#[tokio::test]
async fn the_admission_policy_and_the_controller_refuse_the_same() {
    let tables = [namespaces(), switches(), networks(), endpoints(), github_hosts(), aws()];
    let rows: Vec<Row> = tables.into_iter().flatten().collect();
    assert!(rows.len() > 80, "{}", rows.len());
    let wrong: Vec<Vec<String>> = stream::iter(rows).map(judge).buffer_unordered(AT_ONCE).collect().await;
    let wrong = wrong.concat();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The API server gives each judgement so much time and no more.
#[tokio::test]
async fn what_costs_too_much_to_judge_is_left_to_the_controller() {
    let hosts = |count: usize, endpoint: &dyn Fn(String) -> String| -> Value {
        let name = |i: usize| format!("{i}-{}", "x".repeat(200));
        let host = |i: usize| json!({"name": format!("host-{i}"), "endpoint": endpoint(name(i))});
        (0..count).map(host).collect()
    };
    let mut globs: Vec<String> = (0..30).map(|i| format!("tcp://host-{i}-*.example.com:*")).collect();
    globs.extend(["tcp://*", "!tcp://evil*"].map(str::to_owned));
    let rules = json!([{"endpoints": globs}]);
    api_server::in_namespace(async |client, namespace| {
        let installed = Installed::new(client, namespace, &rules).await;
        let of = |count: usize, host: &str| {
            let endpoint = |name: String| format!("tcp://{host}{name}:2376");
            manifest(namespace, &docker(json!({"hosts": hosts(count, &endpoint)})))
        };
        assert_eq!(installed.admission(&of(16, "rack")).await, Ok(()));
        let said = installed.admission(&of(16, "evil")).await.unwrap_err();
        assert!(said.contains("docker.hosts[host-0].endpoint") && said.ends_with('…'), "{said}");
        let mut large = of(64, "evil");
        let backend = large["spec"]["backends"][0].clone();
        let more = |i: usize| merged(backend.clone(), json!({"name": format!("rack-{i}")}));
        large["spec"]["backends"] = (0..8).map(more).collect();
        assert_eq!(installed.admission(&large).await, Ok(()));
        assert_eq!(installed.controller(&large).len(), 512);
        installed.remove().await;
    })
    .await;
}

/// A policy that became stricter keeps nobody from taking a finalizer off, or from applying again what is there.
#[tokio::test]
async fn what_was_permitted_once_can_be_kept_labelled_and_deleted() {
    api_server::in_namespace(async |client, namespace| {
        let resource = ApiResource::erase::<RunnerScaleSet>(&());
        let sets: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
        let mut manifest = manifest(namespace, &docker(json!({"dockerAccess": "HostSocket"})));
        manifest["metadata"]["finalizers"] = json!(["paddock.dev/drain"]);
        let params = PatchParams::apply("kubectl");
        sets.patch("linux", &params, &Patch::Apply(&manifest)).await.unwrap();
        let installed = Installed::new(client, namespace, &json!([{}])).await;
        manifest["metadata"]["labels"] = json!({"team": "ci"});
        sets.patch("linux", &params, &Patch::Apply(&manifest)).await.unwrap();
        let grown = merged(manifest.clone(), json!({"spec": {"maxRunners": 7}}));
        let error = sets.patch("linux", &params, &Patch::Apply(&grown)).await.unwrap_err();
        assert!(error.to_string().contains("docker.dockerAccess: HostSocket is not permitted"), "{error}");
        sets.delete("linux", &DeleteParams::default()).await.unwrap();
        let stripped = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        sets.patch("linux", &PatchParams::default(), &stripped).await.unwrap();
        let gone = async || sets.get_opt("linux").await.unwrap().is_none().then_some(());
        eventually("it is gone", PATIENCE, gone).await;
        installed.remove().await;
    })
    .await;
}
