//! Engines on other hosts, over TLS and over SSH, beside the machine's own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use harness::sshd::{NOBODY, Sshd};
use harness::{Authority, Certified};
use jiff::Timestamp;
use paddock::api::{self, DockerAccess, HostCeiling, Reason};
use paddock::backend::docker::DockerProvider;
use paddock::backend::docker::{Login, TlsLogin};
use paddock::backend::remote::SshLogin;
use paddock::backend::{
    Availability, Backend, Listing, Provider, References, Requeuer, ResolveError, Resolved,
};
use paddock::runner::{Identity, InstanceState, Job, JobEvent, Ledger, Phase, runner_name};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::parts::Engine;
use crate::stage::{
    HOST, IMAGE, SECRET, Stage, connected, exit, host, log, prepared, shown, start, start_in, started, until,
};

/// Secrets as the controller reads them: a text for each name and key.
#[derive(Default)]
struct Secrets(Mutex<HashMap<(String, String), String>>);

impl Secrets {
    fn set(&self, name: &str, texts: &[(&str, &str)]) {
        let mut known = self.0.lock().unwrap();
        known.retain(|(secret, _), _| secret != name);
        known.extend(
            texts.iter().map(|(key, text)| ((name.to_owned(), (*key).to_owned()), (*text).to_owned())),
        );
    }

    fn set_tls(&self, name: &str, authority: &Authority, own: &Certified) {
        let texts = [("ca.crt", &*authority.pem()), ("tls.crt", &own.certificate), ("tls.key", &own.key)];
        self.set(name, &texts);
    }

    fn set_ssh(&self, name: &str, sshd: &Sshd) {
        self.set(name, &[("ssh-privatekey", &sshd.private_key()), ("known_hosts", &sshd.known_hosts())]);
    }
}

#[async_trait]
impl References for Secrets {
    async fn secret_text(&self, field: &str, secret: &str, key: &str) -> Result<String, ResolveError> {
        let text = self.0.lock().unwrap().get(&(secret.to_owned(), key.to_owned())).cloned();
        let missing = || format!("{field}: Secret `{secret}` has no key `{key}`");
        text.ok_or_else(|| ResolveError::unusable(Reason::SecretMissing, missing()))
    }
}

fn tls(name: &str, endpoint: &str) -> Value {
    json!({"name": name, "endpoint": endpoint, "tlsSecretRef": {"name": name}})
}

fn ssh(name: &str, endpoint: &str) -> Value {
    json!({"name": name, "endpoint": endpoint, "sshSecretRef": {"name": name}})
}

async fn resolved(provider: &DockerProvider, secrets: &Secrets, hosts: Value) -> Arc<dyn Resolved> {
    let docker = json!({
        "image": IMAGE, "command": ["/bin/sh", "-c", "sleep 1000"], "network": "none", "hosts": hosts,
        "housekeeping": {"diskGuard": {"enabled": false}},
    });
    let spec: api::Backend = serde_json::from_value(json!({"name": "rack", "docker": docker})).unwrap();
    provider.resolve(&spec, secrets).await.unwrap()
}

/// Takes a slot of a host, once it is ready, and starts a runner in it.
async fn start_on(backend: &dyn Backend, name: &str) -> String {
    let slot = until(&format!("{name} has a slot"), || {
        let host = backend.hosts().into_iter().find(|host| host.name == name)?;
        if host.availability == Availability::Unprepared {
            backend.prepare(name);
        }
        if host.availability == Availability::Ready { backend.reserve(name) } else { None }
    })
    .await;
    start_in(slot, &runner_name("linux")).await.unwrap().id
}

async fn message(backend: &dyn Backend, name: &str, part: &str) {
    until(&format!("{name} says {part:?}"), || {
        let host = backend.hosts().into_iter().find(|host| host.name == name)?;
        (host.availability == Availability::Unreachable && host.message.contains(part)).then_some(())
    })
    .await;
}

/// An engine's own certificates, a client's and a host before it.
async fn reached(name: &str) -> (Authority, Engine, Sshd) {
    let authority = Authority::new(name);
    let engine = Engine::with_tls(name, &authority).await;
    let sshd = Sshd::before(&format!("{name}-ssh"), engine.socket()).await;
    (authority, engine, sshd)
}

