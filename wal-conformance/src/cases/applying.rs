//! Frames of one log are applied to another one.

use std::time::Duration;

use crate::director::{Then, at_every_call, nth};
use crate::scene::{Scene, User, content, fill};
use crate::subject::Subject;
use wal_core::coordination::WalCoordination;
use wal_core::error::{Error, Result};
use wal_core::format::{ByteOrder, FRAME_HEADER_LEN, FrameHeader, LOG_HEADER_LEN, LogHeader};
use wal_core::protocol::{TailFrames, TailPosition};
use wal_core::types::{FrameNo, PageNo, PageSize, Salts};

/// A frame as it is sent.
pub(super) type Sent = (FrameNo, [u8; FRAME_HEADER_LEN], Vec<u8>);

/// What a replica is given at a time.
#[derive(Clone)]
pub(super) struct Batch {
    pub(super) header: [u8; LOG_HEADER_LEN],
    pub(super) after: Option<TailPosition>,
    pub(super) frames: Vec<Sent>,
}

impl Batch {
    fn of<C: WalCoordination>(frames: TailFrames<'_, C>, after: Option<TailPosition>) -> Self {
        let header = frames.log_header().expect("it is read").expect("a header");
        let sent = frames.map(|frame| {
            let frame = frame.expect("a committed frame is read");
            (frame.number, frame.header, frame.content.to_vec())
        });
        Batch {
            header,
            after,
            frames: sent.collect(),
        }
    }

    /// All of the log of `user`.
    pub(super) fn whole_log<B: Subject>(user: &User<B>) -> Self {
        let salts = user.header().salts();
        let start = TailPosition {
            salts,
            frame: 0,
            checksum: [0; 8],
        };
        let resumed = user.wal.resume_tail(start).expect("the log is there");
        Batch::of(resumed.missed(), None)
    }

    pub(super) fn apply_to<B: Subject>(&self, replica: &User<B>) -> Result<TailPosition> {
        let mut tx = replica.wal.begin_apply(Duration::ZERO)?;
        tx.begin_generation(&self.header, self.after)?;
        for (number, header, content) in &self.frames {
            tx.apply(*number, header, content)?;
        }
        tx.commit()
    }
}

/// A source with three commits in its log, and a copy that was made of it
/// before them.
pub(super) fn source_and_copy<B: Subject>() -> (Scene<B>, Scene<B>, User<B>) {
    let (source, copy) = (Scene::<B>::new(3), Scene::<B>::new(3));
    let writer = source.user();
    writer.commit(&[1, 2], 1);
    writer.commit(&[2], 2);
    writer.commit(&[1, 4], 3);
    (source, copy, writer)
}

pub(crate) fn applied_frames_make_the_log_the_same<B: Subject>() {
    let (source, copy, writer) = source_and_copy::<B>();
    let replica = copy.user();
    let batch = Batch::whole_log(&writer);
    let position = batch.apply_to(&replica).expect("it is applied");
    assert_eq!(position.frame, 5);
    assert_eq!(position.salts, writer.header().salts());
    assert_eq!(replica.versions(), [3, 2, 0, 3]);
    assert_eq!(source.files().1, copy.files().1, "the logs");
    // Once more: nothing changes.
    let header = replica.header();
    let again = batch.apply_to(&replica).expect("it is there already");
    assert_eq!(again, position);
    assert_eq!(replica.header(), header);
    // Whoever recovers the files, or checkpoints, has the same.
    let (database, log) = copy.files();
    let recovered = Scene::<B>::from_files(&database, Some(&log));
    assert_eq!(recovered.user().versions(), [3, 2, 0, 3]);
    replica.checkpoint_all();
    assert_eq!(replica.versions(), [3, 2, 0, 3]);
    writer.commit(&[3], 4);
    Batch::whole_log(&writer)
        .apply_to(&replica)
        .expect("the log goes on behind a checkpoint");
    assert_eq!(replica.versions(), [3, 2, 4, 3]);
    copy.assert_quiet();
}

