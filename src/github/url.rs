//! The configuration URL: where a fleet is registered, and where GitHub's REST API is from there.

use reqwest::Url;

use super::Error;

/// Set to anything, it makes every host count as a GitHub Enterprise Server (GitHub's own clients read it too).
const FORCE_GHES: &str = "GITHUB_ACTIONS_FORCE_GHES";

/// Where the service and the queue of github.com and GHE.com are, beside their own hosts.
const SERVICE_DOMAINS: [&str; 3] = ["actions.githubusercontent.com", "ghe.com", "blob.core.windows.net"];
/// GitHub's own domains: what is answered there is GitHub's word.
const OWN_DOMAINS: [&str; 3] = ["github.com", "ghe.com", "githubusercontent.com"];

/// What a fleet serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    Enterprise { enterprise: String },
    Organization { organization: String },
    Repository { owner: String, repository: String },
}

/// A parsed configuration URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ConfigUrl {
    /// As given, surrounding slashes trimmed: what registration sends.
    text: String,
    rest: Url,
    /// In lower case, without a dot at its end.
    host: String,
    scope: Scope,
    /// Whether plain HTTP may carry credentials to this GitHub.
    insecure: bool,
}

impl ConfigUrl {
    /// Reads it. `allow_insecure` permits `http://`, but never for github.com or GHE.com.
    pub fn parse(input: &str, allow_insecure: bool) -> Result<Self, Error> {
        Self::parse_as(input, allow_insecure, std::env::var_os(FORCE_GHES).is_some())
    }

    fn parse_as(input: &str, allow_insecure: bool, force_ghes: bool) -> Result<Self, Error> {
        let text = input.trim().trim_matches('/').to_owned();
        let url = Url::parse(&text).map_err(|e| Error::Config(format!("`{text}` is not a URL: {e}")))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::Config("the GitHub URL must not carry credentials".into()));
        }
        let host = host_of(&url);
        let insecure = allow_insecure && !(is_hosted(&host) && host != "github.localhost");
        require_https(&url, insecure)?;
        let scope = scope(&url).ok_or_else(|| {
            Error::Config(format!("`{text}` names no organisation, repository or enterprise"))
        })?;
        let rest = rest_base(&url, &host, is_hosted(&host) && !force_ghes)?;
        Ok(ConfigUrl { text, rest, host, scope, insecure })
    }

    /// The URL as registration sends it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// A repository's scale sets belong to no runner group but the default one.
    pub fn is_repository(&self) -> bool {
        matches!(self.scope, Scope::Repository { .. })
    }

    /// A REST URL below the API's base.
    pub fn rest(&self, segments: &[&str]) -> Url {
        below(&self.rest, segments)
    }

    /// Where a registration token comes from.
    pub fn registration_token(&self) -> Url {
        self.runners(&["registration-token"])
    }

    /// What REST has of the runners of this organisation, repository or enterprise.
    pub fn runners(&self, rest: &[&str]) -> Url {
        let mut path = match &self.scope {
            Scope::Enterprise { enterprise } => vec!["enterprises", enterprise],
            Scope::Organization { organization } => vec!["orgs", organization],
            Scope::Repository { owner, repository } => vec!["repos", owner, repository],
        };
        path.extend(["actions", "runners"]);
        path.extend(rest);
        self.rest(&path)
    }

    /// The page of a workflow run; none where that is not said in full.
    pub fn run_page(&self, repository: &str, run_id: i64) -> Option<String> {
        let (owner, name) = repository.split_once('/').filter(|_| run_id > 0)?;
        let named = |part: &str| !part.is_empty() && !part.contains('/') && part != "." && part != "..";
        let root = Url::parse(&self.text).ok()?.join("/").ok()?;
        let page = || below(&root, &[owner, name, "actions", "runs", &run_id.to_string()]);
        (named(owner) && named(name)).then(|| page().into())
    }

    /// The permission of an App that runners need here, by GitHub's name. An enterprise's has none that GitHub documents.
    pub fn runner_permission(&self) -> Option<&'static str> {
        match self.scope {
            Scope::Enterprise { .. } => None,
            Scope::Organization { .. } => Some("organization_self_hosted_runners"),
            Scope::Repository { .. } => Some("administration"),
        }
    }

    /// Judges a URL that GitHub told us to use: it gets tokens, so it must be https where ours must, and where GitHub is.
    pub fn trusts(&self, url: &str) -> Result<Url, Error> {
        let url = Url::parse(url).map_err(|_| Error::BadReply("GitHub gave a URL that is none".into()))?;
        require_https(&url, self.insecure)?;
        let host = host_of(&url);
        let hosted = is_hosted(&self.host) && SERVICE_DOMAINS.iter().any(|domain| is_under(&host, domain));
        if host != self.host && !hosted {
            let host: String = host.chars().take(253).collect();
            return Err(Error::BadReply(format!(
                "it leads to {host}, which is no host of its own: nothing is asked there"
            )));
        }
        Ok(url)
    }
}

