//! The index is rebuilt from the log, which is the truth.

use super::deaths::others_go_on;
use crate::calls::Call;
use crate::director::{at_every_call, nth};
use crate::scene::{Scene, content, versions};
use crate::subject::Subject;
use std::sync::atomic::Ordering;
use wal_core::error::Error;
use wal_core::format::{ByteOrder, LOG_HEADER_LEN, LogHeader};
use wal_core::testing::index;
use wal_core::types::{Lock, LockMode, PageSize, Salts};

const FRAME: usize = 24 + 512;

/// A log of three transactions: pages 1 and 2, pages 2 and 3, page 1.
fn three_transactions<B: Subject>() -> (Vec<u8>, Vec<u8>) {
    let scene = Scene::<B>::new(3);
    let writer = scene.user();
    writer.commit(&[1, 2], 1);
    writer.commit(&[2, 3], 2);
    writer.commit(&[1], 3);
    scene.files()
}

/// What the first `frames` frames of that log commit to.
fn committed(frames: usize) -> [u32; 3] {
    match frames {
        0 | 1 => [0, 0, 0],
        2 | 3 => [1, 1, 0],
        4 => [1, 2, 2],
        _ => [3, 2, 2],
    }
}

pub(crate) fn a_lost_index_is_rebuilt_from_the_log<B: Subject>() {
    let (database, log) = three_transactions::<B>();
    let scene = Scene::<B>::from_files(&database, Some(&log));
    let user = scene.user();
    assert_eq!(user.versions(), committed(5));
    assert_eq!(user.header().max_frame(), 5);
    assert_eq!(user.header().page_count(), 3);
}

pub(crate) fn garbage_in_the_index_is_replaced_by_what_the_log_says<B: Subject>() {
    let mut rng = fastrand::Rng::with_seed(11);
    for _ in 0..20 {
        let scene = Scene::<B>::new(3);
        let writer = scene.user();
        writer.commit(&[1, 2], 1);
        writer.commit(&[2, 3], 2);
        let block = writer.writable_block_zero();
        for at in 0..index::header_words(block) {
            index::store_word(block, at, rng.u32(..), Ordering::Relaxed);
        }
        for place in 0..index::pages(block, 0).len() {
            index::store_page(block, 0, place, rng.u32(..));
        }
        for at in 0..index::slots(block).len() {
            index::store_slot(block, at, rng.u16(..));
        }
        assert_eq!(writer.versions(), [1, 2, 2]);
        writer.commit(&[1], 3);
        writer.checkpoint_all();
        assert_eq!(writer.versions(), [3, 2, 2]);
    }
}

pub(crate) fn a_damaged_header_is_mended_while_readers_stay<B: Subject>() {
    let scene = Scene::<B>::new(3);
    let (writer, reader) = scene.two();
    writer.commit(&[1, 2], 1);
    let early = reader.read();
    let mark = writer.mark(early.snapshot().slot().unwrap());
    writer.commit(&[2, 3], 2);
    writer.damage_header();
    assert_eq!(writer.versions(), [1, 2, 2]);
    assert_eq!(
        writer.mark(early.snapshot().slot().unwrap()),
        mark,
        "the mark of a reader moved"
    );
    assert_eq!(versions::<B>(&early), [1, 1, 0]);
    let report = writer.checkpoint();
    assert_eq!(report.backfilled, 2, "the checkpoint passed a reader");
    assert_eq!(versions::<B>(&early), [1, 1, 0]);
}

pub(crate) fn a_recovery_resets_the_backfilled_count<B: Subject>() {
    let scene = Scene::<B>::new(3);
    let writer = scene.user();
    writer.commit(&[1, 2], 1);
    writer.checkpoint_all();
    assert_eq!(writer.backfilled(), 2);
    writer.damage_header();
    assert_eq!(writer.versions(), [1, 1, 0]);
    assert_eq!(writer.backfilled(), 0);
    writer.checkpoint_all();
    assert_eq!(writer.versions(), [1, 1, 0]);
}

pub(crate) fn a_log_torn_at_any_byte_gives_the_committed_prefix<B: Subject>() {
    let (database, log) = three_transactions::<B>();
    let first = LOG_HEADER_LEN + 2 * FRAME;
    for len in first..=log.len() {
        let scene = Scene::<B>::from_files(&database, Some(&log[..len]));
        let whole = (len - LOG_HEADER_LEN) / FRAME;
        assert_eq!(scene.user().versions(), committed(whole), "{len} bytes");
    }
}

pub(crate) fn a_log_with_any_byte_changed_gives_the_committed_prefix<B: Subject>() {
    let (database, log) = three_transactions::<B>();
    for at in (LOG_HEADER_LEN..log.len())
        .step_by(7)
        .chain(0..LOG_HEADER_LEN)
    {
        // The version of the format is checked last: a change there is seen
        // by the checksum first.
        let mut changed = log.clone();
        changed[at] ^= 0x10;
        let scene = Scene::<B>::from_files(&database, Some(&changed));
        let sound = at.checked_sub(LOG_HEADER_LEN).map_or(0, |at| at / FRAME);
        assert_eq!(scene.user().versions(), committed(sound), "byte {at}");
    }
}

