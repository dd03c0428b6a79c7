//! A file is taken for what it is, or for what was asked for by name, and for nothing else; no
//! commit makes it something else.

mod empty_files;
mod foreign_log;
mod names;
mod page_one;
mod page_stores;
mod side_files;

use std::fs;
use std::path::Path;

use integration::folder::FolderState;
use integration::worker::BackendKind;
use wal::{DatabaseKind, Error, Options, Synchronous};

/// Nothing is waited for or synced.
fn options() -> Options {
    Options::new()
        .synchronous(Synchronous::Off)
        .busy_timeout(std::time::Duration::ZERO)
}

/// Opens and closes a database.
fn try_open(backend: BackendKind, options: &Options, path: &Path) -> wal::Result<()> {
    match backend {
        BackendKind::Shm => options.open_shm(path)?.close(),
        BackendKind::InProcess => options.open_inproc(path)?.close(),
    }
}

/// Opens `path` in `folder` by both backends, which is refused with nothing touched, and gives
/// the errors.
fn refused(options: &Options, folder: &Path, path: &Path) -> [Error; 2] {
    let before = FolderState::of(folder).unwrap();
    let errors = [BackendKind::Shm, BackendKind::InProcess]
        .map(|backend| try_open(backend, options, path).unwrap_err());
    let after = FolderState::of(folder).unwrap();
    assert_eq!(before.changes(&after), [""; 0], "{errors:?}");
    errors
}

/// As [`refused`], by an error that says each of `parts`.
fn refused_saying(options: &Options, path: &Path, parts: &[&str]) {
    for error in refused(options, path.parent().unwrap(), path) {
        assert!(matches!(error, Error::CannotOpen { .. }), "{error:?}");
        let message = error.to_string();
        for part in parts {
            assert!(message.contains(part), "no `{part}` in: {message}");
        }
    }
}

/// A SQLite database in WAL mode with the rows 1 to 3, without a log.
fn sqlite_database(path: &Path) {
    let stock = rusqlite::Connection::open(path).unwrap();
    stock
        .execute_batch(
            "PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES(1), (2), (3)",
        )
        .unwrap();
    stock.close().unwrap();
}

/// Stock SQLite finds the rows 1 to 3 in a sound file.
fn expect_rows(path: &Path) {
    let stock = rusqlite::Connection::open(path).unwrap();
    let ask = |sql| stock.query_row(sql, [], |row| row.get::<_, String>(0));
    assert_eq!(ask("SELECT group_concat(a) FROM t").unwrap(), "1,2,3");
    assert_eq!(ask("PRAGMA integrity_check").unwrap(), "ok");
    stock.close().unwrap();
}

#[test]
fn absent_file_is_created_as_pages_and_only_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("absent");
    for kind in [None, Some(DatabaseKind::Sqlite)] {
        let options = match kind {
            Some(kind) => options().kind(kind),
            None => options(),
        };
        for error in refused(&options, folder.path(), &path) {
            assert!(
                matches!(&error, Error::Io { source, .. }
                    if source.kind() == std::io::ErrorKind::NotFound),
                "{error:?}"
            );
            assert!(error.to_string().contains("open_pages"), "{error}");
        }
    }
    for kind in [DatabaseKind::PageStore, DatabaseKind::RawPages] {
        let options = options().kind(kind);
        refused(&options.clone().create(false), folder.path(), &path);
        refused(&options.clone().immutable(true), folder.path(), &path);
        refused(&options.clone().read_only(true), folder.path(), &path);
        for backend in [BackendKind::Shm, BackendKind::InProcess] {
            try_open(backend, &options, &path).unwrap();
            assert_eq!(FolderState::of(folder.path()).unwrap().names(), ["absent"]);
            assert_eq!(fs::metadata(&path).unwrap().len(), 4096, "{kind:?}");
            fs::remove_file(&path).unwrap();
        }
    }
}

