//! A line of `/proc/locks`, which `/proc/<pid>/fdinfo/<fd>` repeats for the locks of a
//! descriptor (`proc(5)`, `lock_get_status` in `fs/locks.c`):
//!
//! ```text
//! 1: POSIX  ADVISORY  WRITE 18907 fe:00:10018886 120 121
//! 2: OFDLCK ADVISORY  READ -1 fe:00:10018886 128 128
//! 2: -> POSIX  ADVISORY  WRITE 18911 fe:00:10018886 120 120
//! ```
//!
//! # Protocol
//! The system gives the list in pieces of a page of memory, about 60 lines. Within a piece the
//! locks are those of one moment. Between two pieces the system goes by the number of the
//! line, so a lock elsewhere that is acquired or released makes a line come twice or not at
//! all. So a list of several pieces is read until [`AGREEING`] reads in a row agree, at most
//! [`READS`] times; then a lock counts as often as in the middle one of its counts.
//!
//! # Layout
//! An arrow marks a process that waits for the lock above it. Numbers of devices are
//! hexadecimal, both ends of the range count, and a lock of an open file description has no
//! process.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;

use wal_core::LockMode;
use wal_core::storage::LockKind;

/// The list of all locks.
pub(super) const PATH: &str = "/proc/locks";

/// How many reads of a list of several pieces have to agree. More leave fewer mistakes.
const AGREEING: usize = 3;
/// How often such a list is read at most.
const READS: usize = 9;

/// Reads the locks in the list that are `wanted`.
///
/// # Errors
/// What reading it gives; there is none on systems other than Linux.
pub(super) fn read(wanted: impl Fn(&ListedLock) -> bool) -> io::Result<Vec<ListedLock>> {
    let once = || {
        let (text, is_of_one_moment) = read_once()?;
        let text = String::from_utf8_lossy(&text);
        let locks = text.lines().filter_map(ListedLock::parse).filter(&wanted);
        let mut locks: Vec<ListedLock> = locks.collect();
        locks.sort_unstable();
        io::Result::Ok((locks, is_of_one_moment))
    };
    let (locks, is_of_one_moment) = once()?;
    if is_of_one_moment {
        return Ok(locks);
    }
    let mut reads = vec![locks];
    while reads.len() < READS && !last_agree(&reads) {
        reads.push(once()?.0);
    }
    match last_agree(&reads) {
        true => Ok(reads.pop().unwrap_or_default()),
        false => Ok(middle_of(&reads)),
    }
}

/// True if the last [`AGREEING`] of `reads` are the same.
fn last_agree(reads: &[Vec<ListedLock>]) -> bool {
    let (_, last) = reads.split_at(reads.len().saturating_sub(AGREEING));
    last.len() == AGREEING && last.windows(2).all(|two| two[0] == two[1])
}

