//! A full SQL engine on this write-ahead log: libSQL, an SQLite fork whose log
//! can be replaced, with ours beneath.
//!
//! Several processes run SQL on one database, beside stock SQLite and beside
//! programs that use the crate `wal`. [`Connection`] is a thin wrapper to run
//! SQL with; [`WalOptions::manager`] is for who has bindings of their own.
//!
//! | file | what it owns |
//! |---|---|
//! | `connection` | [`Connection`] and [`Statement`]: SQL |
//! | `manager` | opening and closing logs for the engine |
//! | `methods` | the methods of an open log, as C calls them |
//! | `log` | what they mean in our protocol |
//! | `engine_file` | the database file, through the engine's own handle |
//! | `storage` | that file and the log beside it |
//! | `code` | our errors as result codes |

#[cfg(not(unix))]
compile_error!("wal-libsql needs POSIX files");
#[cfg(not(any(feature = "shm", feature = "inproc")))]
compile_error!("choose a backend: the feature `shm`, `inproc` or both");

mod code;
mod connection;
mod engine_file;
mod log;
mod manager;
mod methods;
mod storage;

pub use connection::{Connection, OpenOptions, SqlError, Statement, Value};
pub use libsql_ffi as ffi;
pub use manager::{Backend, WalOptions};
