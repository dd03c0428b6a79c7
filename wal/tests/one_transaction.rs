//! Write transactions of random operations, with room for a few pages only,
//! against vectors of pages.
#![cfg(feature = "inproc")]
// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use wal::inproc::{Database, WriteTx};
use wal::{CheckpointMode, DatabaseKind, Error, Options, PageNo, PageSize, Savepoint, Synchronous};

const SIZE: usize = 512;

type Page = [u8; SIZE];

#[derive(Clone, Debug)]
enum Operation {
    /// Change a byte of a page; both are taken modulo what there is.
    Change {
        page: u32,
        at: usize,
        byte: u8,
    },
    Allocate,
    SetPageCount(u32),
    SetSavepoint,
    /// To any savepoint there ever was.
    RollBackTo(usize),
    Release(usize),
    Spill,
    /// Look what a recovery finds meanwhile.
    Crash,
}

/// How a transaction ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Commit,
    CommitAndCheckpoint,
    RollBack,
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    use Operation as O;
    let change = |(page, at, byte)| O::Change { page, at, byte };
    let operation = prop_oneof![
        12 => (any::<u32>(), any::<usize>(), any::<u8>()).prop_map(change),
        2 => Just(O::Allocate),
        2 => (1u32..12).prop_map(O::SetPageCount),
        3 => Just(O::SetSavepoint),
        2 => any::<usize>().prop_map(O::RollBackTo),
        1 => any::<usize>().prop_map(O::Release),
        2 => Just(O::Spill),
        1 => Just(O::Crash),
    ];
    prop::collection::vec(operation, 0..50)
}

fn transactions() -> impl Strategy<Value = Vec<(Vec<Operation>, End)>> {
    let end = prop_oneof![
        Just(End::Commit),
        Just(End::CommitAndCheckpoint),
        Just(End::RollBack)
    ];
    prop::collection::vec((operations(), end), 1..5)
}

/// What the database and the open transaction should hold.
struct Model {
    path: PathBuf,
    committed: Vec<Page>,
    pages: Vec<Page>,
    /// The open savepoints, and what there was when they were set.
    open: Vec<(Savepoint, Vec<Page>)>,
    /// Those of all transactions.
    all: Vec<Savepoint>,
}

fn number(page: usize) -> PageNo {
    PageNo::new(u32::try_from(page + 1).unwrap()).unwrap()
}

fn open(path: &Path, budget: u64) -> Database {
    let options = Options::new()
        .kind(DatabaseKind::RawPages)
        .page_size(PageSize::MIN)
        .synchronous(Synchronous::Off)
        .auto_checkpoint(0)
        .cache_spill(budget * SIZE as u64);
    options.open_inproc(path).unwrap()
}

fn expect_database(database: &Database, expected: &[Page]) {
    let read = database.begin_read().unwrap();
    assert_eq!(read.page_count() as usize, expected.len());
    for (page, content) in expected.iter().enumerate() {
        assert_eq!(
            *read.page(number(page)).unwrap(),
            content[..],
            "page {page}"
        );
    }
}

/// Whoever recovers a copy of the files finds what was committed.
fn expect_recovered(path: &Path, expected: &[Page]) {
    let elsewhere = tempfile::tempdir().unwrap();
    let copy = elsewhere.path().join("pages");
    fs::copy(path, &copy).unwrap();
    let log = |path: &Path| path.with_file_name("pages-wal");
    fs::copy(log(path), log(&copy)).unwrap();
    expect_database(&open(&copy, 0), expected);
}

/// Who had cached `cached` and drops the pages that were named has nothing
/// that is wrong now.
fn expect_named(named: &BTreeSet<usize>, cached: &[Page], now: &[Page]) {
    for (page, content) in cached.iter().enumerate() {
        let right = now.get(page) == Some(content);
        assert!(right || named.contains(&page), "page {page} was not named");
    }
}

impl Model {
    fn savepoint(&self, chosen: usize) -> Option<Savepoint> {
        self.all.get(chosen % self.all.len().max(1)).copied()
    }

