//! What a reader sees, and through which slot.

use crate::calls::{Awaited, Call};
use crate::scene::{Scene, User, content, version, versions};
use crate::subject::Subject;
use wal_core::coordination::WalCoordination;
use wal_core::types::{PageNo, ReadSlot};

pub(crate) fn a_reader_keeps_its_snapshot_while_others_commit<B: Subject>() {
    let scene = Scene::<B>::new(4);
    let (writer, reader) = scene.two();
    writer.commit(&[1, 2], 1);
    let first = reader.read();
    writer.commit(&[2, 3, 5], 2);
    let second = reader.read();
    writer.commit(&[1, 2, 3, 4, 5], 3);
    assert_eq!(versions::<B>(&first), [1, 1, 0, 0]);
    assert_eq!(versions::<B>(&second), [1, 2, 2, 0, 2]);
    assert_eq!(reader.versions(), [3; 5]);
    assert!(first.is_stale().unwrap() && second.is_stale().unwrap());
    drop((first, second));
    scene.assert_quiet();
}

pub(crate) fn a_reader_keeps_its_snapshot_while_others_checkpoint<B: Subject>() {
    let scene = Scene::<B>::new(3);
    let (writer, reader) = scene.two();
    let before_all = reader.read();
    assert!(before_all.snapshot().bypasses_log());
    writer.commit(&[1, 2], 1);
    writer.checkpoint();
    let first = reader.read();
    writer.commit(&[2, 3], 2);
    writer.checkpoint();
    assert_eq!(versions::<B>(&before_all), [0; 3]);
    assert_eq!(versions::<B>(&first), [1, 1, 0]);
    drop(before_all);
    writer.checkpoint();
    assert_eq!(versions::<B>(&first), [1, 1, 0]);
    drop(first);
    writer.checkpoint_all();
    assert_eq!(reader.versions(), [1, 2, 2]);
}

/// More frames than two blocks of the index have room for, with a reader at
/// many points of the way.
pub(crate) fn the_newest_version_up_to_the_snapshot_is_found_across_blocks<B: Subject>() {
    const PAGES: u32 = 90;
    let scene = Scene::<B>::new(PAGES);
    let (writer, reader) = scene.two();
    let all: Vec<u32> = (1..=PAGES).collect();
    writer.commit(&all, 1);
    let early = reader.read();
    let mut expected = vec![1; PAGES as usize];
    let mut rng = fastrand::Rng::with_seed(7);
    let mut latest = 1;
    while writer.header().max_frame() < 4062 + 4096 + 200 {
        latest += 1;
        let some: Vec<u32> = all.iter().copied().filter(|_| rng.u8(..) < 100).collect();
        writer.commit(&some, latest);
        for page in some {
            expected[page as usize - 1] = latest;
        }
        if latest % 29 == 0 {
            assert_eq!(reader.versions(), expected, "after version {latest}");
        }
    }
    assert_eq!(reader.versions(), expected);
    assert_eq!(versions::<B>(&early), vec![1; PAGES as usize]);
    drop(early);
    writer.checkpoint_all();
    assert_eq!(reader.versions(), expected, "after the checkpoint");
}

pub(crate) fn a_mark_is_never_above_its_snapshot<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (writer, reader) = scene.two();
    let mut open = Vec::new();
    for version in 1..12 {
        writer.commit(&[1, 2], version);
        let tx = reader.read();
        let (slot, max_frame) = (tx.snapshot().slot().unwrap(), tx.snapshot().max_frame());
        assert_ne!(slot, ReadSlot::DATABASE, "not all is backfilled");
        let mark = reader.mark(slot);
        assert!(mark <= max_frame, "mark {mark} is above frame {max_frame}");
        open.push((version, tx));
        if version % 3 == 0 {
            open.remove(0);
        }
    }
    for (version, tx) in &open {
        assert_eq!(versions::<B>(tx), [*version; 2]);
    }
}

pub(crate) fn more_readers_than_slots_share_marks<B: Subject>() {
    let scene = Scene::<B>::new(1);
    let (writer, reader) = scene.two();
    let mut readers = Vec::new();
    for version in 1..=20 {
        writer.commit(&[1], version);
        readers.push((version, reader.read()));
    }
    writer.checkpoint();
    for (expected, tx) in &readers {
        assert_eq!(version::<B>(tx, 1), *expected);
    }
    drop(readers);
    scene.assert_quiet();
}

pub(crate) fn a_reader_bypasses_a_log_that_is_backfilled<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (writer, reader) = scene.two();
    writer.commit(&[1], 1);
    assert!(!reader.read().snapshot().bypasses_log());
    writer.checkpoint_all();
    let tx = reader.read();
    assert!(tx.snapshot().bypasses_log());
    assert_eq!(tx.find_frame(PageNo::ONE).unwrap(), None);
    assert_eq!(versions::<B>(&tx), [1, 0]);
}

/// Whoever is told of a commit, or sees its header, finds its frames: the
/// index is there before the header.
pub(crate) fn a_commit_is_found_from_the_moment_it_is_told<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (writer, reader) = scene.two();
    writer.commit(&[1], 1);
    let told = |call: &Call| *call == Call::Wake(Awaited::Commit);
    let reads = {
        let reader: User<B> = reader.clone();
        move || {
            let tx = reader.read();
            let found = tx.find_frame(PageNo::new(2).unwrap()).unwrap();
            assert!(found.is_some(), "the header is there and the index is not");
            assert_eq!(
                *tx.page(PageNo::new(2).unwrap()).unwrap(),
                content(2, 2)[..]
            );
        }
    };
    writer.before(told, reads);
    // Somebody sleeps, so there is somebody to be told.
    let wait_state = writer.wal.coordination().wait_state();
    wait_state.expect("a wait state").commits().prepare_wait();
    writer.commit(&[1, 2], 2);
    writer.assert_stepped_in();
}
