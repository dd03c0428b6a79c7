//! The list of all locks of the system, `/proc/locks` (`proc(5)`).
//!
//! # Protocol
//! The system gives the list in pieces of a page of memory, about 60 lines. Within a piece the
//! locks are those of one moment. Between two pieces the system goes by the number of the
//! line, so a lock elsewhere that is acquired or released makes a line come twice or not at
//! all. So a list of several pieces is read twice at once, the second time from the middle of
//! the first piece on: each piece continues the one before it behind a run of lines that both
//! have. A lock that is held in the meantime keeps its place among the others that are, so it
//! comes exactly once.
//!
//! A run of locks that were all acquired anew may mislead, and many equal locks leave it open how
//! two pieces fit: then the pieces are taken as they come. So such a list is read until
//! [`AGREEING`] reads in a row agree, at most [`READS`] times; then a lock counts as often as in
//! the middle one of its counts.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use super::listed_lock::ListedLock;

/// The list of all locks.
pub(super) const PATH: &str = "/proc/locks";

/// How many lines two pieces have in common at least. Fewer may have moved together.
const LEAST_RUN: usize = 8;
/// How many reads of a list of several pieces have to agree. More leave fewer mistakes.
const AGREEING: usize = 3;
/// How often such a list is read at most.
const READS: usize = 9;

