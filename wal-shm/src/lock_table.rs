//! Which lock bytes this process holds, and for how many threads.
//!
//! The locks of the system belong to an open file or to the process, so they
//! do not exclude threads of one process: an exclusive lock over a shared one
//! of the same process would succeed, and its release would leave neither.
//! So every acquisition passes this table first. The system is called only
//! for the first holder of a byte and for the last one. What is
//! called then is behind [`Beyond`].
//!
//! # Protocol
//! What is held of a byte changes under the mutex, beside the call to the
//! system that it stands for; but as long as the system's shared lock is held,
//! readers count themselves in and out without the mutex ([`LockByte`]). So a thread that
//! releases that lock first closes the byte, which fails if a reader is counted in.
//!
//! # Delayed release
//! Where reads follow each other closely ([`ReadRate`]), the last holder of a read slot
//! leaves the system's lock behind ([`LockTable::unlock_delayed`]), and the next reader
//! joins it by counting itself in. From then on a [sweeper](crate::sweeper) looks at the
//! table now and then ([`LockTable::look`]) and releases each lock without a new reader;
//! once reads do not follow each other closely any more, it releases all that are unused
//! and stops. Within the process such a lock blocks no thread: one that acquires the byte
//! exclusively acquires the system's lock over it.
//!
//! # Draining
//! Readers that follow each other would keep a slot for good. A checkpointer of
//! stock SQLite that waits for the slot, because it has loaded an older mark there, would
//! never get it. So while another process holds CKPT, a slot with a mark that is in use is
//! *drained* for some milliseconds: new readers take another slot, and the last holder
//! releases the lock.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use wal_core::storage::shm_bytes;
use wal_core::sync::{AtomicBool, AtomicU8, Mutex, MutexGuard, Ordering, Unpoison};
use wal_core::{Lock, LockMode, ReadSlot, Result, stripes};

use crate::lock_byte::{LockByte, State};
use crate::read_rate::{Delay, ReadRate};
use crate::side_file::SideFile;

/// Where a lock that is free within the process is acquired against all other processes.
/// A table makes one call at a time.
pub(crate) trait Beyond {
    /// Acquires `bytes`, or answers false if another process conflicts. What was
    /// held of them before is then held as before.
    fn try_lock(&self, bytes: Range<u64>, mode: LockMode) -> Result<bool>;

    /// Releases `bytes`, which were acquired in `mode`; exclusively, maybe, over a shared
    /// lock whose release was delayed, and which is released too.
    fn unlock(&self, bytes: Range<u64>, mode: LockMode) -> Result<()>;

    /// True if another process holds one of `bytes`.
    fn is_held_by_others(&self, bytes: Range<u64>) -> bool;
}

/// The table of one attachment.
#[derive(Debug)]
pub(crate) struct LockTable {
    bytes: [LockByte; Lock::COUNT],
    /// How long release may be delayed; `None` if it never is.
    delay: Option<Delay>,
    /// Whether it is delayed now: a sweeper will look before long.
    delaying: AtomicBool,
    /// The bytes that are drained; bit *i* for byte *i*.
    draining: AtomicU8,
    changing: Mutex<Changing>,
    /// Where peers find what this process holds.
    side: Option<Arc<SideFile>>,
}

/// What changes under the mutex.
#[derive(Debug, Default)]
struct Changing {
    rate: ReadRate,
    /// When draining began.
    drained_since: Option<Instant>,
}

/// What the sweeper has seen of the readers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// How many had come to each byte.
    arrivals: [u32; Lock::COUNT],
    /// How many of them needed a system call.
    acquisitions: u32,
}

impl LockTable {
    /// A table that delays release as `delay` says. What is held, and what is only kept, is
    /// noted in the `side` file.
    pub(crate) fn new(delay: Option<Delay>, side: Option<Arc<SideFile>>) -> Self {
        Self::with_stripes(delay, side, stripes::count())
    }

