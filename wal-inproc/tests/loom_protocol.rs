//! Readers against writers, checkpoints and restarts, under the C11 memory
//! model as loom explores it: the very code of the protocol, on the locks of
//! this crate.
//!
//! Commit *n* fills both pages with *n* and makes the database *n* + 1 pages
//! long, so a snapshot that is torn, or that is of another state than its
//! header says, shows different numbers. The files are behind loom's mutexes,
//! so loom sees that reading and writing them are in each other's way.
//!
//!     RUSTFLAGS="--cfg loom" cargo test -p wal-inproc --release --test loom_protocol
#![cfg(loom)]
// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use loom::sync::Mutex;
use loom::thread;
use wal_core::protocol::{CheckpointMode, DatabaseKind, Synchronous, Wal, WalConfig};
use wal_core::storage::{File, FileSyncType, Storage};
use wal_core::{Error, PageNo, PageSize, Result};
use wal_inproc::InProcessWalCoordination;

type Handle = Arc<Wal<InProcessWalCoordination>>;

#[derive(Debug)]
struct Bytes {
    bytes: Mutex<Vec<u8>>,
    /// How much of them is synced.
    synced: Arc<Mutex<usize>>,
}

impl File for Bytes {
    fn path(&self) -> &Path {
        "loom".as_ref()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let bytes = self.bytes.lock().unwrap();
        let rest = bytes.get(offset as usize..).unwrap_or(&[]);
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write_all_at(&self, buffers: &mut [IoSlice<'_>], offset: u64) -> Result<()> {
        let mut bytes = self.bytes.lock().unwrap();
        let new: Vec<u8> = buffers.iter().flat_map(|part| part.to_vec()).collect();
        let end = offset as usize + new.len();
        let len = bytes.len().max(end);
        bytes.resize(len, 0);
        bytes[offset as usize..end].copy_from_slice(&new);
        Ok(())
    }

    /// What is written while it runs may or may not be synced, and counts as not.
    fn sync(&self, _: FileSyncType) -> Result<()> {
        let written = self.bytes.lock().unwrap().len();
        *self.synced.lock().unwrap() = written;
        Ok(())
    }

    fn len(&self) -> Result<u64> {
        Ok(self.bytes.lock().unwrap().len() as u64)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.bytes.lock().unwrap().resize(len as usize, 0);
        Ok(())
    }
}

#[derive(Debug)]
struct Files([Bytes; 2]);

impl Storage for Files {
    fn database(&self) -> &dyn File {
        &self.0[0]
    }

    fn log(&self) -> &dyn File {
        &self.0[1]
    }

    fn remove_log(&self) -> Result<()> {
        self.0[1].set_len(0)
    }
}

/// A database of two pages with commit 1 in its log.
fn database() -> Handle {
    let (wal, _) = database_at(Synchronous::Off);
    wal
}

/// The same, and how much of its log is synced.
fn database_at(synchronous: Synchronous) -> (Handle, Arc<Mutex<usize>>) {
    let files = [(); 2].map(|()| Bytes {
        bytes: Mutex::new(Vec::new()),
        synced: Arc::default(),
    });
    let synced = files[1].synced.clone();
    let mut config = WalConfig::new(DatabaseKind::RawPages, PageSize::MIN);
    config.synchronous = synchronous;
    let coordination = InProcessWalCoordination::in_memory("loom".as_ref());
    let wal = Wal::new(coordination, Box::new(Files(files)), config);
    commit(&wal, 1).unwrap();
    (wal, synced)
}

/// Commits both pages with `number`.
fn commit(wal: &Handle, number: u8) -> Result<()> {
    let mut tx = wal.begin_write(Duration::ZERO)?;
    tx.set_page_count(u32::from(number) + 1)?;
    for page in 1..=2 {
        tx.page_mut(PageNo::new(page)?)?.fill(number);
    }
    tx.commit()?;
    Ok(())
}

/// The commit that a new snapshot shows.
fn read(wal: &Handle) -> u8 {
    let read = wal.begin_read().unwrap();
    let shown = [1, 2].map(|page| read.page(PageNo::new(page).unwrap()).unwrap()[9]);
    assert_eq!(shown[0], shown[1], "a torn snapshot");
    let pages = read.page_count();
    assert_eq!(u32::from(shown[0]) + 1, pages, "another snapshot");
    shown[0]
}

/// Explores `scene` with at most `preemptions` changes of turn that no thread
/// asked for, or as many as `LOOM_MAX_PREEMPTIONS` says, if that is more.
fn explore(preemptions: usize, scene: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = model.preemption_bound.max(Some(preemptions));
    model.max_branches = 100_000;
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    model.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        scene();
    });
    println!("{} interleavings", count.load(Ordering::Relaxed));
}

