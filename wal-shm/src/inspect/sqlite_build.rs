//! Which SQLite a process has mapped.
//!
//! Each build of SQLite holds the name of its source: date, time, and a hash of 64 digits
//! (`sqlite3_sourceid`), and its version as a text of its own (`sqlite3_libversion`). They are
//! searched for in the mapped parts of the files of a process: those with `sqlite` in their
//! names, else its program, else all others. The file is opened by the root directory of the
//! process, so containers are seen, and must be the one that is mapped.
//!
//! # What is not found
//! A build that was packed or encrypted, one whose file was replaced since, and one of a
//! process of another user.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::sys::stat::{major, minor};
use wal_core::storage::{File, OpenMode, OsFile};

/// How much is read of one file at a time.
const PART: usize = 1 << 20;
/// How much is read of one file at most.
const MOST: u64 = 256 << 20;
/// The length of the name of a source.
const SOURCE_ID: usize = "2026-03-13 10:38:09 ".len() + 64;
/// The day on which the fix of the WAL-reset bug was made; a source of a day before is without.
const FIX: &str = "2026-03-03";

/// A build of SQLite.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SqliteBuild {
    /// The file that it is in, as the process that maps it names it.
    pub path: PathBuf,
    /// The date of its source, `YYYY-MM-DD`.
    pub date: String,
    /// Its version, such as `[3, 51, 3]`; `None` if the file holds none, or several.
    pub version: Option<[u32; 3]>,
}

impl SqliteBuild {
    /// Whether it has the WAL-reset bug: a checkpoint beside a commit that restarts the log can
    /// lose that commit. 3.51.3 fixes it, and so do 3.50.7 and 3.44.6 for their series. A build
    /// without a version counts by its date.
    pub fn has_wal_reset_bug(&self) -> bool {
        match self.version {
            Some([3, 44, patch]) => patch < 6,
            Some([3, 50, patch]) => patch < 7,
            Some(version) => version < [3, 51, 3],
            None => self.date.as_str() < FIX,
        }
    }
}

impl fmt::Display for SqliteBuild {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            Some([major, minor, patch]) => write!(f, "SQLite {major}.{minor}.{patch}"),
            None => write!(f, "SQLite of {}", self.date),
        }
    }
}

/// Finds the builds of SQLite that processes have mapped. Each file is read once.
#[derive(Debug, Default)]
pub struct Builds(BTreeMap<(u64, u64), Option<SqliteBuild>>);

impl Builds {
    /// The builds that the process `pid` has mapped, as far as they are found until `deadline`.
    /// `None` if the process may not be looked into, or the time is over.
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use wal_shm::inspect::Builds;
    ///
    /// let deadline = Instant::now() + Duration::from_secs(5);
    /// let builds = Builds::default().of_process(std::process::id(), deadline);
    /// for build in builds.unwrap_or_default() {
    ///     println!("{build} in {}", build.path.display());
    /// }
    /// ```
    pub fn of_process(&mut self, pid: u32, deadline: Instant) -> Option<Vec<SqliteBuild>> {
        let maps = std::fs::read(format!("/proc/{pid}/maps")).ok()?;
        let mut files = mapped_files(&String::from_utf8_lossy(&maps));
        let program = std::fs::read_link(format!("/proc/{pid}/exe")).ok();
        let rank = |file: &MappedFile| match () {
            () if file.is_named_sqlite() => 0,
            () if Some(&file.path) == program.as_ref() => 1,
            () => 2,
        };
        files.sort_by_key(rank);
        let mut found = Vec::new();
        let mut last = 0;
        for file in &files {
            if rank(file) != last && !found.is_empty() {
                break;
            }
            last = rank(file);
            if Instant::now() >= deadline {
                return None;
            }
            let known = self.0.get(&file.id).cloned();
            let build = match known {
                Some(build) => build,
                None => {
                    let build = file.search(pid, deadline)?;
                    self.0.insert(file.id, build.clone());
                    build
                }
            };
            found.extend(build);
        }
        Some(found)
    }
}

/// A file of which a process has mapped parts.
#[derive(Clone, PartialEq, Eq, Debug)]
struct MappedFile {
    /// The device, as `stat` has it, and the inode.
    id: (u64, u64),
    path: PathBuf,
    parts: Vec<Range<u64>>,
}

