//! Stock SQLite and the library in one database at the same time, by turns:
//! writes, reads, checkpoints and restarts of the log from either side, each
//! seen by both.

use std::path::Path;

use fixtures::file_digests;
use integration::reading::Contents;
use integration::stock::{StockKind, StockSqlite};
use wal::shm::Database;
use wal::{CheckpointMode, PageNo, ReadStrategy, Salts};

use super::ours::{self, Model, checkpoint_by_stock, new_bank, read_by_stock, transfer};

const TURNS: usize = 80;

/// Both sides attached to one bank.
struct Sides {
    stock: StockSqlite,
    ours: Database,
    model: Model,
}

/// How often each side began the log anew.
#[derive(Debug, Default)]
struct Restarts {
    by_stock: u32,
    by_ours: u32,
}

impl Sides {
    fn open(kind: StockKind, path: &Path, model: Model, ours_first: bool) -> Self {
        let strategy = if ours_first {
            ReadStrategy::Pread
        } else {
            ReadStrategy::Mapped
        };
        let open_ours = || {
            let options = ours::options().read_strategy(strategy);
            options.open_shm(path).unwrap()
        };
        let open_stock = || {
            let mut stock = StockSqlite::spawn(kind, path, None).unwrap();
            let settings = "PRAGMA wal_autocheckpoint=0; PRAGMA synchronous=OFF";
            stock.run(settings).unwrap().unwrap();
            assert_eq!(read_by_stock(&mut stock), model);
            stock
        };
        let (stock, ours) = if ours_first {
            let ours = open_ours();
            (open_stock(), ours)
        } else {
            (open_stock(), open_ours())
        };
        Sides { stock, ours, model }
    }

    fn transfer_by_stock(&mut self, transfer: (usize, usize, i64)) {
        self.model.transfer(transfer);
        let (from, to, amount) = transfer;
        let sql = format!(
            "BEGIN IMMEDIATE; \
             UPDATE account SET balance = balance - {amount} WHERE id = {from}; \
             UPDATE account SET balance = balance + {amount} WHERE id = {to}; \
             PRAGMA user_version = {}; COMMIT",
            self.model.user_version
        );
        self.stock.run(&sql).unwrap().unwrap();
    }

    fn salts(&self) -> Salts {
        self.ours.begin_read().unwrap().snapshot().salts()
    }

    /// One turn of one side.
    fn turn(&mut self, rng: &mut fastrand::Rng, restarts: &mut Restarts) {
        let before = self.salts();
        match rng.u32(..10) {
            0..3 => {
                self.transfer_by_stock(Model::random_transfer(rng));
                restarts.by_stock += u32::from(self.salts() != before);
            }
            3..6 => {
                transfer(&self.ours, &mut self.model, Model::random_transfer(rng));
                restarts.by_ours += u32::from(self.salts() != before);
            }
            6 => {
                let mode = rng.choice(["PASSIVE", "FULL", "RESTART", "TRUNCATE"]);
                checkpoint_by_stock(&mut self.stock, mode.unwrap());
            }
            7 => {
                let report = self.ours.checkpoint(CheckpointMode::Passive).unwrap();
                assert!(report.is_complete(), "{report:?}");
            }
            8 => self.grow_and_shrink(),
            _ => self.hold_a_snapshot(rng),
        }
    }

    /// Stock SQLite adds pages and gives them to the freelist.
    fn grow_and_shrink(&mut self) {
        let sql = "BEGIN; CREATE TABLE big(a); \
                   INSERT INTO big VALUES(randomblob(20000)); COMMIT; DROP TABLE big";
        self.stock.run(sql).unwrap().unwrap();
    }

