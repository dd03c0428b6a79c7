//! How far the log is synced, for those who share a sync.
//!
//! # Protocol
//! One of those who wait *leads*: it syncs the log, tells how far, and wakes
//! the others. Two who lead at a time do no harm, so a leader that has been at
//! it for long is taken for dead.
//!
//! # Ordering
//! All of it is sequentially consistent. A leader tells of a failure before it
//! steps down, so who begins to lead behind it finds that.
//!
//! # Crash
//! Zeros say that nothing is known. So does garbage, but for one word in 2^32:
//! a frame counts only beside the first salt of the generation that is asked
//! for, and the header has to be of that generation too.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::Bell;
use super::line::between;
use crate::types::Salts;

/// Who leads for longer is taken for dead.
pub const LEASE: Duration = Duration::from_millis(20);

/// The words, in memory that all users share.
#[repr(C)]
#[derive(Debug, Default)]
pub struct SyncedLog {
    /// The last frame that is synced, in the high half, and the first salt of
    /// its generation, which is another one in each, in the low one: both fit
    /// into a word.
    synced: AtomicU64,
    /// The salts of the generation in which a sync has failed; 0 for none, and
    /// all ones for whichever it is.
    failed: AtomicU64,
    /// Since when somebody leads, by the clock of the machine; 0 for nobody.
    led_since: AtomicU32,
    /// Up to a cache line.
    unused: [AtomicU32; 10],
    done: Bell,
}

crate::shared_memory!(SyncedLog {
    synced,
    failed,
    led_since,
    unused,
    done,
});

const _: () = assert!(size_of::<SyncedLog>().is_multiple_of(64));

/// The right to lead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lead(u32);

impl SyncedLog {
    /// True if the frames of generation `salts` up to `frame` were synced.
    pub fn covers(&self, salts: Salts, frame: u32) -> bool {
        let synced = self.synced.load(Ordering::SeqCst);
        synced & 0xffff_ffff == first_of(salts) && synced >> 32 >= u64::from(frame)
    }

    /// Tells that the frames of generation `salts` up to `frame` are synced.
    pub fn raise(&self, salts: Salts, frame: u32) {
        let word = u64::from(frame) << 32 | first_of(salts);
        let higher =
            |now: u64| (now & 0xffff_ffff != first_of(salts) || now < word).then_some(word);
        // It fails if another leader has told of more.
        let _ = self
            .synced
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, higher);
    }

    /// True if a sync has failed in generation `salts`.
    pub fn has_failed(&self, salts: Salts) -> bool {
        let failed = self.failed.load(Ordering::SeqCst);
        failed == u64::MAX || failed != 0 && failed == all_of(salts)
    }

    /// Tells that a sync has failed in generation `salts`.
    pub fn fail(&self, salts: Salts) {
        self.failed.store(all_of(salts), Ordering::SeqCst);
    }

    /// Tells that a sync has failed, in a generation that nobody knows.
    pub fn fail_all(&self) {
        self.failed.store(u64::MAX, Ordering::SeqCst);
    }

    /// What is known of failures, for [`SyncedLog::mended`].
    pub fn failure(&self) -> u64 {
        self.failed.load(Ordering::SeqCst)
    }

    /// Tells that the log was written again, and synced, after `failure` was
    /// looked at. A failure of another generation stays; one of the same is
    /// told once more by whoever has it next.
    pub fn mended(&self, failure: u64) {
        let _ = self
            .failed
            .compare_exchange(failure, 0, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Begins to lead at `now`, unless somebody does.
    pub fn try_lead(&self, now: u32) -> Option<Lead> {
        let since = self.led_since.load(Ordering::SeqCst);
        // Never 0, which is nobody.
        let lead = now | 1;
        if is_led(since, now) {
            return None;
        }
        self.led_since
            .compare_exchange(since, lead, Ordering::SeqCst, Ordering::SeqCst)
            .ok()
            .map(|_| Lead(lead))
    }

    /// True if somebody leads at `now`.
    pub fn is_led(&self, now: u32) -> bool {
        is_led(self.led_since.load(Ordering::SeqCst), now)
    }

    /// Steps down; true if somebody is to be woken.
    #[must_use]
    pub fn step_down(&self, Lead(lead): Lead) -> bool {
        // Who took over leads on.
        let _ = self
            .led_since
            .compare_exchange(lead, 0, Ordering::SeqCst, Ordering::SeqCst);
        self.done.ring()
    }

    /// Rings when a leader has stepped down.
    pub fn done(&self) -> &Bell {
        &self.done
    }
}

/// A claim from the future is garbage, or was made a moment ago by the clock of
/// another processor.
fn is_led(since: u32, now: u32) -> bool {
    since != 0 && (between(since, now) < LEASE || between(now, since) < LEASE)
}

fn first_of(Salts([a, b, c, d, ..]): Salts) -> u64 {
    u64::from(u32::from_be_bytes([a, b, c, d]))
}

fn all_of(Salts(salts): Salts) -> u64 {
    u64::from_be_bytes(salts)
}

#[cfg(test)]
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
    fn garbage_says_nothing() {
        let log = SyncedLog::default();
        log.synced.store(u64::MAX, Ordering::SeqCst);
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
        log.mended(0);
        assert!(log.has_failed(NEW), "that was another one");
        log.mended(log.failure());
        assert!(!log.has_failed(OLD));
        assert!(!log.has_failed(Salts([0; 8])), "0 says nothing");
    }

    #[test]
    fn one_leads_until_it_steps_down_or_is_taken_for_dead() {
        let log = SyncedLog::default();
        let first = log.try_lead(0).unwrap();
        assert!(log.is_led(19 * MS));
        assert_eq!(log.try_lead(19 * MS), None);
        let second = log.try_lead(21 * MS).unwrap();
        assert!(!log.step_down(first), "nobody sleeps");
        assert!(log.is_led(22 * MS), "the second leads on");
        log.done().expect();
        assert!(log.step_down(second));
        assert!(!log.is_led(22 * MS));
    }
}
