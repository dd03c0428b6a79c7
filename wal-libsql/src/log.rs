//! The log of one connection: what the engine asks for, in the words of the
//! protocol.
//!
//! The engine's pager has one transaction at a time: none, a read transaction,
//! or a write transaction made of that, which becomes a read transaction again.

use std::cell::Cell;
use std::ffi::c_int;
use std::path::Path;
use std::sync::Arc;

use libsql_ffi as ffi;
use wal_core::format::frame_offset;
use wal_core::protocol::{
    BusyHandler, CheckpointMode, CheckpointOptions, CheckpointReport, FramesMark, ReadTx, Snapshot,
    Synchronous, Wal, WriteTx,
};
use wal_core::storage::{File, OpenMode, OsFile};
use wal_core::{Error, FrameNo, Lock, PageNo, Result, WalCoordination};

use crate::busy;
use crate::engine_file::EngineFile;
use crate::queue::LogWriter;

/// What the methods of the interface need of a log, on whichever backend.
pub(crate) trait Log {
    fn begin_read(&mut self) -> Result<bool>;
    fn end_read(&mut self);
    fn begin_write(&mut self) -> Result<()>;
    fn end_write(&mut self);
    fn find_frame(&self, page: u32) -> Result<u32>;
    fn read_frame(&self, frame: u32, buffer: &mut [u8]) -> Result<()>;
    fn read_raw_frame(&mut self, frame: u32, buffer: &mut [u8]) -> Result<bool>;
    fn page_count(&self) -> u32;
    fn frame_count(&mut self) -> Result<u32>;
    fn undo(&mut self) -> Result<Vec<u32>>;
    fn savepoint(&self) -> [u32; 4];
    fn roll_back_to(&mut self, words: [u32; 4]) -> Result<()>;
    fn write(&mut self, pages: &[(PageNo, &[u8])]) -> Result<()>;
    fn commit(&mut self, pages: &[(PageNo, &[u8])], page_count: u32) -> Result<u32>;
    fn checkpoint(&mut self, request: Checkpoint) -> Result<CheckpointReport>;
    fn checkpointed(&mut self) -> Result<CheckpointReport>;
    fn last_commit(&mut self) -> u32;
    fn set_limit(&mut self, limit: Option<u64>);
    fn set_sync_flags(&mut self, flags: c_int);
    fn page_len(&self) -> usize;
    fn exclusive(&mut self, change: Exclusive) -> bool;
    fn is_on_heap(&self) -> bool;
    fn can_heal(&self) -> bool;
    fn settings(&self) -> Settings;
    fn succeed(&mut self, predecessor: &mut dyn Log) -> Result<()>;
    fn close(&mut self, clean_up: bool) -> Result<()>;
}

/// What a connection has told its log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    limit: Option<u64>,
    exclusive: bool,
}

/// What is asked about `locking_mode=EXCLUSIVE`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exclusive {
    Leave,
    Enter,
    MayEnter,
}

/// A checkpoint that is asked for.
pub(crate) struct Checkpoint {
    pub(crate) mode: CheckpointMode,
    /// Whether to try again what is busy; `None` is to fail.
    pub(crate) again: Option<Box<dyn Fn() -> bool + Send + Sync>>,
}

enum Tx<C: WalCoordination> {
    None,
    Read(ReadTx<C>),
    Write(Box<WriteTx<C>>),
}

/// A log on the backend `C`.
pub(crate) struct BackendLog<C: WalCoordination> {
    // Dropped in this order: the transaction, its queue slot, its locks, then the file.
    tx: Tx<C>,
    writer: Arc<LogWriter<C>>,
    wal: Arc<Wal<C>>,
    file: Arc<EngineFile>,
    /// The state that the engine's cache is of.
    seen: Option<Snapshot>,
    /// The frames in the log at the last commit that was not asked for yet.
    committed: u32,
    exclusive: bool,
    on_heap: bool,
    /// The transaction has read no page but page 1.
    untouched: Cell<bool>,
}

