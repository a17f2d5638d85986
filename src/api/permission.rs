//! What of a spec the operator's policy does not permit. No IO: whoever asks knows how endpoints are spelt.

#[cfg(test)]
mod tests;

use reqwest::Url;

use super::docker::NAMES_OF_SETS;
use super::{
    BackendType, Docker, DockerAccess, DockerHost, Ecs, EcsDockerAccess, Explanation, GitHub, Globs,
    NETWORK_OF_SET, OperatorPolicy, PolicyRule, PullPolicy, Reason, RunnerScaleSetSpec, Tart, TartHost,
    glob_matches, is_default_network,
};

/// Tells the one spelling that an endpoint has among the hosts of a kind; none where it can be none of them.
pub type Spelling<'a> = &'a dyn Fn(BackendType, &str) -> Option<String>;

/// AWS's own domains.
const AWS: [&str; 3] = ["amazonaws.com", "amazonaws.com.cn", "api.aws"];

/// Lists what the policy does not permit of a spec in a namespace, in the order of the spec's fields. Each message names the
/// field, and the line of the policy that would permit it.
pub fn violations(
    policy: &OperatorPolicy,
    namespace: &str,
    spec: &RunnerScaleSetSpec,
    spelling: Spelling<'_>,
) -> Vec<Explanation> {
    let Some(mut compared) = Compared::new(policy, namespace, spelling) else {
        let message = format!(
            "metadata.namespace: no rule of the operator's policy is for namespace {namespace}: \
             rules[].namespaces with \"{namespace}\" would permit it"
        );
        return vec![Explanation::new(Reason::NotPermitted, message)];
    };
    compared.github(&spec.github);
    for backend in &spec.backends {
        let field = format!("spec.backends[{}]", backend.name);
        backend.docker.iter().for_each(|docker| compared.docker(&format!("{field}.docker"), docker));
        backend.tart.iter().for_each(|tart| compared.tart(&format!("{field}.tart"), tart));
        backend.ecs.iter().for_each(|ecs| compared.ecs(&format!("{field}.ecs"), ecs));
    }
    compared.violations
}

/// Makes a spec as strict as the policy wants it where nothing is refused.
pub fn enforce(policy: &OperatorPolicy, namespace: &str, spec: &mut RunnerScaleSetSpec) {
    let Some((_, rule)) = rule_of(policy, namespace) else { return };
    for backend in &mut spec.backends {
        if rule.always_pull_images {
            backend.docker.iter_mut().for_each(|docker| docker.pull_policy = PullPolicy::Always);
            backend.tart.iter_mut().for_each(|tart| tart.pull_policy = PullPolicy::Always);
        }
        // Beside a private engine a runner has a network of its own there already.
        let shares = |docker: &&mut Docker| {
            is_default_network(&docker.network) && docker.docker_access != DockerAccess::Sidecar
        };
        if rule.network_per_scale_set {
            let sharing = backend.docker.iter_mut().filter(shares);
            sharing.for_each(|docker| NETWORK_OF_SET.clone_into(&mut docker.network));
        }
    }
}

/// Tells whether a namespace may have runners on a host of which no more is known than its endpoint.
pub fn permits_host(
    policy: &OperatorPolicy,
    namespace: &str,
    (kind, endpoint): (BackendType, &str),
    spelling: Spelling<'_>,
) -> bool {
    rule_of(policy, namespace).is_some_and(|(_, rule)| match kind {
        BackendType::Ecs => rule.controller_aws_identity,
        kind => compare_endpoint(&rule.endpoints, kind, endpoint, spelling) == Standing::Permitted,
    })
}

/// Leaves of a spec the hosts that the namespace may have runners on.
pub fn only_permitted_hosts(
    policy: &OperatorPolicy,
    namespace: &str,
    spec: &RunnerScaleSetSpec,
    spelling: Spelling<'_>,
) -> RunnerScaleSetSpec {
    let mut spec = spec.clone();
    let permits = |kind, endpoint: &str| permits_host(policy, namespace, (kind, endpoint), spelling);
    for backend in &mut spec.backends {
        let docker = backend.docker.iter_mut();
        docker.for_each(|docker| docker.hosts.retain(|host| permits(BackendType::Docker, &host.endpoint)));
        let tart = backend.tart.iter_mut();
        tart.for_each(|tart| tart.hosts.retain(|host| permits(BackendType::Tart, &host.endpoint)));
    }
    spec.backends.retain(|backend| {
        backend.ecs.as_ref().is_none_or(|ecs| {
            Compared::new(policy, namespace, spelling).is_some_and(|mut compared| {
                compared.ecs("", ecs);
                compared.violations.is_empty()
            })
        })
    });
    spec
}

