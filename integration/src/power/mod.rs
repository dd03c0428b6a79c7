//! Power failures, simulated: a disk that forgets, a history that stock SQLite
//! wrote, random work on it, and a judge of what is left after each crash.
//!
//! | file | what it owns |
//! |---|---|
//! | `disk` | two files whose writes are volatile until synced; what a crash may leave |
//! | `history` | the committed states of a SQLite database |
//! | `shared` | the index of several handles |
//! | `sqlite_vfs` | stock SQLite on the disk |
//! | `work` | random operations that go through that history |
//! | `replica` | a copy, and a replica, that are given the frames of a source |
//! | `judge` | whether what is left keeps the promise, to ours and to stock SQLite |

mod disk;
mod history;
mod judge;
mod replica;
mod shared;
mod sqlite_vfs;
mod work;

pub use disk::{Crash, Disk, Image, Interlude};
pub use history::History;
pub use judge::{FileJudge, Verdict, judge_by_ours, judge_without_promise};
pub use replica::{catch_up, replicate};
pub use sqlite_vfs::{SIMULATED_VFS, SimulatedDatabase};
pub use work::{
    Work, restore_after_close, work, work_beside_careless, work_by_threads, work_in_group,
};
