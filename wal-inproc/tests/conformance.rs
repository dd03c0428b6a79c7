//! The conformance suite on the in-process coordination.
#![allow(unsafe_code)] // Mappings are promised to stand still.

use std::path::Path;

use wal_conformance::{Attachment, Subject};
use wal_core::Result;
use wal_core::storage::{OpenMode, OsStorage};
use wal_inproc::{InProcessOptions, InProcessWalCoordination};

fn attach(path: &Path, mapped: bool) -> Result<Attachment<InProcessWalCoordination>> {
    let mut options = InProcessOptions::default();
    options.mapped = mapped;
    let (coordination, database) =
        InProcessWalCoordination::open(path, OpenMode::Existing, options)?;
    let storage = Box::new(OsStorage::open(database, mapped)?);
    Ok(match mapped {
        // SAFETY: the coordination is that of the file and passes the suite without
        // mappings; the suite's directory is its own.
        true => unsafe { Attachment::mapped(coordination, storage) },
        false => Attachment::new(coordination, storage),
    })
}

mod mapped {
    use super::*;

    struct InProcess;

    impl Subject for InProcess {
        type Coordination = InProcessWalCoordination;
        const MANY_ATTACHMENTS: bool = false;

        fn attach(path: &Path) -> Result<Attachment<Self::Coordination>> {
            attach(path, true)
        }
    }

    wal_conformance::conformance_suite!(InProcess);
}

mod copied {
    use super::*;

    struct InProcess;

    impl Subject for InProcess {
        type Coordination = InProcessWalCoordination;
        const MANY_ATTACHMENTS: bool = false;

        fn attach(path: &Path) -> Result<Attachment<Self::Coordination>> {
            attach(path, false)
        }
    }

    wal_conformance::conformance_suite!(InProcess);
}
