//! Scripts of SQL on our log, and the same ones on stock SQLite in a process
//! of its own: the same rows, the same errors, and each opens what the other
//! has left.
#![cfg(feature = "shm")]
#![allow(unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod comparison;
#[allow(dead_code, unreachable_pub)] // A library of all tests of the repository.
#[path = "../../../integration/src/needs.rs"]
mod needs;
mod random;
mod scripts;
mod shell;
