//! A file with two names has two logs, so it is refused by either of them.

use std::fs;
use std::path::Path;

use integration::disk::{FileSystem, with_disk};
use integration::worker::BackendKind;
use nix::mount::{MsFlags, mount};
use wal::{DatabaseKind, Options, PageNo};
use wal_core::storage::beside;

use super::{expect_rows, options, refused_saying, sqlite_database, try_open};

fn allowed() -> Options {
    options().allow_other_names(true)
}

#[test]
fn hard_link_is_refused_by_either_name() {
    let folder = tempfile::tempdir().unwrap();
    let (path, link) = (folder.path().join("app.db"), folder.path().join("link"));
    sqlite_database(&path);
    fs::hard_link(&path, &link).unwrap();
    for name in [&path, &link] {
        let says = ["2 names", "hard links", "Options::allow_other_names"];
        refused_saying(&options(), name, &says);
        let reader = options().read_only(true).open(name).unwrap_err();
        assert!(reader.to_string().contains("hard links"), "{reader}");
        for backend in [BackendKind::Shm, BackendKind::InProcess] {
            try_open(backend, &allowed(), name).unwrap();
        }
        // It has no log.
        options()
            .immutable(true)
            .open(name)
            .unwrap()
            .close()
            .unwrap();
    }
    fs::remove_file(&link).unwrap();
    for backend in [BackendKind::Shm, BackendKind::InProcess] {
        try_open(backend, &options(), &path).unwrap();
    }
    expect_rows(&path);
}

/// As containers get it: the file, and not its directory.
#[test]
fn file_that_is_mounted_by_itself_is_refused() {
    if !FileSystem::Tmpfs
        .need()
        .is_met("a database file that is mounted by itself")
    {
        return;
    }
    with_disk(FileSystem::Tmpfs, 0, |disk: &Path| {
        let (path, mounted) = (disk.join("app.db"), disk.join("container").join("app.db"));
        sqlite_database(&path);
        fs::create_dir(disk.join("container")).unwrap();
        fs::write(&mounted, "").unwrap();
        let bind = |from: &Path, to: &Path| {
            mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        };
        bind(&path, &mounted);
        let says = [
            "mounted by itself",
            "share its directory",
            "allow_other_names",
        ];
        refused_saying(&options(), &mounted, &says);
        for suffix in ["-wal", "-shm", "-coord"] {
            assert!(!beside(&mounted, suffix).exists(), "{suffix}");
        }
        try_open(BackendKind::Shm, &allowed(), &mounted).unwrap();

        // A directory that is mounted twice is one directory, with one log.
        let directory = disk.join("directory");
        fs::create_dir(&directory).unwrap();
        bind(disk, &directory);
        let here = options().open(&path).unwrap();
        let there = options().open(directory.join("app.db")).unwrap();
        let mut write = here.begin_write().unwrap();
        write.page_mut(PageNo::ONE).unwrap()[60] ^= 1;
        write.commit().unwrap();
        let byte = |database: &wal::Database| {
            let read = database.begin_read().unwrap();
            let page = read.page(PageNo::ONE).unwrap();
            page[60]
        };
        assert_eq!(byte(&here), byte(&there));
    })
    .unwrap();
}

/// A new store never has two names, which its openers would notice.
#[test]
fn new_store_has_one_name() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..20 {
        let path = folder.path().join(round.to_string());
        let open = || {
            options()
                .kind(DatabaseKind::PageStore)
                .busy_timeout(std::time::Duration::from_secs(30))
                .open(&path)
                .unwrap();
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(open);
            }
        });
    }
}
