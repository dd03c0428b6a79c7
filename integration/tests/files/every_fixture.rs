//! Every fixture, read in every way, against what stock SQLite said of it.

use fixtures::{Fixture, file_digests};
use integration::folder::FolderState;
use integration::reading::{Contents, Opener};
use wal::Error;

/// The fixtures that are databases in WAL mode, so that the library opens them.
fn in_wal_mode() -> Vec<Fixture> {
    let mut fixtures = fixtures::all().unwrap();
    fixtures.retain(|fixture| fixture.facts.log.is_some());
    assert!(fixtures.len() >= 18, "only {} fixtures", fixtures.len());
    fixtures
}

fn expected(fixture: &Fixture) -> Contents {
    let facts = &fixture.facts;
    assert_eq!(facts.pages.len(), facts.page_count, "{}", facts.name);
    Contents {
        page_size: facts.page_size,
        max_frame: facts.log.as_ref().unwrap().frames_committed,
        pages: facts.pages.clone(),
    }
}

#[test]
fn every_page_is_what_stock_sqlite_said() {
    for fixture in in_wal_mode() {
        for opener in Opener::ALL {
            let copy = fixture.copy().unwrap();
            let read = opener.read(&copy.database()).unwrap();
            assert_eq!(
                read,
                expected(&fixture),
                "{} by {opener:?}",
                fixture.facts.name
            );
        }
    }
}

#[test]
fn the_last_closer_leaves_what_stock_sqlite_leaves() {
    for fixture in in_wal_mode() {
        for opener in Opener::ALL {
            let case = format!("{} by {opener:?}", fixture.facts.name);
            let copy = fixture.copy().unwrap();
            opener.read(&copy.database()).unwrap();
            let left = file_digests(&copy.database(), fixture.facts.page_size).unwrap();
            assert_eq!(left, fixture.facts.pages, "{case}");
            let state = FolderState::of(copy.folder()).unwrap();
            assert_eq!(state.names(), [fixtures::DATABASE], "{case}");
        }
    }
}

fn is_refused_untouched(name: &str, is_expected: fn(&Error) -> bool) {
    let fixture = fixtures::named(name).unwrap();
    for opener in Opener::ALL {
        let copy = fixture.copy().unwrap();
        let before = FolderState::of(copy.folder()).unwrap();
        let error = opener.read(&copy.database()).unwrap_err();
        assert!(is_expected(&error), "{opener:?}: {error:?}");
        let after = FolderState::of(copy.folder()).unwrap();
        assert_eq!(before.changes(&after), [""; 0], "{opener:?}");
    }
}

#[test]
fn a_database_in_rollback_mode_is_refused_and_left_as_it_is() {
    is_refused_untouched("rollback-mode", |e| matches!(e, Error::NotWalMode { .. }));
}

#[test]
fn a_hot_journal_is_refused_and_left_as_it_is() {
    is_refused_untouched("hot-journal", |e| matches!(e, Error::HotJournal { .. }));
}