pub(crate) fn applied_frames_show_themselves_at_a_commit_mark<B: Subject>() {
    let (_source, copy, writer) = source_and_copy::<B>();
    let (replica, other) = copy.two();
    let mut batch = Batch::whole_log(&writer);
    let last = batch.frames.pop().expect("the commit frame");
    let mut tx = replica.wal.begin_apply(Duration::ZERO).expect("it begins");
    tx.begin_generation(&batch.header, None).expect("it begins");
    for (number, header, content) in &batch.frames {
        tx.apply(*number, header, content).expect("it is the next");
        assert_eq!(other.versions(), [0, 0, 0]);
    }
    // Two of three transactions are whole.
    assert_eq!(tx.commit().expect("it is committed").frame, 3);
    assert_eq!(other.versions(), [1, 2, 0]);
    batch.frames.push(last);
    assert_eq!(batch.apply_to(&replica).expect("it goes on").frame, 5);
    assert_eq!(other.versions(), [3, 2, 0, 3]);
    // What is dropped was never there.
    writer.commit(&[1], 4);
    let more = Batch::whole_log(&writer);
    let mut tx = replica.wal.begin_apply(Duration::ZERO).expect("it begins");
    for (number, header, content) in &more.frames {
        tx.apply(*number, header, content).expect("it is the next");
    }
    drop(tx);
    assert_eq!(other.versions(), [3, 2, 0, 3]);
    copy.assert_quiet();
}

pub(crate) fn a_generation_is_begun_once_whatever_was_given_since<B: Subject>() {
    for (cache_spill, first, again) in [
        (0, true, true),
        (512, true, true),
        // In between, one that is not to be published before all of it is there.
        (512, false, true),
        (512, false, false),
    ] {
        let (_source, copy, writer) = source_and_copy::<B>();
        let replica = copy.user_with(|config| config.cache_spill = cache_spill);
        let batch = Batch::whole_log(&writer);
        let mut tx = replica.wal.begin_apply(Duration::ZERO).expect("it begins");
        let stands = |is_told: bool, at| is_told.then_some(at);
        let position = tx.position();
        tx.begin_generation(&batch.header, stands(first, position))
            .expect("it begins");
        for (at, (number, header, content)) in batch.frames.iter().enumerate() {
            // Before each frame, and whether the one before was the last of a
            // transaction or not.
            tx.begin_generation(&batch.header, stands(again, position))
                .unwrap_or_else(|e| panic!("before frame {at}: {e}"));
            tx.apply(*number, header, content).expect("it is the next");
        }
        let mut other = batch.header;
        other[16] ^= 1;
        let other = tx.begin_generation(&other, None);
        assert!(matches!(other, Err(Error::Refused { .. })), "{other:?}");
        tx.commit().expect("it is committed");
        assert_eq!(replica.versions(), [3, 2, 0, 3]);
        let (database, log) = copy.files();
        let recovered = Scene::<B>::from_files(&database, Some(&log));
        assert_eq!(recovered.user().versions(), [3, 2, 0, 3]);
    }
}

pub(crate) fn a_frame_that_is_not_the_next_of_its_log_is_refused<B: Subject>() {
    let (_source, copy, writer) = source_and_copy::<B>();
    let replica = copy.user();
    let batch = Batch::whole_log(&writer);
    let mut tx = replica.wal.begin_apply(Duration::ZERO).expect("it begins");
    let give = |tx: &mut wal_core::protocol::ApplyTx<_>, (number, header, content): &Sent| {
        tx.apply(*number, header, content)
    };
    let no_generation = give(&mut tx, &batch.frames[0]);
    assert!(matches!(no_generation, Err(Error::Refused { .. })));
    let garbage = tx.begin_generation(&[7; LOG_HEADER_LEN], None);
    assert!(matches!(garbage, Err(Error::Refused { .. })), "{garbage:?}");
    let elsewhere = Some(TailPosition {
        salts: writer.header().salts(),
        frame: 9,
        checksum: [0; 8],
    });
    let elsewhere = tx.begin_generation(&batch.header, elsewhere);
    assert!(matches!(elsewhere, Err(Error::Diverged { .. })));
    tx.begin_generation(&batch.header, None).expect("it begins");
    let gap = give(&mut tx, &batch.frames[1]);
    assert!(matches!(
        gap,
        Err(Error::FrameGap {
            next: 1,
            given: 2,
            ..
        })
    ));
    for at in [0, 5, 17, FRAME_HEADER_LEN] {
        let mut damaged = batch.frames[0].clone();
        match damaged.1.get_mut(at) {
            Some(byte) => *byte ^= 1,
            None => damaged.2[100] ^= 1,
        }
        let damaged = give(&mut tx, &damaged);
        assert!(matches!(damaged, Err(Error::Refused { .. })), "byte {at}");
    }
    let mut foreign = batch.frames[0].clone();
    foreign.1[9] ^= 1;
    let foreign = give(&mut tx, &foreign);
    assert!(
        matches!(foreign, Err(Error::Diverged { .. })),
        "{foreign:?}"
    );
    for frame in &batch.frames {
        give(&mut tx, frame).expect("it is the next one");
    }
    let mut other = batch.frames[4].clone();
    other.1[20] ^= 1;
    let pending = give(&mut tx, &other);
    assert!(matches!(pending, Err(Error::Diverged { frame: 5, .. })));
    tx.commit().expect("it is committed");
    let mut tx = replica.wal.begin_apply(Duration::ZERO).expect("it begins");
    let published = give(&mut tx, &other);
    assert!(matches!(published, Err(Error::Diverged { frame: 5, .. })));
    drop(tx);
    // Somebody writes to the replica.
    replica.commit(&[1], 8);
    writer.commit(&[1], 9);
    let diverged = Batch::whole_log(&writer).apply_to(&replica);
    assert!(matches!(diverged, Err(Error::Diverged { frame: 6, .. })));
    assert_eq!(replica.versions(), [8, 2, 0, 3]);
    copy.assert_quiet();
}

