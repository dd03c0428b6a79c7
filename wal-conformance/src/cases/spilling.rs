//! A transaction that needs more memory than it may, and writes its pages to
//! the log before it commits.

use super::deaths::{fails_at, others_go_on};
use super::durability::log_writes;
use crate::calls::{Call, Which};
use crate::director::{Then, at_every_call, nth};
use crate::scene::{Scene, User, Writing, content, fill};
use crate::subject::Subject;
use wal_core::error::Error;
use wal_core::protocol::Synchronous;
use wal_core::testing::index::page_of_frame;
use wal_core::types::PageNo;

/// A user whose transactions keep `pages` changed pages in memory.
pub(super) fn tight_user<B: Subject>(scene: &Scene<B>, pages: u64) -> User<B> {
    scene.user_with(|config| config.cache_spill = pages * 512)
}

pub(super) fn number(page: u32) -> PageNo {
    PageNo::new(page).expect("a page number")
}

/// Asserts that a recovery of the files finds `expected`.
pub(super) fn expect_recovered<B: Subject>(scene: &Scene<B>, expected: &[u32]) {
    let (database, log) = scene.files();
    let recovered = Scene::<B>::from_files(&database, Some(&log));
    assert_eq!(recovered.user().versions(), expected, "recovered");
}

/// Asserts that `tx` sees `versions` on the first pages.
pub(super) fn expect_pages<B: Subject>(tx: &Writing<B>, versions: &[u32]) {
    for (page, &version) in (1..).zip(versions) {
        let found = tx.page(number(page)).expect("the page is read");
        assert_eq!(*found, *content(page, version), "page {page}");
    }
}

/// How many entries the index has behind the published frame.
pub(super) fn entries_behind<B: Subject>(user: &User<B>) -> usize {
    let published = user.header().max_frame();
    (published + 1..published + 60)
        .filter(|&frame| page_of_frame(&user.wal, frame).unwrap() != 0)
        .count()
}

pub(crate) fn a_spilled_page_is_seen_by_its_transaction_and_by_nobody_else<B: Subject>() {
    let scene = Scene::<B>::new(6);
    let (writer, other) = (tight_user(&scene, 2), scene.user());
    other.commit(&[1, 2], 1);
    let before = other.header();
    let mut tx = writer.write();
    fill(&mut tx, &[1, 2, 3, 4, 5, 6, 7], 2).unwrap();
    assert_eq!(other.header(), before, "a spill published something");
    assert_eq!(other.versions(), [1, 1, 0, 0, 0, 0]);
    expect_pages::<B>(&tx, &[2; 7]);
    expect_recovered(&scene, &[1, 1, 0, 0, 0, 0]);
    tx.commit().unwrap();
    assert_eq!(other.versions(), [2; 7]);
    expect_recovered(&scene, &[2; 7]);
    scene.assert_quiet();
}

pub(crate) fn a_budget_of_nothing_never_spills<B: Subject>() {
    let scene = Scene::<B>::new(60);
    let writer = tight_user(&scene, 0);
    let all: Vec<u32> = (1..=60).collect();
    let mut tx = writer.write();
    let (_, trace) = writer.trace(|_| fill(&mut tx, &all, 1).unwrap());
    assert_eq!(log_writes(&trace), []);
    tx.commit().unwrap();
    assert_eq!(writer.versions(), [1; 60]);
}

/// Pages that are changed again after a spill stay in their frames, and the
/// checksums behind them are made right.
pub(crate) fn a_spilled_page_is_overwritten_in_its_frame<B: Subject>() {
    let scene = Scene::<B>::new(6);
    let writer = tight_user(&scene, 3);
    writer.commit(&[5], 1);
    let mut tx = writer.write();
    for version in 2..=40 {
        fill(&mut tx, &[1, 2, 3, 4], version).unwrap();
        expect_pages::<B>(&tx, &[version; 4]);
    }
    tx.commit().unwrap();
    // Four pages, of which one is written a second time as the commit frame.
    assert_eq!(writer.header().max_frame(), 1 + 5);
    assert_eq!(writer.versions(), [40, 40, 40, 40, 1, 0]);
    expect_recovered(&scene, &[40, 40, 40, 40, 1, 0]);
    writer.commit(&[6], 41);
    expect_recovered(&scene, &[40, 40, 40, 40, 1, 41]);
    writer.checkpoint_all();
    assert_eq!(writer.versions(), [40, 40, 40, 40, 1, 41]);
}

