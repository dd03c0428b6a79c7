//! Disks that are full, file systems of every kind, and system calls that fail.
//!
//! | file | what it shows |
//! |---|---|
//! | `census` | the holders of locks are named on each file system |
//! | `failing_calls` | each system call on the files of a database fails once |
//! | `file_systems` | every kind of file system becomes full |
//! | `full_disk` | what does not fit is refused |
//! | `overlay` | a database in the lower layer of an overlay |

// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::panic, clippy::print_stdout, clippy::unwrap_used)]

mod census;
mod failing_calls;
mod file_systems;
mod full_disk;
mod overlay;
