//! How long a recovery of a log takes on this machine.

use std::time::{Duration, Instant};

use crate::error::Result;
use crate::format::{FrameReader, frame_len};
use crate::storage::File;

/// How many bytes of the log are read for the estimate.
const SAMPLE_LEN: usize = 8 << 20;
/// How long they are read at most.
const SAMPLE_TIME: Duration = Duration::from_millis(50);

/// Estimates how long a recovery that finds `frames` frames in `log` takes. The start of the log
/// is read and checked as a recovery does it, and the time of that is scaled. A log that is not
/// in the cache of the system is read from the disk by this, so the estimate covers the disk.
/// `None` if the log has no valid header.
///
/// # Errors
/// As [`FrameReader::of`].
///
/// ```
/// use wal_core::inspect::recovery_time;
/// use wal_core::storage::MemoryFile;
///
/// let log = MemoryFile::new("app.db-wal", Vec::new());
/// assert_eq!(recovery_time(&log, 0)?, None);
/// # Ok::<(), wal_core::Error>(())
/// ```
pub fn recovery_time(log: &dyn File, frames: u32) -> Result<Option<Duration>> {
    let begin = Instant::now();
    let Some(reader) = FrameReader::of(log)? else {
        return Ok(None);
    };
    let most = SAMPLE_LEN / frame_len(reader.header().page_size);
    let most = u32::try_from(most).unwrap_or(u32::MAX).max(1).min(frames);
    let mut reader = reader.up_to(most);
    let mut sampled = 0_u32;
    while reader.next_frame()?.is_some() {
        sampled += 1;
        if begin.elapsed() > SAMPLE_TIME {
            break;
        }
    }
    let scale = f64::from(frames) / f64::from(sampled.max(1));
    Ok(Some(begin.elapsed().mul_f64(scale.max(1.0))))
}

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::inspect::sample_log::SampleLog;
    use crate::storage::MemoryFile;

    #[test]
    fn estimate_is_scaled_from_a_sample_to_the_frames() {
        let mut log = SampleLog::new(1);
        for _ in 0..100 {
            log = log.commit(&[1, 2, 3, 4, 5]);
        }
        let log = MemoryFile::new("db-wal", log.bytes());
        let of = |frames| recovery_time(&log, frames).unwrap().unwrap();
        let (sample, scaled) = (of(500), of(500_000_000));
        assert!(scaled > sample * 100, "{sample:?} {scaled:?}");
        assert!(of(0) < scaled, "an empty log is recovered at once");
    }
}
