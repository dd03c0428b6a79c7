//! integration

/// Processes in namespaces of their own, as in a container.
pub mod container;

#[cfg(target_os = "linux")]
pub mod disk;

mod executable;

/// What a folder of database files looks like from outside.
pub mod folder;

/// Which kind of file a test has.
pub mod kind;

mod lines;

/// What tests need beyond Rust and a C compiler.
pub mod needs;

/// Power failures, simulated.
pub mod power;

/// Writers of stock SQLite in the queue of `wal-queue`.
pub mod queue;

/// A whole database, read in each of the ways that the library has.
pub mod reading;

/// Work without the rights of root.
pub mod rights;

/// Users of one database that take turns at every step, as a seed says.
#[cfg(feature = "test-points")]
pub mod schedule;

/// Processes that do not outlive the test that starts them.
pub mod spawn;

/// A SQLite database that both sides change.
pub mod stamped;

/// Stock SQLite as a live peer, and the means to stop it at its file calls.
pub mod stock;

/// Worker processes of ours, driven line by line, stopped and killed at will.
pub mod worker;
