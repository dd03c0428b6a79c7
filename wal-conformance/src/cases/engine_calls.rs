//! Calls of an engine in orders and with arguments that no pager uses: each call is
//! right, or refused without an effect.

use super::engine_frames::{commit, read, write};
use super::spilling::{expect_recovered, number};
use crate::calls::{Call, Which};
use crate::director::{Then, at_every_call, nth};
use crate::scene::{Scene, User, Writing, content, fill};
use crate::subject::Subject;
use wal_core::error::{Error, Result};
use wal_core::types::{PageNo, ReadSlot};

/// A write of a page over the one in its frame: one page long, without a header.
fn overwrites_a_page(call: &Call) -> bool {
    matches!(
        call,
        Call::Write {
            file: Which::Log,
            len: 512,
            ..
        }
    )
}

/// A write of new frames.
fn appends(call: &Call) -> bool {
    matches!(call, Call::Write { file: Which::Log, len, .. } if *len >= 536)
}

/// The pages `numbers` with `version`, as [`WriteTx::commit_frames`] takes them.
fn try_commit<B: Subject>(
    tx: &mut Writing<B>,
    numbers: &[u32],
    version: u32,
    count: u32,
) -> Result<u32> {
    let pages: Vec<(PageNo, Vec<u8>)> = numbers
        .iter()
        .map(|&page| (number(page), content(page, version)))
        .collect();
    let pages: Vec<(PageNo, &[u8])> = pages.iter().map(|(no, page)| (*no, &**page)).collect();
    tx.commit_frames(&pages, count)
}

fn try_write<B: Subject>(tx: &mut Writing<B>, numbers: &[u32], version: u32) -> Result<()> {
    let pages: Vec<(PageNo, Vec<u8>)> = numbers
        .iter()
        .map(|&page| (number(page), content(page, version)))
        .collect();
    let pages: Vec<(PageNo, &[u8])> = pages.iter().map(|(no, page)| (*no, &**page)).collect();
    tx.append_frames_vectored(&pages)
}

#[track_caller]
fn expect_refused<T: std::fmt::Debug>(outcome: Result<T>) {
    assert!(matches!(outcome, Err(Error::Refused { .. })), "{outcome:?}");
}

#[track_caller]
fn expect_no_savepoint<T: std::fmt::Debug>(outcome: Result<T>) {
    assert!(
        matches!(outcome, Err(Error::NoSuchSavepoint)),
        "{outcome:?}"
    );
}

/// A scene with one commit, and a transaction that has pages 2 and 3 in the log.
fn begun<B: Subject>() -> (Scene<B>, User<B>, Writing<B>) {
    let scene = Scene::<B>::new(4);
    let writer = scene.user();
    writer.commit(&[1, 2, 3, 4], 1);
    let mut tx = writer.write();
    write::<B>(&mut tx, &[2, 3], 2);
    (scene, writer, tx)
}

/// A commit that fails at its last write has corrected the checksums in the log, and a
/// mark was taken before.
pub(crate) fn commit_after_failed_commit_and_cut_is_recovered<B: Subject>() {
    let (scene, writer, mut tx) = begun::<B>();
    let mark = tx.frames_mark();
    write::<B>(&mut tx, &[2, 4], 3);
    writer.then(appends, || Then::Fail);
    let failed = try_commit::<B>(&mut tx, &[1], 4, 4);
    assert!(matches!(failed, Err(Error::Io { .. })), "{failed:?}");
    writer.assert_stepped_in();
    tx.cut_frames(mark).unwrap();
    commit::<B>(&mut tx, &[1], 5, 4);
    drop(tx);
    assert_eq!(writer.versions(), [5, 3, 2, 1]);
    expect_recovered(&scene, &[5, 3, 2, 1]);
}

pub(crate) fn commit_of_no_pages_is_refused_and_keeps_frames<B: Subject>() {
    let (scene, writer, mut tx) = begun::<B>();
    let (mark, header) = (tx.frames_mark(), writer.header());
    expect_refused(tx.commit_frames(&[], 4));
    assert_eq!(writer.header(), header);
    assert_eq!(tx.frames_mark(), mark);
    assert_eq!(read::<B>(&tx, 2), Some(content(2, 2)));
    commit::<B>(&mut tx, &[1], 3, 4);
    drop(tx);
    assert_eq!(writer.versions(), [3, 2, 2, 1]);
    expect_recovered(&scene, &[3, 2, 2, 1]);
}

