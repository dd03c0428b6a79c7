//! A user's coordination and files, with the director in front of them.
#![allow(unsafe_code)] // What gives a lock up is handed on.

use std::fmt;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Instant;

use crate::calls::{Awaited, Call, Which};
use crate::contract::Ledger;
use crate::director::{Director, Then, die};
use crate::subject::Attachment;
use wal_core::coordination::WalCoordination;
use wal_core::error::{Error, Result};
use wal_core::index::{IndexBlock, WritableBlock};
use wal_core::storage::{File, FileSyncType, MappedFile, Storage};
use wal_core::types::{Lock, LockMode, ReadSlot};
use wal_core::wait::WaitState;

/// An attachment that several users may share.
pub(super) struct SharedAttachment<C> {
    pub(super) attachment: Attachment<C>,
    /// How many users have not left.
    pub(super) users: AtomicUsize,
}

/// One user's place at an attachment.
pub(super) struct Seat<C> {
    pub(super) director: Arc<Director>,
    pub(super) shared: Arc<SharedAttachment<C>>,
    pub(super) user: usize,
    /// Answers that Checkpoint was had without taking it: stock SQLite
    /// restarts the log without that lock.
    pub(super) like_stock: bool,
}

impl<C: WalCoordination> Seat<C> {
    /// The backend's own coordination, whose calls no director sees.
    pub(super) fn inner(&self) -> &C {
        &self.shared.attachment.coordination
    }

    fn path(&self) -> &Path {
        self.shared.attachment.storage.database().path()
    }

    fn before(&self, call: Call) -> Then {
        let block_zero = self.inner().block(0).ok().flatten();
        self.director.before(self.user, call, block_zero)
    }

    /// Passes a call that can fail.
    fn pass(&self, call: Call, path: &Path) -> Result<()> {
        match self.before(call) {
            Then::GoOn => Ok(()),
            Then::Fail | Then::FailAfter(_) => Err(failure(path)),
            Then::Die => die(),
        }
    }

    /// Passes a call that cannot fail. A user that dies here dies after it:
    /// the system would have freed the lock, or nobody would have noticed.
    fn pass_infallible(&self, call: Call, act: impl FnOnce()) {
        let then = self.before(call);
        act();
        if then == Then::Die && !std::thread::panicking() {
            die();
        }
    }

    fn is_passed_over(&self, lock: Lock) -> bool {
        self.like_stock && lock == Lock::Checkpoint
    }
}

fn failure(path: &Path) -> Error {
    Error::io(path, "a call of the suite", io::Error::other("injected"))
}

/// A user's coordination.
pub(super) struct Interposed<C>(pub(super) Arc<Seat<C>>);

impl<C: WalCoordination> WalCoordination for Interposed<C> {
    const HAS_FOREIGN_PEERS: bool = C::HAS_FOREIGN_PEERS;

    fn block(&self, index: u32) -> Result<Option<&IndexBlock>> {
        self.0.pass(Call::Block(index), self.0.path())?;
        self.0.inner().block(index)
    }

    fn grow(&self, index: u32) -> Result<&WritableBlock> {
        let call = match self.0.inner().block(index)? {
            Some(_) => Call::Block(index),
            None => Call::Grow(index),
        };
        self.0.pass(call, self.0.path())?;
        self.0.inner().grow(index)
    }

    fn try_lock(&self, lock: Lock, mode: LockMode) -> Result<bool> {
        self.0.pass(Call::TryLock(lock, mode), self.0.path())?;
        if self.0.is_passed_over(lock) {
            return Ok(true);
        }
        self.0.director.with_ledger(|ledger| {
            let granted = self.0.inner().try_lock(lock, mode)?;
            ledger.tried(self.0.user, lock, mode, granted);
            Ok(granted)
        })
    }

    unsafe fn relock_shared(&self, slot: ReadSlot) -> Result<bool> {
        let (lock, mode) = (Lock::Read(slot), LockMode::Shared);
        self.0.pass(Call::TryLock(lock, mode), self.0.path())?;
        self.0.director.with_ledger(|ledger| {
            // SAFETY: as the caller says.
            let granted = unsafe { self.0.inner().relock_shared(slot) }?;
            ledger.tried(self.0.user, lock, mode, granted);
            Ok(granted)
        })
    }

    fn try_lock_mark(&self, slot: ReadSlot, mark: u32) -> Result<bool> {
        self.0.pass(Call::TryLockMark(slot, mark), self.0.path())?;
        self.0.director.with_ledger(|ledger| {
            let same = self.0.inner().mark(slot) == mark;
            let granted = self.0.inner().try_lock_mark(slot, mark)?;
            ledger.tried_mark(self.0.user, slot, granted, same);
            Ok(granted)
        })
    }

