//! What SQL does to the rows between our accesses.

use super::*;

#[test]
fn a_balance_that_sql_updates_is_read_and_patched_by_the_same_layout() {
    let bank = Bank::new(1_000, 4096);
    let layout = bank.layout().unwrap();
    bank.sql("UPDATE account SET balance = balance - 77 WHERE id = 500");
    let mut pages = bank.pages();
    layout.check_page_one(pages.read(1).unwrap()).unwrap();
    assert_eq!(pages.balance(&layout, 500).unwrap(), START - 77);
    pages.set_balance(&layout, 500, -3).unwrap();
    std::fs::write(&bank.path, &pages.bytes).unwrap();
    bank.sql("UPDATE account SET balance = balance + 1 WHERE id = 500");
    assert_eq!(bank.pages().balance(&layout, 500).unwrap(), -2);
    // Serial type 5 also holds what only SQL would store.
    bank.sql("UPDATE account SET balance = -(1 << 40) WHERE id = 500");
    assert_eq!(bank.pages().balance(&layout, 500).unwrap(), -2 * OFFSET);
}

#[test]
fn the_ends_of_the_range_keep_their_width_and_beyond_them_nothing_is_written() {
    let bank = Bank::new(10, 512);
    let mut pages = bank.pages();
    let layout = pages.layout().unwrap();
    pages.set_balance(&layout, 3, MIN_VALUE).unwrap();
    pages.set_balance(&layout, 4, MAX_VALUE).unwrap();
    let before = pages.bytes.clone();
    for value in [MIN_VALUE - 1, MAX_VALUE + 1, i64::MIN, i64::MAX] {
        let error = pages.set_balance(&layout, 6, value).unwrap_err();
        assert_eq!(error, BankError::OutOfRange { value });
    }
    assert_eq!(pages.bytes, before);
    std::fs::write(&bank.path, &pages.bytes).unwrap();
    // A change and back makes SQLite choose the width of each value anew.
    for step in [-4_000, 4_000] {
        bank.sql(&format!("UPDATE account SET balance = balance + {step}"));
    }
    assert_eq!(
        bank.query("SELECT balance FROM account WHERE id = 3"),
        1 << 31
    );
    assert_eq!(
        bank.query("SELECT balance FROM account WHERE id = 4"),
        (1 << 47) - 1
    );
    let layout = bank.layout().unwrap();
    assert_eq!(bank.pages().balance(&layout, 4).unwrap(), MAX_VALUE);
    // One step further on either side, SQLite does choose another width.
    for sql in ["= balance - 1 WHERE id = 3", "= balance + 1 WHERE id = 4"] {
        let one_more = Bank::new(1, 512);
        std::fs::copy(&bank.path, &one_more.path).unwrap();
        one_more.sql(&format!("UPDATE account SET balance {sql}"));
        let error = one_more.layout().unwrap_err();
        assert!(matches!(refusal(&error), BankError::Width { .. }));
    }
}

#[test]
fn a_value_that_sql_makes_narrower_or_wider_is_refused() {
    for (value, serial_type) in [("5", 1), ("3000000", 3), ("1 << 60", 6), ("'none'", 21)] {
        let bank = Bank::new(20, 4096);
        let layout = bank.layout().unwrap();
        bank.sql(&format!(
            "UPDATE account SET balance = {value} WHERE id = 7"
        ));
        let mut pages = bank.pages();
        let before = pages.bytes.clone();
        for error in [
            pages.balance(&layout, 7).unwrap_err(),
            pages.set_balance(&layout, 7, 1).unwrap_err(),
            refusal(&pages.layout().unwrap_err()).clone(),
        ] {
            let page = layout.accounts()[7].page;
            let rowid = 7;
            let expected = BankError::Width {
                page,
                rowid,
                serial_type,
            };
            assert_eq!(error, expected, "balance = {value}");
        }
        assert_eq!(pages.bytes, before);
    }
}

#[test]
fn a_row_that_overflows_its_page_is_refused() {
    let bank = Bank::new(100, 512);
    bank.sql("UPDATE account SET balance = zeroblob(3000) WHERE id = 70");
    let error = bank.layout().unwrap_err();
    assert!(matches!(
        refusal(&error),
        BankError::Overflow { rowid: 70, .. }
    ));
}

