//! The log of a database that stock SQLite writes, followed elsewhere.
//!
//! | file | what it shows |
//! |---|---|
//! | `busy_writer` | a tail beside a writer at full speed |
//! | `litestream` | Litestream follows what both sides write |
//! | `replica` | a replica, frame by frame, that stock SQLite reads |

// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::panic, clippy::unwrap_used)]

mod busy_writer;
mod litestream;
mod replica;