/// Whether a host is GitHub's own. What any other answers is not told: a tenant may name any host as its GitHub.
pub(super) fn is_githubs(url: &Url) -> bool {
    let host = host_of(url);
    OWN_DOMAINS.iter().any(|domain| is_under(&host, domain))
}

fn host_of(url: &Url) -> String {
    url.host_str().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase()
}

fn is_under(host: &str, domain: &str) -> bool {
    host.strip_suffix(domain).is_some_and(|left| left.is_empty() || left.ends_with('.'))
}

fn scope(url: &Url) -> Option<Scope> {
    let parts: Vec<&str> = url.path().split('/').filter(|p| !p.is_empty()).collect();
    match parts.as_slice() {
        [organization] => Some(Scope::Organization { organization: (*organization).into() }),
        [first, enterprise] if first.eq_ignore_ascii_case("enterprises") => {
            Some(Scope::Enterprise { enterprise: (*enterprise).into() })
        }
        [owner, repository] => {
            Some(Scope::Repository { owner: (*owner).into(), repository: (*repository).into() })
        }
        _ => None,
    }
}

fn is_hosted(host: &str) -> bool {
    matches!(host, "github.com" | "www.github.com" | "github.localhost") || host.ends_with(".ghe.com")
}

fn rest_base(url: &Url, host: &str, hosted: bool) -> Result<Url, Error> {
    let port = url.port().map(|p| format!(":{p}")).unwrap_or_default();
    let scheme = url.scheme();
    let base = match (hosted, host) {
        (true, "www.github.com") => format!("{scheme}://api.github.com{port}"),
        (true, host) => format!("{scheme}://api.{host}{port}"),
        (false, host) => format!("{scheme}://{host}{port}/api/v3"),
    };
    Url::parse(&base).map_err(|e| Error::Config(format!("no REST API can be at `{base}`: {e}")))
}

fn require_https(url: &Url, insecure: bool) -> Result<(), Error> {
    match url.scheme() {
        "https" => Ok(()),
        "http" if insecure => Ok(()),
        scheme => Err(Error::Config(format!(
            "{}://{} is not https, and credentials would cross the network in the clear",
            scheme,
            url.host_str().unwrap_or_default()
        ))),
    }
}

