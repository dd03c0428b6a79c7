//! What the users do, and what they must see.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use wal_core::protocol::{
    BusyHandler, CheckpointMode, DatabaseKind, ReadTx, Synchronous, Wal, WalConfig,
};
use wal_core::{Error, PageNo, PageSize, Result};
use wal_inproc::InProcessWalCoordination;

use super::turns::{Order, Turns};
use super::yielding::{Files, Yielding};

/// So many pages has the database, at first.
const PAGES: usize = 3;

/// What a user does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Writes a new version of some pages, and commits.
    Commit,
    /// The same, with some of it written to the log before.
    CommitSpilled,
    /// Writes to the log, and rolls back.
    Rollback,
    /// Reads all pages, twice.
    Read,
    /// Reads all pages, then writes on that very state.
    Upgrade,
    /// Moves pages to the database file.
    Checkpoint(CheckpointMode),
    /// Begins the log anew, with a proof.
    Restart,
    /// Follows the log over a commit, and begins it anew.
    Tail,
    /// Saves a snapshot, and opens it again.
    Reopen,
}

impl Operation {
    /// All there are.
    pub const ALL: [Operation; 12] = [
        Operation::Commit,
        Operation::CommitSpilled,
        Operation::Rollback,
        Operation::Read,
        Operation::Upgrade,
        Operation::Checkpoint(CheckpointMode::Passive),
        Operation::Checkpoint(CheckpointMode::Full),
        Operation::Checkpoint(CheckpointMode::Restart),
        Operation::Checkpoint(CheckpointMode::Truncate),
        Operation::Restart,
        Operation::Tail,
        Operation::Reopen,
    ];
}

/// The version of each page.
type State = Vec<u8>;

/// What was committed.
#[derive(Debug)]
struct Committed {
    states: Vec<State>,
    /// What is being committed.
    pending: Option<State>,
    version: u8,
}

impl Committed {
    /// What was being committed is there.
    fn settle(&mut self) {
        self.states.extend(self.pending.take());
    }

    /// The commit of `state` has returned; the next writer may have known
    /// before.
    fn acknowledge(&mut self, state: &State) {
        if self.pending.as_ref() == Some(state) {
            self.settle();
        }
    }
}

#[derive(Clone)]
struct User {
    wal: Arc<Wal<Yielding>>,
    committed: Rc<RefCell<Committed>>,
    rng: Rng,
}

type Reading = ReadTx<Yielding>;

fn open(files: &Files) -> Arc<Wal<Yielding>> {
    let mut config = WalConfig::new(DatabaseKind::RawPages, PageSize::MIN);
    config.synchronous = Synchronous::Normal;
    let path = Path::new("scheduled");
    let coordination = Yielding(InProcessWalCoordination::in_memory(path));
    Wal::new(coordination, Box::new(files.clone()), config)
}

/// Lets a user for each of `scripts` do its operations one after the other, on
/// a database with some commits in its log, and takes turns as `order` says.
/// `seed` is for what the users choose.
///
/// # Panics
///
/// When a user sees what it must not, or a commit is lost.
pub fn run(scripts: &[Vec<Operation>], seed: u64, order: &mut Order) -> Turns {
    let files = Files::new(vec![0; PAGES * PageSize::MIN.len()], Vec::new());
    let committed = Rc::new(RefCell::new(Committed {
        states: vec![vec![0; PAGES]],
        pending: None,
        version: 0,
    }));
    let mut first = User {
        wal: open(&files),
        committed: committed.clone(),
        rng: Rng::with_seed(seed),
    };
    first.begin_somewhere();
    let users = scripts.iter().map(|script| -> Box<dyn FnOnce()> {
        let mut user = first.clone();
        user.rng = first.rng.fork();
        let script = script.clone();
        Box::new(move || script.into_iter().for_each(|operation| user.act(operation)))
    });
    let turns = Turns::run(users.collect(), order);
    first.look_at_last();
    // Whoever recovers the files finds the same.
    let [database, log] = files.contents();
    first.wal = open(&Files::new(database, log));
    first.look_at_last();
    turns
}

/// Others were in the way, which is no failure.
fn unless_busy<T>(result: Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(Error::Busy { .. } | Error::BusySnapshot | Error::SnapshotGone { .. }) => None,
        Err(error) => unreachable!("{error}"),
    }
}

impl User {
    /// What the log holds when the others come.
    fn begin_somewhere(&mut self) {
        for _ in 0..self.rng.u8(0..3) {
            self.act(Operation::Commit);
            match self.rng.u8(0..4) {
                0 => self.act(Operation::Checkpoint(CheckpointMode::Passive)),
                1 => self.act(Operation::Checkpoint(CheckpointMode::Truncate)),
                _ => {}
            }
        }
    }

