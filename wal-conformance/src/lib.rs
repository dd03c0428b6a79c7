//! The suite that every [`WalCoordination`](wal_core::WalCoordination) passes: the numbered rules of the
//! coordination contract, and the protocol on top of them.
//!
//! A backend says how a database is attached ([`Subject`]), and
//! [`conformance_suite!`](crate::conformance_suite) makes a test of each case:
//!
//! ```ignore
//! struct InProcess;
//! impl wal_conformance::Subject for InProcess { /* … */ }
//! wal_conformance::conformance_suite!(InProcess);
//! ```
//!
//! `docs/backends.md` shows how a third backend is written and run, and
//! `wal-conformance/tests/third_backend.rs` is one.
//!
//! The users of a case sit behind a *director*: it writes every call to the
//! coordination and to the files down, checks who holds which lock, and runs a
//! test's closure at a chosen call. So races are forced, not awaited: each
//! case runs the same way every time.
//!
//! | file | what it owns |
//! |---|---|
//! | `backend` | what the suite needs of a backend |
//! | `suite` | the list of the cases, and what is made of it |
//! | `director` | the trace, and the moment at which a test steps in |
//! | `contract` | the rules that are checked at every call |
//! | `interposed` | a user's coordination and files, with the director in front |
//! | `scene` | a database in a directory, its users, pages with versions |
//! | `rules` | which case turns red when which rule is broken |
//! | `cases` | the cases, by what they are about |
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr
)] // Test code: a failed case panics with its reason.
#![cfg(not(loom))] // Nothing of it runs under loom, whose locks are explored by themselves.

mod calls;
mod cases;
mod contract;
mod director;
mod interposed;
mod rules;
mod scene;
mod subject;
mod suite;

pub use rules::{CaughtBy, RULES};
pub use subject::{Attachment, Subject};
pub use suite::{Case, cases, run};
