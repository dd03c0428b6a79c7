//! A full SQL engine on this write-ahead log: libSQL, an SQLite fork whose log
//! can be replaced, with ours beneath.
//!
//! Several processes run SQL on one database, beside stock SQLite and beside
//! programs that use the crate `wal`. [`Connection`] is a thin wrapper to run
//! SQL with, and a base for a driver: [`Connection::as_raw`], [`Connection::into_raw`] and
//! [`Connection::from_raw`] give what C works with. [`WalOptions::manager`] is for a driver
//! that opens connections itself.
//!
//! A writer waits in the writer queue of this library ([`Connection::busy_timeout`]), in one
//! order with the SQL writers and the page writers of all processes.
//!
//! | file | what it owns |
//! |---|---|
//! | `connection`, `statement`, `value` | [`Connection`], [`Statement`] and [`Value`]: SQL |
//! | `manager` | opening and closing logs for the engine |
//! | `handle` | an open log as the engine holds it, and when it is opened again |
//! | `methods` | the methods of it, as C calls them |
//! | `log` | what they mean in our protocol |
//! | `queue` | the log as a writer in the queue |
//! | `busy` | the busy handler of a connection, which waits in the queue |
//! | `place` | whether our log may lie beside a database file |
//! | `engine_log` | the engine's own log, where it may not |
//! | `engine_file` | the database file, through the engine's own handle |
//! | `storage` | that file and the log beside it |
//! | `code` | our errors as result codes |

#[cfg(not(unix))]
compile_error!("wal-libsql needs POSIX files");
#[cfg(not(any(feature = "shm", feature = "inproc")))]
compile_error!("choose a backend: the feature `shm`, `inproc` or both");

mod busy;
mod code;
mod connection;
mod engine_file;
mod engine_log;
mod guard;
mod handle;
mod log;
mod manager;
mod methods;
mod options;
mod place;
mod queue;
mod statement;
mod storage;
mod value;

pub use connection::{Connection, OpenOptions};
pub use libsql_ffi as ffi;
pub use options::{BackendKind, WalOptions};
pub use statement::Statement;
pub use value::{SqlError, Value};
pub use wal_core::storage::LockKind;
