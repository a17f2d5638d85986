//! Hosts that the spec left out. Each stays known until its last runner is gone: its runners count, busy ones finish, idle
//! ones are removed, and none is started there.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::inputs::BackendInput;
use crate::api::BackendType;
use crate::api::status::BackendStatus;
use crate::backend::{Availability, Backend, HostKey, NamedHost, Providers};
use crate::runner::{Identity, Ledger};
use crate::time::Plus;

/// What status says of a host that the spec left out.
const LEFT_OUT: &str = "left out of the spec; draining";
/// A host that has been silent for so long does not come back, as it was left out. GitHub gives its runners up after about
/// 10 minutes, so that none of them has a job by then.
const SILENT: Duration = Duration::from_secs(15 * 60);
/// No more hosts than this are taken over from a status: a spec has fewer.
const MOST_REMEMBERED: usize = 256;

/// The hosts of one scale set that its spec left out.
#[derive(Default)]
pub struct Draining {
    hosts: Vec<DrainingHost>,
    /// Those that status named when this process began, or where runners were found, as long as the spec names them too.
    persisted: Vec<LeftOut>,
}

/// A host of a backend, to be drained if the spec does not name it.
#[derive(Clone)]
struct LeftOut {
    backend: String,
    host: NamedHost,
    key: HostKey,
    since: Timestamp,
    /// Status named it: what runs there is not known before it was listed.
    persisted: bool,
}

/// A host that drains.
struct DrainingHost {
    left_out: LeftOut,
    /// It has this host alone.
    backend: Arc<dyn Backend>,
    siblings: Vec<String>,
    /// When it was first listed.
    first_listed: Option<Timestamp>,
}

/// A host that has another name from now on: the spec gave its own to another host.
#[derive(Debug, PartialEq, Eq)]
pub struct Renamed {
    pub backend: String,
    pub from: String,
    pub to: String,
}

/// What status is to show of a host that drains.
pub struct Shown<'a> {
    pub backend: &'a str,
    pub kind: BackendType,
    pub host: &'a NamedHost,
    pub message: String,
}

impl Draining {
    /// Takes over the hosts that a status names.
    pub fn persisted(backends: &[BackendStatus], providers: &Providers, now: Timestamp) -> Draining {
        let mut draining = Draining::default();
        let hosts = backends.iter().flat_map(|b| b.hosts.iter().map(move |host| (b, host)));
        for (backend, host) in hosts.take(MOST_REMEMBERED) {
            if let Some(endpoint) = &host.endpoint {
                draining.remember(&backend.name, (backend.kind, &host.name, endpoint), providers, now);
            }
        }
        draining
    }

    /// Has a host, of that kind, name and endpoint, that the spec may not name looked at, at the next update. A forged status
    /// must not make the controller connect where a spec could not: the same endpoints are permitted.
    pub fn remember(
        &mut self,
        backend: &str,
        (kind, name, endpoint): (BackendType, &str, &str),
        providers: &Providers,
        now: Timestamp,
    ) {
        let hosts = providers.resolve_host(kind, name, endpoint).map(|resolved| resolved.hosts().to_vec());
        let left_out = |host| LeftOut::of(backend, host, now);
        let hosts = hosts.into_iter().flatten().filter_map(left_out);
        self.persisted.extend(hosts.map(|host| LeftOut { persisted: true, ..host }));
    }

