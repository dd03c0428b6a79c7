//! Stock SQLite is stopped at each edge of each of its operations, and ours
//! acts in the gap: it has the right data, or says at once that it is busy.
//! Then the peer goes on, or is killed there and ours goes on without it;
//! either way the database is sound and nothing acknowledged is lost.
//!
//! Each operation is first run to its end to learn which edges it passes, and
//! which pages a snapshot has before and after it.

mod operations;
mod points;
mod run;

use crate::{Action, Ours, Plan, Scene, Start, WAIT};
use integration::stock::{Control, StockKind, StockSqlite};
use operations::{CHECKPOINTS, CLOSINGS, Operation, READS, RECOVERIES, WRITES};
use run::{Cell, End, Recorded, run_cell};

/// How many cells are run of each operation, of each kind of peer and of who
/// is beside it, unless all are.
const SAMPLE: usize = 12;

/// Runs the cells of `operations`.
fn run_matrix(operations: &[Operation]) {
    let plan = Plan::from_environment();
    for operation in operations {
        for kind in StockKind::available() {
            for &beside in operation.beside {
                let recorded = Recorded::new(operation, kind, beside);
                let name = format!("{}, {kind}, beside {beside:?}", operation.name);
                let cells = plan.choose(&name, cells(&recorded), SAMPLE);
                let mut seen = Seen::default();
                for cell in &cells {
                    println!("{name}: {cell}");
                    let after = run_cell(operation, kind, beside, &recorded, cell);
                    seen.expect_in_order(cell, after);
                }
            }
        }
    }
}

fn cells(recorded: &Recorded) -> Vec<Cell> {
    let mut cells = Vec::new();
    for stop in &recorded.stops {
        for action in Action::ALL {
            for end in [End::GoesOn, End::Killed] {
                let stop = stop.clone();
                cells.push(Cell { stop, action, end });
            }
        }
    }
    cells
}

/// What was seen at the stops so far: once the operation shows at one of them,
/// it shows at all later ones.
#[derive(Default)]
struct Seen {
    stopped: bool,
    killed: bool,
}

impl Seen {
    fn expect_in_order(&mut self, cell: &Cell, after: Option<bool>) {
        let Some(after) = after else { return };
        let shown = match cell.end {
            End::GoesOn => &mut self.stopped,
            End::Killed => &mut self.killed,
        };
        assert!(after || !*shown, "undone at a later stop: {cell}");
        *shown = after;
    }
}

#[test]
fn a_reader_stopped_at_any_edge_is_in_nobodys_way() {
    run_matrix(READS);
}

#[test]
fn a_writer_stopped_at_any_edge_makes_others_busy_or_is_not_seen() {
    run_matrix(WRITES);
}

#[test]
fn a_checkpointer_stopped_at_any_edge_shows_nobody_a_wrong_page() {
    run_matrix(CHECKPOINTS);
}

#[test]
fn a_recovery_stopped_at_any_edge_shows_nobody_a_wrong_page() {
    run_matrix(RECOVERIES);
}

#[test]
fn a_closer_stopped_at_any_edge_takes_nothing_from_others() {
    run_matrix(CLOSINGS);
}

/// The bound is SQLite's own; see `walTryBeginRead`.
#[test]
fn a_header_half_stored_by_a_stopped_writer_is_waited_for_ten_seconds_and_no_longer() {
    let scene = Scene::new(Start::LogLeft);
    let ours = Ours::open(&scene.path).unwrap();
    let before = ours.image().unwrap();
    let control = Control::new().unwrap();
    let mut peer = StockSqlite::spawn(StockKind::Bundled, &scene.path, Some(&control)).unwrap();
    peer.run("BEGIN IMMEDIATE; UPDATE t SET n=n+1")
        .unwrap()
        .unwrap();
    // From here on the only barrier is the one between the two copies.
    control.arm("before shm:barrier", 1).unwrap();
    peer.send("COMMIT").unwrap();
    control.wait_stopped(WAIT).unwrap();
    assert!(scene.reader_waits());
    let refused = ours.image_within(WAIT).unwrap_err();
    assert!(matches!(refused, wal::Error::Protocol { .. }), "{refused}");
    control.go().unwrap();
    peer.finish(WAIT).unwrap().unwrap();
    let (_, after) = scene.expect_sound(peer, ours);
    assert!(after != before, "the commit is there");
}
