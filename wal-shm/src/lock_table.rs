//! Who holds which lock byte within this process.
//!
//! The locks of the system belong to an open file or to the process, so they
//! do not keep threads of one process apart: an exclusive lock over our own
//! shared one would succeed, and its release would leave nothing of either.
//! So every acquisition passes this table first. The system is asked only
//! when the first holder of a byte comes and when the last one goes. What is
//! asked then is behind [`Beyond`].
//!
//! # Lingering
//! A shared lock that its last holder lets [linger](LockTable::linger) stays
//! with the system, so that the next reader joins it by counting itself in. Others
//! linger for the moment between the leave of the last holder and its call to the system.
//! Within the process it is in nobody's way: who wants the byte exclusively
//! takes the system's lock over it. [`LockTable::sweep`] gives it back once
//! nobody has used it for a while.
//!
//! Readers that follow each other would keep a slot for good. A checkpointer of
//! stock SQLite that waits for it, because it read an older mark there, would
//! wait in vain. So while another process is at a checkpoint, a slot with a
//! mark that was in use is *avoided* until the next sweep: readers go to
//! another one, and it is free when the last of them has left.
//!
//! # Protocol
//! What is held of a byte is changed with the mutex held, beside the call to the
//! system that it stands for; but as long as the system's shared lock is held,
//! readers count themselves in and out without ([`LockByte`]). So whoever gives
//! that lock back first closes the byte, which fails if anybody is counted in.

use std::ops::Range;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use wal_core::io::shm_bytes;
use wal_core::{Lock, LockMode, ReadSlot, Result, stripes};

use crate::lock_byte::{LockByte, State};
use crate::side_file::SideFile;
use crate::sync::atomic::{AtomicU8, Ordering};
use crate::sync::{Mutex, MutexGuard};

/// Where a lock that is free within the process is taken against all others.
/// A table makes one call at a time.
pub(crate) trait Beyond {
    /// Takes `bytes`, or answers false if another process conflicts. What was
    /// held of them before is then held as before.
    fn try_lock(&self, bytes: Range<u64>, mode: LockMode) -> Result<bool>;

    /// Gives `bytes` back, which were taken in `mode`; exclusively, maybe, over a shared
    /// lock that lingered, of which nothing is left then.
    fn unlock(&self, bytes: Range<u64>, mode: LockMode) -> Result<()>;

    /// True if another process holds one of `bytes`.
    fn is_held_by_others(&self, bytes: Range<u64>) -> bool;
}

/// The table of one attachment.
#[derive(Debug)]
pub(crate) struct LockTable {
    bytes: [LockByte; Lock::COUNT],
    /// The bytes that are refused until the next sweep; bit *i* for byte *i*.
    avoided: AtomicU8,
    changing: Mutex<Taken>,
    /// Where it is told what this process holds.
    told: Option<Arc<SideFile>>,
}

/// When shared locks were taken from the system.
#[derive(Debug, Default)]
struct Taken {
    last: Option<Instant>,
    /// Between the last two of them.
    pause: Option<Duration>,
}

impl LockTable {
    pub(crate) fn new(told: Option<Arc<SideFile>>) -> Self {
        Self::with_stripes(told, stripes::count())
    }

    /// A table whose read slots have that many stripes, a power of two. The locks that
    /// are held by one at a time gain nothing by more than one.
    fn with_stripes(told: Option<Arc<SideFile>>, stripes: usize) -> Self {
        let (first, count) = Lock::Readers.span();
        let of_readers = first..first + count;
        let stripes_of = |at: usize| if of_readers.contains(&at) { stripes } else { 1 };
        LockTable {
            bytes: std::array::from_fn(|at| LockByte::new(stripes_of(at))),
            avoided: AtomicU8::new(0),
            changing: Mutex::default(),
            told,
        }
    }