impl<C: WalCoordination> BackendLog<C> {
    pub(crate) fn new(wal: Arc<Wal<C>>, file: Arc<EngineFile>, on_heap: bool) -> Self {
        BackendLog {
            tx: Tx::None,
            writer: Arc::new(LogWriter::new()),
            wal,
            file,
            seen: None,
            committed: 0,
            exclusive: false,
            on_heap,
            untouched: Cell::new(false),
        }
    }

    fn snapshot(&self) -> Option<&Snapshot> {
        match &self.tx {
            Tx::None => None,
            Tx::Read(read) => Some(read.snapshot()),
            Tx::Write(write) => Some(write.snapshot()),
        }
    }

    fn reading(&self) -> Result<&ReadTx<C>> {
        match &self.tx {
            Tx::None => Err(out_of_turn(self.wal.path())),
            Tx::Read(read) => Ok(read),
            Tx::Write(write) => Ok(write.as_read()),
        }
    }

    fn writing(&mut self) -> Result<&mut WriteTx<C>> {
        match &mut self.tx {
            Tx::Write(write) => Ok(write),
            _ => Err(out_of_turn(self.wal.path())),
        }
    }

    /// Cuts the file of the log behind its first `frames`. The connection owns the
    /// database, and is between two transactions.
    fn cut_log(&self, frames: u32) -> Result<()> {
        let page_size = self.wal.config().page_size;
        let end = self.frame_no(frames.saturating_add(1))?;
        let end = frame_offset(end, page_size);
        let place = self.file.held_path()?.beside("-wal");
        let log = OsFile::open_at(place, OpenMode::Existing)?;
        match log.len()? > end {
            true => log.set_len(end),
            false => Ok(()),
        }
    }

    fn frame_no(&self, frame: u32) -> Result<FrameNo> {
        FrameNo::new(frame).ok_or_else(|| out_of_turn(self.wal.path()))
    }
}

/// The pager never asks for that.
fn out_of_turn(path: &Path) -> Error {
    Error::Refused {
        path: path.to_owned(),
        operation: "a call of the pager",
        reason: "it belongs to a transaction or a frame that is not there".to_owned(),
    }
}

impl<C: WalCoordination> Log for BackendLog<C> {
    /// True if the state is another than that of the last transaction, so
    /// that the engine's cache is of no use.
    fn begin_read(&mut self) -> Result<bool> {
        self.end_read();
        self.writer.begin_read();
        self.untouched.set(true);
        let read = self.wal.begin_read()?;
        let seen = self.seen.replace(*read.snapshot());
        let same = seen.is_some_and(|seen| seen.is_same_state(read.snapshot()));
        self.tx = Tx::Read(read);
        Ok(!same)
    }

    fn end_read(&mut self) {
        self.end_write();
        if let Some(&snapshot) = self.snapshot() {
            self.seen = Some(snapshot);
        }
        self.tx = Tx::None;
    }

    fn begin_write(&mut self) -> Result<()> {
        let untouched = self.untouched.take();
        match std::mem::replace(&mut self.tx, Tx::None) {
            Tx::Read(read) => match self.writer.upgrade(&self.wal, read, untouched) {
                Ok(write) => self.tx = Tx::Write(Box::new(write)),
                Err(refused) => {
                    self.tx = Tx::Read(refused.read);
                    return Err(refused.error);
                }
            },
            Tx::Write(write) => self.tx = Tx::Write(write),
            Tx::None => return Err(out_of_turn(self.wal.path())),
        }
        Ok(())
    }

    fn end_write(&mut self) {
        self.tx = match std::mem::replace(&mut self.tx, Tx::None) {
            // Without it, the next read transaction says what is wrong.
            Tx::Write(write) => write.into_read().map_or(Tx::None, Tx::Read),
            other => other,
        };
    }

