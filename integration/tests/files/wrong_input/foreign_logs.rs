//! Logs that do not belong to the database beside which they lie.

use std::fs;

use fixtures::{DATABASE, LOG};
use wal::Error;
use wal_core::format::{ByteOrder, Checksum};

use super::foreign_files::fixture_in;
use super::refusal::Refusal;

/// The log is read by the first transaction only, when these are there.
const MADE: [&str; 2] = ["app.db-shm", "app.db-coord"];

#[test]
fn a_log_of_another_page_size_is_refused() {
    let refusal = Refusal {
        is_expected: |e| {
            matches!(
                e,
                Error::PageSizeMismatch {
                    expected: 512,
                    found: 1024,
                    ..
                }
            )
        },
        names: LOG,
        says: &["1024", "512", "backup"],
    };
    refusal.holds_but_for(&MADE, |folder| {
        fixture_in(folder, "pages-512");
        let other = fixtures::named("pages-1024").unwrap();
        fs::write(folder.join(LOG), other.read(LOG).unwrap()).unwrap();
        DATABASE.into()
    });
}

#[test]
fn a_log_beside_an_empty_database_is_not_thrown_away() {
    let refusal = Refusal {
        is_expected: |e| matches!(e, Error::CannotOpen { .. }),
        names: DATABASE,
        says: &[
            "a log lies beside it",
            "restore the database, or remove the log",
        ],
    };
    refusal.holds(|folder| {
        fixture_in(folder, "pages-1024");
        fs::write(folder.join(DATABASE), "").unwrap();
        DATABASE.into()
    });
}

#[test]
fn a_log_of_an_unknown_version_is_refused() {
    let refusal = Refusal {
        is_expected: |e| matches!(e, Error::CannotOpen { .. }),
        names: LOG,
        says: &["3007001", "newer program"],
    };
    refusal.holds_but_for(&MADE, |folder| {
        fixture_in(folder, "pages-1024");
        let path = folder.join(LOG);
        let mut log = fs::read(&path).unwrap();
        log[4..8].copy_from_slice(&3_007_001u32.to_be_bytes());
        let sum = Checksum::ZERO.update(ByteOrder::Little, &log[..24]);
        log[24..32].copy_from_slice(&sum.to_be_bytes());
        fs::write(path, log).unwrap();
        DATABASE.into()
    });
}

#[test]
fn a_directory_in_place_of_the_log_is_refused() {
    let refusal = Refusal {
        is_expected: |e| matches!(e, Error::Io { .. }),
        names: LOG,
        says: &["open failed", "directory"],
    };
    refusal.holds_but_for(&MADE, |folder| {
        fixture_in(folder, "pages-1024");
        fs::remove_file(folder.join(LOG)).unwrap();
        fs::create_dir(folder.join(LOG)).unwrap();
        DATABASE.into()
    });
}
