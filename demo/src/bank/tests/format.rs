//! Our parser and patches against every shape of file that SQLite makes.

use rusqlite::Connection;

use super::*;

/// Transfers between random accounts, each with its worker's journal row.
/// Returns what the journal must say afterwards.
fn transfer_at_random(pages: &mut Pages, layout: &Layout, seed: u64) -> Vec<Journal> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut expected = vec![Journal::default(); layout.workers().len()];
    for _ in 0..500 {
        let from = random.usize(..layout.accounts().len());
        let to = random.usize(..layout.accounts().len());
        let amount = random.i64(-1_000_000..1_000_000);
        let reduced = pages.balance(layout, from).unwrap() - amount;
        pages.set_balance(layout, from, reduced).unwrap();
        let raised = pages.balance(layout, to).unwrap() + amount;
        pages.set_balance(layout, to, raised).unwrap();

        let worker = random.usize(..expected.len());
        let row = layout.workers()[worker];
        let page = pages.page_mut(row.page());
        let journal = layout.read_journal(page, row).unwrap();
        assert_eq!(journal, expected[worker]);
        let (from, to) = (u32::try_from(from).unwrap(), u32::try_from(to).unwrap());
        expected[worker] = journal.after_transfer(from, to, amount);
        layout.write_journal(page, row, expected[worker]).unwrap();
    }
    expected
}

#[test]
fn a_new_bank_is_sound_quiescent_and_in_wal_mode() {
    let bank = Bank::new(300, 4096);
    let neighbours = std::fs::read_dir(bank.path.parent().unwrap()).unwrap();
    assert_eq!(neighbours.count(), 1, "only the database itself is left");
    assert_eq!(bank.pages().bytes[18..20], [2, 2], "WAL mode");
    let facts = bank.facts();
    assert!(facts.is_sound());
    assert_eq!((facts.accounts, facts.total), (300, 300 * START));
    assert_eq!(facts.journal, vec![Journal::default(); 64]);
    assert!(create(&bank.path, 1, 4096, 0).is_err(), "would overwrite");
}

#[test]
fn impossible_banks_are_refused_before_a_file_is_made() {
    let bank = Bank::nowhere();
    for (accounts, page_size, balance) in [
        (0, 4096, 0),
        (1, 256, 0),
        (1, 5000, 0),
        (1, 131_072, 0),
        (1, 4096, MAX_VALUE + 1),
        (1, 4096, MIN_VALUE - 1),
    ] {
        assert!(create(&bank.path, accounts, page_size, balance).is_err());
        assert!(!bank.path.exists());
    }
}

#[test]
fn transfers_patched_into_pages_of_any_size_are_what_stock_sqlite_reads() {
    for (page_size, accounts) in [(512, 5_000), (4096, 5_000), (65536, 5_000), (65536, 1)] {
        let bank = Bank::new(accounts, page_size);
        let mut pages = bank.pages();
        let layout = pages.layout().unwrap();
        assert_eq!(layout.accounts().len(), usize::try_from(accounts).unwrap());
        let journal = transfer_at_random(&mut pages, &layout, u64::from(page_size));
        std::fs::write(&bank.path, &pages.bytes).unwrap();

        let facts = bank.facts();
        assert!(facts.is_sound(), "{page_size}: {:?}", facts.integrity);
        assert_eq!(facts.total, i64::from(accounts) * START);
        assert_eq!(facts.journal, journal);
        assert_eq!(layout.total(|page| pages.read(page)).unwrap(), facts.total);
        let connection = Connection::open(&bank.path).unwrap();
        let mut statement = connection
            .prepare("SELECT id, balance - 1099511627776 FROM account")
            .unwrap();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let (id, balance): (u32, i64) = (row.get(0).unwrap(), row.get(1).unwrap());
            let id = usize::try_from(id).unwrap();
            assert_eq!(pages.balance(&layout, id).unwrap(), balance);
        }
    }
}