pub(crate) fn commit_of_wrong_size_is_refused_and_keeps_frames<B: Subject>() {
    let (scene, writer, mut tx) = begun::<B>();
    let header = writer.header();
    // No page at all; more than SQLite numbers; more than file and log can have.
    for count in [0, u32::MAX, 0xffff_fffe, 1_000_000] {
        expect_refused(try_commit::<B>(&mut tx, &[1], 3, count));
    }
    // A page behind the end.
    expect_refused(try_commit::<B>(&mut tx, &[1, 5], 3, 4));
    assert_eq!(writer.header(), header);
    commit::<B>(&mut tx, &[1], 3, 2);
    drop(tx);
    assert_eq!(writer.versions(), [3, 2]);
    expect_recovered(&scene, &[3, 2]);
    writer.checkpoint_all();
    assert_eq!(writer.versions(), [3, 2]);
}

pub(crate) fn frames_of_pages_that_hold_no_data_are_refused<B: Subject>() {
    let (_scene, writer, mut tx) = begun::<B>();
    let (header, mark) = (writer.header(), tx.frames_mark());
    let lock_bytes = writer.wal.config().page_size.lock_byte_page().get();
    for page in [lock_bytes, u32::MAX] {
        expect_refused(try_write::<B>(&mut tx, &[1, page], 3));
        expect_refused(try_commit::<B>(&mut tx, &[page], 3, 4));
    }
    for len in [0, 511, 513, 1024] {
        let page = vec![0; len];
        expect_refused(tx.append_frames_vectored(&[(number(1), &page)]));
        expect_refused(tx.commit_frames(&[(number(1), &page)], 4));
    }
    assert_eq!((writer.header(), tx.frames_mark()), (header, mark));
    assert_eq!(read::<B>(&tx, 1), Some(content(1, 1)));
}

pub(crate) fn frames_passed_twice_or_unsorted_hold_the_last_one<B: Subject>() {
    let (scene, writer, mut tx) = begun::<B>();
    let twice = |page: u32, one: u32, two: u32| {
        [
            (number(page), content(page, one)),
            (number(page), content(page, two)),
        ]
    };
    // New ones, those in the log already, and the last one of a commit.
    for (page, one, two) in [(4, 5, 6), (4, 7, 8), (2, 3, 4)] {
        let pages = twice(page, one, two);
        let pages = pages.each_ref().map(|(no, page)| (*no, &**page));
        tx.append_frames_vectored(&pages).unwrap();
        assert_eq!(read::<B>(&tx, page), Some(content(page, two)));
    }
    let pages = twice(3, 8, 9);
    let pages = pages.each_ref().map(|(no, page)| (*no, &**page));
    tx.commit_frames(&pages, 4).unwrap();
    assert_eq!(read::<B>(&tx, 3), Some(content(3, 9)));
    commit::<B>(&mut tx, &[4, 1], 10, 4);
    drop(tx);
    assert_eq!(writer.versions(), [10, 4, 9, 10]);
    expect_recovered(&scene, &[10, 4, 9, 10]);
}

pub(crate) fn mark_of_another_transaction_is_refused<B: Subject>() {
    let (scene, writer, tx) = begun::<B>();
    let other = tx.frames_mark();
    drop(tx);
    let mut tx = writer.write();
    let first = tx.frames_mark();
    write::<B>(&mut tx, &[3, 4, 1], 3);
    let third = tx.frames_mark();
    expect_no_savepoint(tx.cut_frames(other));
    assert_eq!(tx.frames_mark(), third);
    commit::<B>(&mut tx, &[2], 4, 4);
    // Another transaction begins with the commit.
    for mark in [first, third] {
        expect_no_savepoint(tx.cut_frames(mark));
    }
    write::<B>(&mut tx, &[2, 3, 4, 1], 5);
    for mark in [first, third] {
        expect_no_savepoint(tx.cut_frames(mark));
    }
    drop(tx);
    assert_eq!(writer.versions(), [3, 4, 3, 3]);
    expect_recovered(&scene, &[3, 4, 3, 3]);
}

