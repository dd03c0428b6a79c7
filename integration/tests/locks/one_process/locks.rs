//! The locks of the system, as `/proc/locks` shows them to everybody: who
//! holds which byte of which file.
//!
//! The kind of a lock tells its owner, since SQLite takes locks of the process
//! and ours locks of the open file description.

use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, io};

/// Far longer than the list takes to be read again. It is read in parts, so
/// that a lock can be missed when others come and go meanwhile.
const PATIENCE: Duration = Duration::from_secs(20);

/// Who takes locks in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The library, through open file descriptions.
    Ours,
    /// The SQLite that is linked in, through the process.
    Sqlite,
}

/// One line of the list that is about a file.
#[derive(Debug)]
struct Held {
    exclusive: bool,
    first: u64,
    last: u64,
}

/// Whether `owner` keeps any of `bytes` of `file` locked, shared or exclusive.
pub(crate) fn holds(owner: Owner, file: &Path, bytes: Range<u64>, exclusive: bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let overlaps = |held: &Held| {
            held.exclusive == exclusive && held.first < bytes.end && bytes.start <= held.last
        };
        if held(owner, file).unwrap().iter().any(overlaps) {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
    }
}

/// Whether `owner` has no lock on `file`, or the file is not there.
pub(crate) fn has_none(owner: Owner, file: &Path) -> bool {
    match held(owner, file) {
        Ok(held) => held.is_empty(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

fn held(owner: Owner, file: &Path) -> io::Result<Vec<Held>> {
    let inode = fs::metadata(file)?.ino();
    let list = fs::read_to_string("/proc/locks")?;
    let lines = list.lines().map(|line| line.split_whitespace().collect());
    Ok(lines
        .filter_map(|fields: Vec<&str>| parse(owner, inode, &fields))
        .collect())
}

/// Reads `7: POSIX  ADVISORY  READ 4711 fe:00:1234 128 128`.
fn parse(owner: Owner, inode: u64, fields: &[&str]) -> Option<Held> {
    let &[_, kind, _, mode, pid, file, first, last] = fields else {
        return None;
    };
    let is_owners = match owner {
        Owner::Ours => kind == "OFDLCK",
        Owner::Sqlite => kind == "POSIX" && pid.parse() == Ok(std::process::id()),
    };
    let on_file = file.rsplit(':').next()?.parse() == Ok(inode);
    (is_owners && on_file).then_some(Held {
        exclusive: mode == "WRITE",
        first: first.parse().ok()?,
        last: last.parse().unwrap_or(u64::MAX),
    })
}
