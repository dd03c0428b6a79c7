//! The one writer.

use std::time::Duration;
use std::{fs, thread};

use super::contract::unlock;
use super::waiting::{LONGER_THAN_A_TURN, until_in_line};
use crate::calls::{Awaited, Call};
use crate::scene::{BOUND, Scene, User, content, fill, version_in};
use crate::subject::Subject;
use wal_core::coordination::WalCoordination;
use wal_core::error::{Error, Result};
use wal_core::index::IndexHeader;
use wal_core::protocol::{CheckpointMode, VacuumCheckpointLock};
use wal_core::testing::index;
use wal_core::types::{Lock, LockMode, PageNo, PageSize};
use wal_core::wait::manual_clock::ManualClock;

pub(crate) fn a_writer_shuts_out_writers_and_nobody_else<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (one, two) = scene.two();
    let mut tx = one.write();
    fill(&mut tx, &[1], 1).unwrap();
    let refused = two.wal.begin_write(Duration::ZERO);
    assert!(
        matches!(
            refused,
            Err(Error::Busy {
                lock: Lock::Write,
                ..
            })
        ),
        "{refused:?}"
    );
    assert_eq!(two.versions(), [0, 0]);
    two.checkpoint_all();
    tx.commit().unwrap();
    two.commit(&[2], 2);
    assert_eq!(one.versions(), [1, 2]);
    scene.assert_quiet();
}

pub(crate) fn a_writer_that_waits_is_woken<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (one, two) = scene.two();
    two.versions();
    scene.director().with_ledger(|ledger| ledger.crowd());
    let clock = ManualClock::default();
    let mut tx = clock.run(|| one.write());
    fill(&mut tx, &[1, 2], 1).unwrap();
    let writes = || {
        let mut tx = two.wal.begin_write(BOUND).expect("its turn comes");
        let version = version_in(1, &tx.page(PageNo::ONE).unwrap());
        assert_eq!(version, 1, "the state is older than the commit before");
        fill(&mut tx, &[2], 2).unwrap();
        tx.commit().unwrap();
    };
    thread::scope(|scope| {
        let waiting = scope.spawn(|| clock.run(writes));
        until_in_line(&one, 1);
        // Within its turn the writer may come back, and wakes nobody.
        clock.advance(LONGER_THAN_A_TURN);
        let (_, trace) = one.trace(|_| clock.run(|| tx.commit().unwrap()));
        let wakes = Call::Wake(Awaited::Turn);
        assert!(trace.contains(&wakes), "nobody woke the writer: {trace:?}");
        waiting.join().expect("the waiting writer");
    });
    assert_eq!(one.versions(), [1, 2]);
}

/// A checkpointer that waits for Write must not be waited for with Write held.
pub(crate) fn a_writer_that_cannot_recover_gives_write_back<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (writer, checkpointer) = scene.two();
    writer.commit(&[1], 1);
    writer.damage_header();
    let checkpointing = checkpointer.wal.coordination();
    assert!(
        checkpointing
            .try_lock(Lock::Checkpoint, LockMode::Exclusive)
            .unwrap()
    );
    let refused = writer.wal.begin_write(Duration::ZERO);
    assert!(matches!(refused, Err(Error::Busy { .. })), "{refused:?}");
    unlock(&checkpointer, Lock::Checkpoint, LockMode::Exclusive);
    scene.assert_quiet();
    writer.commit(&[2], 2);
    assert_eq!(writer.versions(), [1, 2]);
}

pub(crate) fn a_stale_reader_cannot_become_a_writer<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (one, two) = scene.two();
    let read = one.read();
    two.commit(&[1], 1);
    let refused = read.upgrade().expect_err("the snapshot is stale");
    assert!(
        matches!(refused.error, Error::BusySnapshot),
        "{}",
        refused.error
    );
    let read = refused.read;
    assert_eq!(
        crate::scene::versions::<B>(&read),
        [0, 0],
        "the reader goes on"
    );
    drop(read);
    scene.assert_quiet();
    two.commit(&[2], 2);
}

