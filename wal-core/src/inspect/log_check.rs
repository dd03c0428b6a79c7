//! Checks each frame of a log, on all processors.
//!
//! Each frame stores the running checksum of the log, so a part of the log is checked from the
//! stored checksum of the frame before it. The prefix up to the first frame with a fault is
//! what a recovery takes ([`crate::format::scan`]): by induction, the stored checksum of each of
//! its frames is the one that a recovery computes.
//!
//! What lies behind that frame is counted, too. Frames of an older generation are what a restart
//! of the log leaves. A commit of *this* generation there is lost by a recovery: a crash leaves
//! none, unless a power failure kept later blocks of the log and lost earlier ones.

use crate::background::on_all_processors;
use crate::error::Result;
use crate::format::{
    Checksum, FrameFault, FrameReader, LogHeader, LogScan, frame_len, scan_header,
};
use crate::storage::File;
use crate::sync::{AtomicU32, AtomicU64, Mutex, Ordering, Unpoison as _};
use crate::types::{FrameNo, MAX_FRAME, Salts};

/// About how many bytes are checked by one thread at a time.
const CHUNK_LEN: usize = 4 << 20;
/// How many generations of leftovers are told apart. A log of garbage has one for each frame.
const MAX_GENERATIONS: usize = 16;

/// The frame that commits a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Commit {
    /// The last frame of the transaction.
    pub frame: u32,
    /// The size of the database in pages after it.
    pub page_count: u32,
    /// The checksum of the frame.
    pub checksum: Checksum,
}

/// Frames of one generation behind the valid prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Leftover {
    /// The generation.
    pub salts: Salts,
    /// How many restarts of the log ago it was written, as far as the salts tell.
    pub restarts: Option<u32>,
    /// How many frames it has there.
    pub frames: u64,
}

/// What lies behind the valid prefix of a log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Leftovers {
    /// The whole frames, those of this generation included.
    pub frames: u64,
    /// The bytes of a last frame that is not whole.
    pub trailing_bytes: usize,
    /// The frames of other generations, the first 16 generations that were met.
    pub generations: Vec<Leftover>,
    /// The frames of this generation that continue the frame before them.
    pub sound_frames: u64,
    /// How many of those end a transaction: commits that a recovery does not find.
    pub lost_commits: u64,
}

/// What a check of a log has found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LogCheck {
    /// What a recovery takes.
    pub scan: LogScan,
    /// Each commit of that.
    pub commits: Vec<Commit>,
    /// The first frame that is not sound and why, or the frame that is cut short by the end of
    /// the file. `None` if the file ends with a sound frame.
    pub fault: Option<(u32, FrameFault)>,
    /// What lies behind the sound frames.
    pub leftovers: Leftovers,
}

impl LogCheck {
    /// The first committed frame of a page that is beyond the size of the database after its
    /// transaction. Stock SQLite leaves such frames where a transaction that spilled pages
    /// shrinks the database, so it is no fault.
    pub fn first_frame_beyond_size(&self) -> Option<u32> {
        let mut commits = self.commits.iter();
        let mut commit = commits.next()?;
        for (frame, &page) in (1..).zip(&self.scan.pages) {
            if frame > commit.frame {
                commit = commits.next()?;
            }
            if page > commit.page_count {
                return Some(frame);
            }
        }
        None
    }

    /// The commit that ends with `frame`, if there is one.
    pub fn commit_at(&self, frame: u32) -> Option<&Commit> {
        let at = self
            .commits
            .binary_search_by_key(&frame, |commit| commit.frame);
        self.commits.get(at.ok()?)
    }

    /// True if commits of this generation lie behind the first fault, where a recovery does not
    /// find them.
    pub fn loses_commits(&self) -> bool {
        self.leftovers.lost_commits > 0
    }
}