/// Reads the locks in the list that are `wanted`.
///
/// # Errors
/// What reading it gives; there is none on systems other than Linux.
pub(super) fn read(wanted: impl Fn(&ListedLock) -> bool) -> io::Result<Vec<ListedLock>> {
    let mut reads = Vec::new();
    while reads.len() < READS && !last_agree(&reads) {
        let (lines, is_of_one_moment) = read_once()?;
        let lines = lines.iter().map(String::as_str);
        let locks = lines.filter_map(ListedLock::parse).filter(&wanted);
        let mut locks: Vec<ListedLock> = locks.collect();
        locks.sort_unstable();
        if is_of_one_moment {
            return Ok(locks);
        }
        reads.push(locks);
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

/// The lines of the list, and whether they are those of one moment.
fn read_once() -> io::Result<(Vec<String>, bool)> {
    let mut list = File::open(PATH)?;
    let first = read_piece(&mut list)?;
    let second = read_piece(&mut list)?;
    if second.is_empty() {
        return Ok((first, true));
    }
    let lines = match join_pieces(&mut list, first, second)? {
        Some(lines) => lines,
        None => read_in_turn()?,
    };
    Ok((lines, false))
}

/// The lines of `list`, which begins with two pieces, each lock that is held in the meantime once;
/// `None` if the pieces do not fit.
fn join_pieces(
    list: &mut File,
    mut lines: Vec<String>,
    mut piece: Vec<String>,
) -> io::Result<Option<Vec<String>>> {
    let (full, mut last) = (size_of(&lines), lines.len());
    // The last piece: the system fills each other one.
    let is_last = |piece: &[String]| size_of(piece) < full / 4 * 3;
    // Its pieces begin in the middle of those of `list`.
    let mut between = open_at(full / 2)?;
    while !piece.is_empty() {
        let bridge = read_piece(&mut between)?;
        if !continue_by(&mut lines, last, &bridge) {
            return Ok(None);
        }
        if is_last(&bridge) {
            break;
        }
        if !continue_by(&mut lines, bridge.len(), &piece) {
            return Ok(None);
        }
        if is_last(&piece) {
            break;
        }
        last = piece.len();
        piece = read_piece(list)?;
    }
    Ok(Some(lines))
}

/// The lines of the list, whose pieces may have a lock twice or not at all.
fn read_in_turn() -> io::Result<Vec<String>> {
    let mut list = File::open(PATH)?;
    let mut lines = Vec::new();
    loop {
        match read_piece(&mut list)? {
            piece if piece.is_empty() => return Ok(lines),
            piece => lines.extend(piece),
        }
    }
}

/// How many bytes the list has for `lines`.
fn size_of(lines: &[String]) -> usize {
    lines.iter().map(|line| line.len() + 1).sum()
}

/// The list from the byte `start` on.
fn open_at(start: usize) -> io::Result<File> {
    let mut list = File::open(PATH)?;
    list.seek(SeekFrom::Start(start as u64))?;
    Ok(list)
}

/// The next lines of `list`, which are those of one moment; none at its end.
fn read_piece(list: &mut File) -> io::Result<Vec<String>> {
    let mut piece = vec![0; 1 << 16];
    let len = loop {
        match list.read(&mut piece) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            len => break len?,
        }
    };
    let text = String::from_utf8_lossy(&piece[..len]);
    Ok(text.lines().map(str::to_owned).collect())
}

/// Continues `lines`, whose last piece has `last` lines, by the next `piece`, behind the longest
/// run of lines that both have. False if there is none that is certain.
fn continue_by(lines: &mut Vec<String>, last: usize, piece: &[String]) -> bool {
    let before = lines.len().saturating_sub(last);
    let tail = &lines[before..];
    match longest_run(tail, piece) {
        Some((kept, from)) => {
            lines.truncate(before + kept);
            lines.extend_from_slice(&piece[from..]);
            true
        }
        None => false,
    }
}

/// Where the longest run of lines ends that `tail` and `piece` both have; `None` if it is short, or
/// each of its lines comes more than once: then it may be another one.
fn longest_run(tail: &[String], piece: &[String]) -> Option<(usize, usize)> {
    // The lengths of the runs that end at each line of the piece, and at one line of the tail.
    let mut lengths = vec![0; piece.len() + 1];
    let (mut longest, mut end) = (LEAST_RUN - 1, None);
    for (at, line) in tail.iter().enumerate() {
        for place in (0..piece.len()).rev() {
            let is_same = lock_of(line) == lock_of(&piece[place]);
            lengths[place + 1] = if is_same { lengths[place] + 1 } else { 0 };
            if lengths[place + 1] > longest {
                (longest, end) = (lengths[place + 1], Some((at + 1, place + 1)));
            }
        }
    }
    let is_single = |lines: &[String], lock| {
        let mut same = lines.iter().filter(|line| lock_of(line) == lock);
        same.next().is_some() && same.next().is_none()
    };
    end.filter(|&(end, _)| {
        let mut run = tail[end - longest..end].iter().map(|line| lock_of(line));
        run.any(|lock| is_single(tail, lock) && is_single(piece, lock))
    })
}

/// A line of the list without its number.
fn lock_of(line: &str) -> &str {
    line.split_once(':').map_or(line, |(_number, lock)| lock)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(byte: u64) -> ListedLock {
        let line = format!("1: POSIX  ADVISORY  WRITE 18907 fe:1f:10018886 {byte} {byte}");
        ListedLock::parse(&line).unwrap()
    }

    #[test]
    fn line_that_comes_twice_or_not_at_all_in_a_read_is_counted_as_in_most() {
        let (one, two) = (lock(0), lock(1));
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

    /// A piece of the list, of the locks `locks` in turn.
    fn piece(first: usize, locks: impl IntoIterator<Item = usize>) -> Vec<String> {
        let line = |(at, lock)| format!("{}: OFDLCK ADVISORY READ -1 {lock}", first + at);
        locks.into_iter().enumerate().map(line).collect()
    }

    #[test]
    fn piece_continues_the_one_before_though_the_list_has_shifted() {
        // Locks elsewhere were acquired or released in between: the piece begins sooner or later.
        for begin in [10, 25, 32] {
            let mut lines = piece(1, 0..40);
            assert!(
                continue_by(&mut lines, 40, &piece(21, begin..60)),
                "{begin}"
            );
            let locks: Vec<_> = lines.iter().map(|line| lock_of(line).to_owned()).collect();
            let all = piece(1, 0..60);
            let all: Vec<_> = all.iter().map(|line| lock_of(line).to_owned()).collect();
            assert_eq!(locks, all, "{begin}");
        }
    }

    #[test]
    fn lock_that_was_acquired_anew_hides_no_other() {
        // Lock 99 was the last one, and comes behind 40 and 41 now.
        let mut lines = piece(1, (0..40).chain([99]));
        let next = (20..42).chain([99]).chain(42..60);
        assert!(continue_by(&mut lines, 41, &piece(21, next)));
        for lock in 0..60 {
            let name = format!(" {lock}");
            let count = lines.iter().filter(|line| line.ends_with(&name)).count();
            assert_eq!(count, 1, "{lock}");
        }
    }

    #[test]
    fn pieces_whose_place_is_open_do_not_continue() {
        let begin = || piece(1, 0..40);
        for next in [piece(41, 40..60), piece(21, (33..40).chain(50..70))] {
            assert!(!continue_by(&mut begin(), 40, &next), "too few in common");
        }
        let same = piece(1, [7; 40]);
        assert!(!continue_by(&mut same.clone(), 40, &same), "equal locks");
    }
}
