//! GitHub's rate limit, as everyone who uses one credential shares it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Error;

/// Keeps calls back once GitHub limited the rate, until the limit has passed.
#[derive(Debug, Default)]
pub struct RateLimit {
    until: Mutex<Option<Instant>>,
}

impl RateLimit {
    /// For how long GitHub wants to be left alone yet; none when it does not.
    pub fn left(&self) -> Option<Duration> {
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until?.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    /// Lets a call pass.
    ///
    /// # Errors
    /// [`Error::RateLimited`] with the time that is left, while there is a limit.
    pub fn check(&self) -> Result<(), Error> {
        self.left().map_or(Ok(()), |retry_after| Err(Error::RateLimited { retry_after }))
    }

    /// Passes an answer on, and notes the limit that it may tell of. Of two limits the longer one holds.
    pub fn noted<T>(&self, answer: Result<T, Error>) -> Result<T, Error> {
        if let Err(error @ Error::RateLimited { .. }) = &answer {
            let told = Instant::now().checked_add(error.retry_after());
            let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
            *until = (*until).max(told);
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_longer_of_two_limits_holds_until_it_has_passed() {
        let limit = RateLimit::default();
        let told = |seconds| Err::<(), _>(Error::RateLimited { retry_after: Duration::from_secs(seconds) });
        assert!(limit.noted(Ok(())).is_ok() && limit.check().is_ok());
        assert!(limit.noted(told(20)).is_err() && limit.noted(told(5)).is_err());
        tokio::time::advance(Duration::from_secs(15)).await;
        assert_eq!(limit.left(), Some(Duration::from_secs(5)));
        assert!(
            matches!(limit.check(), Err(Error::RateLimited { retry_after }) if retry_after.as_secs() == 5)
        );
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(limit.left().is_none() && limit.check().is_ok());
        // Not without another look.
        assert!(limit.noted(told(u64::MAX)).is_err());
        assert_eq!(limit.left(), Some(Duration::from_secs(15 * 60)));
    }
}
