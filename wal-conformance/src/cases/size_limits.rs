//! How long the file of a log with a size limit is (`journal_size_limit`).

use std::fs;

use super::deaths::others_go_on;
use super::durability::{SYNC, log_writes};
use super::engine_frames;
use super::spilling::expect_recovered;
use crate::calls::{Call, Which};
use crate::director::{Then, at_every_call, nth};
use crate::scene::{Scene, User, fill, versions};
use crate::subject::Subject;
use wal_core::protocol::Synchronous;

/// How long a log of `frames` frames is.
const fn len_of(frames: u64) -> u64 {
    32 + frames * (24 + 512)
}

const SOME_BYTES: u64 = 100;

fn len<B: Subject>(scene: &Scene<B>) -> u64 {
    let found = fs::metadata(scene.log_path());
    found.expect("the log is there").len()
}

fn limited<B: Subject>(scene: &Scene<B>, limit: Option<u64>) -> User<B> {
    scene.user_with(|config| config.log_size_limit = limit)
}

/// Fills a log with `frames` frames, all of which are in the database file then.
fn fill_log<B: Subject>(user: &User<B>, frames: u32) {
    for version in 1..=frames {
        user.commit(&[1], version);
    }
    user.checkpoint_all();
}

fn is_cut(call: &Call) -> bool {
    matches!(call, Call::SetLen(Which::Log, _))
}

pub(crate) fn stale_tail_is_cut_to_the_limit_at_a_restart<B: Subject>() {
    let longest = len_of(10);
    for (limit, expected) in [
        (None, longest),
        (Some(0), len_of(1)),
        (Some(len_of(1)), len_of(1)),
        (Some(len_of(4) + SOME_BYTES), len_of(4) + SOME_BYTES),
        (Some(longest), longest),
        (Some(len_of(50)), longest),
        (Some(u64::MAX - 1), longest),
    ] {
        let scene = Scene::<B>::new(2);
        let writer = limited(&scene, limit);
        fill_log(&writer, 10);
        assert_eq!(len(&scene), longest, "{limit:?}, before the restart");
        writer.commit(&[2], 11);
        assert_eq!(writer.header().max_frame(), 1);
        assert_eq!(len(&scene), expected, "{limit:?}");
        assert_eq!(writer.versions(), [10, 11]);
        expect_recovered(&scene, &[10, 11]);
    }
}

pub(crate) fn committed_frames_beyond_the_limit_are_kept<B: Subject>() {
    for limit in [0, 1, 32, len_of(1), len_of(2) + SOME_BYTES, len_of(3)] {
        let scene = Scene::<B>::new(4);
        let (writer, other) = (limited(&scene, Some(limit)), scene.user());
        // The first generation, then restarts of a shorter log and of a longer one.
        for (version, before) in [(1, 0), (2, 1), (3, 9)] {
            (0..before).for_each(|_| writer.commit(&[4], version));
            writer.checkpoint_all();
            writer.commit(&[1, 2, 3, 4], version);
            let at = format!("limit {limit}, version {version}");
            assert_eq!(writer.header().max_frame(), 4, "{at}");
            assert_eq!(len(&scene), len_of(4), "{at}");
            assert_eq!(other.versions(), [version; 4], "{at}");
            expect_recovered(&scene, &[version; 4]);
            writer.checkpoint_all();
        }
    }
}

pub(crate) fn log_under_a_reader_is_not_cut<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (writer, reader) = (limited(&scene, Some(0)), scene.user());
    (1..=5).for_each(|version| writer.commit(&[1, 2], version));
    let reading = reader.read();
    writer.checkpoint_all();
    let (_, trace) = writer.trace(|writer| writer.commit(&[1], 6));
    assert!(!trace.iter().any(is_cut), "{trace:?}");
    assert_eq!(len(&scene), len_of(11), "the commit is appended");
    assert_eq!(versions::<B>(&reading), [5, 5]);
    drop(reading);
    writer.checkpoint_all();
    // A reader that bypasses the log needs nothing of it.
    let bypassing = reader.read();
    assert!(bypassing.snapshot().bypasses_log());
    writer.commit(&[2], 7);
    assert_eq!(len(&scene), len_of(1));
    assert_eq!(versions::<B>(&bypassing), [6, 5]);
    assert_eq!(reader.versions(), [6, 7]);
}