#[tokio::test]
async fn a_runner_lives_over_tls_and_over_ssh_as_on_the_machines_own() {
    let (authority, engine, sshd) = reached("life").await;
    let stage = Stage::at("life", engine.endpoint()).await;
    let own = authority.certify("paddock");
    let tls = TlsLogin::read(&authority.pem(), &own.certificate, &own.key).unwrap();
    let ssh = SshLogin::read(&sshd.private_key(), &sshd.known_hosts()).unwrap();
    let ways = [(engine.tls_endpoint(), Login::Tls(tls)), (sshd.endpoint("root"), Login::Ssh(ssh))];
    for (endpoint, login) in ways {
        let mut template = stage.template("echo said; read line < /proc/1/environ; sleep 1; exit 3");
        template.env = vec![("PLANTED".to_owned(), SECRET.to_owned())];
        (template.hosts[0].endpoint, template.hosts[0].login) = (endpoint.clone(), login);
        let backend = stage.backend("set", template);
        let instance = started(&backend).await;
        let ended = until("its end is seen", || exit(&backend, &instance.id)).await;
        assert_eq!(ended.code, Some(3), "{endpoint}");
        assert!(backend.log_tail(HOST, &instance.id).await.unwrap().contains("said"), "{endpoint}");
        backend.remove(HOST, &instance.id).await.unwrap();
        until("its removal is seen", || shown(&backend, &instance.id).is_none().then_some(())).await;
        assert_eq!(stage.count().await, 0, "{endpoint}");
    }
    for secret in [SECRET, &own.key, &sshd.private_key()] {
        assert!(!log().contains(secret.lines().nth(1).unwrap_or(secret)));
    }
}

/// Whose socket it is on another host, only a look from there says.
#[tokio::test]
async fn the_socket_of_another_host_can_be_used_by_who_is_not_root() {
    let (_, engine, sshd) = reached("socket").await;
    let stage = Stage::at("socket", engine.endpoint()).await;
    let mut template = stage.template("test -w /var/run/docker.sock || exit 2; exit 3");
    template.docker_access = DockerAccess::HostSocket;
    let login = SshLogin::read(&sshd.private_key(), &sshd.known_hosts()).unwrap();
    (template.hosts[0].endpoint, template.hosts[0].login) = (sshd.endpoint("root"), Login::Ssh(login));
    let backend = stage.backend("set", template);
    let first = started(&backend).await;
    for instance in [first, start(&backend).await.unwrap()] {
        let ended = until("it ends", || exit(&backend, &instance.id)).await;
        assert_eq!(ended.code, Some(3));
        backend.remove(HOST, &instance.id).await.unwrap();
    }
    assert_eq!(stage.count().await, 0, "nothing is left of the look");
}

/// Each beside the machine's own engine, on which runners are started all the same.
#[tokio::test]
async fn credentials_that_cannot_be_used_are_told_on_their_host_alone() {
    let (authority, engine, sshd) = reached("bad").await;
    let (stage, secrets) = (Stage::new("bad").await, Secrets::default());
    let (other, expired) = (Authority::new("another"), Authority::expired("expired"));
    secrets.set_tls("wrong-client", &authority, &other.certify("stranger"));
    secrets.set_tls("wrong-engine", &other, &authority.certify("paddock"));
    secrets.set_tls("expired", &expired, &authority.certify("paddock"));
    let (own, not_its) = (authority.certify("paddock"), authority.certify("other"));
    let mixed = Certified { certificate: own.certificate.clone(), key: not_its.key };
    secrets.set_tls("mixed", &authority, &mixed);
    secrets.set("keys", &[("ca.crt", &*authority.pem()), ("cert", &own.certificate)]);
    secrets.set(
        "stranger",
        &[
            ("ssh-privatekey", &*sshd.private_key()),
            ("known_hosts", &sshd.known_hosts().replace("127.0.0.1", "elsewhere")),
        ],
    );
    secrets.set_ssh("denied", &sshd);
    let (by_tls, by_ssh) = (engine.tls_endpoint(), sshd.endpoint("root"));
    let clear = json!({"name": "clear", "endpoint": by_tls});
    for (name, bad, says) in [
        ("wrong-client", tls("wrong-client", &by_tls), "does not accept the certificate in tls.crt"),
        ("wrong-engine", tls("wrong-engine", &by_tls), "is not signed by the authority in ca.crt"),
        ("expired", tls("expired", &by_tls), "the certificate in ca.crt expired on 2020-01-01"),
        ("mixed", tls("mixed", &by_tls), "tls.key is not the key of the certificate"),
        ("keys", tls("keys", &by_tls), "Secret `keys` has no key `tls.crt`"),
        ("clear", clear, "is no Docker engine, or it wants TLS"),
        ("stranger", ssh("stranger", &by_ssh), "known_hosts has no usable key"),
        ("denied", ssh("denied", &sshd.endpoint(NOBODY)), "the user may not use /var/run/docker.sock"),
    ] {
        let provider = DockerProvider::new(&stage.cluster, Requeuer::new(|_| {}));
        let local = json!({"name": "local", "endpoint": stage.endpoint});
        let resolved = resolved(&provider, &secrets, json!([bad, local])).await;
        let backend = resolved.open("rack", &[], &stage.identity(name));
        message(&*backend, name, says).await;
        let id = start_on(&*backend, "local").await;
        backend.remove("local", &id).await.unwrap();
        assert!(backend.reserve(name).is_none());
    }
}