    /// A snapshot of ours stays what it is while stock SQLite writes and
    /// checkpoints, and it holds the checkpoint back.
    fn hold_a_snapshot(&mut self, rng: &mut fastrand::Rng) {
        transfer(&self.ours, &mut self.model, Model::random_transfer(rng));
        let ours = self.ours.clone();
        let read = ours.begin_read().unwrap();
        let before = Contents::of_snapshot(&ours, &read).unwrap();
        self.transfer_by_stock(Model::random_transfer(rng));
        self.stock.run("PRAGMA wal_checkpoint").unwrap().unwrap();
        self.transfer_by_stock(Model::random_transfer(rng));
        let report = ours.checkpoint(CheckpointMode::Passive).unwrap();
        let held_by = report.held_back_by.map(|held| held.lock);
        assert_eq!(
            held_by,
            Some(wal::Lock::Read(read.snapshot().slot().unwrap()))
        );
        let after = Contents::of_snapshot(&ours, &read).unwrap();
        assert_eq!(before, after);
    }

    fn assert_agreed(&mut self, when: &str) {
        assert_eq!(ours::read(&self.ours), self.model, "ours, {when}");
        assert_eq!(read_by_stock(&mut self.stock), self.model, "stock, {when}");
    }
}

#[test]
fn both_sides_write_read_checkpoint_and_restart_by_turns() {
    let mut seed = 100;
    for kind in StockKind::available() {
        for page_size in [512, 4096] {
            for ours_first in [true, false] {
                seed += 1;
                by_turns(kind, page_size, ours_first, seed);
            }
        }
    }
}

fn by_turns(kind: StockKind, page_size: u32, ours_first: bool, seed: u64) {
    let (folder, path, model) = new_bank(page_size);
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut sides = Sides::open(kind, &path, model, ours_first);
    let mut restarts = Restarts::default();
    for turn in 0..TURNS {
        sides.turn(&mut rng, &mut restarts);
        sides.assert_agreed(&format!("turn {turn}, {kind}, seed {seed}"));
    }
    let Restarts { by_stock, by_ours } = restarts;
    assert!(by_stock > 0 && by_ours > 0, "seed {seed}: {restarts:?}");

    let contents = Contents::of(&sides.ours).unwrap();
    let Sides { stock, ours, model } = sides;
    if ours_first {
        stock.close().unwrap();
        ours.close().unwrap();
    } else {
        ours.close().unwrap();
        stock.close().unwrap();
    }
    assert!(!folder.path().join("bank.db-wal").exists(), "seed {seed}");
    let left = file_digests(&path, page_size as usize).unwrap();
    assert_eq!(left, contents.pages, "seed {seed}");
    assert_eq!(ours::read_by_new_stock(kind, &path), model, "seed {seed}");
}

#[test]
fn a_log_of_several_index_blocks_grows_from_both_sides() {
    for kind in StockKind::available() {
        let (_folder, path, model) = new_bank(512);
        let mut sides = Sides::open(kind, &path, model, true);
        // Block 0 has room for 4062 frames, the next ones for 4096 each.
        let mut frames = 0;
        for round in 0.. {
            if frames > 4062 + 4096 + 100 {
                break;
            }
            rewrite_every_page(&sides.ours);
            if round % 5 == 0 {
                let everything = "UPDATE account SET balance = balance + 0";
                sides.stock.run(everything).unwrap().unwrap();
            }
            frames = sides.ours.begin_read().unwrap().snapshot().max_frame();
        }
        sides.assert_agreed(&format!("{frames} frames"));
        let mut rng = fastrand::Rng::with_seed(5);
        sides.transfer_by_stock(Model::random_transfer(&mut rng));
        transfer(&sides.ours, &mut sides.model, (0, 1, 1));
        sides.assert_agreed("a transfer each");
        checkpoint_by_stock(&mut sides.stock, "RESTART");
        transfer(&sides.ours, &mut sides.model, (1, 2, 3));
        sides.assert_agreed("a restart");
        let after = sides.ours.begin_read().unwrap().snapshot().max_frame();
        assert!(after < 100, "{after} frames after a restart");
    }
}

/// A frame for each page of the tables, with the same content.
fn rewrite_every_page(ours: &Database) {
    let mut write = ours.begin_write().unwrap();
    for number in 2..=write.page_count() {
        write.page_mut(PageNo::new(number).unwrap()).unwrap();
    }
    write.commit().unwrap();
}
