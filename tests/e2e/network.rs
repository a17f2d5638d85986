//! Ways to GitHub that the spec names: a proxy with login and exclusions, an authority of one's own.

use harness::gateways::{LOGIN, TestProxy, TlsFront};
use harness::{Manifest, PATIENCE, lab};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;
use testkit::github::{DEFAULT_TOKEN, Endpoint, SimGithub};

#[tokio::test]
async fn proxy_login_exclusions_and_authority_come_from_the_spec() {
    lab("network", async |lab| {
        lab.secret("github", [("github_token", DEFAULT_TOKEN)]).await;
        lab.secret("proxy", [("username", LOGIN.0), ("password", LOGIN.1)]).await;
        // A name that only the proxy can reach.
        let github =
            SimGithub::builder().small_jit().public_url("http://ghes.invalid").start().await.unwrap();
        let proxy = TestProxy::start(github.address()).await;
        let (front, private) = TlsFront::start(SimGithub::builder().small_jit()).await;
        let authority = json!({"metadata": {"name": "corp-ca"}, "data": {"ca.crt": front.authority}});
        let maps: Api<ConfigMap> = Api::namespaced(lab.client.clone(), &lab.namespace);
        maps.create(&PostParams::default(), &serde_json::from_value(authority).unwrap()).await.unwrap();
        let through = json!({
            "url": format!("http://{}", proxy.address),
            "noProxy": ["127.0.0.0/8"],
            "credentialsSecretRef": {"name": "proxy"},
        });
        // The runners have another way to GitHub, or none as here.
        let unconnected = json!({"env": [{"name": "FAKE_RUNNER_NEVER_CONNECT", "value": "1"}]});

        let _controller = lab.start();
        let manifest = Manifest::sample("http://ghes.invalid/acme")
            .spec(json!({"minRunners": 1, "scaleDown": {"delay": "0s"}, "github": {"proxy": through}}))
            .docker(unconnected);
        lab.apply(&manifest).await;
        let excluded =
            Manifest::sample(&format!("https://{}/acme", front.address)).named("excluded").spec(json!({
                "github": {
                    "allowInsecure": false, "proxy": through,
                    "caBundleRef": {"kind": "ConfigMap", "name": "corp-ca", "key": "ca.crt"},
                },
            }));
        lab.apply(&excluded).await;
        lab.until_is("excluded", "Ready", "True", None).await;
        assert!(private.look(|s| s.requests().polls_held()) > 0);

        lab.until_is("linux", "Ready", "True", None).await;
        lab.until_phases("linux", (0, 1, 0)).await;
        lab.scale("linux", 0).await;
        github.wait_until(PATIENCE, |s| s.runners().count() == 0).await.unwrap();
        lab.until_phases("linux", (0, 0, 0)).await;
        for call in [Endpoint::OpenSession, Endpoint::Poll, Endpoint::JitConfig, Endpoint::RemoveRunner] {
            assert!(!github.requests(call).is_empty(), "{call:?}");
        }
        let asked = proxy.asked();
        assert!(asked.iter().all(|line| line.contains("http://ghes.invalid/")), "{asked:?}");
    })
    .await;
}
