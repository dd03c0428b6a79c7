//! What the matrices of races share: the database that both sides work on,
//! our side of it in the test process, and the choice of cells.
//!
//! | file | what it owns |
//! |---|---|
//! | `scene` | a database in a state to begin with, and the checks at the end |
//! | `ours` | what ours does in the test process, each in bounded time |
//! | `plan` | which cells of a matrix are run |
#![allow(dead_code, unused_imports)] // Each test binary uses its own part.

mod ours;
mod plan;
mod scene;

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