/// A page whose newest frame is published gets another frame: readers are
/// using that one.
pub(crate) fn a_published_frame_is_not_overwritten_by_a_spill<B: Subject>() {
    let scene = Scene::<B>::new(4);
    let (writer, other) = (tight_user(&scene, 1), scene.user());
    other.commit(&[1, 2, 3], 1);
    let reader = other.read();
    let mut tx = writer.write();
    fill(&mut tx, &[1, 2, 3, 1], 2).unwrap();
    assert_eq!(crate::scene::versions::<B>(&reader), [1, 1, 1, 0]);
    tx.commit().unwrap();
    assert_eq!(crate::scene::versions::<B>(&reader), [1, 1, 1, 0]);
    assert_eq!(other.versions(), [2, 2, 2, 0]);
}

pub(crate) fn a_transaction_that_is_all_spilled_ends_with_a_commit_frame<B: Subject>() {
    let scene = Scene::<B>::new(3);
    let writer = scene.user();
    let mut tx = writer.write();
    fill(&mut tx, &[1, 2, 3, 4], 1).unwrap();
    tx.spill().unwrap();
    tx.commit().unwrap();
    assert_eq!(writer.versions(), [1; 4]);
    expect_recovered(&scene, &[1; 4]);
}

pub(crate) fn the_log_is_restarted_once_by_the_first_spill<B: Subject>() {
    let scene = Scene::<B>::new(4);
    let writer = tight_user(&scene, 1);
    writer.commit(&[1, 2, 3, 4], 1);
    writer.checkpoint_all();
    let salts = writer.header().salts();
    let mut tx = writer.write();
    fill(&mut tx, &[1, 2], 2).unwrap();
    let restarted = writer.header();
    assert_ne!(
        restarted.salts(),
        salts,
        "the spill did not restart the log"
    );
    assert_eq!(restarted.max_frame(), 0);
    fill(&mut tx, &[3, 4], 2).unwrap();
    expect_pages::<B>(&tx, &[2; 4]);
    tx.commit().unwrap();
    assert_eq!(writer.header().salts(), restarted.salts());
    assert_eq!(writer.header().max_frame(), 4);
    expect_recovered(&scene, &[2; 4]);
}

/// The header of the log before the first spilled frame, checksums before the
/// commit frame, and everything before the sync of the commit.
pub(crate) fn a_spilled_commit_is_written_and_synced_in_order<B: Subject>() {
    let scene = Scene::<B>::new(3);
    let writer = scene.user_at(Synchronous::Full);
    let (_, trace) = writer.trace(|writer| {
        let mut tx = writer.write();
        fill(&mut tx, &[1, 2, 3], 1).unwrap();
        tx.spill().unwrap();
        fill(&mut tx, &[2, 3], 2).unwrap();
        tx.commit().unwrap();
    });
    let write = |offset: u64, len: usize| Call::Write {
        file: Which::Log,
        offset,
        len,
    };
    let frame = |number: u64| 32 + (number - 1) * 536;
    let expected = [
        write(0, 32),
        Call::Sync(Which::Log),
        write(frame(1), 3 * 536),
        // Page 2 over its frame, and the checksums from there on.
        write(frame(2) + 24, 512),
        write(frame(2), 24),
        write(frame(3), 24),
        write(frame(4), 536),
        Call::Sync(Which::Log),
    ];
    assert_eq!(log_writes(&trace), expected);
    expect_recovered(&scene, &[1, 2, 2]);
}

