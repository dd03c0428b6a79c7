//! Random scripts for several processes, beside a model that is a list of
//! stamps. What fails is shrunk to a short script.
//!
//! `WAL_MODEL_CASES` is the number of scripts.

// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::ops::Range;
use std::time::Duration;

use integration::worker::{Checkpoint, Command, RefusalKind, Settings, Stamp, Synchronous, Worker};
use proptest::prelude::*;
use proptest::test_runner::{TestCaseResult, TestRunner};
use tempfile::TempDir;

const WORKERS: usize = 3;
/// Each worker keeps up to this many readers.
const READERS: usize = 2;
const MOST_PAGES: u32 = 12;

/// One step of a script.
#[derive(Clone, Debug)]
enum Step {
    /// A worker begins to write, or is told that another one does.
    Begin {
        worker: usize,
    },
    /// Whoever writes stamps pages.
    Write {
        pages: Range<u32>,
    },
    /// It adds a page.
    Add,
    /// It cuts all but `pages` pages off, if there are more.
    Cut {
        pages: u32,
    },
    Spill,
    Savepoint,
    /// It goes back to the savepoint that it set last.
    RollbackTo,
    Commit,
    Rollback,
    BeginRead {
        worker: usize,
        reader: usize,
    },
    EndRead {
        worker: usize,
        reader: usize,
    },
    Checkpoint {
        worker: usize,
        mode: Checkpoint,
    },
    /// It is killed, whatever it has open, and another one takes its place.
    Kill {
        worker: usize,
    },
    /// All are killed, so that the next one to open the database recovers it.
    KillAll,
    /// It closes the database, and opens it again.
    Reopen {
        worker: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let worker = || 0..WORKERS;
    let reader = || 0..READERS;
    let pages = || (1..MOST_PAGES, 1..6u32).prop_map(|(first, count)| first..first + count);
    let modes = prop_oneof![
        3 => Just(Checkpoint::Passive),
        1 => Just(Checkpoint::Full),
        1 => Just(Checkpoint::Restart),
        1 => Just(Checkpoint::Truncate),
    ];
    let step = prop_oneof![
        8 => worker().prop_map(|worker| Step::Begin { worker }),
        14 => pages().prop_map(|pages| Step::Write { pages }),
        3 => Just(Step::Add),
        1 => (1..MOST_PAGES).prop_map(|pages| Step::Cut { pages }),
        7 => Just(Step::Spill),
        6 => Just(Step::Savepoint),
        6 => Just(Step::RollbackTo),
        6 => Just(Step::Commit),
        1 => Just(Step::Rollback),
        6 => (worker(), reader()).prop_map(|(worker, reader)| Step::BeginRead { worker, reader }),
        4 => (worker(), reader()).prop_map(|(worker, reader)| Step::EndRead { worker, reader }),
        5 => (worker(), modes).prop_map(|(worker, mode)| Step::Checkpoint { worker, mode }),
        1 => worker().prop_map(|worker| Step::Kill { worker }),
        2 => Just(Step::KillAll),
        1 => worker().prop_map(|worker| Step::Reopen { worker }),
    ];
    proptest::collection::vec(step, 1..90)
}

/// The sequence on each page; 0 where nothing was stamped.
type State = Vec<u64>;

/// A write transaction.
struct Writing {
    worker: usize,
    /// What it would commit.
    state: State,
    /// What that was at the last savepoint.
    savepoint: Option<State>,
}

/// The workers, and what they must see.
struct Run<'w> {
    workers: &'w mut Vec<Worker>,
    settings: Settings,
    writing: Option<Writing>,
    readers: [[Option<State>; READERS]; WORKERS],
    committed: State,
    sequence: u64,
    directory: TempDir,
}

