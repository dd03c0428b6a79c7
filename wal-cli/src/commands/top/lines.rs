//! A look as one line of text.

use std::io::{self, Write};

use crate::output::units::count;
use crate::output::{DIM, Report, WARN, escape_short, paint};
use crate::sampler::Sample;

impl Report for Sample {
    const KIND: &'static str = "top";

    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let time = self.figures.time.split(['T', 'Z']).nth(1);
        write!(out, "{}", paint(DIM, time.unwrap_or_default()))?;
        match &self.figures.log {
            Some(log) => {
                let (frames, backfilled) = (count(log.frames), count(log.backfilled));
                write!(out, "  log {frames} frames, {backfilled} backfilled")?;
            }
            None => write!(out, "  no log")?,
        }
        if let Some(rates) = &self.rates {
            write!(out, "  {} commits/s", per_second(rates.commits))?;
            write!(out, "  {} frames/s", per_second(rates.frames))?;
        }
        let readers = self.roles.iter().filter(|row| row.role == "reader").count();
        write!(out, "  readers {readers}  queue {}", self.queue.len())?;
        if let Some(blocked) = blocked(self) {
            write!(out, "  {}", paint(WARN, blocked))?;
        }
        writeln!(out)
    }
}

/// A rate, as precise as it is of use.
pub(super) fn per_second(rate: f64) -> String {
    match rate {
        rate if rate < 10.0 => format!("{rate:.1}"),
        rate => format!("{rate:.0}"),
    }
}

/// What keeps a passive checkpoint from the end of the log.
pub(super) fn blocked(sample: &Sample) -> Option<String> {
    let mut passive = sample.figures.checkpoints.iter();
    let blocker = passive
        .find(|of| of.mode == "passive")?
        .blocked_by
        .as_ref()?;
    let at = blocker
        .frame
        .map(|frame| format!(" at frame {}", count(frame)));
    let by = match &blocker.holders[..] {
        [] => "a process that is not known".to_owned(),
        [pid] => {
            let process = sample.figures.process(*pid);
            let command = process.and_then(|process| process.command.as_deref());
            let command = command.map(|command| format!(" ({})", escape_short(command, 30)));
            format!("process {pid}{}", command.unwrap_or_default())
        }
        pids => {
            let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
            format!("processes {}", pids.join(", "))
        }
    };
    let (lock, at) = (&blocker.lock, at.unwrap_or_default());
    Some(format!("checkpoint held back by {lock}{at}: {by}"))
}
