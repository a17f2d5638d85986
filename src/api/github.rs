//! Where at GitHub the runners belong, and how to get there.

use super::{CaBundleRef, SecretRef};
use kube::core::Rule;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `http(s)://host[:port]/` and then an organisation, `owner/repository` or `enterprises/name`.
const URL: &str = "^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?/[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)?/?$";
/// `http(s)://host[:port]`, without a login: that belongs into a Secret.
const PROXY_URL: &str = "^https?://([A-Za-z0-9._-]+|[[][0-9A-Fa-f:.]+[]])(:[0-9]{1,5})?/?$";

/// Where at GitHub the runners belong, and how to get there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    Rule::new("self.allowInsecure || self.url.startsWith('https://')")
        .message("spec.github.url must be https (http only with spec.github.allowInsecure)")
        .field_path(".url"),
    Rule::new("!self.url.lowerAscii().matches('^http://([^/]*[.])?(github|ghe)[.]com[.]?(:[0-9]+)?/')")
        .message("spec.github.url must be https: allowInsecure does not hold for github.com and ghe.com")
        .field_path(".url"),
]))]
pub struct GitHub {
    /// The enterprise, organisation or repository that the runners serve: `https://github.com/enterprises/acme`,
    /// `https://github.com/acme`, `https://github.com/acme/app`, or the same on GHE.com or a GitHub Enterprise Server. It
    /// cannot be changed: a set at another place is another set.
    #[schemars(
        length(min = 1, max = 255),
        regex(pattern = URL),
        extend("x-kubernetes-validations" = [
            Rule::new("self == oldSelf")
                .message("spec.github.url cannot be changed: a set at another place is another set"),
            Rule::new("!self.matches('^https?://[^/]+/enterprises/?$')")
                .message("spec.github.url lacks the enterprise's name behind /enterprises/"),
        ])
    )]
    pub url: String,

    /// The Secret with the credentials: either github_token, or github_app_id, github_app_installation_id and
    /// github_app_private_key. A changed Secret takes effect without a restart.
    pub credentials_secret_ref: SecretRef,

    /// The runner group, which must exist at GitHub. Default: default.
    #[serde(default = "default_group")]
    #[schemars(length(min = 1, max = 255))]
    pub runner_group: String,

    /// Permits a url with http://, for a lab or a test; never for github.com or ghe.com. Default: false.
    #[serde(default)]
    pub allow_insecure: bool,

    /// Certificate authorities to trust besides the system's, for a GitHub Enterprise Server or an intercepting proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_bundle_ref: Option<CaBundleRef>,

    /// The proxy through which GitHub is reached. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Proxy>,
}

fn default_group() -> String {
    "default".into()
}

/// A proxy on the way to GitHub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Proxy {
    /// The proxy, like `http://proxy:3128`. A login belongs into credentialsSecretRef.
    #[schemars(length(min = 1, max = 255), regex(pattern = PROXY_URL))]
    pub url: String,

    /// Hosts, domains and networks (CIDR) that are reached without the proxy. Default: none.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253), regex(pattern = "^[^\\s,]+$")))]
    pub no_proxy: Vec<String>,

    /// The Secret with the proxy's username and password. Default: no login.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<SecretRef>,
}
