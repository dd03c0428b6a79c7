//! What is left after processes that end or die, and after damage.
//!
//! | file | what it shows |
//! |---|---|
//! | `generations` | generations of the log are told apart by their salts |
//! | `last_closer` | the last closer moves and removes the log, and no process before it |
//! | `lost_files` | files that another program cut or removed |
//! | `recovery` | a lost, damaged or hostile wal-index, and a torn log |
//! | `short_lived`, `short_lived_mixed` | processes that live for one commit |

// Clippy takes the helpers of an integration test for production code.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used
)]

mod generations;
mod last_closer;
mod lost_files;
mod recovery;
mod short_lived;
mod short_lived_mixed;