    /// Tells what is held. Called with the mutex held, so that the last word
    /// is the right one.
    fn tell(&self) {
        if let Some(told) = &self.told {
            let bit = |at: usize| u8::from(self.bytes[at].state() != State::Free) << at;
            told.note((0..Lock::COUNT).map(bit).sum());
        }
    }

    /// The mutex is held during the system call, so that the table and the
    /// system always agree for whoever looks. The calls never block.
    fn changing(&self) -> MutexGuard<'_, Taken> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes `lock` in the table and beyond; false if it conflicts in either.
    #[inline]
    pub(crate) fn try_lock(
        &self,
        beyond: &impl Beyond,
        lock: Lock,
        mode: LockMode,
    ) -> Result<bool> {
        let (first, count) = lock.span();
        if self.avoids(lock) {
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
            // Somebody who tries to take the byte alone has closed this word for now.
            let _changing = self.changing();
            self.bytes[at].enter();
        }
    }

    /// True if a byte of `lock` is refused for now. It may be taken by mistake
    /// while that changes, which costs the one who waits another period.
    #[inline]
    pub(crate) fn avoids(&self, lock: Lock) -> bool {
        let avoided = self.avoided.load(Ordering::Relaxed);
        avoided != 0 && avoided & bits_of(lock) != 0
    }

    fn lock_shared(&self, beyond: &impl Beyond, lock: Lock) -> Result<bool> {
        let mut taken = self.changing();
        let (first, count) = lock.span();
        let bytes = &self.bytes[first..first + count];
        // Without the mutex nobody takes a byte alone, or gives the system's lock back.
        if bytes.iter().any(|byte| byte.state() == State::Exclusive) {
            return Ok(false);
        }
        let ours_already = bytes.iter().all(|byte| byte.state() == State::Shared);
        if !ours_already && !beyond.try_lock(shm_bytes::of(lock), LockMode::Shared)? {
            return Ok(false);
        }
        bytes.iter().for_each(LockByte::enter);
        if !ours_already {
            self.shared_lock_is_taken(beyond, &mut taken);
        }
        Ok(true)
    }

    fn shared_lock_is_taken(&self, beyond: &impl Beyond, taken: &mut Taken) {
        let before = taken.last.replace(Instant::now());
        taken.pause = before.map(|before| before.elapsed());
        self.give_back_lingering(beyond, |_| true);
        self.tell();
    }

    /// Turns the exclusive hold of `slot` into a shared one. If the system
    /// refuses, nothing is held.
    pub(crate) fn lower(&self, beyond: &impl Beyond, slot: ReadSlot) -> Result<bool> {
        let mut taken = self.changing();
        let lock = Lock::Read(slot);
        let (at, _) = lock.span();
        let lowered = beyond.try_lock(shm_bytes::of(lock), LockMode::Shared);
        if !matches!(lowered, Ok(true)) {
            self.bytes[at].open(State::Free);
            self.tell();
            beyond.unlock(shm_bytes::of(lock), LockMode::Exclusive)?;
            return lowered;
        }
        self.bytes[at].enter();
        self.shared_lock_is_taken(beyond, &mut taken);
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
        let taken = beyond.try_lock(shm_bytes::of(lock), LockMode::Exclusive);
        match taken {
            Ok(true) => self.tell(),
            _ => self.reopen(first..first + count, &before),
        }
        taken
    }

    /// Makes `span`, which was closed, what it was. A lock that lingered is
    /// with the system as before.
    fn reopen(&self, span: Range<usize>, before: &[State; Lock::COUNT]) {
        for at in span {
            self.bytes[at].open(before[at]);
        }
    }

    /// Gives `lock` back, beyond only where this was the last holder.
    pub(crate) fn unlock(&self, beyond: &impl Beyond, lock: Lock, mode: LockMode) -> Result<()> {
        let (first, count) = lock.span();
        match mode {
            LockMode::Shared => (first..first + count).try_for_each(|at| self.part(beyond, at)),
            LockMode::Exclusive => {
                let _changing = self.changing();
                self.reopen(first..first + count, &[State::Free; Lock::COUNT]);
                self.tell();
                beyond.unlock(shm_bytes::of(lock), mode)
            }
        }
    }

