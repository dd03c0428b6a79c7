//! What a replica refuses, what it makes durable first, and what it leaves behind.

use std::time::Duration;

use super::applying::{Batch, source_and_copy};
use super::durability::{SYNC, header};
use super::relayed_commits::{scene, writes_log};
use super::spilling::entries_behind;
use crate::calls::{Call, Which};
use crate::director::Then;
use crate::scene::{Scene, User};
use crate::subject::Subject;
use wal_core::coordination::WalCoordination;
use wal_core::error::{Error, Result};
use wal_core::format::{DecodedHeader, FrameHeader, LogHeader};
use wal_core::protocol::{ApplyTx, Synchronous, TailPosition};
use wal_core::types::{FrameNo, Lock, PageNo, PageSize};

type Applying<B> = ApplyTx<crate::interposed::Interposed<<B as Subject>::Coordination>>;

fn begin<B: Subject>(replica: &User<B>) -> Applying<B> {
    let begun = replica.wal.begin_apply(Duration::ZERO);
    begun.expect("it begins")
}

fn give<B: Subject>(tx: &mut Applying<B>, batch: &Batch, frames: std::ops::Range<usize>) {
    for (number, header, content) in &batch.frames[frames] {
        tx.apply(*number, header, content).expect("it is the next");
    }
}

fn is_refused<T>(outcome: Result<T>, because: &str) -> bool {
    matches!(outcome, Err(Error::Refused { reason, .. }) if reason.contains(because))
}

/// The log of `writer` once it was restarted and has a commit again.
fn next_generation<B: Subject>(writer: &User<B>) -> Batch {
    let before = writer.header().salts();
    writer.checkpoint_all();
    writer.commit(&[2], 7);
    assert_ne!(writer.header().salts(), before, "the log was restarted");
    Batch::whole_log(writer)
}

/// The places in `trace` of the calls that are `wanted`.
fn places(trace: &[Call], wanted: impl Fn(&Call) -> bool) -> Vec<usize> {
    let calls = trace.iter().enumerate();
    let found = calls.filter(|(_, call)| wanted(call));
    found.map(|(at, _)| at).collect()
}

fn assert_synced_between(trace: &[Call], before: usize, after: usize) {
    let synced = trace[before..after].contains(&SYNC);
    assert!(synced, "no sync between {before} and {after}: {trace:?}");
}

/// Until all of the log is durable, no header makes any of it count.
pub(crate) fn copy_syncs_its_frames_before_their_log_header<B: Subject>() {
    let (source, _, writer) = source_and_copy::<B>();
    let batch = Batch::whole_log(&writer);
    writer.checkpoint_all();
    for synchronous in [Synchronous::Normal, Synchronous::Full] {
        let copy = Scene::<B>::from_files(&source.files().0, None);
        let replica = copy.user_at(synchronous);
        let (applied, trace) = replica.trace(|replica| batch.apply_to(replica));
        applied.expect("it is applied");
        let frames = places(&trace, |call| writes_log(call) && *call != header());
        let headers = places(&trace, |call| *call == header());
        let &[zeros, header] = &*headers else {
            panic!("zeros, and the header: {trace:?}");
        };
        assert_synced_between(&trace, zeros, frames[0]);
        assert_synced_between(&trace, frames[frames.len() - 1], header);
        if synchronous == Synchronous::Full {
            assert_synced_between(&trace, header, trace.len());
        }
    }
}

pub(crate) fn replica_syncs_the_next_log_header_before_its_frames<B: Subject>() {
    let (_source, copy, writer) = source_and_copy::<B>();
    let replica = copy.user_at(Synchronous::Full);
    let first = Batch::whole_log(&writer);
    let after = first.apply_to(&replica).expect("it is applied");
    replica.checkpoint_all();
    let mut next = next_generation(&writer);
    next.after = Some(after);
    let (applied, trace) = replica.trace(|replica| next.apply_to(replica));
    applied.expect("it follows");
    let headers = places(&trace, |call| *call == header());
    let frames = places(&trace, |call| writes_log(call) && *call != header());
    assert_eq!(headers.len(), 1, "{trace:?}");
    assert_synced_between(&trace, headers[0], frames[0]);
    assert_synced_between(&trace, frames[frames.len() - 1], trace.len());
}

