//! The rows: what each does, what is compared in it, and what was to be
//! reached.

/// A row of the report.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// Its name.
    pub(crate) id: &'static str,
    /// What is measured.
    pub(crate) title: &'static str,
    /// The unit.
    pub(crate) unit: &'static str,
    /// Whether more is better.
    pub(crate) more: bool,
    /// What is not equal between the systems.
    pub(crate) compared: &'static str,
    /// What was to be reached.
    pub(crate) goal: &'static str,
}

impl Row {
    /// `less` or `more`.
    pub(crate) fn better(&self) -> &'static str {
        if self.more { "more" } else { "less" }
    }

    /// Which part of the latencies is beyond the tail.
    pub(crate) fn tail(&self) -> &'static str {
        let of_many_commits = ["W1c", "W2p", "W2t", "W2n", "M1w", "S-write"];
        match of_many_commits.iter().any(|id| self.id.starts_with(id)) {
            true => "0.1 %",
            false => "1 %",
        }
    }
}

const fn row(
    id: &'static str,
    title: &'static str,
    unit: &'static str,
    more: bool,
    compared: &'static str,
    goal: &'static str,
) -> Row {
    Row {
        id,
        title,
        unit,
        more,
        compared,
        goal,
    }
}

const TREE: &str = "the others also walk a B-tree to the record";
const LOOK_UP: &str = "SQLite also walks a B-tree and copies the page";