/// Checks `log`, and calls `progress` with the bytes that are checked and those that the log
/// has, from all threads. `None` if the log has no valid header.
///
/// A log that grows while it is checked is checked up to its length at the beginning.
///
/// # Errors
/// As [`crate::format::scan`].
///
/// ```
/// use wal_core::inspect::check_log;
/// use wal_core::storage::MemoryFile;
///
/// let log = MemoryFile::new("app.db-wal", vec![7; 10_000]);
/// assert!(check_log(&log, |_, _| ())?.is_none(), "garbage is an empty log");
/// # Ok::<(), wal_core::Error>(())
/// ```
pub fn check_log(log: &dyn File, progress: impl Fn(u64, u64) + Sync) -> Result<Option<LogCheck>> {
    check_in_chunks(log, CHUNK_LEN, progress)
}

fn check_in_chunks(
    log: &dyn File,
    chunk_len: usize,
    progress: impl Fn(u64, u64) + Sync,
) -> Result<Option<LogCheck>> {
    let Some((header, checksum)) = scan_header(log)? else {
        return Ok(None);
    };
    let frame_len = frame_len(header.page_size) as u64;
    let behind_header = log
        .len()?
        .saturating_sub(crate::format::LOG_HEADER_LEN as u64);
    let frames = u32::try_from(behind_header / frame_len).unwrap_or(MAX_FRAME);
    let chunk_frames = u32::try_from(chunk_len as u64 / frame_len)
        .unwrap_or(1)
        .max(1);
    let work = Work {
        log,
        header,
        checksum,
        frames: frames.min(MAX_FRAME),
        chunk_frames,
        next: AtomicU32::new(0),
        done: AtomicU64::new(0),
        found: Mutex::new(Vec::new()),
    };
    on_all_processors("wal-check", || {
        work.run(&|done| progress(done * frame_len, behind_header))
    });
    let mut found = work.found.into_inner().unpoison();
    found.sort_unstable_by_key(|(chunk, _)| *chunk);
    let mut merged = Merged::new(header, checksum);
    for (_, chunk) in found {
        merged.add(chunk?);
    }
    let trailing = usize::try_from(behind_header % frame_len).unwrap_or(0);
    Ok(Some(merged.finish(trailing)))
}

/// What the threads share.
struct Work<'a> {
    log: &'a dyn File,
    header: LogHeader,
    checksum: Checksum,
    frames: u32,
    chunk_frames: u32,
    /// The chunk that the next thread takes.
    next: AtomicU32,
    /// The frames that are checked.
    done: AtomicU64,
    found: Mutex<Vec<(u32, Result<Chunk>)>>,
}

impl Work<'_> {
    fn run(&self, progress: &dyn Fn(u64)) {
        loop {
            // Relaxed: it hands out numbers. What was found is behind the mutex.
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(before) = number.checked_mul(self.chunk_frames) else {
                return;
            };
            if before >= self.frames {
                return;
            }
            let last = self.frames.min(before.saturating_add(self.chunk_frames));
            let chunk = self.check(before, last);
            self.found.lock().unpoison().push((number, chunk));
            let checked = u64::from(last - before);
            progress(self.done.fetch_add(checked, Ordering::Relaxed) + checked);
        }
    }

    /// Checks the frames behind `before` up to `last`.
    fn check(&self, before: u32, last: u32) -> Result<Chunk> {
        let frames = match FrameNo::new(before.saturating_add(1)) {
            Some(first) if before > 0 => FrameReader::starting_at(self.log, self.header, first)?,
            _ => FrameReader::behind(self.log, self.header, before, self.checksum),
        };
        let mut frames = frames.up_to(last);
        let mut chunk = Chunk::default();
        while let Some(frame) = frames.next_frame()? {
            let (number, commit_size) = (frame.number.get(), frame.commit_size);
            let commit = frame.is_commit().then_some(Commit {
                frame: number,
                page_count: commit_size,
                checksum: frame.checksum,
            });
            match (frame.fault, &chunk.fault) {
                (None, None) => {
                    chunk.pages.push(frame.page);
                    chunk.commits.extend(commit);
                }
                (fault, _) => {
                    if let (Some(fault), None) = (fault, chunk.fault) {
                        chunk.fault = Some((number, fault));
                    }
                    chunk
                        .behind
                        .add(fault, frame.salts, &self.header, commit.is_some());
                }
            }
        }
        if frames.next_number() <= last && chunk.fault.is_none() {
            // The log was cut since its length was read.
            chunk.fault = Some((frames.next_number(), FrameFault::Short));
        }
        Ok(chunk)
    }
}

