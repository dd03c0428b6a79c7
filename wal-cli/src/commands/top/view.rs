//! How the screen is drawn.

#[cfg(test)]
mod tests;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Row, Sparkline, Table};

use super::lines::{blocked, per_second};
use super::state::{History, State};
use crate::figures::{Figures, LogFigures, SlotFigures};
use crate::output::units::{bytes, count};
use crate::output::{escape, escape_short};
use crate::sampler::{RoleFigures, Sample};

/// The styles of the screen; without colours they differ in weight alone.
#[derive(Clone, Copy)]
struct Theme {
    has_colors: bool,
}

impl Theme {
    fn color(self, color: Color) -> Style {
        match self.has_colors {
            true => Style::new().fg(color),
            false => Style::new(),
        }
    }

    fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    fn warn(self) -> Style {
        self.color(Color::Yellow).add_modifier(Modifier::BOLD)
    }
}

/// Draws the state. An area that is too small shows less.
pub(super) fn draw(frame: &mut Frame<'_>, state: &State, has_colors: bool) {
    let theme = Theme { has_colors };
    let areas = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(4),
        Constraint::Length(4),
        Constraint::Min(3),
        Constraint::Length(2),
        Constraint::Length(1),
    ]);
    let [head, log, rates, table, checkpoint, keys] = areas.areas(frame.area());
    frame.render_widget(header(state, theme), head);
    if let Some(sample) = &state.sample {
        draw_log(frame, log, sample, theme);
        draw_rates(frame, rates, state, theme);
        draw_processes(frame, table, state, sample, theme);
        frame.render_widget(foot(state, sample, theme), checkpoint);
    }
    let help = " q quit  c checkpoint  s sort  p pause  ? help";
    frame.render_widget(Paragraph::new(help).style(theme.dim()), keys);
    if state.has_help {
        draw_help(frame, theme);
    }
}

fn header(state: &State, theme: Theme) -> Paragraph<'static> {
    let mut lines = Vec::new();
    if let Some(sample) = &state.sample {
        let figures = &sample.figures;
        let paused = if state.is_paused { "  PAUSED" } else { "" };
        let time = figures.time.split(['T', 'Z']).nth(1).unwrap_or_default();
        lines.push(Line::from(vec![
            Span::styled(format!(" {}", escape(&figures.path)), theme.strong()),
            Span::styled(format!("  {time}"), theme.dim()),
            Span::styled(paused, theme.warn()),
        ]));
        lines.push(Line::from(format!(" {}", summary(figures))));
    }
    if let Some(error) = &state.error {
        lines.truncate(1);
        lines.push(Line::styled(format!(" {}", escape(error)), theme.warn()));
    }
    Paragraph::new(lines)
}

fn summary(figures: &Figures) -> String {
    let database = &figures.database;
    let mode = match (database.kind, database.journal_mode) {
        ("sqlite", Some("wal")) => "SQLite, WAL",
        ("sqlite", _) => "SQLite, rollback mode: no log",
        (kind, _) => kind,
    };
    let pages = database.pages.map_or("?".to_owned(), count);
    let of = database
        .page_size
        .map_or("?".to_owned(), |size| size.to_string());
    let mut parts = vec![mode.to_owned(), format!("{pages} pages of {of}")];
    if let Some(log) = &figures.log {
        parts.push(format!("log {}", bytes(log.bytes)));
        if let Some(generation) = &log.generation {
            parts.push(format!("generation {generation}"));
        }
    }
    if figures.index != "valid" {
        parts.push(format!("index {}", figures.index));
    }
    parts.join(" · ")
}

