//! Every fixture: its name, what it shows, who writes it and who checks it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use integration::fixtures::LOG;
use integration::fixtures::facts::{FixtureFacts, RowFacts};

use crate::facts::measure;
use crate::log::Log;
use crate::{commits, indexes, journals, tails};

/// A fixture yet to be written.
pub(crate) struct Fixture {
    pub(crate) name: &'static str,
    /// One sentence, for the facts.
    pub(crate) shows: &'static str,
    /// Writes the files into a folder, and says which rows the last commit has.
    write: fn(&Path) -> Result<RowFacts>,
    /// Proves that the files are what `shows` says.
    check: fn(&Path, &FixtureFacts) -> Result<()>,
}

impl Fixture {
    /// Writes the fixture to `folder`, and has SQLite and its own check confirm
    /// what it is.
    pub(crate) fn make(&self, folder: &Path) -> Result<FixtureFacts> {
        let attempt = || {
            let expected = (self.write)(folder)?;
            let facts = measure(self.name, self.shows, folder)?;
            ensure!(facts.integrity_check == "ok", "{}", facts.integrity_check);
            ensure!(
                facts.rows == expected,
                "rows {:?} were committed, {:?} recovered",
                expected,
                facts.rows
            );
            (self.check)(folder, &facts)?;
            Ok(facts)
        };
        attempt().with_context(|| format!("fixture {}", self.name))
    }
}

/// The log of a fixture that has one.
pub(crate) fn read_log(folder: &Path) -> Result<Log> {
    Log::parse(&fs::read(folder.join(LOG))?)?.context("a log without a header")
}

/// In the order of `facts.json`; `other-byte-order` reads `pages-4096` and
/// comes after it.
pub(crate) const FIXTURES: &[Fixture] = &[
    Fixture {
        name: "pages-512",
        shows: "The smallest page size; commits that rewrite pages of earlier commits, overflow pages.",
        write: |folder| commits::write_pages(folder, 512),
        check: commits::check_pages,
    },
    Fixture {
        name: "pages-1024",
        shows: "1024-byte pages; commits that rewrite pages of earlier commits, overflow pages.",
        write: |folder| commits::write_pages(folder, 1024),
        check: commits::check_pages,
    },
    Fixture {
        name: "pages-4096",
        shows: "The usual page size; commits that rewrite pages of earlier commits, overflow pages.",
        write: |folder| commits::write_pages(folder, 4096),
        check: commits::check_pages,
    },
    Fixture {
        name: "pages-65536",
        shows: "The largest page size, which the database header stores as 1 and the log as 65536.",
        write: commits::write_largest_pages,
        check: commits::check_pages,
    },
    Fixture {
        name: "several-generations",
        shows: "A log restarted twice: behind the valid prefix lie frames of two older generations.",
        write: commits::write_generations,
        check: commits::check_generations,
    },
    Fixture {
        name: "shrunk",
        shows: "The last commits shrink the database (auto_vacuum): the file and earlier frames have pages beyond its end.",
        write: commits::write_shrunk,
        check: commits::check_shrunk,
    },
    Fixture {
        name: "spilled-commit",
        shows: "A commit whose frames were spilled before it, partly rolled back to a savepoint and rewritten in place; leftovers of the rollback follow it.",
        write: commits::write_spilled,
        check: commits::check_spilled,
    },
    Fixture {
        name: "padded-commits",
        shows: "Commits padded to whole sectors (psow=0): the commit frame is there several times.",
        write: commits::write_padded,
        check: commits::check_padded,
    },
    Fixture {
        name: "other-byte-order",
        shows: "The log of pages-4096 with its checksums in the other byte order, by this program; SQLite recovers the same pages.",
        write: commits::write_other_byte_order,
        check: commits::check_other_byte_order,
    },
    Fixture {
        name: "uncommitted-tail",
        shows: "Copied during a transaction that spilled: sound uncommitted frames follow the last commit.",
        write: tails::write_uncommitted,
        check: tails::check_uncommitted,
    },
    Fixture {
        name: "rewritten-tail",
        shows: "Copied during a transaction that spilled pages twice: uncommitted frames whose checksums SQLite left for later.",
        write: tails::write_rewritten,
        check: tails::check_rewritten,
    },
    Fixture {
        name: "torn-tail",
        shows: "The log ends in the middle of the last commit's second frame, cut by this program.",
        write: tails::write_torn,
        check: tails::check_torn,
    },
    Fixture {
        name: "flipped-tail",
        shows: "One bit of a page in the last commit's first frame is flipped, by this program.",
        write: tails::write_flipped,
        check: tails::check_flipped,
    },
    Fixture {
        name: "no-commit",
        shows: "A log with a header and uncommitted frames only: the database is the database file.",
        write: tails::write_no_commit,
        check: tails::check_no_commit,
    },
    Fixture {
        name: "empty-log",
        shows: "A log of zero bytes, as a truncating checkpoint leaves it.",
        write: tails::write_empty,
        check: tails::check_empty,
    },
    Fixture {
        name: "header-only",
        shows: "A log of a header and no frame, cut by this program: its writer died after the header.",
        write: tails::write_header_only,
        check: tails::check_header_only,
    },
    Fixture {
        name: "with-shm",
        shows: "The wal-index copied live, with a reader's mark that keeps the checkpoint from backfilling all.",
        write: indexes::write_live,
        check: indexes::check_live,
    },
    Fixture {
        name: "stale-shm",
        shows: "A sound wal-index of an older generation, with fewer frames than the log holds.",
        write: indexes::write_stale,
        check: indexes::check_stale,
    },
    Fixture {
        name: "rollback-mode",
        shows: "A database that keeps a rollback journal and has no log.",
        write: journals::write_rollback_mode,
        check: journals::check_rollback_mode,
    },
    Fixture {
        name: "hot-journal",
        shows: "Copied during a transaction that spilled into the database file: the journal must be rolled back first.",
        write: journals::write_hot_journal,
        check: journals::check_hot_journal,
    },
];
