//! Whoever follows the log gets every committed frame once, and no other.

use std::time::Duration;

use crate::calls::{Call, Which};
use crate::director::{Then, at_every_call, nth};
use crate::scene::{Scene, User, content, fill, versions};
use crate::subject::Subject;
use wal_core::coordination::WalCoordination;
use wal_core::error::Error;
use wal_core::protocol::{Synchronous, Tail, TailFrames, TailPosition};
use wal_core::types::{Lock, LockMode};

/// Page and commit size of each frame, whose content must be whole.
fn frames<C: WalCoordination>(frames: TailFrames<'_, C>) -> Vec<(u32, Option<u32>)> {
    let seen = frames.map(|frame| {
        let frame = frame.expect("a committed frame is read");
        let number = u32::from_le_bytes([frame.content[0], frame.content[1], 0, 0]);
        assert_eq!(number, frame.page.get(), "{:?}", frame.number);
        assert_eq!(frame.header[..4], frame.page.get().to_be_bytes());
        (frame.page.get(), frame.commit_size)
    });
    seen.collect()
}

fn restarted<B: Subject>(
    user: &User<B>,
    tail: &mut Tail<crate::interposed::Interposed<B::Coordination>>,
) -> bool {
    user.checkpoint_all();
    let restarted = tail.restart_log(Duration::ZERO);
    restarted.expect("nobody is in the way")
}

pub(crate) fn a_tail_gives_every_committed_frame_once<B: Subject>() {
    let scene = Scene::<B>::new(3);
    let (writer, other) = scene.two();
    writer.commit(&[1], 1);
    let mut tail = other.wal.tail().expect("a tail begins");
    assert_eq!(tail.position().frame, 1);
    assert_eq!(frames(tail.advance().expect("it goes on")), []);
    writer.commit(&[1, 3], 2);
    writer.commit(&[4], 3);
    let expected = [(1, None), (3, Some(3)), (4, Some(4))];
    assert_eq!(frames(tail.advance().expect("it goes on")), expected);
    assert_eq!(frames(tail.advance().expect("it goes on")), []);
    assert_eq!(tail.position().frame, 4);
    drop(tail);
    scene.assert_quiet();
}

pub(crate) fn a_tail_shows_nothing_that_is_not_committed<B: Subject>() {
    let scene = Scene::<B>::new(3);
    let (writer, other) = scene.two();
    writer.commit(&[1], 1);
    let mut tail = other.wal.tail().expect("a tail begins");
    let mut tx = writer.write();
    fill(&mut tx, &[1, 2], 2).expect("it is filled");
    tx.spill().expect("it is written to the log");
    assert_eq!(frames(tail.advance().expect("it goes on")), []);
    drop(tx);
    assert_eq!(frames(tail.advance().expect("it goes on")), []);
    writer.commit(&[3], 3);
    assert_eq!(frames(tail.advance().expect("it goes on")), [(3, Some(3))]);
}

pub(crate) fn the_log_does_not_begin_anew_behind_a_tail<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (writer, other) = scene.two();
    writer.commit(&[1, 2], 1);
    let mut tail = other.wal.tail().expect("a tail begins");
    let generation = tail.position().salts;
    for version in 2..6 {
        // All is backfilled, up to where the tail stands, and stock SQLite
        // would begin anew here.
        writer.checkpoint_all();
        assert_eq!(frames(tail.advance().expect("nothing is new")), []);
        writer.commit(&[1], version);
        assert_eq!(writer.header().salts(), generation);
        assert_eq!(frames(tail.advance().expect("it goes on")), [(1, Some(2))]);
    }
    drop(tail);
    writer.checkpoint_all();
    writer.commit(&[1], 9);
    assert_ne!(
        writer.header().salts(),
        generation,
        "nobody is in the way now"
    );
}

