//! How long a process tries again while the bank is busy.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::access::is_busy;
use crate::post::Post;
use crate::wire::Progress;

/// Tries again while the bank is busy, with signs of life, and takes it for an
/// error after `patience`. `None` if told to stop meanwhile.
pub(crate) fn patiently<T>(
    patience: Duration,
    post: &mut Post,
    progress: &Progress,
    mut attempt: impl FnMut() -> Result<T>,
) -> Result<Option<T>> {
    let begun = Instant::now();
    loop {
        match attempt() {
            Err(error) if is_busy(&error) && begun.elapsed() < patience => {
                if post.is_stopped() {
                    return Ok(None);
                }
                post.progress(progress)?;
                std::thread::yield_now();
            }
            Err(error) if is_busy(&error) => {
                return Err(error.context(format!("still busy after {patience:?}")));
            }
            done => return done.map(Some),
        }
    }
}