pub(crate) fn a_generation_is_followed_by_the_next_without_a_gap<B: Subject>() {
    let (source, copy, writer) = source_and_copy::<B>();
    let (replica, reader) = copy.two();
    let mut tail = source.user().wal.tail().expect("a tail begins");
    let first = Batch::whole_log(&writer);
    first.apply_to(&replica).expect("it is applied");
    let mut expected = vec![3, 2, 0, 3];
    for version in 4..8 {
        writer.checkpoint_all();
        let after = tail.position();
        assert!(tail.restart_log(Duration::ZERO).expect("nobody is there"));
        writer.commit(&[2], version);
        let next = Batch::of(tail.advance().expect("it goes on"), Some(after));
        let too_early = next.apply_to(&replica);
        assert!(
            matches!(too_early, Err(Error::Refused { .. })),
            "{too_early:?}"
        );
        let reading = reader.read();
        replica.checkpoint_all();
        let busy = next.apply_to(&replica);
        assert!(matches!(busy, Err(Error::Busy { .. })), "{busy:?}");
        drop(reading);
        next.apply_to(&replica).expect("it follows");
        expected[1] = version;
        assert_eq!(replica.versions(), expected);
        assert_eq!(source.user().header().salts(), replica.header().salts());
        // An older one is no way back.
        let back = first.apply_to(&replica);
        assert!(back.is_err(), "{back:?}");
    }
    copy.assert_quiet();
}

/// A copy of the newest state is given the log from its beginning: until it
/// has all of it, older pages must not lie over newer ones.
pub(crate) fn a_copy_that_dies_while_it_catches_up_is_never_mixed<B: Subject>() {
    at_every_call(|n| {
        let (source, _, writer) = source_and_copy::<B>();
        let batch = Batch::whole_log(&writer);
        writer.checkpoint_all();
        let copy = Scene::<B>::from_files(&source.files().0, None);
        // With room for one page, so that each frame is written by itself.
        let replica = copy.user_with(|config| config.cache_spill = 512);
        let died = replica.dies(nth(n), |replica| {
            batch.apply_to(replica).expect("it is applied");
        });
        let log = copy.log_path().exists().then(|| copy.files().1);
        let recovered = Scene::<B>::from_files(&copy.files().0, log.as_deref());
        assert_eq!(recovered.user().versions(), [3, 2, 0, 3], "call {n}");
        let position = batch.apply_to(&recovered.user()).expect("it is applied");
        assert_eq!(position.frame, 5, "call {n}");
        died
    });
}

pub(crate) fn a_replica_that_dies_at_any_call_goes_on_where_it_stands<B: Subject>() {
    at_every_call(|n| {
        let (source, copy, writer) = source_and_copy::<B>();
        let mut tail = source.user().wal.tail().expect("a tail begins");
        let (replica, other) = (
            copy.user_with(|config| config.cache_spill = 512),
            copy.user(),
        );
        Batch::whole_log(&writer)
            .apply_to(&replica)
            .expect("applied");
        replica.checkpoint_all();
        writer.checkpoint_all();
        let after = tail.position();
        assert!(tail.restart_log(Duration::ZERO).expect("nobody is there"));
        writer.commit(&[1, 2, 3], 4);
        writer.commit(&[3], 5);
        let batch = Batch::of(tail.advance().expect("it goes on"), Some(after));
        let died = replica.dies(nth(n), |replica| {
            batch.apply_to(replica).expect("it is applied");
        });
        let states = [[3, 2, 0, 3], [4, 4, 4, 3], [4, 4, 5, 3]];
        let seen = other.versions();
        assert!(states.iter().any(|state| *state == *seen), "{n}: {seen:?}");
        let (database, log) = copy.files();
        let scene = Scene::<B>::from_files(&database, Some(&log));
        let recovered = scene.user();
        let found = recovered.versions();
        assert!(
            states.iter().any(|state| *state == *found),
            "{n}: {found:?}"
        );
        for replica in [&other, &recovered] {
            // A recovery sets the backfilled count back, and so does a restart
            // before it publishes the header.
            replica.checkpoint_all();
            batch.apply_to(replica).expect("it goes on");
            assert_eq!(replica.versions(), states[2], "call {n}");
        }
        copy.assert_quiet();
        died
    });
}