impl<'w> Run<'w> {
    fn new(workers: &'w mut Vec<Worker>) -> Self {
        let directory = TempDir::new().unwrap();
        let mut settings = Settings::new(&directory.path().join("pages"));
        settings.page_size = 512;
        settings.synchronous = Synchronous::Off;
        settings.busy_timeout = Duration::ZERO;
        settings.checkpoint_patience = Duration::ZERO;
        let run = Run {
            workers,
            settings,
            writing: None,
            readers: Default::default(),
            committed: vec![0],
            sequence: 0,
            directory,
        };
        for worker in &mut *run.workers {
            worker.run(Command::Open(run.settings.clone())).unwrap();
        }
        run
    }

    fn next_stamp(&mut self) -> Stamp {
        self.sequence += 1;
        Stamp {
            writer: 1,
            sequence: self.sequence,
        }
    }

    fn take(&mut self, step: &Step) -> TestCaseResult {
        match *step {
            Step::Begin { worker } => return self.begin(worker),
            Step::BeginRead { worker, reader } => {
                let name = reader.to_string();
                self.workers[worker].begin_read(&name).unwrap();
                self.readers[worker][reader] = Some(self.committed.clone());
            }
            Step::EndRead { worker, reader } => {
                if self.readers[worker][reader].take().is_some() {
                    self.workers[worker].end_read(&reader.to_string()).unwrap();
                }
            }
            Step::Checkpoint { worker, mode } => return self.checkpoint(worker, mode),
            Step::Kill { worker } => {
                self.workers[worker].kill().unwrap();
                self.workers[worker] = Worker::open(&self.settings).unwrap();
                self.forget(worker);
            }
            Step::KillAll => self.kill_all(),
            Step::Reopen { worker } => {
                self.workers[worker].run(Command::Close).unwrap();
                let open = Command::Open(self.settings.clone());
                self.workers[worker].run(open).unwrap();
                self.forget(worker);
            }
            _ => self.write(step),
        }
        Ok(())
    }

    /// A step of whoever writes; nothing if nobody does.
    fn write(&mut self, step: &Step) {
        let stamp = self.next_stamp();
        let Some(mut writing) = self.writing.take() else {
            return;
        };
        let worker = &mut self.workers[writing.worker];
        let state = &mut writing.state;
        let count = u32::try_from(state.len()).unwrap();
        match *step {
            Step::Write { ref pages } => {
                let pages = pages.start.min(count + 1)..pages.end.min(count + 1);
                for page in pages.clone() {
                    state[page as usize - 1] = stamp.sequence;
                }
                worker.run(Command::Write { pages, stamp }).unwrap();
            }
            Step::Add if count < MOST_PAGES => {
                state.push(stamp.sequence);
                worker.run(Command::AddPage { stamp }).unwrap();
            }
            Step::Cut { pages } if pages < count => {
                state.truncate(pages as usize);
                worker.run(Command::SetPageCount { pages }).unwrap();
            }
            Step::Spill => worker.run(Command::Spill).unwrap(),
            Step::Savepoint => {
                worker.run(Command::Savepoint).unwrap();
                writing.savepoint = Some(writing.state.clone());
            }
            Step::RollbackTo => {
                if let Some(savepoint) = &writing.savepoint {
                    worker.run(Command::RollbackTo).unwrap();
                    state.clone_from(savepoint);
                }
            }
            Step::Commit => {
                worker.run(Command::Commit).unwrap();
                self.committed = writing.state;
                return;
            }
            Step::Rollback => {
                worker.run(Command::Rollback).unwrap();
                return;
            }
            _ => {}
        }
        self.writing = Some(writing);
    }

    fn begin(&mut self, worker: usize) -> TestCaseResult {
        match &self.writing {
            Some(writing) if writing.worker == worker => {}
            Some(_) => {
                let refusal = self.workers[worker].refused(Command::BeginWrite).unwrap();
                prop_assert_eq!(refusal, RefusalKind::Busy);
            }
            None => {
                self.workers[worker].run(Command::BeginWrite).unwrap();
                self.writing = Some(Writing {
                    worker,
                    state: self.committed.clone(),
                    savepoint: None,
                });
            }
        }
        Ok(())
    }