/// The files in `maps`, which is the `maps` of a process, each with its parts that hold
/// constants: those that are not writable.
fn mapped_files(maps: &str) -> Vec<MappedFile> {
    let mut files: Vec<MappedFile> = Vec::new();
    for line in maps.lines() {
        let Some((file, part)) = mapped_part(line) else {
            continue;
        };
        match files.iter_mut().find(|known| known.id == file.id) {
            Some(known) => known.parts.push(part),
            None => files.push(MappedFile {
                parts: vec![part],
                ..file
            }),
        }
    }
    files
}

/// `55c0-55d0 r--p 00000000 fd:00 123    /usr/lib/libsqlite3.so.0`
fn mapped_part(line: &str) -> Option<(MappedFile, Range<u64>)> {
    let mut words = line.splitn(6, ' ');
    let (begin, end) = words.next()?.split_once('-')?;
    let hexadecimal = |text: &str| u64::from_str_radix(text, 16).ok();
    let len = hexadecimal(end)?.checked_sub(hexadecimal(begin)?)?;
    let rights = words.next()?;
    let offset = hexadecimal(words.next()?)?;
    let (major, minor) = words.next()?.split_once(':')?;
    let device = libc::makedev(
        u32::from_str_radix(major, 16).ok()?,
        u32::from_str_radix(minor, 16).ok()?,
    );
    let inode: u64 = words.next()?.parse().ok()?;
    let path = PathBuf::from(words.next()?.trim_start());
    let is_constant = rights.starts_with('r') && rights.ends_with('p') && !rights.contains('w');
    let file = MappedFile {
        id: (device, inode),
        path,
        parts: Vec::new(),
    };
    let is_file = inode != 0 && file.path.has_root();
    (is_file && is_constant).then_some((file, offset..offset.saturating_add(len)))
}

impl MappedFile {
    fn is_named_sqlite(&self) -> bool {
        let name = self.path.file_name().unwrap_or_default();
        name.to_string_lossy().to_lowercase().contains("sqlite")
    }

    /// The build in its parts. The outer `None` says that the time is over.
    fn search(&self, pid: u32, deadline: Instant) -> Option<Option<SqliteBuild>> {
        let Some(file) = self.open(pid) else {
            return Some(None);
        };
        let mut text = Constants::default();
        let mut left = MOST;
        for part in &self.parts {
            let len = (part.end - part.start).min(left);
            left -= len;
            text.read(&file, part.start..part.start + len, deadline)?;
        }
        let build = text.date.map(|date| SqliteBuild {
            path: self.path.clone(),
            date,
            version: match text.versions[..] {
                [version] => Some(version),
                _ => None,
            },
        });
        Some(build)
    }

    /// Opens it, if it is still the file that is mapped.
    fn open(&self, pid: u32) -> Option<OsFile> {
        let relative = self.path.strip_prefix("/").ok()?;
        let path = Path::new("/proc")
            .join(pid.to_string())
            .join("root")
            .join(relative);
        let there = std::fs::metadata(&path).ok()?;
        // A subvolume has a device of its own in `stat`.
        let device = (major(there.dev()), minor(there.dev()));
        let mapped = (major(self.id.0), minor(self.id.0));
        let is_same = there.ino() == self.id.1 && (device == mapped || mapped.0 == 0);
        if !is_same || !there.is_file() {
            return None;
        }
        OsFile::open(&path, OpenMode::Observed).ok()
    }
}

/// The texts that tell a build.
#[derive(Default, Debug)]
struct Constants {
    /// The newest date of a source.
    date: Option<String>,
    versions: Vec<[u32; 3]>,
}

impl Constants {
    /// Searches the bytes `range` of `file`. `None` if the time is over.
    fn read(&mut self, file: &OsFile, range: Range<u64>, deadline: Instant) -> Option<()> {
        let mut at = range.start;
        let mut bytes = vec![0; PART + SOURCE_ID];
        while at < range.end {
            if Instant::now() >= deadline {
                return None;
            }
            // The next part overlaps this one by a text.
            let wanted = usize::try_from(range.end - at)
                .unwrap_or(usize::MAX)
                .min(bytes.len());
            let Ok(read) = file.read_at(&mut bytes[..wanted], at) else {
                return Some(());
            };
            self.search(&bytes[..read]);
            if read <= PART {
                break;
            }
            at += PART as u64;
        }
        Some(())
    }

    fn search(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        // Both texts have a digit in front that is rare in other data.
        while let Some(at) = rest.iter().position(|byte| matches!(byte, b'2' | b'3')) {
            let before = bytes.len() - rest.len() + at;
            let text = &rest[at..];
            if let Some(date) = source_date(text) {
                self.date = self.date.take().max(Some(date.to_owned()));
            }
            let is_inside = before > 0 && matches!(bytes[before - 1], b' '..=b'~');
            if !is_inside
                && let Some(version) = version(text)
                && !self.versions.contains(&version)
            {
                self.versions.push(version);
            }
            rest = &text[1..];
        }
    }
}

