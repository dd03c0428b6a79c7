//! A `-shm` file with a sound header and hostile contents, under a live peer,
//! so that nobody resets it: a typed error or pages, and never a panic, a
//! signal or a hang.
//!
//! What such an index says cannot be proven false without reading the whole
//! log, so *which* pages are read is not what is tested here.

use std::sync::mpsc;
use std::time::Duration;
use std::{fs, thread};

use fixtures::{Copy, INDEX};
use integration::reading::Contents;
use wal::{CheckpointMode, Error, Options, PageNo, ReadStrategy, Synchronous};

use super::forged_index::{ForgedIndex, MAX_FRAME, PAGE_COUNT, VERSION};
use super::peer::Peer;

/// Longer than the protocol's own bound of about ten seconds, after which a
/// reader gives up.
const WAIT: Duration = Duration::from_secs(30);

const STRATEGIES: [ReadStrategy; 2] = [ReadStrategy::Mapped, ReadStrategy::Pread];

/// The fixture whose index is forged, and how many frames its log has.
fn fixture() -> (Copy, u32) {
    let fixture = fixtures::named("with-shm").unwrap();
    let frames = fixture.facts.log.as_ref().unwrap().frames_committed;
    (fixture.copy().unwrap(), u32::try_from(frames).unwrap())
}

/// The sound index that a forgery begins from, and the number of frames.
fn sound() -> (ForgedIndex, u32) {
    let (copy, frames) = fixture();
    (ForgedIndex::from(fs::read(copy.index()).unwrap()), frames)
}

fn options(strategy: ReadStrategy) -> Options {
    Options::new()
        .create(false)
        .read_strategy(strategy)
        .synchronous(Synchronous::Off)
        .busy_timeout(Duration::ZERO)
}

/// Runs `work` in a thread, and fails if it hangs or panics.
fn bounded<T: Send + 'static>(case: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = mpsc::channel();
    let worker = thread::spawn(move || done.send(work()));
    match result.recv_timeout(WAIT) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{case}: no end after {WAIT:?}"),
        Err(mpsc::RecvTimeoutError::Disconnected) => match worker.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(_) => panic!("{case}: ended without a result"),
        },
    }
}

/// Reads everything under the forged index, and gives the error of it.
fn error_of(case: &'static str, index: &[u8], is_expected: fn(&Error) -> bool) {
    for strategy in STRATEGIES {
        let (copy, _) = fixture();
        fs::write(copy.index(), index).unwrap();
        let _peer = Peer::attach(&copy.index());
        let (database, log) = (
            fs::read(copy.database()).unwrap(),
            fs::read(copy.log()).unwrap(),
        );
        let path = copy.database();
        let read = bounded(case, move || {
            let database = options(strategy).open_shm(path)?;
            Contents::of(&database)
        });
        let error = read.expect_err(case);
        assert!(is_expected(&error), "{case}, {strategy:?}: {error:?}");
        assert_eq!(fs::read(copy.database()).unwrap(), database, "{case}");
        assert_eq!(fs::read(copy.log()).unwrap(), log, "{case}");
    }
}

#[test]
fn a_frame_beyond_the_end_of_the_log_is_corruption() {
    let (mut index, frames) = sound();
    let beyond = frames + 1000;
    index.set_header(MAX_FRAME, beyond);
    index.add_entry(u16::try_from(beyond).unwrap(), 1);
    let index = index.seal();
    error_of("a frame beyond the log", &index, |e| {
        matches!(e, Error::Corrupt { .. })
    });
}

#[test]
fn an_index_shorter_than_its_header_says_is_corruption() {
    let (mut index, _) = sound();
    index.set_header(MAX_FRAME, 5000);
    let index = index.seal();
    error_of("a missing block", &index, |e| {
        matches!(e, Error::Corrupt { .. })
    });
}

#[test]
fn hash_chains_without_an_end_are_corruption() {
    let (mut index, frames) = sound();
    index.fill_slots(u16::try_from(frames + 1).unwrap());
    let index = index.seal();
    error_of("a full hash table", &index, |e| {
        matches!(e, Error::Corrupt { .. })
    });
}

#[test]
fn an_index_of_an_unknown_version_is_refused() {
    let (mut index, _) = sound();
    index.set_header(VERSION, 3_007_001);
    let index = index.seal();
    error_of(
        "an unknown version",
        &index,
        |e| matches!(e, Error::CannotOpen { reason, .. } if reason.contains("3007001")),
    );
}

#[test]
fn an_index_of_another_page_size_is_refused() {
    let (mut index, _) = sound();
    index.set_page_size(4096);
    let index = index.seal();
    error_of("another page size", &index, |e| {
        matches!(
            e,
            Error::PageSizeMismatch {
                expected: 1024,
                found: 4096,
                ..
            }
        )
    });
}

#[test]
fn a_size_that_log_and_database_cannot_have_is_not_checkpointed() {
    for strategy in STRATEGIES {
        let (copy, _) = fixture();
        let mut index = ForgedIndex::from(fs::read(copy.index()).unwrap());
        index.set_header(PAGE_COUNT, u32::MAX - 1);
        // No reader is left that holds the checkpoint back.
        for slot in 1..5 {
            index.set_word(100 + slot * 4, u32::MAX);
        }
        fs::write(copy.index(), index.seal()).unwrap();
        let _peer = Peer::attach(&copy.index());
        let before = fs::read(copy.database()).unwrap();
        let path = copy.database();
        let error = bounded("a huge database", move || {
            let database = options(strategy).open_shm(path)?;
            database.checkpoint(CheckpointMode::Passive)
        })
        .unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
        assert_eq!(fs::read(copy.database()).unwrap(), before);
    }
}

#[test]
fn whatever_stands_behind_a_sound_header_nothing_panics_or_hangs() {
    let sound = fixtures::named("with-shm").unwrap().read(INDEX).unwrap();
    for seed in 1..=60 {
        let case = format!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut index = ForgedIndex::from(sound.clone());
        index.scramble(&mut rng);
        if rng.bool() {
            index.set_header(MAX_FRAME, rng.u32(..8000));
        }
        if rng.bool() {
            index.set_header(PAGE_COUNT, rng.u32(..200));
        }
        let (copy, _) = fixture();
        fs::write(copy.index(), index.seal()).unwrap();
        let _peer = Peer::attach(&copy.index());
        let (path, strategy) = (copy.database(), rng.choice(STRATEGIES).unwrap());
        let ended = bounded(&case, move || use_in_every_way(&path, strategy));
        if let Err(error) = ended {
            assert!(
                matches!(
                    error,
                    Error::Corrupt { .. } | Error::Protocol { .. } | Error::NoSuchPage { .. }
                ),
                "{case}: {error:?}"
            );
        }
    }
}

/// Reads, writes and checkpoints; the first error ends it.
fn use_in_every_way(path: &std::path::Path, strategy: ReadStrategy) -> wal::Result<()> {
    let database = options(strategy).open_shm(path)?;
    Contents::of(&database)?;
    let mut write = database.begin_write()?;
    write.page_mut(PageNo::ONE)?[60] ^= 1;
    write.commit()?;
    Contents::of(&database)?;
    database.checkpoint(CheckpointMode::Passive)?;
    database.close()
}
