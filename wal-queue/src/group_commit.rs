//! One sync of the log for the commits of many connections; off by default.
//!
//! # Protocol
//! At `synchronous=FULL` SQLite syncs the log within its commit, with `WRITE` held and before it
//! publishes the commit (`walFrames`). Here that sync is *postponed*: SQLite publishes the
//! commit, releases `WRITE`, and calls `SQLITE_FCNTL_COMMIT_PHASETWO`, whose result is that of
//! `COMMIT` (`pager_end_transaction`). There the commit waits until the log is synced as far as
//! its last frame, by the rules and with the peers of [`wal_core::protocol::wait_until_synced`].
//!
//! A sync is postponed if it can only be that of a commit that comes there:
//! - this connection holds `WRITE`, and not `CKPT`: a checkpoint syncs the log before it moves
//!   frames of it;
//! - the last frame that was written ends a commit, and was written since the last sync;
//! - no log header was written since the last sync: frames of a new generation must not reach
//!   the disk behind the old header;
//! - the transaction writes one database ([`crate::open_files`]);
//! - it is no full sync of macOS (`PRAGMA fullfsync`), for which that of a peer does not serve.
//!
//! In the exclusive locking mode SQLite acquires neither lock through the VFS, so each sync is made
//! at once.
//!
//! A commit is acknowledged in the second phase only. Until `COMMIT` returns the connection holds
//! its read lock, so no peer restarts the log in between. If the log has been restarted anyway,
//! because the process has lost its locks, its frames are in the database file: both are synced,
//! the database file first.
//!
//! A checkpointer at `synchronous=OFF` moves frames to the database file and syncs neither file.
//! Later SQLite restarts the log, since all of it is moved. So the database file is synced before
//! the header of a new generation is written.
//!
//! # Failures
//! A sync that fails is recorded in the side file for its generation. Each commit that waits for
//! it fails with `SQLITE_IOERR_FSYNC`, and its outcome is unknown: it is published, and a power
//! failure may undo it. A later commit of the generation fails in its first phase, before it is
//! published. A checkpoint ends that: once all frames are in the database file, the next writer
//! restarts the log.
//!
//! # Crash
//! A process that dies between the two phases leaves a commit that was not acknowledged, that
//! all peers see, and that the next sync of the log covers. A leader that dies is replaced.

use std::ffi::c_int;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use wal_core::index::IndexHeader;
use wal_core::protocol::{GroupMember, record_failed_sync, wait_until_synced};
use wal_core::sync::AtomicU32;
use wal_core::types::Salts;
use wal_core::wait::SyncedLog;

use crate::base_file::BaseFile;
use crate::ffi;
use crate::main_file::MainFile;
use crate::open_files;
use crate::queue::Queue;

/// The length of a frame's header.
const FRAME_HEADER_LEN: usize = 24;
/// The kind of a sync, in its flags.
const SYNC_KIND: c_int = 0xf;
/// How often the header is loaded again that a peer publishes while a failure is recorded.
const LOADS: u32 = 100;

/// What of the log of one connection is not synced.
#[derive(Default)]
pub(crate) struct Group {
    /// The log, while it is open with group commit.
    log: Option<BaseFile>,
    has_checkpoint: bool,
    written: Written,
    postponed: Option<Postponed>,
}

/// What was written to the log since its last sync, and since the connection began to write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Written {
    #[default]
    Nothing,
    /// A log header, and frames or none.
    Header,
    /// Frames of which the last one ends no commit.
    Frames,
    /// Frames up to the end of a commit, in the generation of these salts.
    Commit(Salts),
}

/// A sync that was postponed.
#[derive(Clone, Copy, Debug)]
struct Postponed {
    flags: c_int,
    salts: Salts,
    /// The header that the commit has published, once it has.
    published: Option<IndexHeader>,
}

impl Group {
    /// The connection has acquired `WRITE`.
    pub(crate) fn begin(&mut self) {
        self.end();
        self.postponed = None;
    }

    /// The connection has acquired or released `CKPT`.
    pub(crate) fn set_checkpoint(&mut self, has_checkpoint: bool) {
        self.has_checkpoint = has_checkpoint;
    }

    /// `bytes` are written to the log at `offset`.
    fn write(&mut self, bytes: &[u8], offset: i64) {
        if offset == 0 {
            self.written = Written::Header;
        }
        if self.written == Written::Header {
            return;
        }
        // SQLite writes the header of a frame, and its page, by a call each.
        let Ok(header) = <&[u8; FRAME_HEADER_LEN]>::try_from(bytes) else {
            return;
        };
        let [_, _, _, _, a, b, c, d, salts @ ..] = *header;
        self.written = match (u32::from_be_bytes([a, b, c, d]), salts.first_chunk()) {
            (1.., Some(salts)) => Written::Commit(Salts(*salts)),
            _ => Written::Frames,
        };
    }

