//! The network between the controller and GitHub fails under load.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use harness::{Lab, lab};
use jiff::Timestamp;
use testkit::github::{DEFAULT_TOKEN, Endpoint, SimGithub};
use tokio_util::task::AbortOnDropHandle;

use crate::account::{Witness, assert_timeline, settle};
use crate::load::{Chance, manifest, short_or_long, soaking};
use crate::proxy::{Proxy, Weather};

/// Jobs that are queued in each weather.
const JOBS: usize = 5;
/// A session that nobody polls lapses after this. GitHub's own figure is not known.
const LAPSES_AFTER: Duration = Duration::from_secs(15);
/// Listening again after the network has, at the latest: the longest pause between two tries, and the time that a session
/// lapses in. A poll that never ends is given up after two minutes.
const LISTENING_WITHIN: Duration = Duration::from_secs(60);
const NEVER_ENDING: Duration = Duration::from_secs(120);

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

/// Lets sessions lapse that nobody polls, as GitHub does after a while: where the answer to the opening of one is lost,
/// nobody knows how to close it.
fn lapsing(github: &SimGithub) -> AbortOnDropHandle<()> {
    let github = github.clone();
    AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let unpolled = github.look(|s| {
                let session = s.scale_set("linux").and_then(|set| set.session.as_ref())?;
                let idle = Timestamp::now().duration_since(session.polled_at.unwrap_or(session.opened_at));
                Some(!session.expired && s.requests().polls_held() == 0 && idle.unsigned_abs() > LAPSES_AFTER)
            });
            if unpolled == Some(true) {
                github.expire_session("linux").unwrap();
            }
        }
    }))
}

#[tokio::test]
async fn a_network_that_fails_delays_jobs_and_loses_none() {
    lab("network", async |lab| {
        let (github, proxy) = github_behind_a_proxy(lab).await;
        let (witness, mut chance) = (Witness::of(&github), Chance::of("network"));
        let _lapsing = lapsing(&github);
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
            if weather == Weather::Silent && !soaking() {
                // Else the poll that went silent is given up after two minutes only.
                proxy.set(Weather::Down);
                tokio::time::sleep(Duration::from_millis(100)).await; // long enough for each connection to see it
            }
            proxy.set(Weather::Fair);
            let (fair, asked) = (Instant::now(), github.look(|s| s.requests().iter().count()));
            let polls = |s: &testkit::github::State| {
                s.requests()
                    .iter()
                    .skip(asked)
                    .any(|r| r.endpoint == Endpoint::Poll && !r.held && r.status.is_some())
            };
            let late = weather == Weather::Silent && soaking();
            let within = LISTENING_WITHIN + if late { NEVER_ENDING } else { Duration::ZERO };
            github.wait_until(within, polls).await.unwrap();
            println!("{weather:?}: listening {:?} after it", fair.elapsed());
        }
        let failed = settle(lab, &github, &witness, &[&lab.docker], 0).await;
        assert!(failed.is_empty(), "lost: {failed:?}");
        assert_timeline(lab, &github);
    })
    .await;
}