pub(crate) fn a_tail_restarts_the_log_without_a_gap<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (writer, other) = scene.two();
    let mut tail = other.wal.tail().expect("a tail begins");
    writer.commit(&[1, 2], 1);
    let too_early = tail.restart_log(Duration::ZERO).expect("nobody is there");
    assert!(!too_early, "it has not handed everything out");
    assert_eq!(frames(tail.advance().expect("it goes on")).len(), 2);
    let before = tail.position();
    assert!(restarted(&writer, &mut tail));
    assert_ne!(tail.position().salts, before.salts);
    assert_eq!(tail.position().frame, 0);
    writer.commit(&[2], 2);
    assert_eq!(writer.header().max_frame(), 1);
    assert_eq!(frames(tail.advance().expect("it goes on")), [(2, Some(2))]);
    // Somebody reads the log: nothing is lost by trying.
    let reading = writer.read();
    writer.checkpoint_all();
    let busy = tail.restart_log(Duration::ZERO);
    assert!(matches!(busy, Err(Error::Busy { .. })), "{busy:?}");
    drop(reading);
    writer.commit(&[1], 3);
    assert_eq!(frames(tail.advance().expect("it goes on")), [(1, Some(2))]);
    assert_eq!(writer.versions(), [3, 2]);
}

/// A call of a restart by the tail fails, after which it may hold no mark. A writer
/// that restarts the log then takes frames from it, which it must not pass over.
pub(crate) fn tail_whose_restart_failed_misses_no_frame<B: Subject>() {
    let mut gone = 0;
    at_every_call(|n| {
        let scene = Scene::<B>::new(2);
        let (writer, other) = scene.two();
        writer.commit(&[1], 1);
        let mut tail = other.wal.tail().expect("a tail begins");
        writer.checkpoint_all();
        other.then(nth(n), || Then::Fail);
        let restarted = tail.restart_log(Duration::ZERO);
        let failed = other.stepped_in();
        if failed && restarted.is_err() {
            let before = tail.position();
            for version in [2, 3] {
                // The log is restarted here unless the tail keeps it.
                writer.checkpoint();
                writer.commit(&[2], version);
            }
            match tail.advance() {
                Ok(seen) => assert_eq!(frames(seen).len(), 2, "call {n}"),
                Err(Error::SnapshotGone { .. }) => gone += 1,
                Err(error) => panic!("call {n}: {error}"),
            }
            assert_eq!(before.frame, 1, "call {n}");
        }
        failed
    });
    assert!(gone > 0, "the tail never lost its mark");
}

/// Its own restart is no reason to trust the backfill of a peer that does not sync.
pub(crate) fn tail_syncs_a_peers_backfill_before_it_restarts_the_log<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (careless, careful) = (scene.user_at(Synchronous::Off), scene.user());
    careful.commit(&[1, 2], 1);
    let mut tail = careful.wal.tail().expect("a tail begins");
    careless.checkpoint_all();
    let before = careful.header();
    let observer = careless.clone();
    careful.before(
        |call| *call == Call::Sync(Which::Database),
        move || assert_eq!(observer.header(), before, "it was restarted before"),
    );
    assert!(tail.restart_log(Duration::ZERO).expect("nobody is there"));
    careful.assert_stepped_in();
    assert_ne!(careful.header().salts(), before.salts());
}

pub(crate) fn tail_whose_restart_failed_gives_no_frame_of_the_log<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (writer, tailing) = scene.two();
    let mut tail = tailing.wal.tail().expect("a tail begins");
    writer.commit(&[1, 2], 1);
    assert_eq!(frames(tail.advance().expect("it goes on")).len(), 2);
    writer.checkpoint_all();
    // The log is restarted, and the tail gets no mark at it.
    let mut restarts = false;
    let joins = move |call: &Call| {
        restarts |= *call == Call::TryLock(Lock::ReadMarks, LockMode::Exclusive);
        restarts && matches!(call, Call::TryLockMark(..))
    };
    tailing.then(joins, || Then::Fail);
    let failed = tail.restart_log(Duration::ZERO);
    tailing.assert_stepped_in();
    assert!(failed.is_err(), "{failed:?}");
    assert!(tail.state().snapshot().bypasses_log());
    // Its frames are written over.
    writer.commit(&[1], 2);
    let mut left = tail.log_so_far();
    let first = left.next();
    let is_gone = matches!(first, None | Some(Err(Error::SnapshotGone { .. })));
    assert!(is_gone, "{first:?}");
    assert!(left.next().is_none());
    let header = tail.log_so_far().log_header();
    assert!(
        matches!(header, Err(Error::SnapshotGone { .. })),
        "{header:?}"
    );
    let goes_on = tail.advance().map(|frames| frames.count());
    assert!(
        matches!(goes_on, Err(Error::SnapshotGone { .. })),
        "{goes_on:?}"
    );
}