/// Tells whether a namespace may have its sets at that GitHub, over that proxy and in that way.
pub fn permits_github(policy: &OperatorPolicy, namespace: &str, github: &GitHub) -> bool {
    let Some(mut compared) = Compared::new(policy, namespace, &|_, _| None) else { return false };
    compared.github(github);
    compared.violations.is_empty()
}

fn rule_of<'a>(policy: &'a OperatorPolicy, namespace: &str) -> Option<(usize, &'a PolicyRule)> {
    let holds = |rule: &PolicyRule| compare(&rule.namespaces, namespace, &[namespace]) == Standing::Permitted;
    policy.rules.iter().enumerate().find(|(_, rule)| holds(rule))
}

/// What a list of patterns says of a text.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    Permitted,
    /// No pattern lets it in.
    Unlisted,
    /// This pattern takes it away.
    Excluded(String),
}

/// Compares what has one `canonical` spelling and perhaps others: the canonical one must be let in, and none may be taken away.
fn compare(globs: &Globs, canonical: &str, spellings: &[&str]) -> Standing {
    compare_by(globs, canonical, spellings, |pattern| vec![pattern.to_owned()])
}

/// The same, of patterns that have further spellings themselves.
fn compare_by(
    globs: &Globs,
    canonical: &str,
    spellings: &[&str],
    respell: impl Fn(&str) -> Vec<String>,
) -> Standing {
    // What is taken away is so in upper case too.
    let excludes = |pattern: &&str| {
        let matches = |pattern: &String, text: &str| {
            glob_matches(&pattern.to_ascii_lowercase(), &text.to_ascii_lowercase())
        };
        let texts = || spellings.iter().copied().chain([canonical]);
        respell(pattern).iter().any(|pattern| texts().any(|text| matches(pattern, text)))
    };
    if let Some(pattern) = globs.excluding().find(excludes) {
        return Standing::Excluded(pattern.to_owned());
    }
    let permits = |pattern: &str| respell(pattern).iter().any(|pattern| glob_matches(pattern, canonical));
    if globs.permitting().any(permits) { Standing::Permitted } else { Standing::Unlisted }
}

fn compare_endpoint(globs: &Globs, kind: BackendType, endpoint: &str, spelling: Spelling<'_>) -> Standing {
    let canonical = spelling(kind, endpoint).unwrap_or_else(|| endpoint.to_ascii_lowercase());
    compare_by(globs, &canonical, &[endpoint], |pattern| {
        let respelled = respell(pattern, |text| spelling(kind, text));
        std::iter::once(pattern.to_owned()).chain(respelled).collect()
    })
}

/// Spells a pattern as its endpoints are: `/var/run` may be a link to `/run`. Of one with a `*`, the folder before it.
fn respell(pattern: &str, spell: impl Fn(&str) -> Option<String>) -> Option<String> {
    const ANY: &str = "x";
    let Some(star) = pattern.find('*') else { return spell(pattern) };
    let folder = pattern[..star].rfind('/')? + 1;
    let spelt = spell(&format!("{}{ANY}", &pattern[..folder]))?;
    Some(format!("{}{}", spelt.strip_suffix(ANY)?, &pattern[folder..]))
}

/// One spec beside the rule for its namespace, and what the rule does not permit of it.
struct Compared<'a> {
    namespace: &'a str,
    number: usize,
    rule: &'a PolicyRule,
    /// The first rule of all that gives scale sets networks of their own.
    networks_of_sets: Option<usize>,
    spelling: Spelling<'a>,
    violations: Vec<Explanation>,
}

impl<'a> Compared<'a> {
    /// None where no rule is for the namespace.
    fn new(policy: &'a OperatorPolicy, namespace: &'a str, spelling: Spelling<'a>) -> Option<Self> {
        let (number, rule) = rule_of(policy, namespace)?;
        let networks_of_sets = policy.rules.iter().position(|rule| rule.network_per_scale_set);
        Some(Compared { namespace, number, rule, networks_of_sets, spelling, violations: Vec::new() })
    }

    fn github(&mut self, github: &GitHub) {
        let rule = self.rule;
        self.github_host("spec.github.url", &github.url);
        if github.allow_insecure && !rule.insecure_http {
            self.needs("spec.github.allowInsecure", "plain http", "insecureHttp");
        }
        if let Some(proxy) = &github.proxy {
            self.github_host("spec.github.proxy.url", &proxy.url);
        }
    }

    fn github_host(&mut self, field: &str, url: &str) {
        let host = host_of(url);
        let globs = &self.rule.github_hosts;
        let standing =
            compare_by(globs, &host, &[], |pattern| vec![pattern.trim_end_matches('.').to_ascii_lowercase()]);
        self.note(field, &host, "githubHosts", standing);
    }

