#![allow(clippy::unwrap_used)]

use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::draw;
use crate::commands::top::state::{Action, State};
use crate::figures::{
    BlockerFigures, CheckpointFigures, DatabaseFigures, Figures, LogFigures, ProcessFigures,
    SlotFigures,
};
use crate::sampler::{Rates, RoleFigures, Sample, Totals, WaitingFigures};

/// A log of `frames` frames, `backfilled` of them in the database, that has room for 1000.
fn sample(frames: u32, backfilled: u32) -> Sample {
    let slot = |slot| SlotFigures {
        slot,
        frame: None,
        held: None,
        holders: Vec::new(),
        has_unknown_holders: false,
    };
    Sample {
        figures: Figures {
            path: "/srv/app.db".into(),
            time: "2026-12-01T12:00:00Z".into(),
            database: DatabaseFigures {
                kind: "sqlite",
                journal_mode: Some("wal"),
                page_size: Some(4096),
                pages: Some(12_345),
                bytes: 50_565_120,
            },
            log: Some(LogFigures {
                bytes: 4_120_032,
                frames,
                backfilled,
                frames_on_disk: 1000,
                generation: Some("0011223344556677".into()),
                checkpoint_sequence: Some(3),
                commits: Some(77),
                recovery_s: None,
            }),
            index: "valid",
            slots: (0..5).map(slot).collect(),
            checkpoints: vec![CheckpointFigures {
                mode: "passive",
                backfilled: frames,
                blocked_by: None,
            }],
            processes: Vec::new(),
            files: Vec::new(),
            unseen: Vec::new(),
        },
        roles: Vec::new(),
        queue: Vec::new(),
        totals: Totals::default(),
        rates: Some(Rates::default()),
        census_age_s: 0.5,
        look_s: 0.001,
    }
}

fn add_process(sample: &mut Sample, role: &'static str, pid: u32, frame: Option<u32>) {
    sample.figures.processes.push(ProcessFigures {
        pid,
        command: Some(format!("python3 {role}.py \u{1b}[2J")),
        user: Some("www".into()),
        started: None,
        is_stopped: false,
    });
    sample.roles.push(RoleFigures {
        role,
        pid: Some(pid),
        frame,
        seen_s: f64::from(pid) / 10.0,
    });
}

fn pinned() -> Sample {
    let mut sample = sample(800, 200);
    add_process(&mut sample, "writer", 9, None);
    add_process(&mut sample, "reader", 4321, Some(200));
    sample.figures.slots[1].frame = Some(200);
    sample.figures.slots[1].held = Some("shared");
    sample.figures.checkpoints[0].blocked_by = Some(BlockerFigures {
        lock: "READ(1)".into(),
        frame: Some(200),
        holders: vec![4321],
    });
    sample
}

fn state(samples: impl IntoIterator<Item = Sample>) -> State {
    let mut state = State::new();
    for sample in samples {
        state.show(Ok(sample));
    }
    state
}

fn screen(state: &State, width: u16, height: u16) -> String {
    drawn(state, width, height).backend().to_string()
}

fn drawn(state: &State, width: u16, height: u16) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, state, true)).unwrap();
    terminal
}

#[test]
fn idle_database_is_drawn_with_a_whole_log() {
    insta::assert_snapshot!(screen(&state([sample(600, 600)]), 80, 24));
}

#[test]
fn pinned_log_is_drawn_with_the_reader_that_pins_it() {
    let rates = |commits: f64| Rates {
        commits,
        frames: 2.0 * commits,
        log_bytes: 0.0,
    };
    let samples = (0..40).map(|look| Sample {
        rates: Some(rates(f64::from(look))),
        ..pinned()
    });
    insta::assert_snapshot!(screen(&state(samples), 80, 24));
}

#[test]
fn busy_queue_is_drawn_with_its_writers() {
    let mut sample = sample(600, 600);
    add_process(&mut sample, "writer", 9, None);
    for pid in 10..13 {
        add_process(&mut sample, "waiting", pid, None);
        sample.queue.push(WaitingFigures {
            pid: Some(pid),
            thread: pid,
            waited_s: 0.02,
        });
    }
    insta::assert_snapshot!(screen(&state([sample]), 80, 24));
}

#[test]
fn database_without_an_index_is_drawn() {
    let mut sample = sample(0, 0);
    sample.figures.index = "missing";
    sample.figures.slots.clear();
    sample.figures.checkpoints.clear();
    sample.rates = None;
    insta::assert_snapshot!(screen(&state([sample]), 80, 24));
}

#[test]
fn rollback_database_is_drawn_without_a_log() {
    let mut sample = sample(0, 0);
    sample.figures.database.journal_mode = Some("rollback");
    sample.figures.log = None;
    sample.figures.index = "missing";
    sample.figures.slots.clear();
    sample.figures.checkpoints.clear();
    insta::assert_snapshot!(screen(&state([sample]), 80, 24));
}

#[test]
fn narrow_terminal_shows_less() {
    insta::assert_snapshot!(screen(&state([pinned()]), 30, 16));
}

#[test]
fn terminal_of_any_size_is_drawn() {
    let mut state = state([pinned()]);
    for has_help in [false, true] {
        state.has_help = has_help;
        for width in 0..90 {
            for height in 0..30 {
                drawn(&state, width, height);
            }
        }
    }
}

#[test]
fn screen_without_colors_has_none() {
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    let state = state([pinned()]);
    terminal.draw(|frame| draw(frame, &state, false)).unwrap();
    let cells = terminal.backend().buffer().content();
    let plain = ratatui::style::Color::Reset;
    assert!(
        cells
            .iter()
            .all(|cell| cell.fg == plain && cell.bg == plain)
    );
}

#[test]
fn database_that_vanishes_leaves_its_last_figures() {
    let mut state = state([pinned()]);
    state.show(Err(anyhow::anyhow!("app.db: cannot find the database")));
    let screen = screen(&state, 80, 24);
    assert!(screen.contains("cannot find the database"), "{screen}");
    assert!(screen.contains("reader at 200"), "{screen}");
}

#[test]
fn checkpoint_starts_only_after_it_was_confirmed() {
    let mut state = state([pinned()]);
    assert_eq!(state.press('c'), Action::None);
    assert!(screen(&state, 80, 24).contains("y/n"));
    assert_eq!(state.press('q'), Action::None, "anything but y is a no");
    assert_eq!(state.press('y'), Action::None);
    assert_eq!(state.press('c'), Action::None);
    assert_eq!(state.press('y'), Action::Checkpoint);
    assert_eq!(state.press('c'), Action::None);
    assert!(!state.asks, "one checkpoint at a time");
    assert_eq!(state.press('q'), Action::Quit);
}

#[test]
fn processes_are_sorted_by_the_key() {
    let mut state = state([pinned()]);
    let order = |state: &State| state.rows().iter().map(|row| row.role).collect::<Vec<_>>();
    assert_eq!(order(&state), ["writer", "reader"]);
    state.press('s');
    assert_eq!(order(&state), ["writer", "reader"]);
    state.press('s');
    assert_eq!(order(&state), ["reader", "writer"]);
}