    /// A table whose read slots have that many stripes, a power of two. The locks that
    /// have one holder at a time gain nothing by more than one.
    fn with_stripes(delay: Option<Delay>, side: Option<Arc<SideFile>>, stripes: usize) -> Self {
        let (first, count) = Lock::Readers.span();
        let of_readers = first..first + count;
        let stripes_of = |at: usize| if of_readers.contains(&at) { stripes } else { 1 };
        LockTable {
            bytes: std::array::from_fn(|at| LockByte::new(stripes_of(at))),
            delay,
            delaying: AtomicBool::new(false),
            draining: AtomicU8::new(0),
            changing: Mutex::default(),
            side,
        }
    }

    /// Notes what is held. Called with the mutex held, so that the last note
    /// is the right one.
    fn note_held(&self) {
        if let Some(side) = &self.side {
            let bit = |at: usize| u8::from(self.bytes[at].state() != State::Free) << at;
            side.note((0..Lock::COUNT).map(bit).sum());
        }
    }

    /// The mutex is held during the system call, so that the table and the
    /// system always agree for its next holder. The calls never block.
    fn changing(&self) -> MutexGuard<'_, Changing> {
        self.changing.lock().unpoison()
    }

    /// Acquires `lock` in the table and beyond; false if it conflicts in either.
    #[inline]
    pub(crate) fn try_lock(
        &self,
        beyond: &impl Beyond,
        lock: Lock,
        mode: LockMode,
    ) -> Result<bool> {
        let (first, count) = lock.span();
        if self.drains(lock) {
            return Ok(false);
        }
        match mode {
            LockMode::Shared if count == 1 && self.bytes[first].join() => Ok(true),
            LockMode::Shared => self.lock_shared(beyond, lock),
            LockMode::Exclusive => self.lock_exclusively(beyond, lock),
        }
    }

    /// Counts one more in at `slot`, of which the caller is a shared holder.
    pub(crate) fn join_again(&self, slot: ReadSlot) {
        let (at, _) = Lock::Read(slot).span();
        if !self.bytes[at].join() {
            // A thread that tries to acquire the byte exclusively has closed this word
            // for now.
            let _changing = self.changing();
            self.bytes[at].enter();
        }
    }

    /// True if a byte of `lock` is drained. A reader may acquire it anyway while that
    /// changes, which costs the process that waits another period.
    #[inline]
    fn drains(&self, lock: Lock) -> bool {
        let draining = self.draining.load(Ordering::Relaxed);
        draining != 0 && draining & bits_of(lock) != 0
    }

    fn lock_shared(&self, beyond: &impl Beyond, lock: Lock) -> Result<bool> {
        let mut changing = self.changing();
        let (first, count) = lock.span();
        let bytes = &self.bytes[first..first + count];
        // Only with the mutex does a thread acquire a byte exclusively, or release the
        // system's lock.
        if bytes.iter().any(|byte| byte.state() == State::Exclusive) {
            return Ok(false);
        }
        let ours_already = bytes.iter().all(|byte| byte.state() == State::Shared);
        if !ours_already && !beyond.try_lock(shm_bytes::of(lock), LockMode::Shared)? {
            return Ok(false);
        }
        bytes.iter().for_each(LockByte::enter);
        if !ours_already {
            self.note_acquired(beyond, &mut changing, lock, false);
        }
        Ok(true)
    }

    /// The system has granted `lock` shared: with a `new_mark`, or with the one that it had.
    fn note_acquired(
        &self,
        beyond: &impl Beyond,
        changing: &mut Changing,
        lock: Lock,
        new_mark: bool,
    ) {
        if let (Some(delay), Lock::Read(slot)) = (self.delay, lock) {
            changing.rate.note(delay, Instant::now(), new_mark);
            if self.delays() {
                self.note_delayed(slot);
            }
        }
        // A process that goes to another slot keeps no other one.
        self.release_where(beyond, |_, _| true);
        self.note_held();
    }

    /// Turns the exclusive hold of `slot` into a shared one. If the system
    /// refuses, nothing is held.
    pub(crate) fn downgrade(&self, beyond: &impl Beyond, slot: ReadSlot) -> Result<bool> {
        let mut changing = self.changing();
        let lock = Lock::Read(slot);
        let (at, _) = lock.span();
        let lowered = beyond.try_lock(shm_bytes::of(lock), LockMode::Shared);
        if !matches!(lowered, Ok(true)) {
            self.bytes[at].open(State::Free);
            self.note_held();
            beyond.unlock(shm_bytes::of(lock), LockMode::Exclusive)?;
            return lowered;
        }
        self.bytes[at].enter();
        self.note_acquired(beyond, &mut changing, lock, true);
        Ok(true)
    }

    fn lock_exclusively(&self, beyond: &impl Beyond, lock: Lock) -> Result<bool> {
        let _changing = self.changing();
        let (first, count) = lock.span();
        let mut before = [State::Free; Lock::COUNT];
        for at in first..first + count {
            let Some(was) = self.bytes[at].close(State::Exclusive) else {
                self.reopen(first..at, &before);
                return Ok(false);
            };
            before[at] = was;
        }
        let granted = beyond.try_lock(shm_bytes::of(lock), LockMode::Exclusive);
        match granted {
            Ok(true) => self.note_held(),
            _ => self.reopen(first..first + count, &before),
        }
        granted
    }

    /// Makes `span`, which was closed, what it was. The system holds a lock whose release
    /// was delayed as before.
    fn reopen(&self, span: Range<usize>, before: &[State; Lock::COUNT]) {
        for at in span {
            self.bytes[at].open(before[at]);
        }
    }

    /// Releases `lock`; the system's lock only if this was the last holder.
    pub(crate) fn unlock(&self, beyond: &impl Beyond, lock: Lock, mode: LockMode) -> Result<()> {
        let (first, count) = lock.span();
        match mode {
            LockMode::Shared => (first..first + count).try_for_each(|at| self.part(beyond, at)),
            LockMode::Exclusive => {
                let _changing = self.changing();
                self.reopen(first..first + count, &[State::Free; Lock::COUNT]);
                self.note_held();
                beyond.unlock(shm_bytes::of(lock), mode)
            }
        }
    }

    /// A shared holder leaves.
    fn part(&self, beyond: &impl Beyond, at: usize) -> Result<()> {
        let byte = &self.bytes[at];
        byte.leave();
        if byte.is_shared() {
            return Ok(());
        }
        let _changing = self.changing();
        // By now a reader may have come, or another one that left has released the lock.
        match byte.state() == State::Shared && byte.close(State::Free).is_some() {
            true => self.release(beyond, at),
            false => Ok(()),
        }
    }

    /// The byte is closed and free; the system's lock follows.
    fn release(&self, beyond: &impl Beyond, at: usize) -> Result<()> {
        self.note_held();
        let byte = shm_bytes::of(Lock::Write).start + at as u64;
        beyond.unlock(byte..byte + 1, LockMode::Shared)
    }

    /// Releases the locks without a reader of which `choose` says so. Called with the
    /// mutex held.
    fn release_where(&self, beyond: &impl Beyond, choose: impl Fn(usize, &LockByte) -> bool) {
        for (at, byte) in self.bytes.iter().enumerate() {
            if byte.is_unused() && choose(at, byte) && byte.close(State::Free).is_some() {
                // A lock that cannot be released stays until the process
                // ends, which is safe.
                let _ = self.release(beyond, at);
            }
        }
    }

    /// True if a thread of this process uses a byte of `lock`.
    pub(crate) fn holds(&self, lock: Lock) -> bool {
        let (first, count) = lock.span();
        let is_held = |byte: &LockByte| byte.state() == State::Exclusive || byte.is_shared();
        self.bytes[first..first + count].iter().any(is_held)
    }
}

/// Bit *i* for byte *i* of `lock`.
fn bits_of(lock: Lock) -> u8 {
    let (first, count) = lock.span();
    (first..first + count).map(|at| 1 << at).sum()
}

mod delayed;
#[cfg(test)]
#[cfg(loom)]
mod model;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