/// What was found in one chunk.
#[derive(Default)]
struct Chunk {
    /// The pages of the frames before the first fault of the chunk.
    pages: Vec<u32>,
    /// The commits among them.
    commits: Vec<Commit>,
    fault: Option<(u32, FrameFault)>,
    /// The frames from the first fault on.
    behind: Leftovers,
}

impl Leftovers {
    fn add(&mut self, fault: Option<FrameFault>, salts: Salts, log: &LogHeader, commits: bool) {
        self.frames += 1;
        if fault.is_none() {
            self.sound_frames += 1;
            self.lost_commits += u64::from(commits);
        } else if salts != log.salts {
            self.add_generation(salts, log.salts.restarts_since(salts), 1);
        }
    }

    fn add_generation(&mut self, salts: Salts, restarts: Option<u32>, frames: u64) {
        let mut known = self.generations.iter_mut();
        if let Some(known) = known.find(|known| known.salts == salts) {
            known.frames += frames;
        } else if self.generations.len() < MAX_GENERATIONS {
            self.generations.push(Leftover {
                salts,
                restarts,
                frames,
            });
        }
    }

    fn merge(&mut self, other: Leftovers) {
        self.frames += other.frames;
        self.sound_frames += other.sound_frames;
        self.lost_commits += other.lost_commits;
        for generation in other.generations {
            let Leftover {
                salts,
                restarts,
                frames,
            } = generation;
            self.add_generation(salts, restarts, frames);
        }
    }
}

/// The chunks up to some point, in the order of the log.
struct Merged {
    /// The pages of all sound frames, uncommitted ones included.
    check: LogCheck,
}

impl Merged {
    fn new(header: LogHeader, checksum: Checksum) -> Self {
        let scan = LogScan {
            header,
            pages: Vec::new(),
            page_count: 0,
            checksum,
            uncommitted: 0,
        };
        Merged {
            check: LogCheck {
                scan,
                commits: Vec::new(),
                fault: None,
                leftovers: Leftovers::default(),
            },
        }
    }

    fn add(&mut self, mut chunk: Chunk) {
        let check = &mut self.check;
        if check.fault.is_none() {
            check.scan.pages.append(&mut chunk.pages);
            check.commits.append(&mut chunk.commits);
            check.fault = chunk.fault;
        } else {
            // Sound by themselves, and behind a fault.
            chunk.behind.frames += chunk.pages.len() as u64;
            chunk.behind.sound_frames += chunk.pages.len() as u64;
            chunk.behind.lost_commits += chunk.commits.len() as u64;
        }
        check.leftovers.merge(chunk.behind);
    }