pub(crate) fn an_error_at_any_call_of_applying_leaves_no_lock<B: Subject>() {
    at_every_call(|n| {
        let (_source, copy, writer) = source_and_copy::<B>();
        let replica = copy.user_with(|config| config.cache_spill = 1024);
        let batch = Batch::whole_log(&writer);
        replica.then(nth(n), || Then::Fail);
        let applied = batch.apply_to(&replica);
        let failed = replica.stepped_in();
        copy.assert_quiet();
        let other = copy.user();
        let seen = other.versions();
        let expected = if applied.is_ok() {
            vec![3, 2, 0, 3]
        } else {
            vec![0, 0, 0]
        };
        assert_eq!(seen, expected, "call {n}: {applied:?}");
        batch.apply_to(&other).expect("it is applied");
        assert_eq!(other.versions(), [3, 2, 0, 3], "call {n}");
        let mut tx = other.write();
        fill(&mut tx, &[1], 9).expect("it is filled");
        drop(tx);
        failed
    });
}

pub(crate) fn replica_cuts_its_log_to_the_limit<B: Subject>() {
    let frame = (FRAME_HEADER_LEN + 512) as u64;
    let len_of = |frames: u64| LOG_HEADER_LEN as u64 + frames * frame;
    for (limit, expected) in [(0, len_of(1)), (len_of(3), len_of(3)), (1 << 20, len_of(5))] {
        let (source, copy, writer) = source_and_copy::<B>();
        let replica = copy.user_with(|config| config.log_size_limit = Some(limit));
        let len = || std::fs::metadata(copy.log_path()).unwrap().len();
        let mut tail = source.user().wal.tail().expect("a tail begins");
        Batch::whole_log(&writer).apply_to(&replica).unwrap();
        assert_eq!(len(), len_of(5), "committed frames are kept");
        writer.checkpoint_all();
        let after = tail.position();
        assert!(tail.restart_log(Duration::ZERO).expect("nobody is there"));
        writer.commit(&[2], 4);
        let next = Batch::of(tail.advance().unwrap(), Some(after));
        replica.checkpoint_all();
        next.apply_to(&replica).expect("it follows");
        assert_eq!(len(), expected, "limit {limit}");
        writer.commit(&[1, 3], 5);
        let next = Batch::of(tail.advance().unwrap(), Some(after));
        next.apply_to(&replica).expect("it goes on");
        assert_eq!(len(), expected.max(len_of(3)), "limit {limit}");
        assert_eq!(replica.versions(), [5, 4, 5, 3]);
    }
}

/// Frames with right checksums, that no SQLite writes.
pub(crate) fn frame_with_numbers_beyond_sqlites_is_not_applied<B: Subject>() {
    let source = LogHeader {
        byte_order: ByteOrder::NATIVE,
        page_size: PageSize::MIN,
        sequence: 1,
        salts: Salts([7; 8]),
    };
    let (header, checksum) = source.encode();
    let copy = Scene::<B>::new(3);
    let replica = copy.user();
    let mut tx = replica.wal.begin_apply(Duration::ZERO).expect("it begins");
    tx.begin_generation(&header, None).expect("a generation");
    let lock_bytes = PageSize::MIN.lock_byte_page().get();
    let content = content(1, 1);
    let frame = |page: u32, commit_size| {
        let frame = FrameHeader {
            page: PageNo::new(page).expect("a page number"),
            commit_size,
            salts: source.salts,
        };
        frame.encode(source.byte_order, checksum, &content).0
    };
    let one = FrameNo::new(1).expect("a frame number");
    for (page, commit_size) in [(1, u32::MAX), (u32::MAX, 0), (lock_bytes, 0)] {
        let refused = tx.apply(one, &frame(page, commit_size), &content);
        assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
    }
    tx.apply(one, &frame(1, 3), &content)
        .expect("it is applied");
    let last = FrameNo::new(u32::MAX).expect("a frame number");
    let gap = tx.apply(last, &frame(1, 3), &content);
    assert!(
        matches!(gap, Err(Error::FrameGap { next: 2, .. })),
        "{gap:?}"
    );
    tx.commit().expect("it is committed");
    assert_eq!(replica.versions(), [1, 0, 0]);
}