pub(crate) fn frames_without_their_commit_are_not_recovered<B: Subject>() {
    let (database, log) = three_transactions::<B>();
    for frames in 0..=5 {
        let cut = &log[..LOG_HEADER_LEN + frames * FRAME];
        let scene = Scene::<B>::from_files(&database, Some(cut));
        let user = scene.user();
        assert_eq!(user.versions(), committed(frames), "{frames} frames");
        assert_eq!(user.header().max_frame(), [0, 0, 2, 2, 4, 5][frames]);
    }
}

pub(crate) fn a_log_of_many_blocks_is_recovered<B: Subject>() {
    let scene = Scene::<B>::new(100);
    let writer = scene.user();
    let all: Vec<u32> = (1..=100).collect();
    for version in 1..=90 {
        writer.commit(&all, version);
    }
    writer.commit(&[50], 91);
    let mut expected = vec![90; 100];
    expected[49] = 91;
    let (database, log) = scene.files();
    let recovered = Scene::<B>::from_files(&database, Some(&log));
    let user = recovered.user();
    assert_eq!(user.versions(), expected);
    assert_eq!(user.header().max_frame(), 9001);
    user.checkpoint_all();
    assert_eq!(user.versions(), expected);
}

pub(crate) fn a_log_without_a_valid_header_is_empty<B: Subject>() {
    let database = content(1, 5);
    let header = LogHeader {
        byte_order: ByteOrder::NATIVE,
        page_size: PageSize::MIN,
        sequence: 0,
        salts: Salts::random(),
    };
    let (header, _) = header.encode();
    for log in [&[][..], &[0; 31], &[0xff; 4096], &header] {
        let scene = Scene::<B>::from_files(&database, Some(log));
        let user = scene.user();
        assert_eq!(user.versions(), [5]);
        user.commit(&[1, 2], 6);
        let (database, log) = scene.files();
        let again = Scene::<B>::from_files(&database, Some(&log));
        assert_eq!(again.user().versions(), [6, 6]);
    }
}

pub(crate) fn the_log_grows_and_restarts_after_a_recovery<B: Subject>() {
    let (database, log) = three_transactions::<B>();
    let scene = Scene::<B>::from_files(&database, Some(&log));
    let user = scene.user();
    user.commit(&[3], 4);
    assert_eq!(
        user.header().max_frame(),
        6,
        "frames are added to the recovered log"
    );
    let (database, log) = scene.files();
    let again = Scene::<B>::from_files(&database, Some(&log));
    let user = again.user();
    assert_eq!(user.versions(), [3, 2, 4]);
    user.checkpoint_all();
    user.commit(&[1], 5);
    assert_eq!(user.header().max_frame(), 1, "the log begins anew");
    assert_eq!(user.versions(), [5, 2, 4]);
    let (database, log) = again.files();
    let last = Scene::<B>::from_files(&database, Some(&log));
    assert_eq!(last.user().versions(), [5, 2, 4]);
}

/// Another page size than the database's: its pages would lie across each other.
pub(crate) fn log_of_another_page_size_is_refused<B: Subject>() {
    let (_, log) = three_transactions::<B>();
    let scene = Scene::<B>::from_files(&[0; 2048], Some(&log));
    let user = scene.user_with(|config| {
        config.page_size = PageSize::new(1024).expect("a page size");
    });
    let refused = user.wal.begin_read();
    let expected = matches!(
        refused,
        Err(Error::PageSizeMismatch {
            expected: 1024,
            found: 512,
            ..
        })
    );
    assert!(expected, "{refused:?}");
    scene.assert_quiet();
}

/// Another reader has recovered the log before `WRITE` is taken for that.
pub(crate) fn log_that_was_recovered_meanwhile_is_not_recovered_again<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (reader, other) = scene.two();
    other.commit(&[1, 2], 1);
    other.damage_header();
    let first = other.clone();
    reader.before(
        |call| *call == Call::TryLock(Lock::Write, LockMode::Exclusive),
        move || {
            assert_eq!(first.versions(), [1, 1]);
            first.checkpoint_all();
        },
    );
    assert_eq!(reader.versions(), [1, 1]);
    reader.assert_stepped_in();
    assert_eq!(reader.backfilled(), 2, "the count was set back");
}

/// Nothing of the index is right, its header included, and a recovery dies at each of its
/// calls. What it has not come to is believed by no other user.
pub(crate) fn garbage_is_not_believed_whenever_its_recovery_dies<B: Subject>() {
    let mut rng = fastrand::Rng::with_seed(12);
    at_every_call(|n| {
        let scene = Scene::<B>::new(3);
        let (one, other) = scene.two();
        other.commit(&[1, 2], 1);
        other.commit(&[2, 3], 2);
        let block = other.writable_block_zero();
        for place in 0..index::pages(block, 0).len() {
            index::store_page(block, 0, place, rng.u32(..4));
        }
        other.damage_header();
        index::set_attempted(block, 0);
        other.leave_count(4);
        if !one.dies(nth(n), |one| drop(one.versions())) {
            return false;
        }
        others_go_on(&scene, &other, n, &[[1, 2, 2]]);
        true
    });
}
