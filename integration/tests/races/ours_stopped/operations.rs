//! What a worker of ours is stopped in: every operation, in every state of the
//! log that makes it take other steps.

use integration::worker::{Checkpoint, Command, Settings, Worker};

use crate::{Image, Scene, Start, stamp};

/// One operation, in one state of the log.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    pub(crate) start: Start,
    /// Whether it is also run while a stock peer is attached.
    pub(crate) beside_stock: bool,
    /// Whether it is also run while nobody else is attached.
    pub(crate) alone: bool,
    /// Brings the worker to where the operation begins.
    pub(crate) prepare: fn(&Scene, &mut Worker),
    pub(crate) command: fn(&Scene) -> Command,
}

const COMMON: Operation = Operation {
    name: "",
    start: Start::LogLeft,
    beside_stock: true,
    alone: true,
    prepare: open,
    command: begin_read,
};

fn settings(scene: &Scene) -> Settings {
    let mut settings = Settings::new(&scene.path);
    settings.busy_timeout = crate::BUSY_TIMEOUT;
    settings
}

fn open(scene: &Scene, worker: &mut Worker) {
    worker.run(Command::Open(settings(scene))).unwrap();
}

/// Opens, with the index recovered.
fn attach(scene: &Scene, worker: &mut Worker) {
    open(scene, worker);
    worker.begin_read("first").unwrap();
    worker.end_read("first").unwrap();
}

/// Attaches, and moves a commit into the database.
fn backfill(scene: &Scene, worker: &mut Worker) {
    open(scene, worker);
    worker.commit(Image::stamped_pages(), stamp(1)).unwrap();
    assert!(worker.checkpoint().unwrap());
}

/// Opens a write transaction with a new commit in it.
fn write(worker: &mut Worker) {
    let (pages, stamp) = (Image::stamped_pages(), stamp(2));
    worker.run(Command::BeginWrite).unwrap();
    worker.run(Command::Write { pages, stamp }).unwrap();
}

fn begin_read(_: &Scene) -> Command {
    Command::BeginRead {
        name: "read".to_owned(),
    }
}

pub(crate) const READS: &[Operation] = &[
    Operation {
        name: "recover or join, and read",
        ..COMMON
    },
    Operation {
        name: "read the log",
        prepare: attach,
        ..COMMON
    },
    Operation {
        name: "read past a log that is backfilled",
        prepare: backfill,
        ..COMMON
    },
    Operation {
        name: "end a read",
        prepare: |scene, worker| {
            open(scene, worker);
            worker.begin_read("read").unwrap();
        },
        command: |_| Command::EndRead {
            name: "read".to_owned(),
        },
        ..COMMON
    },
];

pub(crate) const COMMITS: &[Operation] = &[
    Operation {
        name: "begin to write",
        prepare: attach,
        command: |_| Command::BeginWrite,
        ..COMMON
    },
    Operation {
        name: "commit the first of a log",
        start: Start::Closed,
        prepare: |scene, worker| {
            open(scene, worker);
            write(worker);
        },
        command: |_| Command::Commit,
        ..COMMON
    },
    Operation {
        name: "commit a later one",
        prepare: |scene, worker| {
            open(scene, worker);
            write(worker);
        },
        command: |_| Command::Commit,
        ..COMMON
    },
    Operation {
        name: "commit and restart the log",
        prepare: |scene, worker| {
            backfill(scene, worker);
            write(worker);
        },
        command: |_| Command::Commit,
        ..COMMON
    },
];

pub(crate) const CHECKPOINTS: &[Operation] = &[
    Operation {
        name: "checkpoint",
        prepare: attach,
        command: |_| Command::Checkpoint(Checkpoint::Passive),
        ..COMMON
    },
    Operation {
        name: "checkpoint, and truncate the log",
        prepare: attach,
        command: |_| Command::Checkpoint(Checkpoint::Truncate),
        ..COMMON
    },
    Operation {
        name: "truncate a log that is backfilled",
        prepare: backfill,
        command: |_| Command::Checkpoint(Checkpoint::Truncate),
        ..COMMON
    },
    Operation {
        name: "checkpoint a database that shrank",
        prepare: |scene, worker| {
            attach(scene, worker);
            let mut stock = scene.keeper();
            stock.run("VACUUM").unwrap().unwrap();
            stock.close().unwrap();
        },
        command: |_| Command::Checkpoint(Checkpoint::Passive),
        ..COMMON
    },
];

pub(crate) const OPENINGS: &[Operation] = &[
    Operation {
        name: "open as the first",
        beside_stock: false,
        prepare: |_, _| {},
        command: |scene| Command::Open(settings(scene)),
        ..COMMON
    },
    Operation {
        name: "close beside others, with transactions open",
        alone: false,
        prepare: |scene, worker| {
            open(scene, worker);
            write(worker);
            worker.begin_read("open").unwrap();
        },
        command: |_| Command::Close,
        ..COMMON
    },
    Operation {
        name: "close as the last",
        beside_stock: false,
        prepare: attach,
        command: |_| Command::Close,
        ..COMMON
    },
];