pub(crate) fn a_rollback_after_a_spill_leaves_nothing_in_the_index<B: Subject>() {
    let scene = Scene::<B>::new(4);
    let (writer, other) = (tight_user(&scene, 1), scene.user());
    other.commit(&[1], 1);
    let header = other.header();
    for explicit in [true, false] {
        let mut tx = writer.write();
        fill(&mut tx, &[1, 2, 3, 4, 5], 2).unwrap();
        assert_eq!(entries_behind(&other), 4);
        if explicit {
            tx.rollback();
        } else {
            drop(tx);
        }
        assert_eq!(entries_behind(&other), 0, "explicit: {explicit}");
        assert_eq!(other.header(), header);
        assert_eq!(other.versions(), [1, 0, 0, 0]);
    }
    other.commit(&[3], 3);
    assert_eq!(writer.versions(), [1, 0, 3, 0]);
    expect_recovered(&scene, &[1, 0, 3, 0]);
}

pub(crate) fn a_rollback_names_every_page_that_was_changed<B: Subject>() {
    let scene = Scene::<B>::new(8);
    let writer = tight_user(&scene, 2);
    writer.commit(&[8], 1);
    let mut tx = writer.write();
    fill(&mut tx, &[2, 4, 5], 2).unwrap();
    tx.set_page_count(6).unwrap();
    tx.allocate().unwrap();
    let mut named = Vec::new();
    tx.rollback_with(|page| named.push(page.get())).unwrap();
    assert_eq!(named, [2, 4, 5, 7, 8]);
    assert_eq!(entries_behind(&writer), 0);
    scene.assert_quiet();
}

/// A spill that goes over the end of an index block, and back.
pub(crate) fn a_spill_across_blocks_is_rolled_back_and_done_again<B: Subject>() {
    let scene = Scene::<B>::new(100);
    let writer = tight_user(&scene, 64);
    let all: Vec<u32> = (1..=100).collect();
    for version in 1..=40 {
        writer.commit(&all, version);
    }
    let beyond: Vec<u32> = (1..=300).collect();
    let mut tx = writer.write();
    fill(&mut tx, &beyond, 41).unwrap();
    expect_pages::<B>(&tx, &[41; 300]);
    tx.rollback();
    assert_eq!(writer.versions(), [40; 100]);
    let mut tx = writer.write();
    fill(&mut tx, &beyond, 42).unwrap();
    fill(&mut tx, &all, 43).unwrap();
    tx.commit().unwrap();
    let expected: Vec<u32> = (1..=300)
        .map(|page| if page > 100 { 42 } else { 43 })
        .collect();
    assert_eq!(writer.versions(), expected);
    expect_recovered(&scene, &expected);
}

/// The write of the commit frame fails; what was spilled before stays without
/// it.
pub(crate) fn a_failed_commit_of_a_spilled_transaction_is_taken_back<B: Subject>() {
    const LAST: usize = 24 + 512;
    for written in [0, 24, LAST - 1, LAST] {
        let scene = Scene::<B>::new(3);
        let writer = tight_user(&scene, 1);
        writer.commit(&[1, 2, 3], 1);
        let mut tx = writer.write();
        fill(&mut tx, &[1, 2, 3], 2).unwrap();
        writer.then(
            |call| {
                matches!(
                    call,
                    Call::Write {
                        file: Which::Log,
                        len: LAST,
                        ..
                    }
                )
            },
            move || Then::FailAfter(written),
        );
        let failed = tx.commit();
        writer.assert_stepped_in();
        assert!(matches!(failed, Err(Error::Io { .. })), "{failed:?}");
        scene.assert_quiet();
        assert_eq!(writer.versions(), [1; 3]);
        assert_eq!(entries_behind(&writer), 0);
        expect_recovered(&scene, &[1; 3]);
        writer.commit(&[2], 3);
        expect_recovered(&scene, &[1, 3, 1]);
    }
}

