//! Worker processes: programs that use the library like any other, told what
//! to do one line at a time, stopped between two steps of the protocol and
//! killed there.
//!
//! | file | what it owns |
//! |---|---|
//! | `process` | [`Worker`], the test's end: start, ask, stop, kill |
//! | `session` | the process's end: what it has open, and the commands on it |
//! | `steps` | stops at the library's step points, and the record of those passed |
//! | `wire` | the lines between the two |
//! | `standard_streams` | the lines at the process's end |
//! | `stamp` | what is written on pages, so that each tells its commit |
//! | `load` | writers, readers and checkpointers that run by themselves |
//! | `forked` | children made by a bare `fork` |

mod forked;
mod load;
mod process;
mod session;
mod stamp;
mod standard_streams;
#[cfg(feature = "test-points")]
mod steps;
mod wire;

pub use forked::{ForkedChild, fork};
pub use load::{Load, LoadReport, Role, run_load};
pub use process::{WATCHDOG, Worker};
pub use session::serve;
pub use stamp::Stamp;
pub use wire::{
    BackendKind, Checkpoint, Command, HeldByte, Refusal, RefusalKind, Settings, SnapshotInfo,
    Synchronous,
};
