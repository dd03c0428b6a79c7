//! What a stock peer is stopped in: every operation, in every state of the log
//! that makes it take other steps.

use crate::Start;

/// Who else is attached when the operation begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beside {
    /// Nobody: ours opens the database while the peer is stopped.
    Nobody,
    /// Another stock peer; ours opens the database while the peer is stopped.
    Stock,
    /// Ours, which has read already.
    Ours,
}

/// What the peer does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    Sql(&'static str),
    Close,
}

/// One operation, in one state of the log.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    pub(crate) start: Start,
    pub(crate) beside: &'static [Beside],
    /// What the peer does before; nothing leaves it with the file unopened.
    pub(crate) prepare: Option<&'static str>,
    /// Whether the index header is damaged then.
    pub(crate) damaged: bool,
    pub(crate) act: Act,
    /// Whether the database may be in rollback mode afterwards.
    pub(crate) leaves_wal: bool,
}

const ALONE: &[Beside] = &[Beside::Nobody];
const SHARED: &[Beside] = &[Beside::Ours, Beside::Stock];

/// The rows that stock SQLite changes, and the blob that ours change.
pub(crate) const SELECT: &str = "SELECT sum(n), (SELECT a FROM b) FROM t";
const UPDATE: &str = "UPDATE t SET n=n+1";
const BACKFILL: &str = "UPDATE t SET n=n+1; PRAGMA wal_checkpoint";

/// What most operations have in common.
const COMMON: Operation = Operation {
    name: "",
    start: Start::LogLeft,
    beside: SHARED,
    prepare: Some(SELECT),
    damaged: false,
    act: Act::Sql(SELECT),
    leaves_wal: false,
};

pub(crate) const READS: &[Operation] = &[
    Operation {
        name: "read the log",
        ..COMMON
    },
    Operation {
        name: "read past a log that is backfilled",
        prepare: Some(BACKFILL),
        ..COMMON
    },
    Operation {
        name: "open and read",
        prepare: None,
        ..COMMON
    },
];

pub(crate) const WRITES: &[Operation] = &[
    Operation {
        name: "begin to write",
        act: Act::Sql("BEGIN IMMEDIATE; ROLLBACK"),
        ..COMMON
    },
    Operation {
        name: "commit the first of a log",
        start: Start::Closed,
        act: Act::Sql(UPDATE),
        ..COMMON
    },
    Operation {
        name: "commit a later one",
        act: Act::Sql(UPDATE),
        ..COMMON
    },
    Operation {
        name: "commit and restart the log",
        prepare: Some(BACKFILL),
        act: Act::Sql(UPDATE),
        ..COMMON
    },
    Operation {
        name: "vacuum",
        act: Act::Sql("VACUUM"),
        ..COMMON
    },
];

pub(crate) const CHECKPOINTS: &[Operation] = &[
    Operation {
        name: "checkpoint passive",
        act: Act::Sql("PRAGMA wal_checkpoint(PASSIVE)"),
        ..COMMON
    },
    Operation {
        name: "checkpoint full",
        act: Act::Sql("PRAGMA wal_checkpoint(FULL)"),
        ..COMMON
    },
    Operation {
        name: "checkpoint restart",
        act: Act::Sql("PRAGMA wal_checkpoint(RESTART)"),
        ..COMMON
    },
    Operation {
        name: "checkpoint truncate",
        act: Act::Sql("PRAGMA wal_checkpoint(TRUNCATE)"),
        ..COMMON
    },
    Operation {
        name: "checkpoint passive, a log that is backfilled",
        prepare: Some(BACKFILL),
        act: Act::Sql("PRAGMA wal_checkpoint(PASSIVE)"),
        ..COMMON
    },
    Operation {
        name: "checkpoint a database that shrank",
        prepare: Some("VACUUM"),
        act: Act::Sql("PRAGMA wal_checkpoint(PASSIVE)"),
        ..COMMON
    },
];

pub(crate) const RECOVERIES: &[Operation] = &[
    Operation {
        name: "recover a log as the first opener",
        beside: ALONE,
        prepare: None,
        ..COMMON
    },
    Operation {
        name: "recover without a log as the first opener",
        start: Start::Closed,
        beside: ALONE,
        prepare: None,
        ..COMMON
    },
    Operation {
        name: "recover a damaged index",
        damaged: true,
        ..COMMON
    },
];

pub(crate) const CLOSINGS: &[Operation] = &[
    Operation {
        name: "close beside others",
        act: Act::Close,
        ..COMMON
    },
    Operation {
        name: "close as the last",
        beside: ALONE,
        prepare: Some(UPDATE),
        act: Act::Close,
        ..COMMON
    },
    Operation {
        name: "leave WAL mode beside others",
        act: Act::Sql("PRAGMA journal_mode=DELETE"),
        leaves_wal: true,
        ..COMMON
    },
    Operation {
        name: "leave WAL mode",
        beside: ALONE,
        act: Act::Sql("PRAGMA journal_mode=DELETE"),
        leaves_wal: true,
        ..COMMON
    },
];
