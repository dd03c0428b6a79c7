//! The temporary folder of a measurement.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use nix::sys::statvfs::statvfs;

use crate::output::units;

/// The space that has to be free: several times of what is written.
const LEAST_FREE: u64 = 256 << 20;

/// A folder that is removed with all that is in it.
pub(super) struct Folder {
    parent: PathBuf,
    path: PathBuf,
    is_there: bool,
}

impl Folder {
    /// Makes one in the directory `parent`.
    ///
    /// # Errors
    /// If that cannot be written, or has too little space.
    pub(super) fn make(parent: &Path) -> anyhow::Result<Self> {
        let shown = parent.display().to_string();
        let parent = parent.canonicalize();
        let parent = parent.with_context(|| format!("{shown}: cannot find the directory"))?;
        if !parent.is_dir() {
            bail!("{shown}: it is no directory; name the one that the database is in");
        }
        let free = free_bytes(&parent)?;
        if free < LEAST_FREE {
            let (free, least) = (units::bytes(free), units::bytes(LEAST_FREE));
            bail!("{shown}: {free} are free, and {least} are needed; free some space first");
        }
        let path = parent.join(format!("walctl-bench-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| {
            format!("{shown}: cannot make a folder in it; run as a user that may write there")
        })?;
        Ok(Folder {
            parent,
            path,
            is_there: true,
        })
    }

    pub(super) fn parent(&self) -> &Path {
        &self.parent
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it, and says if it could not.
    pub(super) fn remove(mut self) -> anyhow::Result<()> {
        self.is_there = false;
        fs::remove_dir_all(&self.path)
            .with_context(|| format!("{}: cannot remove it", self.path.display()))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.is_there {
            // The command fails for another reason, which is reported.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// The space at `path` that a process without privileges may use.
pub(super) fn free_bytes(path: &Path) -> anyhow::Result<u64> {
    let found = statvfs(path);
    let found = found.with_context(|| format!("{}: cannot ask for free space", path.display()))?;
    Ok(found.blocks_available() as u64 * found.fragment_size() as u64)
}
