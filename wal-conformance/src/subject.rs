//! The backend under test: how the suite attaches to a database.

use std::path::Path;

use wal_core::coordination::WalCoordination;
use wal_core::error::Result;
use wal_core::storage::Storage;

/// A backend under test.
pub trait Subject: 'static {
    /// The coordination under test.
    type Coordination: WalCoordination;

    /// True if a database can be attached more than once at a time, by one
    /// process. Each user of a case then has an attachment of its own; else
    /// all share one, and a second attachment must be refused.
    const MANY_ATTACHMENTS: bool;

    /// Attaches to the page store at `path`, whose file is there.
    ///
    /// # Errors
    /// Those of the backend.
    fn attach(path: &Path) -> Result<Attachment<Self::Coordination>>;
}

/// What an attachment to a database consists of.
pub struct Attachment<C> {
    /// Where the users meet.
    pub(crate) coordination: C,
    /// The database file and its log.
    pub(crate) storage: Box<dyn Storage>,
    /// Whether pages are read from the mappings that the files have.
    pub(crate) mapped: bool,
}

impl<C> Attachment<C> {
    /// An attachment whose pages are copied, as by [`wal_core::protocol::Wal::new`].
    pub fn new(coordination: C, storage: Box<dyn Storage>) -> Self {
        Attachment {
            coordination,
            storage,
            mapped: false,
        }
    }

    /// An attachment whose pages are read from the mappings that the files have, as by
    /// [`wal_core::protocol::Wal::new_mapped`].
    ///
    /// # Safety
    /// What [`wal_core::protocol::Wal::new_mapped`] asks for. So run the suite without
    /// mappings before: a backend that fails a case of it does not keep its contract.
    #[allow(unsafe_code)] // What is promised is handed on.
    pub unsafe fn mapped(coordination: C, storage: Box<dyn Storage>) -> Self {
        Attachment {
            mapped: true,
            ..Self::new(coordination, storage)
        }
    }
}