/// A reader beside `other`.
fn beside_a_reader(preemptions: usize, prepare: fn(&Handle), other: fn(&Handle)) {
    explore(preemptions, move || {
        let wal = database();
        prepare(&wal);
        let reader = {
            let wal = wal.clone();
            thread::spawn(move || read(&wal))
        };
        other(&wal);
        assert!((1..=2).contains(&reader.join().unwrap()));
        assert_eq!(read(&wal), 2);
    });
}

/// A passive checkpoint, which may find readers in its way.
fn checkpoint(wal: &Handle) {
    match wal.checkpoint(CheckpointMode::Passive) {
        Ok(_) | Err(Error::Busy { .. }) => {}
        Err(e) => panic!("{e}"),
    }
}

#[test]
fn a_snapshot_is_whole_while_the_log_begins_anew() {
    // All is backfilled, so the commit begins the log anew.
    beside_a_reader(2, checkpoint, |wal| commit(wal, 2).unwrap());
}

#[test]
fn a_snapshot_is_whole_while_a_checkpoint_overtakes_it() {
    beside_a_reader(
        2,
        |_| {},
        |wal| {
            commit(wal, 2).unwrap();
            checkpoint(wal);
        },
    );
}

#[test]
fn a_snapshot_is_whole_when_the_log_begins_anew_and_is_backfilled() {
    beside_a_reader(0, checkpoint, |wal| {
        commit(wal, 2).unwrap();
        checkpoint(wal);
    });
}

#[test]
fn a_snapshot_is_whole_when_its_frames_are_backfilled_and_overwritten() {
    beside_a_reader(
        0,
        |_| {},
        |wal| {
            checkpoint(wal);
            commit(wal, 2).unwrap();
        },
    );
}

/// Page 2 is in the database file, and a checkpoint that does not see the mark of a new
/// reader moves a newer one there.
#[test]
fn a_snapshot_keeps_a_page_of_the_database_though_its_mark_is_new() {
    let set = |wal: &Handle, page: u32, number: u8, count: u32| {
        let mut tx = wal.begin_write(Duration::ZERO).unwrap();
        tx.set_page_count(count).unwrap();
        let page = tx.page_mut(PageNo::new(page).unwrap());
        page.unwrap().fill(number);
        tx.commit().unwrap();
    };
    explore(2, move || {
        let wal = database();
        checkpoint(&wal);
        set(&wal, 1, 2, 2);
        // It holds the first slot, so the reader takes the next one.
        let earlier = wal.begin_read().unwrap();
        set(&wal, 1, 3, 2);
        let reader = {
            let wal = wal.clone();
            thread::spawn(move || {
                let read = wal.begin_read().unwrap();
                let page = read.page(PageNo::new(2).unwrap()).unwrap()[9];
                assert_eq!(page, if read.page_count() == 2 { 1 } else { 4 });
            })
        };
        set(&wal, 2, 4, 3);
        drop(earlier);
        checkpoint(&wal);
        reader.join().unwrap();
    });
}

/// A tail raises its mark while a checkpoint looks at it and moves what it allows.
#[test]
fn tail_that_raises_its_mark_keeps_its_state_beside_a_checkpoint() {
    explore(2, || {
        let wal = database();
        let mut tail = wal.tail().unwrap();
        commit(&wal, 2).unwrap();
        let follower = thread::spawn(move || {
            let frames = tail.advance().unwrap().count();
            let state = tail.state();
            let shown = [1, 2].map(|page| state.page(PageNo::new(page).unwrap()).unwrap()[9]);
            assert_eq!(shown[0], shown[1], "a torn state");
            assert_eq!(u32::from(shown[0]) + 1, state.page_count(), "another state");
            // Each commit has its pages, and one more that it adds.
            assert!(frames > 0 && shown[0] >= 2);
        });
        checkpoint(&wal);
        commit(&wal, 3).unwrap();
        checkpoint(&wal);
        follower.join().unwrap();
        assert_eq!(read(&wal), 3);
    });
}

/// A checkpoint skips a page that a newer commit has in the log, though it says that the
/// older frame of the page is moved. A tail that is about to stay at the older state must
/// not go by that.
#[test]
fn tail_that_raises_its_mark_finds_pages_that_a_checkpoint_skips() {
    explore(2, || {
        let wal = database();
        let mut tail = wal.tail().unwrap();
        let follower = thread::spawn(move || {
            let frames = tail.advance().unwrap().count();
            let state = tail.state();
            let page = |number| state.page(PageNo::new(number).unwrap()).unwrap()[9];
            let expected = if frames == 0 { [1, 1] } else { [1, 2] };
            assert_eq!([page(1), page(2)], expected, "{frames} frames");
        });
        let mut tx = wal.begin_write(Duration::ZERO).unwrap();
        tx.page_mut(PageNo::new(2).unwrap()).unwrap().fill(2);
        tx.commit().unwrap();
        checkpoint(&wal);
        follower.join().unwrap();
    });
}

