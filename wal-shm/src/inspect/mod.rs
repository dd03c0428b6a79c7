//! Which processes use a database, and which locks they hold, for a program that only observes.
//!
//! Nothing here acquires a lock, stores a byte, or makes a file, and the database and `-shm`
//! are not opened: a close would drop the locks of a stock SQLite in this process. What is
//! returned was true at the moment of the look; it is for people. What could not be seen is
//! listed ([`Census::unseen`]).
//!
//! | file | what it owns |
//! |---|---|
//! | `census` | the locks on the files of a database, and their holders |
//! | `listed_lock` | a line of `/proc/locks`, and of `/proc/<pid>/fdinfo` |
//! | `lock_list` | all lines of `/proc/locks`, each once |
//! | `lock_byte` | the names of the lock bytes |
//! | `watched` | by which numbers the system knows a file |
//! | `descriptors` | which processes have a file open, and with which locks |
//! | `holders` | the processes that hold locks of open file descriptions |
//! | `open_files` | which processes have the files open, those that were replaced too |
//! | `file_system` | whether the file system of a database can be trusted |
//! | `process` | the number, command and user of a process |
//! | `slots` | the read slots with their marks and holders |
//! | `side_view` | a look at the side file |
//! | `sqlite_build` | which SQLite a process has mapped |

mod census;
mod descriptors;
mod file_system;
mod holders;
mod listed_lock;
mod lock_byte;
mod lock_list;
mod open_files;
mod process;
mod side_view;
mod slots;
mod sqlite_build;
mod watched;

pub use census::{Census, FoundBy, HeldLock, Unseen};
pub use file_system::FileSystem;
pub use lock_byte::{DatabaseFile, LockByte};
pub use open_files::{OpenFile, OpenFiles};
pub use process::ProcessInfo;
pub use side_view::{AttachedProcess, SideView};
pub use slots::SlotInfo;
pub use sqlite_build::{Builds, SqliteBuild};

pub use crate::file_system::FileSystemType;