/// Its checksum is right: nothing but its length shows that the log would be out of step.
pub(crate) fn frame_of_another_length_is_refused<B: Subject>() {
    let (_source, copy, writer) = source_and_copy::<B>();
    let batch = Batch::whole_log(&writer);
    let DecodedHeader::Valid(log, checksum) = LogHeader::decode(&batch.header) else {
        panic!("no header of a log");
    };
    let replica = copy.user();
    let mut tx = begin(&replica);
    tx.begin_generation(&batch.header, None).expect("it begins");
    for len in [256, 1024] {
        let content = vec![7; len];
        let frame = FrameHeader {
            page: PageNo::ONE,
            commit_size: 1,
            salts: log.salts,
        };
        let (frame, _) = frame.encode(log.byte_order, checksum, &content);
        let first = FrameNo::new(1).expect("a frame number");
        let refused = tx.apply(first, &frame, &content);
        assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
    }
}

pub(crate) fn generation_of_another_page_size_is_refused<B: Subject>() {
    let (_source, copy, writer) = source_and_copy::<B>();
    let replica = copy.user();
    let batch = Batch::whole_log(&writer);
    let DecodedHeader::Valid(mut log, _) = LogHeader::decode(&batch.header) else {
        panic!("no header of a log");
    };
    log.page_size = PageSize::new(1024).expect("a page size");
    let refused = begin(&replica).begin_generation(&log.encode().0, None);
    let expected = matches!(
        refused,
        Err(Error::PageSizeMismatch {
            expected: 512,
            found: 1024,
            ..
        })
    );
    assert!(expected, "{refused:?}");
    copy.assert_quiet();
}

pub(crate) fn generation_is_not_begun_over_uncommitted_frames<B: Subject>() {
    let (_source, copy, writer) = source_and_copy::<B>();
    let replica = copy.user();
    let first = Batch::whole_log(&writer);
    let next = next_generation(&writer);
    let mut tx = begin(&replica);
    let position = tx.position();
    tx.begin_generation(&first.header, None).expect("it begins");
    give::<B>(&mut tx, &first, 0..3);
    for after in [None, Some(position)] {
        let refused = tx.begin_generation(&next.header, after);
        assert!(is_refused(refused, "not committed"));
    }
    give::<B>(&mut tx, &first, 3..5);
    assert_eq!(tx.commit().expect("it is committed").frame, 5);
    assert_eq!(replica.versions(), [3, 2, 0, 3]);
}

/// A copy of the next log has begun, and given up before it had all of it. It must not
/// pass for one that followed the log before without a gap.
pub(crate) fn copy_that_gave_up_is_not_taken_for_a_follower<B: Subject>() {
    let (_source, copy, writer) = source_and_copy::<B>();
    let replica = copy.user();
    let first = Batch::whole_log(&writer);
    let after = first.apply_to(&replica).expect("it is applied");
    replica.checkpoint_all();
    let next = next_generation(&writer);
    let mut tx = begin(&replica);
    tx.begin_generation(&next.header, None).expect("it begins");
    drop(tx);
    let mut tx = begin(&replica);
    let salts = writer.header().salts();
    assert_ne!(tx.position().salts, salts, "published without its frames");
    let follows = tx.begin_generation(&next.header, Some(after));
    assert!(
        matches!(follows, Err(Error::Diverged { .. })),
        "{follows:?}"
    );
    drop(tx);
    let copied = next.apply_to(&replica).expect("a copy has all of it");
    assert_eq!(copied.salts, salts);
    copy.assert_quiet();
}

/// What a commit of another thread leaves unpublished is no base for a replica, whose
/// own commit publishes at once.
pub(crate) fn apply_does_not_begin_on_an_unpublished_commit<B: Subject>() {
    let (scene, strict, other) = scene::<B>();
    strict.before(|call| *call == SYNC, {
        let strict = strict.clone();
        move || {
            let wait_state = strict.wal.coordination().wait_state();
            let queue = wait_state.expect("a wait state").writer_queue();
            queue.begin_slice(wal_core::wait::thread_number(), wal_core::wait::now(), true);
            match strict.wal.begin_apply(Duration::ZERO) {
                Err(Error::Busy { lock, .. }) => assert_eq!(lock, Lock::Write),
                Ok(tx) => {
                    // Its end would wait for the sync that is further up this stack.
                    std::mem::forget(tx);
                    panic!("it began");
                }
                Err(error) => panic!("{error}"),
            }
        }
    });
    strict.commit(&[1], 2);
    strict.assert_stepped_in();
    assert_eq!(other.versions(), [2, 1, 1]);
    scene.assert_quiet();
}

fn fail_sync<B: Subject>(user: &User<B>) {
    let wait_state = user.wal.coordination().wait_state();
    let synced = wait_state.expect("a wait state").synced();
    synced.fail(user.header().salts());
}