    fn act(&mut self, operation: Operation) {
        match operation {
            Operation::Commit => self.write(false, true),
            Operation::CommitSpilled => self.write(true, true),
            Operation::Rollback => self.write(true, false),
            Operation::Read => {
                let (read, state) = self.begin_read();
                assert_eq!(state_of(&read), state, "a snapshot changed");
            }
            Operation::Upgrade => self.upgrade(),
            Operation::Checkpoint(mode) => {
                let report = unless_busy(self.wal.checkpoint(mode));
                if let Some(report) = report {
                    assert!(report.backfilled <= report.log_frames, "{report:?}");
                }
            }
            Operation::Restart => {
                let proof = unless_busy(self.wal.prove_backfill(Duration::ZERO)).flatten();
                if let Some(proof) = proof {
                    let restarted = match self.rng.bool() {
                        true => self.wal.restart_log(&proof, Duration::ZERO),
                        false => self.wal.truncate_log(&proof, Duration::ZERO),
                    };
                    match restarted {
                        Err(Error::ProofRefused { .. }) => {}
                        restarted => drop(unless_busy(restarted)),
                    }
                }
            }
            Operation::Tail => self.tail(),
            Operation::Reopen => {
                let (read, state) = self.begin_read();
                let saved = read.snapshot().save();
                drop(read);
                let opened = match self.wal.open_snapshot(&saved) {
                    // A header is half stored, and it does not wait long.
                    Err(Error::Protocol { .. }) => None,
                    opened => unless_busy(opened),
                };
                if let Some(read) = opened {
                    assert_eq!(state_of(&read), state, "a saved snapshot is another one");
                }
            }
        }
    }

    /// Begins to read, and gives the state that is seen, which is one that was
    /// committed when or after it began.
    fn begin_read(&self) -> (Reading, State) {
        let oldest = self.committed.borrow().states.len() - 1;
        let read = loop {
            match unless_busy(self.wal.begin_read()) {
                Some(read) => break read,
                None => super::turns::wait_for_others(),
            }
        };
        let possible = {
            let committed = self.committed.borrow();
            let mut possible = committed.states[oldest..].to_vec();
            possible.extend(committed.pending.clone());
            possible
        };
        let seen = state_of(&read);
        assert!(possible.contains(&seen), "{seen:?} is none of {possible:?}");
        (read, seen)
    }

    fn write(&mut self, spills: bool, commits: bool) {
        let Some(mut tx) = unless_busy(self.wal.begin_write(BusyHandler::FAIL)) else {
            return;
        };
        let (mut state, version) = {
            let mut committed = self.committed.borrow_mut();
            // Who has Write knows that whatever was being committed is there.
            committed.settle();
            committed.version += 1;
            let last = committed.states.last().cloned();
            (last.unwrap_or_default(), committed.version)
        };
        for (number, of_page) in (1..).zip(&mut state) {
            if self.rng.bool() || number == 1 {
                let page = PageNo::new(number).and_then(|page| tx.page_mut(page));
                page.unwrap_or_else(|e| unreachable!("{e}")).fill(version);
                *of_page = version;
                if spills {
                    unless_busy(tx.spill());
                }
            }
        }
        if commits {
            self.committed.borrow_mut().pending = Some(state.clone());
            unless_busy(tx.commit());
            self.committed.borrow_mut().acknowledge(&state);
        }
    }

    fn upgrade(&mut self) {
        let (read, mut state) = self.begin_read();
        let Ok(mut tx) = read.upgrade() else {
            return;
        };
        let version = {
            let mut committed = self.committed.borrow_mut();
            committed.settle();
            assert_eq!(
                committed.states.last(),
                Some(&state),
                "a stale reader writes"
            );
            committed.version += 1;
            committed.version
        };
        let page = tx.page_mut(PageNo::ONE);
        page.unwrap_or_else(|e| unreachable!("{e}")).fill(version);
        state[0] = version;
        self.committed.borrow_mut().pending = Some(state.clone());
        unless_busy(tx.commit());
        self.committed.borrow_mut().acknowledge(&state);
    }

    /// A copy that is kept by the tail's frames is the state that the tail
    /// stands at.
    fn tail(&mut self) {
        let Some(mut tail) = unless_busy(self.wal.tail()) else {
            return;
        };
        let mut copy = state_of(tail.state());
        self.write(false, true);
        let frames = tail.advance().unwrap_or_else(|e| unreachable!("{e}"));
        for frame in frames {
            let frame = frame.unwrap_or_else(|e| unreachable!("{e}"));
            copy[frame.page.get() as usize - 1] = frame.content[0];
        }
        assert_eq!(state_of(tail.state()), copy, "the tail missed something");
        unless_busy(tail.restart_log(Duration::ZERO));
    }

    fn look_at_last(&self) {
        let (_read, state) = self.begin_read();
        assert_eq!(
            self.committed.borrow().states.last(),
            Some(&state),
            "a commit is lost"
        );
    }
}

fn state_of(read: &Reading) -> State {
    let version = |number| {
        let page = PageNo::new(number).and_then(|number| read.page(number));
        let page = page.unwrap_or_else(|e| unreachable!("{e}"));
        assert!(
            page.iter().all(|&byte| byte == page[0]),
            "page {number} is torn"
        );
        page[0]
    };
    (1..=read.page_count()).map(version).collect()
}
