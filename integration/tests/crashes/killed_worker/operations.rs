//! What workers are killed in: every operation, in every state of the log
//! that makes it take other steps.

use integration::worker::{Checkpoint, Command, Settings, Worker};

use super::scene::{MANY, PAGES, Scene, stamp};

/// The frames that the first block of the index has room for.
const FIRST_BLOCK: u32 = 4062;

/// One operation, in one state of the log.
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    /// Makes the state, and starts the worker that is to be killed.
    pub(crate) prepare: fn(&mut Scene) -> Worker,
    /// What that worker is killed in.
    pub(crate) command: fn(&Scene) -> Command,
    /// The sequence on [`PAGES`] before it and, if it is a commit, after it.
    pub(crate) outcomes: &'static [u64],
}

fn begin_read(_: &Scene) -> Command {
    Command::BeginRead {
        name: "killed".to_owned(),
    }
}

fn end_read(_: &Scene) -> Command {
    Command::EndRead {
        name: "killed".to_owned(),
    }
}

/// Commit 1 is in the database file, and the log is all backfilled.
fn backfilled(scene: &mut Scene) {
    let keeper = scene.keep();
    keeper.commit(PAGES, stamp(1)).unwrap();
    assert!(keeper.checkpoint().unwrap());
}

/// Commit 1 is in the log, and a reader's mark is too low for it.
fn logged(scene: &mut Scene) {
    let keeper = scene.keep();
    keeper.commit(MANY, stamp(0)).unwrap();
    keeper.begin_read("mark").unwrap();
    keeper.end_read("mark").unwrap();
    keeper.commit(PAGES, stamp(1)).unwrap();
}

/// A worker with commit 2 written and not committed.
fn about_to_commit(scene: &Scene) -> Worker {
    write_2(scene.worker())
}

/// The settings of who commits what is visible before it is durable.
pub(crate) fn sharing_syncs(scene: &Scene) -> Settings {
    let mut settings = scene.settings();
    settings.group_commit = true;
    settings
}

/// Writes commit 2, and does not commit it.
pub(crate) fn write_2(mut worker: Worker) -> Worker {
    worker.run(Command::BeginWrite).unwrap();
    let (pages, stamp) = (PAGES, stamp(2));
    worker.run(Command::Write { pages, stamp }).unwrap();
    worker
}

/// A worker that spilled commit 3, has commit 2 in its place in memory, and
/// committed nothing.
fn about_to_overwrite(scene: &Scene) -> Worker {
    let mut worker = scene.worker();
    worker.run(Command::BeginWrite).unwrap();
    for (sequence, spill) in [(3, true), (2, false)] {
        let (pages, stamp) = (PAGES, stamp(sequence));
        worker.run(Command::Write { pages, stamp }).unwrap();
        if spill {
            worker.run(Command::Spill).unwrap();
        }
    }
    worker
}

/// Leaves what a writer leaves that dies before it publishes its commit.
fn leave_leftovers(scene: &Scene) {
    let mut dead = about_to_commit(scene);
    dead.stop_at("frames-write", 1).unwrap();
    dead.send(&Command::Commit).unwrap();
    dead.wait_stopped(integration::worker::WATCHDOG).unwrap();
    dead.kill().unwrap();
}

/// Commit 1 is in a log that no process knows an index of.
fn log_left_behind(scene: &mut Scene) {
    logged(scene);
    scene.keeper().kill().unwrap();
    scene.keeper = None;
}

/// All operations, by what they are about.
pub(crate) const ALL: [&[Operation]; 5] = [READS, WRITES, COMMITS, CHECKPOINTS, OPENINGS];

pub(crate) const READS: &[Operation] = &[
    Operation {
        name: "begin to read where all is backfilled",
        prepare: |scene| {
            backfilled(scene);
            scene.worker()
        },
        command: begin_read,
        outcomes: &[1],
    },
    Operation {
        name: "begin to read with a new mark",
        prepare: |scene| {
            logged(scene);
            scene.worker()
        },
        command: begin_read,
        outcomes: &[1],
    },
    Operation {
        name: "end a read",
        prepare: |scene| {
            logged(scene);
            let mut worker = scene.worker();
            worker.begin_read("killed").unwrap();
            worker
        },
        command: end_read,
        outcomes: &[1],
    },
];

pub(crate) const WRITES: &[Operation] = &[
    Operation {
        name: "begin to write",
        prepare: |scene| {
            logged(scene);
            scene.worker()
        },
        command: |_| Command::BeginWrite,
        outcomes: &[1],
    },
    Operation {
        name: "begin to write after a dead writer",
        prepare: |scene| {
            logged(scene);
            leave_leftovers(scene);
            scene.worker()
        },
        command: |_| Command::BeginWrite,
        outcomes: &[1],
    },
    Operation {
        name: "roll back",
        prepare: |scene| {
            logged(scene);
            about_to_commit(scene)
        },
        command: |_| Command::Rollback,
        outcomes: &[1],
    },
    Operation {
        name: "spill",
        prepare: |scene| {
            logged(scene);
            about_to_commit(scene)
        },
        command: |_| Command::Spill,
        outcomes: &[1],
    },
    Operation {
        name: "spill and restart the log",
        prepare: |scene| {
            backfilled(scene);
            about_to_commit(scene)
        },
        command: |_| Command::Spill,
        outcomes: &[1],
    },
    Operation {
        name: "spill to frames of its own",
        prepare: |scene| {
            logged(scene);
            about_to_overwrite(scene)
        },
        command: |_| Command::Spill,
        outcomes: &[1],
    },
    Operation {
        name: "roll back after a spill",
        prepare: |scene| {
            logged(scene);
            about_to_overwrite(scene)
        },
        command: |_| Command::Rollback,
        outcomes: &[1],
    },
    Operation {
        name: "roll back to a savepoint before a spill",
        prepare: |scene| {
            logged(scene);
            let mut worker = about_to_commit(scene);
            worker.run(Command::Savepoint).unwrap();
            let (pages, stamp) = (PAGES, stamp(3));
            worker.run(Command::Write { pages, stamp }).unwrap();
            worker.run(Command::Spill).unwrap();
            worker
        },
        command: |_| Command::RollbackTo,
        outcomes: &[1],
    },
];