/// Another process could not sync the log.
pub(crate) fn replica_rewrites_an_unsynced_log_before_its_frames<B: Subject>() {
    for cache_spill in [0, 512] {
        let (_source, copy, writer) = source_and_copy::<B>();
        let replica = copy.user_with(|config| {
            config.synchronous = Synchronous::Full;
            config.cache_spill = cache_spill;
        });
        let position = Batch::whole_log(&writer).apply_to(&replica);
        position.expect("it is applied");
        writer.commit(&[1, 2], 8);
        let more = Batch::whole_log(&writer);
        fail_sync(&replica);
        let len = copy.files().1.len();
        let (applied, trace) = replica.trace(|replica| more.apply_to(replica));
        applied.expect("the log is rewritten");
        let writes = places(&trace, writes_log);
        let again = Call::Write {
            file: Which::Log,
            offset: 0,
            len,
        };
        assert_eq!(trace[writes[0]], again, "{trace:?}");
        assert_synced_between(&trace, writes[0], writes[1]);
        // The sync fails behind its first frame: it is lost, maybe.
        writer.commit(&[1, 2], 9);
        let more = Batch::whole_log(&writer);
        if cache_spill != 0 {
            let mut tx = begin(&replica);
            give::<B>(&mut tx, &more, 0..more.frames.len());
            fail_sync(&replica);
            assert!(is_refused(tx.commit().map(drop), "run it again"));
        }
        more.apply_to(&replica).expect("it is run again");
        assert_eq!(replica.versions(), [9, 9, 0, 3]);
        copy.assert_quiet();
    }
}

/// The next writer would trim it too; but it may take long to come.
pub(crate) fn apply_leaves_nothing_uncommitted_in_the_index<B: Subject>() {
    let (_source, copy, writer) = source_and_copy::<B>();
    let replica = copy.user_with(|config| config.cache_spill = 512);
    // Entries of an empty log are cleared with its first frame.
    let first = Batch::whole_log(&writer).apply_to(&replica);
    first.expect("it is applied");
    writer.commit(&[1], 4);
    writer.commit(&[2, 3], 5);
    let batch = Batch::whole_log(&writer);
    let mut tx = begin(&replica);
    give::<B>(&mut tx, &batch, 5..7);
    assert_ne!(entries_behind(&replica), 0, "frames were written");
    drop(tx);
    assert_eq!(entries_behind(&replica), 0, "dropped");
    let mut tx = begin(&replica);
    give::<B>(&mut tx, &batch, 5..6);
    let before = entries_behind(&replica);
    replica.then(writes_log, || Then::Fail);
    let (number, header, content) = &batch.frames[6];
    let failed = tx.apply(*number, header, content);
    assert!(matches!(failed, Err(Error::Io { .. })), "{failed:?}");
    assert_eq!(entries_behind(&replica), before, "a write failed");
    drop(tx);
    // The transaction that ends with frame 6 is whole, the next one is not.
    let mut tx = begin(&replica);
    give::<B>(&mut tx, &batch, 5..7);
    assert_eq!(entries_behind(&replica), 2, "both were written");
    assert_eq!(tx.commit().expect("one is whole").frame, 6);
    assert_eq!(entries_behind(&replica), 0, "committed in part");
    copy.assert_quiet();
}

/// SQLite leaves an empty log without salts, so nothing tells two of them apart.
pub(crate) fn place_in_an_empty_log_of_sqlite_is_no_place_to_go_on<B: Subject>() {
    let (_source, copy, writer) = source_and_copy::<B>();
    let replica = copy.user();
    drop(replica.read());
    replica.leave_empty_header();
    let position = begin(&replica).position();
    let nowhere = TailPosition {
        salts: wal_core::types::Salts([0; 8]),
        frame: 0,
        checksum: [0; 8],
    };
    assert_eq!(position, nowhere);
    let batch = Batch::whole_log(&writer);
    let follows = begin(&replica).begin_generation(&batch.header, Some(position));
    assert!(
        matches!(follows, Err(Error::Diverged { .. })),
        "{follows:?}"
    );
    let saved = replica.read().snapshot().save();
    let gone = |error: Option<Error>| matches!(error, Some(Error::SnapshotGone { .. }));
    assert!(gone(replica.wal.open_snapshot(&saved).err()));
    assert!(gone(replica.wal.resume_tail(position).err()));
    assert!(gone(replica.read().pages_changed_since(&saved).err()));
    assert_eq!(saved.compare(&saved), None);
    copy.assert_quiet();
}
