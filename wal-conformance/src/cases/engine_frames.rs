//! Write transactions of an engine that gives its pages as frames.

use super::spilling::{expect_recovered, number};
use crate::calls::{Call, Which};
use crate::director::Then;
use crate::scene::{Scene, User, Writing, content};
use crate::subject::Subject;
use wal_core::coordination::WalCoordination;
use wal_core::error::Error;
use wal_core::protocol::{CheckpointMode, ReadTx, Synchronous};
use wal_core::types::FrameNo;

/// The pages `numbers` with `version`.
pub(super) fn pages(numbers: &[u32], version: u32) -> Vec<(u32, Vec<u8>)> {
    let page = |&page: &u32| (page, content(page, version));
    numbers.iter().map(page).collect()
}

pub(super) fn write<B: Subject>(tx: &mut Writing<B>, numbers: &[u32], version: u32) {
    let pages = pages(numbers, version);
    let slices: Vec<_> = pages
        .iter()
        .map(|(n, page)| (number(*n), &page[..]))
        .collect();
    tx.append_frames_vectored(&slices)
        .expect("the frames are written");
}

pub(super) fn commit<B: Subject>(
    tx: &mut Writing<B>,
    numbers: &[u32],
    version: u32,
    count: u32,
) -> u32 {
    let pages = pages(numbers, version);
    let slices: Vec<_> = pages
        .iter()
        .map(|(n, page)| (number(*n), &page[..]))
        .collect();
    tx.commit_frames(&slices, count)
        .expect("the frames are committed")
}

/// What an engine reads of `page` in the log; `None` for one that is in the
/// database file.
pub(super) fn read<B: Subject>(tx: &Writing<B>, page: u32) -> Option<Vec<u8>> {
    let frame = tx.find_frame(number(page)).unwrap()?;
    let mut bytes = vec![0; 512];
    tx.read_frame(frame, &mut bytes).unwrap();
    Some(bytes)
}

fn read_on<C: WalCoordination>(tx: &ReadTx<C>, page: u32) -> Option<Vec<u8>> {
    let frame = tx.find_frame(number(page)).unwrap()?;
    let mut bytes = vec![0; 512];
    tx.read_frame(frame, &mut bytes).unwrap();
    Some(bytes)
}

pub(crate) fn frames_of_an_engine_are_overwritten_cut_and_committed<B: Subject>() {
    let scene = Scene::<B>::new(4);
    let (writer, reader) = scene.two();
    writer.commit(&[4], 1);
    let mut tx = writer.write();
    write::<B>(&mut tx, &[2, 3], 2);
    let mark = tx.frames_mark();
    write::<B>(&mut tx, &[3, 4], 3);
    write::<B>(&mut tx, &[4], 4);
    assert_eq!(read::<B>(&tx, 3), Some(content(3, 3)));
    assert_eq!(read::<B>(&tx, 4), Some(content(4, 4)));
    assert_eq!(
        tx.frames_mark().to_words()[0],
        3,
        "two frames were overwritten"
    );
    assert_eq!(tx.frame_count(), 4);
    assert_eq!(reader.versions(), [0, 0, 0, 1], "nobody else sees them");
    tx.cut_frames(mark).unwrap();
    assert_eq!(tx.frame_count(), 3);
    assert_eq!(read::<B>(&tx, 4), Some(content(4, 1)));
    // The engine has what page 3 was at the mark, and writes it again.
    assert_eq!(commit::<B>(&mut tx, &[3, 5], 5, 5), 4);
    drop(tx);
    assert_eq!(reader.versions(), [0, 2, 5, 1, 5]);
    expect_recovered(&scene, &[0, 2, 5, 1, 5]);
}

pub(crate) fn frames_that_are_undone_are_named_and_leave_nothing<B: Subject>() {
    let scene = Scene::<B>::new(3);
    let writer = scene.user();
    writer.commit(&[3], 1);
    let header = writer.header();
    let mut tx = writer.write();
    write::<B>(&mut tx, &[1, 3], 2);
    write::<B>(&mut tx, &[2], 2);
    let undone: Vec<u32> = tx
        .undo_frames()
        .unwrap()
        .iter()
        .map(|page| page.get())
        .collect();
    assert_eq!(undone, [1, 2, 3]);
    assert_eq!(read::<B>(&tx, 2), None);
    assert_eq!(read::<B>(&tx, 3), Some(content(3, 1)));
    let going_on = tx.into_read().unwrap();
    assert_eq!(read_on(&going_on, 3), Some(content(3, 1)));
    assert_eq!(writer.header(), header);
    writer.commit(&[1], 4);
    assert_eq!(writer.versions(), [4, 0, 1]);
}

pub(crate) fn a_mark_of_frames_outlives_a_restart_of_the_log<B: Subject>() {
    let scene = Scene::<B>::new(3);
    let writer = scene.user();
    writer.commit(&[1, 2, 3], 1);
    writer.checkpoint_all();
    let mut tx = writer.write();
    let mark = tx.frames_mark();
    write::<B>(&mut tx, &[2], 2);
    assert_eq!(tx.snapshot().max_frame(), 0, "the log has begun anew");
    tx.cut_frames(mark).unwrap();
    assert_eq!(read::<B>(&tx, 2), None);
    assert_eq!(commit::<B>(&mut tx, &[3], 3, 3), 1);
    drop(tx);
    assert_eq!(writer.versions(), [1, 1, 3]);
    expect_recovered(&scene, &[1, 1, 3]);
}