/// The log as a bar, with the read marks above it and the figures below.
fn draw_log(frame: &mut Frame<'_>, area: Rect, sample: &Sample, theme: Theme) {
    let block = Block::bordered().title(" log ").border_style(theme.dim());
    let block = block.borders(ratatui::widgets::Borders::TOP);
    let inside = block.inner(area);
    frame.render_widget(block, area);
    let Some(log) = &sample.figures.log else {
        frame.render_widget(Paragraph::new(" there is no log"), inside);
        return;
    };
    let width = usize::from(inside.width.saturating_sub(2));
    let marks = marks(&sample.figures.slots, log, width);
    let legend = format!(
        " {} backfilled · {} frames · room for {}",
        count(log.backfilled),
        count(log.frames),
        count(log.frames_on_disk)
    );
    let lines = vec![
        Line::styled(format!(" {marks}"), theme.warn()),
        bar(log, width, theme),
        Line::styled(legend, theme.dim()),
    ];
    frame.render_widget(Paragraph::new(lines), inside);
}

/// The column of `frame` in a bar of `width`.
fn column(log: &LogFigures, frame: u32, width: usize) -> usize {
    let all = log.frames_on_disk.max(log.frames.into()).max(1);
    let column = u128::from(frame) * width as u128 / u128::from(all);
    usize::try_from(column).unwrap_or(width).min(width)
}

/// The held slots, each by its number above the frame of its mark.
fn marks(slots: &[SlotFigures], log: &LogFigures, width: usize) -> String {
    let mut marks = vec![' '; width];
    for slot in slots.iter().filter(|slot| slot.held.is_some()) {
        let Some(frame) = slot.frame else { continue };
        let at = column(log, frame, width).saturating_sub(1);
        let free = (at..width).find(|at| marks[*at] == ' ');
        if let Some(at) = free {
            marks[at] = char::from_digit(slot.slot.into(), 10).unwrap_or('?');
        }
    }
    let marks: String = marks.into_iter().collect();
    marks.trim_end().to_owned()
}

fn bar(log: &LogFigures, width: usize, theme: Theme) -> Line<'static> {
    let backfilled = column(log, log.backfilled.min(log.frames), width);
    let end = column(log, log.frames, width);
    Line::from(vec![
        Span::raw(" "),
        Span::styled("█".repeat(backfilled), theme.color(Color::Green)),
        Span::styled("▓".repeat(end - backfilled), theme.color(Color::Cyan)),
        Span::styled("░".repeat(width - end), theme.dim()),
    ])
}

fn draw_rates(frame: &mut Frame<'_>, area: Rect, state: &State, theme: Theme) {
    let Some(sample) = &state.sample else { return };
    let columns: [Rect; 4] = Layout::horizontal([Constraint::Fill(1); 4]).areas(area);
    let rate = |value: fn(&crate::sampler::Rates) -> f64| {
        sample
            .rates
            .as_ref()
            .map_or("-".to_owned(), |rates| per_second(value(rates)))
    };
    let frames = sample.figures.log.as_ref().map_or(0, |log| log.frames);
    let all: [(&str, String, &History); 4] = [
        ("commits/s", rate(|rates| rates.commits), &state.commits),
        ("frames/s", rate(|rates| rates.frames), &state.frames),
        ("log", count(frames), &state.log),
        (
            "to backfill",
            count(sample.not_backfilled()),
            &state.pending,
        ),
    ];
    for (column, (name, value, history)) in columns.into_iter().zip(all) {
        let title = format!(" {name} {value} ");
        let block = Block::bordered().title(title).border_style(theme.dim());
        let block = block.borders(ratatui::widgets::Borders::TOP);
        let width = usize::from(block.inner(column).width.saturating_sub(1));
        let newest = history.newest(width);
        let diagram = Sparkline::default().data(newest).block(block);
        frame.render_widget(diagram.style(theme.color(Color::Cyan)), column);
    }
}