/// A tenant may name any host inside the network as an engine.
#[tokio::test]
async fn what_a_host_that_is_no_engine_answers_is_not_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    let body = format!(r#"{{"message": "{SECRET}-inside"}}"#);
    let answer = format!("HTTP/1.1 404 Not Found\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    let provider = DockerProvider::new("liar", Requeuer::new(|_| {}));
    let hosts = json!([{"name": "liar", "endpoint": endpoint}]);
    let resolved = resolved(&provider, &Secrets::default(), hosts).await;
    let owner = Identity { cluster: "liar".into(), scale_set_uid: "set".into(), scale_set: "ci/set".into() };
    let backend = resolved.open("rack", &[], &owner);
    message(&*backend, "liar", "is no Docker engine").await;
    assert!(!backend.hosts()[0].message.contains(SECRET));
}

#[tokio::test]
async fn a_changed_secret_is_another_client_at_once() {
    let (authority, engine, sshd) = reached("changed").await;
    let (stage, secrets) = (Stage::at("changed", engine.endpoint()).await, Secrets::default());
    let provider = DockerProvider::new(&stage.cluster, Requeuer::new(|_| {}));
    let stranger = Authority::new("another").certify("stranger");
    secrets.set_tls("tls", &authority, &stranger);
    secrets.set_ssh("ssh", &sshd);
    let hosts = json!([tls("tls", &engine.tls_endpoint()), ssh("ssh", &sshd.endpoint("root"))]);
    let before = resolved(&provider, &secrets, hosts.clone()).await;
    let backend = before.open("rack", &[], &stage.identity("set"));
    message(&*backend, "tls", "does not accept").await;
    let kept = start_on(&*backend, "ssh").await;
    assert_eq!(resolved(&provider, &secrets, hosts.clone()).await.fingerprint(), before.fingerprint());

    secrets.set_tls("tls", &authority, &authority.certify("paddock"));
    let after = resolved(&provider, &secrets, hosts.clone()).await;
    assert_ne!(after.fingerprint(), before.fingerprint());
    let next = after.open("rack", &[], &stage.identity("set"));
    drop(backend);
    start_on(&*next, "tls").await;
    let of_ssh = next.instances().into_iter().find(|listing| listing.host == "ssh").unwrap();
    assert!(
        of_ssh.current && of_ssh.instances.iter().any(|known| known.id == kept),
        "the other host stayed as it was"
    );
}

/// A status may name any host, and whose it was nobody knows after a restart.
#[tokio::test]
async fn a_host_that_no_spec_names_is_reached_as_before_or_not_at_all() {
    let (authority, engine, _) = reached("as-before").await;
    let (stage, secrets) = (Stage::at("as-before", engine.endpoint()).await, Secrets::default());
    secrets.set_tls("tls", &authority, &authority.certify("paddock"));
    let endpoint = engine.tls_endpoint();
    let provider = DockerProvider::new(&stage.cluster, Requeuer::new(|_| {}));
    let before = resolved(&provider, &secrets, json!([tls("tls", &endpoint)])).await;
    let before = before.open("rack", &[], &stage.identity("set"));
    let id = start_on(&*before, "tls").await;
    let alone = provider.resolve_host("left", &endpoint).unwrap().open("rack", &[], &stage.identity("set"));
    drop(before);
    until("it is listed", || {
        let listing = alone.instances().remove(0);
        listing.instances.iter().any(|known| known.id == id && listing.current).then_some(())
    })
    .await;
    alone.remove("left", &id).await.unwrap();

    let fresh = DockerProvider::new(&stage.cluster, Requeuer::new(|_| {}));
    let alone = fresh.resolve_host("left", &endpoint).unwrap().open("rack", &[], &stage.identity("set"));
    message(&*alone, "left", "how it is logged in to is not known").await;
    let listing = alone.instances().remove(0);
    assert!(!listing.current && listing.listed_at.is_none());
}

/// The least rights, and what is said where there is less.
#[tokio::test]
async fn a_key_that_may_forward_and_nothing_else_is_enough() {
    let (_, mut engine, sshd) = reached("rights").await;
    let stage = Stage::at("rights", engine.endpoint()).await;
    let mut template = stage.template("sleep 1000");
    let login = SshLogin::read(&sshd.private_key(), &sshd.known_hosts()).unwrap();
    (template.hosts[0].endpoint, template.hosts[0].login) = (sshd.endpoint("root"), Login::Ssh(login));
    sshd.restrict(r#"restrict,port-forwarding,command="/bin/false""#);
    let backend = stage.backend("set", template.clone());
    started(&backend).await;
    drop(backend);
    sshd.restrict("restrict");
    let backend = stage.backend("set", template.clone());
    message(&backend, HOST, "forbid the forwarding of sockets").await;
    drop(backend);
    sshd.restrict("restrict,port-forwarding");
    let backend = stage.backend("set", template);
    connected(&backend).await;
    engine.down();
    message(&backend, HOST, "socket").await;
    engine.up().await;
    connected(&backend).await;
}

#[tokio::test]
async fn slots_of_an_engine_are_shared_by_whoever_reaches_it_with_whatever_certificate() {
    let authority = Authority::new("shared");
    let engine = Engine::with_tls("shared", &authority).await;
    let (stage, secrets) = (Stage::at("shared", engine.endpoint()).await, Secrets::default());
    let provider = DockerProvider::new(&stage.cluster, Requeuer::new(|_| {}));
    let endpoint = engine.tls_endpoint();
    provider.limit_hosts(&[HostCeiling { endpoint: endpoint.clone(), max_runners: 2 }]);
    let mut sets = Vec::new();
    for name in ["one", "other"] {
        secrets.set_tls(name, &authority, &authority.certify(name));
        let resolved = resolved(&provider, &secrets, json!([tls(name, &endpoint)])).await;
        let backend = resolved.open("rack", &[], &stage.identity(name));
        let id = start_on(&*backend, name).await;
        sets.push((name, backend, id));
    }
    for (name, backend, _) in &sets {
        until("each sees that all are taken", || {
            let host = backend.hosts().remove(0);
            host.message.contains("all 2 slots, shared by 2 scale sets, are taken").then_some(())
        })
        .await;
        assert!(backend.reserve(name).is_none());
        let of = backend.instances().remove(0).instances;
        assert_eq!(of.len(), 1, "each sees its own alone");
    }
    let usage = provider.hosts();
    assert_eq!((usage.len(), usage[0].taken, usage[0].free), (1, 2, Some(0)));
    assert_eq!(provider.instances().len(), 2, "each runner is counted once");
    let (_, backend, id) = &sets[0];
    backend.remove("one", id).await.unwrap();
    until("its slot is the other's", || sets[1].1.reserve("other")).await;
}

#[tokio::test]
async fn a_host_that_has_been_silent_for_long_is_lost_until_it_is_back() {
    let (_, engine, mut sshd) = reached("lost").await;
    let mut stage = Stage::at("lost", engine.endpoint()).await;
    stage.engines = stage.fresh_engines().with_silence(Duration::from_secs(1));
    let mut template = stage.template("sleep 1000");
    let login = SshLogin::read(&sshd.private_key(), &sshd.known_hosts()).unwrap();
    (template.hosts[0].endpoint, template.hosts[0].login) = (sshd.endpoint("root"), Login::Ssh(login));
    let backend = stage.backend("set", template);
    let instance = started(&backend).await;
    assert!(backend.lost_hosts().is_empty());
    sshd.kill().await;
    until("the loss is seen", || (host(&backend).availability == Availability::Unreachable).then_some(()))
        .await;
    assert_eq!(
        shown(&backend, &instance.id).unwrap().state,
        InstanceState::Running,
        "it stays as last known"
    );
    assert!(backend.reserve(HOST).is_none());
    let woken = stage.woken("set");
    until("it is lost", || (backend.lost_hosts() == [HOST]).then_some(())).await;
    until("its set is told", || (stage.woken("set") > woken).then_some(())).await;
    sshd.restart().await;
    connected(&backend).await;
    assert!(backend.lost_hosts().is_empty());
    assert_eq!(shown(&backend, &instance.id).unwrap().state, InstanceState::Running, "it is adopted");
    start(&backend).await.unwrap();
}

/// As the ledger of a scale set has them now.
fn observe(ledger: &mut Ledger, backend: &dyn Backend) {
    // Removed so long ago that a host which shows it again is believed.
    let now = Timestamp::now() - Duration::from_secs(60);
    let seen = |listing: Listing| listing.observed(backend.name());
    ledger.observe(&backend.instances().into_iter().map(seen).collect::<Vec<_>>(), now);
    let lost = backend.lost_hosts().into_iter().map(|host| (backend.name().to_owned(), host));
    ledger.mark_lost(&lost.collect::<Vec<_>>(), now);
}

#[tokio::test]
async fn of_a_lost_host_the_busy_runner_stays_and_all_are_adopted_when_it_is_back() {
    let (_, engine, mut sshd) = reached("lost-set").await;
    let mut stage = Stage::at("lost-set", engine.endpoint()).await;
    stage.engines = stage.fresh_engines().with_silence(Duration::from_secs(1));
    let mut template = stage.template("sleep 1000");
    let login = SshLogin::read(&sshd.private_key(), &sshd.known_hosts()).unwrap();
    (template.hosts[0].endpoint, template.hosts[0].login) = (sshd.endpoint("root"), Login::Ssh(login));
    let backend = stage.backend("set", template);
    let (busy, idle) = (started(&backend).await, start(&backend).await.unwrap());
    let mut ledger = Ledger::new();
    let phases = |ledger: &Ledger| {
        [&busy, &idle].map(|i| ledger.runner(&i.runner).map(|r| (r.phase, r.leaving.host_lost)))
    };
    observe(&mut ledger, &backend);
    let job = Job { id: "1".to_owned(), ..Job::default() };
    let begun = JobEvent::Started { job, runner_name: busy.runner.clone(), runner_id: 1 };
    ledger.apply(&begun, Timestamp::now() - Duration::from_secs(60));
    assert_eq!(phases(&ledger), [Some((Phase::Busy, false)), Some((Phase::Idle, false))]);
    sshd.kill().await;
    until("it is lost", || (backend.lost_hosts() == [HOST]).then_some(())).await;
    observe(&mut ledger, &backend);
    assert_eq!(phases(&ledger), [Some((Phase::Busy, true)), Some((Phase::Idle, true))]);
    // The plan has the registration of what is idle there removed.
    ledger.deregistered(&idle.runner);
    observe(&mut ledger, &backend);
    assert_eq!(phases(&ledger), [Some((Phase::Busy, true)), None], "no job can be on it any more");
    sshd.restart().await;
    connected(&backend).await;
    observe(&mut ledger, &backend);
    assert_eq!(phases(&ledger), [Some((Phase::Busy, false)), Some((Phase::Idle, false))]);
    assert_eq!(stage.count().await, 2, "nothing was replaced");
}

/// An engine on the controller's own machine is away for as long as it takes to restart it.
#[tokio::test]
async fn the_machines_own_engine_is_never_lost() {
    let mut engine = Engine::start("unlost").await;
    let mut stage = Stage::at("unlost", engine.endpoint()).await;
    stage.engines = stage.fresh_engines().with_silence(Duration::ZERO);
    let backend = stage.backend("set", stage.template("sleep 1000"));
    prepared(&backend).await;
    engine.down();
    until("the loss is seen", || (host(&backend).availability == Availability::Unreachable).then_some(()))
        .await;
    assert!(backend.lost_hosts().is_empty());
}
