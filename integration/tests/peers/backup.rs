//! A backup is one snapshot, whoever writes meanwhile, and is a database.

use integration::stamped;
use std::ops::Range;
use std::path::PathBuf;

use integration::stock::{StockKind, StockSqlite};
use integration::worker::{Settings, Stamp, Worker};
use tempfile::TempDir;
use wal::{Cancel, CheckpointMode, Database, Error, Options, PageNo};

/// More than one run of pages is long.
const PAGES: u32 = 1500;

struct Scene {
    path: PathBuf,
    copy: PathBuf,
    pages: Range<u32>,
    directory: TempDir,
}

fn stamp(sequence: u64) -> Stamp {
    Stamp {
        writer: 1,
        sequence,
    }
}

impl Scene {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("app.db");
        let pages = stamped::create(&path, 1024, PAGES, "CREATE TABLE rows(n)").unwrap();
        Scene {
            copy: directory.path().join("copy.db"),
            path,
            pages,
            directory,
        }
    }

    fn ours(&self) -> Database {
        Options::new().auto_checkpoint(0).open(&self.path).unwrap()
    }

    /// The stamps of all stamped pages of the copy, which must be equal.
    fn sequence_of_copy(&self) -> u64 {
        let copy = Database::open(&self.copy).unwrap();
        let read = copy.begin_read().unwrap();
        let stamp_of = |page| {
            let bytes = read.page(PageNo::new(page).unwrap()).unwrap();
            Stamp::read(page, &bytes).unwrap().unwrap().sequence
        };
        let first = stamp_of(self.pages.start);
        assert!(self.pages.clone().all(|page| stamp_of(page) == first));
        first
    }

    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.directory.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name.starts_with("copy")).collect();
        names.sort();
        names
    }
}

#[test]
fn a_backup_is_one_snapshot_while_others_write_and_checkpoint() {
    for kind in StockKind::available() {
        let scene = Scene::new();
        let ours = scene.ours();
        let mut worker = Worker::open(&Settings::new(&scene.path)).unwrap();
        let mut stock = StockSqlite::spawn(kind, &scene.path, None).unwrap();
        stock.run("INSERT INTO rows VALUES(1)").unwrap().unwrap();
        worker.commit(scene.pages.clone(), stamp(1)).unwrap();
        let mut sequence = 1;
        let backup = ours.backup(&scene.copy, |progress| {
            assert!(progress.copied <= progress.pages);
            sequence += 1;
            worker.commit(scene.pages.clone(), stamp(sequence)).unwrap();
            stock.run("INSERT INTO rows VALUES(2)").unwrap().unwrap();
            ours.checkpoint(CheckpointMode::Passive).map(drop)
        });
        backup.unwrap();
        assert!(sequence > 2, "the backup went in one step");
        assert_eq!(scene.sequence_of_copy(), 1);
        assert_eq!(scene.files(), ["copy.db"]);
        let mut copy = StockSqlite::spawn(kind, &scene.copy, None).unwrap();
        let check = copy.run("PRAGMA integrity_check").unwrap().unwrap();
        assert_eq!(check.text().unwrap(), "ok", "{kind}");
        let rows = copy.run("SELECT count(*) FROM rows").unwrap().unwrap();
        assert_eq!(rows.integer().unwrap(), 1, "{kind}");
    }
}

#[test]
fn a_backup_that_is_broken_off_leaves_nothing() {
    let scene = Scene::new();
    let ours = scene.ours();
    let cancel = Cancel::new();
    let ended = ours.backup(&scene.copy, |_| {
        cancel.cancel();
        match cancel.is_cancelled() {
            true => Err(Error::Cancelled),
            false => Ok(()),
        }
    });
    assert!(matches!(ended, Err(Error::Cancelled)), "{ended:?}");
    assert!(scene.files().is_empty(), "{:?}", scene.files());
}

#[test]
fn a_backup_replaces_nothing() {
    let scene = Scene::new();
    let ours = scene.ours();
    for suffix in ["", "-wal"] {
        let there = wal_core::storage::beside(&scene.copy, suffix);
        std::fs::write(&there, "mine").unwrap();
        assert!(ours.backup(&scene.copy, |_| Ok(())).is_err(), "{suffix}");
        assert_eq!(std::fs::read(&there).unwrap(), b"mine");
        std::fs::remove_file(there).unwrap();
    }
}

/// At every moment the old or the new backup is there as a whole.
#[test]
fn backup_replaces_the_last_one_in_one_call() {
    let scene = Scene::new();
    let ours = scene.ours();
    let mut worker = Worker::open(&Settings::new(&scene.path)).unwrap();
    worker.commit(scene.pages.clone(), stamp(1)).unwrap();
    ours.replace_backup(&scene.copy, |_| Ok(())).unwrap();
    for sequence in 2..5 {
        worker.commit(scene.pages.clone(), stamp(sequence)).unwrap();
        let replaced = ours.replace_backup(&scene.copy, |_| {
            assert_eq!(scene.sequence_of_copy(), sequence - 1);
            Ok(())
        });
        replaced.unwrap();
        assert_eq!(scene.sequence_of_copy(), sequence);
        assert_eq!(scene.files(), ["copy.db"]);
    }
}

#[test]
fn backup_replaces_no_database_in_use() {
    let scene = Scene::new();
    let ours = scene.ours();
    let itself = ours.replace_backup(&scene.path, |_| Ok(())).unwrap_err();
    assert!(matches!(itself, Error::CannotOpen { .. }), "{itself}");
    ours.backup(&scene.copy, |_| Ok(())).unwrap();
    // It shows itself by its locks, and with a transaction by its log.
    let mut peer = Worker::open(&Settings::new(&scene.copy)).unwrap();
    for sequence in 0..2 {
        let refused = ours.replace_backup(&scene.copy, |_| Ok(())).unwrap_err();
        let expected = matches!(refused, Error::Locked { .. } | Error::CannotOpen { .. });
        assert!(expected, "{refused}");
        peer.commit(scene.pages.clone(), stamp(sequence)).unwrap();
    }
    peer.end().unwrap();
    ours.replace_backup(&scene.copy, |_| Ok(())).unwrap();
}

/// A process that is killed while it copies leaves the copy under another name.
#[test]
fn copy_of_a_killed_backup_is_removed_by_the_next() {
    let scene = Scene::new();
    let leftover = scene.directory.path().join("copy.db-new-by-wal-1-0");
    std::fs::write(&leftover, [0; 4096]).unwrap();
    let ours = scene.ours();
    let next = scene.directory.path().join("copy-2.db");
    ours.backup(&next, |_| Ok(())).unwrap();
    assert_eq!(scene.files(), ["copy-2.db"]);
}

/// FAT has no hard links.
#[cfg(target_os = "linux")]
#[test]
fn backup_goes_to_a_file_system_without_links() {
    use integration::disk::{FileSystem, with_disk};
    let vfat = FileSystem::Vfat;
    if !vfat.need().is_met("a backup to FAT") {
        return;
    }
    let scene = Scene::new();
    let ours = scene.ours();
    with_disk(vfat, vfat.least_bytes(), |disk| {
        let copy = disk.join("copy.db");
        ours.backup(&copy, |_| Ok(())).unwrap();
        ours.replace_backup(&copy, |_| Ok(())).unwrap();
        let there = ours.backup(&copy, |_| Ok(())).unwrap_err();
        assert!(matches!(there, Error::Io { .. }), "{there}");
        assert_eq!(std::fs::read_dir(disk).unwrap().count(), 1);
        assert!(Database::open(&copy).is_ok());
    })
    .unwrap();
}
