//! What can be told to an attachment anew while it is in use, as the pragmas
//! of an SQL engine do.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use crate::coordination::WalCoordination;
use crate::protocol::{Synchronous, Wal, WalConfig};

/// No limit for the log. No file can be that long.
const UNLIMITED: u64 = u64::MAX;

/// Each is looked at when it is needed. Operations that are under way may go
/// by the old or by the new one, so no order is needed.
#[derive(Debug)]
pub(super) struct Tuning {
    synchronous: AtomicU8,
    log_size_limit: AtomicU64,
    persistent_log: AtomicBool,
}

impl Tuning {
    pub(super) fn of(config: &WalConfig) -> Self {
        Tuning {
            synchronous: AtomicU8::new(config.synchronous as u8),
            log_size_limit: AtomicU64::new(config.log_size_limit.unwrap_or(UNLIMITED)),
            persistent_log: AtomicBool::new(config.persistent_log),
        }
    }

    pub(super) fn persistent_log(&self) -> bool {
        self.persistent_log.load(Ordering::Relaxed)
    }
}

impl<C: WalCoordination> Wal<C> {
    /// How much survives a power failure, as of now.
    pub fn synchronous(&self) -> Synchronous {
        match self.tuning().synchronous.load(Ordering::Relaxed) {
            0 => Synchronous::Off,
            1 => Synchronous::Normal,
            _ => Synchronous::Full,
        }
    }

    /// Sets how much survives a power failure from now on (`PRAGMA
    /// synchronous`).
    pub fn set_synchronous(&self, synchronous: Synchronous) {
        let value = synchronous as u8;
        self.tuning().synchronous.store(value, Ordering::Relaxed);
    }

    /// To how many bytes the log is cut when it begins anew, as of now.
    pub fn log_size_limit(&self) -> Option<u64> {
        let limit = self.tuning().log_size_limit.load(Ordering::Relaxed);
        (limit != UNLIMITED).then_some(limit)
    }

    /// Sets that limit (`PRAGMA journal_size_limit`).
    pub fn set_log_size_limit(&self, limit: Option<u64>) {
        let limit = limit.unwrap_or(UNLIMITED);
        self.tuning().log_size_limit.store(limit, Ordering::Relaxed);
    }

    /// Sets whether the last closer leaves the log where it is
    /// (`SQLITE_FCNTL_PERSIST_WAL`).
    pub fn set_persistent_log(&self, persistent: bool) {
        let persists = &self.tuning().persistent_log;
        persists.store(persistent, Ordering::Relaxed);
    }
}
