//! Who waits for a slot on a host, longest first. A slot that is free is kept for whoever waits longest, but not for long:
//! who does not take it loses its turn. No IO, no clock.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::time::Plus;

/// A free slot is kept for so long: a scale set must notice it, ask GitHub for a job and be assigned one.
const TURN: Duration = Duration::from_secs(5);
/// Whoever let a turn pass does not wait again before this, lest each slot that comes free is kept for nothing.
const REST: Duration = Duration::from_secs(60);
/// As many let their turns pass in so long as one. Scale sets that cannot hear of jobs without a slot ask for one again and
/// again: however many they are, they keep a fifth of one slot from those that have jobs.
const PASSED_ONCE_IN: Duration = Duration::from_secs(25);

/// The users of a host, by number, that could not place all their runners for want of slots.
#[derive(Debug, Default)]
pub struct SlotQueue {
    /// Longest first.
    waiting: Vec<Waiting>,
    /// Those that let a turn pass, and until when they rest.
    resting: HashMap<u64, Instant>,
}

#[derive(Debug)]
struct Waiting {
    user: u64,
    runners: u32,
    /// Since when slots are kept for it.
    turn_since: Option<Instant>,
}

impl SlotQueue {
    /// Notes for how many runners a user has no slot; with none it waits no more, but for a turn that has begun: the slot that
    /// is kept for it may be what it lacked to ask for a job. Whoever waits already keeps its place.
    pub fn wait(&mut self, user: u64, runners: u32, now: Instant) {
        if runners == 0 {
            return self.waiting.retain(|waiting| waiting.user != user || waiting.turn_since.is_some());
        }
        self.resting.retain(|_, until| *until > now);
        match self.waiting.iter_mut().find(|waiting| waiting.user == user) {
            Some(waiting) => waiting.runners = runners,
            None if self.resting.contains_key(&user) => {}
            None => self.waiting.push(Waiting { user, runners, turn_since: None }),
        }
    }

    /// Returns for how many runners a user waits.
    pub fn runners_of(&self, user: u64) -> u32 {
        self.waiting.iter().find(|waiting| waiting.user == user).map_or(0, |waiting| waiting.runners)
    }

    /// Forgets a user.
    pub fn leave(&mut self, user: u64) {
        self.waiting.retain(|waiting| waiting.user != user);
        self.resting.remove(&user);
    }

    /// Notes that a user took a slot: for the next it waits behind all others.
    pub fn took(&mut self, user: u64) {
        self.resting.remove(&user);
        let Some(at) = self.waiting.iter().position(|waiting| waiting.user == user) else { return };
        let runners = self.waiting.remove(at).runners.saturating_sub(1);
        if runners > 0 {
            self.waiting.push(Waiting { user, runners, turn_since: None });
        }
    }

    /// Returns how many of the free slots a user may take: those that are not kept for who waits longer. `u32::MAX` is
    /// without limit.
    pub fn free_for(&self, user: u64, free: u32) -> u32 {
        if free == u32::MAX {
            return free;
        }
        let ahead = self.waiting.iter().take_while(|waiting| waiting.user != user);
        ahead.fold(free, |free, waiting| free.saturating_sub(waiting.runners))
    }

    /// Begins the turn of each user that slots are kept for from now on, and returns those users; ends the turn of those
    /// for whom there is none any more.
    pub fn begin_turns(&mut self, free: u32, now: Instant) -> Vec<u64> {
        let mut left = free;
        let mut begun = Vec::new();
        for waiting in &mut self.waiting {
            match (left, waiting.turn_since) {
                (0, _) => waiting.turn_since = None,
                (_, None) => {
                    waiting.turn_since = Some(now);
                    begun.push(waiting.user);
                }
                _ => {}
            }
            left = left.saturating_sub(waiting.runners);
        }
        begun
    }

    /// Takes the slots from those who let their turn pass.
    pub fn end_turns(&mut self, now: Instant) {
        let passed = |waiting: &mut Waiting| waiting.turn_since.is_some_and(|since| since.plus(TURN) <= now);
        for waiting in self.waiting.extract_if(.., passed) {
            let others = u32::try_from(self.resting.len()).unwrap_or(u32::MAX);
            let rest = PASSED_ONCE_IN.saturating_mul(others.saturating_add(1)).max(REST);
            self.resting.insert(waiting.user, now.plus(rest));
        }
    }

