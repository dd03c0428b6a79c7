//! A page store is recognised by its header, which remembers its page size.

use std::fs;
use std::path::Path;

use integration::folder::FolderState;
use integration::worker::BackendKind;
use wal::{Database, DatabaseKind, Error, Options, PAGE_STORE_HEADER_LEN, PageNo, PageSize};
use wal_core::storage::beside;

use super::{options, refused, refused_saying, try_open};

const SIZES: [u32; 8] = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536];

fn size(bytes: u32) -> PageSize {
    PageSize::new(bytes).unwrap()
}

fn store() -> Options {
    options().kind(DatabaseKind::PageStore)
}

/// A store of three pages.
fn made(path: &Path, page_size: u32) -> Database {
    let database = store().page_size(size(page_size)).open(path).unwrap();
    let mut write = database.begin_write().unwrap();
    for byte in [2, 3] {
        let page = write.allocate().unwrap();
        write.page_mut(page).unwrap().fill(byte);
    }
    write.commit().unwrap();
    database
}

fn expect_three_pages(options: &Options, path: &Path) {
    let database = options.open(path).unwrap();
    let read = database.begin_read().unwrap();
    assert_eq!(read.page_count(), 3);
    for byte in [2, 3] {
        let page = read.page(PageNo::new(byte).unwrap()).unwrap();
        assert!(page.iter().all(|found| u32::from(*found) == byte));
    }
    drop(read);
    database.close().unwrap();
}

#[test]
fn page_size_of_a_store_is_remembered() {
    for page_size in SIZES {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pages");
        made(&path, page_size).close().unwrap();
        expect_three_pages(&options(), &path);
        expect_three_pages(&store(), &path);
        expect_three_pages(&store().page_size(size(page_size)), &path);
        for other in SIZES.into_iter().filter(|other| *other != page_size) {
            let says = ["Options::page_size", &page_size.to_string()];
            refused_saying(&options().page_size(size(other)), &path, &says);
            refused_saying(&store().page_size(size(other)), &path, &says);
        }
        expect_three_pages(&options().immutable(true), &path);
        let other = size(if page_size == 512 { 1024 } else { 512 });
        let immutable = options().immutable(true).page_size(other);
        refused(&immutable, folder.path(), &path);
    }
}

/// The log and the index are there too, as a killed process leaves them.
#[test]
fn page_size_of_a_store_is_remembered_beside_a_log() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("pages"), folder.path().join("copy"));
    let database = made(&path, 4096);
    for suffix in ["", "-wal", "-shm"] {
        fs::copy(beside(&path, suffix), beside(&copy, suffix)).unwrap();
    }
    for options in [options(), store()] {
        refused_saying(
            &options.page_size(size(1024)),
            &copy,
            &["Options::page_size", "4096"],
        );
    }
    expect_three_pages(&options(), &copy);
    database.close().unwrap();
}

/// Their file does not tell, but their log does.
#[test]
fn raw_pages_beside_a_log_of_another_size_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("raw"), folder.path().join("copy"));
    let raw = options().kind(DatabaseKind::RawPages);
    let database = raw.open(&path).unwrap();
    let mut write = database.begin_write().unwrap();
    write.page_mut(PageNo::ONE).unwrap().fill(7);
    write.commit().unwrap();
    for suffix in ["", "-wal"] {
        fs::copy(beside(&path, suffix), beside(&copy, suffix)).unwrap();
    }
    let says = ["Options::page_size", "to 4096"];
    refused_saying(&raw.clone().page_size(size(1024)), &copy, &says);
    raw.open(&copy).unwrap().close().unwrap();
    database.close().unwrap();
}

#[test]
fn store_with_a_damaged_header_is_corrupt() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pages");
    made(&path, 4096).close().unwrap();
    let sound = fs::read(&path).unwrap();
    for at in 16..PAGE_STORE_HEADER_LEN {
        let mut bytes = sound.clone();
        bytes[at] ^= 1;
        fs::write(&path, &bytes).unwrap();
        for error in refused(&options(), folder.path(), &path) {
            match at {
                16..20 => assert!(error.to_string().contains("newer version"), "{error}"),
                _ => assert!(matches!(error, Error::Corrupt { .. }), "{error:?}"),
            }
        }
    }
    for len in [100, 4096 + 100] {
        fs::write(&path, &sound[..len]).unwrap();
        refused_saying(&options(), &path, &["no multiple of the page size"]);
    }
}

/// A maker that dies in an empty file leaves the header alone.
#[test]
fn store_whose_maker_died_is_made_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pages");
    made(&path, 512).close().unwrap();
    let header = fs::read(&path).unwrap()[..PAGE_STORE_HEADER_LEN].to_vec();
    for backend in [BackendKind::Shm, BackendKind::InProcess] {
        fs::write(&path, &header).unwrap();
        refused(&options(), folder.path(), &path);
        try_open(backend, &store(), &path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 512);
        try_open(backend, &options(), &path).unwrap();
    }
}

#[test]
fn backup_of_a_store_is_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("pages"), folder.path().join("copy"));
    let database = made(&path, 2048);
    database.backup(&copy, |_| Ok(())).unwrap();
    database.close().unwrap();
    expect_three_pages(&options(), &copy);
    assert_eq!(fs::read(&path).unwrap(), fs::read(&copy).unwrap());
    assert_eq!(
        FolderState::of(folder.path()).unwrap().names(),
        ["copy", "pages"]
    );
}

#[test]
fn log_of_another_store_is_refused_by_its_page_one() {
    let folder = tempfile::tempdir().unwrap();
    let [own, other] = ["own", "other"].map(|name| folder.path().join(name));
    made(&own, 4096).close().unwrap();
    let database = made(&other, 4096);
    let mut write = database.begin_write().unwrap();
    write.page_mut(PageNo::ONE).unwrap()[PAGE_STORE_HEADER_LEN] = 7;
    write.commit().unwrap();
    let log = fs::read(beside(&other, "-wal")).unwrap();
    database.close().unwrap();
    let before = fs::read(&own).unwrap();
    for backend in [BackendKind::Shm, BackendKind::InProcess] {
        fs::write(beside(&own, "-wal"), &log).unwrap();
        let read = match backend {
            BackendKind::Shm => (store().open_shm(&own)).and_then(|own| own.begin_read().map(drop)),
            BackendKind::InProcess => {
                (store().open_inproc(&own)).and_then(|own| own.begin_read().map(drop))
            }
        };
        let error = read.unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
        assert!(error.to_string().contains("another page store"), "{error}");
        assert_eq!(fs::read(&own).unwrap(), before, "nothing is moved");
        assert_eq!(fs::read(beside(&own, "-wal")).unwrap(), log);
    }
    fs::remove_file(beside(&own, "-wal")).unwrap();
    expect_three_pages(&store(), &own);
}

#[test]
fn header_of_another_store_is_not_committed() {
    let folder = tempfile::tempdir().unwrap();
    let [own, other] = ["own", "other"].map(|name| folder.path().join(name));
    made(&other, 4096).close().unwrap();
    let database = made(&own, 4096);
    let header = &fs::read(&other).unwrap()[..PAGE_STORE_HEADER_LEN];
    let mut write = database.begin_write().unwrap();
    write.page_mut(PageNo::ONE).unwrap()[..PAGE_STORE_HEADER_LEN].copy_from_slice(header);
    let error = write.commit().unwrap_err();
    assert!(error.to_string().contains("another page store"), "{error}");
    drop(database);
    expect_three_pages(&store(), &own);
}
