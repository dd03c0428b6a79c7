//! States of a database as values: what a commit returns, and what has pages.
#![cfg(feature = "shm")]
// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::unwrap_used)]

use std::panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe, catch_unwind};
use std::path::Path;
use std::thread;
use std::time::Duration;

use wal::{
    CheckpointMode, Database, DatabaseKind, Error, Options, PageNo, PageRef, PageSize, Pages,
    SavedSnapshot, Synchronous,
};

fn options() -> Options {
    Options::new()
        .kind(DatabaseKind::RawPages)
        .auto_checkpoint(0)
}

fn commit(database: &Database, byte: u8) -> SavedSnapshot {
    let mut write = database.begin_write().unwrap();
    let page = match write.page_count() {
        1 => write.allocate().unwrap(),
        _ => PageNo::new(2).unwrap(),
    };
    write.page_mut(page).unwrap()[0] = byte;
    write.commit().unwrap()
}

fn through_bytes(commit: SavedSnapshot) -> SavedSnapshot {
    SavedSnapshot::from_bytes(commit.to_bytes()).unwrap()
}

fn open_all(path: &Path) -> [Database; 4] {
    let full = options();
    [
        full.clone().open(path).unwrap(),
        full.clone().group_commit(true).open(path).unwrap(),
        full.clone()
            .synchronous(Synchronous::Normal)
            .open(path)
            .unwrap(),
        full.synchronous(Synchronous::Off).open(path).unwrap(),
    ]
}

#[test]
fn commit_returns_the_state_that_it_made_at_each_level() {
    let directory = tempfile::tempdir().unwrap();
    for (database, byte) in open_all(&directory.path().join("pages"))
        .into_iter()
        .zip(1..)
    {
        let before = database.begin_read().unwrap().snapshot().save();
        let made = commit(&database, byte);
        assert_ne!(made, before);
        assert_eq!(made, database.begin_read().unwrap().snapshot().save());
        let later = commit(&database, 100 + byte);
        let read = database.open_snapshot(&through_bytes(made)).unwrap();
        assert_eq!(read.page(PageNo::new(2).unwrap()).unwrap()[0], byte);
        let newest = *database.begin_read().unwrap().snapshot();
        assert!(newest.includes(&made) && newest.includes(&later));
        assert!(!read.snapshot().includes(&later));
    }
}

#[test]
fn commit_of_nothing_returns_the_state_that_it_began_on() {
    let directory = tempfile::tempdir().unwrap();
    for database in open_all(&directory.path().join("pages")) {
        let made = commit(&database, 1);
        let nothing = database.begin_write().unwrap().commit().unwrap();
        assert_eq!(nothing, made);
    }
}

#[test]
fn commits_of_threads_that_share_a_sync_return_their_own_states() {
    let directory = tempfile::tempdir().unwrap();
    let database = options().open(directory.path().join("pages")).unwrap();
    commit(&database, 0);
    let add_one = |database: &Database| {
        let mut write = database.begin_write().unwrap();
        let byte = &mut write.page_mut(PageNo::new(2).unwrap()).unwrap()[0];
        *byte += 1;
        let byte = *byte;
        (byte, write.commit().unwrap())
    };
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let database = database.clone();
            thread::spawn(move || [(); 10].map(|()| add_one(&database)))
        })
        .collect();
    for thread in threads {
        for (byte, made) in thread.join().unwrap() {
            let read = database.open_snapshot(&made).unwrap();
            assert_eq!(read.page(PageNo::new(2).unwrap()).unwrap()[0], byte);
        }
    }
}

#[test]
fn state_includes_commits_of_generations_before() {
    let directory = tempfile::tempdir().unwrap();
    let database = options().open(directory.path().join("pages")).unwrap();
    let mut made = Vec::new();
    let mut before = None;
    for byte in 1..6 {
        made.push(commit(&database, byte));
        let read = database.begin_read().unwrap();
        assert!(made.iter().all(|made| read.snapshot().includes(made)));
        if let Some(before) = before.replace(*read.snapshot()) {
            assert!(!before.includes(made.last().unwrap()), "a later generation");
        }
        drop(read);
        let report = database.checkpoint(CheckpointMode::Restart).unwrap();
        assert!(report.is_complete() && report.held_back_by.is_none());
    }
}

/// Its change word is another one than that of the source, which committed twice.
#[test]
fn replica_that_applies_two_commits_at_once_has_the_last() {
    let directory = tempfile::tempdir().unwrap();
    let [path, copy] = ["pages", "copy"].map(|name| directory.path().join(name));
    let source = options().auto_restart(false).open(path).unwrap();
    commit(&source, 1);
    let mut tail = source.tail().unwrap();
    source.backup(&copy, |_| Ok(())).unwrap();
    let replica = options().persistent_log(true).auto_restart(false);
    let opened = replica.open(&copy).unwrap();
    let mut apply = opened.begin_apply().unwrap();
    apply.apply_frames(tail.log_so_far(), None).unwrap();
    let ended = apply.commit().unwrap();
    let made: Vec<_> = (2..4).map(|byte| commit(&source, byte)).collect();
    let mut apply = opened.begin_apply().unwrap();
    let frames = tail.advance().unwrap();
    apply.apply_frames(frames, Some(ended)).unwrap();
    apply.commit().unwrap();
    for state in &made {
        assert!(opened.wait_for_commit(state, Duration::ZERO).unwrap());
    }
    // After a recovery the word is another one again.
    opened.close().unwrap();
    let opened = replica.open(&copy).unwrap();
    for state in &made {
        assert!(opened.wait_for_commit(state, Duration::ZERO).unwrap());
    }
}