    /// Its place among the open ones.
    fn place(&self, savepoint: Savepoint) -> Option<usize> {
        self.open.iter().position(|(open, _)| *open == savepoint)
    }

    fn apply(&mut self, tx: &mut WriteTx, operation: &Operation) {
        match *operation {
            Operation::Change { page, at, byte } => {
                let page = page as usize % self.pages.len();
                tx.page_mut(number(page)).unwrap()[at % SIZE] = byte;
                self.pages[page][at % SIZE] = byte;
            }
            Operation::Allocate => {
                assert_eq!(tx.allocate().unwrap(), number(self.pages.len()));
                self.pages.push([0; SIZE]);
            }
            Operation::SetPageCount(count) => {
                tx.set_page_count(count).unwrap();
                self.pages.resize(count as usize, [0; SIZE]);
            }
            Operation::SetSavepoint => {
                let savepoint = tx.savepoint();
                self.open.push((savepoint, self.pages.clone()));
                self.all.push(savepoint);
            }
            Operation::RollBackTo(chosen) => self.roll_back_to(tx, chosen),
            Operation::Release(chosen) => {
                let Some(savepoint) = self.savepoint(chosen) else {
                    return;
                };
                let released = tx.release(savepoint);
                match self.place(savepoint) {
                    Some(place) => self.open.truncate(place),
                    None => assert!(matches!(released, Err(Error::NoSuchSavepoint))),
                }
            }
            Operation::Spill => tx.spill().unwrap(),
            Operation::Crash => expect_recovered(&self.path, &self.committed),
        }
    }

    fn roll_back_to(&mut self, tx: &mut WriteTx, chosen: usize) {
        let Some(savepoint) = self.savepoint(chosen) else {
            return;
        };
        let mut named = BTreeSet::new();
        let name = |page: PageNo| named.extend([page.get() as usize - 1]);
        let rolled_back = tx.rollback_to_with(savepoint, name);
        match self.place(savepoint) {
            Some(place) => {
                rolled_back.unwrap();
                self.open.truncate(place + 1);
                let cached = std::mem::replace(&mut self.pages, self.open[place].1.clone());
                expect_named(&named, &cached, &self.pages);
            }
            None => assert!(matches!(rolled_back, Err(Error::NoSuchSavepoint))),
        }
    }

    fn expect_transaction(&self, tx: &WriteTx) {
        assert_eq!(tx.page_count() as usize, self.pages.len());
        for (page, content) in self.pages.iter().enumerate() {
            assert_eq!(*tx.page(number(page)).unwrap(), content[..], "page {page}");
        }
    }

    fn end(&mut self, database: &Database, tx: WriteTx, end: End) {
        match end {
            End::RollBack => {
                let mut named = BTreeSet::new();
                tx.rollback_with(|page| named.extend([page.get() as usize - 1]))
                    .unwrap();
                expect_named(&named, &self.pages, &self.committed);
            }
            End::Commit | End::CommitAndCheckpoint => {
                tx.commit().unwrap();
                self.committed.clone_from(&self.pages);
            }
        }
        if matches!(end, End::CommitAndCheckpoint) {
            let report = database.checkpoint(CheckpointMode::Passive).unwrap();
            assert!(report.is_complete());
        }
    }
}

proptest! {
    #[test]
    fn a_transaction_is_what_its_operations_make_of_it(
        budget in 0u64..6,
        transactions in transactions(),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pages");
        let database = open(&path, budget);
        let mut first = database.begin_write().unwrap();
        first.set_page_count(4).unwrap();
        first.commit().unwrap();
        let committed = vec![[0; SIZE]; 4];
        let mut model = Model { path: path.clone(), pages: committed.clone(), committed, open: vec![], all: vec![] };
        for (operations, end) in transactions {
            let mut tx = database.begin_write().unwrap();
            model.pages.clone_from(&model.committed);
            model.open.clear();
            for operation in &operations {
                model.apply(&mut tx, operation);
                model.expect_transaction(&tx);
            }
            model.end(&database, tx, end);
            expect_database(&database, &model.committed);
            expect_recovered(&path, &model.committed);
        }
        database.close().unwrap();
        expect_database(&open(&path, 0), &model.committed);
    }
}