    /// Drains the hosts of the spec `before` that the spec `named` does not name any more, whatever it calls them, and drains
    /// no longer those that it names again.
    pub fn update(
        &mut self,
        before: Vec<BackendInput>,
        named: &[BackendInput],
        providers: &Providers,
        owner: &Identity,
        now: Timestamp,
    ) -> Vec<Renamed> {
        let known = std::mem::take(&mut self.hosts);
        let candidates = known.iter().map(|host| host.left_out.clone());
        let persisted = self.persisted.iter().map(|host| LeftOut { since: now, ..host.clone() });
        let candidates = candidates.chain(persisted).chain(hosts_of(before, now));
        let (left_out, renamed) = left_out(candidates, named);
        self.persisted.retain(|host| !left_out.iter().any(|other| other.key == host.key));
        let drain = |host: &LeftOut| {
            let siblings = left_out.iter().filter(|other| other.key == host.key);
            let siblings: Vec<String> = siblings.map(|other| other.backend.clone()).collect();
            let same = |before: &&DrainingHost| {
                let LeftOut { backend, host: named, .. } = &before.left_out;
                *backend == host.backend && *named == host.host && before.siblings == siblings
            };
            let kept = known.iter().find(same);
            let backend = match kept {
                Some(before) => before.backend.clone(),
                None => {
                    let alone =
                        providers.resolve_host(host.key.kind, &host.host.name, &host.host.endpoint)?;
                    providers.open(&*alone, &host.backend, &siblings, owner)
                }
            };
            let first_listed = kept.and_then(|before| before.first_listed);
            Some(DrainingHost { left_out: host.clone(), backend, siblings, first_listed })
        };
        self.hosts = left_out.iter().filter_map(drain).collect();
        renamed
    }

    /// The hosts.
    pub fn hosts(&self) -> impl Iterator<Item = &HostKey> {
        self.hosts.iter().map(|known| &known.left_out.key)
    }

    /// Whether a host, by its backend's name and its own, drains.
    pub fn has(&self, backend: &str, host: &str) -> bool {
        self.hosts.iter().any(|known| known.is(backend, host))
    }

    /// The backend of a host that drains.
    pub fn backend(&self, backend: &str, host: &str) -> Option<Arc<dyn Backend>> {
        self.hosts.iter().find(|known| known.is(backend, host)).map(|known| known.backend.clone())
    }

    /// The backends, each of one host.
    pub fn backends(&self) -> impl Iterator<Item = &Arc<dyn Backend>> {
        self.hosts.iter().map(|known| &known.backend)
    }

    /// What status is to show.
    pub fn shown(&self) -> impl Iterator<Item = Shown<'_>> {
        self.hosts.iter().map(|known| {
            let away = |availability: &Availability| {
                matches!(availability, Availability::Unreachable | Availability::Refused)
            };
            let states = known.backend.hosts();
            let said = states.into_iter().find(|host| away(&host.availability)).map(|host| host.message);
            Shown {
                backend: &known.left_out.backend,
                kind: known.backend.kind(),
                host: &known.left_out.host,
                message: said.map_or_else(|| LEFT_OUT.to_owned(), |why| format!("{LEFT_OUT}: {why}")),
            }
        })
    }

    /// Lets go of the hosts on which no runner is left. The runners of a host that is silent for good are given up, once no job
    /// can be on them; answers what was left behind so.
    pub fn let_go(&mut self, ledger: &mut Ledger, now: Timestamp) -> Vec<String> {
        let mut left_behind = Vec::new();
        self.hosts.retain_mut(|known| {
            let LeftOut { backend, host, since, persisted, .. } = &mut known.left_out;
            let listing = known.backend.instances().into_iter().next();
            let listed_at = listing.as_ref().and_then(|listing| listing.listed_at);
            let current = listing.as_ref().is_some_and(|listing| listing.current);
            let heard_at = listed_at.map_or(*since, |at| at.max(*since));
            let silent = !current && heard_at.plus(SILENT) <= now;
            if silent {
                let given_up = ledger.give_up(backend, &host.name, now);
                left_behind
                    .extend(given_up.into_iter().map(|name| format!("{name} on {backend}/{}", host.name)));
            }
            let here = ledger.runners().any(|r| r.backend == *backend && r.host == host.name);
            let left_over = known.backend.left_over() > 0;
            let shows = listing.is_some_and(|listing| !listing.instances.is_empty()) || left_over;
            known.first_listed = known.first_listed.or(listed_at);
            *persisted &= !shows;
            // A status knows hosts better than runners: a first listing without any is not enough.
            let awaited = (*persisted && listed_at == known.first_listed) || shows;
            here || ledger.unseen(|b, h| b == backend && h == host.name) > 0 || (awaited && !silent)
        });
        left_behind
    }
}