pub(crate) fn a_tail_goes_on_where_it_stood_while_the_log_is_the_same<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (writer, other) = scene.two();
    writer.commit(&[1], 1);
    let position = other.wal.tail().expect("a tail begins").position();
    writer.commit(&[2], 2);
    let resumed = other
        .wal
        .resume_tail(position)
        .expect("the log is the same");
    assert_eq!(frames(resumed.missed()), [(2, Some(2))]);
    let mut tail = resumed.into_tail();
    writer.commit(&[1], 3);
    assert_eq!(frames(tail.advance().expect("it goes on")), [(1, Some(2))]);
    let position = tail.position();
    drop(tail);
    writer.checkpoint_all();
    let resumed = other.wal.resume_tail(position).expect("it is the same");
    assert_eq!(frames(resumed.missed()), []);
    let mut tail = resumed.into_tail();
    let generation = writer.header().salts();
    writer.commit(&[2], 4);
    assert_eq!(writer.header().salts(), generation, "restarted behind it");
    assert_eq!(frames(tail.advance().expect("it goes on")), [(2, Some(2))]);
    let position = tail.position();
    drop(tail);
    let beyond = TailPosition {
        frame: position.frame + 1,
        ..position
    };
    let gone = other.wal.resume_tail(beyond);
    assert!(matches!(gone, Err(Error::SnapshotGone { .. })), "{gone:?}");
    writer.checkpoint_all();
    writer.commit(&[1], 4);
    let gone = other.wal.resume_tail(position);
    assert!(matches!(gone, Err(Error::SnapshotGone { .. })), "{gone:?}");
}

pub(crate) fn a_tail_is_not_resumed_where_the_log_has_lost_frames<B: Subject>() {
    let scene = Scene::<B>::new(3);
    let writer = scene.user();
    writer.commit(&[1], 1);
    let kept = scene.files().1.len();
    let before = writer.wal.tail().expect("a tail begins").position();
    writer.commit(&[2], 2);
    let lost = writer.wal.tail().expect("a tail begins").position();
    // The power fails, and what was not synced is not there.
    let (database, log) = scene.files();
    let recovered = Scene::<B>::from_files(&database, Some(&log[..kept]));
    let user = recovered.user();
    user.commit(&[3], 3);
    user.commit(&[1], 4);
    let gone = user.wal.resume_tail(lost);
    assert!(matches!(gone, Err(Error::SnapshotGone { .. })), "{gone:?}");
    let resumed = user.wal.resume_tail(before).expect("that frame is there");
    assert_eq!(frames(resumed.missed()).len(), 2);
}

pub(crate) fn what_was_seen_of_an_empty_log_is_not_taken_for_another_one<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let user = scene.user();
    let seen = *user.read().snapshot();
    let saved = seen.save();
    let position = user.wal.tail().expect("a tail begins").position();
    assert!(user.wal.open_snapshot(&saved).is_ok());
    assert!(user.wal.resume_tail(position).is_ok());
    user.commit(&[1], 1);
    user.checkpoint_all();
    // The last user removes the log, and somebody else opens the database.
    let (database, _) = scene.files();
    let again = Scene::<B>::from_files(&database, None);
    let user = again.user();
    let is_gone = |error: Option<Error>| matches!(error, Some(Error::SnapshotGone { .. }));
    assert!(is_gone(user.wal.open_snapshot(&saved).err()));
    assert!(is_gone(user.read().pages_changed_since(&saved).err()));
    assert!(is_gone(user.wal.resume_tail(position).err()));
    assert!(user.wal.changed_since(&seen).unwrap());
    assert_eq!(user.read().snapshot().save().compare(&saved), None);
}

