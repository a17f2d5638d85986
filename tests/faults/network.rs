//! The network between the controller and GitHub fails under load.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use testkit::github::{DEFAULT_TOKEN, Endpoint, SimGithub};

use crate::account::{Witness, assert_timeline, settle};
use crate::harness::{Lab, lab};
use crate::load::{Chance, manifest, short_or_long};
use crate::proxy::{Proxy, Weather};

/// Jobs that are queued in each weather.
const JOBS: usize = 5;
/// Listening again after the network has, at the latest: a call that never ends is given up after 30 s, and the longest
/// pause between two tries is as long.
const LISTENING_WITHIN: Duration = Duration::from_secs(70);

/// A GitHub that the controller reaches by a proxy alone, and runners directly.
pub async fn github_behind_a_proxy(lab: &Lab) -> (SimGithub, Proxy) {
    lab.secret("github", [("github_token", DEFAULT_TOKEN)]).await;
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = Proxy::before(address).await;
    let github = SimGithub::builder()
        .small_jit()
        .long_poll(Duration::from_secs(5))
        .bind(address)
        .public_url(proxy.url())
        .runner_url(format!("http://{address}"));
    (github.start().await.unwrap(), proxy)
}

#[tokio::test]
async fn a_network_that_fails_delays_jobs_and_loses_none() {
    lab("network", async |lab| {
        let (github, proxy) = github_behind_a_proxy(lab).await;
        let (witness, mut chance) = (Witness::of(&github), Chance::of("network"));
        let _controller = lab.start();
        lab.apply(&manifest(&github.config_url("acme"))).await;
        lab.until_is("linux", "Ready", "True", None).await;
        let weathers =
            [Weather::Down, Weather::Cutting, Weather::Slow(Duration::from_millis(400)), Weather::Silent];
        for weather in weathers.into_iter().cycle().take(short_or_long(4, 40)) {
            chance.queue_jobs(&github, JOBS);
            tokio::time::sleep(chance.time(0, 1500)).await;
            proxy.set(weather);
            tokio::time::sleep(chance.time(3000, 6000)).await;
            proxy.set(Weather::Fair);
            let (fair, asked) = (Instant::now(), github.look(|s| s.requests().iter().count()));
            let polls = |s: &testkit::github::State| {
                s.requests()
                    .iter()
                    .skip(asked)
                    .any(|r| r.endpoint == Endpoint::Poll && !r.held && r.status.is_some())
            };
            github.wait_until(LISTENING_WITHIN, polls).await.unwrap();
            println!("{weather:?}: listening {:?} after it", fair.elapsed());
        }
        let failed = settle(lab, &github, &witness, &[&lab.docker], 0).await;
        assert!(failed.is_empty(), "lost: {failed:?}");
        assert_timeline(lab, &github);
    })
    .await;
}
