//! A process may lose the path of a database that it has open: by `chroot`, `setuid`, or the
//! renaming of a directory above. The database goes on, as with stock SQLite, and what lies
//! at the old path is left alone.

// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::unwrap_used)]
#![cfg(target_os = "linux")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use integration::needs::Need;
use integration::stock::{StockKind, StockSqlite};
use integration::worker::{WATCHDOG, Worker, fork};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, chdir, chroot, setgid, setuid};
use tempfile::TempDir;
use wal::{CheckpointMode, Error, LockKind, Options, PageNo};
use wal_core::storage::{LOOK_IN_PLACE_EVERY, beside};

/// "nobody", who owns nothing.
const NOBODY: u32 = 65534;

/// How a path gets out of reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Departure {
    /// Into a directory that is empty.
    ChrootToNothing,
    /// Into a directory that has other files at the same path.
    ChrootToNamesakes,
    /// As a user who may not search the directory above.
    SetuidBelow,
    /// As a user who may not search the directory itself.
    SetuidWithin,
    RenamedParent,
    /// Another directory has the old name, with other files in it.
    ReplacedParent,
    /// The path was relative.
    Chdir,
    /// In a mount namespace of its own (private `/tmp`).
    MountedOver,
}

use Departure::*;

const DEPARTURES: [Departure; 8] = [
    ChrootToNothing,
    ChrootToNamesakes,
    SetuidBelow,
    SetuidWithin,
    RenamedParent,
    ReplacedParent,
    Chdir,
    MountedOver,
];

const SUFFIXES: [&str; 4] = ["", "-wal", "-shm", "-coord"];
const NAMESAKE: &[u8] = b"another file of this name";

/// `top/middle/pages`, and a jail.
struct Scene {
    top: TempDir,
}

impl Scene {
    fn new() -> Self {
        let top = TempDir::new().unwrap();
        fs::create_dir(top.path().join("middle")).unwrap();
        fs::create_dir(top.path().join("jail")).unwrap();
        // The rights of nobody are enough for it, at first.
        for directory in [top.path().to_owned(), top.path().join("middle")] {
            fs::set_permissions(directory, Permissions::from_mode(0o777)).unwrap();
        }
        Scene { top }
    }

    fn path(&self) -> PathBuf {
        self.top.path().join("middle/pages")
    }

    fn make_namesakes(directory: &Path) -> Result<()> {
        fs::create_dir_all(directory)?;
        for suffix in SUFFIXES {
            fs::write(beside(&directory.join("pages"), suffix), NAMESAKE)?;
        }
        Ok(())
    }

    fn namesakes_are_whole(directory: &Path) -> bool {
        SUFFIXES.into_iter().all(|suffix| {
            let namesake = fs::read(beside(&directory.join("pages"), suffix));
            namesake.is_ok_and(|bytes| bytes == NAMESAKE)
        })
    }

    /// The namesakes that a departure makes.
    fn namesakes(&self, departure: Departure) -> Option<PathBuf> {
        let middle = self.top.path().join("middle");
        match departure {
            ChrootToNamesakes => {
                let below_root = middle.strip_prefix("/").unwrap();
                Some(self.top.path().join("jail").join(below_root))
            }
            ReplacedParent => Some(middle),
            _ => None,
        }
    }

    fn depart(&self, departure: Departure) -> Result<()> {
        let top = self.top.path();
        let middle = top.join("middle");
        let moved = top.join("moved");
        match departure {
            ChrootToNothing | ChrootToNamesakes => {
                if let Some(directory) = self.namesakes(departure) {
                    Self::make_namesakes(&directory)?;
                }
                chroot(&top.join("jail"))?;
                chdir("/")?;
            }
            SetuidBelow | SetuidWithin => {
                let closed = match departure {
                    SetuidBelow => top,
                    _ => &middle,
                };
                fs::set_permissions(closed, Permissions::from_mode(0o700))?;
                setgid(Gid::from_raw(NOBODY))?;
                setuid(Uid::from_raw(NOBODY))?;
            }
            RenamedParent => fs::rename(&middle, moved)?,
            ReplacedParent => {
                fs::rename(&middle, moved)?;
                Self::make_namesakes(&middle)?;
            }
            Chdir => chdir("/")?,
            MountedOver => {
                let (none, private) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
                unshare(CloneFlags::CLONE_NEWNS)?;
                mount(none, "/", none, private, none)?;
                mount(
                    Some("tmpfs"),
                    &middle,
                    Some("tmpfs"),
                    MsFlags::empty(),
                    none,
                )?;
            }
        }
        Ok(())
    }

