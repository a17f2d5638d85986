//! Which endpoint a path means.

use axum::http::Method;
use serde::{Deserialize, Serialize};

/// What a configuration URL points at, spelt as its path in lower case: `acme`, `acme/app`, `enterprises/acme`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Scope(String);

impl Scope {
    /// Reads the path of a configuration URL; one or two parts.
    pub(super) fn from_path(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').filter(|s| !s.is_empty()).collect();
        matches!(parts.len(), 1 | 2).then(|| Self(parts.join("/").to_ascii_lowercase()))
    }

    /// Reads a configuration URL.
    pub(super) fn from_url(url: &str) -> Option<Self> {
        let (_, rest) = url.split_once("://")?;
        let (_, path) = rest.split_once('/')?;
        Self::from_path(path)
    }

    /// Whether a job of `repository` (`owner/name`) may run here.
    pub(super) fn covers(&self, repository: &str) -> bool {
        let repository = repository.to_ascii_lowercase();
        self.0.starts_with("enterprises/")
            || self.0 == repository
            || repository.split_once('/').is_some_and(|(owner, _)| owner == self.0)
    }

    /// The path it came from.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The endpoints, as faults and the request log tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Endpoint {
    /// For faults only: every endpoint that a client of GitHub calls (not the runners' nor the control API).
    Any,
    /// App: POST `/app/installations/{id}/access_tokens`.
    AccessToken,
    /// POST `…/actions/runners/registration-token`.
    RegistrationToken,
    /// POST `/actions/runner-registration`.
    RunnerRegistration,
    /// REST: GET `…/actions/runners`.
    RunnerList,
    /// REST: POST `…/actions/runs/{id}/rerun-failed-jobs`.
    RerunFailedJobs,
    /// GET `_apis/runtime/runnergroups`.
    RunnerGroups,
    /// GET `_apis/runtime/runnerscalesets`, with or without an id.
    GetScaleSet,
    /// POST `_apis/runtime/runnerscalesets`.
    CreateScaleSet,
    /// PATCH `_apis/runtime/runnerscalesets/{id}`.
    UpdateScaleSet,
    /// DELETE `_apis/runtime/runnerscalesets/{id}`.
    DeleteScaleSet,
    /// POST `…/{id}/generatejitconfig`.
    JitConfig,
    /// GET `…/{id}/acquirablejobs`.
    AcquirableJobs,
    /// POST `…/{id}/acquirejobs`.
    AcquireJobs,
    /// GET `_apis/distributedtask/pools/0/agents`, with or without an id.
    GetRunner,
    /// DELETE `_apis/distributedtask/pools/0/agents/{id}`.
    RemoveRunner,
    /// POST `…/{id}/sessions`.
    OpenSession,
    /// PATCH `…/{id}/sessions/{sid}`.
    RefreshSession,
    /// DELETE `…/{id}/sessions/{sid}`.
    CloseSession,
    /// GET on the queue URL.
    Poll,
    /// DELETE on the queue URL and a message id.
    Acknowledge,
    /// What a runner calls: `/_runner/…`.
    Runner,
    /// What a test or the demo calls: `/_control/…`.
    Control,
    /// A path that GitHub does not have.
    Unknown,
}

/// A path taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    AccessToken(i64),
    RegistrationToken(Scope),
    RunnerRegistration,
    RunnerList(Scope),
    RerunFailedJobs(String, i64),
    RunnerGroups,
    ScaleSets,
    ScaleSet(i64),
    JitConfig(i64),
    AcquirableJobs(i64),
    AcquireJobs(i64),
    Sessions(i64),
    Session(i64, String),
    Runners,
    Runner(i64),
    Queue(i64),
    Message(i64, i64),
    RunnerSide(String),
    Control(Vec<String>),
    Unknown,
}

impl Route {
    /// REST paths are served with and without `/api/v3`; service paths only below `service_prefix`.
    pub fn parse(path: &str, service_prefix: &str) -> Self {
        let found = if let Some(service) = path.strip_prefix(service_prefix) {
            Self::service(&parts(service))
        } else {
            Self::rest(&parts(path.strip_prefix("/api/v3").unwrap_or(path)))
        };
        found.unwrap_or(Self::Unknown)
    }

    fn rest(parts: &[&str]) -> Option<Self> {
        Some(match parts {
            ["app", "installations", id, "access_tokens"] => Self::AccessToken(number(id)?),
            ["actions", "runner-registration"] => Self::RunnerRegistration,
            [owner @ .., "actions", "runners", "registration-token"] => {
                Self::RegistrationToken(scope(owner)?)
            }
            [owner @ .., "actions", "runners"] => Self::RunnerList(scope(owner)?),
            ["repos", owner, name, "actions", "runs", run, "rerun-failed-jobs"] => {
                Self::RerunFailedJobs(format!("{owner}/{name}"), number(run)?)
            }
            ["scalesets", set, "message"] => Self::Queue(number(set)?),
            ["scalesets", set, "message", id] => Self::Message(number(set)?, number(id)?),
            ["_runner", verb] => Self::RunnerSide((*verb).to_owned()),
            ["_control", rest @ ..] => Self::Control(rest.iter().map(|s| (*s).to_owned()).collect()),
            _ => return None,
        })
    }

