//! Coordination between processes: SQLite's `-shm` file, mapped, and its
//! byte-range locks.
//!
//! Everything is where stock SQLite looks for it, so its processes and ours
//! use one database at the same time.
//!
//! | file | what it owns |
//! |---|---|
//! | `coordination` | [`ShmWalCoordination`]: one user of a process's attachment |
//! | `attach` | attaching to a database, or joining an attachment of this process |
//! | `attachment` | what a process has open for one database, shared by its users |
//! | `registry` | the attachments of this process, by the file that they are of |
//! | `database_lock` | SHARED and EXCLUSIVE on the database file |
//! | `first_opener` | who resets a shared file, and who joins |
//! | `main_file` | the database file: ours, or one that an engine has open |
//! | `index` | the wal-index: shared, or a private one for who may not write |
//! | [`inspect`] | which processes use a database, for a program that only looks |
//! | `read_rate` | how often this process reads, and whether it may keep a read lock |
//! | `sweeper` | releases the read locks that were kept and are not used |
//! | `private_index` | reading safely beside writers that come later, without writing `-shm` |
//! | `shm_file` | the mapped blocks of the wal-index |
//! | `allocate` | blocks on the disk for what is mapped to be written |
//! | `lock_table` | who holds what within this process |
//! | `lock_byte` | the same of one lock byte, for threads that read side by side |
//! | `side_file` | wake-ups and names, for which SQLite's format has no room |
//! | `process_table` | which processes hold which locks, for messages |
//! | `namespaces` | what a process number means here, and in other containers |
//! | `options` | how a database is attached to |
//! | `mapping` | a file in memory |
//! | `futex` | sleeping on a word of shared memory, and waking |
//! | `file_system` | refuses file systems on which this cannot work |
#![cfg_attr(not(test), deny(clippy::disallowed_types, clippy::disallowed_methods))]

#[cfg(not(unix))]
compile_error!("wal-shm needs POSIX byte-range locks and shared mappings; use wal-inproc here");
#[cfg(not(target_pointer_width = "64"))]
compile_error!("wal-shm maps whole logs and needs a 64-bit address space; use wal-inproc here");

mod allocate;
mod attach;
mod attachment;
mod coordination;
mod database_lock;
mod file_system;
mod first_opener;
mod futex;
mod index;
pub mod inspect;
mod lock_byte;
mod lock_table;
mod main_file;
mod mapping;
mod namespaces;
mod options;
mod private_index;
mod process_table;
mod read_rate;
mod registry;
mod shm_file;
mod side_file;
mod sweeper;

pub use coordination::ShmWalCoordination;
pub use database_lock::HeldShared;
pub use main_file::DatabaseOwner;
pub use options::{Access, ShmOptions};
pub use side_file::SideFile;