    /// Where the database is found from outside, after a departure.
    fn path_after(&self, departure: Departure) -> PathBuf {
        match departure {
            RenamedParent | ReplacedParent => self.top.path().join("moved/pages"),
            _ => self.path(),
        }
    }
}

fn options() -> Options {
    Options::new()
        .kind(wal::DatabaseKind::RawPages)
        .busy_timeout(WATCHDOG)
        .read_lock_delay(Duration::ZERO)
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Shared,
    Classic,
    InProcess,
}

macro_rules! commit {
    ($database:expr, $byte:expr) => {{
        let mut write = $database.begin_write()?;
        write.page_mut(PageNo::ONE)?[0] = $byte;
        write.commit()?;
    }};
}

/// Commits and checkpoints for longer than files are not looked for, and closes.
macro_rules! go_on {
    ($database:expr, $depart:expr) => {{
        let database = $database;
        commit!(database, 1);
        $depart?;
        let until = Instant::now() + 3 * LOOK_IN_PLACE_EVERY;
        while Instant::now() < until {
            commit!(database, 2);
            let report = database.checkpoint(CheckpointMode::Passive)?;
            ensure!(report.is_complete(), "{report:?}");
        }
        let report = database.checkpoint(CheckpointMode::Truncate)?;
        ensure!(report.is_complete(), "{report:?}");
        commit!(database, 3);
        database.close()?;
    }};
}

fn departures() -> impl Iterator<Item = Departure> {
    let can_mount = Need::Disk("").is_met("databases that are mounted over");
    let is_possible = move |one: &Departure| can_mount || *one != MountedOver;
    DEPARTURES.into_iter().filter(is_possible)
}

fn is_root() -> bool {
    Need::Root.is_met("databases whose path is out of reach")
}

fn goes_on(departure: Departure, kind: Kind) -> Result<()> {
    let scene = Scene::new();
    let open = || match departure {
        Chdir => {
            chdir(&scene.top.path().join("middle"))?;
            anyhow::Ok(PathBuf::from("pages"))
        }
        _ => Ok(scene.path()),
    };
    let child = fork(|| {
        let path = open()?;
        let depart = || scene.depart(departure);
        match kind {
            Kind::Shared => go_on!(options().open_shm(path)?, depart()),
            Kind::Classic => {
                go_on!(
                    options().lock_kind(LockKind::Classic).open_shm(path)?,
                    depart()
                )
            }
            Kind::InProcess => go_on!(options().open_inproc(path)?, depart()),
        }
        Ok(())
    });
    child?.finish(WATCHDOG)?;
    if let Some(directory) = scene.namesakes(departure) {
        ensure!(
            Scene::namesakes_are_whole(&directory),
            "a namesake is damaged"
        );
    }
    let path = scene.path_after(departure);
    for suffix in ["-wal", "-shm"] {
        let left = fs::metadata(beside(&path, suffix)).map_or(0, |left| left.len());
        // What may not be removed stays, and the log says nothing.
        let may_stay = departure == SetuidWithin && (suffix == "-shm" || left == 0);
        ensure!(may_stay || left == 0, "{suffix} is left behind");
        let is_there = beside(&path, suffix).exists();
        ensure!(departure == SetuidWithin || !is_there, "{suffix} is there");
    }
    let database = options().open(&path)?;
    let read = database.begin_read()?;
    ensure!(read.page(PageNo::ONE)?[0] == 3, "a commit is lost");
    Ok(())
}

#[test]
fn database_out_of_reach_is_written_and_closed() {
    if !is_root() {
        return;
    }
    for departure in departures() {
        for kind in [Kind::Shared, Kind::Classic, Kind::InProcess] {
            let went = goes_on(departure, kind);
            assert!(went.is_ok(), "{departure:?}, {kind:?}: {went:?}");
        }
    }
}

