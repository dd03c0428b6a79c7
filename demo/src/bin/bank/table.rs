//! What is shown while the members work: a table on a terminal, else one line
//! a second.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::assignment::{Engine, Role};
use crate::member::{Member, State};

/// Over how many draws a rate is taken, so that it is of the last second.
const SAMPLES: usize = 10;
const LINE_EVERY: Duration = Duration::from_secs(1);

/// A writer at work that has not committed for so long is shown as starved.
const STARVED_AFTER: Duration = Duration::from_secs(10);

/// Eighty columns hold a row. The waits for Write are in milliseconds: the mean
/// over all commits, and the longest.
const HEADING: [&str; 9] = [
    "process", "pid", "state", "per s", "total", "wait ms", "longest", "log", "kills",
];

/// What there is to say of all members together.
pub(crate) struct Overview {
    pub(crate) phase: &'static str,
    pub(crate) elapsed: Duration,
    pub(crate) kills: u32,
}

pub(crate) struct Table {
    /// The terminal's, if it is one. The whole table is one bar's text, so
    /// that it is drawn at once.
    bar: Option<ProgressBar>,
    samples: VecDeque<(Instant, Vec<u64>)>,
    line_due: Instant,
    seconds: Duration,
}

impl Table {
    pub(crate) fn new(seconds: Duration) -> Self {
        Table {
            bar: io::stdout().is_terminal().then(|| terminal_bar(seconds)),
            samples: VecDeque::new(),
            line_due: Instant::now() + LINE_EVERY,
            seconds,
        }
    }

    /// Shows the present state.
    pub(crate) fn draw(&mut self, members: &[Member], overview: &Overview) -> Result<()> {
        let now = Instant::now();
        let done: Vec<u64> = members.iter().map(Member::done).collect();
        let rates = self.rates(now, &done);
        self.samples.push_back((now, done));
        if self.samples.len() > SAMPLES {
            self.samples.pop_front();
        }
        if let Some(bar) = &self.bar {
            bar.set_position(millis(overview.elapsed.min(self.seconds)));
            bar.set_prefix(self.clock(overview));
            bar.set_message(rows(members, &rates, overview)?);
        } else if now >= self.line_due {
            self.line_due = now + LINE_EVERY;
            writeln!(io::stdout(), "{}", self.line(members, &rates, overview))?;
        }
        Ok(())
    }

    /// Leaves the table on the screen, with the cursor below.
    pub(crate) fn finish(&self) -> Result<()> {
        if let Some(bar) = &self.bar {
            bar.abandon();
            writeln!(io::stdout())?;
        }
        Ok(())
    }

    /// What each member did in a second, since the oldest sample.
    fn rates(&self, now: Instant, done: &[u64]) -> Vec<u64> {
        let Some((then, before)) = self.samples.front() else {
            return vec![0; done.len()];
        };
        let seconds = (now - *then).as_secs_f64().max(0.001);
        done.iter()
            .zip(before)
            .map(|(done, before)| rounded(done.saturating_sub(*before) as f64 / seconds))
            .collect()
    }

    fn clock(&self, overview: &Overview) -> String {
        format!(
            "{:.1} of {:.1} s",
            overview.elapsed.min(self.seconds).as_secs_f64(),
            self.seconds.as_secs_f64()
        )
    }

    fn line(&self, members: &[Member], rates: &[u64], overview: &Overview) -> String {
        let of = |role, engine| {
            let (mut rate, mut total) = (0, 0);
            for (member, member_rate) in members.iter().zip(rates) {
                if member.role() == role && member.engine() == engine {
                    rate += member_rate;
                    total += member.done();
                }
            }
            format!("{} ({}/s)", HumanCount(total), HumanCount(rate))
        };
        format!(
            "{:>5.1} s  {}: transfers {} + stock {}, snapshots {} + stock {}, checkpoints {}, \
             {}, kills {}",
            overview.elapsed.as_secs_f64(),
            overview.phase,
            of(Role::Writer, Engine::Ours),
            of(Role::Writer, Engine::Stock),
            of(Role::Reader, Engine::Ours),
            of(Role::Reader, Engine::Stock),
            of(Role::Checkpointer, Engine::Ours),
            log(members),
            overview.kills,
        )
    }
}

fn terminal_bar(seconds: Duration) -> ProgressBar {
    let target = ProgressDrawTarget::stdout_with_hz(20);
    let bar = ProgressBar::with_draw_target(Some(millis(seconds)), target);
    let style = ProgressStyle::with_template("{msg}\n[{bar:60.cyan}] {prefix}");
    // The template is a constant; a plain bar would do as well.
    if let Ok(style) = style {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

fn rows(members: &[Member], rates: &[u64], overview: &Overview) -> Result<String> {
    let heading = line_of(HEADING);
    let rule = "-".repeat(heading.len());
    let mut text = heading;
    let mut group = None;
    for (member, rate) in members.iter().zip(rates) {
        let next = (member.role(), member.engine());
        if group.replace(next) != Some(next) {
            let title = format!("-- {} ", member.engine());
            write!(text, "\n{title:-<width$}", width = rule.len())?;
        }
        write!(text, "\n{}", row(member, *rate))?;
    }
    let Overview { phase, kills, .. } = overview;
    write!(text, "\n{rule}\n{phase}: {}, kills {kills}", log(members))?;
    Ok(text)
}

fn row(member: &Member, rate: u64) -> String {
    let state = match member.state {
        State::Starting => "starting",
        State::Running if member.without_commit() > STARVED_AFTER => "starved",
        State::Running => "running",
        State::Killed => "killed",
        State::Stopping => "stopping",
        State::Ended => "ended",
    };
    let waits = (member.role() == Role::Writer && member.done() > 0).then(|| {
        let (waited, longest) = member.waits();
        let millis = |wait: Duration| wait.as_secs_f64() * 1e3;
        (millis(waited) / member.done() as f64, millis(longest))
    });
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let cells = [
        member.name(),
        or_dash(member.pid().map(|pid| pid.to_string())),
        state.to_owned(),
        HumanCount(rate).to_string(),
        HumanCount(member.done()).to_string(),
        or_dash(waits.map(|(mean, _)| format!("{mean:.2}"))),
        or_dash(waits.map(|(_, longest)| format!("{longest:.1}"))),
        or_dash(member.progress.log.map(|log| log.frames.to_string())),
        member.restarts.to_string(),
    ];
    line_of(cells.each_ref().map(String::as_str))
}

fn line_of([name, pid, state, rate, total, wait, longest, log, kills]: [&str; 9]) -> String {
    format!(
        "{name:<14} {pid:>7} {state:<8} {rate:>7} {total:>10} \
         {wait:>7} {longest:>7} {log:>6} {kills:>5}"
    )
}

/// The log as the checkpointer saw it last.
fn log(members: &[Member]) -> String {
    let checkpointers = members.iter().filter(|m| m.role() == Role::Checkpointer);
    match checkpointers
        .filter_map(|member| member.progress.log)
        .next()
    {
        Some(log) => format!(
            "log {:>6} frames, backfilled {:>6}",
            log.frames,
            log.backfilled.unwrap_or(0)
        ),
        None => "log not seen yet".to_owned(),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

// Rates are far below 2^53.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn rounded(rate: f64) -> u64 {
    rate.round() as u64
}