/// The peer has read, and maybe mapped, more of the log than is left.
pub(crate) fn log_that_a_peer_made_longer_is_cut<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (writer, peer) = (limited(&scene, Some(len_of(2))), scene.user());
    (1..=40).for_each(|version| peer.commit(&[1, 2], version));
    assert_eq!(peer.versions(), [40, 40]);
    peer.checkpoint_all();
    writer.commit(&[1], 41);
    assert_eq!(len(&scene), len_of(2));
    assert_eq!(peer.versions(), [41, 40]);
    for version in 42..=90 {
        peer.commit(&[1], version);
        assert_eq!(writer.versions(), [version, 40]);
    }
    assert_eq!(len(&scene), len_of(50));
    peer.checkpoint_all();
    // The peer restarts the log by its own setting, which is none.
    peer.commit(&[2], 91);
    assert_eq!(len(&scene), len_of(50));
    assert_eq!(writer.versions(), [90, 91]);
    expect_recovered(&scene, &[90, 91]);
}

pub(crate) fn only_the_first_commit_of_a_generation_cuts_the_log<B: Subject>() {
    let scene = Scene::<B>::new(3);
    let writer = limited(&scene, Some(len_of(2)));
    let roll_back = |frames: u32| {
        let mut tx = writer.write();
        fill(&mut tx, &(1..=frames).collect::<Vec<_>>(), 99).unwrap();
        tx.spill().unwrap();
        tx.rollback();
    };
    fill_log(&writer, 5);
    // A transaction that restarts the log and is rolled back cuts nothing.
    roll_back(9);
    assert_eq!((writer.header().max_frame(), len(&scene)), (0, len_of(9)));
    writer.commit(&[2], 6);
    assert_eq!((writer.header().max_frame(), len(&scene)), (1, len_of(2)));
    roll_back(9);
    let (_, trace) = writer.trace(|writer| writer.commit(&[3], 7));
    assert!(!trace.iter().any(is_cut), "{trace:?}");
    assert_eq!((writer.header().max_frame(), len(&scene)), (2, len_of(10)));
    assert_eq!(writer.versions(), [5, 6, 7]);
    writer.checkpoint_all();
    writer.commit(&[1], 8);
    assert_eq!((writer.header().max_frame(), len(&scene)), (1, len_of(2)));
    // The limit is that of the moment.
    writer.checkpoint_all();
    writer.wal.tuning().set_log_size_limit(None);
    writer.commit(&[1, 2], 9);
    writer.commit(&[3], 9);
    writer.checkpoint_all();
    writer.commit(&[1], 10);
    assert_eq!(len(&scene), len_of(3));
    writer.checkpoint_all();
    writer.wal.tuning().set_log_size_limit(Some(0));
    writer.commit(&[2], 10);
    assert_eq!(len(&scene), len_of(1));
    expect_recovered(&scene, &[10, 10, 9]);
}

pub(crate) fn spilled_frames_of_a_commit_are_kept_by_the_limit<B: Subject>() {
    let scene = Scene::<B>::new(8);
    let writer = scene.user_with(|config| {
        config.log_size_limit = Some(0);
        config.cache_spill = 2 * 512;
    });
    fill_log(&writer, 20);
    let mut tx = writer.write();
    fill(&mut tx, &[1, 2, 3, 4, 5, 6, 7, 8], 2).unwrap();
    tx.commit().unwrap();
    let frames = u64::from(writer.header().max_frame());
    assert!(frames >= 8);
    assert_eq!(len(&scene), len_of(frames));
    assert_eq!(writer.versions(), [2; 8]);
    expect_recovered(&scene, &[2; 8]);
    // What was spilled and rolled back lies behind the commit.
    writer.checkpoint_all();
    let mut tx = writer.write();
    fill(&mut tx, &[1], 3).unwrap();
    let savepoint = tx.savepoint();
    fill(&mut tx, &[2, 3, 4, 5, 6, 7, 8], 4).unwrap();
    tx.rollback_to(savepoint).unwrap();
    tx.commit().unwrap();
    let frames = u64::from(writer.header().max_frame());
    assert!(frames < 8);
    assert_eq!(len(&scene), len_of(frames));
    expect_recovered(&scene, &[3, 2, 2, 2, 2, 2, 2, 2]);
}