/// A transaction in which the first or the second spill fails at call `n`;
/// false if there is no such call.
fn go_on_after_failed_spill<B: Subject>(n: usize, first: bool, commits: bool) -> bool {
    let scene = Scene::<B>::new(3);
    let (writer, other) = (scene.user(), scene.user());
    other.commit(&[1, 2, 3], 1);
    other.checkpoint_all();
    let mut tx = writer.write();
    fill(&mut tx, &[1, 2], 2).unwrap();
    if !first {
        tx.spill().unwrap();
    }
    fill(&mut tx, &[2, 3], 3).unwrap();
    fails_at(&writer, n);
    let spilled = tx.spill();
    if !writer.stepped_in() {
        return false;
    }
    assert!(spilled.is_err(), "call {n}: a failure was passed over");
    expect_pages::<B>(&tx, &[2, 3, 3]);
    let ended = if commits {
        tx.commit().map(|_| [2, 3, 3])
    } else {
        tx.rollback();
        Ok([1; 3])
    };
    let expected = match ended {
        // The sync of a log header is one of the calls.
        Err(Error::Poisoned { .. }) => [1; 3],
        ended => ended.unwrap(),
    };
    others_go_on(&scene, &other, n, &[expected]);
    true
}

/// A spill that fails costs nothing but itself, the first one of a log that
/// begins anew too.
pub(crate) fn a_transaction_goes_on_after_a_failed_spill<B: Subject>() {
    for (first, commits) in [(true, true), (true, false), (false, true), (false, false)] {
        at_every_call(|n| go_on_after_failed_spill::<B>(n, first, commits));
    }
}

/// Spills, overwrites a frame, and commits.
fn spill_and_commit<B: Subject>(writer: &User<B>) -> wal_core::Result<()> {
    let mut tx = writer.wal.begin_write(std::time::Duration::ZERO)?;
    fill(&mut tx, &[1, 3], 5)?;
    tx.spill()?;
    fill(&mut tx, &[1, 3], 2)?;
    tx.commit().map(drop)
}

pub(crate) fn a_spilling_writer_that_dies_at_any_call_commits_all_or_nothing<B: Subject>() {
    at_every_call(|n| {
        let scene = Scene::<B>::new(3);
        let (writer, other) = (scene.user_at(Synchronous::Full), scene.user());
        other.commit(&[1, 2, 3], 1);
        if !writer.dies(nth(n), |writer| spill_and_commit(writer).unwrap()) {
            return false;
        }
        others_go_on(&scene, &other, n, &[[1; 3], [2, 1, 2]]);
        true
    });
}

pub(crate) fn a_spilling_writer_that_dies_after_a_restart_loses_nothing<B: Subject>() {
    at_every_call(|n| {
        let scene = Scene::<B>::new(3);
        let (writer, other) = (scene.user_at(Synchronous::Full), scene.user());
        other.commit(&[1, 2, 3], 1);
        other.checkpoint_all();
        if !writer.dies(nth(n), |writer| spill_and_commit(writer).unwrap()) {
            return false;
        }
        others_go_on(&scene, &other, n, &[[1; 3], [2, 1, 2]]);
        true
    });
}

pub(crate) fn an_error_at_any_call_of_a_spilled_commit_leaves_no_lock<B: Subject>() {
    at_every_call(|n| {
        let scene = Scene::<B>::new(3);
        let (writer, other) = (scene.user_at(Synchronous::Full), scene.user());
        other.commit(&[1, 2, 3], 1);
        fails_at(&writer, n);
        let result = spill_and_commit(&writer);
        if !writer.stepped_in() {
            return false;
        }
        match result {
            Ok(()) => others_go_on(&scene, &other, n, &[[2, 1, 2]]),
            Err(Error::CommitOutcomeUnknown { .. }) => {
                others_go_on(&scene, &other, n, &[[1; 3], [2, 1, 2]]);
            }
            Err(_) => others_go_on(&scene, &other, n, &[[1; 3]]),
        }
        true
    });
}