/// The text of the list, and whether it came in one piece.
fn read_once() -> io::Result<(Vec<u8>, bool)> {
    let mut list = File::open(PATH)?;
    let (mut text, mut pieces) = (Vec::new(), 0);
    let mut piece = vec![0; 1 << 16];
    loop {
        match list.read(&mut piece) {
            Ok(0) => return Ok((text, pieces <= 1)),
            Ok(len) => {
                text.extend_from_slice(&piece[..len]);
                pieces += 1;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Each lock of `reads` as often as in the middle one of its counts.
fn middle_of(reads: &[Vec<ListedLock>]) -> Vec<ListedLock> {
    let mut counts: BTreeMap<&ListedLock, Vec<usize>> = BTreeMap::new();
    for (at, read) in reads.iter().enumerate() {
        for lock in read {
            counts.entry(lock).or_insert_with(|| vec![0; reads.len()])[at] += 1;
        }
    }
    let locks = counts.into_iter().flat_map(|(lock, mut counts)| {
        counts.sort_unstable();
        std::iter::repeat_n(lock.clone(), counts[counts.len() / 2])
    });
    locks.collect()
}

/// A file by the numbers by which the system lists its locks: device and inode.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub(super) struct ListedFile {
    pub(super) major: u64,
    pub(super) minor: u64,
    pub(super) inode: u64,
}

/// A byte-range lock that the system lists.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct ListedLock {
    pub(super) file: ListedFile,
    /// The end is `u64::MAX` for the end of the file, wherever that is.
    pub(super) bytes: (u64, u64),
    pub(super) is_exclusive: bool,
    pub(super) belongs_to_description: bool,
    /// Whether its owner waits for it, and does not hold it.
    pub(super) is_waited_for: bool,
    pub(super) pid: Option<u32>,
}

impl ListedLock {
    /// The lock in `line`; `None` if that has another kind of lock, or none.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let (_number, lock) = line.split_once(':')?;
        let mut words = lock.split_ascii_whitespace().peekable();
        let is_waited_for = words.next_if_eq(&"->").is_some();
        let belongs_to_description = match words.next()? {
            "POSIX" => false,
            "OFDLCK" => true,
            _ => return None,
        };
        let _advisory = words.next()?;
        let is_exclusive = match words.next()? {
            "READ" => false,
            "WRITE" => true,
            _ => return None,
        };
        let pid = words.next()?.parse::<i64>().ok()?;
        let file = ListedFile::parse(words.next()?)?;
        let first: u64 = words.next()?.parse().ok()?;
        let end = match words.next()? {
            "EOF" => u64::MAX,
            last => last.parse::<u64>().ok()?.checked_add(1)?,
        };
        (first < end).then_some(ListedLock {
            file,
            bytes: (first, end),
            is_exclusive,
            belongs_to_description,
            is_waited_for,
            // 0 is a process in another namespace of process numbers.
            pid: u32::try_from(pid).ok().filter(|pid| *pid > 0),
        })
    }

    pub(super) fn bytes(&self) -> Range<u64> {
        self.bytes.0..self.bytes.1
    }

    pub(super) fn mode(&self) -> LockMode {
        match self.is_exclusive {
            true => LockMode::Exclusive,
            false => LockMode::Shared,
        }
    }

    pub(super) fn kind(&self) -> LockKind {
        match self.belongs_to_description {
            true => LockKind::OpenFileDescription,
            false => LockKind::Classic,
        }
    }
}

impl ListedFile {
    fn parse(word: &str) -> Option<Self> {
        let mut numbers = word.split(':');
        let mut device = || u64::from_str_radix(numbers.next()?, 16).ok();
        let (major, minor) = (device()?, device()?);
        let inode = numbers.next()?.parse().ok()?;
        numbers.next().is_none().then_some(ListedFile {
            major,
            minor,
            inode,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: ListedFile = ListedFile {
        major: 0xfe,
        minor: 0x1f,
        inode: 10_018_886,
    };

    fn lock(bytes: Range<u64>) -> ListedLock {
        ListedLock {
            file: FILE,
            bytes: (bytes.start, bytes.end),
            is_exclusive: true,
            belongs_to_description: false,
            is_waited_for: false,
            pid: Some(18907),
        }
    }

    #[test]
    fn each_form_of_a_byte_range_lock_is_read() {
        let parse = ListedLock::parse;
        let posix = "1: POSIX  ADVISORY  WRITE 18907 fe:1f:10018886 120 121";
        assert_eq!(parse(posix), Some(lock(120..122)));
        assert_eq!(
            parse("lock:\t1: POSIX  ADVISORY  WRITE 18907 fe:1f:10018886 120 121"),
            None,
            "fdinfo has a word before it"
        );
        let waits = "12: -> POSIX  ADVISORY  WRITE 18907 fe:1f:10018886 0 EOF";
        let waiting = ListedLock {
            is_waited_for: true,
            ..lock(0..u64::MAX)
        };
        assert_eq!(parse(waits), Some(waiting));
        let ofd = "3: OFDLCK ADVISORY  READ  -1 fe:1f:10018886 1073741826 1073742335";
        let description = ListedLock {
            belongs_to_description: true,
            is_exclusive: false,
            pid: None,
            ..lock(0x4000_0002..0x4000_0002 + 510)
        };
        assert_eq!(parse(ofd), Some(description));
        assert_eq!(
            (parse(ofd).unwrap().kind(), parse(ofd).unwrap().mode()),
            (LockKind::OpenFileDescription, LockMode::Shared)
        );
        let elsewhere = "4: POSIX  ADVISORY  WRITE 0 fe:1f:10018886 5 5";
        assert_eq!(parse(elsewhere).unwrap().pid, None);
        let mandatory = "5: POSIX  MANDATORY WRITE 18907 fe:1f:10018886 5 5";
        assert_eq!(parse(mandatory), Some(lock(5..6)));
    }

    #[test]
    fn line_that_comes_twice_or_not_at_all_in_a_read_is_counted_as_in_most() {
        let (one, two) = (lock(0..1), lock(1..2));
        let both = || vec![one.clone(), two.clone()];
        let twice = || vec![one.clone(), two.clone(), two.clone()];
        let missed = || vec![one.clone()];
        assert_eq!(
            middle_of(&[twice(), missed(), both(), twice(), missed()]),
            both()
        );
        assert_eq!(
            middle_of(&[twice(), twice(), both(), missed(), twice()]),
            twice()
        );
        assert_eq!(
            middle_of(&[missed(), twice(), missed(), missed(), both()]),
            missed()
        );
        assert_eq!(middle_of(&[Vec::new(), both(), Vec::new()]), []);
        assert!(last_agree(&[twice(), both(), both(), both()]));
        for reads in [&[both(), both()][..], &[both(), twice(), both(), both()]] {
            assert!(!last_agree(reads), "{reads:?}");
        }
    }

    #[test]
    fn other_kinds_of_locks_and_garbage_are_skipped() {
        for line in [
            "",
            ":",
            "1:",
            "1: FLOCK  ADVISORY  WRITE 18907 fe:1f:10018886 0 EOF",
            "1: LEASE  ACTIVE    READ 18907 fe:1f:10018886 0 EOF",
            "1: DELEG  ACTIVE    READ 18907 fe:1f:10018886 0 EOF",
            "1: POSIX  ADVISORY  WRITE 18907 <none>:0 0 EOF",
            "1: POSIX  *NOINODE* WRITE 18907 <none>:0 0 EOF",
            "1: POSIX  ADVISORY  UNLCK 18907 fe:1f:10018886 0 EOF",
            "1: POSIX  ADVISORY  WRITE nobody fe:1f:10018886 0 EOF",
            "1: POSIX  ADVISORY  WRITE 18907 fe:1f 0 EOF",
            "1: POSIX  ADVISORY  WRITE 18907 fe:1f:10018886:7 0 EOF",
            "1: POSIX  ADVISORY  WRITE 18907 xx:1f:10018886 0 EOF",
            "1: POSIX  ADVISORY  WRITE 18907 fe:1f:-1 0 EOF",
            "1: POSIX  ADVISORY  WRITE 18907 fe:1f:10018886 9 7",
            "1: POSIX  ADVISORY  WRITE 18907 fe:1f:10018886 0 18446744073709551615",
            "1: POSIX  ADVISORY  WRITE 18907 fe:1f:10018886 120",
            "1: -> -> POSIX  ADVISORY  WRITE 18907 fe:1f:10018886 0 EOF",
            "\u{fffd}\u{fffd}: \u{fffd}",
        ] {
            assert_eq!(ListedLock::parse(line), None, "{line}");
        }
    }
}