impl DrainingHost {
    fn is(&self, backend: &str, host: &str) -> bool {
        self.left_out.backend == backend && self.left_out.host.name == host
    }
}

impl LeftOut {
    /// A host that is usable.
    fn of(backend: &str, host: NamedHost, since: Timestamp) -> Option<LeftOut> {
        let key = host.key.clone()?;
        Some(LeftOut { backend: backend.to_owned(), host, key, since, persisted: false })
    }
}

/// The hosts of a spec.
fn hosts_of(backends: Vec<BackendInput>, now: Timestamp) -> impl Iterator<Item = LeftOut> {
    backends.into_iter().flat_map(move |BackendInput { name, resolved, .. }| {
        let left_out = |host: &NamedHost| LeftOut::of(&name, host.clone(), now);
        resolved.hosts().iter().filter_map(left_out).collect::<Vec<_>>()
    })
}

/// Those that the spec does not name, each once, and told apart by their endpoints where their names do not.
fn left_out(
    candidates: impl Iterator<Item = LeftOut>,
    named: &[BackendInput],
) -> (Vec<LeftOut>, Vec<Renamed>) {
    let hosts = |input: &BackendInput| -> Vec<(String, NamedHost)> {
        input.resolved.hosts().iter().map(|host| (input.name.clone(), host.clone())).collect()
    };
    let spec: Vec<(String, NamedHost)> = named.iter().flat_map(hosts).collect();
    let (mut left_out, mut renamed): (Vec<LeftOut>, Vec<Renamed>) = (Vec::new(), Vec::new());
    for mut known in candidates {
        let of_backend = || left_out.iter().filter(|other| other.backend == known.backend);
        if spec.iter().any(|(_, host)| host.key.as_ref() == Some(&known.key))
            || of_backend().any(|other| other.key == known.key)
        {
            continue;
        }
        let taken = of_backend().any(|other| other.host.name == known.host.name)
            || spec.iter().any(|(backend, host)| *backend == known.backend && host.name == known.host.name);
        if taken {
            let from = std::mem::replace(&mut known.host.name, known.host.endpoint.clone());
            let (backend, to) = (known.backend.clone(), known.host.endpoint.clone());
            renamed.push(Renamed { backend, from, to });
        }
        left_out.push(known);
    }
    (left_out, renamed)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api;
    use crate::backend::{self, Requeuer};

    type Named<'a> = (&'a str, &'a str);

    /// The backends of a spec: each a name, and the names and endpoints of its hosts.
    fn spec(backends: &[(&str, &[Named<'_>])]) -> Vec<BackendInput> {
        let input = |(name, hosts): &(&str, &[Named<'_>])| {
            let host = |(name, endpoint): &Named<'_>| json!({"name": name, "endpoint": endpoint});
            let hosts: Vec<_> = hosts.iter().map(host).collect();
            let backend = json!({"name": name, "docker": {"hosts": hosts}});
            let backend: api::Backend = serde_json::from_value(backend).unwrap();
            let resolved = providers().resolve_offline(&backend).unwrap();
            BackendInput { name: backend.name, max_runners: None, resolved }
        };
        backends.iter().map(input).collect()
    }

    fn providers() -> Providers {
        backend::providers("cluster", &Requeuer::new(|_| {}))
    }

    /// What drains when `before` becomes `now`.
    fn drains(before: &[(&str, &[Named<'_>])], now: &[(&str, &[Named<'_>])]) -> Vec<String> {
        let (left_out, _) = left_out(hosts_of(spec(before), Timestamp::UNIX_EPOCH), &spec(now));
        left_out.iter().map(|known| format!("{}/{}", known.backend, known.host.name)).collect()
    }

    #[test]
    fn a_host_drains_when_no_backend_has_its_endpoint() {
        let (a, b) = (("a", "unix:///nowhere/a"), ("b", "unix:///nowhere/b"));
        let before: &[(&str, &[Named<'_>])] = &[("rack", &[a, b])];
        assert_eq!(drains(before, &[("rack", &[b])]), ["rack/a"]);
        assert_eq!(drains(before, &[("shelf", &[("c", "unix:///nowhere/c")])]), ["rack/a", "rack/b"]);
        for moved in [&[("shelf", &[b, a] as &[Named<'_>])], &[("rack", &[("x", a.1), b])]] {
            assert!(drains(before, moved).is_empty(), "it is called otherwise, or another backend has it");
        }
        let none = ("none", "tcp://10.0.0.1");
        assert!(drains(&[("rack", &[none])], &[("rack", &[a])]).is_empty(), "nothing ever ran there");
    }

    #[test]
    fn a_host_whose_name_another_has_now_is_called_by_its_endpoint() {
        let before = spec(&[("rack", &[("a", "unix:///nowhere/old")])]);
        let now = spec(&[("rack", &[("a", "unix:///nowhere/new")])]);
        let (left_out, renamed) = left_out(hosts_of(before, Timestamp::UNIX_EPOCH), &now);
        let to = "unix:///nowhere/old".to_owned();
        assert_eq!(left_out[0].host.name, to);
        assert_eq!(renamed, [Renamed { backend: "rack".to_owned(), from: "a".to_owned(), to }]);
    }

    /// What has ended there is in no status, and is still to be removed.
    #[tokio::test]
    async fn a_host_of_the_status_that_never_answered_is_waited_for_when_it_is_left_out() {
        let (providers, now) = (providers(), Timestamp::UNIX_EPOCH);
        let owner =
            Identity { cluster: "cluster".into(), scale_set_uid: "uid".into(), scale_set: "ci/linux".into() };
        let status = serde_json::json!({"name": "rack", "type": "docker", "currentRunners": 0, "hosts": [
            {"name": "a", "endpoint": "unix:///nowhere/a", "ready": false, "currentRunners": 0},
        ]});
        let (a, b) = (
            spec(&[("rack", &[("a", "unix:///nowhere/a")])]),
            spec(&[("rack", &[("b", "unix:///nowhere/b")])]),
        );
        let mut draining = Draining::persisted(&[serde_json::from_value(status).unwrap()], &providers, now);
        draining.update(Vec::new(), &a, &providers, &owner, now);
        assert!(!draining.has("rack", "a"));
        draining.update(a, &b, &providers, &owner, now);
        draining.let_go(&mut Ledger::default(), now);
        assert!(draining.has("rack", "a"));
        let late = now.plus(SILENT);
        draining.let_go(&mut Ledger::default(), late);
        draining.update(Vec::new(), &b, &providers, &owner, late);
        assert!(!draining.has("rack", "a"), "it is silent for good");
    }

    #[test]
    fn a_status_makes_the_controller_connect_nowhere_that_a_spec_could_not() {
        let endpoints = ["unix:///nowhere/a", "tcp://10.0.0.1", "ssh://10.0.0.1", "unix://b", "/c"];
        let hosts = endpoints.map(|endpoint| {
            serde_json::json!({
                "name": endpoint, "endpoint": endpoint, "ready": true, "currentRunners": 1,
            })
        });
        let status =
            serde_json::json!({"name": "rack", "type": "docker", "currentRunners": 5, "hosts": hosts});
        let status: BackendStatus = serde_json::from_value(status).unwrap();
        let known = Draining::persisted(&[status], &providers(), Timestamp::UNIX_EPOCH).persisted.into_iter();
        let (left_out, _) = left_out(known, &[]);
        let names: Vec<&str> = left_out.iter().map(|known| known.host.name.as_str()).collect();
        assert_eq!(names, ["unix:///nowhere/a"]);
    }
}