/// The URL below `base`, each segment escaped, the query of `base` kept.
pub(super) fn below(base: &Url, segments: &[&str]) -> Url {
    let mut url = base.clone();
    // Only a URL such as `data:` has no path, and `require_https` lets none through.
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    url
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parse(url: &str) -> ConfigUrl {
        ConfigUrl::parse_as(url, true, false).unwrap()
    }

    #[test]
    fn the_rest_api_is_beside_the_hosted_and_below_the_server() {
        for (url, rest) in [
            ("https://github.com/acme", "https://api.github.com/zen"),
            ("https://www.github.com/acme/", "https://api.github.com/zen"),
            ("https://GitHub.com./acme", "https://api.github.com/zen"),
            ("https://acme.ghe.com/acme", "https://api.acme.ghe.com/zen"),
            ("http://github.localhost:8080/acme", "http://api.github.localhost:8080/zen"),
            ("https://ghes.corp/acme", "https://ghes.corp/api/v3/zen"),
            ("http://127.0.0.1:7000/acme/app", "http://127.0.0.1:7000/api/v3/zen"),
        ] {
            assert_eq!(parse(url).rest(&["zen"]).as_str(), rest, "{url}");
        }
        let forced = ConfigUrl::parse_as("https://github.com/acme", false, true).unwrap();
        assert_eq!(forced.rest(&["zen"]).as_str(), "https://github.com/api/v3/zen");
    }

    #[test]
    fn the_path_tells_the_scope() {
        for (url, path) in [
            ("https://github.com/acme", "/orgs/acme"),
            ("https://github.com/acme/app", "/repos/acme/app"),
            ("https://github.com/Enterprises/big", "/enterprises/big"),
        ] {
            let url = parse(url).registration_token();
            assert_eq!(url.path(), format!("{path}/actions/runners/registration-token"));
        }
        assert!(parse("https://github.com/acme/app").is_repository());
        assert_eq!(parse(" https://github.com/acme/ ").as_str(), "https://github.com/acme");
    }

    #[test]
    fn a_run_has_its_page_beside_the_scale_sets_owner() {
        for (url, repository, page) in [
            ("https://github.com/acme", "acme/app", "https://github.com/acme/app/actions/runs/9"),
            ("https://acme.ghe.com/acme/app", "acme/app", "https://acme.ghe.com/acme/app/actions/runs/9"),
            (
                "https://ghes.corp:8443/enterprises/big",
                "a/b?c#d",
                "https://ghes.corp:8443/a/b%3Fc%23d/actions/runs/9",
            ),
        ] {
            assert_eq!(parse(url).run_page(repository, 9).as_deref(), Some(page));
        }
        for repository in ["", "app", "acme/", "/app", "acme/app/more", "../app", "acme/.."] {
            assert_eq!(parse("https://github.com/acme").run_page(repository, 9), None, "{repository}");
        }
        assert_eq!(parse("https://github.com/acme").run_page("acme/app", 0), None);
    }

    #[test]
    fn what_cannot_be_a_fleets_place_is_refused() {
        for url in
            ["github.com/acme", "https://github.com", "https://github.com/a/b/c", "ftp://ghes.corp/acme"]
        {
            assert!(matches!(ConfigUrl::parse_as(url, true, false), Err(Error::Config(_))), "{url}");
        }
        let refused = ConfigUrl::parse_as("https://me:planted@ghes.corp/acme", true, false).unwrap_err();
        assert!(!format!("{refused:?} {refused}").contains("planted"));
    }

    #[test]
    fn plain_http_needs_leave_and_is_never_for_github_itself() {
        assert!(ConfigUrl::parse_as("http://ghes.corp/acme", false, false).is_err());
        assert!(ConfigUrl::parse_as("http://ghes.corp/acme", true, false).is_ok());
        for url in ["http://github.com/acme", "http://github.com./acme", "http://acme.ghe.com/acme"] {
            assert!(ConfigUrl::parse_as(url, true, false).is_err(), "{url}");
            assert!(ConfigUrl::parse_as(url, true, true).is_err(), "{url}");
        }
        let strict = ConfigUrl::parse_as("https://ghes.corp/acme", true, false).unwrap();
        assert!(strict.trusts("http://ghes.corp/1").is_ok());
        assert!(parse("https://github.com/acme").trusts("http://github.com/1").is_err());
    }

    #[test]
    fn tokens_go_to_the_host_of_the_url_and_to_githubs_own_for_its_own() {
        let trusts = |url: &str, other: &str| parse(url).trusts(other).is_ok();
        for (url, other) in [
            ("https://ghes.corp/acme", "https://ghes.corp/_services/pipelines/"),
            ("https://GHES.corp./acme", "https://ghes.corp:8443/x"),
            ("https://github.com/acme", "https://pipelines.actions.githubusercontent.com/x"),
            ("https://github.com/acme", "https://github.com/x"),
            ("https://acme.ghe.com/acme", "https://pipelines.acme.ghe.com/x"),
            ("https://github.com/acme", "https://account.blob.core.windows.net/x"),
        ] {
            assert!(trusts(url, other), "{url} {other}");
        }
        for (url, other) in [
            ("https://ghes.corp/acme", "https://169.254.169.254/latest"),
            ("https://ghes.corp/acme", "https://evil.ghes.corp/x"),
            ("https://ghes.corp/acme", "https://pipelines.actions.githubusercontent.com/x"),
            ("https://ghes.corp/acme", "https://ghes.corp@evil.org/x"),
            ("https://github.com/acme", "https://evilactions.githubusercontent.com/x"),
            ("https://github.com/acme", "https://raw.githubusercontent.com/x"),
            ("https://github.com/acme", "https://github.com.evil.org/x"),
            ("https://notgithub.com/acme", "https://x.ghe.com/x"),
        ] {
            assert!(!trusts(url, other), "{url} {other}");
        }
        let own = |url: &str| is_githubs(&Url::parse(url).unwrap());
        assert!(own("https://api.github.com/x") && own("https://broker.actions.githubusercontent.com/x"));
        assert!(!own("https://evilgithub.com/x") && !own("https://account.blob.core.windows.net/x"));
    }
}
