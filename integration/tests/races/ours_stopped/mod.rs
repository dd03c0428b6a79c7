//! A worker of ours is stopped at each step point of each of its operations,
//! and stock SQLite acts in the gap: it has the right data, or is busy. Then
//! the worker goes on, or is killed there and stock SQLite goes on without it;
//! either way the database is sound and nothing acknowledged is lost.
//!
//! Each operation is first run to its end to learn which points it passes, and
//! what stock SQLite reads before and after it.

mod operations;
mod run;
mod wal_reset;

use crate::Plan;
use integration::stock::StockKind;
use operations::{CHECKPOINTS, COMMITS, OPENINGS, Operation, READS};
use run::{Action, Cell, End, Peer, Recorded, run_cell};

/// How many cells are run of each operation, of each kind of peer and of
/// whether it was attached before, unless all are.
const SAMPLE: usize = 16;

fn run_matrix(operations: &[Operation]) {
    let plan = Plan::from_environment();
    for operation in operations {
        for peer in peers(operation) {
            let recorded = Recorded::new(operation, peer);
            let name = format!("{}, {peer:?}", operation.name);
            let cells = plan.choose(&name, cells(&recorded), SAMPLE);
            let mut seen_after = false;
            for cell in &cells {
                println!("{name}: {cell}");
                let after = run_cell(operation, peer, &recorded, cell);
                assert!(
                    after.unwrap_or(true) || !seen_after || cell.end == End::Killed,
                    "undone at a later stop"
                );
                seen_after |= after == Some(true) && cell.end == End::GoesOn;
            }
        }
    }
}

fn peers(operation: &Operation) -> Vec<Peer> {
    let mut peers = Vec::new();
    for kind in StockKind::available() {
        for attached in [true, false] {
            let wanted = if attached {
                operation.beside_stock
            } else {
                operation.alone
            };
            if wanted {
                peers.push(Peer { kind, attached });
            }
        }
    }
    peers
}

fn cells(recorded: &Recorded) -> Vec<Cell> {
    let mut cells = Vec::new();
    for (point, pass) in &recorded.stops {
        for action in Action::ALL {
            for end in [End::GoesOn, End::Killed] {
                let (point, pass) = (point.clone(), *pass);
                cells.push(Cell {
                    point,
                    pass,
                    action,
                    end,
                });
            }
        }
    }
    cells
}

#[test]
fn a_reader_of_ours_stopped_at_any_step_is_in_nobodys_way() {
    run_matrix(READS);
}

#[test]
fn a_writer_of_ours_stopped_at_any_step_makes_stock_busy_or_is_not_seen() {
    run_matrix(COMMITS);
}

#[test]
fn a_checkpointer_of_ours_stopped_at_any_step_shows_stock_no_wrong_page() {
    run_matrix(CHECKPOINTS);
}

#[test]
fn an_opener_or_closer_of_ours_stopped_at_any_step_takes_nothing_from_stock() {
    run_matrix(OPENINGS);
}