/// A log with bytes behind its frames, as a crash may have left it.
pub(crate) fn slack_behind_a_recovered_log_is_cut_at_a_restart<B: Subject>() {
    let scene = Scene::<B>::new(2);
    scene.user().commit(&[1, 2], 1);
    let (database, mut log) = scene.files();
    for slack in [vec![0; 5000], vec![7; 5000], log[32..].repeat(9)] {
        log.truncate(usize::try_from(len_of(2)).unwrap());
        log.extend(slack);
        let recovered = Scene::<B>::from_files(&database, Some(&log));
        let writer = limited(&recovered, Some(len_of(1)));
        writer.commit(&[1], 2);
        assert_eq!(writer.header().max_frame(), 3);
        assert_eq!(len(&recovered), log.len() as u64, "the log goes on");
        writer.checkpoint_all();
        writer.commit(&[2], 3);
        assert_eq!(len(&recovered), len_of(1));
        assert_eq!(writer.versions(), [2, 3]);
        expect_recovered(&recovered, &[2, 3]);
    }
}

pub(crate) fn failed_cut_costs_no_commit<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let writer = scene.user_with(|config| {
        config.log_size_limit = Some(0);
        config.synchronous = Synchronous::Full;
    });
    fill_log(&writer, 5);
    writer.then(is_cut, || Then::Fail);
    let (_, trace) = writer.trace(|writer| writer.commit(&[1], 6));
    writer.assert_stepped_in();
    assert_eq!(log_writes(&trace).last(), Some(&SYNC), "it is durable");
    assert_eq!(len(&scene), len_of(5));
    scene.assert_quiet();
    writer.commit(&[2], 7);
    assert_eq!(writer.versions(), [6, 7]);
    expect_recovered(&scene, &[6, 7]);
    writer.checkpoint_all();
    writer.commit(&[1], 8);
    assert_eq!(len(&scene), len_of(1), "the next generation is cut");
}

/// A cut needs no sync of its own.
pub(crate) fn cut_log_is_synced_with_its_commit<B: Subject>() {
    type Commit<B> = fn(&User<B>);
    let commits: [Commit<B>; 2] = [
        |user| user.commit(&[1], 6),
        |user| {
            engine_frames::commit::<B>(&mut user.write(), &[1], 6, 1);
        },
    ];
    for (level, syncs) in [
        (Synchronous::Off, 0),
        (Synchronous::Normal, 1),
        (Synchronous::Full, 2),
    ] {
        for commit in commits {
            let scene = Scene::<B>::new(1);
            let writer = scene.user_with(|config| {
                config.log_size_limit = Some(0);
                config.synchronous = level;
            });
            fill_log(&writer, 5);
            let (_, trace) = writer.trace(commit);
            let at = |wanted: fn(&Call) -> bool| trace.iter().rposition(wanted);
            let cut = at(is_cut).expect("the log is cut");
            let synced = trace.iter().filter(|call| **call == SYNC).count();
            assert_eq!(synced, syncs, "{level:?}: {trace:?}");
            if level == Synchronous::Full {
                assert!(at(|call| *call == SYNC) > Some(cut), "{trace:?}");
            }
            assert_eq!(len(&scene), len_of(1));
        }
    }
}

pub(crate) fn writer_that_dies_around_a_cut_loses_nothing<B: Subject>() {
    for level in [Synchronous::Normal, Synchronous::Full] {
        at_every_call(|n| {
            let scene = Scene::<B>::new(3);
            let writer = scene.user_with(|config| {
                config.log_size_limit = Some(0);
                config.synchronous = level;
            });
            let other = scene.user();
            (0..5).for_each(|_| writer.commit(&[1, 2, 3], 1));
            writer.checkpoint_all();
            if !writer.dies(nth(n), |writer| writer.commit(&[1, 3], 2)) {
                return false;
            }
            others_go_on(&scene, &other, n, &[[1, 1, 1], [2, 1, 2]]);
            true
        });
    }
}
