//! One side is stopped within an operation, and the other side acts in the gap; and the rules
//! of a polite peer, which such races show.
//!
//! | file | what it owns |
//! |---|---|
//! | `scene` | a database in a state to begin with, and the checks at the end |
//! | `ours` | what ours does in the test process, each in bounded time |
//! | `plan` | which cells of a matrix are run |
//! | `ours_stopped` | a worker of ours is stopped, and stock SQLite acts |
//! | `stock_stopped` | stock SQLite is stopped, and ours acts |
//! | `peer_rules` | the rules of a polite peer, and the tests that show them |

// Clippy takes the helpers of an integration test for production code.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

mod ours;
#[cfg(feature = "test-points")]
mod ours_stopped;
mod peer_rules;
mod plan;
mod scene;
mod stock_stopped;

pub(crate) use ours::{Action, Image, Ours, Outcome, stamp};
pub(crate) use plan::Plan;
pub(crate) use scene::{Scene, Start, values};

use std::time::Duration;

/// Longer than any step here takes, so that only a hang gets there.
pub(crate) const WAIT: Duration = Duration::from_secs(60);

/// How long ours waits for locks.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_millis(30);

/// How soon ours is done with anything, its busy timeouts included, on a machine that
/// is busy with much else.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(30);