    fn docker(&mut self, field: &str, docker: &Docker) {
        let default = docker.hosts.is_empty().then(DockerHost::local);
        for host in docker.hosts.iter().chain(&default) {
            self.endpoint(field, BackendType::Docker, (&host.name, &host.endpoint));
        }
        self.network(&format!("{field}.network"), &docker.network);
        let field = format!("{field}.dockerAccess");
        match docker.docker_access {
            DockerAccess::HostSocket if !self.rule.host_socket => {
                self.needs(&field, "HostSocket", "hostSocket");
            }
            DockerAccess::Sidecar if !self.rule.privileged_sidecar => {
                self.needs(&field, "Sidecar", "privilegedSidecar");
            }
            _ => {}
        }
    }

    /// Where scale sets have networks of their own, nothing leads to another's, whatever else is permitted: not its name, no id,
    /// of which Docker takes a part for the whole, and no `container:`.
    fn network(&mut self, field: &str, named: &str) {
        let network = if is_default_network(named) { "bridge" } else { named };
        let standing = compare(&self.rule.networks, network, &[named]);
        self.note(field, network, "networks", standing);
        let is_id = network.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
        let leads_there = is_id || network.contains(':') || network.starts_with(NAMES_OF_SETS);
        if let Some(number) = self.networks_of_sets.filter(|_| leads_there) {
            let remedy = format!(
                "it may lead to the network of another scale set, which rules[{number}].networkPerScaleSet keeps apart"
            );
            self.refuse(field, network, &remedy);
        }
    }

    fn tart(&mut self, field: &str, tart: &Tart) {
        let default = tart.hosts.is_empty().then(TartHost::local);
        for host in tart.hosts.iter().chain(&default) {
            self.endpoint(field, BackendType::Tart, (&host.name, &host.endpoint));
        }
    }

    fn endpoint(&mut self, field: &str, kind: BackendType, (name, endpoint): (&str, &str)) {
        let standing = compare_endpoint(&self.rule.endpoints, kind, endpoint, self.spelling);
        self.note(&format!("{field}.hosts[{name}].endpoint"), endpoint, "endpoints", standing);
    }

    fn ecs(&mut self, field: &str, ecs: &Ecs) {
        let endpoint = format!("{field}.endpointUrl");
        if ecs.endpoint_url.to_ascii_lowercase().starts_with("http://") && !self.rule.insecure_http {
            self.needs(&endpoint, "plain http", "insecureHttp");
        }
        if ecs.credentials_secret_ref.is_none() {
            if !self.rule.controller_aws_identity {
                let field = format!("{field}.credentialsSecretRef");
                self.needs(&field, "the controller's AWS identity", "controllerAwsIdentity");
            } else if !ecs.endpoint_url.is_empty() && !is_ecs_of_aws(&host_of(&ecs.endpoint_url), &ecs.region)
            {
                // Whoever is there would get calls that are signed with the controller's identity.
                let what = "an endpoint that is not AWS's with the controller's AWS identity";
                self.refuse(&endpoint, what, "give credentialsSecretRef");
            }
        }
        let sidecar =
            ecs.managed_task_definition.as_ref().is_some_and(|d| d.docker_access == EcsDockerAccess::Sidecar);
        if sidecar && !self.rule.privileged_sidecar {
            let field = format!("{field}.managedTaskDefinition.dockerAccess");
            self.needs(&field, "Sidecar", "privilegedSidecar");
        }
    }

    fn note(&mut self, field: &str, what: &str, list: &str, standing: Standing) {
        let rule = format!("rules[{}].{list}", self.number);
        match standing {
            Standing::Permitted => {}
            Standing::Unlisted => {
                self.refuse(field, what, &format!("{rule} with \"{what}\" would permit it"));
            }
            Standing::Excluded(pattern) => {
                self.refuse(field, what, &format!("{rule} without \"!{pattern}\" would permit it"));
            }
        }
    }

    fn needs(&mut self, field: &str, what: &str, switch: &str) {
        let remedy = format!("rules[{}].{switch}: true would permit it", self.number);
        self.refuse(field, what, &remedy);
    }

    fn refuse(&mut self, field: &str, what: &str, remedy: &str) {
        let message = format!("{field}: {what} is not permitted in namespace {}: {remedy}", self.namespace);
        self.violations.push(Explanation::new(Reason::NotPermitted, message));
    }
}

/// The host of a URL in its one spelling. What is no URL is its own host, which nothing is reached by.
fn host_of(url: &str) -> String {
    let parsed = Url::parse(url).ok();
    let host = parsed.as_ref().and_then(Url::host_str).unwrap_or(url);
    host.trim_end_matches('.').to_ascii_lowercase()
}

/// Whether a host is one at which AWS has ECS, itself or in a VPC: a tenant may have others under AWS's domains.
fn is_ecs_of_aws(host: &str, region: &str) -> bool {
    AWS.iter().any(|domain| {
        let at = |service: &str| host == format!("{service}.{region}.{domain}");
        at("ecs") || at("ecs-fips") || host.ends_with(&format!(".ecs.{region}.vpce.{domain}"))
    })
}