    /// 0 for a page that is in the database file.
    fn find_frame(&self, page: u32) -> Result<u32> {
        let page = PageNo::new(page)?;
        if page != PageNo::ONE {
            self.untouched.set(false);
        }
        let found = match &self.tx {
            Tx::Write(write) => write.find_frame(page)?,
            _ => self.reading()?.find_frame(page)?,
        };
        Ok(found.map_or(0, FrameNo::get))
    }

    fn read_frame(&self, frame: u32, buffer: &mut [u8]) -> Result<()> {
        let frame = self.frame_no(frame)?;
        match &self.tx {
            Tx::Write(write) => write.read_frame(frame, buffer),
            _ => self.reading()?.read_frame(frame, buffer),
        }
    }

    /// False if there is no such frame.
    fn read_raw_frame(&mut self, frame: u32, buffer: &mut [u8]) -> Result<bool> {
        if frame == 0 {
            return Ok(false);
        }
        let is_there = |snapshot: &Snapshot| (1..=snapshot.max_frame()).contains(&frame);
        let number = self.frame_no(frame)?;
        match &self.tx {
            Tx::Write(write) => {
                let found = (1..=write.frame_count()).contains(&frame);
                if found {
                    write.read_raw_frame(number, buffer)?;
                }
                return Ok(found);
            }
            Tx::Read(read) if !read.snapshot().bypasses_log() => {
                let found = is_there(read.snapshot());
                if found {
                    read.read_raw_frame(number, buffer)?;
                }
                return Ok(found);
            }
            Tx::Read(_) | Tx::None => {}
        }
        // Who has no transaction, or one that bypasses the log, does not keep it.
        let keeps = self.wal.tail()?;
        let kept = keeps.state().snapshot();
        let same = |own: &Snapshot| own.salts() == kept.salts() && is_there(own);
        let found = is_there(kept) && self.snapshot().is_none_or(same);
        if found {
            keeps.state().read_raw_frame(number, buffer)?;
        }
        Ok(found)
    }

    fn page_count(&self) -> u32 {
        self.snapshot().map_or(0, Snapshot::page_count)
    }

    /// With those that are not committed, if they are this connection's.
    fn frame_count(&mut self) -> Result<u32> {
        match &self.tx {
            Tx::None => Ok(self.wal.begin_read()?.snapshot().max_frame()),
            Tx::Read(read) => Ok(read.snapshot().max_frame()),
            Tx::Write(write) => Ok(write.frame_count()),
        }
    }

    /// Takes back what the transaction has written, and tells the pages.
    fn undo(&mut self) -> Result<Vec<u32>> {
        let Tx::Write(write) = &mut self.tx else {
            return Ok(Vec::new());
        };
        Ok(write.undo_frames()?.into_iter().map(PageNo::get).collect())
    }

    fn savepoint(&self) -> [u32; 4] {
        match &self.tx {
            Tx::Write(write) => write.frames_mark().to_words(),
            _ => [0; 4],
        }
    }

    fn roll_back_to(&mut self, words: [u32; 4]) -> Result<()> {
        self.writing()?.cut_frames(FramesMark::from_words(words))
    }

    fn write(&mut self, pages: &[(PageNo, &[u8])]) -> Result<()> {
        self.writing()?.append_frames_vectored(pages)
    }

    /// How many frames were added to the log.
    fn commit(&mut self, pages: &[(PageNo, &[u8])], page_count: u32) -> Result<u32> {
        let write = self.writing()?;
        let before = *write.snapshot();
        let max_frame = write.commit_frames(pages, page_count)?;
        let began_anew = write.snapshot().salts() != before.salts();
        self.committed = max_frame;
        Ok(match began_anew {
            true => max_frame,
            false => max_frame.saturating_sub(before.max_frame()),
        })
    }