/// The date of the source whose name `text` begins with.
fn source_date(text: &[u8]) -> Option<&str> {
    let text = text.get(..SOURCE_ID)?;
    let form = b"dddd-dd-dd dd:dd:dd ";
    let is_of_form = text.iter().zip(form).all(|(byte, form)| match form {
        b'd' => byte.is_ascii_digit(),
        form => byte == form,
    });
    let (date, hash) = (&text[..10], &text[form.len()..]);
    let is_hash = hash.iter().all(|byte| byte.is_ascii_alphanumeric());
    match text.starts_with(b"20") && is_of_form && is_hash {
        true => std::str::from_utf8(date).ok(),
        false => None,
    }
}

/// The version that `text` begins with, up to a zero byte: `3.51.3`. WAL mode came with 3.7.
fn version(text: &[u8]) -> Option<[u32; 3]> {
    let end = text.iter().take(12).position(|byte| *byte == 0)?;
    let numbers = std::str::from_utf8(&text[..end]).ok()?.split('.');
    let numbers = numbers.map(|number| {
        let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| number.parse().ok()).flatten()
    });
    let numbers: Option<Vec<u32>> = numbers.collect();
    let version = match numbers?[..] {
        [major, minor] => [major, minor, 0],
        [major, minor, patch] => [major, minor, patch],
        _ => return None,
    };
    (version[0] == 3 && version[1] >= 7).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "555e07ef33f69a0957d24d8e555b702464a131d6f1607f4c3c1e4551e8e6ca76";

    fn search(bytes: &[u8]) -> Constants {
        let mut found = Constants::default();
        found.search(bytes);
        found
    }

    #[test]
    fn source_and_version_are_found_among_other_bytes() {
        let source = format!("x\02026-10-16 14:45:20 {HASH}\03.54.1\03.12.\0");
        let found = search(source.as_bytes());
        assert_eq!(found.date.as_deref(), Some("2026-10-16"));
        assert_eq!(found.versions, [[3, 54, 1]]);
        for other in [
            format!("2026-10-16 14:45:20 {}", &HASH[1..]),
            format!("2026-10-16T14:45:20 {HASH}"),
            "13.54.1\0".to_owned(),
            "3.54.1 \0".to_owned(),
        ] {
            let found = search(other.as_bytes());
            assert_eq!((found.date, found.versions), (None, vec![]), "{other}");
        }
    }

    #[test]
    fn builds_before_the_fix_have_the_bug() {
        let build = |version, date: &str| SqliteBuild {
            path: PathBuf::new(),
            date: date.to_owned(),
            version,
        };
        let has_bug = |version| build(Some(version), "2026-03-13").has_wal_reset_bug();
        for version in [[3, 7, 0], [3, 44, 5], [3, 50, 6], [3, 51, 2], [3, 49, 9]] {
            assert!(has_bug(version), "{version:?}");
        }
        for version in [[3, 44, 6], [3, 50, 7], [3, 51, 3], [3, 52, 0], [3, 54, 1]] {
            assert!(!has_bug(version), "{version:?}");
        }
        assert!(build(None, "2026-03-02").has_wal_reset_bug());
        assert!(!build(None, "2026-03-13").has_wal_reset_bug());
    }

    #[test]
    fn parts_of_a_mapped_file_are_collected() {
        let maps = "\
7f0000000000-7f0000001000 r--p 00000000 fe:01 42      /usr/lib/libsqlite3.so.0 (x)\n\
7f0000001000-7f0000003000 r-xp 00001000 fe:01 42      /usr/lib/libsqlite3.so.0 (x)\n\
7f0000003000-7f0000004000 rw-p 00003000 fe:01 42      /usr/lib/libsqlite3.so.0 (x)\n\
7f0000005000-7f0000006000 rw-p 00000000 00:00 0 \n\
7f0000006000-7f0000007000 r--s 00000000 fe:01 43      /app.db-shm\n\
garbage\n";
        let files = mapped_files(maps);
        let [file] = &files[..] else {
            unreachable!("one file: {files:?}")
        };
        assert_eq!(file.id, (libc::makedev(0xfe, 1), 42));
        assert_eq!(file.path, Path::new("/usr/lib/libsqlite3.so.0 (x)"));
        assert_eq!(file.parts, [0..0x1000, 0x1000..0x3000]);
        assert!(file.is_named_sqlite());
    }
}