/// Peers that reach the path still use the same files.
#[test]
fn peer_sees_commits_of_a_process_out_of_reach() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let mut peer = Worker::open(&integration::worker::Settings::new(&scene.path())).unwrap();
    let stamp = integration::worker::Stamp {
        writer: 1,
        sequence: 1,
    };
    let child = fork(|| {
        let database = options().open(scene.path())?;
        scene.depart(ChrootToNothing)?;
        let until = Instant::now() + 2 * LOOK_IN_PLACE_EVERY;
        while Instant::now() < until {
            let mut write = database.begin_write()?;
            stamp.write(1, write.page_mut(PageNo::ONE)?);
            write.commit()?;
        }
        Ok(database.close()?)
    });
    child.unwrap().finish(WATCHDOG).unwrap();
    assert_eq!(peer.newest_stamps(1..2).unwrap(), [Some(stamp)]);
    peer.end().unwrap();
}

/// The directory has another file of the name, or none.
#[test]
fn renamed_or_removed_file_is_refused() {
    for suffix in ["", "-wal", "-shm"] {
        for removed in [false, true] {
            let scene = Scene::new();
            let database = options().open(scene.path()).unwrap();
            let mut write = database.begin_write().unwrap();
            write.page_mut(PageNo::ONE).unwrap()[0] = 1;
            write.commit().unwrap();
            let file = beside(&scene.path(), suffix);
            match removed {
                true => fs::remove_file(&file).unwrap(),
                false => fs::rename(&file, beside(&file, ".moved")).unwrap(),
            }
            let deadline = Instant::now() + WATCHDOG;
            let refused = loop {
                match database.begin_write() {
                    Ok(_) => assert!(Instant::now() < deadline, "{suffix} is not looked for"),
                    Err(refused) => break refused,
                }
            };
            assert!(matches!(refused, Error::Replaced { .. }), "{refused}");
        }
    }
}

/// A reader that is alone has an index of its own, and attaches again once a writer comes.
#[test]
fn reader_out_of_reach_follows_a_later_writer() {
    if !is_root() {
        return;
    }
    for departure in departures() {
        if [SetuidWithin, Chdir].contains(&departure) {
            continue;
        }
        let went = reader_follows(departure);
        assert!(went.is_ok(), "{departure:?}: {went:?}");
    }
}

fn reader_follows(departure: Departure) -> Result<()> {
    let scene = Scene::new();
    let sqlite = |path: &Path| StockSqlite::spawn(StockKind::Bundled, path, None);
    let run = |stock: &mut StockSqlite, sql: &str| {
        let answer = stock.run(sql)?;
        answer
            .map(drop)
            .map_err(|e| anyhow::anyhow!("{sql}: {e:?}"))
    };
    let mut first = sqlite(&scene.path())?;
    run(
        &mut first,
        "PRAGMA journal_mode = WAL; CREATE TABLE t(n); INSERT INTO t VALUES (1)",
    )?;
    // It leaves log and index behind.
    first.kill()?;
    let (mut reached, mut read) = (std::io::pipe()?, std::io::pipe()?);
    let child = fork(|| {
        use std::io::{Read, Write};
        let sqlite = options().kind(wal::DatabaseKind::Sqlite);
        let reader = sqlite.read_only(true).open(scene.path())?;
        let pages = || anyhow::Ok(reader.begin_read()?.snapshot().page_count());
        let before = pages()?;
        scene.depart(departure)?;
        ensure!(pages()? == before, "nothing was written");
        reached.1.write_all(b"x")?;
        let mut byte = [0];
        read.0.read_exact(&mut byte)?;
        let after = pages().context("beside the writer")?;
        ensure!(after > before, "{after} pages, {before} before");
        Ok(())
    })?;
    use std::io::{Read, Write};
    drop(reached.1);
    let mut byte = [0];
    reached.0.read_exact(&mut byte)?;
    let mut writer = sqlite(&scene.path_after(departure))?;
    run(&mut writer, "CREATE TABLE u(n); INSERT INTO u VALUES (1)")?;
    read.1.write_all(b"x")?;
    child.finish(WATCHDOG)
}