    /// The salts of the commit that a sync makes durable; `None` if it is another sync.
    fn commit(&self) -> Option<Salts> {
        match self.written {
            Written::Commit(salts) if !self.has_checkpoint => Some(salts),
            _ => None,
        }
    }

    /// Postpones the sync of the commit.
    fn postpone(&mut self, flags: c_int, salts: Salts) {
        self.written = Written::Nothing;
        self.postponed = Some(Postponed {
            flags,
            salts,
            published: None,
        });
    }

    /// True if a commit waits for its sync, so the header that it publishes is needed.
    pub(crate) fn wants_header(&self) -> bool {
        self.postponed.is_some()
    }

    /// The connection releases `WRITE` next. `header` is what is published, and `is_new`
    /// is true if this connection has published it.
    pub(crate) fn publish(&mut self, header: Option<IndexHeader>, is_new: bool) {
        self.end();
        match &mut self.postponed {
            // A commit that was rolled back needs no sync.
            postponed if !is_new => *postponed = None,
            Some(postponed) => {
                postponed.published = header.filter(|header| header.salts() == postponed.salts);
            }
            None => {}
        }
    }

    /// The transaction ends. A header that was not synced stays so.
    fn end(&mut self) {
        if self.written != Written::Header {
            self.written = Written::Nothing;
        }
    }
}

impl MainFile {
    /// SQLite has opened the log of this connection.
    pub(crate) fn set_log(&self, log: Option<BaseFile>) {
        self.state().group = Group {
            log,
            ..Group::default()
        };
    }

    /// SQLite writes `bytes` to the log next, unless the result is an error.
    pub(crate) fn write_log(&self, bytes: &[u8], offset: i64) -> c_int {
        self.state().group.write(bytes, offset);
        match offset {
            // The header of a new generation, behind which the frames of the old one are lost.
            0 => self.base().sync(ffi::SYNC_NORMAL),
            _ => ffi::OK,
        }
    }

    /// `xSync` of the log.
    pub(crate) fn sync_log(&self, log: BaseFile, flags: c_int) -> c_int {
        let mut state = self.state();
        let queue = state.queue.clone();
        let wait_state = queue.as_ref().and_then(|queue| queue.wait_state());
        if let Some(wait_state) = wait_state
            && state.has_write
            && let Some(salts) = state.group.commit()
        {
            if wait_state.synced().has_failed(salts) {
                return ffi::IOERR_FSYNC;
            }
            if flags & SYNC_KIND == ffi::SYNC_NORMAL && self.writes_one_database() {
                state.group.postpone(flags, salts);
                return ffi::OK;
            }
        }
        drop(state);
        let member = Member {
            main: self,
            queue,
            log,
            flags,
        };
        match member.sync_log() {
            Ok(()) => {
                self.state().group.written = Written::Nothing;
                ffi::OK
            }
            Err(code) => code,
        }
    }

    fn writes_one_database(&self) -> bool {
        open_files::is_only_file_written(self.owner()) && !open_files::has_super_journal()
    }

    /// `SQLITE_FCNTL_COMMIT_PHASETWO`: SQLite has committed, and returns the result to the
    /// application.
    pub(crate) fn commit_phase_two(&self) -> c_int {
        let mut state = self.state();
        let Some(postponed) = state.group.postponed.take() else {
            return ffi::OK;
        };
        let queue = state.queue.clone();
        let Some(log) = state.group.log else {
            return ffi::IOERR_FSYNC;
        };
        drop(state);
        let member = Member {
            main: self,
            queue,
            log,
            flags: postponed.flags,
        };
        let synced = match (member.synced(), &postponed.published) {
            (Some(synced), Some(commit)) => wait_until_synced(&member, synced, commit),
            // Without a side file, or without the number of the commit's last frame, no sync of a
            // peer serves.
            _ => member.sync_alone(postponed.salts),
        };
        match synced {
            Ok(()) => ffi::OK,
            Err(_) => ffi::IOERR_FSYNC,
        }
    }
}

/// A connection whose commit waits for a sync.
struct Member<'m> {
    main: &'m MainFile,
    queue: Option<Arc<Queue>>,
    log: BaseFile,
    flags: c_int,
}