/// At a slot with a mark, at slot 0, and over a restart of the log.
fn in_each_state<B: Subject>(act: impl Fn(&Scene<B>, &User<B>, &User<B>)) {
    for (checkpointed, read_by_other) in [(false, false), (true, true), (true, false)] {
        let scene = Scene::<B>::new(3);
        let (writer, other) = scene.two();
        writer.commit(&[1, 2, 3], 1);
        // Who reads at a mark keeps the log from beginning anew.
        let at_a_mark = read_by_other.then(|| other.read());
        if checkpointed {
            writer.checkpoint_all();
        }
        act(&scene, &writer, &other);
        drop(at_a_mark);
    }
}

pub(crate) fn a_committed_transaction_goes_on_reading_at_its_commit<B: Subject>() {
    in_each_state::<B>(|scene, writer, other| {
        let mut tx = writer.write();
        commit::<B>(&mut tx, &[2], 2, 3);
        assert_eq!(read::<B>(&tx, 2), Some(content(2, 2)));
        let going_on = tx.into_read().unwrap();
        assert_eq!(read_on(&going_on, 2), Some(content(2, 2)));
        assert!(!going_on.is_stale().unwrap());
        let mut tx = going_on.upgrade().expect("it is not stale");
        commit::<B>(&mut tx, &[3, 4], 3, 4);
        assert_eq!(read::<B>(&tx, 2), Some(content(2, 2)));
        assert_eq!(read::<B>(&tx, 4), Some(content(4, 3)));
        drop(tx);
        assert_eq!(other.versions(), [1, 2, 3, 3]);
        expect_recovered(scene, &[1, 2, 3, 3]);
    });
}

pub(crate) fn what_an_engine_reads_on_is_not_overwritten<B: Subject>() {
    in_each_state::<B>(|_, writer, other| {
        let mut tx = writer.write();
        commit::<B>(&mut tx, &[2], 2, 3);
        let going_on = tx.into_read().unwrap();
        for version in 3..9 {
            // Whoever can moves frames, and begins the log anew.
            let _ = other.wal.checkpoint(CheckpointMode::Restart).unwrap();
            other.commit(&[1, 2, 3], version);
        }
        assert_eq!(read_on(&going_on, 2), Some(content(2, 2)));
        assert_eq!(*going_on.page(number(3)).unwrap(), *content(3, 1));
        assert_eq!(*going_on.page(number(1)).unwrap(), *content(1, 1));
        drop(going_on);
        assert_eq!(other.versions(), [8, 8, 8]);
    });
}

pub(crate) fn frames_that_could_not_be_written_hide_none_that_are_committed<B: Subject>() {
    for commits in [false, true] {
        let scene = Scene::<B>::new(3);
        let (writer, other) = scene.two();
        writer.commit(&[1, 2, 3], 1);
        let mut tx = writer.write();
        let pages = pages(&[2, 3], 2);
        let slices: Vec<_> = pages
            .iter()
            .map(|(n, page)| (number(*n), &page[..]))
            .collect();
        let writes_log =
            |call: &Call| matches!(call, Call::Write { file, .. } if *file == Which::Log);
        writer.then(writes_log, || Then::Fail);
        let failed = match commits {
            false => tx.append_frames_vectored(&slices).map(|()| 0),
            true => tx.commit_frames(&slices, 3),
        };
        assert!(matches!(failed, Err(Error::Io { .. })), "{failed:?}");
        commit::<B>(&mut tx, &[3], 3, 3);
        drop(tx);
        assert_eq!(other.versions(), [1, 1, 3]);
        // Who writes next takes out of the index what is behind the log.
        other.commit(&[1], 4);
        assert_eq!(other.versions(), [4, 1, 3]);
    }
}

pub(crate) fn only_frames_that_are_kept_in_the_log_are_read<B: Subject>() {
    in_each_state::<B>(|_, writer, other| {
        let read = writer.read();
        let read_by = |read: &ReadTx<_>, frame: u32| {
            let frame = FrameNo::new(frame).unwrap();
            let raw = read.read_raw_frame(frame, &mut [0; 16]);
            let page = read.read_frame(frame, &mut [0; 16]);
            assert_eq!(raw.is_ok(), page.is_ok());
            page
        };
        let are_kept = !read.snapshot().bypasses_log();
        assert_eq!(read_by(&read, 1).is_ok(), are_kept);
        let behind = read.snapshot().max_frame() + 1;
        // Whether there is such a frame or not.
        for _ in 0..2 {
            let refused = read_by(&read, behind);
            assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
            other.commit(&[1], 2);
        }
        assert_eq!(read_by(&read, 1).is_ok(), are_kept);
    });
}

pub(crate) fn pages_of_another_size_are_refused_as_frames<B: Subject>() {
    let scene = Scene::<B>::new(1);
    let writer = scene.user();
    let mut tx = writer.write();
    let refused = tx.append_frames_vectored(&[(number(1), &[0; 100])]);
    assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
    drop(tx);
    assert_eq!(writer.header().max_frame(), 0);
}

pub(crate) fn a_proof_without_a_sync_does_not_serve_who_syncs_now<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let user = scene.user_at(Synchronous::Off);
    user.commit(&[1, 2], 1);
    user.checkpoint_all();
    user.wal.tuning().set_synchronous(Synchronous::Full);
    let ((), calls) = user.trace(|user| user.commit(&[1], 2));
    assert!(calls.contains(&Call::Sync(Which::Database)), "{calls:?}");
    assert_eq!(user.header().max_frame(), 1, "the log has begun anew");
}
