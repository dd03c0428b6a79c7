//! A small disk of a test's own, which it may fill.
//!
//! It is a file system that is mounted in a mount namespace of one thread, so that other
//! programs do not see it. The processes that the thread starts do. It is gone with the
//! last of them, whatever becomes of them.

use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fmt, fs, thread};

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::needs::Need;

/// Which file system a disk has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// In memory.
    Tmpfs,
    /// With blocks of 4 KiB.
    Ext4,
    /// With blocks of 1 KiB, four of which are in a page of memory, and without a call that
    /// allocates a range.
    Ext3,
    /// What is written goes to a directory over another one.
    Overlay,
    /// Without permissions, links and exact times.
    Vfat,
    /// Writes each block to a new place.
    Btrfs,
    /// The smallest is 300 MiB.
    Xfs,
}

impl FileSystem {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Tmpfs,
        Self::Ext3,
        Self::Overlay,
        Self::Ext4,
        Self::Vfat,
        Self::Btrfs,
        Self::Xfs,
    ];

    /// How large a disk has to be to be small.
    #[must_use]
    pub fn least_bytes(self) -> u64 {
        match self {
            Self::Xfs => 300 << 20,
            Self::Btrfs => 128 << 20,
            _ => 16 << 20,
        }
    }

    /// The command that makes it in a file, if it lies in one; else nothing.
    fn maker(self) -> &'static str {
        match self {
            Self::Tmpfs | Self::Overlay => "",
            Self::Ext4 => "mkfs.ext4 -q -m 0",
            Self::Ext3 => "mkfs.ext3 -q -m 0 -b 1024",
            Self::Vfat => "mkfs.vfat",
            Self::Btrfs => "mkfs.btrfs -q",
            Self::Xfs => "mkfs.xfs -q",
        }
    }

    /// What [`with_disk`] needs.
    #[must_use]
    pub fn need(self) -> Need {
        Need::Disk(self.maker())
    }
}

impl fmt::Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tmpfs => "tmpfs",
            Self::Ext4 => "ext4",
            Self::Ext3 => "ext3 with blocks of 1 KiB",
            Self::Overlay => "overlayfs",
            Self::Vfat => "vfat",
            Self::Btrfs => "btrfs",
            Self::Xfs => "xfs",
        })
    }
}

/// Runs `test` on a thread that finds an empty disk with `system` on it, of at least `bytes`
/// bytes, in the directory that it is given.
///
/// # Errors
///
/// If the system does not let the disk be made or mounted.
///
/// # Panics
///
/// If `test` does.
pub fn with_disk<T: Send>(
    system: FileSystem,
    bytes: u64,
    test: impl FnOnce(&Path) -> T + Send,
) -> Result<T> {
    let directory = tempfile::tempdir()?;
    let run = || {
        let disk = mount_in(directory.path(), system, bytes.max(system.least_bytes()))
            .with_context(|| format!("a disk with {system}"))?;
        Ok(test(&disk))
    };
    thread::scope(|scope| match scope.spawn(run).join() {
        Ok(outcome) => outcome,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Mounts the disk somewhere below `directory`, and gives its path.
fn mount_in(directory: &Path, system: FileSystem, bytes: u64) -> Result<PathBuf> {
    const NONE: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(NONE, "/", NONE, private, NONE).context("a private mount namespace")?;
    let disk = directory.join("disk");
    fs::create_dir(&disk)?;
    match system.maker() {
        "" => mount_tmpfs(&disk, bytes)?,
        maker => {
            let image = directory.join("image");
            fs::File::create(&image)?.set_len(bytes)?;
            let mut words = maker.split(' ');
            let mut command = Command::new(words.next().context("a command")?);
            run(command.args(words).arg(&image))?;
            run(Command::new("mount")
                .args(["-o", "loop"])
                .arg(&image)
                .arg(&disk))?;
        }
    }
    check_mounted(&disk)?;
    match system {
        FileSystem::Overlay => {
            let lower = disk.join("lower");
            fs::create_dir(&lower)?;
            mount_overlay(&lower, &disk)
        }
        _ => Ok(disk),
    }
}

fn mount_tmpfs(path: &Path, bytes: u64) -> Result<()> {
    let size = format!("size={bytes}");
    let none = MsFlags::empty();
    mount(Some("tmpfs"), path, Some("tmpfs"), none, Some(&*size)).context("a tmpfs")
}

/// Mounts an overlay over `lower`, for this thread and what it starts. What is written goes
/// to `disk`. Gives the path where both are seen as one.
///
/// # Errors
///
/// If the system does not let it be mounted.
pub fn mount_overlay(lower: &Path, disk: &Path) -> Result<PathBuf> {
    let [upper, work, merged] = ["upper", "work", "merged"].map(|name| disk.join(name));
    for directory in [&upper, &work, &merged] {
        fs::create_dir(directory)?;
    }
    let option = |name, path: &Path| format!("{name}={}", path.display());
    let options = [
        option("lowerdir", lower),
        option("upperdir", &upper),
        option("workdir", &work),
    ];
    let (none, options) = (MsFlags::empty(), options.join(","));
    let kind = Some("overlay");
    mount(kind, &merged, kind, none, Some(&*options)).context("an overlay")?;
    check_mounted(&merged)?;
    Ok(merged)
}

/// Without this a test would fill the disk of the machine.
fn check_mounted(path: &Path) -> Result<()> {
    let parent = path.parent().context("it lies in a directory")?;
    let is_mounted = fs::metadata(path)?.dev() != fs::metadata(parent)?.dev();
    ensure!(is_mounted, "{} is not mounted", path.display());
    Ok(())
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {errors}");
    Ok(())
}

/// Fills the disk of `directory` with a file there, but for `free` bytes, and gives its
/// name: a test that removes it makes room.
///
/// # Errors
///
/// If the system refuses.
pub fn fill(directory: &Path, free: u64) -> Result<PathBuf> {
    let path = directory.join("filler");
    let mut filler = fs::File::create(&path)?;
    let mut len = 0;
    // What the system tells to be free is not all for data, so there is no more to be had
    // only when a write of one byte fails.
    let mut at_once = 1 << 20;
    while at_once > 0 {
        match filler.write(&vec![1; at_once]) {
            Ok(written) => len += written as u64,
            Err(e) if e.kind() == io::ErrorKind::StorageFull => at_once /= 2,
            Err(e) => return Err(e.into()),
        }
    }
    filler.set_len(len.saturating_sub(free))?;
    // Blocks that are only promised are allocated now, and those that were cut are free.
    filler.sync_all()?;
    nix::unistd::syncfs(&filler)?;
    Ok(path)
}

/// How many bytes are free on the disk of `directory`.
///
/// # Errors
///
/// If the system does not tell.
pub fn free_space(directory: &Path) -> Result<u64> {
    Ok(fs2::available_space(directory)?)
}
