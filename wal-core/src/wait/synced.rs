//! How far the log is synced, for commits that share a sync.
//!
//! # Protocol
//! One of the waiters *leads*: it syncs the log, records how far, and wakes the other waiters.
//! Two leaders at a time do no harm, so a leader whose [`LEASE`] is over counts as dead.
//!
//! The position is three words: both salts of a generation, and its last synced frame.
//! The low half of each word is a *tag*, which a leader draws for a generation and no
//! leader draws again. So one leader has stored all words of one tag, whenever they were
//! loaded, and their position stays true: a frame that is synced in a generation remains
//! so. Leaders of two generations that store concurrently leave different tags, which
//! record no position; each of them syncs once more.
//!
//! Salts of zero name no generation ([`Salts`]): no position is recorded for them, and a
//! failure is recorded for every generation.
//!
//! # Ordering
//! All of it is sequentially consistent. A leader records a failure before it steps down, so
//! the next leader sees the failure.
//!
//! # Crash
//! Zeros record no position. Nor does garbage, unless three words have one tag and the
//! salts of the live generation. A leader that dies between two of its stores leaves two
//! tags.

use std::time::Duration;

use super::EventCount;
use super::clock::between;
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::types::Salts;

/// After this time a leader counts as dead; in a model no leader does.
pub const LEASE: Duration = match cfg!(loom) {
    true => Duration::from_secs(3600),
    false => Duration::from_millis(20),
};

/// The words, in memory that all users share.
#[repr(C)]
#[derive(Debug, Default)]
pub struct SyncedLog {
    /// The first salt, the second, and the last frame that is synced, in the high halves;
    /// the tag in the low ones.
    synced: [AtomicU64; 3],
    /// The salts of the generation in which a sync has failed; 0 for none, and all ones for
    /// an unknown one.
    failed: AtomicU64,
    /// When the leader began, by the monotonic clock; 0 without a leader.
    led_since: AtomicU32,
    /// The tag that was drawn last.
    tags: AtomicU32,
    /// Up to a cache line.
    unused: [AtomicU32; 5],
    done: EventCount,
}

crate::shared_memory!(SyncedLog {
    synced,
    failed,
    led_since,
    tags,
    unused,
    done,
});

#[cfg(not(loom))]
const _: () = assert!(size_of::<SyncedLog>().is_multiple_of(64));

/// The right to lead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lead(u32);

impl SyncedLog {
    /// True if the frames of generation `salts` up to `frame` were synced.
    pub fn covers(&self, salts: Salts, frame: u32) -> bool {
        let position = self.position();
        position.is_some_and(|synced| synced.salts.name_same(salts) && synced.frame >= frame)
    }

    /// Records that the frames of generation `salts` up to `frame` are synced.
    pub fn raise(&self, salts: Salts, frame: u32) {
        if salts.names_none() {
            return;
        }
        let [one, two, last] = &self.synced;
        let tag = match self.position() {
            Some(Position {
                salts: same, tag, ..
            }) if same == salts => {
                // It fails if another leader has recorded more, or another generation.
                let word = tagged(frame, tag);
                let higher = |now| (tag_of(now) == tag && now < word).then_some(word);
                let _ = last.fetch_update(Ordering::SeqCst, Ordering::SeqCst, higher);
                return;
            }
            _ => self.draw_tag(),
        };
        let [first_salt, second_salt] = halves(salts);
        one.store(tagged(first_salt, tag), Ordering::SeqCst);
        two.store(tagged(second_salt, tag), Ordering::SeqCst);
        last.store(tagged(frame, tag), Ordering::SeqCst);
    }

    /// Draws a tag that no leader has. Tags repeat after 2^32 generations.
    fn draw_tag(&self) -> u32 {
        match self.tags.fetch_add(1, Ordering::SeqCst).wrapping_add(1) {
            NO_TAG => self.draw_tag(),
            tag => tag,
        }
    }

    /// The recorded position, if one leader has stored all of it.
    fn position(&self) -> Option<Position> {
        let words = self.synced.each_ref();
        let [one, two, last] = words.map(|word| word.load(Ordering::SeqCst));
        let tag = tag_of(one);
        let is_whole = tag != NO_TAG && tag_of(two) == tag && tag_of(last) == tag;
        is_whole.then(|| Position {
            salts: salts_of([value_of(one), value_of(two)]),
            frame: value_of(last),
            tag,
        })
    }

