//! What it costs to bring a frame into a log, in the ways that there are, and
//! without anything else: the least that a commit takes.
#![allow(unsafe_code)] // Storing to a mapped file is unsafe in Rust.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use memmap2::{MmapOptions, MmapRaw};

const FRAME: usize = 4120;
const ROUNDS: usize = 5;

/// How a frame gets into the file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// By a call, and the file grows.
    Growing,
    /// By a call, into zeros that were written before.
    IntoZeros,
    /// By a call, over frames that were synced, as in a log that begins anew.
    Over,
    /// By stores to a mapping, over frames that were synced: the first store to a
    /// page is a fault.
    MappedAfterSync,
    /// By stores to a mapping, over frames that were stored just before.
    Mapped,
}

const WAYS: [(Way, &str); 5] = [
    (Way::Growing, "written, and the file grows"),
    (Way::IntoZeros, "written into zeros"),
    (Way::Over, "written over frames that were synced"),
    (
        Way::MappedAfterSync,
        "stored through a mapping, over frames that were synced",
    ),
    (
        Way::Mapped,
        "stored through a mapping, over frames that were not",
    ),
];

/// A file with room for `frames`.
struct Log {
    file: File,
    map: Option<MmapRaw>,
    frame: [u8; FRAME],
}

impl Log {
    fn new(way: Way, directory: &Path, frames: usize) -> Result<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(directory.join("log"))?;
        let mut log = Log {
            file,
            map: None,
            frame: [0; FRAME],
        };
        if way != Way::Growing {
            (0..frames).try_for_each(|at| log.put(at))?;
            log.file.sync_data()?;
        }
        log.frame = [7; FRAME];
        if matches!(way, Way::MappedAfterSync | Way::Mapped) {
            let options = MmapOptions::new().len(frames * FRAME).map_raw(&log.file)?;
            log.map = Some(options);
        }
        if matches!(way, Way::Over | Way::MappedAfterSync | Way::Mapped) {
            (0..frames).try_for_each(|at| log.put(at))?;
        }
        if matches!(way, Way::Over | Way::MappedAfterSync) {
            log.file.sync_data()?;
        }
        Ok(log)
    }

    fn put(&mut self, at: usize) -> Result<()> {
        let offset = at * FRAME;
        match &mut self.map {
            None => self.file.write_all_at(&self.frame, offset as u64)?,
            Some(map) => {
                anyhow::ensure!(offset + FRAME <= map.len());
                // SAFETY: the frame ends within the mapping (line above).
                let to = unsafe { map.as_mut_ptr().add(offset) };
                // SAFETY: as long are the frame and, from `to` on, the mapping,
                // and the file behind it, which is nobody else's.
                unsafe { std::ptr::copy_nonoverlapping(self.frame.as_ptr(), to, FRAME) };
            }
        }
        Ok(())
    }

    /// What a frame takes, in microseconds.
    fn time(&mut self, frames: usize, synced: bool) -> Result<f64> {
        let started = Instant::now();
        for at in 0..frames {
            self.put(at)?;
            if synced {
                self.file.sync_data()?;
            }
        }
        #[allow(clippy::cast_precision_loss)] // A count, for people to read.
        let micros = started.elapsed().as_secs_f64() * 1e6 / frames as f64;
        Ok(micros)
    }
}

fn median(way: Way, directory: &Path, frames: usize, synced: bool) -> Result<f64> {
    let round = |_| Log::new(way, directory, frames)?.time(frames, synced);
    let mut times = (0..ROUNDS).map(round).collect::<Result<Vec<f64>>>()?;
    times.sort_by(f64::total_cmp);
    Ok(times[ROUNDS / 2])
}

/// Prints a table.
pub(crate) fn measure(scratch: &Path) -> Result<()> {
    std::fs::create_dir_all(scratch)?;
    let directory = tempfile::tempdir_in(scratch)?;
    let mut out = std::io::stdout();
    writeln!(out, "| a frame is | µs | µs, each synced |\n|---|---|---|")?;
    for (way, name) in WAYS {
        let plain = median(way, directory.path(), 10_000, false)?;
        let synced = match way {
            // After a sync they are.
            Way::Mapped => String::new(),
            _ => format!("{:.0}", median(way, directory.path(), 500, true)?),
        };
        writeln!(out, "| {name} | {plain:.2} | {synced} |")?;
    }
    Ok(())
}
