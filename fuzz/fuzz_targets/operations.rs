//! Any sequence of operations and crashes, beside a model. A crash keeps the
//! database file and a part of the log, as a machine at `Synchronous::Normal`
//! may: what is found then is a state that was committed, and none before the
//! last one that was checkpointed.
#![no_main]

mod common;

use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use wal_core::protocol::{CheckpointMode, DatabaseKind, Synchronous, WalConfig};
use wal_core::storage::File;
use wal_core::{PageNo, PageSize, Salts};

/// The length of a frame.
const FRAME: u64 = 24 + 512;

#[derive(Arbitrary, Debug)]
enum Operation {
    Commit { pages: Vec<u8>, grow: u8, spill: bool },
    Rollback { pages: Vec<u8>, spill: bool },
    Checkpoint(u8),
    /// Another process takes over.
    Reopen,
    /// The log is cut to a part of what was added since the last checkpoint.
    Crash(u16),
}

type State = Vec<u8>;

fn config() -> WalConfig {
    let mut config = WalConfig::new(DatabaseKind::RawPages, PageSize::MIN);
    config.synchronous = Synchronous::Normal;
    config
}

fn seen(wal: &common::Handle) -> State {
    let read = wal.begin_read().expect("a reader begins");
    let version = |number| {
        let page = read.page(PageNo::new(number).expect("a number")).expect("a page");
        assert!(page.iter().all(|&byte| byte == page[0]), "page {number} is torn");
        page[0]
    };
    (1..=read.page_count()).map(version).collect()
}

fn position(wal: &common::Handle) -> (Salts, u32) {
    let read = wal.begin_read().expect("a reader begins");
    (read.snapshot().salts(), read.snapshot().max_frame())
}

fuzz_target!(|operations: Vec<Operation>| {
    let files = common::Files::new(vec![0; 512], Vec::new());
    let mut wal = common::open(&files, config());
    let mut states: Vec<State> = vec![vec![0]];
    // No state before this one may be found.
    let mut floor = 0;
    // The generation, and how much of it was synced.
    let mut checkpointed = position(&wal);
    let mut version = 0u8;
    for operation in operations.into_iter().take(40) {
        match operation {
            Operation::Commit { pages, grow, spill } => {
                version = version.wrapping_add(1);
                let mut state = states.last().expect("a state").clone();
                let mut tx = wal.begin_write(Duration::ZERO).expect("it begins");
                for _ in 0..grow % 4 {
                    if state.len() < 30 {
                        tx.allocate().expect("it is added");
                        state.push(0);
                    }
                }
                for page in pages.into_iter().take(8) {
                    let at = usize::from(page) % state.len();
                    let number = PageNo::new(at as u32 + 1).expect("a number");
                    tx.page_mut(number).expect("it is there").fill(version);
                    state[at] = version;
                    if spill {
                        tx.spill().expect("it is spilled");
                    }
                }
                tx.commit().expect("it is committed");
                states.push(state);
            }
            Operation::Rollback { pages, spill } => {
                let mut tx = wal.begin_write(Duration::ZERO).expect("it begins");
                for page in pages.into_iter().take(8) {
                    let number = u32::from(page) % tx.page_count() + 1;
                    let number = PageNo::new(number).expect("a number");
                    tx.page_mut(number).expect("it is there").fill(255);
                    if spill {
                        tx.spill().expect("it is spilled");
                    }
                }
            }
            Operation::Checkpoint(mode) => {
                let mode = [
                    CheckpointMode::Passive,
                    CheckpointMode::Full,
                    CheckpointMode::Restart,
                    CheckpointMode::Truncate,
                ][usize::from(mode) % 4];
                let report = wal.checkpoint(mode).expect("it runs");
                assert!(report.is_complete());
                floor = states.len() - 1;
                checkpointed = position(&wal);
            }
            Operation::Reopen => wal = common::open(&files, config()),
            Operation::Crash(keep) => {
                let now = position(&wal);
                // A generation that began since has nothing that was synced,
                // and needs nothing.
                let synced = if now.0 == checkpointed.0 { checkpointed.1 } else { 0 };
                let kept = synced + u32::from(keep) % (now.1 - synced + 1);
                let torn = if kept < now.1 { u64::from(keep) % FRAME } else { 0 };
                files
                    .log
                    .set_len((32 + u64::from(kept) * FRAME + torn).min(files.log.len().expect("a length")))
                    .expect("it is cut");
                wal = common::open(&files, config());
            }
        }
        let now = seen(&wal);
        let found = states[floor..].iter().rposition(|state| *state == now);
        let found = found.unwrap_or_else(|| panic!("{now:?} is none of {:?}", &states[floor..]));
        states.truncate(floor + found + 1);
    }
});
