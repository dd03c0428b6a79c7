//! The index is rebuilt from the log, which is the truth.

use super::super::Backend;
use super::super::scene::{Scene, content, versions};
use crate::format::{ByteOrder, LOG_HEADER_LEN, LogHeader};
use crate::sync::Ordering;
use crate::types::{PageSize, Salts};

const FRAME: usize = 24 + 512;

/// A log of three transactions: pages 1 and 2, pages 2 and 3, page 1.
fn three_transactions<B: Backend>() -> (Vec<u8>, Vec<u8>) {
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

pub(crate) fn a_lost_index_is_rebuilt_from_the_log<B: Backend>() {
    let (database, log) = three_transactions::<B>();
    let scene = Scene::<B>::from_files(&database, Some(&log));
    let user = scene.user();
    assert_eq!(user.versions(), committed(5));
    assert_eq!(user.header().max_frame(), 5);
    assert_eq!(user.header().page_count(), 3);
}

pub(crate) fn garbage_in_the_index_is_replaced_by_what_the_log_says<B: Backend>() {
    let mut rng = fastrand::Rng::with_seed(11);
    for _ in 0..20 {
        let scene = Scene::<B>::new(3);
        let writer = scene.user();
        writer.commit(&[1, 2], 1);
        writer.commit(&[2, 3], 2);
        let block = writer.writable_block_zero();
        for at in 0..block.header_words().len() {
            block.store_word(at, rng.u32(..), Ordering::Relaxed);
        }
        for place in 0..block.pages(0).len() {
            block.store_page(0, place, rng.u32(..), Ordering::Relaxed);
        }
        for at in 0..block.slots().len() {
            block.store_slot(at, rng.u16(..), Ordering::Relaxed);
        }
        assert_eq!(writer.versions(), [1, 2, 2]);
        writer.commit(&[1], 3);
        writer.checkpoint_all();
        assert_eq!(writer.versions(), [3, 2, 2]);
    }
}

pub(crate) fn a_damaged_header_is_mended_while_readers_stay<B: Backend>() {
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

pub(crate) fn a_recovery_resets_the_backfilled_count<B: Backend>() {
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

pub(crate) fn a_log_torn_at_any_byte_gives_the_committed_prefix<B: Backend>() {
    let (database, log) = three_transactions::<B>();
    let first = LOG_HEADER_LEN + 2 * FRAME;
    for len in first..=log.len() {
        let scene = Scene::<B>::from_files(&database, Some(&log[..len]));
        let whole = (len - LOG_HEADER_LEN) / FRAME;
        assert_eq!(scene.user().versions(), committed(whole), "{len} bytes");
    }
}

pub(crate) fn a_log_with_any_byte_changed_gives_the_committed_prefix<B: Backend>() {
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

pub(crate) fn frames_without_their_commit_are_not_recovered<B: Backend>() {
    let (database, log) = three_transactions::<B>();
    for frames in 0..=5 {
        let cut = &log[..LOG_HEADER_LEN + frames * FRAME];
        let scene = Scene::<B>::from_files(&database, Some(cut));
        let user = scene.user();
        assert_eq!(user.versions(), committed(frames), "{frames} frames");
        assert_eq!(user.header().max_frame(), [0, 0, 2, 2, 4, 5][frames]);
    }
}

pub(crate) fn a_log_of_many_blocks_is_recovered<B: Backend>() {
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

pub(crate) fn a_log_without_a_valid_header_is_empty<B: Backend>() {
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

pub(crate) fn the_log_grows_and_restarts_after_a_recovery<B: Backend>() {
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
