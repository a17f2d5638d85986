//! Keeps up with one Mac: connected for as long as it answers, listed now and then, and again whenever something ended there.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::failure::told;
use super::listing::Listed;
use super::mac::Mac;
use super::scripts;
use crate::backend::remote::{Failure, Output, Part};
use crate::rng;
use crate::time::Backoff;

/// For a whole listing. Tart looks at every image.
const LISTING: Duration = Duration::from_secs(30);
/// The second and the third listing come this soon: what a status remembers is believed to be gone once two of them lack it,
/// and takes a slot until then.
const SECOND_LOOK: Duration = Duration::from_secs(2);
const LOOKS_AT_FIRST: u32 = 3;
/// What asks for listings one after the other waits this long between two.
const BREATH: Duration = Duration::from_millis(100);
/// `tart list` fails while someone else writes a configuration: so often it is asked again at once, with this in between.
const LIST_TRIES: u32 = 4;
const LIST_AGAIN: Duration = Duration::from_millis(500);
/// How long to wait before connecting again.
const RECONNECT: Backoff = Backoff { first: Duration::from_millis(250), last: Duration::from_secs(30) };
/// The script that watches ends by itself after this ...
const WATCH: Duration = Duration::from_secs(1200);
/// ... and prints something more often than this, twice over.
const WATCH_SILENCE: Duration = Duration::from_secs(30);

/// Follows a Mac for ever, through all its absences. `pulled` says when which images came, as a listing names them.
pub(super) async fn follow(mac: Arc<Mac>, pulled: impl Fn() -> Vec<(String, Instant)> + Send) -> Infallible {
    let mut failures = 0;
    loop {
        let Err(error) = session(&mac, &mut failures, &pulled).await;
        failures += 1;
        mac.remote.disconnect();
        disconnected(&mac, &error);
        sleep(RECONNECT.after(failures)).await;
    }
}

/// One connection, until it breaks.
async fn session(
    mac: &Mac,
    failures: &mut u32,
    pulled: &(impl Fn() -> Vec<(String, Instant)> + Send),
) -> Result<Infallible, Failure> {
    mac.remote.connect().await?;
    tokio::select! {
        lost = listings(mac, failures, pulled) => lost,
        lost = watch(mac) => lost,
    }
}

async fn listings(
    mac: &Mac,
    failures: &mut u32,
    pulled: &(impl Fn() -> Vec<(String, Instant)> + Send),
) -> Result<Infallible, Failure> {
    for looks in 1u32.. {
        let asked_at = Instant::now();
        let listing = list(mac).await?;
        listed(mac, asked_at, listing, &pulled());
        // It tells those, too, whose status remembers what is not there.
        if looks == 2 {
            mac.host.requeue_all();
        }
        *failures = 0;
        let pause = if looks < LOOKS_AT_FIRST { SECOND_LOOK } else { mac.limits.relist };
        sleep(BREATH).await;
        // Either is a reason to look.
        let _ = timeout(pause.mul_f64(0.8 + 0.4 * rng::unit()), mac.suspicion.notified()).await;
    }
    Err(Failure::Disconnected("it was listed too often".to_owned()))
}

async fn list(mac: &Mac) -> Result<Listed, Failure> {
    let script = mac.script("a listing", scripts::LIST, LISTING);
    let mut why = String::new();
    for _ in 0..LIST_TRIES {
        // Not in turn: a host that is busy with clones has not gone silent.
        let mut output = Output::default();
        mac.remote.watch(&script, LISTING, &mut |part| output.add(part)).await?;
        why = match output.code {
            Some(0) => match Listed::read(&output.text()) {
                Ok(listed) => return Ok(listed),
                Err(garbled) => garbled.to_string(),
            },
            _ => format!("its VMs cannot be listed: {}", told(&output.errors())),
        };
        sleep(LIST_AGAIN).await;
    }
    Err(Failure::Refused(why))
}

/// Lists as soon as something ended.
async fn watch(mac: &Mac) -> Result<Infallible, Failure> {
    loop {
        let script = mac.script("the watch", scripts::WATCH, WATCH);
        let mut take = |part: Part| {
            if let Part::Output(bytes) = part
                && bytes.iter().any(|byte| !byte.is_ascii_whitespace())
            {
                mac.suspect();
            }
        };
        match mac.remote.watch(&script, WATCH_SILENCE, &mut take).await {
            Ok(()) | Err(Failure::TimedOut { .. }) => sleep(BREATH).await,
            Err(failure) => return Err(failure),
        }
    }
}

fn listed(mac: &Mac, asked_at: Instant, Listed { vms, mut images }: Listed, pulled: &[(String, Instant)]) {
    let fresh = pulled.iter().filter(|(_, at)| *at > asked_at).map(|(name, _)| name.clone());
    images.extend(fresh);
    let (mut connected, mut news) = (false, false);
    mac.change(|view| {
        let now = Timestamp::now();
        let affected = view.index.replace(asked_at, vms, now);
        connected = view.down.take().is_some();
        view.down_since = None;
        news = connected || view.images != images;
        view.images = images;
        view.listed_at = Some(now);
        view.connections += u64::from(connected);
        affected
    });
    if connected {
        info!(endpoint = %mac.endpoint, "Mac connected");
    }
    // An image that came or went is everyone's concern.
    // Time alone makes it lost: those who use it look then, and now and then after it.
    if news || mac.is_lost() {
        mac.host.requeue_all();
    }
}

fn disconnected(mac: &Mac, error: &Failure) {
    let why = error.to_string();
    let mut news = false;
    mac.change(|view| {
        news = view.down.as_ref() != Some(&why);
        if news {
            warn!(endpoint = %mac.endpoint, why, "Mac does not answer; its VMs stay as last known");
        }
        view.down = Some(why);
        view.down_since.get_or_insert_with(Instant::now);
        BTreeSet::new()
    });
    if news {
        mac.host.requeue_all();
    }
}
