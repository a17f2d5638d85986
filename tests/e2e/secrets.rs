//! Secrets are planted everywhere; none comes out of the controller but into the containers that need it.

use std::collections::BTreeSet;
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use harness::{Lab, Manifest, PATIENCE, lab};
use serde_json::json;
use testkit::github::{Effect, Endpoint, Fault, JobSpec, JobStatus, SimGithub, app_private_key};
use tokio::task::JoinHandle;

const TOKEN: &str = "ghp_planted0token0planted";
const PROXY_LOGIN: (&str, &str) = ("planted-user", "planted-proxy-password");
const VALUE: &str = "planted-value-of-a-variable";
const BROKEN_KEY: &str = "planted-key-that-is-none";

/// Reads every process's arguments again and again, and keeps those that are new.
struct Arguments {
    seen: Arc<Mutex<BTreeSet<String>>>,
    task: JoinHandle<()>,
}

impl Arguments {
    fn watch() -> Arguments {
        let seen = Arc::new(Mutex::new(BTreeSet::new()));
        let noted = seen.clone();
        let task = tokio::spawn(async move {
            loop {
                let processes = fs::read_dir("/proc").unwrap().flatten();
                let arguments = processes.filter_map(|p| fs::read(p.path().join("cmdline")).ok());
                let texts = arguments.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
                noted.lock().unwrap().extend(texts);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        Arguments { seen, task }
    }

    fn text(&self) -> String {
        let seen = self.seen.lock().unwrap();
        seen.iter().cloned().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Arguments {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// All that the controller told the API server.
async fn told(lab: &Lab) -> String {
    let mut told = String::new();
    for name in ["by-token", "by-app", "by-nothing"] {
        told += &serde_json::to_string(&lab.get(name).await).unwrap();
        told += &serde_json::to_string(&lab.events(name).await).unwrap();
    }
    told
}

/// The JIT configurations of the containers that run.
async fn jit_configurations(lab: &Lab) -> Vec<String> {
    let mut found = Vec::new();
    for container in lab.containers().await.values() {
        let environment = lab.environment(container).await;
        assert!(environment.contains(&format!("PLANTED={VALUE}")), "the runner has what it needs");
        let jit = environment.iter().find_map(|v| v.strip_prefix("ACTIONS_RUNNER_INPUT_JITCONFIG="));
        found.push(jit.expect("a runner has its JIT configuration").to_owned());
    }
    found
}

/// What each fault spoils is an answer with a secret in it.
fn spoil_answers(github: &SimGithub) {
    for fault in [
        Fault::drop_fields(Endpoint::JitConfig, ["runner"]),
        Fault::null_fields(Endpoint::JitConfig, ["id"]),
        Fault::drop_fields(Endpoint::OpenSession, ["messageQueueUrl"]).for_scale_set("by-app"),
        Fault::new(Endpoint::JitConfig, Effect::CutAnswer),
        Fault::drop_fields(Endpoint::RunnerRegistration, ["url"]),
        Fault::drop_fields(Endpoint::RegistrationToken, ["token"]),
    ] {
        github.inject(fault.times(1));
    }
}

#[tokio::test]
async fn no_secret_is_told() {
    lab("secrets", async |lab| {
        let start = SimGithub::builder().token(TOKEN);
        let github = start.app("4711", 77, app_private_key()).unwrap().start().await.unwrap();
        lab.secret("token", [("github_token", TOKEN)]).await;
        lab.secret("proxy", [("username", PROXY_LOGIN.0), ("password", PROXY_LOGIN.1)])
            .await;
        lab.secret("variables", [("planted", VALUE)]).await;
        for (name, key) in [("app", app_private_key()), ("broken", BROKEN_KEY)] {
            let data = [
                ("github_app_id", "4711"),
                ("github_app_installation_id", "77"),
                ("github_app_private_key", key),
            ];
            lab.secret(name, data).await;
        }

        let arguments = Arguments::watch();
        let controller = lab.start_at_level("trace");
        spoil_answers(&github);
        let variable = json!({"name": "PLANTED", "valueFrom": {"secretKeyRef": {"name": "variables", "key": "planted"}}});
        // The simulated GitHub takes what is sent to it as to a proxy.
        let proxy = json!({"url": github.url(), "credentialsSecretRef": {"name": "proxy"}});
        for (name, secret) in [("by-token", "token"), ("by-app", "app"), ("by-nothing", "broken")] {
            let manifest = Manifest::sample(&github.config_url("acme"))
                .named(name)
                .spec(json!({"github": {"credentialsSecretRef": {"name": secret}, "proxy": proxy}}))
                .docker(json!({"env": [variable]}));
            lab.apply(&manifest).await;
        }
        lab.until_is("by-nothing", "Stalled", "True", Some("SecretInvalid"))
            .await;
        for name in ["by-token", "by-app"] {
            github.queue_job(JobSpec::new("acme/app", [name]));
            lab.until_phases(name, (0, 0, 1)).await;
        }
        let mut secrets = jit_configurations(lab).await;
        assert_eq!(secrets.len(), 2);
        github.replace_tokens(["another"]);
        github.expire_admin_tokens();
        github.drop_session("by-token").unwrap();
        lab.until("by-token", "the token is refused", |set| {
            let conditions = &set.status.as_ref().unwrap().conditions;
            conditions.iter().any(|c| c.reason == "AuthRejected")
        })
        .await;
        github
            .wait_until(PATIENCE, |s| s.jobs_in(JobStatus::Running) == 2)
            .await
            .unwrap();

        secrets.extend([TOKEN, PROXY_LOGIN.1, VALUE, BROKEN_KEY, &lab.token].map(str::to_owned));
        secrets.push(format!("{}:{}", PROXY_LOGIN.0, PROXY_LOGIN.1));
        secrets.extend(secrets.clone().iter().map(|s| STANDARD.encode(s)));
        let key_lines = app_private_key().lines().filter(|l| !l.starts_with("-----"));
        secrets.extend(key_lines.map(str::to_owned));
        let (log, told, arguments) = (controller.log(), told(lab).await, arguments.text());
        for secret in secrets.iter().filter(|s| s.len() > 8) {
            assert!(!log.contains(secret), "the log tells {secret}");
            assert!(!told.contains(secret), "a status or an event tells {secret}");
            assert!(!arguments.contains(secret), "arguments tell {secret}");
        }
        // What was minted in between and not kept: every such text is base64 of a JSON object.
        for text in [&log, &told] {
            assert!(!text.contains("eyJ") && !text.contains("eyI"));
        }
        assert!(log.contains("TRACE") || log.contains("DEBUG"), "the log is at its most talkative");
    })
    .await;
}