    fn service(parts: &[&str]) -> Option<Self> {
        Some(match parts {
            ["_apis", "runtime", "runnergroups"] => Self::RunnerGroups,
            ["_apis", "runtime", "runnerscalesets"] => Self::ScaleSets,
            ["_apis", "runtime", "runnerscalesets", set, rest @ ..] => {
                let set = number(set)?;
                match rest {
                    [] => Self::ScaleSet(set),
                    ["generatejitconfig"] => Self::JitConfig(set),
                    ["acquirablejobs"] => Self::AcquirableJobs(set),
                    ["acquirejobs"] => Self::AcquireJobs(set),
                    ["sessions"] => Self::Sessions(set),
                    ["sessions", id] => Self::Session(set, (*id).to_owned()),
                    _ => return None,
                }
            }
            ["_apis", "distributedtask", "pools", "0", "agents"] => Self::Runners,
            ["_apis", "distributedtask", "pools", "0", "agents", id] => Self::Runner(number(id)?),
            _ => return None,
        })
    }

    pub fn endpoint(&self, method: &Method) -> Endpoint {
        let (get, post, delete) =
            (*method == Method::GET, *method == Method::POST, *method == Method::DELETE);
        let patch = *method == Method::PATCH;
        match self {
            Self::AccessToken(_) if post => Endpoint::AccessToken,
            Self::RegistrationToken(_) if post => Endpoint::RegistrationToken,
            Self::RunnerRegistration if post => Endpoint::RunnerRegistration,
            Self::RunnerList(_) if get => Endpoint::RunnerList,
            Self::RerunFailedJobs(..) if post => Endpoint::RerunFailedJobs,
            Self::RunnerGroups if get => Endpoint::RunnerGroups,
            Self::ScaleSets | Self::ScaleSet(_) if get => Endpoint::GetScaleSet,
            Self::ScaleSets if post => Endpoint::CreateScaleSet,
            Self::ScaleSet(_) if patch => Endpoint::UpdateScaleSet,
            Self::ScaleSet(_) if delete => Endpoint::DeleteScaleSet,
            Self::JitConfig(_) if post => Endpoint::JitConfig,
            Self::AcquirableJobs(_) if get => Endpoint::AcquirableJobs,
            Self::AcquireJobs(_) if post => Endpoint::AcquireJobs,
            Self::Runners | Self::Runner(_) if get => Endpoint::GetRunner,
            Self::Runner(_) if delete => Endpoint::RemoveRunner,
            Self::Sessions(_) if post => Endpoint::OpenSession,
            Self::Session(..) if patch => Endpoint::RefreshSession,
            Self::Session(..) if delete => Endpoint::CloseSession,
            Self::Queue(_) if get => Endpoint::Poll,
            Self::Message(..) if delete => Endpoint::Acknowledge,
            Self::RunnerSide(_) => Endpoint::Runner,
            Self::Control(_) => Endpoint::Control,
            _ => Endpoint::Unknown,
        }
    }

    /// The scale set that the path names.
    pub fn scale_set(&self) -> Option<i64> {
        match self {
            Self::ScaleSet(id)
            | Self::JitConfig(id)
            | Self::AcquirableJobs(id)
            | Self::AcquireJobs(id)
            | Self::Sessions(id)
            | Self::Session(id, _)
            | Self::Queue(id)
            | Self::Message(id, _) => Some(*id),
            _ => None,
        }
    }
}

fn parts(path: &str) -> Vec<&str> {
    path.trim_matches('/').split('/').collect()
}

fn number(text: &str) -> Option<i64> {
    text.parse().ok()
}

/// The owner part of a REST path.
fn scope(parts: &[&str]) -> Option<Scope> {
    match parts {
        ["orgs", org] => Scope::from_path(org),
        ["repos", owner, name] => Scope::from_path(&format!("{owner}/{name}")),
        ["enterprises", name] => Scope::from_path(&format!("enterprises/{name}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(path: &str) -> Route {
        Route::parse(path, "/rest")
    }

    #[test]
    fn rest_paths_are_served_in_both_styles() {
        let token = Route::RegistrationToken(Scope("acme/app".to_owned()));
        assert_eq!(parse("/repos/Acme/app/actions/runners/registration-token"), token);
        assert_eq!(parse("/api/v3/repos/acme/app/actions/runners/registration-token"), token);
        let list = Route::RunnerList(Scope("enterprises/acme".to_owned()));
        assert_eq!(parse("/enterprises/acme/actions/runners"), list);
    }

    #[test]
    fn service_paths_need_their_prefix() {
        assert_eq!(parse("/rest/_apis/runtime/runnergroups/"), Route::RunnerGroups);
        assert_eq!(parse("/_apis/runtime/runnergroups/"), Route::Unknown);
        assert_eq!(parse("/rest/_apis/runtime/runnerscalesets/5/acquirejobs"), Route::AcquireJobs(5));
    }

    #[test]
    fn a_scope_covers_its_own_repositories() {
        let scope = |url| Scope::from_url(url).expect("a scope");
        assert!(scope("http://127.0.0.1:1/acme").covers("Acme/app"));
        assert!(!scope("http://127.0.0.1:1/acme").covers("other/app"));
        assert!(scope("http://127.0.0.1:1/acme/app/").covers("acme/app"));
        assert!(!scope("http://127.0.0.1:1/acme/app").covers("acme/lib"));
        assert!(scope("http://127.0.0.1:1/enterprises/e").covers("any/thing"));
    }
}