pub(crate) fn a_current_reader_becomes_a_writer<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (one, two) = scene.two();
    one.commit(&[1], 1);
    let writing = two.write();
    let refused = one.read().upgrade().expect_err("somebody is writing");
    assert!(matches!(
        refused.error,
        Error::Busy {
            lock: Lock::Write,
            ..
        }
    ));
    drop(writing);
    let mut tx = refused.read.upgrade().expect("nobody wrote");
    fill(&mut tx, &[2], 2).unwrap();
    tx.commit().unwrap();
    assert_eq!(two.versions(), [1, 2]);
    scene.assert_quiet();
}

pub(crate) fn an_empty_commit_leaves_no_trace<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let writer = scene.user();
    writer.commit(&[1], 1);
    let (header, files) = (writer.header(), scene.files());
    writer.write().commit().unwrap();
    assert_eq!((writer.header(), scene.files()), (header, files));
}

pub(crate) fn a_rollback_leaves_no_trace<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let writer = scene.user();
    writer.commit(&[1], 1);
    let (header, files) = (writer.header(), scene.files());
    let mut tx = writer.write();
    fill(&mut tx, &[1, 2, 3, 4], 2).unwrap();
    assert_eq!(tx.page_count(), 4);
    tx.rollback();
    let mut dropped = writer.write();
    fill(&mut dropped, &[2], 3).unwrap();
    drop(dropped);
    assert_eq!((writer.header(), scene.files()), (header, files));
    assert_eq!(writer.versions(), [1, 0]);
}

/// Peers drop what they have cached when the 48 bytes differ, so a commit
/// that writes the very same pages must change them too.
pub(crate) fn each_commit_changes_the_header<B: Subject>() {
    let scene = Scene::<B>::new(1);
    let writer = scene.user();
    writer.commit(&[1], 1);
    let first: IndexHeader = writer.header();
    writer.checkpoint_all();
    writer.commit(&[1], 1);
    let second = writer.header();
    let [first, second] = [first, second].map(|header| index::change_counter(&header));
    assert_eq!(second, first.wrapping_add(1));
}

pub(crate) fn a_commit_leaves_two_equal_headers<B: Subject>() {
    let scene = Scene::<B>::new(1);
    let writer = scene.user();
    for version in 1..5 {
        writer.commit(&[1], version);
        assert!(
            index::header(writer.block_zero()).is_some(),
            "after version {version}"
        );
    }
}

pub(crate) fn a_database_grows_from_nothing<B: Subject>() {
    let scene = Scene::<B>::empty(PageSize::MIN);
    let writer = scene.user();
    assert_eq!(writer.read().page_count(), 0);
    writer.commit(&[1, 2, 3], 1);
    assert_eq!(writer.versions(), [1; 3]);
    writer.checkpoint_all();
    assert_eq!(scene.files().0.len(), 3 * 512);
}

pub(crate) fn a_database_grows_and_shrinks<B: Subject>() {
    let scene = Scene::<B>::new(3);
    let (writer, reader) = scene.two();
    writer.commit(&[3, 4, 5, 6], 1);
    let large = reader.read();
    let mut tx = writer.write();
    tx.set_page_count(2).unwrap();
    assert!(matches!(
        tx.page(PageNo::new(3).unwrap()),
        Err(Error::NoSuchPage { .. })
    ));
    assert!(tx.set_page_count(0).is_err());
    let again = tx.allocate().unwrap();
    assert_eq!(again.get(), 3);
    assert!(
        tx.page(again).unwrap().iter().all(|&byte| byte == 0),
        "an old page came back"
    );
    fill(&mut tx, &[3], 2).unwrap();
    tx.commit().unwrap();
    assert_eq!(crate::scene::versions::<B>(&large), [0, 0, 1, 1, 1, 1]);
    assert_eq!(writer.versions(), [0, 0, 2]);
    drop(large);
    writer.checkpoint_all();
    assert_eq!(writer.versions(), [0, 0, 2]);
    writer.commit(&[4], 3);
    assert_eq!(reader.versions(), [0, 0, 2, 3]);
}

pub(crate) fn pages_beyond_the_end_are_refused<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let writer = scene.user();
    let three = PageNo::new(3).unwrap();
    let refused = |e| {
        matches!(
            e,
            Error::NoSuchPage {
                page: 3,
                page_count: 2
            }
        )
    };
    assert!(refused(writer.read().page(three).unwrap_err()));
    let mut tx = writer.write();
    assert!(refused(tx.page(three).unwrap_err()));
    assert!(refused(tx.page_mut(three).unwrap_err()));
}