    /// A shared holder goes.
    fn part(&self, beyond: &impl Beyond, at: usize) -> Result<()> {
        let byte = &self.bytes[at];
        byte.leave();
        if byte.is_shared() {
            return Ok(());
        }
        let _changing = self.changing();
        // By now somebody may have come, or another one who left has given it back.
        match byte.state() == State::Shared && byte.close(State::Free).is_some() {
            true => self.give_back(beyond, at),
            false => Ok(()),
        }
    }

    /// The byte is closed and said to be free; now the system's lock goes.
    fn give_back(&self, beyond: &impl Beyond, at: usize) -> Result<()> {
        self.tell();
        let byte = shm_bytes::of(Lock::Write).start + at as u64;
        beyond.unlock(byte..byte + 1, LockMode::Shared)
    }

    /// A shared holder of `slot` goes, and leaves the lock to the next one.
    /// Somebody has to sweep if none comes.
    #[inline]
    pub(crate) fn linger(&self, slot: ReadSlot) {
        let (at, _) = Lock::Read(slot).span();
        self.bytes[at].leave();
    }

    /// Whether shared locks were taken from the system twice within `period`,
    /// not long ago: who reads seldom gains nothing from one that lingers.
    pub(crate) fn is_taken_often(&self, period: Duration) -> bool {
        let taken = self.changing();
        taken.pause.is_some_and(|pause| pause < period)
            && taken.last.is_some_and(|last| last.elapsed() < period)
    }

    /// Gives back each lock that lingers and was not used since the last
    /// sweep, and all that linger while a slot is to be avoided, until the next
    /// sweep. True if there will be something to sweep before long.
    pub(crate) fn sweep(&self, beyond: &impl Beyond) -> bool {
        let _changing = self.changing();
        let mut used = 0;
        for at in 0..Lock::COUNT {
            used |= u8::from(self.bytes[at].is_touched()) << at;
        }
        let marks_used = used & bits_of(Lock::ReadMarks);
        let in_the_way =
            marks_used != 0 && beyond.is_held_by_others(shm_bytes::of(Lock::Checkpoint));
        let avoided = if in_the_way { marks_used } else { 0 };
        self.avoided.store(avoided, Ordering::Relaxed);
        self.give_back_lingering(beyond, |byte| avoided != 0 || !byte.is_touched());
        self.bytes.iter().for_each(LockByte::forget_touch);
        used != 0
    }

    /// Gives back each lock that lingers, and avoids none.
    pub(crate) fn sweep_all(&self, beyond: &impl Beyond) {
        let _changing = self.changing();
        self.avoided.store(0, Ordering::Relaxed);
        self.give_back_lingering(beyond, |_| true);
    }

    /// Gives back the locks that linger and of which `choose` says so. Called
    /// with the mutex held.
    fn give_back_lingering(&self, beyond: &impl Beyond, choose: impl Fn(&LockByte) -> bool) {
        for (at, byte) in self.bytes.iter().enumerate() {
            if byte.lingers() && choose(byte) && byte.close(State::Free).is_some() {
                // A lock that cannot be given back stays until the process
                // ends, which is safe.
                let _ = self.give_back(beyond, at);
            }
        }
    }

    /// True if a slot is to be avoided until the next sweep.
    pub(crate) fn avoids_any(&self) -> bool {
        self.avoided.load(Ordering::Relaxed) != 0
    }

    /// True if a lock lingers. Who tries to take one alone is waited for: it is closed
    /// meanwhile, and lingers again if that was in vain.
    pub(crate) fn lingers(&self) -> bool {
        let _changing = self.changing();
        self.bytes.iter().any(LockByte::lingers)
    }

    /// True if somebody in this process uses a byte of `lock`.
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

#[cfg(test)]
#[cfg(loom)]
mod model;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
