//! A checkpointer moves committed pages into the database file, in a loop.

use std::time::Duration;

use anyhow::Result;

use crate::access::{Access, is_busy};
use crate::assignment::Assignment;
use crate::post::Post;
use crate::wire::{Progress, Report};

/// Between two checkpoints.
const PAUSE: Duration = Duration::from_millis(5);

pub(crate) fn run(_assignment: &Assignment, bank: &mut dyn Access, post: &mut Post) -> Result<()> {
    let mut progress = Progress::default();
    while !post.is_stopped() {
        match bank.checkpoint() {
            Ok(log) => {
                progress.done += 1;
                progress.log = Some(log);
            }
            // A writer is checkpointing at this moment.
            Err(error) if is_busy(&error) => {}
            Err(error) => return Err(error),
        }
        post.progress(&progress)?;
        std::thread::sleep(PAUSE);
    }
    post.send(&Report::Progress(progress))
}