    /// Returns when the first turn ends that is under way.
    pub fn first_end(&self) -> Option<Instant> {
        self.waiting.iter().filter_map(|waiting| waiting.turn_since).min().map(|since| since.plus(TURN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: u64 = 1;
    const B: u64 = 2;
    const C: u64 = 3;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_free_slot_is_kept_for_who_waits_longest() {
        let (now, mut queue) = (Instant::now(), SlotQueue::default());
        queue.wait(A, 1, now);
        queue.wait(B, 2, now);
        queue.wait(A, 1, now + seconds(1));
        let free = |queue: &SlotQueue, free| [A, B, C].map(|user| queue.free_for(user, free));
        assert_eq!(free(&queue, 0), [0, 0, 0]);
        assert_eq!(free(&queue, 1), [1, 0, 0]);
        assert_eq!(free(&queue, 4), [4, 3, 1]);
        assert_eq!(free(&queue, u32::MAX), [u32::MAX; 3], "where nothing limits them nothing is kept");
        assert_eq!(queue.begin_turns(1, now), [A]);
        assert_eq!(queue.begin_turns(1, now), [0; 0], "once");
        assert_eq!(queue.begin_turns(2, now), [B]);
    }

    #[test]
    fn who_took_a_slot_waits_for_the_next_behind_all_others() {
        let (now, mut queue) = (Instant::now(), SlotQueue::default());
        queue.wait(A, 100, now);
        queue.wait(B, 100, now);
        let mut taken = Vec::new();
        for second in 0..6 {
            let turn = queue.begin_turns(1, now + seconds(second));
            let user = [A, B].into_iter().find(|user| queue.free_for(*user, 1) > 0).unwrap();
            assert_eq!(turn, [user]);
            queue.took(user);
            queue.wait(user, 100, now + seconds(second));
            taken.push(user);
        }
        assert_eq!(taken, [A, B, A, B, A, B]);
    }

    #[test]
    fn who_lets_its_turn_pass_blocks_nobody_and_rests() {
        let (now, mut queue) = (Instant::now(), SlotQueue::default());
        queue.wait(A, 5, now);
        queue.wait(B, 1, now);
        assert_eq!(queue.begin_turns(1, now), [A]);
        assert_eq!(queue.first_end(), Some(now + TURN));
        queue.end_turns(now + TURN - seconds(1));
        assert_eq!(queue.free_for(B, 1), 0);
        queue.end_turns(now + TURN);
        assert_eq!(queue.begin_turns(1, now + TURN), [B]);
        assert_eq!(queue.free_for(A, 1), 0, "behind whoever waits");
        queue.took(B);
        queue.wait(A, 5, now + seconds(30));
        assert_eq!(queue.free_for(B, 1), 1, "it rests");
        queue.wait(A, 5, now + TURN + REST);
        assert_eq!(queue.free_for(B, 1), 0, "and waits again");
    }

    #[test]
    fn a_turn_without_a_slot_does_not_pass() {
        let (now, mut queue) = (Instant::now(), SlotQueue::default());
        queue.wait(A, 1, now);
        queue.begin_turns(1, now);
        queue.begin_turns(0, now + seconds(1));
        queue.end_turns(now + seconds(100));
        assert_eq!(queue.free_for(B, 1), 0, "another took it, and so it still waits");
    }

    #[test]
    fn who_leaves_or_wants_no_more_is_not_waited_for() {
        let (now, mut queue) = (Instant::now(), SlotQueue::default());
        queue.wait(A, 1, now);
        queue.wait(B, 1, now);
        queue.wait(A, 0, now);
        queue.leave(B);
        assert_eq!((queue.free_for(C, 1), queue.runners_of(A)), (1, 0));
        queue.took(C);
        assert_eq!(queue.first_end(), None);
    }

    #[test]
    fn a_turn_that_has_begun_is_not_given_back_by_who_wants_no_more() {
        let (now, mut queue) = (Instant::now(), SlotQueue::default());
        queue.wait(A, 1, now);
        queue.begin_turns(1, now);
        queue.wait(A, 0, now);
        assert_eq!([A, B].map(|user| queue.free_for(user, 1)), [1, 0]);
        queue.end_turns(now + TURN);
        assert_eq!(queue.free_for(B, 1), 1);
    }

    #[test]
    fn many_that_ask_in_vain_keep_no_more_than_a_fifth_of_a_slot() {
        let (mut now, mut queue) = (Instant::now(), SlotQueue::default());
        let (begun, mut kept) = (now, Duration::ZERO);
        while now < begun + seconds(36_000) {
            (0..100).for_each(|user| queue.wait(user, 1, now));
            kept += if queue.begin_turns(1, now).is_empty() { Duration::ZERO } else { TURN };
            now += TURN;
            queue.end_turns(now);
        }
        assert!(kept <= (now - begun) / 5 + 100 * TURN, "{kept:?}");
        assert!(kept >= (now - begun) / 6, "each asks again: {kept:?}");
    }
}