#[test]
fn no_commit_of_two_writers_is_lost() {
    /// Adds one to what page 1 holds; true unless the other writer was busy.
    fn add_one(wal: &Handle) -> bool {
        let mut tx = match wal.begin_write(Duration::ZERO) {
            Ok(tx) => tx,
            Err(Error::Busy { .. }) => return false,
            Err(e) => panic!("{e}"),
        };
        let first = tx.page_mut(PageNo::ONE).unwrap();
        first[0] += 1;
        tx.commit().unwrap();
        true
    }
    explore(3, || {
        let wal = database();
        let other = {
            let wal = wal.clone();
            thread::spawn(move || add_one(&wal))
        };
        let added = u8::from(add_one(&wal)) + u8::from(other.join().unwrap());
        assert!(added >= 1);
        let sum = wal.begin_read().unwrap().page(PageNo::ONE).unwrap()[0];
        assert_eq!(sum, 1 + added);
    });
}

/// Threads that commit by one sync at [`Synchronous::Full`], and pass `WRITE` on before it.
#[derive(Clone)]
struct Pipeline {
    wal: Handle,
    synced: Arc<Mutex<usize>>,
}

/// No wait for `WRITE` ends by itself.
const FOR_EVER: Duration = Duration::from_secs(3600);

impl Pipeline {
    /// The database, with 1 in the first byte of page 1.
    fn new() -> Self {
        let (wal, synced) = database_at(Synchronous::Full);
        Pipeline { wal, synced }
    }

    /// True if the commit that has left `sum` is synced. Commit 1 has two frames, each later
    /// one has one.
    fn is_durable(&self, sum: u8) -> bool {
        let frame = 24 + PageSize::MIN.len();
        *self.synced.lock().unwrap() >= 32 + (usize::from(sum) + 1) * frame
    }

    /// Adds one to what page 1 holds; true if the transaction began on a commit that was not
    /// synced.
    fn add_one(&self) -> bool {
        let mut tx = self.wal.begin_write(FOR_EVER).unwrap();
        let first = tx.page_mut(PageNo::ONE).unwrap();
        let before = first[0];
        first[0] += 1;
        let inherits = !self.is_durable(before);
        tx.commit().unwrap();
        assert!(self.is_durable(before + 1), "a commit ended too early");
        inherits
    }

    /// What a reader finds on page 1.
    fn read(&self) -> u8 {
        let read = self.wal.begin_read().unwrap();
        let sum = read.page(PageNo::ONE).unwrap()[0];
        assert!(self.is_durable(sum), "a commit was read too early");
        sum
    }
}

/// Explores `writers` threads of a pipeline, each of which adds one, and `readers`.
fn pipeline(preemptions: usize, writers: u8, readers: u8) {
    let inherited = Arc::new(AtomicUsize::new(0));
    let counted = inherited.clone();
    explore(preemptions, move || {
        let scene = Pipeline::new();
        let adding = (0..writers).map(|_| {
            let scene = scene.clone();
            thread::spawn(move || scene.add_one())
        });
        let adding: Vec<_> = adding.collect();
        let reading = (0..readers).map(|_| {
            let scene = scene.clone();
            thread::spawn(move || scene.read())
        });
        for reader in reading.collect::<Vec<_>>() {
            assert!((1..=1 + writers).contains(&reader.join().unwrap()));
        }
        for writer in adding {
            counted.fetch_add(writer.join().unwrap().into(), Ordering::Relaxed);
        }
        assert_eq!(scene.read(), 1 + writers, "a commit is lost");
        // The lock was released in the end.
        drop(scene.wal.begin_write(Duration::ZERO).unwrap());
    });
    let inherited = inherited.load(Ordering::Relaxed);
    println!("{inherited} transactions began on what was not synced");
    assert!(inherited > 0, "WRITE was never inherited");
}

/// It fails if a leader publishes a newer commit than its sync covers, and if it wakes no thread
/// that waits for it.
#[test]
fn write_is_inherited_while_its_last_holder_syncs() {
    pipeline(2, 2, 0);
}

#[test]
fn write_is_inherited_beside_a_thread_that_waits_for_a_sync() {
    pipeline(1, 3, 0);
}

/// It fails if a leader publishes before the sync.
#[test]
fn reader_beside_inherited_write_sees_what_is_synced() {
    pipeline(1, 2, 1);
}