#[test]
fn replica_is_waited_for_until_it_has_a_commit() {
    let directory = tempfile::tempdir().unwrap();
    let (path, copy) = (
        directory.path().join("pages"),
        directory.path().join("copy"),
    );
    let source = options().auto_restart(false).open(path).unwrap();
    commit(&source, 1);
    let mut tail = source.tail().unwrap();
    source.backup(&copy, |_| Ok(())).unwrap();
    let replica = options().persistent_log(true).auto_restart(false);
    let replica = replica.open(&copy).unwrap();
    let mut apply = replica.begin_apply().unwrap();
    apply.apply_frames(tail.log_so_far(), None).unwrap();
    let mut ended = apply.commit().unwrap();

    let long = Duration::from_secs(60);
    for byte in 2..6 {
        let made = through_bytes(commit(&source, byte));
        assert!(source.wait_for_commit(&made, Duration::ZERO).unwrap());
        assert!(
            !replica
                .wait_for_commit(&made, Duration::from_millis(5))
                .unwrap()
        );
        let waits = thread::spawn({
            let replica = replica.clone();
            move || {
                assert!(replica.wait_for_commit(&made, long).unwrap());
                replica
                    .begin_read()
                    .unwrap()
                    .page(PageNo::new(2).unwrap())
                    .unwrap()[0]
            }
        });
        let mut apply = replica.begin_apply().unwrap();
        apply
            .apply_frames(tail.advance().unwrap(), Some(ended))
            .unwrap();
        ended = apply.commit().unwrap();
        assert_eq!(waits.join().unwrap(), byte);
        // Every other time in a new generation of both logs.
        if byte % 2 == 0 {
            replica.checkpoint(CheckpointMode::Passive).unwrap();
            source.checkpoint(CheckpointMode::Passive).unwrap();
            assert!(tail.restart_log(long).unwrap());
        }
    }
}

/// The first bytes of all pages, of whatever has them.
fn first_bytes(pages: &impl Pages) -> Vec<u8> {
    let page = |number| pages.page(PageNo::try_from(number).unwrap()).unwrap()[0];
    (1..=pages.page_count()).map(page).collect()
}

#[test]
fn pages_of_transactions_are_read_by_one_function() {
    let directory = tempfile::tempdir().unwrap();
    let size = PageSize::try_from(8192).unwrap();
    let database = options()
        .page_size(size)
        .open(directory.path().join("p"))
        .unwrap();
    commit(&database, 7);
    let read = database.begin_read().unwrap();
    let mut write = database.begin_write().unwrap();
    write.page_mut(PageNo::new(2).unwrap()).unwrap()[0] = 8;
    assert_eq!(first_bytes(&read)[1..], [7]);
    assert_eq!(first_bytes(&write)[1..], [8]);
    assert_eq!((Pages::page_size(&read), write.page_size()), (size, size));
    drop(write);
    let held = read.hold(Duration::from_secs(60)).unwrap();
    assert_eq!(first_bytes(&held.begin_read().unwrap())[1..], [7]);
    let rewritten = database.vacuum(&wal::VacuumOptions::new(), |old, new| {
        assert_eq!(first_bytes(old)[1..], [7]);
        new.push(&old.page(PageNo::ONE)?).map(drop)
    });
    assert_eq!(rewritten.unwrap().pages_after, 1);
}

#[test]
fn page_is_what_takes_bytes_takes() {
    fn sum(bytes: impl AsRef<[u8]>) -> u64 {
        bytes.as_ref().iter().map(|&byte| u64::from(byte)).sum()
    }
    let directory = tempfile::tempdir().unwrap();
    let database = options().open(directory.path().join("pages")).unwrap();
    commit(&database, 9);
    let read = database.begin_read().unwrap();
    let page: PageRef<'_> = read.page(PageNo::new(2).unwrap()).unwrap();
    assert_eq!((page.len(), page.first()), (4096, Some(&9)));
    assert_eq!(sum(page), 9);
}

#[test]
fn numbers_become_page_numbers_and_sizes() {
    assert_eq!(PageNo::try_from(3).unwrap().get(), 3);
    assert!(matches!(PageNo::try_from(0), Err(Error::InvalidPageNo)));
    assert_eq!(u32::from(PageNo::ONE), 1);
    assert!(matches!(
        PageSize::try_from(1000),
        Err(Error::InvalidPageSize { bytes: 1000 })
    ));
}

#[test]
fn handles_and_transactions_cross_a_caught_panic() {
    fn unwind_safe<T: UnwindSafe + RefUnwindSafe>() {}
    unwind_safe::<Database>();
    unwind_safe::<wal::ReadTx>();
    unwind_safe::<wal::WriteTx>();
    unwind_safe::<wal::Tail>();
    unwind_safe::<wal::ApplyTx>();
    unwind_safe::<wal::HeldSnapshot>();
    unwind_safe::<SavedSnapshot>();
    unwind_safe::<wal::Snapshot>();

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pages");
    for database in open_all(&path) {
        commit(&database, 1);
        let panicked = catch_unwind(|| {
            database.write(|tx| -> wal::Result<()> {
                tx.page_mut(PageNo::new(2)?)?[0] = 66;
                tx.spill()?;
                panic!("in the middle of a change")
            })
        });
        panicked.unwrap_err();
        let read = database.begin_read().unwrap();
        assert_eq!(read.page(PageNo::new(2).unwrap()).unwrap()[0], 1);
        drop(read);
        // What the panic has left is trimmed by the next writer, here or elsewhere.
        let made = commit(&database, 2);
        let seen = catch_unwind(AssertUnwindSafe(|| database.open_snapshot(&made).unwrap()));
        assert_eq!(seen.unwrap().page(PageNo::new(2).unwrap()).unwrap()[0], 2);
    }
}
