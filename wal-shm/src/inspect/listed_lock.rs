//! A line of `/proc/locks`, which `/proc/<pid>/fdinfo/<fd>` repeats for the locks of a
//! descriptor (`proc(5)`, `lock_get_status` in `fs/locks.c`):
//!
//! ```text
//! 1: POSIX  ADVISORY  WRITE 18907 fe:00:10018886 120 121
//! 2: OFDLCK ADVISORY  READ -1 fe:00:10018886 128 128
//! 2: -> POSIX  ADVISORY  WRITE 18911 fe:00:10018886 120 120
//! ```
//!
//! # Layout
//! An arrow marks a process that waits for the lock above it. Numbers of devices are
//! hexadecimal, both ends of the range count, and a lock of an open file description has no
//! process.

use std::ops::Range;

use wal_core::LockMode;
use wal_core::storage::LockKind;

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