fn draw_processes(frame: &mut Frame<'_>, area: Rect, state: &State, sample: &Sample, theme: Theme) {
    let rows = state.rows();
    let (number, sort, queue) = (rows.len(), state.sort.name(), sample.queue.len());
    let title = format!(" processes {number} · by {sort} · queue of writers {queue} ");
    let rows = rows.into_iter().map(|row| cells(row, sample, theme));
    let widths = [
        Constraint::Length(24),
        Constraint::Length(8),
        Constraint::Length(9),
        Constraint::Length(7),
        Constraint::Min(8),
    ];
    let block = Block::bordered().title(title).border_style(theme.dim());
    let block = block.borders(ratatui::widgets::Borders::TOP);
    let head = Row::new([" ROLE", "PID", "USER", "FOR", "COMMAND"]).style(theme.dim());
    let table = Table::new(rows, widths).header(head).block(block);
    frame.render_widget(table, area);
}

fn cells(row: &RoleFigures, sample: &Sample, theme: Theme) -> Row<'static> {
    let frames = sample.figures.log.as_ref().map_or(0, |log| log.frames);
    let is_behind = row.frame.is_some_and(|frame| frame < frames);
    let role = match (row.role, row.frame) {
        ("reader", Some(frame)) => format!(" reader at {}", count(frame)),
        (role, _) => format!(" {role}"),
    };
    let process = sample.process(row);
    let is_stopped = process.is_some_and(|process| process.is_stopped);
    let role = if is_stopped {
        format!("{role}, stopped")
    } else {
        role
    };
    let user = process.and_then(|process| process.user.as_deref());
    let command = process.and_then(|process| process.command.as_deref());
    let style = match row.role {
        "writer" => theme.color(Color::Green),
        _ if is_stopped || is_behind => theme.warn(),
        "idle" => theme.dim(),
        _ => Style::new(),
    };
    Row::new([
        role,
        row.pid.map_or("?".to_owned(), |pid| pid.to_string()),
        escape_short(user.unwrap_or("?"), 9),
        seconds(row.seen_s),
        escape_short(command.unwrap_or("?"), 200),
    ])
    .style(style)
}

fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 0.001 => "-".to_owned(),
        s if s < 1.0 => format!("{:.0}ms", s * 1e3),
        s if s < 100.0 => format!("{s:.0}s"),
        s if s < 6000.0 => format!("{:.0}m", s / 60.0),
        s => format!("{:.0}h", s / 3600.0),
    }
}

fn foot(state: &State, sample: &Sample, theme: Theme) -> Paragraph<'static> {
    let blocked = match blocked(sample) {
        Some(blocked) => Line::styled(format!(" {blocked}"), theme.warn()),
        None if sample.figures.checkpoints.is_empty() => Line::default(),
        None => Line::from(" nothing holds back a checkpoint"),
    };
    let message = if state.asks {
        let question = " Run a passive checkpoint of this database now? y/n";
        Line::styled(question, theme.strong())
    } else if state.is_checkpointing {
        Line::from(" checkpoint: running")
    } else if let Some(message) = &state.message {
        Line::from(format!(" {}", escape(message)))
    } else {
        let unseen = sample.figures.unseen.first();
        let unseen = unseen.map(|unseen| format!(" not seen: {unseen}"));
        Line::styled(unseen.unwrap_or_default(), theme.dim())
    };
    Paragraph::new(vec![blocked, message])
}

const HELP: [&str; 12] = [
    " The bar is the log file: █ frames that are in",
    " the database file, ▓ frames that are not yet,",
    " ░ room that the log left behind. The numbers",
    " above it are held read slots at their marks: a",
    " checkpoint copies no frame behind the first.",
    "",
    " FOR is how long a process was seen in its role.",
    "",
    " q Esc  quit        s  sort the processes",
    " p      pause       c  checkpoint, after y",
    " ?      this help",
    "",
];

fn draw_help(frame: &mut Frame<'_>, theme: Theme) {
    let whole = frame.area();
    let (width, height) = (whole.width.min(52), whole.height.min(13));
    let area = Rect {
        x: (whole.width - width) / 2,
        y: (whole.height - height) / 2,
        width,
        height,
    };
    frame.render_widget(Clear, area);
    let block = Block::bordered()
        .title(" help ")
        .border_style(theme.strong());
    frame.render_widget(Paragraph::new(HELP.join("\n")).block(block), area);
}