pub(crate) const COMMITS: &[Operation] = &[
    Operation {
        name: "commit and sync for others",
        prepare: |scene| {
            logged(scene);
            write_2(Worker::open(&sharing_syncs(scene)).unwrap())
        },
        command: |_| Command::Commit,
        outcomes: &[1, 2],
    },
    Operation {
        name: "commit the first of a log",
        prepare: |scene| {
            backfilled(scene);
            // The last closer removes the log.
            scene.keeper.take().unwrap().end().unwrap();
            scene.keep();
            about_to_commit(scene)
        },
        command: |_| Command::Commit,
        outcomes: &[1, 2],
    },
    Operation {
        name: "commit a later one",
        prepare: |scene| {
            logged(scene);
            about_to_commit(scene)
        },
        command: |_| Command::Commit,
        outcomes: &[1, 2],
    },
    Operation {
        name: "commit after a dead writer",
        prepare: |scene| {
            logged(scene);
            leave_leftovers(scene);
            about_to_commit(scene)
        },
        command: |_| Command::Commit,
        outcomes: &[1, 2],
    },
    Operation {
        name: "commit what was spilled and changed again",
        prepare: |scene| {
            logged(scene);
            about_to_overwrite(scene)
        },
        command: |_| Command::Commit,
        outcomes: &[1, 2],
    },
    Operation {
        name: "commit and restart the log",
        prepare: |scene| {
            backfilled(scene);
            about_to_commit(scene)
        },
        command: |_| Command::Commit,
        outcomes: &[1, 2],
    },
    Operation {
        name: "commit across the end of an index block",
        prepare: |scene| {
            let mut hasty = scene.hasty_worker();
            let mut frames = 0;
            while frames < FIRST_BLOCK - 2 * MANY.end {
                hasty.commit(MANY, stamp(0)).unwrap();
                frames = hasty.begin_read("length").unwrap().max_frame;
                hasty.end_read("length").unwrap();
            }
            while frames < FIRST_BLOCK - 7 {
                hasty.commit(PAGES, stamp(1)).unwrap();
                frames += PAGES.end - PAGES.start;
            }
            scene.keep();
            about_to_commit(scene)
        },
        command: |_| Command::Commit,
        outcomes: &[1, 2],
    },
];

pub(crate) const CHECKPOINTS: &[Operation] = &[
    Operation {
        name: "checkpoint",
        prepare: |scene| {
            logged(scene);
            scene.worker()
        },
        command: |_| Command::Checkpoint(Checkpoint::Passive),
        outcomes: &[1],
    },
    Operation {
        name: "checkpoint as far as a reader lets",
        prepare: |scene| {
            let keeper = scene.keep();
            keeper.commit(MANY, stamp(0)).unwrap();
            let mut reader = scene.worker();
            reader.begin_read("old").unwrap();
            scene.reader = Some(reader);
            scene.keeper().commit(PAGES, stamp(1)).unwrap();
            scene.worker()
        },
        command: |_| Command::Checkpoint(Checkpoint::Passive),
        outcomes: &[1],
    },
    Operation {
        name: "checkpoint, and truncate the log",
        prepare: |scene| {
            logged(scene);
            scene.worker()
        },
        command: |_| Command::Checkpoint(Checkpoint::Truncate),
        outcomes: &[1],
    },
    Operation {
        name: "truncate a log that is backfilled",
        prepare: |scene| {
            backfilled(scene);
            scene.worker()
        },
        command: |_| Command::Checkpoint(Checkpoint::Truncate),
        outcomes: &[1],
    },
    Operation {
        name: "checkpoint a database that shrank",
        prepare: |scene| {
            logged(scene);
            let mut stock = scene.stock();
            stock.run("DROP TABLE u").unwrap().unwrap();
            stock.close().unwrap();
            scene.worker()
        },
        command: |_| Command::Checkpoint(Checkpoint::Passive),
        outcomes: &[1],
    },
];

pub(crate) const OPENINGS: &[Operation] = &[
    Operation {
        name: "open as the first",
        prepare: |scene| {
            log_left_behind(scene);
            Worker::spawn().unwrap()
        },
        command: |scene| Command::Open(scene.settings()),
        outcomes: &[1],
    },
    Operation {
        name: "recover the index",
        prepare: |scene| {
            log_left_behind(scene);
            scene.worker()
        },
        command: begin_read,
        outcomes: &[1],
    },
    Operation {
        name: "close as the last",
        prepare: |scene| {
            log_left_behind(scene);
            scene.worker()
        },
        command: |_| Command::Close,
        outcomes: &[1],
    },
    Operation {
        name: "close beside others, with transactions open",
        prepare: |scene| {
            logged(scene);
            let mut worker = about_to_commit(scene);
            worker.begin_read("killed").unwrap();
            worker
        },
        command: |_| Command::Close,
        outcomes: &[1],
    },
];
