//! Transactions that spilled, with savepoints and frames written over, and
//! what stock SQLite makes of them: beside us, and after us from the log alone.

use integration::reading::Contents;
use integration::stock::{StockKind, StockSqlite};
use wal::Savepoint;
use wal::shm::WriteTx;

use super::copies::stock_agrees;
use super::ours::{self, Model, new_bank, read_by_stock, transfer_in};

const PAGE_SIZES: [u32; 3] = [512, 1024, 4096];

/// Transfers, of which some are rolled back to one of the savepoints between
/// them.
fn change(write: &mut WriteTx, model: &mut Model, rng: &mut fastrand::Rng) {
    let mut open: Vec<(Savepoint, Model)> = Vec::new();
    for _ in 0..60 {
        match rng.u32(..10) {
            0 | 1 => open.push((write.savepoint(), model.clone())),
            2 if !open.is_empty() => {
                open.truncate(rng.usize(1..=open.len()));
                let (savepoint, then) = &open[open.len() - 1];
                write.rollback_to(*savepoint).unwrap();
                model.clone_from(then);
            }
            3 if !open.is_empty() => {
                let place = rng.usize(..open.len());
                write.release(open[place].0).unwrap();
                open.truncate(place);
            }
            _ => transfer_in(write, model, Model::random_transfer(rng)),
        }
    }
}

/// Three transactions in a log, the second of which is rolled back.
fn spill_beside_stock(kind: StockKind, page_size: u32, seed: u64) {
    eprintln!("{kind}, pages of {page_size}, seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let (folder, path, mut model) = new_bank(page_size);
    let options = ours::options().cache_spill(2 * u64::from(page_size));
    let database = options.open_shm(&path).unwrap();
    let mut stock = StockSqlite::spawn(kind, &path, None).unwrap();
    stock.run("PRAGMA wal_autocheckpoint=0").unwrap().unwrap();
    for commits in [true, false, true] {
        let mut write = database.begin_write().unwrap();
        let mut changed = model.clone();
        change(&mut write, &mut changed, &mut rng);
        let log = wal_core::storage::beside(&path, "-wal").metadata().unwrap();
        assert!(log.len() > 0, "nothing was spilled");
        assert_eq!(read_by_stock(&mut stock), model, "not committed yet");
        if commits {
            write.commit().unwrap();
            model = changed;
        } else {
            write.rollback();
        }
        assert_eq!(read_by_stock(&mut stock), model);
        assert_eq!(ours::read(&database), model);
        let contents = Contents::of(&database).unwrap();
        stock_agrees(folder.path(), page_size, &model, &contents);
    }
    let by_stock = "UPDATE account SET balance = balance + 1 WHERE id = 0";
    stock.run(by_stock).unwrap().unwrap();
    model.balances[0] += 1;
    assert_eq!(ours::read(&database), model);
    stock.close().unwrap();
    database.close().unwrap();
}

#[test]
fn spilled_transactions_with_savepoints() {
    for kind in StockKind::available() {
        for (page_size, seed) in PAGE_SIZES.into_iter().zip(1..) {
            spill_beside_stock(kind, page_size, seed);
        }
    }
}
