//! A daemon: it leaves its session, its directory, its standard streams, its root directory
//! and its rights behind, before or after it opens a database, beside a process that keeps
//! all of these.

// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::unwrap_used)]
#![cfg(target_os = "linux")]

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use integration::needs::Need;
use integration::worker::{Settings, Stamp, WATCHDOG, Worker, fork};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, chdir, chroot, setgid, setsid, setuid};
use tempfile::TempDir;
use wal::{CheckpointMode, Error, Options, PageNo};
use wal_core::storage::{LOOK_IN_PLACE_EVERY, beside};

/// "nobody", who owns nothing.
const NOBODY: u32 = 65534;

fn leave_session() -> Result<()> {
    setsid()?;
    umask(Mode::from_bits_truncate(0o077));
    chdir("/")?;
    for stream in 0..3 {
        nix::unistd::close(stream)?;
    }
    Ok(())
}

fn leave_rights(jail: &Path) -> Result<()> {
    chroot(jail)?;
    chdir("/")?;
    setgid(Gid::from_raw(NOBODY))?;
    Ok(setuid(Uid::from_raw(NOBODY))?)
}

/// As libraries of the daemon do.
fn warn() {
    let _ = nix::unistd::write(io::stderr(), b"a warning of another library");
}

/// Opens the database, leaves all behind, and uses it for a while.
fn serve(path: &Path, jail: &Path) -> Result<()> {
    let options = Options::new().kind(wal::DatabaseKind::RawPages);
    let options = options.busy_timeout(WATCHDOG);
    let options = options.checkpoint_thread(true).auto_checkpoint(10);
    let database = options.open(path)?;
    warn();
    leave_rights(jail)?;
    let until = Instant::now() + 3 * LOOK_IN_PLACE_EVERY;
    let mut commits = 0;
    while Instant::now() < until || commits < 20 {
        let mut write = database.begin_write()?;
        let page = write.page_mut(PageNo::ONE)?;
        let before = Stamp::read(1, page)?;
        let stamp = Stamp {
            writer: 2,
            sequence: before.map_or(1, |before| before.sequence + 1),
        };
        stamp.write(1, page);
        write.commit()?;
        warn();
        commits += 1;
    }
    // The checkpoint thread may be at work.
    let report = loop {
        match database.checkpoint(CheckpointMode::Full) {
            Err(Error::Busy { .. }) => std::thread::sleep(Duration::from_millis(1)),
            report => break report?,
        }
    };
    ensure!(report.held_back_by.is_none(), "{report:?}");
    drop(database.begin_read()?);
    Ok(database.close()?)
}

fn daemon_beside_a_peer(peer_stays: bool) {
    let directory = TempDir::new().unwrap();
    let jail = TempDir::new().unwrap();
    for public in [&directory, &jail] {
        fs::set_permissions(public.path(), Permissions::from_mode(0o777)).unwrap();
    }
    let path = directory.path().join("pages");
    let mut peer = Some(Worker::open(&Settings::new(&path)).unwrap());
    let stamp = Stamp {
        writer: 1,
        sequence: 1,
    };
    peer.as_mut().unwrap().commit(1..2, stamp).unwrap();
    if !peer_stays {
        peer.take().unwrap().end().unwrap();
    }
    let child = fork(|| {
        leave_session()?;
        fork(|| serve(&path, jail.path()))?.finish(WATCHDOG)
    });
    if let Some(peer) = &mut peer {
        let deadline = Instant::now() + WATCHDOG;
        let seen = |peer: &mut Worker| peer.newest_stamps(1..2).unwrap()[0].unwrap();
        while seen(peer).writer == 1 {
            assert!(Instant::now() < deadline, "no commit of the daemon is seen");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    child.unwrap().finish(WATCHDOG).unwrap();
    if let Some(peer) = peer {
        peer.end().unwrap();
    }
    for suffix in ["-wal", "-shm"] {
        assert!(!beside(&path, suffix).exists(), "{suffix} is left behind");
    }
    let mut after = Worker::open(&Settings::new(&path)).unwrap();
    let newest = after.newest_stamps(1..2).unwrap()[0].unwrap();
    assert_eq!(newest.writer, 2);
    assert!(newest.sequence > 20, "{newest:?}");
    after.end().unwrap();
}

#[test]
fn daemon_uses_its_database_alone_and_beside_a_peer() {
    if !Need::Root.is_met("a daemon that changes its root directory and its user") {
        return;
    }
    for peer_stays in [false, true] {
        daemon_beside_a_peer(peer_stays);
    }
}