/// All rows, in the order of the report.
pub(crate) const ROWS: &[Row] = &[
    row(
        "R1",
        "begin a read, one page, end; nobody writes, all is backfilled",
        "ns",
        false,
        TREE,
        "at or below LMDB; in-process half of that",
    ),
    row(
        "R2d",
        "a page of the database file in a long read, random of 10,000",
        "ns",
        false,
        TREE,
        "a tenth of SQLite",
    ),
    row(
        "R2w",
        "a page in the log in a long read, random of 10,000",
        "ns",
        false,
        TREE,
        "a twentieth of SQLite",
    ),
    row(
        "R3-1k",
        "a page that is not in the log, log of 1,000 frames",
        "ns",
        false,
        LOOK_UP,
        "flat within 1.2",
    ),
    row(
        "R3-10k",
        "likewise, 10,000 frames",
        "ns",
        false,
        LOOK_UP,
        "flat within 1.2",
    ),
    row(
        "R3-100k",
        "likewise, 100,000 frames",
        "ns",
        false,
        LOOK_UP,
        "flat within 1.2",
    ),
    row(
        "R3-1M",
        "likewise, 1,000,000 frames",
        "ns",
        false,
        LOOK_UP,
        "flat within 1.2",
    ),
    row(
        "W1",
        "commit of one page, NORMAL, no checkpoint",
        "µs",
        false,
        TREE,
        "a quarter of SQLite; 3 system calls",
    ),
    row(
        "W1c",
        "likewise, with automatic checkpoints (tail: 99.9 %)",
        "µs",
        false,
        TREE,
        "a fifth of SQLite; 99.9 % within 5 ms",
    ),
    row(
        "W2",
        "commit of one page, FULL, one writer",
        "µs",
        false,
        TREE,
        "within 1.1 of write and fdatasync",
    ),
    row(
        "W2p-8",
        "8 processes that commit one page, FULL (tail: 99.9 %)",
        "commits/s",
        true,
        TREE,
        "5 times SQLite with group commit, not below it without; slowest : fastest 0.9; 99.9 % within 20 ms",
    ),
    row(
        "W2p-16",
        "16 processes, likewise",
        "commits/s",
        true,
        TREE,
        "7 times SQLite with group commit",
    ),
    row(
        "W2t-8",
        "8 threads of one process that commit one page, FULL, durable before visible (tail: 99.9 %)",
        "commits/s",
        true,
        TREE,
        "3 times SQLite",
    ),
    row(
        "W2t-16",
        "16 threads, likewise",
        "commits/s",
        true,
        TREE,
        "5 times SQLite",
    ),
    row(
        "W2n",
        "4 processes that commit one page, NORMAL (tail: 99.9 %)",
        "commits/s",
        true,
        TREE,
        "above LMDB, and its longest wait below",
    ),
    row(
        "W3",
        "commit of 1,000 pages, NORMAL",
        "MB/s",
        true,
        TREE,
        "2,500 MB/s",
    ),
    row(
        "M1r",
        "3 processes that read one page at a time, beside M1w",
        "reads/s",
        true,
        TREE,
        "above LMDB",
    ),
    row(
        "M1w",
        "1 process that commits one page at a time, beside M1r",
        "commits/s",
        true,
        TREE,
        "above LMDB",
    ),
    row(
        "C1-off",
        "checkpoint of 100,000 pages, nothing synced",
        "MB/s",
        true,
        "the same pages from the same log",
        "twice SQLite",
    ),
    row(
        "C1-on",
        "checkpoint of 100,000 pages, log and database synced",
        "MB/s",
        true,
        "the same pages from the same log",
        "the disk's limit",
    ),
    row(
        "C2-100k",
        "recovery of a log of 100,000 frames",
        "GB/s",
        true,
        "the same log; SQLite also reads its schema",
        "10 GB/s",
    ),
    row(
        "C2-500k",
        "recovery of a log of 500,000 frames",
        "GB/s",
        true,
        "the same log; SQLite also reads its schema",
        "10 GB/s",
    ),
    row(
        "N1",
        "commit in one process until wait_for_change returns in another",
        "µs",
        false,
        "the others have no such call",
        "half within 30 µs",
    ),
    row(
        "S-read-1",
        "1 process that reads one page at a time",
        "reads/s",
        true,
        TREE,
        "flat per processor",
    ),
    row(
        "S-read-8",
        "8 processes",
        "reads/s",
        true,
        TREE,
        "flat per processor",
    ),
    row(
        "S-read-64",
        "64 processes",
        "reads/s",
        true,
        TREE,
        "flat per processor",
    ),
    row(
        "S-readt-2",
        "2 threads of one process that read one page at a time",
        "reads/s",
        true,
        TREE,
        "as many as processes",
    ),
    row(
        "S-readt-8",
        "8 threads",
        "reads/s",
        true,
        TREE,
        "as many as processes",
    ),
    row(
        "S-write-16",
        "16 processes that commit one page, NORMAL (tail: 99.9 %)",
        "commits/s",
        true,
        TREE,
        "flat",
    ),
    row(
        "S-write-64",
        "64 processes, likewise",
        "commits/s",
        true,
        TREE,
        "flat",
    ),
    row(
        "S-tx-1",
        "commits of 1 page, NORMAL, per page",
        "µs",
        false,
        TREE,
        "flat from 100 on",
    ),
    row(
        "S-tx-100",
        "commits of 100 pages, per page",
        "µs",
        false,
        TREE,
        "flat from 100 on",
    ),
    row(
        "S-tx-10k",
        "commits of 10,000 pages, per page",
        "µs",
        false,
        TREE,
        "flat from 100 on",
    ),
    row(
        "S-tx-100k",
        "commits of 100,000 pages, per page",
        "µs",
        false,
        TREE,
        "flat from 100 on",
    ),
    row(
        "S-db-10M",
        "R1 in a sparse database of 10 MB",
        "ns",
        false,
        "this library alone",
        "flat",
    ),
    row(
        "S-db-1G",
        "R1 in a sparse database of 1 GB",
        "ns",
        false,
        "this library alone",
        "flat",
    ),
    row(
        "S-db-10G",
        "R1 in a sparse database of 10 GB",
        "ns",
        false,
        "this library alone",
        "flat",
    ),
];

/// The row called `id`.
pub(crate) fn find(id: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.id == id)
}
