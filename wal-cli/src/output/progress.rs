//! Progress on stderr, for what takes over a second.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How long a command runs before it shows its progress.
const QUIET: Duration = Duration::from_secs(1);

/// Shows how far a command has come. Where stderr is no terminal it shows nothing.
pub(crate) struct Progress {
    bar: ProgressBar,
    /// When it appears; `None` once it has, and if it never does.
    appears: Option<Instant>,
}

impl Progress {
    pub(super) fn new(what: &'static str, total: u64, is_shown: bool) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
        let style = "{msg} {wide_bar} {percent}% {pos}/{len} {elapsed} (left: {eta})";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        bar.set_message(what);
        let appears = is_shown.then(|| Instant::now() + QUIET);
        Progress { bar, appears }
    }

    /// `done` of `total` units are done.
    pub(crate) fn set(&mut self, done: u64, total: u64) {
        if self.appears.is_some_and(|at| Instant::now() >= at) {
            self.appears = None;
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.set_length(total);
        self.bar.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