    fn finish(self, trailing: usize) -> LogCheck {
        let mut check = self.check;
        check.leftovers.trailing_bytes = trailing;
        let sound = check.scan.pages.len();
        let last = check.commits.last();
        let committed = last.map_or(0, |commit| commit.frame as usize);
        if let Some(last) = last {
            check.scan.page_count = last.page_count;
            check.scan.checksum = last.checksum;
        }
        check.scan.pages.truncate(committed);
        check.scan.uncommitted = u32::try_from(sound - committed).unwrap_or(u32::MAX);
        if check.fault.is_none() && trailing > 0 {
            let frame = u32::try_from(sound).unwrap_or(u32::MAX).saturating_add(1);
            check.fault = Some((frame, FrameFault::Short));
        }
        check
    }
}

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::format::scan;
    use crate::inspect::Transactions;
    use crate::inspect::sample_log::SampleLog;
    use crate::storage::MemoryFile;
    use proptest::prelude::*;

    /// In chunks of two frames, so that a small log has many.
    fn check(bytes: &[u8]) -> Option<LogCheck> {
        let log = MemoryFile::new("db-wal", bytes.to_vec());
        check_in_chunks(&log, 2 * 536, |_, _| ()).unwrap()
    }

    /// Compares the check with the scan of a recovery and with the transactions.
    fn agrees(bytes: &[u8]) -> Option<LogCheck> {
        let log = MemoryFile::new("db-wal", bytes.to_vec());
        let (scanned, checked) = (
            scan(&log).ok().flatten(),
            check_in_chunks(&log, 1072, |_, _| ()).ok().flatten(),
        );
        let transactions = Transactions::of(&log).ok().flatten();
        let (Some(scanned), Some(checked), Some(mut transactions)) =
            (&scanned, &checked, transactions)
        else {
            assert!(scanned.is_none() && checked.is_none());
            return None;
        };
        let of = |scan: &LogScan| {
            (
                scan.header,
                scan.pages.clone(),
                scan.page_count,
                scan.checksum,
                scan.uncommitted,
            )
        };
        assert_eq!(of(&checked.scan), of(scanned));
        let each: Vec<_> = transactions.by_ref().map(Result::unwrap).collect();
        let commits: Vec<u32> = each.iter().map(|of| of.last.get()).collect();
        assert_eq!(
            checked
                .commits
                .iter()
                .map(|of| of.frame)
                .collect::<Vec<_>>(),
            commits
        );
        let pages: Vec<u32> = each.iter().flat_map(|of| of.pages.clone()).collect();
        assert_eq!(pages, scanned.pages);
        let end = transactions.end().unwrap();
        assert_eq!(end.uncommitted, scanned.uncommitted);
        assert_eq!(checked.fault, end.fault.map(|fault| (end.frame, fault)));
        Some(checked.clone())
    }

    #[test]
    fn fault_is_named_with_its_frame() {
        let log = SampleLog::new(1)
            .commit(&[1, 2, 3])
            .commit(&[2])
            .commit(&[4, 5]);
        let faults = [
            (None, None),
            (Some((3, 0, 0xff)), Some(FrameFault::Checksum)),
            (Some((4, 8, 1)), Some(FrameFault::Salts)),
            (Some((4, 16, 1)), Some(FrameFault::Checksum)),
            (Some((5, 100, 1)), Some(FrameFault::Checksum)),
        ];
        for (change, expected) in faults {
            let mut bytes = log.bytes();
            if let Some((frame, at, change)) = change {
                bytes[SampleLog::offset(frame) + at] ^= change;
            }
            let fault = agrees(&bytes).unwrap().fault;
            assert_eq!(fault, expected.map(|fault| (change.unwrap().0, fault)));
        }
        let mut no_page = log.bytes();
        no_page[SampleLog::offset(2)..][..4].fill(0);
        assert_eq!(
            check(&no_page).unwrap().fault,
            Some((2, FrameFault::PageZero))
        );
        let mut cut = log.bytes();
        cut.truncate(SampleLog::offset(6) + 9);
        let cut = agrees(&cut).unwrap();
        assert_eq!(
            (cut.fault, cut.scan.max_frame()),
            (Some((6, FrameFault::Short)), 4)
        );
        assert_eq!((cut.scan.uncommitted, cut.leftovers.trailing_bytes), (1, 9));
    }

    #[test]
    fn commits_behind_a_fault_are_lost_and_older_frames_are_not() {
        let log = SampleLog::new(1)
            .commit(&[1, 2, 3])
            .commit(&[2])
            .commit(&[4, 5]);
        let mut damaged = log.bytes();
        damaged[SampleLog::offset(2) + 50] ^= 1;
        let damaged = agrees(&damaged).unwrap();
        assert_eq!(damaged.scan.max_frame(), 0);
        assert!(damaged.loses_commits());
        let left = &damaged.leftovers;
        assert_eq!(
            (left.frames, left.sound_frames, left.lost_commits),
            (5, 4, 3)
        );
        let restarted = agrees(&log.restarted().commit(&[1, 2]).bytes()).unwrap();
        assert!(!restarted.loses_commits());
        assert_eq!(restarted.scan.max_frame(), 2);
        let left = &restarted.leftovers;
        assert_eq!((left.frames, left.sound_frames), (4, 0));
        let generations: Vec<_> = left
            .generations
            .iter()
            .map(|of| (of.restarts, of.frames))
            .collect();
        assert_eq!(generations, [(Some(1), 4)]);
    }

    #[test]
    fn log_with_bytes_changed_and_cut_is_checked_as_it_is_recovered() {
        for seed in 0..300 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut bytes = SampleLog::random(&mut rng).bytes();
            for _ in 0..rng.usize(0..3) {
                let at = rng.usize(0..bytes.len());
                bytes[at] ^= 1 << rng.u32(0..8);
            }
            if rng.bool() {
                bytes.truncate(rng.usize(0..=bytes.len()));
            }
            let _ = agrees(&bytes);
        }
    }

    #[test]
    fn spilled_frame_beyond_the_size_is_found() {
        let log = SampleLog::new(1).commit_of(&[1, 9, 2], 9).commit(&[3]);
        assert_eq!(check(&log.bytes()).unwrap().first_frame_beyond_size(), None);
        let log = log.commit_of(&[2, 8, 1], 4);
        assert_eq!(
            check(&log.bytes()).unwrap().first_frame_beyond_size(),
            Some(6)
        );
    }

    /// A log that was cut after its length was read.
    #[derive(Debug)]
    struct Cut(MemoryFile, u64);

    impl File for Cut {
        fn path(&self) -> &std::path::Path {
            self.0.path()
        }

        fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
            self.0.read_at(buffer, offset)
        }

        fn write_all_at(&self, _: &mut [std::io::IoSlice<'_>], _: u64) -> Result<()> {
            unreachable!("a check writes nothing")
        }

        fn sync(&self, _: crate::storage::FileSyncType) -> Result<()> {
            unreachable!("a check syncs nothing")
        }

        fn len(&self) -> Result<u64> {
            Ok(self.1)
        }

        fn set_len(&self, _: u64) -> Result<()> {
            unreachable!("a check cuts nothing")
        }
    }

    #[test]
    fn log_that_is_cut_while_it_is_checked_ends_there() {
        let whole = SampleLog::new(1)
            .commit(&[1, 2, 3])
            .commit(&[4, 5, 6, 7, 8]);
        let bytes = whole.bytes();
        for frames in 0..8 {
            let cut = bytes[..SampleLog::offset(frames + 1)].to_vec();
            let log = Cut(MemoryFile::new("db-wal", cut), bytes.len() as u64);
            let check = check_in_chunks(&log, 1072, |_, _| ()).unwrap().unwrap();
            assert_eq!(check.fault, Some((frames + 1, FrameFault::Short)));
            let committed = if frames < 3 { 0 } else { 3 };
            assert_eq!(
                (check.scan.max_frame(), check.scan.uncommitted),
                (committed, frames - committed)
            );
        }
    }

    #[test]
    fn progress_reaches_the_whole_log() {
        let log = SampleLog::new(1).commit(&[1, 2, 3, 4, 5, 6, 7]);
        let file = MemoryFile::new("db-wal", log.bytes());
        let most = Mutex::new(0);
        check_in_chunks(&file, 1072, |done, total| {
            assert!(done <= total);
            let mut most = most.lock().unwrap();
            *most = done.max(*most);
        })
        .unwrap();
        assert_eq!(*most.lock().unwrap(), 7 * 536);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_bytes_are_checked_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..4000),
            has_header: bool,
        ) {
            let mut bytes = bytes;
            if has_header {
                let mut log = SampleLog::new(1).bytes();
                log.extend(bytes);
                bytes = log;
            }
            let _ = agrees(&bytes);
        }
    }
}
