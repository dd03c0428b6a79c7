//! The end of the lines where a process sits.

use std::io::{BufRead, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::wire::{Order, Progress, Report};

/// How often a process gives a sign of life.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// Sends reports and takes orders.
pub(crate) struct Post {
    reports: Box<dyn Write + Send>,
    started: Receiver<()>,
    stopped: Arc<AtomicBool>,
    progress_due: Instant,
}

impl Post {
    /// Orders are read by a thread of their own, which ends with them.
    pub(crate) fn new(
        orders: impl BufRead + Send + 'static,
        reports: impl Write + Send + 'static,
    ) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let (start, started) = channel();
        thread::spawn({
            let stopped = stopped.clone();
            move || {
                for line in orders.lines().map_while(Result::ok) {
                    match serde_json::from_str(&line) {
                        Ok(Order::Start) => drop(start.send(())),
                        Ok(Order::Stop) | Err(_) => break,
                    }
                }
                // Whoever waits for the start is woken, as `start` is dropped.
                stopped.store(true, Ordering::SeqCst);
            }
        });
        Post {
            reports: Box::new(reports),
            started,
            stopped,
            progress_due: Instant::now(),
        }
    }

    /// Hands a report over at once.
    pub(crate) fn send(&mut self, report: &Report) -> Result<()> {
        let mut line = serde_json::to_vec(report)?;
        line.push(b'\n');
        self.reports
            .write_all(&line)
            .and_then(|()| self.reports.flush())
            .context("the supervisor has gone")
    }

    /// Sends the progress if it is time.
    pub(crate) fn progress(&mut self, progress: &Progress) -> Result<()> {
        let now = Instant::now();
        if now < self.progress_due {
            return Ok(());
        }
        self.progress_due = now + PROGRESS_EVERY;
        self.send(&Report::Progress(*progress))
    }

    /// Waits until the work begins; false if it never does. The wait ends with
    /// the supervisor at the latest, whose end closes the pipe.
    pub(crate) fn wait_for_start(&self) -> bool {
        self.started.recv().is_ok()
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }
}
