//! A snapshot that is held for a while, and not longer.
#![expect(
    clippy::disallowed_types,
    reason = "the thread that ends the hold is the system's, so it is in no model"
)]

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::background;
use crate::coordination::WalCoordination;
use crate::error::{Error, Result};
use crate::fork::ProcessGeneration;
use crate::protocol::read::begin::ReadTx;
use crate::protocol::read::snapshot::Snapshot;
use crate::sync::Unpoison;

/// A snapshot that is held against checkpoints, so that transactions can be
/// begun on it again and again, for a bounded time. After that it is given up,
/// whatever its holder does meanwhile.
pub struct HeldSnapshot<C: WalCoordination> {
    held: Arc<Mutex<Option<ReadTx<C>>>>,
    snapshot: Snapshot,
    path: PathBuf,
    process: ProcessGeneration,
    /// Its end ends the thread that gives the snapshot up. `None` in `drop` only.
    ends: Option<Sender<()>>,
}

impl<C: WalCoordination> ReadTx<C> {
    /// Holds the state that this transaction sees for `at_most`.
    ///
    /// # Errors
    /// [`Error::Io`] if no thread can be started.
    pub fn hold(self, at_most: Duration) -> Result<HeldSnapshot<C>> {
        let path = self.path().to_owned();
        let snapshot = *self.snapshot();
        let held = Arc::new(Mutex::new(Some(self)));
        let (ends, ended) = channel();
        let given_up = held.clone();
        background::spawn("wal-held-snapshot", move || {
            let _ = ended.recv_timeout(at_most);
            drop(lock(&given_up).take());
        })
        .map_err(|e| Error::io(&path, "start a thread", e))?;
        Ok(HeldSnapshot {
            held,
            snapshot,
            path,
            process: ProcessGeneration::current(),
            ends: Some(ends),
        })
    }
}

impl<C: WalCoordination> HeldSnapshot<C> {
    /// The state that is held.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    pub(in crate::protocol) fn path(&self) -> &Path {
        &self.path
    }

    /// Begins a read transaction on that state. It may outlast the hold.
    ///
    /// # Errors
    /// [`Error::SnapshotTooOld`] once it was given up,
    /// [`Error::UsedAfterFork`], [`Error::Io`].
    pub fn begin_read(&self) -> Result<ReadTx<C>> {
        if self.process.is_over() {
            return Err(Error::UsedAfterFork);
        }
        lock(&self.held)
            .as_ref()
            .ok_or_else(|| self.too_old())?
            .try_clone()
    }

    fn too_old(&self) -> Error {
        Error::SnapshotTooOld {
            path: self.path.clone(),
        }
    }
}

impl<C: WalCoordination> Drop for HeldSnapshot<C> {
    /// At once, and not when the thread comes to it.
    fn drop(&mut self) {
        // In a forked child the mutexes, that of the channel too, may be those of a thread
        // which is not there.
        match self.process.is_over() {
            true => std::mem::forget(self.ends.take()),
            false => drop(lock(&self.held).take()),
        }
    }
}

fn lock<C: WalCoordination>(held: &Mutex<Option<ReadTx<C>>>) -> MutexGuard<'_, Option<ReadTx<C>>> {
    held.lock().unpoison()
}
