//! The rows of the queue's table.

use serde::Serialize;

use super::order::Synchronous;
use super::peers::Peer;
use crate::measure::Scale;

/// A row: the same work with and without the library.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// How its writers are called.
    pub(crate) writers: &'static str,
    /// The peers, one after another, again and again, until all processes are named.
    pub(crate) peers: &'static [Peer],
    /// How many processes write.
    pub(crate) processes: usize,
    /// How long a transaction sleeps before it commits, in milliseconds.
    pub(crate) pause_ms: u32,
    /// `PRAGMA synchronous`.
    pub(crate) synchronous: Synchronous,
    /// What is compared.
    pub(crate) systems: &'static [System],
}

/// Which processes load the library.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum System {
    /// None of them.
    Stock,
    /// All of them.
    Queue,
    /// All of them, and commits share their syncs.
    QueueGroup,
    /// Every second one.
    HalfQueue,
}

impl System {
    /// The name in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            System::Stock => "stock",
            System::Queue => "queue",
            System::QueueGroup => "queue, group commit",
            System::HalfQueue => "half queue",
        }
    }
}

impl Row {
    /// Whether `system` has a line in this row.
    pub(crate) fn compares(&self, system: System) -> bool {
        let syncs = self.synchronous == Synchronous::Full;
        self.systems.contains(&system) && (syncs || system != System::QueueGroup)
    }
}

/// Writers that run side by side.
struct Writers {
    name: &'static str,
    peers: &'static [Peer],
    /// Whether they run in each number of processes.
    every_count: bool,
    systems: &'static [System],
}

const TURNS: &[System] = &[System::Stock, System::Queue];

const WRITERS: [Writers; 7] = [
    Writers {
        name: "rust",
        peers: &[Peer::Rust],
        every_count: true,
        systems: &[System::Stock, System::Queue, System::QueueGroup],
    },
    Writers {
        name: "python",
        peers: &[Peer::Python],
        every_count: false,
        systems: TURNS,
    },
    Writers {
        name: "node",
        peers: &[Peer::Node],
        every_count: false,
        systems: TURNS,
    },
    Writers {
        name: "rust, python, node",
        peers: &[Peer::Rust, Peer::Python, Peer::Node],
        every_count: false,
        systems: TURNS,
    },
    Writers {
        name: "rust, half of them",
        peers: &[Peer::Rust],
        every_count: false,
        systems: &[System::HalfQueue],
    },
    Writers {
        name: "rust, wal",
        peers: &[Peer::Rust, Peer::Wal],
        every_count: false,
        systems: TURNS,
    },
    Writers {
        name: "rust, wal-libsql",
        peers: &[Peer::Rust, Peer::WalLibsql],
        every_count: false,
        systems: TURNS,
    },
];

/// The rows of `scale`: first one writer alone, then all kinds of writers.
pub(crate) fn rows(scale: Scale) -> Vec<Row> {
    let counts: &[usize] = scale.choose(&[4, 8, 16], &[8], &[2]);
    let one_count = &counts[counts.len() / 2..][..1];
    let mut rows = vec![Row {
        writers: "rust, alone",
        peers: &[Peer::Rust],
        processes: 1,
        pause_ms: 0,
        synchronous: Synchronous::Normal,
        systems: TURNS,
    }];
    for writers in &WRITERS {
        for &processes in if writers.every_count {
            counts
        } else {
            one_count
        } {
            for pause_ms in [0, 5] {
                let of = |synchronous| Row {
                    writers: writers.name,
                    peers: writers.peers,
                    processes,
                    pause_ms,
                    synchronous,
                    systems: writers.systems,
                };
                rows.extend([Synchronous::Normal, Synchronous::Full].map(of));
            }
        }
    }
    rows
}
