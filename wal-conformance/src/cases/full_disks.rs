//! What becomes of an operation for which the disk has no room.

use std::ops::RangeInclusive;

use super::spilling::{expect_recovered, number, tight_user};
use crate::calls::{Call, Which};
use crate::director::FreeSpace;
use crate::scene::{Scene, User, Writing, content, fill};
use crate::subject::Subject;
use wal_core::error::{Error, Result};
use wal_core::protocol::{CheckpointMode, Synchronous};
use wal_core::storage::{File, MemoryFile};
use wal_core::testing::index;
use wal_core::types::PageSize;

/// Pages of 64 KiB that make a commit a large one.
const LARGE: RangeInclusive<u32> = 1..=20;

fn set_free_space<B: Subject>(scene: &Scene<B>, bytes: Option<u64>) {
    let space = bytes.map(|bytes| FreeSpace {
        bytes,
        is_told: true,
    });
    scene.director().set_free_space(space);
}

/// Asserts that `outcome` is a disk without room, which is named.
#[track_caller]
fn expect_full<T: std::fmt::Debug>(outcome: Result<T>, file: &str) {
    let error = outcome.expect_err("there is no room");
    let named = matches!(&error, Error::Io { path, .. } if path.ends_with(file));
    assert!(named && error.is_storage_full(), "{error:?}");
}

fn writes(trace: &[Call], which: Which) -> usize {
    let writes = |call: &&Call| matches!(call, Call::Write { file, .. } if *file == which);
    trace.iter().filter(writes).count()
}

fn asks(trace: &[Call]) -> usize {
    let asks = |call: &&Call| matches!(call, Call::FreeSpace(_));
    trace.iter().filter(asks).count()
}

/// Fills [`LARGE`] pages of 64 KiB with `byte`.
fn fill_large<B: Subject>(tx: &mut Writing<B>, byte: u8) -> Result<()> {
    for page in LARGE {
        while tx.page_count() < page {
            tx.allocate()?;
        }
        tx.page_mut(number(page))?.fill(byte);
    }
    Ok(())
}

fn commit_large<B: Subject>(user: &User<B>, byte: u8) -> Result<()> {
    let mut tx = user.write();
    fill_large::<B>(&mut tx, byte)?;
    tx.commit().map(drop)
}

/// The byte that all pages of 64 KiB are filled with; `None` without a page.
fn large_byte<B: Subject>(user: &User<B>) -> Option<u8> {
    let read = user.read();
    let bytes: Vec<u8> = (1..=read.page_count())
        .map(|page| {
            let page = read.page(number(page)).expect("the page is read");
            assert!(page.iter().all(|byte| *byte == page[0]), "a torn page");
            page[0]
        })
        .collect();
    assert!(bytes.iter().all(|byte| *byte == bytes[0]), "{bytes:?}");
    bytes.first().copied()
}

pub(crate) fn checkpoint_without_room_is_refused_untouched<B: Subject>() {
    for mode in [CheckpointMode::Passive, CheckpointMode::Truncate] {
        let scene = Scene::<B>::new(2);
        let (user, other) = scene.two();
        user.commit(&[1], 1);
        let saved = user.read().snapshot().save();
        user.commit(&[2, 9], 2);
        let growth = 7 * 512;
        set_free_space(&scene, Some(growth - 1));
        let (refused, trace) = user.trace(|user| user.wal.checkpoint(mode));
        expect_full(refused, "database");
        let changed = |call: &Call| matches!(call, Call::SetLen(..) | Call::Sync(_));
        assert_eq!(writes(&trace, Which::Database), 0, "{mode:?}: {trace:?}");
        assert!(!trace.iter().any(changed), "{mode:?}: {trace:?}");
        assert_eq!(scene.files().0.len(), 2 * 512);
        let counts = (user.backfilled(), index::attempted(user.block_zero()));
        assert_eq!(counts, (0, 0), "{mode:?}");
        assert!(user.wal.open_snapshot(&saved).is_ok(), "{mode:?}");
        scene.assert_quiet();
        // The log goes on.
        other.commit(&[1], 3);
        assert_eq!(other.versions(), [3, 2, 2, 2, 2, 2, 2, 2, 2]);
        set_free_space(&scene, Some(growth));
        assert!(user.wal.checkpoint(mode).expect("it runs").is_complete());
        assert_eq!(other.versions(), [3, 2, 2, 2, 2, 2, 2, 2, 2]);
    }
}

pub(crate) fn checkpoint_within_the_file_needs_no_room<B: Subject>() {
    let scene = Scene::<B>::new(4);
    let user = scene.user();
    user.commit(&[1, 2, 3, 4], 1);
    set_free_space(&scene, Some(0));
    let (_, trace) = user.trace(User::checkpoint_all);
    assert_eq!(asks(&trace), 0, "{trace:?}");
    user.commit(&[1], 2);
    let mut tx = user.write();
    tx.set_page_count(2).unwrap();
    tx.commit().unwrap();
    user.checkpoint_all();
    assert_eq!(user.versions(), [2, 1]);
}