impl Member<'_> {
    fn synced(&self) -> Option<&SyncedLog> {
        Some(self.queue.as_ref()?.wait_state()?.synced())
    }

    /// Syncs all that a commit in the generation of `salts` may need.
    fn sync_alone(&self, salts: Salts) -> Result<(), c_int> {
        // A sync may succeed although an earlier one has lost frames of this commit. It is checked
        // again, since a peer may have met such a failure since then.
        self.check_no_sync_failed(salts)?;
        self.sync_database()?;
        self.sync_log()?;
        self.check_no_sync_failed(salts)
    }

    fn check_no_sync_failed(&self, salts: Salts) -> Result<(), c_int> {
        match self.synced() {
            Some(synced) if synced.has_failed(salts) => Err(ffi::IOERR_FSYNC),
            _ => Ok(()),
        }
    }

    /// The published header, which a peer may be storing.
    fn published_soon(&self) -> Option<IndexHeader> {
        let mut loads = 0..LOADS;
        loads.find_map(|_| {
            let header = self.published();
            if header.is_none() {
                thread::yield_now();
            }
            header
        })
    }
}

impl GroupMember for Member<'_> {
    /// A result code of SQLite.
    type Error = c_int;

    fn published(&self) -> Option<IndexHeader> {
        self.main.state().header()
    }

    fn sync_log(&self) -> Result<(), c_int> {
        let code = self.log.sync(self.flags);
        if code == ffi::OK {
            return Ok(());
        }
        if let Some(synced) = self.synced() {
            record_failed_sync(synced, self.published_soon().as_ref());
        }
        Err(code)
    }

    fn sync_database(&self) -> Result<(), c_int> {
        match self.main.base().sync(self.flags) {
            ffi::OK => Ok(()),
            code => Err(code),
        }
    }

    fn failed_elsewhere(&self) -> c_int {
        ffi::IOERR_FSYNC
    }

    fn sleep(&self, word: &AtomicU32, seen: u32, deadline: Instant) {
        if let Some(queue) = &self.queue {
            queue.sleep(word, seen, deadline);
        }
    }

    fn wake(&self, word: &AtomicU32) {
        if let Some(queue) = &self.queue {
            queue.wake(word);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALTS: Salts = Salts(*b"generatn");

    /// The header of a frame; `pages` is 0 unless it ends a commit.
    fn frame(pages: u32) -> [u8; FRAME_HEADER_LEN] {
        let mut header = [0; FRAME_HEADER_LEN];
        header[4..8].copy_from_slice(&pages.to_be_bytes());
        header[8..16].copy_from_slice(&SALTS.0);
        header
    }

    fn writing() -> Group {
        let mut group = Group::default();
        group.begin();
        group
    }

    #[test]
    fn only_the_sync_behind_a_commit_frame_is_postponed() {
        let mut group = writing();
        assert_eq!(group.commit(), None, "nothing was written");
        group.write(&frame(0), 4152);
        group.write(&[1; 4096], 4176);
        assert_eq!(group.commit(), None, "a frame of a spill");
        group.write(&frame(7), 8272);
        group.write(&[1; 4096], 8296);
        assert_eq!(group.commit(), Some(SALTS));
        group.postpone(ffi::SYNC_NORMAL, SALTS);
        assert_eq!(group.commit(), None, "it was postponed");
    }

    #[test]
    fn sync_behind_a_log_header_is_not_postponed() {
        let mut group = writing();
        group.write(&[1; 32], 0);
        group.write(&frame(7), 32);
        assert_eq!(group.commit(), None);
        // Where the header is not synced by itself, it stays so after the transaction.
        group.publish(None, true);
        group.begin();
        group.write(&frame(7), 4152);
        assert_eq!(group.commit(), None);
        group.written = Written::Nothing;
        group.write(&frame(7), 4152);
        assert_eq!(group.commit(), Some(SALTS));
    }

    #[test]
    fn sync_of_a_checkpoint_is_not_postponed() {
        let mut group = writing();
        group.write(&frame(7), 4152);
        group.set_checkpoint(true);
        assert_eq!(group.commit(), None);
        group.set_checkpoint(false);
        // A commit without a sync leaves nothing that a later sync is taken for.
        group.publish(None, true);
        assert_eq!(group.commit(), None);
    }

    #[test]
    fn commit_rolled_back_after_its_sync_waits_for_none() {
        let mut group = writing();
        group.write(&frame(7), 4152);
        group.postpone(ffi::SYNC_NORMAL, SALTS);
        group.publish(None, false);
        assert!(group.postponed.is_none());
    }
}