    fn checkpoint(&mut self, request: Checkpoint) -> Result<CheckpointReport> {
        // The engine checkpoints after commits, and has no use for names.
        let options = match request.mode {
            CheckpointMode::Passive => CheckpointOptions::automatic(),
            mode => CheckpointOptions::new(mode),
        };
        let Some(again) = request.again else {
            return self.wal.checkpoint_with(options.busy(BusyHandler::FAIL));
        };
        // The handler takes none but that of this call.
        busy::discard_wish();
        let (writer, wal) = (self.writer.clone(), self.wal.clone());
        let again = BusyHandler::ask(move |lock, _| {
            if lock == Lock::Write {
                writer.wish(&wal);
            }
            again()
        });
        let report = self.wal.checkpoint_with(options.busy(again));
        self.writer.leave_queue();
        report
    }

    /// How far checkpoints have come, without going on.
    fn checkpointed(&mut self) -> Result<CheckpointReport> {
        self.wal
            .checkpoint_with(CheckpointOptions::passive_up_to(0))
    }

    fn last_commit(&mut self) -> u32 {
        std::mem::take(&mut self.committed)
    }

    fn set_limit(&mut self, limit: Option<u64>) {
        self.wal.tuning().set_log_size_limit(limit);
    }

    /// `flags` are two bits for commits, two for checkpoints (`walSyncFlags`).
    fn set_sync_flags(&mut self, flags: c_int) {
        let of_checkpoints = (flags >> 2) & 3;
        self.wal
            .tuning()
            .set_synchronous(match (flags & 3, of_checkpoints) {
                (0, 0) => Synchronous::Off,
                (0, _) => Synchronous::Normal,
                _ => Synchronous::Full,
            });
        self.file.set_sync_flags(match of_checkpoints {
            0 => ffi::SQLITE_SYNC_NORMAL,
            flags => flags,
        });
    }

    fn page_len(&self) -> usize {
        self.wal.config().page_size.len()
    }

    /// Locks are taken in exclusive mode too: nobody contends for them.
    fn exclusive(&mut self, change: Exclusive) -> bool {
        let may_enter = !self.exclusive && !self.on_heap;
        match change {
            Exclusive::MayEnter => may_enter,
            Exclusive::Enter => !std::mem::replace(&mut self.exclusive, true),
            Exclusive::Leave => std::mem::replace(&mut self.exclusive, false),
        }
    }

    fn is_on_heap(&self) -> bool {
        self.on_heap
    }

    /// True between two transactions, if a failed sync keeps this attachment from
    /// writing, and a new one can: it finds in the wait state that all users
    /// share that the log has to be written again.
    fn can_heal(&self) -> bool {
        let is_between = matches!(self.tx, Tx::None);
        is_between && self.wal.is_poisoned() && self.wal.coordination().wait_state().is_some()
    }

    fn settings(&self) -> Settings {
        Settings {
            limit: self.wal.tuning().log_size_limit(),
            exclusive: self.exclusive,
        }
    }

    /// Goes on in the place of `predecessor`. An index on the heap is a new one, and so
    /// is the wait state: what was not published is cut off, lest it is recovered,
    /// and the wait state hears of the sync that has failed.
    fn succeed(&mut self, predecessor: &mut dyn Log) -> Result<()> {
        let Settings { limit, exclusive } = predecessor.settings();
        self.wal.tuning().set_log_size_limit(limit);
        self.exclusive = exclusive;
        if let Some(wait_state) = self.wal.coordination().wait_state()
            && self.on_heap
            && predecessor.can_heal()
        {
            wait_state.synced().fail_all();
            self.cut_log(predecessor.frame_count()?)?;
        }
        Ok(())
    }

    fn close(&mut self, clean_up: bool) -> Result<()> {
        self.end_read();
        self.writer.leave_queue();
        if !clean_up {
            return Ok(());
        }
        self.wal
            .tuning()
            .set_persistent_log(self.file.wants_persistent_log());
        self.wal.close()?;
        // Without EXCLUSIVE the log stays as it is, and the engine, which may want
        // to go on without it (`PRAGMA journal_mode`), must not.
        match self.on_heap || self.file.is_owned() {
            true => Ok(()),
            false => Err(Error::Locked {
                path: self.wal.path().to_owned(),
            }),
        }
    }
}