pub(crate) fn backup_without_room_is_refused_before_its_first_byte<B: Subject>() {
    let scene = Scene::<B>::new(5);
    let user = scene.user();
    user.commit(&[1, 5], 1);
    let read = user.read();
    for room in [0, 512, 5 * 512 - 1] {
        let copy = MemoryFile::new("copy", Vec::new()).with_room(room);
        let refused = read.copy_to(&copy, |_| panic!("something was copied"));
        expect_full(refused, "copy");
        assert!(copy.is_empty().unwrap());
    }
    let copy = MemoryFile::new("copy", Vec::new()).with_room(5 * 512);
    read.copy_to(&copy, |_| Ok(())).expect("there is room");
    let pages = [(1, 1), (2, 0), (3, 0), (4, 0), (5, 1)];
    let expected = pages.map(|(page, version)| content(page, version));
    assert_eq!(copy.contents(), expected.concat());
}

pub(crate) fn large_commit_without_room_is_refused_untouched<B: Subject>() {
    for level in [Synchronous::Normal, Synchronous::Full] {
        let scene = Scene::<B>::empty(PageSize::MAX);
        let (user, other) = (scene.user_at(level), scene.user());
        let mut first = user.write();
        let page = first.allocate().unwrap();
        first.page_mut(page).unwrap().fill(1);
        first.commit().unwrap();
        let (before, header) = (scene.files(), user.header());
        set_free_space(&scene, Some(1 << 20));
        let (refused, trace) = user.trace(|user| commit_large(user, 2));
        expect_full(refused, "database-wal");
        assert_eq!(writes(&trace, Which::Log), 0, "{trace:?}");
        assert!(!trace.iter().any(|call| matches!(call, Call::Sync(_))));
        assert!(scene.files() == before, "a file was changed");
        assert_eq!(user.header(), header);
        scene.assert_quiet();
        assert_eq!(large_byte(&other), Some(1));
        // A small one has room.
        let mut small = other.write();
        small.page_mut(page).unwrap().fill(3);
        small.commit().unwrap();
        assert_eq!(large_byte(&user), Some(3));
        set_free_space(&scene, Some(2 << 20));
        commit_large(&user, 4).expect("there is room");
        assert_eq!(large_byte(&other), Some(4));
    }
}

pub(crate) fn large_spill_without_room_leaves_its_transaction_whole<B: Subject>() {
    let scene = Scene::<B>::empty(PageSize::MAX);
    let user = scene.user();
    commit_large(&user, 1).unwrap();
    let mut tx = user.write();
    fill_large::<B>(&mut tx, 2).unwrap();
    set_free_space(&scene, Some(1 << 20));
    let (refused, trace) = user.trace(|_| tx.spill());
    expect_full(refused, "database-wal");
    assert_eq!(writes(&trace, Which::Log), 0, "{trace:?}");
    for page in LARGE {
        assert_eq!(tx.page(number(page)).unwrap()[9], 2, "it goes on");
    }
    set_free_space(&scene, None);
    tx.spill().expect("there is room");
    tx.commit().expect("there is room");
    assert_eq!(large_byte(&user), Some(2));
}

pub(crate) fn large_engine_frames_without_room_are_refused<B: Subject>() {
    let scene = Scene::<B>::empty(PageSize::MAX);
    let user = scene.user();
    let page = vec![7; PageSize::MAX.len()];
    let pages: Vec<_> = LARGE.map(|at| (number(at), &*page)).collect();
    let mut tx = user.write();
    set_free_space(&scene, Some(1 << 20));
    let (refused, trace) = user.trace(|_| tx.append_frames_vectored(&pages));
    expect_full(refused, "database-wal");
    let len = scene.files().1.len();
    assert_eq!(writes(&trace, Which::Log), 1, "the header: {trace:?}");
    expect_full(tx.commit_frames(&pages, 20), "database-wal");
    assert_eq!(scene.files().1.len(), len);
    set_free_space(&scene, None);
    tx.commit_frames(&pages, 20).expect("there is room");
    drop(tx);
    assert_eq!(large_byte(&user), Some(7));
}

/// A vacuum is a transaction, and takes its spilled pages back.
pub(crate) fn rewrite_without_room_leaves_the_old_pages<B: Subject>() {
    let scene = Scene::<B>::new(30);
    let user = tight_user(&scene, 4);
    let all: Vec<u32> = (1..=30).collect();
    user.commit(&all, 1);
    set_free_space(&scene, Some(5000));
    let mut tx = user.write();
    let rewritten = tx.rewrite(false, |old, new| {
        let keep = |page| new.push(&old.page(number(page))?).map(drop);
        (1..=old.page_count()).try_for_each(keep)
    });
    expect_full(rewritten, "database-wal");
    drop(tx);
    scene.assert_quiet();
    assert_eq!(user.versions(), [1; 30]);
    expect_recovered(&scene, &[1; 30]);
    set_free_space(&scene, None);
    user.commit(&[30], 2);
    assert_eq!(user.versions()[29], 2);
}

