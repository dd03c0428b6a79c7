//! What the screen shows, apart from how.

use std::collections::VecDeque;

use crate::sampler::{RoleFigures, Sample};

/// How many looks the small diagrams show.
const HISTORY: usize = 240;

/// How the processes are sorted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sort {
    /// Those that keep others waiting first.
    Role,
    /// By number.
    Pid,
    /// The longest in its role first.
    Seen,
}

impl Sort {
    pub(super) fn name(self) -> &'static str {
        match self {
            Sort::Role => "role",
            Sort::Pid => "pid",
            Sort::Seen => "time",
        }
    }

    fn next(self) -> Self {
        match self {
            Sort::Role => Sort::Pid,
            Sort::Pid => Sort::Seen,
            Sort::Seen => Sort::Role,
        }
    }
}

/// The figures of the small diagrams, the oldest first.
#[derive(Debug, Default)]
pub(super) struct History(VecDeque<u64>);

impl History {
    fn push(&mut self, value: f64) {
        if self.0.len() == HISTORY {
            self.0.pop_front();
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // A rounded height.
        self.0.push_back(value.max(0.0).round() as u64);
    }

    /// The newest ones, as many as `width`.
    pub(super) fn newest(&self, width: usize) -> Vec<u64> {
        let skipped = self.0.len().saturating_sub(width);
        self.0.iter().skip(skipped).copied().collect()
    }
}

/// What an answered key does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Action {
    /// Nothing beyond the state.
    None,
    /// Ends the command.
    Quit,
    /// Starts a checkpoint.
    Checkpoint,
}

/// What the screen shows.
#[derive(Debug)]
pub(super) struct State {
    pub(super) sample: Option<Sample>,
    /// Why the last look failed.
    pub(super) error: Option<String>,
    pub(super) commits: History,
    pub(super) frames: History,
    pub(super) log: History,
    pub(super) pending: History,
    pub(super) sort: Sort,
    pub(super) is_paused: bool,
    pub(super) has_help: bool,
    /// Whether it waits for the answer to whether a checkpoint is wanted.
    pub(super) asks: bool,
    /// What the last checkpoint did.
    pub(super) message: Option<String>,
    pub(super) is_checkpointing: bool,
}

impl State {
    pub(super) fn new() -> Self {
        State {
            sample: None,
            error: None,
            commits: History::default(),
            frames: History::default(),
            log: History::default(),
            pending: History::default(),
            sort: Sort::Role,
            is_paused: false,
            has_help: false,
            asks: false,
            message: None,
            is_checkpointing: false,
        }
    }

    /// Shows a look.
    pub(super) fn show(&mut self, look: anyhow::Result<Sample>) {
        let sample = match look {
            Ok(sample) => sample,
            Err(error) => {
                self.error = Some(format!("{error:#}"));
                return;
            }
        };
        let rates = sample.rates.unwrap_or_default();
        self.commits.push(rates.commits);
        self.frames.push(rates.frames);
        let log = sample.figures.log.as_ref().map_or(0, |log| log.frames);
        self.log.push(log.into());
        self.pending.push(sample.not_backfilled().into());
        self.sample = Some(sample);
        self.error = None;
    }

    /// Answers a key.
    pub(super) fn press(&mut self, key: char) -> Action {
        if self.asks {
            self.asks = false;
            if key == 'y' {
                self.is_checkpointing = true;
                return Action::Checkpoint;
            }
            return Action::None;
        }
        match key {
            'q' => return Action::Quit,
            'c' => self.asks = !self.is_checkpointing,
            's' => self.sort = self.sort.next(),
            'p' => self.is_paused = !self.is_paused,
            '?' | 'h' => self.has_help = !self.has_help,
            _ => {}
        }
        Action::None
    }

    /// The rows of the table, sorted.
    pub(super) fn rows(&self) -> Vec<&RoleFigures> {
        let rows = self.sample.iter().flat_map(|sample| &sample.roles);
        let mut rows: Vec<&RoleFigures> = rows.collect();
        match self.sort {
            Sort::Role => {}
            Sort::Pid => rows.sort_by_key(|row| row.pid),
            Sort::Seen => rows.sort_by(|a, b| b.seen_s.total_cmp(&a.seen_s)),
        }
        rows
    }
}
