//! A small disk of a test's own, which it may fill.
//!
//! It is a tmpfs that is mounted in a mount namespace of one thread, so that other
//! programs do not see it, and it is gone with the thread whatever becomes of that.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statvfs::statvfs;

/// Runs `test` on a thread that finds an empty disk of `bytes` in the directory that it
/// is given.
///
/// # Errors
///
/// If the system does not let the disk be mounted.
///
/// # Panics
///
/// If `test` does.
pub fn with_disk<T: Send>(bytes: u64, test: impl FnOnce(&Path) -> T + Send) -> Result<T> {
    let directory = tempfile::tempdir()?;
    let path = directory.path();
    let run = || {
        mount_at(path, bytes)?;
        Ok(test(path))
    };
    thread::scope(|scope| match scope.spawn(run).join() {
        Ok(outcome) => outcome,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

fn mount_at(path: &Path, bytes: u64) -> Result<()> {
    const NONE: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(NONE, "/", NONE, private, NONE).context("a private mount namespace")?;
    let size = format!("size={bytes}");
    let none = MsFlags::empty();
    mount(Some("tmpfs"), path, Some("tmpfs"), none, Some(&*size)).context("a tmpfs")?;
    let parent = path.parent().context("it lies in a directory")?;
    let is_mounted = fs::metadata(path)?.dev() != fs::metadata(parent)?.dev();
    ensure!(is_mounted, "{} is not mounted", path.display());
    Ok(())
}

/// Fills the disk of `directory` with a file there, up to `free` bytes, and gives its
/// name: who removes it makes room.
///
/// # Errors
///
/// If the system refuses.
pub fn fill(directory: &Path, free: u64) -> Result<std::path::PathBuf> {
    let path = directory.join("filler");
    let mut filler = fs::File::create(&path)?;
    loop {
        let rest = free_space(directory)?.saturating_sub(free);
        let Some(next) = usize::try_from(rest.min(1 << 20)).ok().filter(|n| *n > 0) else {
            return Ok(path);
        };
        filler.write_all(&vec![1; next])?;
    }
}

/// How many bytes are free on the disk of `directory`.
///
/// # Errors
///
/// If the system does not tell.
pub fn free_space(directory: &Path) -> Result<u64> {
    let disk = statvfs(directory)?;
    Ok(disk.blocks_available() * disk.fragment_size())
}
