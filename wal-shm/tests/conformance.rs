//! The conformance suite on the shared-memory coordination: the users of each
//! case share one attachment of this process, as its threads would.
//!
//! Attachments of several processes are the business of the process tests.
#![allow(unsafe_code)] // Mappings are promised to stand still.

use std::path::Path;

use wal_conformance::{Attachment, Subject};
use wal_core::Result;
use wal_core::storage::{LockKind, OpenMode, OsStorage};
use wal_shm::{ShmOptions, ShmWalCoordination};

fn attach(path: &Path, options: ShmOptions) -> Result<Attachment<ShmWalCoordination>> {
    let (coordination, ()) =
        ShmWalCoordination::open(path, OpenMode::Existing, options, |_| Ok(()))?;
    let refused = || wal_core::Error::cannot_open(path, "an engine has it open");
    let database = coordination.database().cloned().ok_or_else(refused)?;
    let storage = Box::new(OsStorage::open(database, coordination.maps())?);
    Ok(match coordination.maps() {
        // SAFETY: the coordination is that of the file and passes the suite without
        // mappings; the suite's directory is its own.
        true => unsafe { Attachment::mapped(coordination, storage) },
        false => Attachment::new(coordination, storage),
    })
}

mod mapped {
    use super::*;

    struct SharedMemory;

    impl Subject for SharedMemory {
        type Coordination = ShmWalCoordination;
        const MANY_ATTACHMENTS: bool = true;

        fn attach(path: &Path) -> Result<Attachment<Self::Coordination>> {
            attach(path, ShmOptions::default())
        }
    }

    wal_conformance::conformance_suite!(SharedMemory);
}

/// By `pread` and with classic locks.
mod plain {
    use super::*;

    struct SharedMemory;

    impl Subject for SharedMemory {
        type Coordination = ShmWalCoordination;
        const MANY_ATTACHMENTS: bool = true;

        fn attach(path: &Path) -> Result<Attachment<Self::Coordination>> {
            let mut options = ShmOptions::default();
            options.lock_kind = LockKind::Classic;
            options.mapped = false;
            attach(path, options)
        }
    }

    wal_conformance::conformance_suite!(SharedMemory);
}