    /// True if a sync has failed in generation `salts`.
    pub fn has_failed(&self, salts: Salts) -> bool {
        let failed = self.failed.load(Ordering::SeqCst);
        failed == u64::MAX || failed != 0 && failed == all_of(salts)
    }

    /// Records that a sync has failed in generation `salts`, or in any generation if the
    /// salts name none.
    pub fn fail(&self, salts: Salts) {
        match salts.names_none() {
            true => self.fail_all(),
            false => self.failed.store(all_of(salts), Ordering::SeqCst),
        }
    }

    /// Records that a sync has failed in an unknown generation.
    pub fn fail_all(&self) {
        self.failed.store(u64::MAX, Ordering::SeqCst);
    }

    /// Returns the recorded failure, for [`SyncedLog::forget_failure`].
    pub fn failure(&self) -> u64 {
        self.failed.load(Ordering::SeqCst)
    }

    /// Forgets `failure`: the caller has rewritten and synced the log after it loaded that. A
    /// failure of another generation stays; one of the same is recorded again by the next
    /// thread whose sync fails.
    pub fn forget_failure(&self, failure: u64) {
        let _ = self
            .failed
            .compare_exchange(failure, 0, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Begins to lead at `now`, unless another thread leads.
    pub fn try_lead(&self, now: u32) -> Option<Lead> {
        let since = self.led_since.load(Ordering::SeqCst);
        // Never 0, which is no leader.
        let lead = now | 1;
        if is_led(since, now) {
            return None;
        }
        self.led_since
            .compare_exchange(since, lead, Ordering::SeqCst, Ordering::SeqCst)
            .ok()
            .map(|_| Lead(lead))
    }

    /// True if a thread leads at `now`.
    pub fn is_led(&self, now: u32) -> bool {
        is_led(self.led_since.load(Ordering::SeqCst), now)
    }

    /// Steps down. If it returns true, a waiter may be asleep, and the caller wakes the
    /// sleepers of [`SyncedLog::done`].
    #[must_use]
    pub fn step_down(&self, Lead(lead): Lead) -> bool {
        // A leader that began after the lease was over leads on.
        let _ = self
            .led_since
            .compare_exchange(lead, 0, Ordering::SeqCst, Ordering::SeqCst);
        self.done.notify()
    }

    /// Notified when a leader has stepped down.
    pub fn done(&self) -> &EventCount {
        &self.done
    }
}

/// A claim from the future is garbage, or was made a moment ago by the clock of
/// another processor.
fn is_led(since: u32, now: u32) -> bool {
    since != 0 && (between(since, now) < LEASE || between(now, since) < LEASE)
}

/// The tag of words without a position: zeros record none.
const NO_TAG: u32 = 0;

/// How far a generation is synced.
struct Position {
    salts: Salts,
    frame: u32,
    tag: u32,
}

fn tagged(value: u32, tag: u32) -> u64 {
    u64::from(value) << 32 | u64::from(tag)
}

fn value_of(word: u64) -> u32 {
    let [a, b, c, d, ..] = word.to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

fn tag_of(word: u64) -> u32 {
    let [.., a, b, c, d] = word.to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

fn halves(Salts([a, b, c, d, e, f, g, h]): Salts) -> [u32; 2] {
    [[a, b, c, d], [e, f, g, h]].map(u32::from_be_bytes)
}

fn salts_of([one, two]: [u32; 2]) -> Salts {
    Salts((u64::from(one) << 32 | u64::from(two)).to_be_bytes())
}

fn all_of(Salts(salts): Salts) -> u64 {
    u64::from_be_bytes(salts)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const OLD: Salts = Salts([0, 0, 0, 7, 1, 2, 3, 4]);
    const NEW: Salts = Salts([0, 0, 0, 8, 1, 2, 3, 4]);
    const MS: u32 = 1000;

    #[test]
    fn a_count_is_of_one_generation_and_goes_up() {
        let log = SyncedLog::default();
        assert!(!log.covers(OLD, 1), "nothing is known");
        log.raise(OLD, 10);
        log.raise(OLD, 5);
        assert!(log.covers(OLD, 10));
        assert!(!log.covers(OLD, 11));
        assert!(!log.covers(NEW, 1));
        log.raise(NEW, 1);
        assert!(log.covers(NEW, 1));
        assert!(!log.covers(OLD, 1), "one generation at a time");
    }

    #[test]
    fn count_is_of_both_salts() {
        let log = SyncedLog::default();
        let Salts(mut other) = OLD;
        other[7] ^= 1;
        log.raise(OLD, 10);
        assert!(log.covers(OLD, 10));
        assert!(!log.covers(Salts(other), 1), "one salt is the same");
    }

    #[test]
    fn zeros_name_no_generation() {
        let zeros = Salts([0; 8]);
        let log = SyncedLog::default();
        log.raise(zeros, 10);
        assert!(!log.covers(zeros, 0));
        assert!(!log.has_failed(zeros), "nothing has");
        log.fail(zeros);
        assert!(log.has_failed(zeros));
        assert!(log.has_failed(OLD), "it may be that one");
        log.forget_failure(log.failure());
        assert!(!log.has_failed(zeros));
    }

    /// Each mixture that two leaders of different generations leave when they store
    /// concurrently or die.
    #[test]
    fn words_of_two_leaders_record_no_position() {
        let (few, many) = (10, 100);
        for (first, second) in [(7, 9), (8, 1), (8, 9)] {
            let salts = [salts_of([7, 1]), salts_of([first, second])];
            for mixture in 0..8 {
                let log = SyncedLog::default();
                let words = [(7, first), (1, second), (few, many)];
                for (place, (word, (one, two))) in log.synced.iter().zip(words).enumerate() {
                    let is_ones = mixture & 1 << place == 0;
                    let (value, tag) = if is_ones { (one, 1) } else { (two, 2) };
                    word.store(tagged(value, tag), Ordering::SeqCst);
                }
                let covered = salts.map(|salts| log.covers(salts, 1));
                assert_eq!(
                    covered,
                    [mixture == 0, mixture == 7],
                    "mixture {mixture:03b}"
                );
                log.tags.store(2, Ordering::SeqCst);
                log.raise(salts[0], few);
                assert!(log.covers(salts[0], few) && !log.covers(salts[0], few + 1));
            }
        }
    }

    #[test]
    fn tag_without_a_position_is_not_drawn() {
        let log = SyncedLog::default();
        log.tags.store(u32::MAX - 1, Ordering::SeqCst);
        assert_eq!([(); 2].map(|()| log.draw_tag()), [u32::MAX, 1]);
    }

    #[test]
    fn garbage_says_nothing() {
        let log = SyncedLog::default();
        for (word, garbage) in log.synced.iter().zip([u64::MAX, 7, u64::MAX]) {
            word.store(garbage, Ordering::SeqCst);
        }
        log.led_since.store(0xdead_beef, Ordering::SeqCst);
        assert!(!log.covers(OLD, 1));
        assert!(log.try_lead(90 * MS).is_some());
    }

    #[test]
    fn a_failure_is_of_one_generation() {
        let log = SyncedLog::default();
        log.fail(OLD);
        assert!(log.has_failed(OLD));
        assert!(!log.has_failed(NEW));
        log.fail_all();
        assert!(log.has_failed(NEW));
        log.forget_failure(0);
        assert!(log.has_failed(NEW), "that was another one");
        log.forget_failure(log.failure());
        assert!(!log.has_failed(OLD));
        assert!(!log.has_failed(Salts([0; 8])), "0 says nothing");
    }

    #[test]
    fn leader_leads_until_it_steps_down_or_its_lease_ends() {
        let log = SyncedLog::default();
        let first = log.try_lead(0).unwrap();
        assert!(log.is_led(19 * MS));
        assert_eq!(log.try_lead(19 * MS), None);
        let second = log.try_lead(21 * MS).unwrap();
        assert!(!log.step_down(first), "no waiter sleeps");
        assert!(log.is_led(22 * MS), "the second leads on");
        log.done().prepare_wait();
        assert!(log.step_down(second));
        assert!(!log.is_led(22 * MS));
    }
}