pub(crate) fn restarted_log_has_room_for_what_it_had<B: Subject>() {
    let scene = Scene::<B>::empty(PageSize::MAX);
    let user = scene.user();
    commit_large(&user, 1).unwrap();
    user.checkpoint_all();
    set_free_space(&scene, Some(0));
    let (committed, trace) = user.trace(|user| commit_large(user, 2));
    committed.expect("the log is as long as before");
    assert_eq!(asks(&trace), 0, "{trace:?}");
    assert_eq!(large_byte(&user), Some(2));
}

/// Asking takes as long as a good part of a commit.
pub(crate) fn small_commit_asks_for_no_free_space<B: Subject>() {
    let scene = Scene::<B>::new(4);
    let user = scene.user_at(Synchronous::Full);
    for round in 0..3 {
        for commits in 0..5 {
            let (_, trace) = user.trace(|user| user.commit(&[1, 2, 3, 4], commits));
            assert_eq!(asks(&trace), 0, "{round}: {trace:?}");
        }
        user.checkpoint_all();
    }
}

/// Whether the free space is told or not, and wherever it ends: each operation is done,
/// or refused for want of room and without a trace.
pub(crate) fn disk_full_at_any_byte_costs_no_commit<B: Subject>() {
    const STEP: usize = 211;
    let (normal, full) = (Synchronous::Normal, Synchronous::Full);
    for (is_told, level) in [(true, normal), (false, normal), (false, full)] {
        for bytes in (0..12_000).step_by(STEP) {
            let scene = Scene::<B>::new(3);
            let user = scene.user_with(|config| {
                config.synchronous = level;
                config.cache_spill = 3 * 512;
            });
            let other = scene.user();
            let space = FreeSpace { bytes, is_told };
            scene.director().set_free_space(Some(space));
            let mut version = 0;
            let mut full = 0;
            let mut note = |outcome: Result<()>, wanted: u32| match outcome {
                Ok(()) => version = wanted,
                Err(e) => {
                    assert!(e.is_storage_full(), "{bytes} bytes: {e:?}");
                    full += 1;
                }
            };
            note(user.try_commit(&[1, 2, 3], 1), 1);
            note(commit_spilled(&user, 2), 2);
            let checkpoint = |mode| user.wal.checkpoint(mode).map(drop);
            let refused = [CheckpointMode::Passive, CheckpointMode::Truncate].map(checkpoint);
            for refused in refused.into_iter().filter_map(Result::err) {
                assert!(refused.is_storage_full(), "{bytes} bytes: {refused:?}");
            }
            note(user.try_commit(&[1, 2, 3], 3), 3);
            note(commit_spilled(&user, 4), 4);
            scene.assert_quiet();
            let expected = |found: Vec<u32>| {
                let same = found.iter().take(3).all(|&page| page == version);
                assert!(
                    same,
                    "{bytes} bytes, {is_told}, {level:?}: {found:?}, not {version}"
                );
            };
            expected(other.versions());
            let (database, log) = scene.files();
            let recovered = Scene::<B>::from_files(&database, Some(&log));
            expected(recovered.user().versions());
            assert!(full > 0 || bytes > 6000, "{bytes} bytes were enough");
            scene.director().set_free_space(None);
            user.commit(&[1, 2, 3], 9);
            other.checkpoint_all();
            assert_eq!(other.versions()[..3], [9; 3], "{bytes} bytes");
        }
    }
}

/// Commits `version` to three pages and to three more behind them, in several spills.
fn commit_spilled<B: Subject>(user: &User<B>, version: u32) -> Result<()> {
    let mut tx = user.wal.begin_write(std::time::Duration::ZERO)?;
    fill(&mut tx, &[1, 2, 3, 4, 5, 6], version)?;
    tx.commit().map(drop)
}

pub(crate) fn large_batch_without_room_can_be_applied_again<B: Subject>() {
    let (source, copy) = (
        Scene::<B>::empty(PageSize::MAX),
        Scene::<B>::empty(PageSize::MAX),
    );
    let (writer, replica) = (source.user(), copy.user());
    let mut tail = source.user().wal.tail().expect("a tail begins");
    commit_large(&writer, 5).unwrap();
    tail.advance().expect("it goes on");
    set_free_space(&copy, Some(1 << 20));
    let apply = || {
        let mut tx = replica.wal.begin_apply(std::time::Duration::ZERO)?;
        tx.apply_frames(tail.log_so_far(), None)?;
        tx.commit()
    };
    let (refused, trace) = replica.trace(|_| apply());
    expect_full(refused, "database-wal");
    let frames =
        |call: &Call| matches!(call, Call::Write { file: Which::Log, offset, .. } if *offset > 0);
    assert!(!trace.iter().any(frames), "{trace:?}");
    copy.assert_quiet();
    set_free_space(&copy, None);
    apply().expect("there is room");
    assert_eq!(large_byte(&replica), Some(5));
}