/// A file whose pages are encrypted looks like this.
#[test]
fn file_of_random_bytes_is_opened_only_as_raw_pages() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("random");
    let bytes: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..))
        .take(8192)
        .collect();
    fs::write(&path, &bytes).unwrap();
    let kinds = [
        Some(DatabaseKind::Sqlite),
        Some(DatabaseKind::PageStore),
        None,
    ];
    for kind in kinds {
        let asked = kind.map_or(options(), |kind| options().kind(kind));
        for options in [
            asked.clone(),
            asked.clone().create(false),
            asked.immutable(true),
        ] {
            refused_or_no_reader(&options, &path, &["no database", "RawPages", "page_size"]);
        }
    }
    let raw = options().kind(DatabaseKind::RawPages);
    for backend in [BackendKind::Shm, BackendKind::InProcess] {
        try_open(backend, &raw, &path).unwrap();
    }
    let database = raw.page_size(wal::PageSize::MIN).open(&path).unwrap();
    assert_eq!(database.begin_read().unwrap().page_count(), 16);
    database.close().unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

/// The in-process backend refuses every reader alone, whatever the file is.
fn refused_or_no_reader(options: &Options, path: &Path, parts: &[&str]) {
    let errors = refused(options, path.parent().unwrap(), path);
    let says = |error: &Error| parts.iter().all(|part| error.to_string().contains(part));
    let no_reader = |error: &Error| error.to_string().contains("which a reader cannot");
    let [shared, in_process] = &errors;
    assert!(says(shared), "{shared}");
    assert!(says(in_process) || no_reader(in_process), "{in_process}");
}

#[test]
fn database_of_one_kind_is_refused_as_another() {
    let folder = tempfile::tempdir().unwrap();
    let (sqlite, store) = (folder.path().join("app.db"), folder.path().join("pages"));
    sqlite_database(&sqlite);
    try_open(
        BackendKind::Shm,
        &options().kind(DatabaseKind::PageStore),
        &store,
    )
    .unwrap();
    for kind in [DatabaseKind::PageStore, DatabaseKind::RawPages] {
        refused_saying(
            &options().kind(kind),
            &sqlite,
            &["a SQLite database", "Options::kind"],
        );
    }
    for kind in [DatabaseKind::Sqlite, DatabaseKind::RawPages] {
        refused_saying(
            &options().kind(kind),
            &store,
            &["a page store", "Options::kind"],
        );
    }
    for path in [&sqlite, &store] {
        for backend in [BackendKind::Shm, BackendKind::InProcess] {
            try_open(backend, &options(), path).unwrap();
        }
    }
    expect_rows(&sqlite);
}

/// Stock SQLite goes by the read version, and leaves out a part of a page at the end.
#[test]
fn database_that_stock_opens_is_opened() {
    use std::os::unix::fs::FileExt;
    let folder = tempfile::tempdir().unwrap();
    for (number, (versions, tail)) in [([1, 2], 0), ([2, 2], 100), ([2, 2], 4095)]
        .into_iter()
        .enumerate()
    {
        let path = folder.path().join(format!("{number}.db"));
        sqlite_database(&path);
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.write_all_at(&versions, 18).unwrap();
        let len = file.metadata().unwrap().len();
        file.write_all_at(&vec![7; tail], len).unwrap();
        drop(file);
        for backend in [BackendKind::Shm, BackendKind::InProcess] {
            try_open(backend, &options(), &path).unwrap();
        }
        let database = options().open(&path).unwrap();
        let pages = database.begin_read().unwrap().page_count();
        assert_eq!(u64::from(pages), len / 4096, "{number}");
        let mut write = database.begin_write().unwrap();
        write.page_mut(wal::PageNo::ONE).unwrap()[60] ^= 1;
        write.commit().unwrap();
        database.close().unwrap();
        expect_rows(&path);
    }
    let path = folder.path().join("0.db");
    let file = fs::File::options().write(true).open(&path).unwrap();
    // The write version of a later SQLite allows to read alone, its read version nothing.
    file.write_all_at(&[3, 2], 18).unwrap();
    refused_saying(&options(), &path, &["newer version of SQLite"]);
    file.write_all_at(&[3, 3], 18).unwrap();
    refused(&options(), folder.path(), &path);
}