    /// A failure leaves nothing held (rule 12).
    unsafe fn downgrade(&self, slot: ReadSlot) -> Result<bool> {
        let (lock, mode) = (Lock::Read(slot), LockMode::Exclusive);
        let passed = self.0.pass(Call::Downgrade(slot), self.0.path());
        self.0.director.with_ledger(|ledger| {
            ledger.released(self.0.user, lock, mode);
            if let Err(failure) = passed {
                // SAFETY: as the caller says.
                unsafe { self.0.inner().unlock(lock, mode) };
                return Err(failure);
            }
            // SAFETY: as the caller says.
            let granted = unsafe { self.0.inner().downgrade(slot) }?;
            ledger.tried(self.0.user, lock, LockMode::Shared, granted);
            Ok(granted)
        })
    }

    unsafe fn raise_mark(&self, slot: ReadSlot, mark: u32) -> Result<bool> {
        self.0.pass(Call::RaiseMark(slot, mark), self.0.path())?;
        self.0.director.with_ledger(|ledger| {
            // SAFETY: as the caller says.
            let raised = unsafe { self.0.inner().raise_mark(slot, mark) }?;
            ledger.tried_to_raise(self.0.user, slot, raised);
            Ok(raised)
        })
    }

    unsafe fn unlock(&self, lock: Lock, mode: LockMode) {
        self.0.pass_infallible(Call::Unlock(lock, mode), || {
            if self.0.is_passed_over(lock) {
                return;
            }
            self.0.director.with_ledger(|ledger| {
                ledger.released(self.0.user, lock, mode);
                // SAFETY: as the caller says.
                unsafe { self.0.inner().unlock(lock, mode) };
            });
        });
    }

    unsafe fn unlock_delayed(&self, slot: ReadSlot) {
        let (lock, mode) = (Lock::Read(slot), LockMode::Shared);
        self.0.pass_infallible(Call::Unlock(lock, mode), || {
            self.0.director.with_ledger(|ledger| {
                ledger.released(self.0.user, lock, mode);
                // SAFETY: as the caller says.
                unsafe { self.0.inner().unlock_delayed(slot) };
            });
        });
    }

    fn holders(&self, lock: Lock) -> Vec<u32> {
        self.0.inner().holders(lock)
    }

    fn mark(&self, slot: ReadSlot) -> u32 {
        let mut mark = 0;
        let look = || mark = self.0.inner().mark(slot);
        self.0.pass_infallible(Call::Mark(slot), look);
        mark
    }

    unsafe fn set_mark(&self, slot: ReadSlot, mark: u32) {
        match self.0.before(Call::SetMark(slot, mark)) {
            Then::Die => die(),
            // SAFETY: as the caller says.
            _ => unsafe { self.0.inner().set_mark(slot, mark) },
        }
    }

    fn wait_state(&self) -> Option<&WaitState> {
        self.0.inner().wait_state()
    }

    fn sleep(&self, word: &AtomicU32, seen: u32, deadline: Instant) {
        let sleep = || self.0.inner().sleep(word, seen, deadline);
        self.0
            .pass_infallible(Call::Sleep(self.awaited(word)), sleep);
    }

    fn wake(&self, word: &AtomicU32) {
        let wake = || self.0.inner().wake(word);
        self.0.pass_infallible(Call::Wake(self.awaited(word)), wake);
    }

    /// The attachment is left by the last user that shares it.
    fn detach(&self) -> Result<bool> {
        self.0.pass(Call::Leave, self.0.path())?;
        if self.0.shared.users.fetch_sub(1, Ordering::SeqCst) > 1 {
            return Ok(false);
        }
        let is_last = self.0.inner().detach()?;
        if is_last {
            let own = |ledger: &mut Ledger| ledger.owns(self.0.user);
            self.0.director.with_ledger(own);
        }
        Ok(is_last)
    }

    fn remove(&self) -> Result<()> {
        self.0.pass(Call::Remove, self.0.path())?;
        self.0.inner().remove()
    }
}

impl<C: WalCoordination> Interposed<C> {
    fn awaited(&self, word: &AtomicU32) -> Awaited {
        match self.wait_state() {
            Some(wait_state) if std::ptr::eq(wait_state.commits().word(), word) => Awaited::Commit,
            Some(wait_state) if std::ptr::eq(wait_state.synced().done().word(), word) => {
                Awaited::Sync
            }
            _ => Awaited::Turn,
        }
    }
}

impl<C> fmt::Debug for Interposed<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {}", self.0.user)
    }
}

/// A user's file.
pub(super) struct InterposedFile<C> {
    seat: Arc<Seat<C>>,
    which: Which,
}