pub(crate) fn a_replica_of_what_a_tail_gives_is_the_database<B: Subject>() {
    let scene = Scene::<B>::new(3);
    let (writer, other) = scene.two();
    let mut tail = other.wal.tail().expect("a tail begins");
    let mut replica: Vec<Vec<u8>> = (1..=3).map(|page| content(page, 0)).collect();
    let mut rng = fastrand::Rng::with_seed(5);
    for version in 1..200 {
        let pages: Vec<u32> = (0..rng.u32(1..4)).map(|_| rng.u32(1..12)).collect();
        writer.commit(&pages, version);
        if rng.u8(..3) > 0 {
            for frame in tail.advance().expect("it goes on") {
                let frame = frame.expect("a committed frame is read");
                let at = frame.page.get() as usize;
                replica.resize(replica.len().max(at), Vec::new());
                replica[at - 1] = frame.content.to_vec();
                if let Some(count) = frame.commit_size {
                    replica.truncate(count as usize);
                }
            }
            let page = |number| {
                tail.state()
                    .page(wal_core::types::PageNo::new(number).unwrap())
            };
            let now: Vec<Vec<u8>> = (1..=tail.state().page_count())
                .map(|number| page(number).expect("the page is read").to_vec())
                .collect();
            assert!(now == replica, "after version {version}");
        }
        match rng.u8(..6) {
            0 => drop(writer.checkpoint()),
            1 => drop(tail.restart_log(Duration::ZERO).expect("nobody is there")),
            _ => {}
        }
    }
}

/// At every call of a tail that moves on, another user commits and checkpoints.
pub(crate) fn tail_keeps_its_state_whenever_a_checkpoint_comes<B: Subject>() {
    at_every_call(|n| {
        let scene = Scene::<B>::new(3);
        let (writer, other) = scene.two();
        writer.commit(&[1, 2], 1);
        let mut tail = other.wal.tail().expect("a tail begins");
        writer.commit(&[2, 3], 2);
        let peer = writer.clone();
        other.before(nth(n), move || {
            peer.checkpoint();
            peer.commit(&[1, 3], 3);
            peer.checkpoint();
        });
        let mut seen = frames(tail.advance().expect("it goes on"));
        let stepped_in = other.stepped_in();
        let whole = versions::<B>(tail.state());
        let states = [vec![1, 2, 2], vec![3, 2, 3]];
        assert!(states.contains(&whole), "call {n}: {whole:?}");
        let newer = whole == states[1];
        // What was committed since is not moved over what the tail sees.
        let up_to = if newer { 6 } else { 4 };
        assert_eq!(tail.position().frame, up_to, "call {n}");
        writer.commit(&[1, 2, 3], 4);
        let report = writer.checkpoint();
        assert!(report.backfilled <= up_to, "call {n}: {report:?}");
        assert_eq!(versions::<B>(tail.state()), whole, "call {n}");
        seen.extend(frames(tail.advance().expect("it goes on")));
        let pages: Vec<u32> = seen.iter().map(|(page, _)| *page).collect();
        let expected: &[u32] = match stepped_in {
            true => &[2, 3, 1, 3, 1, 2, 3],
            false => &[2, 3, 1, 2, 3],
        };
        assert_eq!(pages, expected, "call {n}");
        drop(tail);
        scene.assert_quiet();
        writer.checkpoint_all();
        assert_eq!(other.versions(), [4, 4, 4]);
        stepped_in
    });
}

pub(crate) fn tail_beside_a_reader_in_its_slot_leaves_the_mark<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (writer, other) = scene.two();
    writer.commit(&[1], 1);
    let mut tail = other.wal.tail().expect("a tail begins");
    let slot = tail.state().snapshot().slot().expect("a slot");
    let reading = writer.read();
    assert_eq!(reading.snapshot().slot(), Some(slot), "the same mark");
    writer.commit(&[1, 2], 2);
    tail.advance().expect("it goes on");
    assert_eq!(other.mark(slot), 1, "a reader needs it");
    assert_eq!(versions::<B>(tail.state()), [2, 2]);
    assert_eq!(writer.checkpoint().backfilled, 1);
    assert_eq!(versions::<B>(&reading), [1, 0]);
    drop(reading);
    writer.checkpoint_all();
    drop(tail);
    scene.assert_quiet();
}
