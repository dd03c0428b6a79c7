//! The database that is worked on, and what must be true of it whatever
//! happens.
//!
//! # Layout
//! The overflow pages, which only ours write, are cut into ranges: one that
//! all share, one of each process of ours, and the rest, in bulk. On the pages
//! of a range all stamps are equal at any commit. Stock SQLite has accounts
//! whose balances add up to the same sum at any commit, a journal that counts
//! the transactions of each process, and a table that grows and shrinks.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use integration::worker::Stamp;
use tempfile::TempDir;

use integration::stamped;

/// Processes of ours at a time.
pub(crate) const OURS: u32 = 3;
/// Processes of stock SQLite at a time, at most.
pub(crate) const STOCK: u32 = 2;
/// What the balances add up to.
pub(crate) const SUM: i64 = 50 * 1000;
/// Accounts, numbered from 0.
pub(crate) const ACCOUNTS: u32 = 50;

const SHARED_PAGES: u32 = 4;
const OWN_PAGES: u32 = 3;

const TABLES: &str = "
    CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL);
    WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 49)
        INSERT INTO account SELECT i, 1000 FROM n;
    CREATE TABLE journal(writer INTEGER PRIMARY KEY, count INTEGER NOT NULL);
    INSERT INTO journal VALUES(0, 0), (1, 0);
    CREATE TABLE filler(a);
    CREATE INDEX of_filler ON filler(a)";

/// A database and what was acknowledged of it.
pub(crate) struct Scene {
    pub(crate) path: PathBuf,
    pub(crate) page_size: u32,
    pages: Range<u32>,
    /// What each process of ours has done to its own pages.
    pub(crate) ours: Vec<Ledger>,
    /// What each process of stock SQLite has entered in the journal.
    pub(crate) stock: Vec<Ledger>,
    /// How often the stamp of the shared pages was surely raised.
    pub(crate) shared: AtomicU64,
    directory: TempDir,
}

/// What one writer knows of its commits, numbered from 1 without a gap.
///
/// A writer that is killed between the last frame of a commit and the header
/// that publishes it leaves a commit that nobody sees, until somebody writes
/// over it or recovers the log, and then it is there. So what one look does
/// not find, a later one may.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ledger {
    /// The last that is surely there.
    acknowledged: u64,
    /// The last that may be there or come: its process was killed before it
    /// told.
    in_doubt: u64,
}

impl Ledger {
    /// The number of the next commit.
    pub(crate) fn next(&self) -> u64 {
        self.acknowledged + 1
    }

    /// The next commit was done.
    pub(crate) fn acknowledge(&mut self) {
        self.acknowledged += 1;
    }

    /// The process was killed in the next commit.
    pub(crate) fn doubt(&mut self) {
        self.in_doubt = self.next();
    }

    /// Takes the last commit that a snapshot has.
    pub(crate) fn settle(&mut self, found: u64) -> Result<()> {
        let last = self.acknowledged.max(self.in_doubt);
        ensure!(
            (self.acknowledged..=last).contains(&found),
            "commit {found} is the last, after {self:?}"
        );
        self.acknowledged = found;
        Ok(())
    }
}

impl Scene {
    pub(crate) fn new(page_size: u32) -> Result<Self> {
        let directory = TempDir::with_prefix("torture")?;
        let path = directory.path().join("app.db");
        let bulk = (400_000 / page_size).clamp(8, 64);
        let count = SHARED_PAGES + OURS * OWN_PAGES + bulk;
        let pages = stamped::create(&path, page_size, count, TABLES)?;
        Ok(Scene {
            path,
            page_size,
            pages,
            ours: vec![Ledger::default(); OURS as usize],
            stock: vec![Ledger::default(); STOCK as usize],
            shared: AtomicU64::new(0),
            directory,
        })
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Leaves the files where they are.
    pub(crate) fn keep(self) -> PathBuf {
        self.directory.keep()
    }

    pub(crate) fn ranges(&self) -> Ranges {
        Ranges(self.pages.clone())
    }

    /// What is acknowledged of the shared pages by now.
    pub(crate) fn shared(&self) -> u64 {
        self.shared.load(Ordering::SeqCst)
    }
}

/// All pages that ours stamp.
#[derive(Debug, Clone)]
pub(crate) struct Ranges(Range<u32>);

impl Ranges {
    pub(crate) fn all(&self) -> Range<u32> {
        self.0.clone()
    }

    pub(crate) fn shared(&self) -> Range<u32> {
        self.0.start..self.0.start + SHARED_PAGES
    }

    pub(crate) fn own(&self, number: u32) -> Range<u32> {
        let start = self.shared().end + number * OWN_PAGES;
        start..start + OWN_PAGES
    }

    pub(crate) fn bulk(&self) -> Range<u32> {
        self.own(OURS).start..self.0.end
    }

    /// What the stamps of one snapshot say, all of them in order.
    pub(crate) fn judge(&self, stamps: &[Option<Stamp>]) -> Result<Seen> {
        let sequence = |range: Range<u32>| -> Result<u64> {
            let index = |page: u32| (page - self.0.start) as usize;
            let stamps = stamps
                .get(index(range.start)..index(range.end))
                .context("too few stamps")?;
            let first = stamps.first().copied().flatten();
            ensure!(
                stamps.iter().all(|stamp| *stamp == first),
                "pages {range:?} are of different commits: {stamps:?}"
            );
            Ok(first.map_or(0, |stamp| stamp.sequence))
        };
        sequence(self.bulk())?;
        Ok(Seen {
            shared: sequence(self.shared())?,
            own: (0..OURS)
                .map(|number| sequence(self.own(number)))
                .collect::<Result<_>>()?,
        })
    }
}

/// The last commits that a snapshot has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) shared: u64,
    pub(crate) own: Vec<u64>,
}

impl Seen {
    /// A later snapshot has all that an earlier one had.
    pub(crate) fn ensure_not_before(&self, earlier: &Seen) -> Result<()> {
        let back = self.shared < earlier.shared
            || self
                .own
                .iter()
                .zip(&earlier.own)
                .any(|(now, then)| now < then);
        ensure!(!back, "{self:?} after {earlier:?}");
        Ok(())
    }
}

/// One of `choices`, each as often as its weight says.
pub(crate) fn choose<T: Copy>(rng: &mut Rng, choices: &[(u32, T)]) -> T {
    let total: u32 = choices.iter().map(|(weight, _)| weight).sum();
    let mut left = rng.u32(..total);
    for &(weight, choice) in choices {
        match left.checked_sub(weight) {
            Some(rest) => left = rest,
            None => return choice,
        }
    }
    unreachable!("what is left is less than the sum of the weights")
}