impl<C: WalCoordination> InterposedFile<C> {
    fn inner(&self) -> &dyn File {
        let storage = &self.seat.shared.attachment.storage;
        match self.which {
            Which::Database => storage.database(),
            Which::Log => storage.log(),
        }
    }

    /// Writes the first `len` bytes of what was to be written.
    fn write_part(&self, buffers: &[IoSlice<'_>], offset: u64, len: usize) -> Result<()> {
        let bytes: Vec<u8> = buffers
            .iter()
            .flat_map(|buffer| buffer.iter().copied())
            .collect();
        let part = &bytes[..len.min(bytes.len())];
        if part.is_empty() {
            return Ok(());
        }
        self.inner().write_all_at(&mut [IoSlice::new(part)], offset)
    }
}

impl<C: WalCoordination> File for InterposedFile<C> {
    fn path(&self) -> &Path {
        self.inner().path()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let (file, len) = (self.which, buffer.len());
        self.seat
            .pass(Call::Read { file, offset, len }, self.path())?;
        self.inner().read_at(buffer, offset)
    }

    fn write_all_at(&self, buffers: &mut [IoSlice<'_>], offset: u64) -> Result<()> {
        let (file, len) = (self.which, buffers.iter().map(|b| b.len()).sum());
        match self.seat.before(Call::Write { file, offset, len }) {
            Then::GoOn => {
                let growth = (offset + len as u64).saturating_sub(self.inner().len()?);
                let missing = growth - self.seat.director.take_space(growth);
                if missing == 0 {
                    return self.inner().write_all_at(buffers, offset);
                }
                let fits = len.saturating_sub(usize::try_from(missing).unwrap_or(len));
                self.write_part(buffers, offset, fits)?;
                let full = io::ErrorKind::StorageFull.into();
                Err(Error::io(self.path(), "write", full))
            }
            Then::Fail => Err(failure(self.path())),
            Then::FailAfter(len) => {
                self.write_part(buffers, offset, len)?;
                Err(failure(self.path()))
            }
            Then::Die => die(),
        }
    }

    fn sync(&self, kind: FileSyncType) -> Result<()> {
        self.seat.pass(Call::Sync(self.which), self.path())?;
        self.inner().sync(kind)
    }

    fn start_writeback(&self, range: Range<u64>) -> Result<()> {
        let call = Call::StartWriteback(self.which);
        self.seat.pass(call, self.path())?;
        self.inner().start_writeback(range)
    }

    fn forget_failures(&self) {
        let forget = || self.inner().forget_failures();
        self.seat
            .pass_infallible(Call::ForgetFailures(self.which), forget);
    }

    fn len(&self) -> Result<u64> {
        self.inner().len()
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.seat.pass(Call::SetLen(self.which, len), self.path())?;
        let before = self.inner().len()?;
        self.inner().set_len(len)?;
        // A file that is made longer has a hole, which takes no room.
        self.seat.director.free(before.saturating_sub(len));
        Ok(())
    }

    /// That of the scene's disk, not of the machine's.
    fn free_space(&self) -> Option<u64> {
        let call = Call::FreeSpace(self.which);
        self.seat.pass_infallible(call, || ());
        self.seat.director.told_free_space()
    }

    fn mapped(&self) -> Option<&MappedFile> {
        self.inner().mapped()
    }
}

impl<C> fmt::Debug for InterposedFile<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of user {}", self.which, self.seat.user)
    }
}

/// A user's files.
pub(super) struct InterposedStorage<C> {
    database: InterposedFile<C>,
    log: InterposedFile<C>,
}

impl<C> InterposedStorage<C> {
    pub(super) fn new(seat: &Arc<Seat<C>>) -> Self {
        let file = |which| InterposedFile {
            seat: seat.clone(),
            which,
        };
        InterposedStorage {
            database: file(Which::Database),
            log: file(Which::Log),
        }
    }
}

impl<C: WalCoordination> Storage for InterposedStorage<C> {
    fn database(&self) -> &dyn File {
        &self.database
    }

    fn log(&self) -> &dyn File {
        &self.log
    }

    fn remove_log(&self) -> Result<()> {
        let seat = &self.log.seat;
        seat.pass(Call::RemoveLog, self.log.path())?;
        seat.shared.attachment.storage.remove_log()
    }

    fn sync_directory(&self) -> Result<()> {
        let seat = &self.log.seat;
        seat.pass(Call::SyncDirectory, self.log.path())?;
        seat.shared.attachment.storage.sync_directory()
    }
}

impl<C> fmt::Debug for InterposedStorage<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "files of user {}", self.log.seat.user)
    }
}
