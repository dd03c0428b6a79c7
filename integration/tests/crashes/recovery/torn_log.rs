//! A log cut at every byte of its last two transactions, and with every byte
//! of its last transaction and of its header changed: what is read is exactly
//! what was committed before the damage.
//!
//! The sweeps run on files in memory, through the whole library but the
//! system calls; a sample of them is done again with real files. What was
//! committed is stock SQLite's word: it recovers a log that ends with that
//! commit.

use std::fs;
use std::path::Path;

use fixtures::{DATABASE, Fixture, LOG, file_digests, page_digest};
use integration::reading::{Contents, Opener};
use rusqlite::Connection;
use wal_core::protocol::{DatabaseKind, Wal, WalConfig};
use wal_core::storage::{File, MemoryFile, Storage};
use wal_core::{PageNo, PageSize};
use wal_inproc::InProcessWalCoordination;

const LOG_HEADER: usize = 32;
const FRAME_HEADER: usize = 24;

/// The fixture with the smallest pages, and so the fewest bytes.
struct Sound {
    fixture: Fixture,
    database: Vec<u8>,
    log: Vec<u8>,
    /// The state of each commit, by its last frame; first the one without a
    /// log.
    states: Vec<Contents>,
}

impl Sound {
    fn load() -> Self {
        let fixture = fixtures::named("pages-512").unwrap();
        let (database, log) = (fixture.read(DATABASE).unwrap(), fixture.read(LOG).unwrap());
        let mut sound = Sound {
            fixture,
            database,
            log,
            states: Vec::new(),
        };
        let commits = &sound.fixture.facts.log.as_ref().unwrap().commits;
        let frames = std::iter::once(0).chain(commits.iter().map(|commit| commit.frame));
        sound.states = frames.map(|frame| sound.state_by_stock(frame)).collect();
        sound
    }

    /// What stock SQLite makes of the log up to `frame`.
    fn state_by_stock(&self, frame: usize) -> Contents {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(DATABASE);
        fs::write(&path, &self.database).unwrap();
        fs::write(folder.path().join(LOG), &self.log[..self.end_of(frame)]).unwrap();
        let stock = Connection::open(&path).unwrap();
        let checkpoint = "PRAGMA synchronous = OFF; PRAGMA wal_checkpoint(TRUNCATE)";
        stock.execute_batch(checkpoint).unwrap();
        stock.close().unwrap();
        Contents {
            page_size: self.fixture.facts.page_size,
            max_frame: frame,
            pages: file_digests(&path, self.fixture.facts.page_size).unwrap(),
        }
    }

    fn end_of(&self, frame: usize) -> usize {
        LOG_HEADER + frame * (FRAME_HEADER + self.fixture.facts.page_size)
    }

    /// The state of the last commit that ends within the first `len` bytes.
    fn state_within(&self, len: usize) -> &Contents {
        let ends_within = |state: &&Contents| self.end_of(state.max_frame) <= len;
        let first = &self.states[0];
        self.states.iter().rfind(ends_within).unwrap_or(first)
    }

    /// Where the transaction that is `back` from the last one begins.
    fn start_of_transaction(&self, back: usize) -> usize {
        self.end_of(self.states[self.states.len() - 1 - back].max_frame)
    }

    fn read_in_memory(&self, log: Vec<u8>) -> Contents {
        let path = Path::new("memory");
        let storage = InMemory {
            database: MemoryFile::new(path, self.database.clone()),
            log: MemoryFile::new("memory-wal", log),
        };
        let page_size = PageSize::new(512).unwrap();
        let config = WalConfig::new(DatabaseKind::Sqlite, page_size);
        let coordination = InProcessWalCoordination::in_memory(path);
        let wal = Wal::new(coordination, Box::new(storage), config);
        let read = wal.begin_read().unwrap();
        let page = |number| page_digest(&read.page(PageNo::new(number).unwrap()).unwrap());
        Contents {
            page_size: page_size.len(),
            max_frame: usize::try_from(read.snapshot().max_frame()).unwrap(),
            pages: (1..=read.page_count()).map(page).collect(),
        }
    }

    fn read_from_disk(&self, log: &[u8], opener: Opener) -> Contents {
        let copy = self.fixture.copy().unwrap();
        fs::write(copy.log(), log).unwrap();
        opener.read(&copy.database()).unwrap()
    }
}

#[derive(Debug)]
struct InMemory {
    database: MemoryFile,
    log: MemoryFile,
}

impl Storage for InMemory {
    fn database(&self) -> &dyn File {
        &self.database
    }

    fn log(&self) -> &dyn File {
        &self.log
    }

    fn remove_log(&self) -> wal::Result<()> {
        self.log.set_len(0)
    }
}

#[test]
fn a_log_torn_at_any_byte_is_its_committed_prefix() {
    let sound = Sound::load();
    let start = sound.start_of_transaction(2);
    assert!(sound.log.len() - start > 5000, "transactions too short");
    for len in start..=sound.log.len() {
        let read = sound.read_in_memory(sound.log[..len].to_vec());
        assert_eq!(&read, sound.state_within(len), "cut to {len} bytes");
    }
}

#[test]
fn a_log_torn_within_its_header_or_first_transaction_is_empty() {
    let sound = Sound::load();
    let first = sound.end_of(sound.states[1].max_frame);
    for len in (0..first).step_by(7) {
        let read = sound.read_in_memory(sound.log[..len].to_vec());
        assert_eq!(read, sound.states[0], "cut to {len} bytes");
    }
}

#[test]
fn any_byte_changed_in_the_last_transaction_undoes_it_and_no_other() {
    let sound = Sound::load();
    let before_last = &sound.states[sound.states.len() - 2];
    let mut rng = fastrand::Rng::with_seed(11);
    for at in sound.start_of_transaction(1)..sound.log.len() {
        let mut log = sound.log.clone();
        let change = rng.u8(1..);
        log[at] ^= change;
        let read = sound.read_in_memory(log);
        assert_eq!(&read, before_last, "byte {at} changed by {change:#04x}");
    }
}

#[test]
fn any_byte_changed_in_the_header_of_the_log_makes_it_empty() {
    let sound = Sound::load();
    for at in 0..LOG_HEADER {
        for bit in 0..8 {
            let mut log = sound.log.clone();
            log[at] ^= 1 << bit;
            let read = sound.read_in_memory(log);
            assert_eq!(read, sound.states[0], "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn torn_and_changed_logs_on_disk_are_read_like_those_in_memory() {
    let sound = Sound::load();
    let start = sound.start_of_transaction(2);
    let mut rng = fastrand::Rng::with_seed(13);
    let frame = FRAME_HEADER + sound.fixture.facts.page_size;
    let at_the_edges =
        (start..=sound.log.len()).filter(|len| matches!((len - LOG_HEADER) % frame, 0 | 1 | 24));
    let anywhere = (0..20).map(|_| rng.usize(start..sound.log.len()));
    let lengths: Vec<usize> = at_the_edges.chain(anywhere).collect();
    for (len, opener) in lengths.into_iter().zip(Opener::ALL.into_iter().cycle()) {
        let read = sound.read_from_disk(&sound.log[..len], opener);
        assert_eq!(&read, sound.state_within(len), "{opener:?}: cut to {len}");
    }
    let before_last = &sound.states[sound.states.len() - 2];
    for opener in Opener::ALL {
        let mut log = sound.log.clone();
        let at = rng.usize(sound.start_of_transaction(1)..log.len());
        log[at] ^= 0x80;
        let read = sound.read_from_disk(&log, opener);
        assert_eq!(&read, before_last, "{opener:?}: byte {at} changed");
    }
}