pub(crate) fn mark_behind_a_cut_is_refused<B: Subject>() {
    let (scene, writer, mut tx) = begun::<B>();
    let second = tx.frames_mark();
    write::<B>(&mut tx, &[4], 3);
    let third = tx.frames_mark();
    tx.cut_frames(second).unwrap();
    expect_no_savepoint(tx.cut_frames(third));
    // As long as it was, and another one.
    write::<B>(&mut tx, &[1, 4], 4);
    expect_no_savepoint(tx.cut_frames(third));
    assert_eq!(read::<B>(&tx, 4), Some(content(4, 4)));
    tx.cut_frames(second).unwrap();
    tx.cut_frames(second).unwrap();
    assert_eq!(tx.frame_count(), 6);
    commit::<B>(&mut tx, &[1], 5, 4);
    drop(tx);
    assert_eq!(writer.versions(), [5, 2, 2, 1]);
    expect_recovered(&scene, &[5, 2, 2, 1]);
}

/// No commit includes a page that a failed call has overwritten in part.
pub(crate) fn page_overwritten_in_part_is_not_committed<B: Subject>() {
    for commits in [false, true] {
        for bytes in [0, 100, 512] {
            let (scene, writer, mut tx) = begun::<B>();
            writer.then(overwrites_a_page, move || Then::FailAfter(bytes));
            let failed = match commits {
                false => try_write::<B>(&mut tx, &[4, 2], 3),
                true => try_commit::<B>(&mut tx, &[2, 4], 3, 4).map(drop),
            };
            writer.assert_stepped_in();
            assert!(matches!(failed, Err(Error::Io { .. })), "{failed:?}");
            assert_eq!(read::<B>(&tx, 4), Some(content(4, 1)), "nothing was added");
            expect_refused(try_commit::<B>(&mut tx, &[1], 4, 4));
            match bytes {
                // The frames are cut.
                0 => drop(tx.undo_frames().unwrap()),
                // The page is passed again, before the commit or with it.
                100 => write::<B>(&mut tx, &[2], 5),
                _ => drop(commit::<B>(&mut tx, &[2], 5, 4)),
            }
            commit::<B>(&mut tx, &[1], 6, 4);
            drop(tx);
            let expected = match bytes {
                0 => [6, 1, 1, 1],
                _ => [6, 5, 2, 1],
            };
            assert_eq!(writer.versions(), expected);
            expect_recovered(&scene, &expected);
        }
    }
}

/// A page beyond the new end is not part of the commit.
pub(crate) fn page_overwritten_in_part_may_be_cut_off<B: Subject>() {
    let (scene, writer, mut tx) = begun::<B>();
    writer.then(overwrites_a_page, || Then::FailAfter(100));
    try_write::<B>(&mut tx, &[3], 3).expect_err("the write failed");
    commit::<B>(&mut tx, &[1], 4, 2);
    drop(tx);
    assert_eq!(writer.versions(), [4, 2]);
    expect_recovered(&scene, &[4, 2]);
}

/// The index entries of a failed call cannot be cleared at once. A frame behind them in a
/// chain would be lost when the next writer clears them.
pub(crate) fn entries_of_failed_call_hide_no_committed_frame<B: Subject>() {
    at_every_call(|n| {
        let (scene, writer, mut tx) = begun::<B>();
        let other = writer.clone();
        writer.then(appends, move || {
            other.then(nth(n), || Then::Fail);
            Then::Fail
        });
        // The chains of the last two begin at the slot of page 2.
        let pages = [1, 2 + 8192, 2 + 2 * 8192];
        try_write::<B>(&mut tx, &pages, 3).expect_err("the write failed");
        let came = writer.stepped_in();
        commit::<B>(&mut tx, &[2], 4, 4);
        drop(tx);
        assert_eq!(writer.versions(), [1, 4, 2, 1], "call {n}");
        writer.commit(&[1], 5);
        assert_eq!(writer.versions(), [5, 4, 2, 1], "call {n}");
        expect_recovered(&scene, &[5, 4, 2, 1]);
        came
    });
}

