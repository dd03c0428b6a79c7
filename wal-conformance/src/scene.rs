//! A database in a directory of its own, and the users at work on it.
//!
//! Pages are filled with their number and a version, so that a page of the
//! wrong place, a mixture of two versions, or a page of another snapshot is
//! seen by its content.
#![allow(unsafe_code)] // Users may read from mappings, as the backend promises.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::calls::Call;
use crate::director::{Director, Entry, Then, until_death};
use crate::interposed::{Interposed, InterposedStorage, Seat, SharedAttachment};
use crate::subject::Subject;
use wal_core::coordination::WalCoordination;
use wal_core::error::Result;
use wal_core::index::{IndexBlock, IndexHeader, WritableBlock};
use wal_core::protocol::{
    CheckpointMode, CheckpointReport, DatabaseKind, ReadTx, Synchronous, Wal, WalConfig, WriteTx,
};
use wal_core::storage::beside;
use wal_core::testing::index;
use wal_core::types::{PageNo, PageSize, ReadSlot};

/// How long a wait of the suite may last before something is wrong, also on a
/// machine that is busy with much else.
pub(super) const BOUND: Duration = Duration::from_secs(20);

/// A directory that goes with the scene.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("wal-conformance-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // A process of the same number may have been killed.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).expect("a directory for the scene");
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A user's read transaction.
pub(super) type Reading<B> = ReadTx<Interposed<<B as Subject>::Coordination>>;
/// A user's write transaction.
pub(super) type Writing<B> = WriteTx<Interposed<<B as Subject>::Coordination>>;

/// A database, and what its users do.
pub(super) struct Scene<B: Subject> {
    // Before the directory, so that files are closed before they are removed.
    attachments: RefCell<Vec<Arc<SharedAttachment<B::Coordination>>>>,
    director: RefCell<Arc<Director>>,
    page_size: PageSize,
    path: PathBuf,
    _directory: Directory,
}

impl<B: Subject> Scene<B> {
    /// A database of `pages` pages of 512 bytes, all of version 0.
    pub(super) fn new(pages: u32) -> Self {
        let content: Vec<u8> = (1..=pages).flat_map(|page| content(page, 0)).collect();
        Self::from_files(&content, None)
    }

    /// A database and its log as a crash may have left them.
    pub(super) fn from_files(database: &[u8], log: Option<&[u8]>) -> Self {
        let scene = Self::empty(PageSize::MIN);
        fs::write(&scene.path, database).expect("the database is written");
        if let Some(log) = log {
            fs::write(scene.log_path(), log).expect("the log is written");
        }
        scene
    }

