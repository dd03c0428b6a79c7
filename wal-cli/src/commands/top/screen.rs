//! The terminal: keys, resizes, the checkpoint that a key starts.

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use wal::{CheckpointMode, CheckpointOptions};
use wal_core::background;

use super::state::{Action, State};
use super::view;
use crate::commands::open::{PATIENCE as FOR_OWNER, open};
use crate::interrupt::{self, Interrupt};
use crate::output::units::counted;
use crate::sampler::Sampler;

/// How long a signal may go unnoticed.
const PATIENCE: Duration = Duration::from_millis(100);

/// Shows the database until a key or a signal ends it. The terminal is restored then, and
/// also by a panic.
pub(super) fn run(sampler: Sampler, interval: Duration) -> anyhow::Result<()> {
    let terminal = ratatui::try_init().context("cannot use the terminal")?;
    let outcome = show(terminal, sampler, interval);
    let restored = ratatui::try_restore().context("cannot restore the terminal");
    outcome.and(restored)
}

fn show(
    mut terminal: DefaultTerminal,
    mut sampler: Sampler,
    interval: Duration,
) -> anyhow::Result<()> {
    let interrupt = interrupt::catch()?;
    let stdout = std::io::stdout();
    let has_colors = anstream::AutoStream::choice(&stdout) != anstream::ColorChoice::Never;
    let (sender, done) = mpsc::channel();
    let mut state = State::new();
    let mut due = Instant::now();
    while !interrupt.is_set() {
        if let Ok(message) = done.try_recv() {
            state.is_checkpointing = false;
            state.message = Some(message);
        }
        if Instant::now() >= due {
            if !state.is_paused {
                state.show(sampler.look());
            }
            due = Instant::now() + interval;
        }
        terminal.draw(|frame| view::draw(frame, &state, has_colors))?;
        let left = due.saturating_duration_since(Instant::now());
        if !wait_for_keys(interrupt, left.min(PATIENCE)) {
            break;
        }
        while event::poll(Duration::ZERO)? {
            // A resize needs nothing but the next drawing.
            let Event::Key(key) = event::read()? else {
                continue;
            };
            match press(&mut state, key) {
                Action::None => {}
                Action::Quit => return Ok(()),
                Action::Checkpoint => start_checkpoint(sampler.path(), &sender)?,
            }
        }
    }
    Ok(())
}

/// Waits for a key or a signal; false once the terminal is gone. The library that reads keys would
/// read the end of a terminal again and again.
fn wait_for_keys(interrupt: Interrupt, time: Duration) -> bool {
    let keys = std::io::stdin();
    let gone = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
    let readable = |of| PollFd::new(of, PollFlags::POLLIN);
    let mut polled = [readable(keys.as_fd()), readable(interrupt.descriptor())];
    let time = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
    // An interrupted wait is a short one.
    let _ = poll(&mut polled, time);
    let state = polled[0].revents().unwrap_or(PollFlags::empty());
    !state.intersects(gone)
}

fn press(state: &mut State, key: KeyEvent) -> Action {
    if key.kind == KeyEventKind::Release {
        return Action::None;
    }
    match key.code {
        // In raw mode Ctrl-C is a key.
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Action::Quit,
        KeyCode::Esc if state.asks || state.has_help => {
            state.asks = false;
            state.has_help = false;
            Action::None
        }
        KeyCode::Esc => Action::Quit,
        KeyCode::Char(key) => state.press(key),
        _ => Action::None,
    }
}

/// Starts a passive checkpoint in a thread; its outcome is sent.
fn start_checkpoint(path: &Path, sender: &Sender<String>) -> anyhow::Result<()> {
    let (path, sender): (PathBuf, _) = (path.to_owned(), sender.clone());
    let work = move || {
        let message = match checkpoint(&path) {
            Ok(message) => message,
            Err(error) => format!("checkpoint failed: {error:#}"),
        };
        // The screen may have ended.
        let _ = sender.send(message);
    };
    background::spawn("walctl-checkpoint", work).context("cannot start a thread")?;
    Ok(())
}

fn checkpoint(path: &Path) -> anyhow::Result<String> {
    let began = Instant::now();
    let database = open(path, FOR_OWNER)?;
    let report = database.checkpoint_with(CheckpointOptions::new(CheckpointMode::Passive))?;
    database.close()?;
    let frames = counted(report.log_frames, "frame");
    let took = began.elapsed().as_millis();
    let backfilled = report.backfilled;
    Ok(format!(
        "checkpoint: {backfilled} of {frames} are in the database file, after {took} ms"
    ))
}