    fn kill_all(&mut self) {
        for worker in &mut *self.workers {
            worker.kill().unwrap();
        }
        for worker in &mut *self.workers {
            *worker = Worker::open(&self.settings).unwrap();
        }
        self.readers = Default::default();
        self.writing = None;
    }

    fn checkpoint(&mut self, worker: usize, mode: Checkpoint) -> TestCaseResult {
        let complete: bool = self.workers[worker].ask(Command::Checkpoint(mode)).unwrap();
        // Nobody who reads is in the way of the newest state.
        let mut readers = self.readers.iter().flatten().flatten();
        let nobody = self.writing.is_none() && readers.next().is_none();
        prop_assert!(complete || !nobody, "nobody is in the way");
        if nobody && matches!(mode, Checkpoint::Truncate) {
            let log = self.directory.path().join("pages-wal");
            prop_assert_eq!(log.metadata().unwrap().len(), 0);
        }
        Ok(())
    }

    /// What `worker` had open is gone.
    fn forget(&mut self, worker: usize) {
        self.readers[worker] = Default::default();
        self.writing = self.writing.take().filter(|w| w.worker != worker);
    }

    /// Every reader sees its state, and a new one of each worker the newest.
    fn check(&mut self) -> TestCaseResult {
        for (worker, readers) in self.workers.iter_mut().zip(&self.readers) {
            for (reader, state) in readers.iter().enumerate() {
                if let Some(state) = state {
                    check_reader(worker, &reader.to_string(), state)?;
                }
            }
            let snapshot = worker.begin_read("newest").unwrap();
            prop_assert_eq!(snapshot.page_count as usize, self.committed.len());
            check_reader(worker, "newest", &self.committed)?;
            worker.end_read("newest").unwrap();
        }
        Ok(())
    }

    /// After all are closed the file has it all, and nothing lies beside it.
    fn end(self) -> TestCaseResult {
        for worker in &mut *self.workers {
            worker.run(Command::Close).unwrap();
        }
        for left in ["pages-wal", "pages-shm", "pages-coord"] {
            prop_assert!(!self.directory.path().join(left).exists(), "{}", left);
        }
        self.workers[0]
            .run(Command::Open(self.settings.clone()))
            .unwrap();
        self.workers[0].begin_read("newest").unwrap();
        check_reader(&mut self.workers[0], "newest", &self.committed)?;
        self.workers[0].run(Command::Close).unwrap();
        Ok(())
    }
}

fn check_reader(worker: &mut Worker, name: &str, state: &State) -> TestCaseResult {
    let pages = 1..u32::try_from(state.len()).unwrap() + 1;
    let stamps = worker.stamps(name, pages).unwrap();
    let sequences = stamps
        .into_iter()
        .map(|stamp| stamp.map_or(0, |s| s.sequence));
    let seen: State = sequences.collect();
    prop_assert_eq!(&seen, state, "{} of process {}", name, worker.pid());
    Ok(())
}

#[test]
fn processes_do_what_the_model_says() {
    let cases = std::env::var("WAL_MODEL_CASES").map_or(600, |cases| cases.parse().unwrap());
    // They live on from script to script, but for those that a failed one has
    // left with something open.
    let workers = RefCell::new(Vec::new());
    let mut runner = TestRunner::new(ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 500,
        // A script that makes a worker hang takes the watchdog's time.
        max_shrink_time: 60_000,
        ..ProptestConfig::default()
    });
    let result = runner.run(&steps(), |steps| {
        let mut alive = workers.take();
        alive.resize_with(WORKERS, || Worker::spawn().unwrap());
        let mut run = Run::new(&mut alive);
        let outcome = steps.iter().try_for_each(|step| {
            run.take(step)?;
            run.check()
        });
        outcome.and_then(|()| run.end())?;
        workers.replace(alive);
        Ok(())
    });
    if let Err(failure) = result {
        unreachable!("{failure}");
    }
}
