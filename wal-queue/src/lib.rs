//! A SQLite extension with which the writers of unmodified programs wait in one fair queue.
//!
//! Stock SQLite polls for `WRITE`: the process that tries most often gets it, and another one
//! starves until "database is locked". With this library loaded, a connection that is refused
//! `WRITE` queues in the side file `<db>-coord`, sleeps until it is first, and is woken when
//! `WRITE` is released. Programs in any language that load it, and the page and SQL writers of
//! this workspace, are in the same queue.
//!
//! | file | what it owns |
//! |---|---|
//! | `vfs` | the VFS `walqueue`, over the default one |
//! | `methods` | the methods of a database file that are replaced |
//! | `base_file` | a database file as the VFS beneath has it |
//! | `block` | the wal-index, as SQLite has mapped it |
//! | `main_file` | what is known of an open database file |
//! | `write_lock` | `WRITE` of a connection, and the other locks of the wal-index |
//! | `guard` | SHARED on the database file, beside that of SQLite |
//! | `group_commit` | one sync of the log for the commits of many |
//! | `log_file` | the log of a connection that shares its syncs |
//! | `open_files` | which of the open files a connection writes |
//! | `options` | what a connection asks for |
//! | `reservation` | `WRITE` for a transaction that reads before it writes |
//! | `expiry` | the thread that ends reservations |
//! | `waiting` | a thread that waits in the queue while SQLite believes that it sleeps |
//! | `queue` | the side file of a database, shared by the connections of the process |
//! | `per_database` | what the connections of the process share, by database |
//! | `sql` | SQL functions and tables |
//! | `api` | the functions of the SQLite that loads the extension |
//! | `ffi` | the types of SQLite's C interface |

#[cfg(not(unix))]
compile_error!("wal-queue needs POSIX files and the VFS of SQLite for Unix");

mod api;
mod base_file;
mod block;
mod expiry;
mod extension;
mod ffi;
mod group_commit;
mod guard;
mod log_file;
mod main_file;
mod methods;
mod open_files;
mod options;
mod per_database;
mod queue;
mod reservation;
mod sql;
#[cfg(test)]
mod tests;
mod vfs;
mod waiting;
mod write_lock;

#[doc(hidden)]
pub use api::SLOTS;
pub use extension::{RegisterError, register, sqlite3_walqueue_init};
pub use ffi::{ApiRoutines, Connection};
#[doc(hidden)]
pub use ffi::{CONSTANTS, LAYOUT, SIZES};
pub use vfs::VFS_NAME;