#[test]
fn small_pages_give_a_table_with_two_levels_of_interior_pages() {
    // The walk of the test above is worth more if its trees are deep.
    let bank = Bank::new(5_000, 512);
    let pages = bank.pages();
    let geometry = pages.layout().unwrap().geometry();
    let root = table_root(geometry, "ACCOUNT", |page| pages.read(page)).unwrap();
    let root = pages.read(root).unwrap();
    assert_eq!(root[0], 5);
    let child = u32::from_be_bytes(root[8..12].try_into().unwrap());
    assert_eq!(pages.read(child).unwrap()[0], 5);
}

#[test]
fn reserved_bytes_at_the_end_of_a_page_are_not_read_as_cells() {
    let bank = Bank::nowhere();
    let connection = Connection::open(&bank.path).unwrap();
    connection
        .execute_batch("PRAGMA page_size = 1024; PRAGMA user_version = 1")
        .unwrap();
    connection.close().unwrap();
    // The only page has no cells, so its content may start anywhere.
    let mut pages = bank.pages();
    pages.bytes[20] = 100;
    pages.bytes[105..107].copy_from_slice(&924u16.to_be_bytes());
    std::fs::write(&bank.path, &pages.bytes).unwrap();
    let connection = Connection::open(&bank.path).unwrap();
    stock::fill(&connection, 2_000, START).unwrap();
    connection.close().unwrap();

    let mut pages = bank.pages();
    let layout = pages.layout().unwrap();
    assert!(layout.accounts().iter().all(|place| place.offset < 924));
    let journal = transfer_at_random(&mut pages, &layout, 20);
    std::fs::write(&bank.path, &pages.bytes).unwrap();
    let facts = bank.facts();
    assert!(facts.is_sound());
    assert_eq!(facts.total, 2_000 * START);
    assert_eq!(facts.journal, journal);
    // An overflowing row shows whether the usable size decides what overflows.
    bank.sql("UPDATE account SET balance = zeroblob(892) WHERE id = 70");
    assert!(matches!(
        refusal(&bank.layout().unwrap_err()),
        BankError::Overflow { rowid: 70, .. }
    ));
}

#[test]
fn the_table_is_found_in_a_deep_schema_with_overflowing_rows() {
    let bank = Bank::new(50, 512);
    for number in 0..60 {
        let columns: String = (0..40).map(|n| format!(", column_{n} TEXT")).collect();
        bank.sql(&format!("CREATE TABLE other_{number}(id{columns})"));
    }
    // Names of triggers are a world of their own.
    bank.sql("CREATE TRIGGER account AFTER DELETE ON journal BEGIN SELECT 1; END");
    let pages = bank.pages();
    assert_eq!(pages.read(1).unwrap()[100], 5, "the schema has a tree");
    let layout = pages.layout().unwrap();
    assert_eq!(layout.total(|page| pages.read(page)).unwrap(), 50 * START);
}

#[test]
fn an_empty_table_on_the_largest_page_has_no_rows() {
    let bank = Bank::new(5, 65536);
    bank.sql("DELETE FROM account");
    let pages = bank.pages();
    let layout = pages.layout().unwrap();
    let geometry = layout.geometry();
    let root = table_root(geometry, "account", |page| pages.read(page)).unwrap();
    let content = &pages.read(root).unwrap()[5..7];
    assert_eq!(content, [0, 0], "65536 is written as 0");
    assert!(layout.accounts().is_empty());
    assert_eq!(layout.total(|page| pages.read(page)).unwrap(), 0);
}

#[test]
fn a_digest_tells_sequences_apart_and_fits_its_column() {
    let transfers = [(1, 2, 30), (2, 1, 30), (1, 2, -30)];
    let after = |order: &[usize]| {
        order.iter().fold(Journal::default(), |journal, index| {
            let (from, to, amount) = transfers[*index];
            journal.after_transfer(from, to, amount)
        })
    };
    let sequences: [&[usize]; 6] = [&[], &[0], &[1], &[2], &[0, 1], &[1, 0]];
    let digests: std::collections::HashSet<_> =
        sequences.iter().map(|order| after(order).digest).collect();
    assert_eq!(digests.len(), sequences.len());
    assert!(
        digests
            .iter()
            .all(|digest| (0..=MAX_VALUE).contains(digest))
    );
    assert_eq!(after(&[0, 1]).transfers, 2);
}
