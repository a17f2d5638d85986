//! Waits for a state: the one place of all tests that looks again and again, with a deadline.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// Looks until `find` finds something, and returns that. By Tokio's clock.
///
/// # Panics
/// Says `what` was not found, once `within` is over.
pub async fn eventually<T>(what: &str, within: Duration, mut find: impl AsyncFnMut() -> Option<T>) -> T {
    match found(within, &mut find).await {
        Some(found) => found,
        // Called by tests alone, where a failure is a panic.
        #[allow(clippy::panic)]
        None => panic!("not within {within:?}: {what}"),
    }
}

/// Looks until `find` finds something, or until `within` is over.
pub async fn found<T>(within: Duration, find: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    found_every(LOOK, within, find).await
}

/// The same, with so much time between two looks: for what costs much, or would disturb what is measured.
pub async fn found_every<T>(
    look: Duration,
    within: Duration,
    mut find: impl AsyncFnMut() -> Option<T>,
) -> Option<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = find().await {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        sleep(look).await;
    }
}

/// [`found`] in a destructor, which cannot await: blocks the thread.
pub fn found_blocking<T>(within: Duration, mut find: impl FnMut() -> Option<T>) -> Option<T> {
    let begun = std::time::Instant::now();
    loop {
        if let Some(found) = find() {
            return Some(found);
        }
        if begun.elapsed() >= within {
            return None;
        }
        std::thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_comes_is_found_and_what_does_not_come_is_given_up_at_the_deadline() {
        let begun = Instant::now();
        let mut looks = 0;
        let third = async || {
            looks += 1;
            (looks == 3).then_some(looks)
        };
        assert_eq!(eventually("a third look", Duration::from_secs(1), third).await, 3);
        assert_eq!(begun.elapsed(), 2 * LOOK);
        assert_eq!(found(Duration::from_secs(1), async || None::<()>).await, None);
        assert_eq!(begun.elapsed(), 2 * LOOK + Duration::from_secs(1));
    }
}
