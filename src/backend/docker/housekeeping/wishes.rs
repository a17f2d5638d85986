//! What the users of a host wish of its housekeeping, and what they are told of it. No IO.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::Notify;

use super::helper::HelperImage;
use super::report::Report;
use super::rules::Rules;
use super::volume::{self, Volume};

/// What one backend of a scale set wishes on a host.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) rules: Rules,
    /// The runners' image, of which helpers are made.
    pub(crate) image: HelperImage,
    pub(crate) volume: Option<Volume>,
}

/// What the users of a host wish.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    known: Mutex<Known>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Known {
    users: BTreeMap<u64, User>,
    next: u64,
    /// The disk is too full, in words.
    low: Option<String>,
}

#[derive(Debug)]
struct User {
    wish: Wish,
    /// What it was not told yet, and whether someone should look at it.
    news: Vec<(bool, String)>,
    /// What was done last.
    last: String,
}

/// What all users of a host agree to.
#[derive(Debug)]
pub(super) struct Agreed {
    pub(super) rules: Rules,
    /// Images of which helpers may be made.
    pub(super) images: Vec<HelperImage>,
    /// Volumes that are swept.
    pub(super) volumes: Vec<Volume>,
}

/// A backend's wish, until this is dropped.
#[derive(Debug)]
pub(crate) struct Wishing {
    wishes: Arc<Wishes>,
    number: u64,
}

impl Wishes {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns once a wish came or went.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What all agree to; none while nobody wishes anything.
    pub(super) fn agreed(&self) -> Option<Agreed> {
        let known = self.known();
        let wishes = || known.users.values().map(|user| &user.wish);
        let rules = wishes().map(|wish| wish.rules.clone()).reduce(|a, b| a.milder(&b))?;
        let mut images = Vec::new();
        for wish in wishes() {
            if !images.contains(&wish.image) {
                images.push(wish.image.clone());
            }
        }
        Some(Agreed {
            rules,
            images,
            volumes: volume::to_sweep(wishes().filter_map(|wish| wish.volume.as_ref())),
        })
    }

    /// Tells all users of what was done, each of what concerns it. Answers whether there was something.
    pub(super) fn tell(&self, report: &Report, now: Timestamp) -> bool {
        let mut known = self.known();
        let began = report.low.is_some() && known.low.is_none();
        let mut told = known.low != report.low;
        known.low.clone_from(&report.low);
        for user in known.users.values_mut() {
            let volume = user.wish.volume.as_ref().map(Volume::name);
            if let Some(text) = report.tell(volume) {
                user.last = format!("{text}; at {}", now.strftime("%F %H:%MZ"));
                user.news.push((false, text));
                told = true;
            }
            user.news.extend(report.low.iter().filter(|_| began).map(|low| (true, low.clone())));
        }
        told
    }
}

impl Wishing {
    /// Adds a wish.
    pub(crate) fn new(wishes: Arc<Wishes>, wish: Wish) -> Wishing {
        let number = {
            let mut known = wishes.known();
            known.next += 1;
            let number = known.next;
            known.users.insert(number, User { wish, news: Vec::new(), last: String::new() });
            number
        };
        wishes.changed.notify_one();
        Wishing { wishes, number }
    }

    /// Takes what there is to be told, and whether someone should look at it.
    pub(crate) fn take_news(&self) -> Vec<(bool, String)> {
        let mut known = self.wishes.known();
        known.users.get_mut(&self.number).map(|user| std::mem::take(&mut user.news)).unwrap_or_default()
    }

    /// What a status shows: that the disk is too full, or else what was done last.
    pub(crate) fn message(&self) -> String {
        let known = self.wishes.known();
        let last = || known.users.get(&self.number).map(|user| user.last.clone());
        known.low.clone().or_else(last).unwrap_or_default()
    }
}

impl Drop for Wishing {
    fn drop(&mut self) {
        self.wishes.known().users.remove(&self.number);
        self.wishes.changed.notify_one();
    }
}