#[test]
fn a_row_whose_bytes_remain_where_it_no_longer_lives_has_moved() {
    let bank = Bank::new(20, 4096);
    let layout = bank.layout().unwrap();
    // Rows before ours shift the pointers and leave each cell where it was.
    bank.sql("INSERT INTO account VALUES(-1, 1 << 40)");
    let mut pages = bank.pages();
    let page = layout.accounts()[7].page;
    let moved = BankError::Moved { page };
    assert_eq!(pages.balance(&layout, 7).unwrap_err(), moved);
    assert_eq!(pages.set_balance(&layout, 7, 0).unwrap_err(), moved);
    let error = pages.layout().unwrap_err();
    assert_eq!(refusal(&error), &BankError::Gap { rowid: -1 });
    // Whatever became of the row that now has the cell, ours has moved.
    bank.sql("UPDATE account SET balance = 5 WHERE id = 6");
    assert_eq!(bank.pages().balance(&layout, 7).unwrap_err(), moved);
}

#[test]
fn a_row_that_moved_within_its_page_is_not_patched_at_its_old_place() {
    let bank = Bank::new(20, 4096);
    let layout = bank.layout().unwrap();
    // Two neighbours move out and come back into each other's place.
    bank.sql("UPDATE account SET balance = zeroblob(50) WHERE id IN (7, 8)");
    bank.sql("UPDATE account SET balance = 1 << 40 WHERE id = 8");
    bank.sql("UPDATE account SET balance = 1 << 40 WHERE id = 7");
    let mut pages = bank.pages();
    let (old, new) = (layout.accounts()[7], pages.layout().unwrap().accounts()[7]);
    assert_eq!((old.page, old.cell), (new.page, new.cell));
    assert_ne!(old.offset, new.offset);
    let before = pages.bytes.clone();
    let moved = BankError::Moved { page: old.page };
    assert_eq!(pages.set_balance(&layout, 7, 1).unwrap_err(), moved);
    assert_eq!(pages.bytes, before);
}

#[test]
fn pages_freed_or_appended_or_a_new_schema_show_on_page_one() {
    for sql in [
        "DELETE FROM account WHERE id >= 300",
        "INSERT INTO account SELECT id + 1000, balance FROM account",
        "CREATE INDEX by_balance ON account(balance)",
        "VACUUM",
    ] {
        let bank = Bank::new(1_000, 512);
        let layout = bank.layout().unwrap();
        bank.sql(sql);
        let pages = bank.pages();
        let error = layout.check_page_one(pages.read(1).unwrap()).unwrap_err();
        assert_eq!(error, BankError::Moved { page: 1 }, "{sql}");
        let fresh = pages.layout().unwrap();
        let total = fresh.total(|page| pages.read(page)).unwrap();
        assert_eq!(total, bank.facts().total, "{sql}");
    }
}

#[test]
fn tables_that_the_bank_cannot_patch_are_refused() {
    let bank = Bank::new(5, 512);
    bank.sql("ALTER TABLE account RENAME TO elsewhere");
    let name = "account".into();
    assert_eq!(
        refusal(&bank.layout().unwrap_err()),
        &BankError::NoTable { name }
    );
    bank.sql("CREATE TABLE account(id INTEGER PRIMARY KEY, balance) WITHOUT ROWID");
    let error = bank.layout().unwrap_err();
    assert!(matches!(refusal(&error), BankError::Corrupt { .. }));
    bank.sql("DROP TABLE account; ALTER TABLE elsewhere RENAME TO account");
    assert!(bank.layout().is_ok());
    bank.sql("DELETE FROM account WHERE id = 2");
    let error = bank.layout().unwrap_err();
    assert_eq!(refusal(&error), &BankError::Gap { rowid: 3 });
}

#[test]
fn each_field_of_page_one_that_tells_of_pages_or_schema_counts_by_itself() {
    let bank = Bank::new(10, 512);
    let layout = bank.layout().unwrap();
    let sound = bank.pages().read(1).unwrap().to_vec();
    for (offset, moved) in [(24, false), (28, true), (32, true), (36, true), (40, true)] {
        let mut page_one = sound.clone();
        page_one[offset + 3] ^= 1;
        let checked = layout.check_page_one(&page_one);
        let expected = match moved {
            true => Err(BankError::Moved { page: 1 }),
            false => Ok(()),
        };
        assert_eq!(checked, expected, "offset {offset}");
    }
}