pub(crate) fn changed_pages_beside_frames_are_refused<B: Subject>() {
    let (scene, writer, mut tx) = begun::<B>();
    let outside = tx.savepoint();
    expect_refused(tx.page_mut(number(1)).map(drop));
    expect_refused(tx.allocate());
    expect_refused(tx.set_page_count(2));
    expect_refused(tx.rewrite(false, |_, new| new.push(&[0; 512]).map(drop)));
    tx.rollback_to(outside).unwrap();
    // Where a savepoint is, frames are not changed.
    let mark = tx.frames_mark();
    expect_refused(try_write::<B>(&mut tx, &[2], 3));
    expect_refused(try_commit::<B>(&mut tx, &[2], 3, 4));
    expect_refused(tx.cut_frames(mark));
    expect_refused(tx.undo_frames());
    tx.release(outside).unwrap();
    assert_eq!(read::<B>(&tx, 2), Some(content(2, 2)));
    tx.undo_frames().unwrap();
    // Nothing is there any more, so pages can be changed.
    fill(&mut tx, &[4], 5).unwrap();
    expect_refused(try_write::<B>(&mut tx, &[2], 3));
    tx.spill().unwrap();
    expect_refused(try_write::<B>(&mut tx, &[2], 3));
    expect_refused(try_commit::<B>(&mut tx, &[2], 3, 4));
    expect_refused(tx.cut_frames(mark));
    expect_refused(tx.undo_frames());
    tx.commit().unwrap();
    assert_eq!(writer.versions(), [1, 1, 1, 5]);
    expect_recovered(&scene, &[1, 1, 1, 5]);
    let mut tx = writer.write();
    tx.set_page_count(3).unwrap();
    expect_refused(try_write::<B>(&mut tx, &[2], 3));
    tx.commit().unwrap();
    assert_eq!(writer.versions(), [1, 1, 1]);
}

pub(crate) fn frames_without_their_size_are_not_committed<B: Subject>() {
    let (scene, writer, mut tx) = begun::<B>();
    write::<B>(&mut tx, &[5], 2);
    let header = writer.header();
    expect_refused(tx.commit());
    assert_eq!(writer.header(), header);
    assert_eq!(writer.versions(), [1, 1, 1, 1]);
    writer.commit(&[4], 3);
    expect_recovered(&scene, &[1, 1, 1, 3]);
}

pub(crate) fn transaction_after_commit_of_frames_has_changed_nothing<B: Subject>() {
    let (scene, writer, mut tx) = begun::<B>();
    let before = tx.savepoint();
    expect_refused(try_commit::<B>(&mut tx, &[5, 6], 3, 6));
    tx.release(before).unwrap();
    commit::<B>(&mut tx, &[5, 6], 3, 6);
    assert_eq!(tx.undo_frames().unwrap().len(), 0);
    expect_no_savepoint(tx.rollback_to(before));
    let mut undone = Vec::new();
    tx.rollback_with(|page| undone.push(page.get())).unwrap();
    assert_eq!(undone, [0; 0]);
    let mut tx = writer.write();
    commit::<B>(&mut tx, &[1], 4, 2);
    fill(&mut tx, &[2, 3], 5).unwrap();
    tx.commit().unwrap();
    assert_eq!(writer.versions(), [4, 5, 5]);
    expect_recovered(&scene, &[4, 5, 5]);
}

/// SQLite does not write a page that it adds and frees in one transaction. Other snapshots
/// at slot 0 have all pages in the database file.
pub(crate) fn page_that_was_not_passed_is_read_by_its_committer<B: Subject>() {
    let scene = Scene::<B>::new(3);
    let (writer, other) = scene.two();
    writer.commit(&[1, 2, 3], 1);
    let at_a_mark = other.read();
    writer.checkpoint_all();
    let mut tx = writer.read().upgrade().expect("it is not stale");
    assert_eq!(tx.snapshot().slot(), Some(ReadSlot::DATABASE));
    commit::<B>(&mut tx, &[1], 2, 5);
    let as_read = tx.as_read().page(number(5)).map(|page| page.to_vec());
    assert_eq!(as_read.unwrap(), vec![0; 512]);
    let read = tx.into_read().unwrap();
    assert_eq!(*read.page(number(5)).unwrap(), [0; 512]);
    drop((read, at_a_mark));
    writer.checkpoint_all();
    assert_eq!(*writer.read().page(number(5)).unwrap(), [0; 512]);
}