    /// A database without a page.
    pub(super) fn empty(page_size: PageSize) -> Self {
        let directory = Directory::new();
        let path = directory.0.join("database");
        fs::write(&path, []).expect("the database is made");
        Scene {
            attachments: RefCell::default(),
            director: RefCell::default(),
            page_size,
            path,
            _directory: directory,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn log_path(&self) -> PathBuf {
        beside(&self.path, "-wal")
    }

    /// What the database file and the log hold now.
    pub(super) fn files(&self) -> (Vec<u8>, Vec<u8>) {
        let read = |path: &Path| fs::read(path).expect("a file of the scene");
        (read(&self.path), read(&self.log_path()))
    }

    pub(super) fn director(&self) -> Arc<Director> {
        self.director.borrow().clone()
    }

    /// A new user at [`Synchronous::Normal`].
    pub(super) fn user(&self) -> User<B> {
        self.user_at(Synchronous::Normal)
    }

    pub(super) fn user_at(&self, synchronous: Synchronous) -> User<B> {
        self.user_with(|config| config.synchronous = synchronous)
    }

    /// A new user with the configuration that `change` makes of the usual one.
    pub(super) fn user_with(&self, change: impl FnOnce(&mut WalConfig)) -> User<B> {
        self.seat(change, false)
    }

    /// A user that restarts the log as stock SQLite does: without the
    /// Checkpoint lock.
    pub(super) fn user_like_stock(&self) -> User<B> {
        self.seat(|_| {}, true)
    }

    /// Two users.
    pub(super) fn two(&self) -> (User<B>, User<B>) {
        (self.user(), self.user())
    }

    fn attachment(&self) -> Arc<SharedAttachment<B::Coordination>> {
        let mut attachments = self.attachments.borrow_mut();
        match attachments.first() {
            Some(first) if !B::MANY_ATTACHMENTS => first.clone(),
            _ => {
                let attachment = B::attach(&self.path).expect("the database is attached");
                let shared = Arc::new(SharedAttachment {
                    attachment,
                    users: AtomicUsize::new(0),
                });
                attachments.push(shared.clone());
                shared
            }
        }
    }

    fn seat(&self, change: impl FnOnce(&mut WalConfig), like_stock: bool) -> User<B> {
        let mut config = WalConfig::new(DatabaseKind::RawPages, self.page_size);
        config.synchronous = Synchronous::Normal;
        change(&mut config);
        let shared = self.attachment();
        shared.users.fetch_add(1, Ordering::SeqCst);
        let director = self.director();
        let id = director.with_ledger(|ledger| ledger.enter(config.synchronous, like_stock));
        let seat = Arc::new(Seat {
            director: director.clone(),
            shared: shared.clone(),
            user: id,
            like_stock,
        });
        let storage = Box::new(InterposedStorage::new(&seat));
        let wal = match shared.attachment.mapped {
            // SAFETY: as the maker of the attachment has promised. What stands between
            // hands each call on, but for the rules that a case breaks on purpose: it
            // fails calls, and lets users die, after which their pages are not looked at.
            true => unsafe { Wal::new_mapped(Interposed(seat), storage, config) },
            false => Wal::new(Interposed(seat), storage, config),
        };
        User {
            wal,
            id,
            director,
            shared,
        }
    }

    /// Asserts that nobody holds a lock.
    pub(super) fn assert_quiet(&self) {
        let quiet = self.director().with_ledger(|ledger| ledger.is_quiet());
        assert!(quiet, "a lock was not given back");
    }
}

impl<B: Subject> Drop for Scene<B> {
    fn drop(&mut self) {
        // Descriptors of files that were not left may be kept for ever.
        for shared in self.attachments.take() {
            if shared.users.load(Ordering::SeqCst) > 0 {
                let _ = shared.attachment.coordination.detach();
            }
        }
    }
}

/// A connection to the database of a scene.
pub(super) struct User<B: Subject> {
    pub(super) wal: Arc<Wal<Interposed<B::Coordination>>>,
    pub(super) id: usize,
    director: Arc<Director>,
    shared: Arc<SharedAttachment<B::Coordination>>,
}

impl<B: Subject> Clone for User<B> {
    fn clone(&self) -> Self {
        User {
            wal: self.wal.clone(),
            id: self.id,
            director: self.director.clone(),
            shared: self.shared.clone(),
        }
    }
}

impl<B: Subject> User<B> {
    pub(super) fn read(&self) -> Reading<B> {
        self.wal.begin_read().expect("a read transaction begins")
    }

    pub(super) fn write(&self) -> Writing<B> {
        let begun = self.wal.begin_write(Duration::ZERO);
        begun.expect("a write transaction begins")
    }

    /// Commits `version` to `pages`; pages behind the end are added.
    pub(super) fn try_commit(&self, pages: &[u32], version: u32) -> Result<()> {
        let mut tx = match self.wal.coordination().0.like_stock {
            // Stock SQLite reads at a slot while it writes.
            true => {
                let begun = self.wal.begin_read()?.upgrade();
                begun.map_err(|refused| refused.error)?
            }
            false => self.wal.begin_write(Duration::ZERO)?,
        };
        fill(&mut tx, pages, version)?;
        tx.commit().map(drop)
    }

    pub(super) fn commit(&self, pages: &[u32], version: u32) {
        let committed = self.try_commit(pages, version);
        committed.expect("a transaction is committed");
    }

    pub(super) fn checkpoint(&self) -> CheckpointReport {
        let report = self.wal.checkpoint(CheckpointMode::Passive);
        report.expect("a checkpoint runs")
    }

    /// A checkpoint that must copy everything.
    pub(super) fn checkpoint_all(&self) {
        let report = self.checkpoint();
        assert!(report.is_complete(), "the checkpoint stopped: {report:?}");
    }

    /// The versions of all pages, as a new reader sees them.
    pub(super) fn versions(&self) -> Vec<u32> {
        versions::<B>(&self.read())
    }

    /// Block 0 of the index, seen past the director.
    pub(super) fn block_zero(&self) -> &IndexBlock {
        let block = self.shared.attachment.coordination.block(0);
        block
            .expect("the index is there")
            .expect("block 0 is there")
    }

    /// The same block, to be stored to.
    pub(super) fn writable_block_zero(&self) -> &WritableBlock {
        let block = self.shared.attachment.coordination.grow(0);
        block.expect("the index may be written")
    }

    /// The published header.
    pub(super) fn header(&self) -> IndexHeader {
        let header = index::header(self.block_zero());
        header.expect("both copies of the header are whole and equal")
    }

    pub(super) fn backfilled(&self) -> u32 {
        index::backfilled(self.block_zero())
    }

    pub(super) fn mark(&self, slot: ReadSlot) -> u32 {
        self.shared.attachment.coordination.mark(slot)
    }

    /// Leaves a backfilled count as a dead restart of stock SQLite may have.
    pub(super) fn leave_count(&self, frames: u32) {
        index::set_backfilled(self.writable_block_zero(), frames);
        self.director
            .with_ledger(|ledger| ledger.found_count(frames));
    }

    /// Leaves the header of an empty log, as SQLite's recovery does.
    pub(super) fn leave_empty_header(&self) {
        let header = index::store_empty_header(self.writable_block_zero());
        self.director
            .with_ledger(|ledger| ledger.found_header(header));
    }

    /// Makes the first copy of the header a half-written one.
    pub(super) fn damage_header(&self) {
        let block = self.writable_block_zero();
        let word = index::word(block, 5);
        index::store_word(block, 5, word ^ 0xffff, Ordering::SeqCst);
    }

    /// Steps in just before this user's first call that `at` accepts.
    pub(super) fn before(
        &self,
        at: impl FnMut(&Call) -> bool + Send + 'static,
        action: impl FnOnce() + Send + 'static,
    ) {
        self.then(at, move || {
            action();
            Then::GoOn
        });
    }

    /// As [`User::before`], and decides what becomes of the call.
    pub(super) fn then(
        &self,
        at: impl FnMut(&Call) -> bool + Send + 'static,
        action: impl FnOnce() -> Then + Send + 'static,
    ) {
        self.director.step_in(self.id, at, action);
    }

    /// True if the call that was waited for came; it is waited for no more.
    pub(super) fn stepped_in(&self) -> bool {
        self.director.stepped_in()
    }

    /// Asserts that the call that was waited for came.
    pub(super) fn assert_stepped_in(&self) {
        assert!(self.director.stepped_in(), "the awaited call never came");
    }

    /// What this user calls while `act` runs.
    pub(super) fn trace<T>(&self, act: impl FnOnce(&Self) -> T) -> (T, Vec<Call>) {
        self.director.take_trace();
        let result = act(self);
        let own = |entry: Entry| (entry.user == self.id).then_some(entry.call);
        let trace = self.director.take_trace().into_iter().filter_map(own);
        (result, trace.collect())
    }

    /// Runs `act`, in which this user dies just before its first call that
    /// `at` accepts; false if that call never came.
    pub(super) fn dies(
        &self,
        at: impl FnMut(&Call) -> bool + Send + 'static,
        act: impl FnOnce(&Self),
    ) -> bool {
        self.then(at, || Then::Die);
        let survived = until_death(|| act(self)).is_some();
        self.director.stepped_in();
        !survived
    }
}

/// Waits until `has_come`, which other threads bring about; panics with `what`
/// if it does not within [`BOUND`].
pub(super) fn until(what: &str, mut has_come: impl FnMut() -> bool) {
    let deadline = Instant::now() + BOUND;
    while !has_come() {
        assert!(Instant::now() < deadline, "not within {BOUND:?}: {what}");
        std::thread::yield_now();
    }
}

/// Fills `pages` with `version`; pages behind the end are added.
pub(super) fn fill<C: WalCoordination>(
    tx: &mut WriteTx<C>,
    pages: &[u32],
    version: u32,
) -> Result<()> {
    for &page in pages {
        while tx.page_count() < page {
            let added = tx.allocate()?;
            tx.page_mut(added)?
                .copy_from_slice(&content(added.get(), version));
        }
        tx.page_mut(PageNo::new(page)?)?
            .copy_from_slice(&content(page, version));
    }
    Ok(())
}

/// A page of 512 bytes: its number and its version, again and again.
pub(super) fn content(page: u32, version: u32) -> Vec<u8> {
    [page.to_le_bytes(), version.to_le_bytes()]
        .concat()
        .repeat(64)
}

/// The version of `page`, which must be whole.
pub(super) fn version<B: Subject>(tx: &Reading<B>, page: u32) -> u32 {
    let number = PageNo::new(page).expect("a page number");
    version_in(page, &tx.page(number).expect("the page is read"))
}

/// The version in `bytes`, which must be the whole of `page`.
pub(super) fn version_in(page: u32, bytes: &[u8]) -> u32 {
    let (words, _) = bytes.as_chunks::<4>();
    let found = u32::from_le_bytes(words[1]);
    assert!(
        *bytes == *content(page, found),
        "page {page} is torn or another page: {:?}",
        &bytes[..16]
    );
    found
}

/// The versions of all pages of a snapshot.
pub(super) fn versions<B: Subject>(tx: &Reading<B>) -> Vec<u32> {
    (1..=tx.page_count())
        .map(|page| version::<B>(tx, page))
        .collect()
}