/// With pages of 65536 bytes the lock bytes are on page 16385; the files have
/// holes where nothing was written.
/// As many pages as SQLite numbers, in a file that is a hole but for its first page.
pub(crate) fn database_has_no_more_pages_than_sqlite_numbers<B: Subject>() {
    let scene = Scene::<B>::new(1);
    let (writer, reader) = scene.two();
    let file = fs::OpenOptions::new().write(true).open(scene.path());
    let pages = u64::from(PageNo::MAX.get()) - 1;
    let grown = file.and_then(|file| file.set_len(pages * 512));
    grown.expect("a file of two terabytes without content");
    let mut tx = writer.write();
    let too_many = |outcome: Result<()>| {
        assert!(
            matches!(outcome, Err(Error::NoSuchPage { .. })),
            "{outcome:?}"
        );
    };
    too_many(tx.set_page_count(u32::MAX));
    assert_eq!(u64::from(tx.page_count()), pages);
    assert_eq!(tx.allocate().expect("the last page"), PageNo::MAX);
    tx.page_mut(PageNo::MAX)
        .expect("it is there")
        .copy_from_slice(&content(PageNo::MAX.get(), 1));
    too_many(tx.allocate().map(drop));
    too_many(tx.set_page_count(u32::MAX));
    too_many(tx.set_page_count(0));
    tx.commit().expect("it is committed");
    let read = reader.read();
    assert_eq!(read.page_count(), PageNo::MAX.get());
    assert_eq!(
        *read.page(PageNo::MAX).expect("a page"),
        content(PageNo::MAX.get(), 1)[..]
    );
    let beyond = read.page(PageNo::new(u32::MAX).expect("a page number"));
    too_many(beyond.map(drop));
}

pub(crate) fn the_page_of_the_lock_bytes_is_passed_over_and_refused<B: Subject>() {
    let scene = Scene::<B>::empty(PageSize::MAX);
    let lock_bytes = PageSize::MAX.lock_byte_page();
    let before = u64::from(lock_bytes.get() - 1) * 65536;
    let file = std::fs::File::options()
        .write(true)
        .open(scene.path())
        .unwrap();
    file.set_len(before).unwrap();
    let writer = scene.user();
    let mut tx = writer.write();
    let added = tx.allocate().unwrap();
    assert_eq!(added.get(), lock_bytes.get() + 1);
    assert!(matches!(
        tx.page_mut(lock_bytes),
        Err(Error::NoSuchPage { .. })
    ));
    tx.page_mut(added).unwrap()[0] = 7;
    tx.commit().unwrap();
    assert!(matches!(
        writer.read().page(lock_bytes),
        Err(Error::NoSuchPage { .. })
    ));
    writer.checkpoint_all();
    assert_eq!(writer.read().page(added).unwrap()[0], 7);
}

pub(crate) fn the_vacuum_lock_shuts_everyone_out_and_lets_nobody_be_overrun<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (one, two) = scene.two();
    let reading = two.read();
    let excludes = |user: &User<B>| {
        let lock = user.wal.try_begin_vacuum_checkpoint_lock(Duration::ZERO);
        lock.and_then(VacuumCheckpointLock::exclude_all)
    };
    let refused = excludes(&one);
    assert!(
        matches!(
            refused,
            Err(Error::Busy {
                lock: Lock::Readers,
                ..
            })
        ),
        "{refused:?}"
    );
    drop((reading, refused));
    scene.assert_quiet();
    let alone = excludes(&one).expect("nobody is there");
    let write = two.wal.begin_write(Duration::ZERO);
    assert!(
        matches!(
            write,
            Err(Error::Busy {
                lock: Lock::Write,
                ..
            })
        ),
        "{write:?}"
    );
    let checkpoint = two.wal.checkpoint(CheckpointMode::Passive);
    assert!(
        matches!(checkpoint, Err(Error::Busy { .. })),
        "{checkpoint:?}"
    );
    use wal_core::types::ReadSlot;
    for slot in ReadSlot::ALL {
        let lock = Lock::Read(slot);
        assert!(
            !two.wal
                .coordination()
                .try_lock(lock, LockMode::Shared)
                .unwrap(),
            "{lock}"
        );
    }
    drop(alone);
    scene.assert_quiet();
    two.commit(&[1], 1);
}
